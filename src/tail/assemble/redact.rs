//! What is replaced in an event before it reaches the disk.
//!
//! The patterns are applied in their order, each to what the one before made of the whole event. Of a line that comes out
//! in pieces each piece is looked at alone: what a cut goes through is not found.

use std::borrow::Cow;

use crate::config::Redact;

/// `[[sources.redact]]`.
#[derive(Clone, Debug)]
pub(super) struct Redaction(Vec<Redact>);

impl Redaction {
    pub(super) fn new(rules: &[Redact]) -> Self {
        Self(rules.to_vec())
    }

    pub(super) const fn changes_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// The text as it may leave the file; borrowed where no pattern matches.
    #[inline]
    pub(super) fn apply<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut text = Cow::Borrowed(text);
        for rule in &self.0 {
            if let Cow::Owned(replaced) = rule.pattern.replace_all(&text, rule.replacement.as_bytes()) {
                text = Cow::Owned(replaced);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    fn redaction(rules: &[(&str, &str)]) -> Redaction {
        let rule = |&(pattern, replacement): &(&str, &str)| Redact {
            pattern: Regex::new(pattern).unwrap(),
            replacement: replacement.to_owned(),
        };
        Redaction::new(&rules.iter().map(rule).collect::<Vec<_>>())
    }

    #[test]
    fn every_match_is_replaced_and_groups_may_be_kept() {
        let redaction = redaction(&[(r"(?<key>token)=\w+", "${key}=***"), (r"\d{4}-\d{4}", "card")]);
        assert_eq!(&*redaction.apply(b"token=a1 1234-5678 token=b2"), b"token=*** card token=***");
    }

    #[test]
    fn a_later_pattern_sees_what_an_earlier_one_made() {
        assert_eq!(&*redaction(&[("a", "b"), ("b+", "c")]).apply(b"xaby"), b"xcy");
    }

    #[test]
    fn an_event_without_a_match_is_not_copied() {
        assert!(matches!(redaction(&[("secret", "-")]).apply(b"plain \xFF"), Cow::Borrowed(_)));
    }
}

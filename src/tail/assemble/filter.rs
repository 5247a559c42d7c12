//! Which events are kept.
//!
//! Whole events are judged, after their lines were joined and before anything in them is replaced. Of a line that comes
//! out in pieces each piece is judged alone: the others may not be there yet.

use regex::bytes::Regex;

use crate::event::SkipReason;

/// `include_lines` and `exclude_lines`.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

impl Filter {
    pub(super) fn new(include: &[Regex], exclude: &[Regex]) -> Self {
        Self { include: include.to_vec(), exclude: exclude.to_vec() }
    }

    pub(super) const fn keeps_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Why an event is left out; `None` if it is kept.
    #[inline]
    pub(super) fn leaves_out(&self, text: &[u8]) -> Option<SkipReason> {
        if !self.include.is_empty() && !self.include.iter().any(|pattern| pattern.is_match(text)) {
            return Some(SkipReason::NotIncluded);
        }
        self.exclude.iter().any(|pattern| pattern.is_match(text)).then_some(SkipReason::Excluded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let compiled =
            |patterns: &[&str]| patterns.iter().map(|text| Regex::new(text).unwrap()).collect::<Vec<_>>();
        Filter::new(&compiled(include), &compiled(exclude))
    }

    #[test]
    fn without_patterns_everything_is_kept() {
        assert!(filter(&[], &[]).keeps_all());
        assert_eq!(filter(&[], &[]).leaves_out(b"anything"), None);
    }

    #[test]
    fn one_matching_include_pattern_is_enough_and_an_exclude_pattern_wins_over_it() {
        let filter = filter(&["^ERROR", "^WARN"], &["harmless", "ignored"]);
        assert_eq!(filter.leaves_out(b"ERROR disk"), None);
        assert_eq!(filter.leaves_out(b"WARN disk"), None);
        assert_eq!(filter.leaves_out(b"INFO disk"), Some(SkipReason::NotIncluded));
        assert_eq!(filter.leaves_out(b"INFO harmless"), Some(SkipReason::NotIncluded));
        assert_eq!(filter.leaves_out(b"WARN harmless"), Some(SkipReason::Excluded));
    }

    #[test]
    fn lines_need_not_be_utf8() {
        assert_eq!(filter(&["disk"], &[]).leaves_out(b"\xFF disk \xE9"), None);
    }
}

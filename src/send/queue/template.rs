//! Where a message goes: a subject, a topic or a routing key with places for the agent and the source.

use crate::send::places::Places;

/// What separates and what means something else in the addresses of a protocol.
#[derive(Debug)]
pub(in crate::send) struct Syntax {
    /// How the address is called there, for messages.
    pub(in crate::send) noun: &'static str,
    /// Characters that a name put into a place must not bring along: separators, wildcards.
    pub(in crate::send) special: &'static [char],
    /// Those of them that may not stand in a literal part either.
    pub(in crate::send) forbidden: &'static [char],
    /// Whether blanks may be in an address.
    pub(in crate::send) blanks: bool,
    /// Whether there may be nothing between two separators, and nothing at all.
    pub(in crate::send) empty_words: bool,
    /// What separates words.
    pub(in crate::send) separator: char,
}

impl Syntax {
    /// `name` as one word of an address: what would mean something else is `_`.
    fn word(&self, name: &str) -> String {
        let refused =
            |c: char| self.special.contains(&c) || c.is_control() || (!self.blanks && c.is_whitespace());
        name.chars().map(|c| if refused(c) { '_' } else { c }).collect()
    }
}

/// An address with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::send) struct Template(Places);

impl Template {
    /// Reads `text`; the reason why it is none completes "must be", or says what is wrong.
    pub(in crate::send) fn parse(text: &str, syntax: &Syntax) -> Result<Self, String> {
        let template = Self(Places::parse(text)?);
        // Each place brings one word, of at least one character.
        let sample = template.fill(syntax, "a", Some("s"));
        let refused = |c: char| syntax.forbidden.contains(&c) || (!syntax.blanks && c.is_whitespace());
        if let Some(c) = sample.chars().find(|c| refused(*c)) {
            return Err(format!("has {c:?}, which a {} must not have", syntax.noun));
        }
        if !syntax.empty_words && sample.split(syntax.separator).any(str::is_empty) {
            return Err(format!("has nothing before, between or after a {:?}", syntax.separator));
        }
        Ok(template)
    }

    /// Whether it has a place for the source.
    pub(in crate::send) fn has_source(&self) -> bool {
        self.0.has_source()
    }

    /// The address for `agent` and `source`.
    pub(in crate::send) fn fill(&self, syntax: &Syntax, agent: &str, source: Option<&str>) -> String {
        self.0.fill(agent, source, |name| syntax.word(name).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOTTED: Syntax = Syntax {
        noun: "subject",
        special: &['.', '*', '>'],
        forbidden: &['*', '>'],
        blanks: false,
        empty_words: false,
        separator: '.',
    };

    #[test]
    fn places_are_filled_with_one_word_each() {
        let template = Template::parse("logs.{agent}.by-{source}.x", &DOTTED).unwrap();
        assert!(template.has_source());
        assert_eq!(template.fill(&DOTTED, "web 1", Some("app.é>*")), "logs.web_1.by-app_é__.x");
        let fixed = Template::parse("logs", &DOTTED).unwrap();
        assert!(!fixed.has_source());
        assert_eq!(fixed.fill(&DOTTED, "a", None), "logs");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("logs.{agent", "a brace that is not closed"),
            ("logs.agent}", "a brace that was not opened"),
            ("logs.{host}", "the place {host}, which is neither {agent} nor {source}"),
            ("logs.*", "'*', which a subject must not have"),
            ("logs .x", "' ', which a subject must not have"),
            ("logs..x", "nothing before, between or after a '.'"),
            (".logs", "nothing before"),
            ("", "nothing before"),
        ] {
            let error = Template::parse(text, &DOTTED).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Template::parse("", &Syntax { empty_words: true, ..DOTTED }).is_ok());
    }
}

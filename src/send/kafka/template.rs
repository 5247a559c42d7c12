//! The name of a topic, or the key of a message, with places for the agent and the source.

use crate::send::places::Places;

/// The longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

/// A text with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Places);

impl Template {
    /// Reads `text`. What is wrong with it completes the name of its key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Places::parse(text).map(Self)
    }

    /// Reads `text` as the name of a topic.
    pub(super) fn parse_topic(text: &str) -> Result<Self, String> {
        let template = Self::parse(text)?;
        let sample = template.fill("a", Some("s"));
        if sample.is_empty() || sample.len() > TOPIC_BYTES_MAX || sample == "." || sample == ".." {
            return Err(format!("must be the name of a topic, of 1 to {TOPIC_BYTES_MAX} characters"));
        }
        match sample.chars().find(|c| !in_topic(*c)) {
            Some(c) => {
                Err(format!("has {c:?}; the name of a topic must be of letters, digits, '.', '_' and '-'"))
            }
            None => Ok(template),
        }
    }

    /// Whether it has a place for the source.
    pub(super) fn has_source(&self) -> bool {
        self.0.has_source()
    }

    /// The text for `agent` and `source`.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "there is nothing to fill it for"))]
    pub(super) fn fill(&self, agent: &str, source: Option<&str>) -> String {
        self.0.fill(agent, source, |name| name.into())
    }

    /// The name of a topic for them: what a topic cannot have is `_`, and what is too long for one is cut.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "there is nothing to fill it for"))]
    pub(super) fn fill_topic(&self, agent: &str, source: Option<&str>) -> String {
        let filled = self.fill(agent, source);
        let name: String =
            filled.chars().map(|c| if in_topic(c) { c } else { '_' }).take(TOPIC_BYTES_MAX).collect();
        // The two names that file systems have taken.
        if name == "." || name == ".." { name.replace('.', "_") } else { name }
    }
}

fn in_topic(c: char) -> bool {
    c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_a_topic_has_only_what_a_topic_may_have() {
        let template = Template::parse_topic("logs.{agent}-{source}").unwrap();
        assert!(template.has_source());
        assert_eq!(template.fill("web 1", Some("app/é")), "logs.web 1-app/é");
        assert_eq!(template.fill_topic("web 1", Some("app/é")), "logs.web_1-app__");
        assert_eq!(template.fill_topic(&"x".repeat(300), None).len(), TOPIC_BYTES_MAX);
        let bare = Template::parse_topic("{source}").unwrap();
        assert_eq!(bare.fill_topic("a", Some("..")), "__");
        assert!(!Template::parse("logs").unwrap().has_source());
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        for (text, reason) in [
            ("logs.{agent", "a brace that is not closed"),
            ("logs.agent}", "a brace that was not opened"),
            ("{source}}", "a brace that was not opened"),
            ("logs.{host}", "the place {host}, which is neither {agent} nor {source}"),
            ("logs/x", "has '/'; the name of a topic must be of letters"),
            ("", "must be the name of a topic"),
            ("..", "must be the name of a topic"),
        ] {
            let error = Template::parse_topic(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        // A key is any text, and may be none.
        assert_eq!(Template::parse("").unwrap().fill("a", None), "");
        assert_eq!(Template::parse("a/ä").unwrap().fill("a", None), "a/ä");
    }
}

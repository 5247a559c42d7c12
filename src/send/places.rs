//! A text with places for the agent and the source: where a message goes, or its key.

use std::borrow::Cow;

/// The text, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Agent,
    Source,
}

impl Places {
    /// Reads `text`. What is wrong with it completes the name of its key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(['{', '}']) {
            if rest.as_bytes().get(before.len()) == Some(&b'}') {
                return Err("has a brace that was not opened".to_owned());
            }
            let Some((name, after)) = after.split_once('}') else {
                return Err("has a brace that is not closed".to_owned());
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name {
                "agent" => Piece::Agent,
                "source" => Piece::Source,
                _ => {
                    return Err(format!(
                        "has the place {{{name}}}, which is neither {{agent}} nor {{source}}"
                    ));
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Whether there is a place for the source.
    pub(super) fn has_source(&self) -> bool {
        self.0.contains(&Piece::Source)
    }

    /// The text for `agent` and `source`, each put in as `word` says.
    pub(super) fn fill(
        &self,
        agent: &str,
        source: Option<&str>,
        word: impl for<'w> Fn(&'w str) -> Cow<'w, str>,
    ) -> String {
        let texts = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Cow::Borrowed(text.as_str()),
            Piece::Agent => word(agent),
            Piece::Source => word(source.unwrap_or_default()),
        });
        texts.collect()
    }
}

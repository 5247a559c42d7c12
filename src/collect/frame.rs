//! A batch as it comes over a WebSocket: the payload, with the values of the two headers among its members.

use std::borrow::Cow;

use serde::Deserialize;

use super::request::{Batch, Identity, Payload, PayloadSource, Refusal};

/// A frame whose batch cannot be taken.
#[derive(Debug)]
pub struct Unreadable {
    /// The batch's key, where the frame has one.
    pub key: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    seq: Cow<'a, str>,
    #[serde(borrow, rename = "agentName")]
    agent_name: Cow<'a, str>,
    #[serde(borrow)]
    sources: Vec<PayloadSource<'a>>,
}

/// What is left to look for in a frame that is not one.
#[derive(Deserialize)]
struct KeyOnly<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// Reads a frame: the batch's key, and its events rendered.
///
/// # Errors
/// [`Unreadable`] where it is no batch, or does not fit what it announces.
pub fn parse(text: &[u8], bytes_max: u64) -> Result<(String, Batch), Unreadable> {
    let frame: Frame<'_> = serde_json::from_slice(text).map_err(|error| {
        let key = serde_json::from_slice(text).ok().map(|KeyOnly { key }| key.into_owned());
        Unreadable { key, refusal: error.into() }
    })?;
    let Frame { key, seq, agent_name, sources } = frame;
    let payload = Payload { agent_name, sources };
    let batch = Identity::of_members(&key, &seq)
        .and_then(|identity| Batch::render(&identity, &payload, text.len(), bytes_max));
    match batch {
        Ok(batch) => Ok((key.into_owned(), batch)),
        Err(refusal) => Err(Unreadable { key: Some(key.into_owned()), refusal }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef-1-2";
    const LIMIT: u64 = 1 << 20;

    fn frame(key: &str, seq: &str) -> String {
        let log = r#"{"data":"x","timestamp":"t"}"#;
        format!(
            r#"{{"key":"{key}","seq":"{seq}","agentName":"a","sources":[{{"sourceName":"s","logs":[{log},{log}]}}]}}"#
        )
    }

    fn refused(text: &str) -> (Option<String>, String) {
        let Unreadable { key, refusal } = parse(text.as_bytes(), LIMIT).unwrap_err();
        (key, refusal.to_string())
    }

    #[test]
    fn a_frame_renders_as_the_same_request_would() {
        let text = frame(KEY, "7-8");
        let (key, batch) = parse(text.as_bytes(), LIMIT).unwrap();
        assert_eq!(key, KEY);
        let identity = Identity::parse(&format!("\"{KEY}\""), "7-8").unwrap();
        let request = Batch::parse(&identity, text.as_bytes(), LIMIT).unwrap();
        assert_eq!(batch.lines, request.lines);
        assert_eq!(batch.sources[0].run, request.sources[0].run);
    }

    #[test]
    fn the_frames_of_the_documentation_are_batches() {
        let documentation = include_str!("../../docs/strategies.md");
        let frames: Vec<_> = documentation.lines().filter_map(|line| line.strip_prefix("→ ")).collect();
        assert_eq!(frames.len(), 4);
        for frame in frames {
            parse(frame.as_bytes(), LIMIT).unwrap();
        }
    }

    #[test]
    fn a_frame_that_is_no_batch_is_refused_under_its_key_where_it_has_one() {
        assert_eq!(refused("{").0, None);
        assert_eq!(refused("[]").0, None);
        assert_eq!(refused(r#"{"seq":"1-2","agentName":"a","sources":[]}"#).0, None);
        assert_eq!(refused(r#"{"key":"k","seq":1}"#).0, Some("k".into()));
        let (key, reason) = refused(&frame("k", "7-8"));
        assert_eq!(key, Some("k".into()));
        assert!(reason.starts_with("member key: "), "{reason}");
        let (key, reason) = refused(&frame(KEY, "8-7"));
        assert_eq!(key, Some(KEY.into()));
        assert!(reason.starts_with("member seq: "), "{reason}");
        assert!(refused(&frame(KEY, "7-9")).1.contains("announces 3 events"));
    }
}

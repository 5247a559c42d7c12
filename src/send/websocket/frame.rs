//! The frame of a batch: the payload's JSON object with two members before the others.
//!
//! Invariant: a frame is a pure function of the payload, so a batch that is sent again is the same frame.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::batch::Payload;

/// What stands around key and ranges, in bytes, rounded up.
const FRAMING_BYTES: usize = 32;

/// A batch that can be written as a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    payload: &'a Payload,
    /// The payload's JSON object after its opening brace.
    members: &'a str,
}

impl<'a> Frame<'a> {
    /// The frame of `payload`; `None` where that is not a JSON object with members.
    pub(super) fn of(payload: &'a Payload) -> Option<Self> {
        let members = std::str::from_utf8(&payload.body).ok()?.strip_prefix('{')?;
        members.starts_with('"').then_some(Self { payload, members })
    }

    /// The batch's key, without the quotes of the HTTP header: those of JSON do.
    pub(super) fn key(&self) -> &'a std::sync::Arc<str> {
        &self.payload.key
    }

    /// The text: `{"key":"…","seq":"…",` and what the payload has after its opening brace.
    pub(super) fn text(&self) -> Utf8Bytes {
        let seq = self.payload.seq_header();
        let mut text =
            String::with_capacity(self.members.len() + self.key().len() + seq.len() + FRAMING_BYTES);
        text.push_str("{\"key\":");
        push_string(&mut text, self.key());
        text.push_str(",\"seq\":");
        push_string(&mut text, &seq);
        text.push(',');
        text.push_str(self.members);
        text.into()
    }
}

/// Appends `value` as a JSON string.
fn push_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::batch::{BatchId, SourceRange};
    use crate::event::{Position, Seq, SourceName};

    fn payload(body: &'static str) -> Payload {
        let range = |source: &str, first, last| SourceRange {
            source: SourceName::from(source),
            first: Seq(first),
            last: Seq(last),
        };
        Payload {
            batch: BatchId { first: Position(1), last: Position(64), part: None },
            key: Arc::from("00112233445566778899aabbccddeeff-1-64"),
            agent: Arc::from("agent"),
            sources: vec![range("a", 1001, 1050), range("b", 77, 90)],
            content_type: "application/json",
            ends: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_frame_is_the_payload_with_key_and_ranges_as_its_first_members() {
        let body = r#"{"agentName":"é \"x\"","sources":[{"sourceName":"a","logs":[]}]}"#;
        let payload = payload(body);
        let text = Frame::of(&payload).unwrap().text();
        assert!(text.ends_with(&body[1..]), "the payload's bytes are those of HTTP");
        let mut frame: Value = serde_json::from_str(&text).unwrap();
        let members = frame.as_object_mut().unwrap();
        assert_eq!(members.remove("key").unwrap(), json!("00112233445566778899aabbccddeeff-1-64"));
        assert_eq!(members.remove("seq").unwrap(), json!("1001-1050, 77-90"));
        assert_eq!(frame, serde_json::from_str::<Value>(body).unwrap());
    }

    #[test]
    fn what_is_no_object_with_members_is_no_frame() {
        for body in ["", "{}", "[1]", "{ \"a\":1}", "null"] {
            assert!(Frame::of(&payload(body)).is_none(), "{body}");
        }
        let payload = Payload { body: Bytes::from_static(b"{\"\xff\":1}"), ..payload("") };
        assert!(Frame::of(&payload).is_none());
    }
}

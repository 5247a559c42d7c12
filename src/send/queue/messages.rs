//! The messages of a batch.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Payload;
use crate::send::parts::{self, NotOurs, Per};

/// A message as it is published, but for where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::send) struct Message {
    /// Names it: equal identifiers mean equal bodies, always.
    pub(in crate::send) id: String,
    /// The value of `Log-Agent-Seq`.
    pub(in crate::send) seq: String,
    /// The source of its events, where it is one.
    pub(in crate::send) source: Option<String>,
    /// Its content.
    pub(in crate::send) body: Bytes,
}

/// A source name longer than this is a hash in an identifier, which brokers bound at 255 bytes.
const SOURCE_BYTES_MAX: usize = 160;

/// The messages of `payload`, in payload order; at least one.
pub(in crate::send) fn of(payload: &Payload, per: Per) -> Result<Vec<Message>, NotOurs> {
    if per == Per::Batch {
        return Ok(vec![Message {
            id: payload.key.to_string(),
            seq: payload.seq_header(),
            source: None,
            body: payload.body.clone(),
        }]);
    }
    let spool = parts::spool_of(payload)?;
    let mut messages = Vec::new();
    for (number, part) in parts::take_apart(payload)?.iter().enumerate() {
        let name = part.range.source.as_str();
        if per == Per::Source {
            messages.push(Message {
                id: format!("{}/{number}", payload.key),
                seq: part.seq(),
                source: Some(name.to_owned()),
                body: part.body().into(),
            });
            continue;
        }
        let named = if name.len() > SOURCE_BYTES_MAX {
            format!("~{:016x}", xxh3_64(name.as_bytes()))
        } else {
            name.to_owned()
        };
        for (at, event) in (0_u64..).zip(part.events()?) {
            let seq = part.range.first.plus(at);
            messages.push(Message {
                id: format!("{spool}/{named}/{seq}"),
                seq: seq.to_string(),
                source: Some(name.to_owned()),
                body: part.event_body(seq, event).into(),
            });
        }
    }
    if messages.is_empty() { Err(NotOurs) } else { Ok(messages) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::{BatchId, SourceRange};
    use crate::event::{Position, Seq, SourceName};

    fn payload(body: &str) -> Payload {
        let range = |source: &str, first, last| SourceRange {
            source: SourceName::from(source),
            first: Seq(first),
            last: Seq(last),
        };
        Payload {
            batch: BatchId { first: Position(7), last: Position(9), part: None },
            key: Arc::from("00112233445566778899aabbccddeeff-7-9"),
            sources: vec![range("a\"b", 41, 42), range(&"long".repeat(50), 1, 1)],
            content_type: "application/json",
            body: Bytes::from(body.replace("LONG", &"long".repeat(50))),
        }
    }

    const BODY: &str = r#"{"agentName":"web 1","sources":[{"sourceName":"a\"b","logs":[{"data":"one","timestamp":"t1"},{"data":"two","timestamp":"t2","continues":true}]},{"sourceName":"LONG","logs":[{"data":"\u0000","timestamp":"t3"}]}]}"#;

    #[test]
    fn a_batch_is_one_message_with_its_key_ranges_and_bytes() {
        let payload = payload(BODY);
        let whole = of(&payload, Per::Batch).unwrap();
        assert_eq!(
            whole,
            [Message {
                id: "00112233445566778899aabbccddeeff-7-9".into(),
                seq: "41-42, 1-1".into(),
                source: None,
                body: payload.body.clone(),
            }]
        );
    }

    #[test]
    fn a_message_of_a_source_is_a_payload_of_its_own() {
        let messages = of(&payload(BODY), Per::Source).unwrap();
        assert_eq!(messages.len(), 2);
        let first = &messages[0];
        assert_eq!(
            (first.id.as_str(), first.seq.as_str()),
            ("00112233445566778899aabbccddeeff-7-9/0", "41-42")
        );
        assert_eq!(first.source.as_deref(), Some("a\"b"));
        assert_eq!(
            first.body,
            r#"{"agentName":"web 1","sources":[{"sourceName":"a\"b","logs":[{"data":"one","timestamp":"t1"},{"data":"two","timestamp":"t2","continues":true}]}]}"#
        );
        assert!(messages[1].id.ends_with("/1") && messages[1].seq == "1-1");
    }

    #[test]
    fn a_message_of_an_event_is_named_by_spool_source_and_number() {
        let messages = of(&payload(BODY), Per::Event).unwrap();
        let ids: Vec<_> = messages.iter().map(|message| message.id.as_str()).collect();
        assert_eq!(
            ids[..2],
            ["00112233445566778899aabbccddeeff/a\"b/41", "00112233445566778899aabbccddeeff/a\"b/42"]
        );
        assert_eq!(
            messages[0].body,
            r#"{"agentName":"web 1","sourceName":"a\"b","seq":41,"data":"one","timestamp":"t1"}"#
        );
        assert_eq!(
            messages[1].body,
            r#"{"agentName":"web 1","sourceName":"a\"b","seq":42,"data":"two","timestamp":"t2","continues":true}"#
        );
        // A long name is a hash, so that the identifier stays below 255 bytes.
        assert!(
            ids[2].starts_with("00112233445566778899aabbccddeeff/~") && ids[2].ends_with("/1"),
            "{}",
            ids[2]
        );
        assert!(ids[2].len() < 80 && messages[2].source.as_ref().unwrap().len() == 200);
        for message in &messages {
            serde_json::from_slice::<serde_json::Value>(&message.body).unwrap();
        }
    }

    #[test]
    fn a_payload_that_does_not_have_what_it_says_is_not_taken_apart() {
        let fewer = BODY.replace(r#",{"data":"two","timestamp":"t2","continues":true}"#, "");
        let more = BODY.replace(r#"{"data":"two""#, r#"{"data":"two"},{"data":"two""#);
        for body in ["", "{}", "not json", r#"{"agentName":"x","sources":[]}"#, &fewer, &more] {
            assert!(of(&payload(body), Per::Event).is_err(), "{body}");
        }
    }
}

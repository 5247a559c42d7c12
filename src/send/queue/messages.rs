//! The messages of a batch.

use std::borrow::Cow;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Payload;
use crate::send::parts::{Apart, NotOurs, Per};

/// A message as it is published, but for where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::send) struct Message {
    /// Names it: equal identifiers mean equal bodies, always.
    pub(in crate::send) id: String,
    /// The value of `Log-Agent-Seq`.
    pub(in crate::send) seq: String,
    /// The source of its events, where it is one.
    pub(in crate::send) source: Option<String>,
    /// The media type of its content.
    pub(in crate::send) content_type: &'static str,
    /// Its content.
    pub(in crate::send) body: Bytes,
}

/// A source name longer than this is a hash in an identifier, which brokers bound at 255 bytes.
const SOURCE_BYTES_MAX: usize = 160;

/// The messages of `payload`, in payload order; at least one.
pub(in crate::send) fn of(payload: &Payload, per: Per) -> Result<Vec<Message>, NotOurs> {
    let apart = Apart::of(payload, per)?;
    let (spool, suffix, content_type) = (apart.spool(), apart.suffix(), apart.content_type());
    let mut messages = Vec::new();
    for (number, run) in apart.runs().iter().enumerate() {
        let source = run.source();
        let named = source.map(named).unwrap_or_default();
        for at in 0..run.len() {
            let seq = run.seq(at);
            let id = match per {
                Per::Batch => payload.key.to_string(),
                Per::Source => format!("{}/{number}", payload.key),
                Per::Event => format!("{spool}/{named}/{seq}{suffix}"),
            };
            let source = source.map(str::to_owned);
            messages.push(Message { id, seq, source, content_type, body: run.body(at) });
        }
    }
    Ok(messages)
}

/// A source as it stands in an identifier.
fn named(source: &str) -> Cow<'_, str> {
    if source.len() > SOURCE_BYTES_MAX {
        format!("~{:016x}", xxh3_64(source.as_bytes())).into()
    } else {
        source.into()
    }
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
            agent: Arc::from("agent"),
            sources: vec![range("a\"b", 41, 42), range(&"long".repeat(50), 1, 1)],
            content_type: "application/json",
            ends: Vec::new(),
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
                content_type: "application/json",
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
    fn labels_stand_in_every_message_of_their_source() {
        let labels = r#","labels":{"team":"x"},"logs":[{"data":"\u0000""#;
        let payload = payload(&BODY.replace(r#","logs":[{"data":"\u0000""#, labels));
        let of_source = of(&payload, Per::Source).unwrap();
        assert!(!of_source[0].body.windows(8).any(|part| part == b"\"labels\""));
        let name = "long".repeat(50);
        assert_eq!(
            of_source[1].body,
            format!(
                r#"{{"agentName":"web 1","sources":[{{"sourceName":"{name}","labels":{{"team":"x"}},"logs":[{{"data":"\u0000","timestamp":"t3"}}]}}]}}"#
            )
        );
        let of_event = of(&payload, Per::Event).unwrap();
        assert_eq!(
            of_event[2].body,
            format!(
                r#"{{"agentName":"web 1","sourceName":"{name}","labels":{{"team":"x"}},"seq":1,"data":"\u0000","timestamp":"t3"}}"#
            )
        );
    }

    /// A batch of the same events as lines: one of two lines, one that is empty, one that is not UTF-8.
    fn lines(content_type: &'static str) -> Payload {
        let body = Bytes::from_static(b"one\n  more\n\n\xFF\n");
        Payload { content_type, body, ends: vec![11, 12, 14], ..payload("") }
    }

    #[test]
    fn lines_are_cut_where_the_payload_says_that_events_end() {
        let messages = of(&lines("text/plain"), Per::Event).unwrap();
        let bodies: Vec<&[u8]> = messages.iter().map(|message| &*message.body).collect();
        assert_eq!(bodies, [b"one\n  more".as_slice(), b"", b"\xFF"]);
        let json = of(&payload(BODY), Per::Event).unwrap();
        for (line, event) in messages.iter().zip(&json) {
            assert_eq!((&line.id, &line.seq, &line.source), (&event.id, &event.seq, &event.source));
            assert_eq!((line.content_type, event.content_type), ("text/plain", "application/json"));
        }
        // What is sent of a source keeps its line feeds.
        let messages = of(&lines("text/plain"), Per::Source).unwrap();
        let bodies: Vec<&[u8]> = messages.iter().map(|message| &*message.body).collect();
        assert_eq!(bodies, [b"one\n  more\n\n".as_slice(), b"\xFF\n"]);
        assert_eq!((messages[0].seq.as_str(), messages[1].seq.as_str()), ("41-42", "1-1"));
        let payload = lines("text/plain");
        assert_eq!(of(&payload, Per::Batch).unwrap()[0].body, payload.body);
    }

    #[test]
    fn one_line_of_ndjson_is_a_json_text_and_several_are_ndjson() {
        let payload = lines("application/x-ndjson");
        for (per, content_type) in [
            (Per::Batch, "application/x-ndjson"),
            (Per::Source, "application/x-ndjson"),
            (Per::Event, "application/json"),
        ] {
            let messages = of(&payload, per).unwrap();
            assert!(messages.iter().all(|message| message.content_type == content_type), "{per:?}");
        }
    }

    #[test]
    fn an_event_of_a_batch_whose_format_was_changed_has_another_identifier() {
        let payload = lines("text/plain");
        let before = of(&payload, Per::Event).unwrap();
        let key = format!("{}-0123456789abcdef", payload.key);
        let after = of(&Payload { key: key.into(), ..payload }, Per::Event).unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(format!("{}-0123456789abcdef", before.id), after.id);
        }
    }

    #[test]
    fn lines_that_do_not_end_where_the_payload_says_are_not_taken_apart() {
        for ends in [vec![11, 12], vec![11, 12, 13], vec![11, 12, 15], vec![11, 12, 13, 14], vec![0, 12, 14]]
        {
            let payload = Payload { ends: ends.clone(), ..lines("text/plain") };
            assert!(of(&payload, Per::Event).is_err(), "{ends:?}");
            assert!(of(&payload, Per::Source).is_err(), "{ends:?}");
            assert!(of(&payload, Per::Batch).is_ok());
        }
        let other = Payload { key: "no-key-of-ours".into(), ..lines("text/plain") };
        assert!(of(&other, Per::Event).is_err());
        let swapped = Payload { ends: vec![12, 11, 14], ..lines("text/plain") };
        assert!(of(&swapped, Per::Event).is_err());
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

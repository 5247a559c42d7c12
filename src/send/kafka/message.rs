//! The messages of a batch, one after the other: a payload in memory twice is enough.

use std::borrow::Cow;
use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};
use serde_json::value::RawValue;

use super::options::KafkaOptions;
use crate::batch::Payload;
use crate::config::Secret;
use crate::send::parts::{self, KEY_HEADER, NotOurs, Part, Per, SEQ_HEADER, SOURCE_HEADER};

/// The spool: the first of the three that name an event for ever.
pub(super) const SPOOL_HEADER: &str = "Log-Agent-Spool";
/// The media type of the value.
pub(super) const TYPE_HEADER: &str = "Content-Type";

/// A message as it is sent.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) topic: Arc<str>,
    pub(super) key: Option<Arc<str>>,
    pub(super) source: Option<&'a str>,
    pub(super) seq: String,
    pub(super) value: Cow<'a, [u8]>,
}

/// A batch that can be sent.
pub(super) struct Messages<'a> {
    payload: &'a Payload,
    spool: &'a str,
    runs: Vec<Run<'a>>,
}

/// The messages of one source, or the one message of the batch.
struct Run<'a> {
    topic: Arc<str>,
    key: Option<Arc<str>>,
    source: Option<&'a str>,
    what: What<'a>,
}

enum What<'a> {
    Whole,
    Source(Part<'a>),
    Events(Part<'a>, Vec<&'a RawValue>),
}

impl<'a> Messages<'a> {
    /// Takes `payload` apart as `options` say. `agent` is its agent where it does not say.
    pub(super) fn of(payload: &'a Payload, options: &KafkaOptions, agent: &str) -> Result<Self, NotOurs> {
        let spool = parts::spool_of(payload)?;
        let parts = parts::take_apart(payload);
        let named = parts.as_ref().ok().and_then(|parts| parts.first()?.agent_name());
        let agent = named.unwrap_or_else(|| agent.to_owned());
        let run = |source: Option<&'a str>, what| Run {
            topic: options.topic.fill_topic(&agent, source).into(),
            key: options.key.as_ref().map(|key| key.fill(&agent, source).into()),
            source,
            what,
        };
        if options.per == Per::Batch {
            return Ok(Self { payload, spool, runs: vec![run(None, What::Whole)] });
        }
        let mut runs = Vec::with_capacity(payload.sources.len());
        for part in parts? {
            let source = part.range.source.as_str();
            let what = match options.per {
                Per::Event => {
                    let events = part.events()?;
                    What::Events(part, events)
                }
                Per::Source | Per::Batch => What::Source(part),
            };
            runs.push(run(Some(source), what));
        }
        Ok(Self { payload, spool, runs })
    }

    /// The messages, in payload order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.runs.iter().flat_map(move |run| (0..run.len()).map(move |at| self.message(run, at)))
    }

    /// Where they go, in payload order.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().map(|run| &*run.topic)
    }

    fn message<'b>(&'b self, run: &'b Run<'a>, at: usize) -> Message<'b> {
        let (seq, value) = match &run.what {
            What::Whole => (self.payload.seq_header(), Cow::Borrowed(&*self.payload.body)),
            What::Source(part) => (part.seq(), Cow::Owned(part.body().into_bytes())),
            What::Events(part, events) => {
                let seq = part.range.first.plus(at as u64);
                let body = events.get(at).map(|event| part.event_body(seq, event)).unwrap_or_default();
                (seq.to_string(), Cow::Owned(body.into_bytes()))
            }
        };
        Message { topic: Arc::clone(&run.topic), key: run.key.clone(), source: run.source, seq, value }
    }

    /// The headers of `message`, and the configured ones after them.
    pub(super) fn headers(&self, message: &Message<'_>, configured: &[(String, Secret)]) -> OwnedHeaders {
        let header = |key, value| Header { key, value: Some(value) };
        let mut headers = OwnedHeaders::new_with_capacity(5 + configured.len())
            .insert(header(SPOOL_HEADER, self.spool))
            .insert(header(SEQ_HEADER, &message.seq))
            .insert(header(KEY_HEADER, &self.payload.key))
            .insert(header(TYPE_HEADER, self.payload.content_type));
        if let Some(source) = message.source {
            headers = headers.insert(header(SOURCE_HEADER, source));
        }
        configured.iter().fold(headers, |headers, (name, value)| headers.insert(header(name, value.reveal())))
    }
}

impl Run<'_> {
    fn len(&self) -> usize {
        match &self.what {
            What::Whole | What::Source(_) => 1,
            What::Events(_, events) => events.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::message::Headers as _;

    use super::super::template::Template;
    use super::*;
    use crate::batch::{BatchId, SourceRange};
    use crate::event::{Position, Seq, SourceName};
    use crate::send::kafka::options::{Codec, Mechanism};

    const BODY: &str = r#"{"agentName":"web 1","sources":[{"sourceName":"a\"b","logs":[{"data":"one","timestamp":"t1"},{"data":"{two","timestamp":"t2","continues":true}]},{"sourceName":"c","logs":[{"data":"\u0000","timestamp":"t3"}]}]}"#;

    fn payload(body: &str) -> Payload {
        let range = |source: &str, first, last| SourceRange {
            source: SourceName::from(source),
            first: Seq(first),
            last: Seq(last),
        };
        Payload {
            batch: BatchId { first: Position(7), last: Position(9), part: None },
            key: Arc::from("00112233445566778899aabbccddeeff-7-9"),
            sources: vec![range("a\"b", 41, 42), range("c", 1, 1)],
            content_type: "application/json",
            body: Bytes::from(body.to_owned()),
        }
    }

    fn options(per: Per, topic: &str, key: Option<&str>) -> KafkaOptions {
        KafkaOptions {
            topic: Template::parse_topic(topic).unwrap(),
            key: key.map(|key| Template::parse(key).unwrap()),
            per,
            brokers: Vec::new(),
            codec: Codec::None,
            mechanism: Mechanism::Plain,
            properties: Vec::new(),
        }
    }

    /// Topic, key, sequence number and value of each.
    fn texts(payload: &Payload, options: &KafkaOptions) -> Vec<(String, Option<String>, String, String)> {
        let messages = Messages::of(payload, options, "configured").unwrap();
        let text = |message: Message<'_>| {
            let value = String::from_utf8(message.value.into_owned()).unwrap();
            serde_json::from_str::<serde_json::Value>(&value).unwrap();
            (message.topic.to_string(), message.key.map(|key| key.to_string()), message.seq, value)
        };
        messages.iter().map(text).collect()
    }

    #[test]
    fn a_message_of_an_event_says_whose_it_is_and_which() {
        let found = texts(&payload(BODY), &options(Per::Event, "l.{source}", Some("{agent}/{source}")));
        let message = |topic: &str, key: &str, seq: &str, value: &str| {
            (topic.to_owned(), Some(key.to_owned()), seq.to_owned(), value.to_owned())
        };
        assert_eq!(
            found,
            [
                message(
                    "l.a_b",
                    "web 1/a\"b",
                    "41",
                    r#"{"agentName":"web 1","sourceName":"a\"b","seq":41,"data":"one","timestamp":"t1"}"#
                ),
                message(
                    "l.a_b",
                    "web 1/a\"b",
                    "42",
                    r#"{"agentName":"web 1","sourceName":"a\"b","seq":42,"data":"{two","timestamp":"t2","continues":true}"#
                ),
                message(
                    "l.c",
                    "web 1/c",
                    "1",
                    r#"{"agentName":"web 1","sourceName":"c","seq":1,"data":"\u0000","timestamp":"t3"}"#
                ),
            ]
        );
    }

    #[test]
    fn a_message_of_a_source_is_a_payload_of_its_own_and_that_of_a_batch_is_the_payload() {
        let found = texts(&payload(BODY), &options(Per::Source, "logs", None));
        assert_eq!((found[0].0.as_str(), &found[0].1, found[0].2.as_str()), ("logs", &None, "41-42"));
        assert_eq!(
            found[1].3,
            r#"{"agentName":"web 1","sources":[{"sourceName":"c","logs":[{"data":"\u0000","timestamp":"t3"}]}]}"#
        );
        let whole = texts(&payload(BODY), &options(Per::Batch, "logs", Some("{agent}")));
        assert_eq!(whole, [("logs".into(), Some("web 1".into()), "41-42, 1-1".into(), BODY.into())]);
    }

    #[test]
    fn a_batch_of_another_form_is_one_message_under_the_configured_name() {
        let mut other = payload("one\ntwo\n");
        other.content_type = "application/x-ndjson";
        let options = options(Per::Batch, "logs", Some("{agent}"));
        let messages = Messages::of(&other, &options, "configured").unwrap();
        let message = messages.iter().next().unwrap();
        assert_eq!((&*message.value, message.key.as_deref()), (b"one\ntwo\n".as_slice(), Some("configured")));
    }

    #[test]
    fn the_headers_name_the_event_and_the_batch() {
        let payload = payload(BODY);
        let options = options(Per::Event, "logs", None);
        let messages = Messages::of(&payload, &options, "x").unwrap();
        let second = messages.iter().nth(1).unwrap();
        let configured = [("X-Env".to_owned(), Secret::new("prod".into()))];
        let headers = messages.headers(&second, &configured);
        let found: Vec<_> = headers
            .iter()
            .map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("Log-Agent-Spool", "00112233445566778899aabbccddeeff"),
                ("Log-Agent-Seq", "42"),
                ("Log-Agent-Key", "00112233445566778899aabbccddeeff-7-9"),
                ("Content-Type", "application/json"),
                ("Log-Agent-Source", "a\"b"),
                ("X-Env", "prod"),
            ]
        );
    }

    #[test]
    fn a_payload_that_does_not_have_what_it_says_is_not_taken_apart() {
        let fewer = BODY.replace(r#",{"data":"{two","timestamp":"t2","continues":true}"#, "");
        let more = BODY.replace(r#"{"data":"{two""#, r#"{"data":"two"},{"data":"two""#);
        let other = BODY.replace(r#"{"data":"one","timestamp":"t1"}"#, "7");
        for body in ["", "{}", "not json", r#"{"agentName":"x","sources":[]}"#, &fewer, &more, &other] {
            let payload = payload(body);
            assert!(Messages::of(&payload, &options(Per::Event, "t", None), "x").is_err(), "{body}");
        }
    }
}

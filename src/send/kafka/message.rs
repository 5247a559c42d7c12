//! The messages of a batch, one after the other: a payload in memory twice is enough.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use super::options::KafkaOptions;
use crate::batch::Payload;
use crate::config::Secret;
use crate::send::parts::{Apart, KEY_HEADER, NotOurs, Run, SEQ_HEADER, SOURCE_HEADER, TYPE_HEADER};

/// The spool: the first of the three that name an event for ever.
pub(super) const SPOOL_HEADER: &str = "Log-Agent-Spool";

/// A message as it is sent.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) topic: Arc<str>,
    pub(super) key: Option<Arc<str>>,
    pub(super) source: Option<&'a str>,
    pub(super) seq: String,
    pub(super) value: Bytes,
}

/// A batch that can be sent.
pub(super) struct Messages<'a> {
    payload: &'a Payload,
    apart: Apart<'a>,
    /// Where the messages of each run go.
    places: Vec<Place>,
}

/// Where messages of one source, or of the batch, go.
struct Place {
    topic: Arc<str>,
    key: Option<Arc<str>>,
}

impl<'a> Messages<'a> {
    /// Takes `payload` apart as `options` say.
    pub(super) fn of(payload: &'a Payload, options: &KafkaOptions) -> Result<Self, NotOurs> {
        let apart = Apart::of(payload, options.per)?;
        let agent = &payload.agent;
        let place = |run: &Run<'_>| Place {
            topic: options.topic.fill_topic(agent, run.source()).into(),
            key: options.key.as_ref().map(|key| key.fill(agent, run.source()).into()),
        };
        let places = apart.runs().iter().map(place).collect();
        Ok(Self { payload, apart, places })
    }

    /// The messages, in payload order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        let placed = self.apart.runs().iter().zip(&self.places);
        placed.flat_map(|(run, place)| (0..run.len()).map(move |at| place.message(run, at)))
    }

    /// Where they go, in payload order.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| &*place.topic)
    }

    /// The headers of `message`, and the configured ones after them.
    pub(super) fn headers(&self, message: &Message<'_>, configured: &[(String, Secret)]) -> OwnedHeaders {
        let header = |key, value| Header { key, value: Some(value) };
        let mut headers = OwnedHeaders::new_with_capacity(5 + configured.len())
            .insert(header(SPOOL_HEADER, self.apart.spool()))
            .insert(header(SEQ_HEADER, &message.seq))
            .insert(header(KEY_HEADER, &self.payload.key))
            .insert(header(TYPE_HEADER, self.apart.content_type()));
        if let Some(source) = message.source {
            headers = headers.insert(header(SOURCE_HEADER, source));
        }
        configured.iter().fold(headers, |headers, (name, value)| headers.insert(header(name, value.reveal())))
    }
}

impl Place {
    fn message<'a>(&self, run: &Run<'a>, at: usize) -> Message<'a> {
        Message {
            topic: Arc::clone(&self.topic),
            key: self.key.clone(),
            source: run.source(),
            seq: run.seq(at),
            value: run.body(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::super::template::Template;
    use super::*;
    use crate::batch::{BatchId, SourceRange};
    use crate::event::{Position, Seq, SourceName};
    use crate::send::kafka::options::{Codec, Mechanism};
    use crate::send::parts::Per;

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
            agent: Arc::from("web 1"),
            sources: vec![range("a\"b", 41, 42), range("c", 1, 1)],
            content_type: "application/json",
            ends: Vec::new(),
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
        let messages = Messages::of(payload, options).unwrap();
        let text = |message: Message<'_>| {
            let value = String::from_utf8(message.value.to_vec()).unwrap();
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
    fn a_batch_that_is_not_json_is_a_message_an_event_under_the_name_that_it_was_cut_under() {
        let lines = payload("one\ntwo\nmore\n\n");
        let other = Payload { content_type: "text/plain", ends: vec![4, 13, 14], ..lines };
        let options = options(Per::Event, "logs", Some("{agent}/{source}"));
        let messages = Messages::of(&other, &options).unwrap();
        let found: Vec<_> =
            messages.iter().map(|message| (message.key.unwrap(), message.seq, message.value)).collect();
        let message = |key: &str, seq: &str, value: &'static str| (key.into(), seq.to_owned(), value.into());
        assert_eq!(
            found,
            [
                message("web 1/a\"b", "41", "one"),
                message("web 1/a\"b", "42", "two\nmore"),
                message("web 1/c", "1", ""),
            ]
        );
        let headers = messages.headers(&messages.iter().next().unwrap(), &[]);
        let header = headers.iter().find(|header| header.key == TYPE_HEADER).unwrap();
        assert_eq!(header.value, Some(b"text/plain".as_slice()));
    }

    #[test]
    fn the_headers_name_the_event_and_the_batch() {
        let payload = payload(BODY);
        let options = options(Per::Event, "logs", None);
        let messages = Messages::of(&payload, &options).unwrap();
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
            assert!(Messages::of(&payload, &options(Per::Event, "t", None)).is_err(), "{body}");
        }
    }
}

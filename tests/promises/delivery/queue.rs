//! What the tests of the message queues share: messages that were read back, and what must hold of them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use serde_json::Value;

use super::quick;
pub use super::refusals::dead_letters;
use crate::common::{
    Agent, ConfigBuilder, Load, PATIENCE, Rhythm, Scene, Stored, Writer, assert_all_is_acknowledged,
    assert_written_exactly_once, spool_status, wait_for,
};

/// Rounds of deaths, and how many `LOG_AGENT_TEST_ROUNDS` asks for.
pub fn rounds(default: u32) -> u32 {
    std::env::var("LOG_AGENT_TEST_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

/// A message as a consumer got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Where it went.
    pub address: String,
    pub id: String,
    pub key: String,
    pub seq: String,
    pub source: Option<String>,
    /// The media type that it says; of MQTT 3.1.1, which has no place for one, that of JSON.
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Published {
    /// The events in it, numbered as it says.
    pub fn events(&self) -> Vec<Stored> {
        if self.content_type == "text/plain" {
            // A line as it is says nothing of itself.
            return vec![Stored {
                agent: String::new(),
                source: self.source.clone().unwrap(),
                seq: self.seq.parse().unwrap(),
                timestamp: String::new(),
                data: String::from_utf8_lossy(&self.body).into_owned(),
                continues: false,
            }];
        }
        assert_eq!(self.content_type, "application/json", "{self:?}");
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let event = |source: &Value, seq: u64, log: &Value| Stored {
            agent: text(&body["agentName"]),
            source: text(source),
            seq,
            timestamp: text(&log["timestamp"]),
            data: text(&log["data"]),
            continues: log["continues"].as_bool().unwrap_or_default(),
        };
        let Some(sources) = body["sources"].as_array() else {
            assert_eq!(body["seq"].as_u64(), self.seq.parse().ok(), "{self:?}");
            assert_eq!(body["sourceName"].as_str(), self.source.as_deref(), "{self:?}");
            return vec![event(&body["sourceName"], body["seq"].as_u64().unwrap(), &body)];
        };
        let ranges: Vec<_> = self.seq.split(", ").collect();
        assert_eq!(ranges.len(), sources.len(), "{self:?}");
        let mut events = Vec::new();
        for (source, range) in sources.iter().zip(ranges) {
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let logs = source["logs"].as_array().unwrap();
            assert_eq!(logs.len() as u64, last - first + 1, "{self:?}");
            let numbered = (first..).zip(logs);
            events.extend(numbered.map(|(seq, log)| event(&source["sourceName"], seq, log)));
        }
        events
    }
}

/// Lines of the source `odd`: one of several lines, one that is empty, one that is not UTF-8, one of several lines again.
const ODD_LINES: &[u8] = b"one\n  goes on\n\n\xFF\xFE\nlast\n  goes on\n  and on\n";
/// What becomes of them.
const ODD_EVENTS: [&[u8]; 4] = [b"one\n  goes on", b"", b"\xFF\xFE", b"last\n  goes on\n  and on"];

/// Sends lines in `format`, an event a message, and expects each with its own bytes and nothing else. `table` is the
/// strategy's.
pub fn assert_events_travel_in(
    format: &str,
    scene: &Scene,
    config: ConfigBuilder<'_>,
    table: &str,
    mut read: impl FnMut() -> Vec<Published>,
) {
    config
        .global("format", format)
        .table(table, "messages", "event")
        .source("odd", "logs/odd.log")
        .within("multiline", "continue_pattern", "^  ")
        .within("multiline", "timeout_ms", 50)
        .write();
    let mut writer = Writer::new(scene, "app", "logs/app.log");
    writer.append(60);
    std::fs::write(scene.path("logs/odd.log"), ODD_LINES).unwrap();
    let agent = Agent::start(scene);
    let mut published = Vec::new();
    wait_for(PATIENCE, "every event is published", || {
        published = distinct(&read()).0;
        published.len() >= 60 + ODD_EVENTS.len()
    });
    let content_type = if format == "raw" { "text/plain" } else { "application/json" };
    assert!(published.iter().all(|message| message.content_type == content_type), "{published:?}");
    let (odd, app): (Vec<_>, Vec<_>) =
        published.into_iter().partition(|message| message.source.as_deref() == Some("odd"));
    let events: Vec<Stored> = app.iter().flat_map(Published::events).collect();
    assert_written_exactly_once(&[&writer], &events);
    for message in &odd {
        let seq: usize = message.seq.parse().unwrap();
        assert!(message.id.ends_with(&format!("/odd/{seq}")), "{message:?}");
        let expected = ODD_EVENTS[seq - 1];
        if format == "raw" {
            assert_eq!(message.body, expected, "{message:?}");
            continue;
        }
        let event: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(event["data"].as_str(), Some(&*String::from_utf8_lossy(expected)));
        assert!(message.id.starts_with(event["spoolId"].as_str().unwrap()), "{message:?}");
        assert_eq!((event["sourceName"].as_str(), event["seq"].as_u64()), (Some("odd"), Some(seq as u64)));
        assert_eq!(event["path"].as_str(), scene.path("logs/odd.log").to_str());
    }
    assert_eq!(odd.len(), ODD_EVENTS.len());
    assert_eq!(agent.stop(), Some(0));
}

/// The messages without those that came again, which must be what they were the first time; how often one came again.
pub fn distinct(published: &[Published]) -> (Vec<Published>, usize) {
    let mut of_id: BTreeMap<&str, &Published> = BTreeMap::new();
    for message in published {
        assert!(!message.id.is_empty() && !message.key.is_empty(), "{message:?}");
        let first = of_id.entry(&message.id).or_insert(message);
        assert_eq!((&first.seq, &first.source), (&message.seq, &message.source), "under {}", message.id);
        assert!(first.body == message.body, "the body under {} changed", message.id);
    }
    let again = published.len() - of_id.len();
    (of_id.into_values().cloned().collect(), again)
}

/// How many events there are, those that came again counted once.
pub fn event_count(published: &[Published]) -> u64 {
    distinct(published).0.iter().map(|message| message.events().len() as u64).sum()
}

/// Waits until every line was taken, and asserts that each is there once, but for messages that came again as they were.
/// How often one came again.
#[track_caller]
pub fn assert_all_arrives(writers: &[&Writer], mut read: impl FnMut() -> Vec<Published>) -> usize {
    let expected: u64 = writers.iter().map(|writer| writer.count()).sum();
    let mut published = Vec::new();
    wait_for(PATIENCE, &format!("{expected} lines are published"), || {
        published = read();
        event_count(&published) >= expected
    });
    let (messages, again) = distinct(&published);
    let events: Vec<Stored> = messages.iter().flat_map(Published::events).collect();
    assert_written_exactly_once(writers, &events);
    again
}

/// Ends the agent in order, and asserts that nothing is left to send.
#[track_caller]
pub fn assert_done(scene: &Scene, agent: Agent, writers: &[&Writer]) {
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(scene), writers);
}

/// A configuration for `send_type` with delays short enough for tests.
pub fn queued<'a>(scene: &'a Scene, send_type: &str, url: &str) -> ConfigBuilder<'a> {
    // A broker on a loaded machine may take its time; what a test breaks is noticed by other ways than the time.
    quick(scene, url.to_owned()).global("send_type", send_type).global("timeout_secs", 10)
}

/// An agent that dies in each round, and a server that `break_server` may end and start again in some; then all is well.
/// `published_count` says how many messages were taken so far.
pub fn deaths<S>(
    scene: &Scene,
    rounds: u32,
    server: &mut S,
    published_count: impl Fn(&S) -> u64,
    mut break_server: impl FnMut(&mut S, u32),
) -> (Agent, Writer) {
    // Without an end: there is something to publish in each round, however long a broker takes to come back.
    let load = Load::start(scene, Writer::new(scene, "app", "logs/app.log"), Rhythm::STEADY);
    let mut rng = scene.rng("deaths");
    for round in 0..rounds {
        let agent = Agent::start(scene);
        let before = published_count(server);
        wait_for(PATIENCE, "something is published in each round", || published_count(server) > before);
        // Not to wait for something, but to hit another moment.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
        break_server(server, round);
        agent.kill();
    }
    let writer = load.stop();
    (Agent::start(scene), writer)
}

#[test]
fn messages_that_changed_or_are_missing_are_found() {
    let scene = Scene::new("messages_that_changed_or_are_missing_are_found");
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(2);
    let message = |seq: u64| Published {
        address: "logs".into(),
        id: format!("id-{seq}"),
        key: "key".into(),
        seq: seq.to_string(),
        source: Some("app".into()),
        content_type: "application/json".into(),
        body: serde_json::json!({
            "agentName": "a", "sourceName": "app", "seq": seq, "timestamp": "t",
            "data": writer.lines()[usize::try_from(seq).unwrap() - 1],
        })
        .to_string()
        .into_bytes(),
    };
    let good = [message(1), message(2), message(1)];
    assert_eq!(assert_all_arrives(&[&writer], || good.to_vec()), 1);
    let fails = |published: Vec<Published>| {
        std::panic::catch_unwind(|| assert_all_arrives(&[&writer], || published.clone())).is_err()
    };
    let mut changed = message(1);
    changed.body.push(b' ');
    assert!(fails(vec![message(1), message(2), changed]), "a changed body passed");
    let mut twice = message(1);
    twice.id = "another".into();
    assert!(fails(vec![message(1), message(2), twice]), "one event under two identifiers passed");
}

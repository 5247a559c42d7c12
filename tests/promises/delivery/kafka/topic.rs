//! What has arrived in a topic, read as a consumer reads it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::common::{PATIENCE, Writer, wait_for};

/// What names an event for ever: spool, source, sequence number.
pub type Identity = (String, String, u64);

/// A topic, from its beginning.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    arrived: RefCell<Arrived>,
}

/// What has been read so far.
#[derive(Default)]
struct Arrived {
    /// Whether the partitions are known and followed.
    followed: bool,
    /// The events with their lines, and how often each came.
    events: BTreeMap<Identity, (String, u64)>,
    /// The keys of the batches that an event came with.
    batches: BTreeMap<Identity, Vec<String>>,
    messages: u64,
    /// Of how many messages the value has the spool of the headers in it.
    spools_named: u64,
}

impl Topic {
    /// Follows the topic `name` of `brokers` under further settings of the library.
    pub fn with(brokers: &str, name: &str, settings: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "test");
        config.set("reconnect.backoff.max.ms", "500").set("topic.metadata.refresh.interval.ms", "1000");
        // A request that was lost with a broker is soon made again.
        config.set("fetch.wait.max.ms", "100").set("socket.timeout.ms", "2000");
        settings.iter().for_each(|(name, value)| _ = config.set(*name, *value));
        Self { consumer: config.create().unwrap(), name: name.to_owned(), arrived: RefCell::default() }
    }

    pub fn of(brokers: &str, name: &str) -> Self {
        Self::with(brokers, name, &[])
    }

    /// Reads all that has come since.
    pub fn read(&self) {
        while self.glance() {}
    }

    /// Reads one message, if there is one or one comes this moment.
    pub fn glance(&self) -> bool {
        let arrived = &mut *self.arrived.borrow_mut();
        if !arrived.followed {
            let Ok(found) = self.consumer.fetch_metadata(Some(&self.name), Duration::from_secs(5)) else {
                return false;
            };
            let mut partitions = TopicPartitionList::new();
            for partition in found.topics()[0].partitions() {
                partitions.add_partition_offset(&self.name, partition.id(), Offset::Beginning).unwrap();
            }
            if partitions.count() == 0 {
                return false;
            }
            self.consumer.assign(&partitions).unwrap();
            arrived.followed = true;
        }
        let Some(message) = self.consumer.poll(Duration::from_millis(50)) else { return false };
        // Errors are those of connections to brokers that tests take away.
        if let Ok(message) = message {
            arrived.take(&message);
        }
        true
    }

    /// Waits until every line of `writer` has come at least once.
    #[track_caller]
    pub fn await_all(&self, writer: &Writer) {
        self.await_lines(writer, |_| true);
    }

    /// Waits until every `wanted` line of `writer` has come at least once, and checks that each came under its own number,
    /// as it was written, and nothing else. Whatever came twice was the same, or it would have been refused as it was read.
    #[track_caller]
    pub fn await_lines(&self, writer: &Writer, wanted: impl Fn(&str) -> bool) {
        let expected = writer.lines().iter().filter(|line| wanted(line)).count();
        wait_for(PATIENCE, "every line has arrived", || {
            self.read();
            self.arrived.borrow().events.len() >= expected
        });
        let arrived = self.arrived.borrow();
        let mut spools: Vec<&str> = arrived.events.keys().map(|(spool, ..)| spool.as_str()).collect();
        spools.dedup();
        assert_eq!(spools.len(), 1, "an agent has one spool: {spools:?}");
        let events = arrived.events.iter();
        let found: Vec<_> =
            events.map(|((_, source, seq), (line, _))| (source.as_str(), *seq, line.as_str())).collect();
        let lines = (1..).zip(writer.lines()).filter(|(_, line)| wanted(line));
        let lines: Vec<_> = lines.map(|(seq, line)| (writer.source(), seq, line.as_str())).collect();
        assert!(found == lines, "not every line came under its number: {} of {}", found.len(), lines.len());
    }

    /// Waits for the next message, and no longer: what follows it is still on its way.
    #[track_caller]
    pub fn await_next(&self) {
        let before = self.arrived.borrow().messages;
        wait_for(PATIENCE, "something arrives", || {
            self.glance();
            self.arrived.borrow().messages > before
        });
    }

    /// How many messages came, and how many of them brought nothing new.
    pub fn counts(&self) -> (u64, u64) {
        self.read();
        let arrived = self.arrived.borrow();
        (arrived.messages, arrived.messages - arrived.events.len() as u64)
    }

    /// How many messages its partitions ever had, whether they were read or not.
    pub fn message_count(&self) -> u64 {
        let patience = Duration::from_secs(5);
        let Ok(found) = self.consumer.fetch_metadata(Some(&self.name), patience) else { return 0 };
        let partitions = found.topics()[0].partitions().iter();
        let marks = partitions.map(|p| self.consumer.fetch_watermarks(&self.name, p.id(), patience));
        marks.map(|marks| marks.map_or(0, |(_, high)| u64::try_from(high).unwrap())).sum()
    }

    /// Whether the value of each message says which spool it comes from, as the headers do.
    pub fn all_name_their_spool(&self) -> bool {
        let arrived = self.arrived.borrow();
        arrived.spools_named == arrived.messages
    }

    /// The keys of the batches that the event number `seq` of `source` came with.
    pub fn batches_of(&self, source: &str, seq: u64) -> Vec<String> {
        let arrived = self.arrived.borrow();
        let of = arrived.batches.iter().find(|((_, name, number), _)| name == source && *number == seq);
        of.map(|(_, keys)| keys.clone()).unwrap_or_default()
    }
}

impl Arrived {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let headers = message.headers().unwrap();
        let header = |name: &str| {
            let header =
                headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(header.value.unwrap().to_vec()).unwrap()
        };
        assert_eq!(header("Content-Type"), "application/json");
        let seq: u64 = header("Log-Agent-Seq").parse().unwrap();
        let identity = (header("Log-Agent-Spool"), header("Log-Agent-Source"), seq);
        let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(
            (value["sourceName"].as_str(), value["seq"].as_u64()),
            (Some(identity.1.as_str()), Some(seq))
        );
        assert_eq!(message.key().unwrap(), format!("agent1/{}", identity.1).as_bytes());
        self.spools_named += u64::from(value["spoolId"].as_str() == Some(identity.0.as_str()));
        let line = value["data"].as_str().unwrap();
        let (first, times) = self.events.entry(identity.clone()).or_insert_with(|| (line.to_owned(), 0));
        assert_eq!(first, line, "{identity:?} came with two contents");
        *times += 1;
        let batch = header("Log-Agent-Key");
        assert!(batch.starts_with(&identity.0), "{batch}");
        self.batches.entry(identity).or_default().push(batch);
        self.messages += 1;
    }
}

//! A look at the brokers: who answers, whether the topics are there, and whether those that lead their partitions answer at
//! the addresses that they give of themselves.
//!
//! Invariants:
//! - Each broker of the configuration is asked by a client of its own that knows no other, so that one that is down is not
//!   made up for by another.
//! - Nothing is written: the client is no idempotent producer, for which brokers would keep a number, and no topic is made
//!   by asking for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use super::outcome::{self, Verdict};
use super::session::Session;
use crate::clock;
use crate::send::client::Redactor;
use crate::send::{Outcome, listed, with_tls};

/// A look at the brokers of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The library's settings, as batches are sent with.
    pub(super) config: ClientConfig,
    pub(super) redactor: Arc<Redactor>,
    /// Where the events of the configuration's sources go.
    pub(super) topics: Vec<String>,
    pub(super) timeout: Duration,
}

/// A partition, by topic and number.
type Partition<'a> = (&'a str, i32);

/// What a broker says.
#[derive(Default)]
struct Found<'a> {
    /// The addresses of the brokers that are up, by their numbers.
    brokers: BTreeMap<i32, String>,
    /// The topics, in words.
    topics: Vec<String>,
    /// One partition of each broker that leads some.
    led: BTreeMap<i32, Partition<'a>>,
}

impl Look {
    /// The brokers that are looked at, as `host:port`.
    pub(super) fn brokers(&self) -> Vec<String> {
        let list = self.config.get("bootstrap.servers").unwrap_or_default();
        list.split(',').map(str::to_owned).collect()
    }

    /// What `broker` says. Blocks, for at most the timeout.
    pub(super) fn at(&self, broker: &str) -> Result<String, Outcome> {
        let until = clock::now() + self.timeout;
        let session = self.session(broker).map_err(|reason| Outcome::EndpointFault { reason })?;
        let found = self.cluster(&session, until)?;
        for (leader, partition) in &found.led {
            self.ask_leader(&session, *leader, *partition, &found.brokers, until)?;
        }
        let security = self.config.get("security.protocol").unwrap_or_default();
        Ok(format!(
            "{} ({}), {}; of the topics there is {}",
            counted(found.brokers.len(), "broker"),
            listed(found.brokers.values().map(String::as_str)),
            with_tls(security.ends_with("ssl")),
            listed(found.topics.iter().map(String::as_str)),
        ))
    }

    /// What is said of the cluster and of each topic.
    fn cluster(&self, session: &Session, until: Instant) -> Result<Found<'_>, Outcome> {
        let mut cluster = Found::default();
        for name in &self.topics {
            let found = session.metadata(name, left(until)).map_err(|code| self.failed(session, code, ""))?;
            for broker in found.brokers() {
                let address = outcome::one_line(&format!("{}:{}", broker.host(), broker.port()));
                cluster.brokers.insert(broker.id(), address);
            }
            let topic = found.topics().iter().find(|topic| topic.name() == name);
            let topic = topic.ok_or_else(|| of_topic(name, Code::UnknownTopicOrPartition))?;
            let leaders = leaders(topic)?;
            cluster.topics.push(format!("{name} ({})", counted(leaders.len(), "partition")));
            for (partition, leader) in leaders {
                cluster.led.entry(leader).or_insert((name, partition));
            }
        }
        Ok(cluster)
    }

    /// Whether a broker that leads a partition answers at the address that the brokers give of it.
    fn ask_leader(
        &self,
        session: &Session,
        leader: i32,
        (topic, partition): Partition<'_>,
        brokers: &BTreeMap<i32, String>,
        until: Instant,
    ) -> Result<(), Outcome> {
        let Some(address) = brokers.get(&leader) else {
            let reason = format!(
                "the partition {partition} of {topic} is led by the broker {leader}, which is not among those that are up"
            );
            return Err(Outcome::Retry { after: None, reason });
        };
        let by = format!(" by the broker at {address}, which leads the partition {partition} of {topic}");
        session
            .ask(topic, partition, left(until))
            .map_err(|code| at_their_address(self.failed(session, code, &by)))
    }

    /// A client that knows `broker` alone.
    fn session(&self, broker: &str) -> Result<Session, String> {
        let mut config = self.config.clone();
        config.set("bootstrap.servers", broker);
        config.set("enable.idempotence", "false");
        config.set("allow.auto.create.topics", "false");
        Session::start(&config, Arc::clone(&self.redactor))
    }

    /// What it means that there was no answer, or none that helps; `by` whom, where it is not the broker that is looked at.
    fn failed(&self, session: &Session, code: Code, by: &str) -> Outcome {
        match outcome::verdict(code) {
            Verdict::Fault(hint) => {
                Outcome::EndpointFault { reason: format!("{}: {hint}", outcome::one_line(&code.to_string())) }
            }
            Verdict::Later | Verdict::TooLarge => {
                let silent = format!("no answer within {} s{by}", self.timeout.as_secs_f64());
                session.trouble().explain(silent)
            }
        }
    }
}

/// What is to be looked at where a broker answers, and one that it names does not.
fn at_their_address(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Retry { after, reason } => {
            let hint = "check the addresses that the brokers give of themselves (advertised.listeners)";
            Outcome::Retry { after, reason: format!("{reason}: {hint}") }
        }
        other => other,
    }
}

/// The partitions of a topic, each with the broker that leads it.
fn leaders(topic: &MetadataTopic) -> Result<Vec<(i32, i32)>, Outcome> {
    let of = |code: RDKafkaRespErr| of_topic(topic.name(), code.into());
    // Of a topic with an error, nothing else may be looked at.
    if let Some(error) = topic.error() {
        return Err(of(error));
    }
    let leader = |partition: &MetadataPartition| match partition.error() {
        // Of the replicas of one, some may be away.
        Some(error) if partition.leader() < 0 => Err(of(error)),
        _ => Ok((partition.id(), partition.leader())),
    };
    topic.partitions().iter().map(leader).collect()
}

/// What an error of a topic means.
fn of_topic(topic: &str, code: Code) -> Outcome {
    let said = format!("the topic {topic}: {}", outcome::one_line(&code.to_string()));
    match outcome::verdict(code) {
        Verdict::Fault(hint) => Outcome::EndpointFault { reason: format!("{said}: {hint}") },
        Verdict::Later | Verdict::TooLarge => Outcome::Retry { after: None, reason: said },
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(clock::now())
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

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

impl Look {
    /// The brokers that are looked at, as `host:port`.
    pub(super) fn brokers(&self) -> Vec<String> {
        let list = self.config.get("bootstrap.servers").unwrap_or_default();
        list.split(',').map(str::to_owned).collect()
    }

    /// What `broker` says. Blocks, for at most the timeout.
    pub(super) fn at(&self, broker: &str) -> Result<String, Outcome> {
        let until = Instant::now() + self.timeout;
        let session = self.session(broker).map_err(|reason| Outcome::EndpointFault { reason })?;
        let left = || until.saturating_duration_since(Instant::now());
        let mut brokers = BTreeMap::new();
        // One partition of each broker that leads some.
        let mut led: BTreeMap<i32, Partition<'_>> = BTreeMap::new();
        let mut topics = Vec::new();
        for name in &self.topics {
            let found = session.metadata(name, left()).map_err(|code| self.failed(&session, code, ""))?;
            brokers.extend(
                found
                    .brokers()
                    .iter()
                    .map(|found| (found.id(), format!("{}:{}", found.host(), found.port()))),
            );
            let topic = found.topics().iter().find(|topic| topic.name() == name);
            let topic = topic.ok_or_else(|| of_topic(name, Code::UnknownTopicOrPartition))?;
            let leaders = leaders(topic)?;
            topics.push(format!("{name} ({})", counted(leaders.len(), "partition")));
            for (partition, leader) in leaders {
                led.entry(leader).or_insert((name, partition));
            }
        }
        for (leader, (topic, partition)) in led {
            let address = brokers.get(&leader).map_or("an address that nobody names", String::as_str);
            let by = format!(" by the broker at {address}, which leads the partition {partition} of {topic}");
            session
                .ask(topic, partition, left())
                .map_err(|code| at_their_address(self.failed(&session, code, &by)))?;
        }
        let security = self.config.get("security.protocol").unwrap_or_default();
        Ok(format!(
            "{} ({}), {}; of the topics there is {}",
            counted(brokers.len(), "broker"),
            listed(brokers.values().map(String::as_str)),
            with_tls(security.ends_with("ssl")),
            listed(topics.iter().map(String::as_str)),
        ))
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

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

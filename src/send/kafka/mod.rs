//! Kafka: an idempotent producer, and a message an event, a source or a batch.
//!
//! Invariants:
//! - The brokers have a batch when the delivery of every message of it was reported without an error, with `acks=all`, and
//!   only then.
//! - The same batch makes the same messages: topic, key, headers and value are a pure function of the payload and the
//!   configuration. The headers of a message of one event name that event for ever: spool, source, sequence number.
//! - A batch is refused for good only where its own messages were found too large: by the library before they were
//!   sent, or by a broker while nothing else was on its way, as what a broker refuses is a set of messages.
//! - The library's own attempts end with the call: `message.timeout.ms` is `timeout_secs`. A producer that let a batch
//!   down takes no other; what it still has queued is purged with it.
//! - No text that leaves this module holds a secret, and no property can be set that would break one of the above.
//!
//! `options` and `properties` read the configuration, `settings` makes the library's out of it, `message` is what
//! travels, `outcome` says what an error means, `session` is one producer and the thread that hears of its
//! deliveries, `strategy` has the one session, and `probe` looks without sending. All of it is in `docs/strategies.md`.
//!
//! What it costs: the library copies what it has queued, so a payload in flight is in memory twice; its queue is
//! bounded, and what finds no room waits for it within the call. Threads: one of ours, one of the library's own, and one
//! for each broker that it knows.

#[cfg(feature = "kafka")]
mod message;
mod options;
#[cfg(feature = "kafka")]
mod outcome;
#[cfg(feature = "kafka")]
mod probe;
mod properties;
#[cfg(feature = "kafka")]
mod session;
#[cfg(feature = "kafka")]
mod settings;
#[cfg(feature = "kafka")]
mod strategy;
mod template;

#[cfg(feature = "kafka")]
pub use self::strategy::KafkaStrategy;
#[cfg(feature = "kafka")]
use self::strategy::new;
use super::Registered;
#[cfg(not(feature = "kafka"))]
use super::not_built as new;
use super::parts::FORMATS;
use crate::config::{Feature, Schemes, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "KAFKA",
        about: "a message an event, a source or a batch",
        schemes: Schemes { plain: "kafka", secure: "kafkas" },
        takes: Takes {
            end_points: false,
            formats: FORMATS,
            compression: false,
            headers: true,
            bearer: false,
        },
        feature: Some(Feature { name: "kafka", built: cfg!(feature = "kafka") }),
        options: Some(&options::TABLE),
        sends: |global| {
            let (tasks, timeout) = (global.max_send_task, global.timeout);
            format!("up to {tasks} batches at a time through one producer, {timeout:?} each")
        },
    },
    new,
};

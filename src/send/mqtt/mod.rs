//! MQTT 5 and 3.1.1: messages of quality 1, which the broker acknowledges.
//!
//! Invariants:
//! - A message is confirmed by the PUBACK with its packet identifier, on the connection that it was published on, and only
//!   then. That nobody subscribes to the topic is a confirmation as well: the protocol knows no queue that would have to
//!   be there.
//! - The client library's event loop is left at its first error, so that it neither connects nor publishes again by itself.
//! - An agent has one connection at a time, as brokers end the older one of two with the same client identifier: one that is
//!   given up on ends before the next is made.
//!
//! `broker` makes the connection, `session` is the task that owns it, `outcome` says what each answer means.

#[cfg(feature = "mqtt")]
mod broker;
#[cfg(feature = "mqtt")]
mod outcome;
#[cfg(feature = "mqtt")]
mod session;

#[cfg(feature = "mqtt")]
use self::broker::new;
use super::Registered;
#[cfg(not(feature = "mqtt"))]
use super::not_built as new;
use super::parts::{FORMATS, Per};
use super::queue::{PER, Syntax, Template, check_template};
use crate::config::options::{Beside, ConfigError, Line, Located, OneOf, Optional, Or, Table, table};
use crate::config::{Feature, OptionTable, Options, Schemes, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "MQTT",
        about: "messages of quality 1 that the broker acknowledges",
        schemes: Schemes { plain: "mqtt", secure: "mqtts" },
        takes: Takes {
            end_points: false,
            formats: FORMATS,
            compression: false,
            headers: false,
            bearer: false,
        },
        feature: Some(Feature { name: "mqtt", built: cfg!(feature = "mqtt") }),
        options: Some(&OptionTable {
            name: "mqtt",
            about: "With `send_type = \"MQTT\"`.",
            keys: MqttKeys::KEYS,
            rows: MqttKeys::rows,
            read,
        }),
        sends: |global| {
            let (tasks, timeout) = (global.max_send_task, global.timeout);
            format!("up to {tasks} batches at a time on one connection, {timeout:?} each")
        },
    },
    new,
};

/// How topics are written.
const SYNTAX: Syntax = Syntax {
    noun: "topic",
    special: &['/', '+', '#'],
    forbidden: &['+', '#'],
    blanks: true,
    empty_words: true,
    separator: '/',
};

/// The versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 5.0.
    Five,
    /// 3.1.1.
    Three,
}

table! {
    /// `[global.mqtt]`.
    MqttKeys, "[global.mqtt]", also &[], {
        topic: Located<String> = Or(Line::NAME, "logs/{agent}".to_owned()),
            "Where messages go, with `{agent}` and, unless `messages` is `\"batch\"`, `{source}`.";
        messages: Located<Per> = Or(OneOf(PER), Per::Batch),
            "What a message has: a whole batch, what it has of a source, or one event.";
        version: Located<Version> = Or(OneOf(&[("5", Version::Five), ("3.1.1", Version::Three)]), Version::Five),
            "Of the protocol. 3.1.1 has nowhere to put keys and sequence numbers, and no reasons.";
        client_id: Option<Located<String>> = Optional(Line::NAME),
            "Unique among the broker's clients; without it, `log-agent-` and `agent_name`.";
    }
}

/// What `[global.mqtt]` says.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "mqtt"), allow(dead_code, reason = "nobody asks"))]
struct MqttOptions {
    topic: Template,
    per: Per,
    version: Version,
    client_id: Option<String>,
}

fn read(table: &Table<'_>, beside: Beside<'_>) -> Result<Options, ConfigError> {
    let keys = MqttKeys::read(table)?;
    let per = Per::check(table, &keys.messages, beside.format)?;
    let topic = check_template(table, "topic", &keys.topic, per, &SYNTAX)?;
    let client_id = keys.client_id.map(|id| id.value);
    Ok(Options::new(MqttOptions { topic, per, version: keys.version.value, client_id }))
}

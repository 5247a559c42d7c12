//! AMQP 0-9-1: persistent messages that the broker confirms.
//!
//! Invariants:
//! - A message is confirmed by the broker's `basic.ack`, where it was not returned before, and only then. Every message is
//!   `mandatory`: one that no queue takes is returned, and is not delivered.
//! - Each batch in flight has a channel of its own, so that a returned message and what it is confirmed by are of the same
//!   batch: the protocol does not say which confirmation belongs to a return.
//! - While the broker says that it is blocked, nothing is handed to the client library, whose queue has no bound.
//! - The client library connects when a batch asks for it, and never again by itself.
//!
//! `broker` has the connection and its channels, `outcome` says what each answer means.

#[cfg(feature = "amqp")]
mod broker;
#[cfg(feature = "amqp")]
mod outcome;

#[cfg(feature = "amqp")]
use self::broker::new;
use super::Registered;
#[cfg(not(feature = "amqp"))]
use super::not_built as new;
use super::parts::{FORMATS, Per};
use super::queue::{PER, Syntax, Template, check_template};
use crate::config::options::{Beside, ConfigError, Line, Located, OneOf, Or, Table, table};
use crate::config::{Feature, OptionTable, Options, Schemes, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "AMQP",
        about: "messages of AMQP 0-9-1 that the broker confirms",
        schemes: Schemes { plain: "amqp", secure: "amqps" },
        takes: Takes {
            end_points: false,
            formats: FORMATS,
            compression: false,
            headers: false,
            bearer: false,
        },
        feature: Some(Feature { name: "amqp", built: cfg!(feature = "amqp") }),
        options: Some(&OptionTable {
            name: "amqp",
            about: "With `send_type = \"AMQP\"`. The path of `end_point` is the virtual host: `/` is the one of that name, \
                    `/a%2Fb` the one named `a/b`. Without `[global.auth]` the agent is `guest`; with \
                    `?auth_mechanism=external` it is who its client certificate says.",
            keys: AmqpKeys::KEYS,
            rows: AmqpKeys::rows,
            read,
        }),
        sends: |global| {
            let (tasks, timeout) = (global.max_send_task, global.timeout);
            format!("up to {tasks} batches at a time on one connection, {timeout:?} each")
        },
    },
    new,
};

/// How routing keys are written.
const SYNTAX: Syntax = Syntax {
    noun: "routing key",
    special: &['.', '*', '#'],
    forbidden: &[],
    blanks: true,
    empty_words: true,
    separator: '.',
};

table! {
    /// `[global.amqp]`.
    AmqpKeys, "[global.amqp]", also &[], {
        exchange: Located<String> = Or(Line::ADDRESS, String::new()),
            "The exchange, which must be there. The empty one takes messages to the queue that the routing key names.";
        routing_key: Located<String> = Or(Line::ADDRESS, "logs.{agent}".to_owned()),
            "With `{agent}` and, unless `messages` is `\"batch\"`, `{source}`; a queue must take it.";
        messages: Located<Per> = Or(OneOf(PER), Per::Batch),
            "What a message has: a whole batch, what it has of a source, or one event.";
    }
}

/// What `[global.amqp]` says.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "amqp"), allow(dead_code, reason = "nobody asks"))]
struct AmqpOptions {
    exchange: String,
    routing_key: Template,
    per: Per,
}

fn read(table: &Table<'_>, beside: Beside<'_>) -> Result<Options, ConfigError> {
    let keys = AmqpKeys::read(table)?;
    let per = Per::check(table, &keys.messages, beside.format)?;
    let routing_key = check_template(table, "routing_key", &keys.routing_key, per, &SYNTAX)?;
    Ok(Options::new(AmqpOptions { exchange: keys.exchange.value, routing_key, per }))
}

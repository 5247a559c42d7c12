//! NATS JetStream: one publication a message, acknowledged by the stream that stored it.
//!
//! Invariants:
//! - A message is confirmed by the stream's answer to it, with the stream's name and a sequence number, and only then.
//!   That it is a duplicate is a confirmation as well.
//! - `Nats-Msg-Id` is the message's identifier, so that a stream drops what it has stored within its duplicate window.
//! - The client library connects when a batch asks for it. A connection that was lost is never taken up again: the
//!   library's one attempt to do so is refused before it has shown who it is.
//!
//! `broker` has the connection, `answer` says what each answer means, `credentials` show who the agent is.

#[cfg(feature = "nats")]
mod answer;
#[cfg(feature = "nats")]
mod broker;
#[cfg(feature = "nats")]
mod credentials;

#[cfg(feature = "nats")]
use self::broker::new;
use super::Registered;
#[cfg(not(feature = "nats"))]
use super::not_built as new;
use super::parts::{FORMATS, Per};
use super::queue::{PER, Syntax, Template, check_template};
use crate::config::options::{
    Beside, ConfigError, Line, Located, OneOf, Optional, Or, Problem, Table, secret_file, table,
};
use crate::config::{Feature, OptionTable, Options, Schemes, Secret, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "NATS",
        about: "messages that a JetStream stream acknowledges",
        schemes: Schemes { plain: "nats", secure: "tls" },
        takes: Takes {
            end_points: false,
            formats: FORMATS,
            compression: false,
            headers: false,
            bearer: true,
        },
        feature: Some(Feature { name: "nats", built: cfg!(feature = "nats") }),
        options: Some(&OptionTable {
            name: "nats",
            about: "With `send_type = \"NATS\"`.",
            keys: NatsKeys::KEYS,
            rows: NatsKeys::rows,
            read,
        }),
        sends: |global| {
            let (tasks, timeout) = (global.max_send_task, global.timeout);
            format!("up to {tasks} batches at a time on one connection, {timeout:?} each")
        },
    },
    new,
};

/// How subjects are written.
const SYNTAX: Syntax = Syntax {
    noun: "subject",
    special: &['.', '*', '>'],
    forbidden: &['*', '>'],
    blanks: false,
    empty_words: false,
    separator: '.',
};

table! {
    /// `[global.nats]`.
    NatsKeys, "[global.nats]", also &[], {
        subject: Located<String> = Or(Line::NAME, "logs.{agent}".to_owned()),
            "Where messages go, with `{agent}` and, unless `messages` is `\"batch\"`, `{source}`; a stream must take it.";
        messages: Located<Per> = Or(OneOf(PER), Per::Batch),
            "What a message has: a whole batch, what it has of a source, or one event.";
        stream: Option<Located<String>> = Optional(Line::NAME),
            "The stream that is expected to take them; another one refuses.";
        credentials_file: Option<Located<String>> = Optional(Line::SECRET),
            "A file of credentials (`.creds`: a JWT and the key it is for), instead of `[global.auth]`.";
        nkey_file: Option<Located<String>> = Optional(Line::SECRET),
            "A file that has the seed of a user's key, instead of `[global.auth]`.";
    }
}

/// What `[global.nats]` says.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "nobody asks"))]
struct NatsOptions {
    subject: Template,
    per: Per,
    stream: Option<String>,
    credentials: Option<Secret>,
    nkey: Option<Secret>,
}

fn read(table: &Table<'_>, beside: Beside<'_>) -> Result<Options, ConfigError> {
    let keys = NatsKeys::read(table)?;
    let per = Per::check(table, &keys.messages, beside.format)?;
    let subject = check_template(table, "subject", &keys.subject, per, &SYNTAX)?;
    let [credentials, nkey] = [("credentials_file", &keys.credentials_file), ("nkey_file", &keys.nkey_file)]
        .map(|(name, file)| {
            let Some(file) = file else { return Ok(None) };
            if beside.auth.is_some() {
                let problem = Problem::Conflict(
                    "stands beside [global.auth]; the agent must be known by one of the two".to_owned(),
                );
                return Err(table.error(name, file.line, problem));
            }
            secret_file(file).map(Some).map_err(|problem| table.error(name, file.line, problem))
        });
    let (credentials, nkey) = (credentials?, nkey?);
    if let (Some(_), Some(file)) = (&credentials, &keys.nkey_file) {
        let problem =
            Problem::Conflict("stands beside credentials_file; there must be one of the two".to_owned());
        return Err(table.error("nkey_file", file.line, problem));
    }
    let stream = keys.stream.map(|stream| stream.value);
    Ok(Options::new(NatsOptions { subject, per, stream, credentials, nkey }))
}

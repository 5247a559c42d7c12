//! The way out: one [`Strategy`] a transport.
//!
//! A transport is one module here and one line in `STRATEGIES`; `docs/strategies.md` says how one is written.

mod amqp;
mod client;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod http;
mod kafka;
mod mqtt;
mod nats;
mod parts;
mod places;
mod queue;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::batch::Payload;
use crate::config::{Global, Transport};
use crate::event::SourceName;

pub use http::HttpStrategy;
#[cfg(feature = "kafka")]
pub use kafka::KafkaStrategy;
#[cfg(feature = "websocket")]
pub use websocket::{PROTOCOL as WEBSOCKET_PROTOCOL, WebSocketStrategy};

/// The strategies, one line each.
#[rustfmt::skip]
const STRATEGIES: &[&Registered] = &[
    &http::STRATEGY,
    &websocket::STRATEGY,
    &nats::STRATEGY,
    &amqp::STRATEGY,
    &mqtt::STRATEGY,
    &kafka::STRATEGY,
];

/// A strategy that `send_type` can choose.
struct Registered {
    /// What the configuration has to know of it.
    transport: &'static Transport,
    /// Makes it; [`not_built`] where it is not part of this program.
    new: New,
}

/// Makes a strategy as a configuration says. Opens no connection.
type New = fn(&Global) -> Result<Arc<dyn Strategy>, SendError>;

/// The strategies that `send_type` can choose from, those that were not built in included.
#[must_use]
pub fn transports() -> Vec<&'static Transport> {
    STRATEGIES.iter().map(|strategy| strategy.transport).collect()
}

/// The strategy that `send_type` asks for. Opens no connection.
///
/// # Errors
/// [`SendError`] where a configured certificate, key or header cannot be used.
pub fn strategy(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    match STRATEGIES.iter().find(|strategy| strategy.transport.name == global.send_type.name) {
        Some(strategy) => (strategy.new)(global),
        None => not_built(global),
    }
}

/// In place of a strategy that is not part of this program.
fn not_built(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    Err(SendError::NotBuilt { send_type: global.send_type.name })
}

/// Why a strategy could not be set up. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A header's name or value has characters that a header cannot have.
    #[error("{key}: header {name:?} cannot be sent: its name or value has a character that is not allowed")]
    Header {
        /// The configuration key.
        key: &'static str,
        /// The header's name.
        name: String,
    },
    /// `ca_file` has no certificate that can be trusted.
    #[error("ca_file in [global.tls] has no usable PEM certificate")]
    Ca(#[source] Option<reqwest::Error>),
    /// `client_cert_file` and `client_key_file` do not make an identity.
    #[error(
        "client_cert_file and client_key_file in [global.tls] are not a PEM certificate chain and its key"
    )]
    ClientIdentity(#[source] reqwest::Error),
    /// What `[global.tls]` says cannot be used, or the system's trusted certificates could not be loaded.
    #[error("the settings of [global.tls] cannot be used")]
    Tls(#[source] rustls::Error),
    /// What a strategy's own table names cannot be used.
    #[error("{table} {what}")]
    Options {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The library that a strategy is built on refused its settings; what it says, without secrets.
    #[error("the {library} client cannot be set up: {reason}")]
    Library {
        /// Its name.
        library: &'static str,
        /// In one line.
        reason: String,
    },
    /// The strategy is not part of this program. The configuration says so first.
    #[error("send_type \"{send_type}\" is not part of this log-agent")]
    NotBuilt {
        /// Its name.
        send_type: &'static str,
    },
    /// The HTTP client refused its settings, or the system's trusted certificates could not be loaded.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// A transport. It sends one payload and says what became of it; retrying is not its business.
pub trait Strategy: Send + Sync + 'static {
    /// Sends `payload` once, within the configured timeout.
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome>;

    /// Whether it makes several messages of a payload, which then has to say where its events end.
    fn takes_apart(&self) -> bool {
        false
    }

    /// Asks each end point whether it can be reached as it is configured, without sending an event and without storing
    /// anything. `sources` are those of the configuration, whose names may be in where their events go. Each end point
    /// takes at most the configured timeout. A transport that cannot ask returns nothing.
    fn probe<'a>(&'a self, _sources: &'a [SourceName]) -> BoxFuture<'a, Vec<Probe>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// Ends in order what is kept open between sends. Called once, when nothing more will be sent.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Outcome {
    /// What is said of it, in one line; empty where all is well.
    fn into_reason(self) -> String {
        match self {
            Self::Acknowledged => String::new(),
            Self::Retry { reason, .. } | Self::EndpointFault { reason } => reason,
            Self::Rejected { status, response } => format!("the server answered {status}: {response}"),
        }
    }
}

/// Names in one line, a few of many. For what is said of an end point.
#[cfg(any(feature = "kafka", feature = "queue"))]
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let shown: Vec<&str> = names.iter().copied().take(SHOWN).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// How a connection is encrypted, for what is said of an end point.
#[cfg(any(feature = "kafka", feature = "queue"))]
const fn with_tls(is_secure: bool) -> &'static str {
    if is_secure { "with TLS" } else { "without TLS" }
}

/// What was found at one end point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The end point, without secrets.
    pub end_point: String,
    /// What answered, in one line, or what is wrong and what to look at.
    pub found: Result<String, String>,
}

/// The delivery outcome of one send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken every event.
    Acknowledged,
    /// It may work later: connection errors, timeouts, 408, 425, 429, 5xx.
    Retry {
        /// The server's `Retry-After`, counted from now.
        after: Option<Duration>,
        /// What happened, in one line.
        reason: String,
    },
    /// The server refuses the content: 400, 413, 422.
    Rejected {
        /// The status it answered with.
        status: u16,
        /// The beginning of its answer, at most 4 KiB, as text.
        response: String,
    },
    /// The endpoint or the configuration is at fault: everything is kept and tried again at the slow cadence.
    EndpointFault {
        /// What happened and what to look at, in one line.
        reason: String,
    },
}

#[cfg(any(feature = "kafka", feature = "websocket", feature = "queue"))]
impl Outcome {
    /// The same without secrets: a server may repeat what it was sent.
    fn cleaned(self, redactor: &client::Redactor) -> Self {
        match self {
            Self::Acknowledged => Self::Acknowledged,
            Self::Retry { after, reason } => Self::Retry { after, reason: redactor.clean(reason) },
            Self::Rejected { status, response } => {
                Self::Rejected { status, response: redactor.clean(response) }
            }
            Self::EndpointFault { reason } => Self::EndpointFault { reason: redactor.clean(reason) },
        }
    }
}

#[cfg(test)]
#[cfg(any(feature = "kafka", feature = "queue"))]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_a_few_are_said_and_how_many_more_there_are() {
        assert_eq!(listed([]), "");
        assert_eq!(listed(["a", "b"]), "a, b");
        assert_eq!(listed(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(listed(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}

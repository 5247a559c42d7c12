//! The way out: one [`Strategy`] a transport.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::batch::Payload;

/// A transport. It sends one payload and says what became of it; retrying is not its business.
pub trait Strategy: Send + Sync + 'static {
    /// Sends `payload` once, within the configured timeout.
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome>;
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

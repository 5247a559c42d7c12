//! WebSocket: one connection, one text frame a batch, one answer a frame, in any order.
//!
//! Invariants:
//! - The server has a batch when a frame `{"ack":"<key>"}` with its key arrived, and only then. Equal keys mean equal
//!   bytes, so it does not matter which sending of the batch it answers.
//! - A batch that is not answered in time, and one whose connection ends first, is sent again, on another connection.
//! - A batch is refused for good by a status that says so, or by the close code for messages that are too big where
//!   it was the only one that can be meant. A refusal that gives no such reason is a retry.
//! - The handshake is a request of the shared client, whose rules hold: see `client`.
//! - No text that leaves this module holds a secret.
//!
//! `strategy` has the one connection, `handshake` makes it, `session` is the task that owns it, `frame` and `answer` are what travels, and
//! `outcome` says what an answer, or the end of a connection, means for a batch. All of it is in `docs/strategies.md`.
//!
//! What it costs: beside the payloads in flight, two copies of a frame, however many batches there are. A connection
//! that was given up on lives until the last batch on it was answered or given up on, too.

#[cfg(feature = "websocket")]
mod answer;
#[cfg(feature = "websocket")]
mod frame;
#[cfg(feature = "websocket")]
mod handshake;
#[cfg(feature = "websocket")]
mod outcome;
#[cfg(feature = "websocket")]
mod session;
#[cfg(feature = "websocket")]
mod strategy;

#[cfg(all(feature = "websocket", any(test, feature = "fuzzing")))]
pub(super) use self::answer::fuzz as fuzz_answer;
#[cfg(feature = "websocket")]
use self::strategy::new;
#[cfg(feature = "websocket")]
pub use self::strategy::{PROTOCOL, WebSocketStrategy};
use super::Registered;
#[cfg(not(feature = "websocket"))]
use super::not_built as new;
use crate::config::{Feature, Format, Schemes, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "WEBSOCKET",
        about: "one frame each on one connection",
        schemes: Schemes { plain: "ws", secure: "wss" },
        takes: Takes {
            end_points: false,
            formats: &[Format::Json],
            compression: false,
            headers: true,
            bearer: true,
        },
        feature: Some(Feature { name: "websocket", built: cfg!(feature = "websocket") }),
        options: None,
        sends: |global| {
            let (tasks, timeout) = (global.max_send_task, global.timeout);
            format!("up to {tasks} batches at a time on one connection, {timeout:?} each")
        },
    },
    new,
};

//! What the message queues share: how a batch becomes messages, where each goes, one connection for all, and what becomes of
//! the batch when some of its messages fail.
//!
//! Invariants:
//! - A batch is acknowledged when the broker has confirmed every message of it, and only then.
//! - The same batch makes the same messages under the same identifiers, always; a message of one event has the same
//!   identifier in whatever batch it travels.
//! - There is one attempt to connect at a time, and it is made for a batch: nothing reconnects by itself.
//! - No text that leaves this module holds a secret.
//!
//! `messages` cuts, `template` says where to, `connection` keeps what is open, `options` are the keys that they have in
//! common. A [`Broker`] is the rest: it connects, publishes one message, and says what the answer means.

#[cfg(feature = "queue")]
mod connection;
#[cfg(feature = "queue")]
mod messages;
mod options;
mod template;
#[cfg(feature = "queue")]
pub(super) mod tls;

#[cfg(feature = "queue")]
mod publisher;

#[cfg(feature = "queue")]
pub(super) use self::connection::Live;
#[cfg(feature = "queue")]
pub(super) use self::messages::Message;
pub(super) use self::options::{PER, check_template};
#[cfg(feature = "queue")]
pub(super) use self::publisher::{Broker, Publisher};
#[cfg(any(feature = "nats", feature = "mqtt"))]
pub(super) use self::publisher::{WINDOW, in_order};
pub(super) use self::template::{Syntax, Template};

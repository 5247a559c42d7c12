//! Delivery: first sends, retries, parking and the circuit breaker.
//!
//! ```text
//!  ready ──▶ first send ──▶ acknowledged ──▶ deleted from the ledger
//!                │  ▲
//!         failed ▼  │ due          refused ──▶ halved ──▶ … ──▶ one event ──▶ dead letter
//!             waiting  (id, attempts, due time; the payload is loaded again)
//! ```
//!
//! Invariants:
//! - A batch leaves delivery in one of three ways: acknowledged, replaced by others, or buried as a dead letter. It
//!   never leaves for having failed often.
//! - What a failed batch costs in memory is its id and two numbers, and how many of them wait is bounded, so an outage
//!   costs the same however long it is.
//! - While the endpoint is down there is one request at a time, at the backoff's cadence, however large the backlog.

mod backoff;
mod breaker;
mod counters;
mod delivery;
mod notices;
mod waiting;

use crate::batch::{BatchId, Payload};

pub use backoff::{Backoff, BackoffError, Jitter};
pub use breaker::{Admission, Blame, Breaker, Failure};
pub use counters::{DeliveryCounters, DeliverySnapshot};
pub use delivery::{Delivery, DeliveryError, Policy, Ready, WAITING_MAX};

/// What delivery asks of the spool. Every method but [`Outbox::acknowledge`] may block on the
/// disk: call them where blocking is allowed.
pub trait Outbox: Send + Sync + 'static {
    /// Reads and encodes a batch again, byte for byte as it was first sent.
    ///
    /// # Errors
    /// [`OutboxError::Replaced`] where the batch can no longer be read whole (a damaged frame): it was replaced by
    /// others, which are to be sent in its place. [`OutboxError::Closed`] where the spool failed; delivery stops.
    fn load(&self, batch: BatchId) -> Result<Payload, OutboxError>;

    /// Notes that the server has taken `payload`. Recorded within a few milliseconds, together with others: after a
    /// crash before that it is sent again under its key. Returns at once, without waiting for the disk: delivery calls
    /// it thousands of times a second from its own task.
    fn acknowledge(&self, payload: &Payload);

    /// Replaces a batch by its two halves, durably.
    ///
    /// # Errors
    /// [`OutboxError::Closed`] where it could not be recorded.
    fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], OutboxError>;

    /// Moves the only event of `payload` to the dead letters with what the server said, durably, and acknowledges it.
    ///
    /// # Errors
    /// [`OutboxError::Closed`] where it could not be recorded.
    fn bury(&self, payload: &Payload, status: u16, response: &str) -> Result<(), OutboxError>;
}

/// Why the spool could not do what delivery asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// The batch was damaged on disk; these take its place (possibly none).
    #[error("the batch was damaged on disk and replaced")]
    Replaced(Vec<BatchId>),
    /// The spool takes no more changes.
    #[error("the spool is closed")]
    Closed,
}

//! Delivery: first sends, retries, parking and the circuit breaker.

use crate::batch::{BatchId, Payload};

/// What delivery asks of the spool. Every method may block on the disk: call them where blocking is allowed.
pub trait Outbox: Send + Sync + 'static {
    /// Reads and encodes a batch again, byte for byte as it was first sent.
    ///
    /// # Errors
    /// [`OutboxError::Replaced`] where the batch can no longer be read whole (a damaged frame): it was replaced by
    /// others, which are to be sent in its place. [`OutboxError::Closed`] where the spool failed; delivery stops.
    fn load(&self, batch: BatchId) -> Result<Payload, OutboxError>;

    /// Notes that the server has taken `payload`. Recorded within a few milliseconds, together with others: after a
    /// crash before that it is sent again under its key.
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

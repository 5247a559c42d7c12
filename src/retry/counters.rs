//! What delivery has done and is doing, in numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Counts since the start of the agent. Each is exact; two of them read together may be a moment apart.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    acknowledged_batches: AtomicU64,
    acknowledged_events: AtomicU64,
    retries: AtomicU64,
    rejected: AtomicU64,
    dead: AtomicU64,
    in_flight: AtomicU64,
    waiting: AtomicU64,
    parked: AtomicU64,
    down: AtomicBool,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeliverySnapshot {
    /// Batches, and parts of batches, that the server took.
    pub acknowledged_batches: u64,
    /// Events in them.
    pub acknowledged_events: u64,
    /// Sends that failed and are made up for later.
    pub retries: u64,
    /// Sends whose content the server refused.
    pub rejected: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Batches that wait for a replay now, the parked ones included.
    pub waiting: u64,
    /// Batches that are out of quick retries now.
    pub parked: u64,
    /// Whether the circuit breaker is open now.
    pub down: bool,
}

impl DeliveryCounters {
    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> DeliverySnapshot {
        DeliverySnapshot {
            acknowledged_batches: self.acknowledged_batches.load(Relaxed),
            acknowledged_events: self.acknowledged_events.load(Relaxed),
            retries: self.retries.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            dead: self.dead.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            parked: self.parked.load(Relaxed),
            down: self.down.load(Relaxed),
        }
    }

    pub(super) fn acknowledged(&self, events: u64) {
        self.acknowledged_batches.fetch_add(1, Relaxed);
        self.acknowledged_events.fetch_add(events, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn died(&self) {
        self.dead.fetch_add(1, Relaxed);
    }

    /// Sets what changes both ways.
    pub(super) fn set_gauges(&self, in_flight: usize, waiting: usize, parked: usize, down: bool) {
        self.in_flight.store(in_flight as u64, Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
        self.parked.store(parked as u64, Relaxed);
        self.down.store(down, Relaxed);
    }
}

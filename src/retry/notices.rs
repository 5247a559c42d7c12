//! What delivery says to the operator: the first failure at once, repeats with a count, the recovery once.
//!
//! Invariant: whatever the endpoint does, each kind of message comes at most once in [`REPEAT`], and no message holds
//! the content of a line or of a server's answer.

use std::time::Duration;

use tokio::time::Instant;

use super::waiting::Waiting;
use crate::batch::BatchId;
use crate::event::{Seq, SourceName};

/// The shortest time between two messages of a kind.
const REPEAT: Duration = Duration::from_secs(60);

/// Lets a message through now and then, and counts those held back.
#[derive(Clone, Copy, Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// How many were held back since the last message, where it is time for one.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REPEAT) {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// The messages of one delivery.
#[derive(Debug, Default)]
pub(super) struct Notices {
    failed: Throttle,
    fault: Throttle,
    parked: Throttle,
    dead: Throttle,
    /// The first failure since the endpoint last answered.
    failing_since: Option<Instant>,
    /// Since then.
    failures: u64,
    /// A message told of one of them.
    told: bool,
    /// The breaker opened since then.
    opened: bool,
}

impl Notices {
    /// A send failed. `open` says that the breaker is open now.
    pub(super) fn failed(&mut self, waiting: &Waiting, reason: &str, fault: bool, open: bool, now: Instant) {
        self.failing_since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        let (batch, attempt) = (waiting.batch, waiting.attempts);
        let throttle = if fault { &mut self.fault } else { &mut self.failed };
        let passed = throttle.pass(now);
        match passed {
            Some(more) if fault => tracing::error!(
                %batch, attempt, error = reason, more,
                "the endpoint refuses delivery; everything is kept and tried again at the slow cadence"
            ),
            Some(more) => tracing::warn!(
                %batch, attempt, error = reason, more, "delivery failed and will be tried again"
            ),
            None => tracing::debug!(%batch, attempt, error = reason, "delivery failed again"),
        }
        self.told |= passed.is_some();
        self.opened |= open;
    }

    /// A batch ran out of quick retries although the endpoint serves others.
    pub(super) fn parked(&mut self, waiting: &Waiting, now: Instant) {
        if let Some(more) = self.parked.pass(now) {
            tracing::warn!(batch = %waiting.batch, attempt = waiting.attempts, more,
                "batch parked after its quick retries; it is tried again at the slow cadence");
        }
    }

    /// The endpoint answered.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(since) = self.failing_since.take() else { return };
        let failures = std::mem::take(&mut self.failures);
        let (told, opened) = (std::mem::take(&mut self.told), std::mem::take(&mut self.opened));
        // A recovery is told only where the failure was, which bounds both.
        if told && opened {
            let outage_secs = now.saturating_duration_since(since).as_secs();
            tracing::info!(outage_secs, failures, "the endpoint answers again");
        }
    }

    /// An event became a dead letter.
    pub(super) fn buried(
        &mut self,
        batch: BatchId,
        event: Option<(&SourceName, Seq)>,
        status: u16,
        now: Instant,
    ) {
        let Some(more) = self.dead.pass(now) else { return };
        let (source, seq) = event.map_or(("", 0), |(source, seq)| (source.as_str(), seq.0));
        tracing::error!(status, %batch, source, seq, more,
            "the server refused an event for good; it was moved to the dead letters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_passes_and_repeats_are_counted() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pass(now), Some(0));
        assert_eq!(throttle.pass(now + REPEAT / 2), None);
        assert_eq!(throttle.pass(now + REPEAT / 2), None);
        assert_eq!(throttle.pass(now + REPEAT), Some(2));
        assert_eq!(throttle.pass(now + REPEAT * 2), Some(0));
    }
}

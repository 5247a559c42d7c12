//! Messages that would repeat: said once, then summarised with a count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// Limits one message to one in a while and counts those in between.
///
/// ```
/// # use std::time::Duration;
/// # use log_agent::telemetry::Repeats;
/// let refused = Repeats::new(Duration::from_secs(10));
/// for _ in 0..3 {
///     if let Some(suppressed) = refused.seen() {
///         tracing::warn!(suppressed, "the server refuses connections");
///     }
/// }
/// assert_eq!(refused.over(), 2);
/// ```
#[derive(Debug)]
pub struct Repeats {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    suppressed: u64,
}

impl Repeats {
    /// At most one message in `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new(State { said: None, suppressed: 0 }) }
    }

    /// Notes that it happened. `Some` says that it is to be said now, with how often it was not said since last time.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        self.seen_at(clock::now())
    }

    /// [`Repeats::seen`] at the time `now`.
    #[must_use]
    pub fn seen_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < self.every) {
            state.suppressed = state.suppressed.saturating_add(1);
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }

    /// Notes that it is over: what comes next is said at once. Returns how often it was not said.
    pub fn over(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *state).suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_is_said_and_the_next_tells_how_many_were_not() {
        let (repeats, start) = (Repeats::new(EVERY), clock::now());
        assert_eq!(repeats.seen_at(start), Some(0));
        assert_eq!(repeats.seen_at(start + EVERY / 2), None);
        assert_eq!(repeats.seen_at(start + EVERY - Duration::from_nanos(1)), None);
        assert_eq!(repeats.seen_at(start + EVERY), Some(2));
        assert_eq!(repeats.seen_at(start + EVERY + EVERY), Some(0));
    }

    #[test]
    fn after_it_was_over_it_is_said_at_once() {
        let (repeats, start) = (Repeats::new(EVERY), clock::now());
        assert_eq!(repeats.seen_at(start), Some(0));
        assert_eq!(repeats.seen_at(start), None);
        assert_eq!(repeats.over(), 1);
        assert_eq!(repeats.over(), 0);
        assert_eq!(repeats.seen_at(start), Some(0));
    }

    #[test]
    fn a_clock_that_seems_to_go_back_suppresses() {
        let (repeats, start) = (Repeats::new(EVERY), clock::now());
        assert_eq!(repeats.seen_at(start + EVERY), Some(0));
        assert_eq!(repeats.seen_at(start), None);
    }

    #[test]
    fn threads_together_count_every_one() {
        let (repeats, now) = (Repeats::new(EVERY), clock::now());
        let said = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if repeats.seen_at(now).is_some() {
                            said.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((said.into_inner(), repeats.over()), (1, 3999));
    }
}

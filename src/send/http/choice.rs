//! Which of several end points a request goes to.
//!
//! Invariants:
//! - One is the current one, and all requests go there, until so many in a row failed as open the circuit breaker: then
//!   the next one is. After the last comes the first.
//! - While another than the first is current, one request a minute goes to the first; when that succeeds it is current
//!   again.
//! - Pure but for the clock that it is given.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first end point is left alone after it failed.
const RETURN_AFTER: Duration = Duration::from_secs(60);

/// How a request ended, as far as the end point goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It answered, and the answer is about the content.
    Well,
    /// It answered that it wants time: another one would not be what it asks for.
    Later,
    /// It did not answer, or as one that is out of order or not set up.
    Badly,
}

/// The state of the choice.
#[derive(Debug)]
pub(super) struct Choice {
    count: usize,
    current: usize,
    /// Requests to the current one that ended badly, in a row.
    failures: u32,
    /// So many make the next one current.
    failures_max: u32,
    /// When the first is tried again.
    first_again: Option<Instant>,
}

impl Choice {
    /// A choice among `count` end points, at least one.
    pub(super) const fn new(count: usize, failures_max: u32) -> Self {
        Self { count, current: 0, failures: 0, failures_max, first_again: None }
    }

    /// The index of the end point for the next request.
    pub(super) fn pick(&mut self, now: Instant) -> usize {
        match self.first_again {
            Some(due) if due <= now => {
                self.first_again = Some(now + RETURN_AFTER);
                0
            }
            _ => self.current,
        }
    }

    /// Takes the end of a request to the end point `index` into account; says whether another one is current now.
    pub(super) fn ended(&mut self, index: usize, end: End, now: Instant) -> bool {
        let before = self.current;
        match end {
            End::Well if index == 0 && self.current != 0 => self.make_current(0, now),
            End::Well if index == self.current => self.failures = 0,
            End::Badly if index == self.current && self.count > 1 => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.failures_max {
                    let next = self.current.saturating_add(1);
                    self.make_current(if next < self.count { next } else { 0 }, now);
                }
            }
            _ => {}
        }
        self.current != before
    }

    /// The index of the current end point.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    fn make_current(&mut self, index: usize, now: Instant) {
        self.current = index;
        self.failures = 0;
        self.first_again = match (index, self.first_again) {
            (0, _) => None,
            // One that failed meanwhile does not put the first off.
            (_, Some(due)) => Some(due),
            (_, None) => Some(now + RETURN_AFTER),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_enough_failures_in_a_row_the_next_is_current_and_after_the_last_the_first() {
        let now = Instant::now();
        let mut choice = Choice::new(3, 2);
        assert_eq!(choice.pick(now), 0);
        assert!(!choice.ended(0, End::Badly, now));
        assert!(!choice.ended(0, End::Well, now), "a success ends the row");
        assert!(!choice.ended(0, End::Badly, now));
        assert!(!choice.ended(0, End::Later, now), "being asked for time is no failure");
        assert!(choice.ended(0, End::Badly, now));
        assert_eq!(choice.pick(now), 1);
        assert!(!choice.ended(0, End::Badly, now), "one that was left says nothing of the current one");
        assert!(!choice.ended(1, End::Badly, now));
        assert!(choice.ended(1, End::Badly, now));
        assert_eq!(choice.pick(now), 2);
        assert!(!choice.ended(2, End::Badly, now));
        assert!(choice.ended(2, End::Badly, now));
        assert_eq!((choice.pick(now), choice.first_again), (0, None));
    }

    #[test]
    fn the_first_is_tried_with_one_request_a_minute_and_is_current_again_when_it_succeeds() {
        let mut now = Instant::now();
        let mut choice = Choice::new(2, 1);
        choice.ended(0, End::Badly, now);
        now += RETURN_AFTER - Duration::from_millis(1);
        assert_eq!(choice.pick(now), 1);
        now += Duration::from_millis(1);
        assert_eq!((choice.pick(now), choice.pick(now)), (0, 1), "one request only");
        assert!(!choice.ended(0, End::Badly, now), "the other one stays");
        assert_eq!(choice.pick(now), 1);
        now += RETURN_AFTER;
        assert_eq!(choice.pick(now), 0);
        assert!(choice.ended(0, End::Well, now));
        assert_eq!((choice.pick(now), choice.pick(now + RETURN_AFTER)), (0, 0));
    }

    #[test]
    fn one_end_point_alone_is_never_left() {
        let now = Instant::now();
        let mut choice = Choice::new(1, 1);
        for _ in 0..10 {
            assert!(!choice.ended(0, End::Badly, now));
            assert_eq!(choice.pick(now), 0);
        }
    }
}

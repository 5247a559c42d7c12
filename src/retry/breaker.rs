//! The circuit breaker: how many requests a troubled endpoint gets.
//!
//! ```text
//!            failures in a row, Retry-After
//!  CLOSED ────────────────────────────────────────────────▶ OPEN ◀─┐ the probe failed: a longer delay
//!    ▲                                                       │  └──┘
//!    │ the limit is reached            the endpoint answered │
//!    └──────────────── RECOVERING (1, 2, 4, … in flight) ◀───┘
//!                           └── a failure ──▶ OPEN, from the first delay
//! ```
//!
//! Invariants:
//! - Open, at most one probe is in flight, and between two probes there is a delay of the backoff.
//! - It decides about the endpoint alone; which batch goes next is not its business.
//! - A batch that fails for a reason of its own, between others that do not, never opens it for longer than the first
//!   delay. That holds for endpoint faults, too: a filter before the server may refuse one batch and no other.
//! - Pure: time and randomness are passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;

/// The longest silence that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Send,
    /// Yes, this one, as a probe: tell [`Breaker::probe_started`].
    Probe,
    /// Not before then.
    At(Instant),
    /// Not before a request in flight has its outcome.
    AfterOutcome,
}

/// A failure that says something about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The server's `Retry-After`.
    pub after: Option<Duration>,
    /// The endpoint or the configuration is at fault, so that trying soon is of no use.
    pub fault: bool,
    /// The request was the probe.
    pub probe: bool,
}

/// What a failure is put down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The endpoint is down: what was sent says nothing about the batch.
    Endpoint,
    /// The endpoint served others just before: it may be the batch.
    Batch,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Failures since the endpoint last answered.
    failures: u32,
    /// This many failures in a row open it.
    open_after: u32,
    /// How many requests there are at most when all is well.
    limit: usize,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        /// The next probe is not sent before.
        until: Instant,
        /// Which delay of the backoff ends at `until`.
        level: u32,
        probing: bool,
    },
    Recovering {
        /// How many requests may be in flight.
        allowed: usize,
    },
}

impl Breaker {
    /// A closed breaker that opens after `open_after` failures in a row (at least 1) and closes once `limit` requests
    /// at a time are allowed again.
    #[must_use]
    pub fn new(open_after: u32, limit: usize, backoff: Backoff) -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            open_after: open_after.max(1),
            limit: limit.max(1),
            backoff,
        }
    }

    /// Whether one more request may be sent `now`, while `in_flight` are.
    #[must_use]
    pub fn admit(&self, now: Instant, in_flight: usize) -> Admission {
        match self.state {
            State::Closed => Admission::Send,
            State::Recovering { allowed } if in_flight < allowed => Admission::Send,
            State::Recovering { .. } | State::Open { probing: true, .. } => Admission::AfterOutcome,
            State::Open { until, .. } if now < until => Admission::At(until),
            State::Open { .. } => Admission::Probe,
        }
    }

    /// A probe is on its way.
    pub fn probe_started(&mut self) {
        if let State::Open { probing, .. } = &mut self.state {
            *probing = true;
        }
    }

    /// The probe did not come to a request; the next one may go at once.
    pub fn probe_withdrawn(&mut self) {
        if let State::Open { probing, .. } = &mut self.state {
            *probing = false;
        }
    }

    /// The endpoint answered, be it to acknowledge a batch or to refuse its content.
    pub fn answered(&mut self) {
        self.failures = 0;
        self.state = match self.state {
            State::Closed => State::Closed,
            State::Open { .. } => State::recovering(1, self.limit),
            State::Recovering { allowed } => State::recovering(allowed.saturating_mul(2), self.limit),
        };
    }

    /// A request failed for a reason that seems to lie with the endpoint.
    pub fn failed(&mut self, failure: Failure, now: Instant, random: u64) -> Blame {
        self.failures = self.failures.saturating_add(1);
        let asked = failure.after.map(|after| after.min(RETRY_AFTER_MAX)).unwrap_or_default();
        let few = asked.is_zero() && self.failures < self.open_after;
        let slow = self.backoff.slow(random);
        let until = |level| {
            let delay = if failure.fault { slow } else { self.backoff.delay(level, random) };
            now + delay.max(asked)
        };
        let before = self.state;
        self.state = match before {
            State::Closed if few => before,
            State::Recovering { .. } if few && failure.fault => before,
            // The delays go on from those of the failures that opened it.
            State::Closed => State::opened(until(self.failures), self.failures),
            State::Recovering { .. } => State::opened(until(1), 1),
            State::Open { level, .. } if failure.probe => {
                let level = level.saturating_add(1);
                State::opened(until(level), level)
            }
            // Sent before it opened: only what it says about waiting counts.
            State::Open { until, level, probing } => {
                let wait = if failure.fault { slow.max(asked) } else { asked };
                State::Open { until: until.max(now + wait), level, probing }
            }
        };
        match before {
            State::Closed if self.is_open() => Blame::Endpoint,
            State::Closed | State::Recovering { .. } => Blame::Batch,
            State::Open { .. } => Blame::Endpoint,
        }
    }

    /// Whether requests are held back altogether.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }
}

impl State {
    const fn opened(until: Instant, level: u32) -> Self {
        Self::Open { until, level, probing: false }
    }

    fn recovering(allowed: usize, limit: usize) -> Self {
        if allowed >= limit { Self::Closed } else { Self::Recovering { allowed } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSIENT: Failure = Failure { after: None, fault: false, probe: false };
    const PROBE: Failure = Failure { probe: true, ..TRANSIENT };
    const FAULT: Failure = Failure { fault: true, ..TRANSIENT };

    /// Opens after 3, up to 8 at a time, delays of 100 ms and more without jitter.
    fn breaker() -> Breaker {
        Breaker::new(3, 8, Backoff::new(Duration::from_millis(100), Backoff::CAP, 0.0).unwrap())
    }

    fn open_breaker(now: Instant) -> Breaker {
        let mut breaker = breaker();
        (0..3).for_each(|_| _ = breaker.failed(TRANSIENT, now, 0));
        breaker
    }

    fn wait_of(breaker: &Breaker, now: Instant) -> Duration {
        match breaker.admit(now, 0) {
            Admission::At(until) => until - now,
            other => panic!("{other:?} instead of a time"),
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut breaker = breaker();
        breaker.failed(TRANSIENT, now, 0);
        breaker.failed(TRANSIENT, now, 0);
        breaker.answered();
        breaker.failed(TRANSIENT, now, 0);
        breaker.failed(TRANSIENT, now, 0);
        assert_eq!(breaker.admit(now, 7), Admission::Send);
        breaker.failed(TRANSIENT, now, 0);
        assert_eq!(wait_of(&breaker, now), Duration::from_millis(400));
    }

    #[test]
    fn one_probe_at_a_time_at_growing_delays() {
        let mut now = Instant::now();
        let mut breaker = open_breaker(now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = wait_of(&breaker, now);
            waits.push(wait.as_millis());
            now += wait;
            assert_eq!(breaker.admit(now, 0), Admission::Probe);
            breaker.probe_started();
            assert_eq!(breaker.admit(now, 0), Admission::AfterOutcome);
            // A straggler that was sent before it opened changes nothing.
            breaker.failed(TRANSIENT, now, 0);
            assert_eq!(breaker.admit(now, 0), Admission::AfterOutcome);
            breaker.failed(PROBE, now, 0);
        }
        assert_eq!(waits, [400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn it_recovers_slowly_and_closes_at_the_limit() {
        let now = Instant::now();
        let mut breaker = open_breaker(now);
        let mut allowed = Vec::new();
        for _ in 0..3 {
            breaker.answered();
            allowed.push((0..100).find(|busy| breaker.admit(now, *busy) == Admission::AfterOutcome).unwrap());
        }
        assert_eq!(allowed, [1, 2, 4]);
        breaker.answered();
        assert_eq!(breaker.admit(now, 100), Admission::Send);
    }

    #[test]
    fn a_failure_while_it_recovers_opens_it_with_the_first_delay() {
        let now = Instant::now();
        let mut breaker = open_breaker(now);
        breaker.answered();
        breaker.failed(TRANSIENT, now, 0);
        assert_eq!(wait_of(&breaker, now), Duration::from_millis(100));
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_at_once_but_never_more_than_an_hour() {
        let now = Instant::now();
        let after = |seconds| Failure { after: Some(Duration::from_secs(seconds)), ..TRANSIENT };
        let mut breaker = breaker();
        breaker.failed(after(0), now, 0);
        assert_eq!(breaker.admit(now, 0), Admission::Send, "no wait was asked for");
        breaker.failed(after(20), now, 0);
        assert_eq!(wait_of(&breaker, now), Duration::from_secs(20));
        breaker.failed(after(10), now, 0);
        assert_eq!(wait_of(&breaker, now), Duration::from_secs(20), "a shorter wish takes nothing back");
        breaker.failed(after(u64::MAX), now, 0);
        assert_eq!(wait_of(&breaker, now), RETRY_AFTER_MAX);
    }

    #[test]
    fn endpoint_faults_in_a_row_open_it_at_the_slow_cadence() {
        let now = Instant::now();
        let mut breaker = breaker();
        (0..3).for_each(|_| _ = breaker.failed(FAULT, now, 0));
        assert_eq!(wait_of(&breaker, now), Backoff::CAP);
        let later = now + Backoff::CAP;
        assert_eq!(breaker.admit(later, 0), Admission::Probe);
        breaker.probe_started();
        breaker.failed(Failure { probe: true, ..FAULT }, later, 0);
        assert_eq!(wait_of(&breaker, later), Backoff::CAP);
    }

    #[test]
    fn a_single_endpoint_fault_between_answers_holds_nobody_up() {
        let now = Instant::now();
        let mut breaker = breaker();
        assert_eq!(breaker.failed(FAULT, now, 0), Blame::Batch);
        assert_eq!(breaker.admit(now, 0), Admission::Send);
        let mut breaker = open_breaker(now);
        breaker.answered();
        assert_eq!(breaker.failed(FAULT, now, 0), Blame::Batch);
        assert_eq!(breaker.admit(now, 0), Admission::Send);
    }

    #[test]
    fn a_failure_is_put_down_to_the_batch_only_where_the_endpoint_serves_others() {
        let now = Instant::now();
        let mut breaker = breaker();
        let blames: Vec<_> = (0..4).map(|_| breaker.failed(TRANSIENT, now, 0)).collect();
        assert_eq!(blames, [Blame::Batch, Blame::Batch, Blame::Endpoint, Blame::Endpoint]);
        breaker.answered();
        assert_eq!(breaker.failed(TRANSIENT, now, 0), Blame::Batch);
    }

    #[test]
    fn a_probe_that_was_not_sent_costs_no_delay() {
        let now = Instant::now();
        let mut breaker = open_breaker(now);
        let later = now + Duration::from_secs(1);
        breaker.probe_started();
        breaker.probe_withdrawn();
        assert_eq!(breaker.admit(later, 0), Admission::Probe);
    }
}

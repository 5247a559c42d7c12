//! How long to wait before the next attempt.
//!
//! Invariant: every delay is above zero and at most the cap, whatever the attempt and the jitter.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Exponential backoff with a cap and jitter. Pure: the randomness is passed in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The delay before the first retry, before jitter.
    base: Duration,
    /// No delay is longer.
    cap: Duration,
    /// The part of a delay that jitter may take away.
    jitter: f64,
}

impl Backoff {
    /// The cap of the design, and the cadence of parked batches.
    pub const CAP: Duration = Duration::from_secs(30);

    /// Delays of `base * 2^(attempt-1)`, capped at `cap`, shortened at random by up to the part `jitter` of them.
    ///
    /// # Errors
    /// [`BackoffError`] where `base` is zero, `cap` is below `base`, or `jitter` is not within 0 (included) and 1
    /// (excluded).
    pub fn new(base: Duration, cap: Duration, jitter: f64) -> Result<Self, BackoffError> {
        if base.is_zero() {
            return Err(BackoffError::NoBase);
        }
        if cap < base {
            return Err(BackoffError::CapBelowBase { base, cap });
        }
        if !(0.0..1.0).contains(&jitter) {
            return Err(BackoffError::Jitter(jitter));
        }
        Ok(Self { base, cap, jitter })
    }

    /// The delay before the retry that follows failed attempt number `attempt`, counted from 1. `random` is uniform
    /// over all values.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let delay = self.base.saturating_mul(1_u32 << doublings).min(self.cap);
        self.shorten(delay, random)
    }

    /// The slow cadence: the cap, shortened at random.
    #[must_use]
    pub fn slow(&self, random: u64) -> Duration {
        self.shorten(self.cap, random)
    }

    fn shorten(&self, delay: Duration, random: u64) -> Duration {
        // The upper 53 bits are as many as a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "both are at most 2^53")]
        let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
        delay.mul_f64(1.0 - self.jitter * part).clamp(Duration::from_nanos(1), delay)
    }
}

/// Why numbers do not make a [`Backoff`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BackoffError {
    /// A delay of zero doubles to zero.
    #[error("the first delay of a backoff must be above zero")]
    NoBase,
    /// The first delay is already longer than the longest.
    #[error("the cap of a backoff ({cap:?}) must not be below its first delay ({base:?})")]
    CapBelowBase {
        /// The first delay.
        base: Duration,
        /// The longest delay.
        cap: Duration,
    },
    /// Jitter of 1 or more could shorten a delay to nothing.
    #[error("the jitter of a backoff must be at least 0 and below 1, not {0}")]
    Jitter(f64),
}

/// Random numbers for jitter: SplitMix64 (Steele, Lea, Flood 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence that differs from process to process, so that agents started together do not retry together.
    #[must_use]
    pub fn from_entropy() -> Self {
        // The standard library keys its hash maps from the system's randomness.
        Self(RandomState::new().build_hasher().finish())
    }

    /// The next number, uniform over all values.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_double_up_to_the_cap() {
        let backoff = Backoff::new(100 * MS, Backoff::CAP, 0.0).unwrap();
        let delays: Vec<u128> = (1..=11).map(|attempt| backoff.delay(attempt, 7).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(backoff.delay(u32::MAX, 7), Backoff::CAP);
    }

    #[test]
    fn senseless_numbers_are_refused() {
        assert_eq!(Backoff::new(Duration::ZERO, MS, 0.5), Err(BackoffError::NoBase));
        assert_eq!(Backoff::new(2 * MS, MS, 0.5), Err(BackoffError::CapBelowBase { base: 2 * MS, cap: MS }));
        assert_eq!(Backoff::new(MS, MS, 1.0), Err(BackoffError::Jitter(1.0)));
        assert!(matches!(Backoff::new(MS, MS, f64::NAN), Err(BackoffError::Jitter(_))));
    }

    #[test]
    fn jitter_spreads_over_the_upper_half() {
        let backoff = Backoff::new(1000 * MS, Backoff::CAP, 0.5).unwrap();
        let mut jitter = Jitter::seeded(1);
        let delays: Vec<u128> = (0..1000).map(|_| backoff.delay(1, jitter.draw()).as_millis()).collect();
        for from in [500, 600, 700, 800, 900] {
            let hits = delays.iter().filter(|delay| (from..=from + 100).contains(*delay)).count();
            assert!((120..280).contains(&hits), "{hits} of 1000 from {from} ms");
        }
    }

    proptest! {
        #[test]
        fn no_delay_is_zero_or_above_the_cap(
            base in 1..u64::MAX, more in any::<u64>(), attempt in any::<u32>(), random in any::<u64>(),
            jitter in 0.0..1.0_f64,
        ) {
            let base = Duration::from_nanos(base);
            let cap = base.saturating_add(Duration::from_nanos(more));
            let backoff = Backoff::new(base, cap, jitter).unwrap();
            for delay in [backoff.delay(attempt, random), backoff.slow(random)] {
                prop_assert!(delay > Duration::ZERO && delay <= cap, "{:?}", delay);
            }
        }
    }
}

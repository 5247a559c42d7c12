//! The one place that reads the clock.
//!
//! Waits and deadlines use [`now`], which never jumps; only what a person or a server reads uses [`wall`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::event::Timestamp;

/// The monotonic clock, unaffected by changes of the wall clock.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    Instant::now()
}

/// The monotonic clock as the runtime's timers see it: what deadlines of asynchronous code are made of. A test can
/// pause it.
#[must_use]
pub fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The wall clock, in milliseconds since the Unix epoch.
#[must_use]
pub fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let now = SystemTime::now();
    let millis = match now.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Timestamp::from_millis(millis)
}

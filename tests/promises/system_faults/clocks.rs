//! Clocks that jump: the one on the wall, as when it is set or the machine sleeps, and the monotonic one, which may only
//! leap ahead.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::*;
use crate::common::{Clock, has_program};

/// Where Debian has the library; elsewhere `faketime` knows.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const DAY: i64 = 24 * 3600;

/// A wall clock of the agent's own, set by a file while it runs.
struct WallClock {
    file: PathBuf,
    /// The monotonic clock jumps with it, which no real one does.
    takes_monotonic_along: bool,
}

impl WallClock {
    /// None where libfaketime is not there.
    fn new(trial: &Trial) -> Option<Self> {
        if !has_program("faketime") || !std::path::Path::new(LIBRARY).exists() {
            return None;
        }
        let clock = Self { file: trial.scene.path("walltime"), takes_monotonic_along: false };
        clock.set(0);
        Some(clock)
    }

    /// Puts it ahead of the machine's, or behind it, in seconds.
    fn set(&self, by: i64) {
        fs::write(&self.file, format!("{by:+}\n")).unwrap();
    }

    fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", LIBRARY).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_RESET", "1");
        if !self.takes_monotonic_along {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
    }
}

/// Seconds since 1970 of a timestamp as events have it.
fn seconds(timestamp: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(timestamp).unwrap().timestamp()
}

/// The clock jumps while lines flow, while the server is away and while it comes back. Says where it stalled.
fn jumps(trial: &mut Trial, clock: &WallClock, patience: Duration) -> Result<(), String> {
    trial.config().write();
    let agent = trial.start_with(|command| clock.give(command));
    let within = |what: &str, condition: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > patience {
                return Err(format!("{what}: {}", agent.said()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    trial.append(20);
    within("delivery", &mut || trial.all_is_settled())?;
    for ahead in [2 * DAY, -3 * DAY, 400 * DAY, 0, -56 * 365 * DAY] {
        clock.set(ahead);
        let from = trial.collector.stored().len();
        trial.append(20);
        within("delivery after a jump", &mut || trial.all_is_settled())?;
        let stored = trial.collector.stored();
        // What was read after the jump has the time after it, a little later at most.
        for event in &stored[from..] {
            let late = seconds(&event.timestamp) - (now() + ahead);
            assert!((-120..=1).contains(&late), "{} after a jump by {ahead} s", event.timestamp);
        }
        // Delays go on as they were: what is tried again is tried soon, and no more often than before.
        trial.proxy.always(Fault::UNAVAILABLE);
        trial.append(20);
        let before = trial.proxy.request_count();
        within("tries while the server is away", &mut || trial.proxy.request_count() >= before + 2)?;
        clock.set(-ahead);
        let before = trial.proxy.request_count();
        within("tries after a jump back", &mut || trial.proxy.request_count() >= before + 2)?;
        trial.proxy.heal();
        within("delivery after an outage", &mut || trial.all_is_settled())?;
    }
    assert!(!agent.said().contains("panicked"), "{}", agent.said());
    assert_eq!(agent.stop(), Some(0));
    Ok(())
}

#[test]
fn a_wall_clock_that_jumps_both_ways_stalls_nothing() {
    let test = "a_wall_clock_that_jumps_both_ways_stalls_nothing";
    let mut trial = Trial::new(test);
    let Some(clock) = WallClock::new(&trial) else { return skip(test, "libfaketime is not installed") };
    jumps(&mut trial, &clock, PATIENCE).unwrap();
    trial.assert_whole();
    // Backoff is the same whatever the clock says: no more tries than delays that double from 5 ms allow.
    let tries = trial.proxy.request_count();
    assert!(tries < 400, "{tries} requests");
}

/// The same where the clock that the agent waits by jumps along, as if it waited by the one on the wall: that would stall
/// it, and the stall is found.
#[test]
fn an_agent_that_waits_by_the_wall_clock_is_found() {
    let test = "an_agent_that_waits_by_the_wall_clock_is_found";
    let mut trial = Trial::new(test);
    let Some(mut clock) = WallClock::new(&trial) else { return skip(test, "libfaketime is not installed") };
    clock.takes_monotonic_along = true;
    let stalled = jumps(&mut trial, &clock, Duration::from_secs(3));
    assert!(stalled.is_err(), "nothing stalled: the test above would not see it");
}

/// As when a virtual machine is stopped and goes on hours later.
#[test]
fn a_monotonic_clock_that_leaps_ahead_stalls_nothing() {
    let test = "a_monotonic_clock_that_leaps_ahead_stalls_nothing";
    let mut trial = Trial::new(test);
    let Some(clock) = Clock::new(&trial.scene) else {
        return skip(test, "no C compiler, so the agent's clock cannot be made to leap");
    };
    trial.config().write();
    let agent = trial.start_with(|command| clock.give(command));
    for hours in [1, 24, 24 * 365] {
        trial.append(20);
        await_delivery(&trial.writers(), &trial.collector);
        trial.proxy.always(Fault::UNAVAILABLE);
        trial.append(20);
        let before = trial.proxy.request_count();
        trial.proxy.await_requests(before + 2);
        clock.set_ahead(Duration::from_secs(hours * 3600));
        let before = trial.proxy.request_count();
        trial.proxy.await_requests(before + 2);
        trial.proxy.heal();
        await_delivery(&trial.writers(), &trial.collector);
    }
    assert!(!agent.said().contains("panicked"), "{}", agent.said());
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

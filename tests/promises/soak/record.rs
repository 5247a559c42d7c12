//! What a run did and how much it took, for the judgement and for the table at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::common::Vitals;

/// What happened so far.
#[derive(Debug)]
pub struct Record {
    pub vitals: Vitals,
    pub rounds: u64,
    pub quiet_points: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub written: u64,
    pub stored: u64,
    pub requests: u64,
    pub lines_resent: u64,
    /// The longest time from the start of an agent until it had opened its spool.
    pub start_max: Duration,
    /// The longest time until everything was stored once nothing was broken any more.
    pub recovery_max: Duration,
}

impl Record {
    pub fn new() -> Self {
        Self {
            vitals: Vitals::new(),
            rounds: 0,
            quiet_points: 0,
            faults: BTreeMap::new(),
            written: 0,
            stored: 0,
            requests: 0,
            lines_resent: 0,
            start_max: Duration::ZERO,
            recovery_max: Duration::ZERO,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.vitals.elapsed()
    }

    pub fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<28}{value}");
        row(f, "minutes", format!("{:.1}", self.vitals.elapsed().as_secs_f64() / 60.0))?;
        row(f, "rounds", format!("{}, {} quiet points", self.rounds, self.quiet_points))?;
        for (fault, times) in &self.faults {
            row(f, fault, times.to_string())?;
        }
        row(f, "lines written", self.written.to_string())?;
        row(f, "lines stored", self.stored.to_string())?;
        row(f, "requests", self.requests.to_string())?;
        row(f, "lines sent again", self.lines_resent.to_string())?;
        row(f, "start after a kill, longest", format!("{:.2} s", self.start_max.as_secs_f64()))?;
        row(f, "recovery, longest", format!("{:.2} s", self.recovery_max.as_secs_f64()))?;
        write!(f, "{}", self.vitals)
    }
}

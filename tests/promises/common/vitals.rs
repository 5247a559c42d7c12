//! What a running agent takes: memory, descriptors and disk, sampled while a test goes on.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A moment of a running agent.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: f64,
    rss_kib: f64,
    fds: f64,
    segment_bytes: f64,
    ledger_bytes: f64,
}

type Kind = (&'static str, fn(&Sample) -> f64, f64);

/// What was sampled of the agents of a test, one after the other.
#[derive(Debug)]
pub struct Vitals {
    begun: Instant,
    every: Duration,
    sampled: Option<Instant>,
    samples: Vec<Sample>,
}

impl Vitals {
    pub fn new() -> Self {
        Self::every(Duration::from_millis(250))
    }

    /// With a sample about so often.
    pub fn every(every: Duration) -> Self {
        Self { begun: Instant::now(), every, sampled: None, samples: Vec::new() }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The highest resident memory so far.
    pub fn rss_max_kib(&self) -> f64 {
        self.samples.iter().map(|sample| sample.rss_kib).fold(0.0, f64::max)
    }

    /// Notes what the process takes, where it is time for it; one that is just gone has no figures.
    pub fn sample(&mut self, pid: u32, spool: &Path) {
        if self.sampled.is_some_and(|at| at.elapsed() < self.every) {
            return;
        }
        self.sampled = Some(Instant::now());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let Some(rss) = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok()) else { return };
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        self.samples.push(Sample {
            at: self.begun.elapsed().as_secs_f64(),
            rss_kib: rss,
            fds: fds.count() as f64,
            segment_bytes: bytes_below(&spool.join("segments")) as f64,
            ledger_bytes: bytes_below(&spool.join("ledger")) as f64,
        });
    }

    /// What grows of memory, descriptors and the disk: the highest of the last third of the run is well above the
    /// highest of the first. `ignored` names what need not be flat.
    pub fn growth(&self, ignored: &[&str]) -> Vec<String> {
        assert!(self.samples.len() > 4, "the run shows nothing of the agent: {self}");
        let mut growth = Vec::new();
        for (what, of, some) in Self::KINDS {
            let highest = |samples: &[Sample]| samples.iter().map(of).fold(0.0, f64::max);
            let third = self.samples.len() / 3;
            let (first, last) =
                (highest(&self.samples[..third]), highest(&self.samples[self.samples.len() - third..]));
            if last > first * 1.3 + some && !ignored.contains(&what) {
                growth.push(format!("{what}: from {first} to {last}"));
            }
        }
        growth
    }

    /// What is sampled: its name, how it is read, and what it may differ by for no reason.
    const KINDS: [Kind; 4] = [
        ("memory in KiB", |sample| sample.rss_kib, 8_192.0),
        ("descriptors", |sample| sample.fds, 12.0),
        ("segments in bytes", |sample| sample.segment_bytes, 8_388_608.0),
        // The database's file grows up to 64 MiB before it is written anew.
        ("ledger in bytes", |sample| sample.ledger_bytes, 75_497_472.0),
    ];
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, of, _) in Self::KINDS {
            let values = || self.samples.iter().map(of);
            let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
            let slope = slope(self.samples.iter().map(|sample| (sample.at / 60.0, of(sample))));
            writeln!(f, "{what:<28}{min:.0} to {max:.0}, {slope:+.1} a minute")?;
        }
        Ok(())
    }
}

/// The slope of the line that fits the points best.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let n = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (xy, xx) = points
        .fold((0.0, 0.0), |(xy, xx), point| (xy + (point.0 - x) * (point.1 - y), xx + (point.0 - x).powi(2)));
    if xx > 0.0 { xy / xx } else { 0.0 }
}

/// Bytes that the files below `dir` take on the disk; what comes and goes meanwhile may be counted or not.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn what_grows_is_noticed() {
    let mut vitals = Vitals::new();
    let mut growth = |rss_kib: fn(f64) -> f64| {
        let sample = |second| Sample {
            at: second,
            rss_kib: rss_kib(second),
            fds: 30.0,
            segment_bytes: 1e6,
            ledger_bytes: 1e6,
        };
        vitals.samples = (0..600).map(|second| sample(f64::from(second))).collect();
        (vitals.growth(&[]).len(), vitals.to_string())
    };
    assert_eq!(growth(|second| 20_000.0 + second % 7.0 * 500.0).0, 0);
    let (kinds, table) = growth(|second| 20_000.0 + second * 50.0);
    assert_eq!(kinds, 1);
    assert!(table.contains("memory in KiB               20000 to 49950, +3000.0 a minute"), "{table}");
}

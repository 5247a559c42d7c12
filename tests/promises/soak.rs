//! Everything at once for long: deaths, a server that fails, and rotations while lines are written. Nothing is lost, nothing
//! is stored twice, and nothing grows.
//!
//! A run is made of cycles. In a cycle things break, in an order that follows from the seed; at its end nothing is broken
//! any more, everything arrives, and all that must hold is checked. `LOG_AGENT_TEST_SOAK_MINUTES` says how long it goes
//! on; without it one cycle shows that the rig works.

mod record;

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::SmallRng;

use self::record::Record;
use crate::common::{
    Agent, Collector, Fault, FaultProxy, PATIENCE, Received, Scene, Writer, assert_accounts_agree,
    assert_all_is_acknowledged, assert_batches_keep_their_boundaries, assert_delivered_exactly_once,
    assert_resends_identical, log_agent, spool_status, wait_for,
};

/// Rounds of a cycle: each breaks something, or nothing, and lets lines be written for a moment.
const ROUNDS: u32 = 14;
/// Every line ever written is in the memory of this test, so it does not write faster than this.
const LINES_A_SECOND: u64 = 600;
/// Reading back all that was stored takes longer and longer, so not every cycle does.
const CYCLES_PER_ORACLE: u64 = 8;

struct Soak {
    scene: Scene,
    collector: Collector,
    proxy: FaultProxy,
    agent: Option<Agent>,
    writers: Vec<Writer>,
    /// Which writers have rotated in this cycle. A file that comes and goes between two looks cannot be promised, so
    /// none rotates twice before everything has arrived.
    rotated: HashSet<usize>,
    rng: SmallRng,
    record: Record,
}

impl Soak {
    fn new() -> Self {
        let scene = Scene::new("soak");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        scene
            .config()
            .end_point(proxy.url())
            .global("interval_secs", 0.05)
            .global("retry_delay_ms", 5)
            .global("timeout_secs", 1)
            .global("shutdown_secs", 1)
            .global("max_batch_size", 100)
            .global("segment_bytes", 256 << 10)
            .source("app", "logs/app.log")
            .source("web", "logs/web/*.log")
            .source("all", "logs/all/all.log*")
            .write();
        let writer = |source, path| Writer::new(&scene, source, path);
        let writers = vec![
            writer("app", "logs/app.log"),
            writer("web", "logs/web/one.log"),
            writer("web", "logs/web/two.log"),
            writer("all", "logs/all/all.log"),
        ];
        let rng = scene.rng("soak");
        let record = Record::new();
        Self { collector, proxy, agent: None, writers, rotated: HashSet::new(), rng, record, scene }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn start_agent(&mut self) {
        if self.agent.is_none() {
            self.agent = Some(Agent::start(&self.scene));
        }
    }

    fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
            self.record.count("kills");
        }
    }

    /// Waits until the agent has opened its spool.
    fn await_started(&mut self) {
        self.start_agent();
        let begun = Instant::now();
        self.agent.as_ref().unwrap().await_started();
        self.record.start_max = self.record.start_max.max(begun.elapsed());
    }

    /// Lets lines be written for a while.
    fn write_for(&mut self, while_: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < while_ {
            let written: u64 = self.writers.iter().map(Writer::count).sum();
            if written < self.record.elapsed().as_secs() * LINES_A_SECOND + 2_000 {
                let at = self.rng.random_range(0..self.writers.len());
                let lines = self.rng.random_range(1..24);
                self.writers[at].append(lines);
            }
            if let Some(agent) = &self.agent {
                self.record.vitals.sample(agent.pid(), &self.scene.spool_dir());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Breaks something, if the dice say so.
    fn round(&mut self, kills: bool) {
        self.record.rounds += 1;
        match self.rng.random_range(0..12) {
            0..4 if kills => {
                self.kill_agent();
                // Dead for a moment, in which files may rotate; or killed again while it starts.
                if self.rng.random() {
                    let while_ = self.millis(0..300);
                    self.write_for(while_);
                    self.rotate();
                } else {
                    self.start_agent();
                    std::thread::sleep(self.millis(0..40));
                    self.kill_agent();
                }
                self.await_started();
            }
            4 | 5 => self.rotate(),
            6 if self.collector.is_running() => {
                self.collector.kill();
                self.record.count("servers killed");
            }
            6 | 7 if !self.collector.is_running() => self.collector.restart(),
            8 => {
                let mut rng = self.scene.rng(&format!("bad day {}", self.record.rounds));
                self.proxy.script(move |_| bad_day(&mut rng));
                self.record.count("bad days");
            }
            9 => {
                self.proxy.always(Fault::Hang);
                self.record.count("servers hanging");
            }
            10 => self.proxy.heal(),
            _ => {}
        }
        let while_ = self.millis(50..900);
        self.write_for(while_);
    }

    fn rotate(&mut self) {
        let at = self.rng.random_range(0..self.writers.len());
        if self.rotated.insert(at) {
            if self.rng.random() {
                self.writers[at].rotate();
                self.record.count("rotations by rename");
            } else {
                self.writers[at].copytruncate();
                self.record.count("rotations by copytruncate");
            }
        }
    }

    /// Nothing is broken any more: everything arrives, and all that must hold is checked.
    fn come_to_rest(&mut self, oracle: bool) {
        if !self.collector.is_running() {
            self.collector.restart();
        }
        self.proxy.heal();
        self.await_started();
        let begun = Instant::now();
        let written: u64 = self.writers.iter().map(Writer::count).sum();
        wait_for(PATIENCE, &format!("all {written} lines are stored"), || {
            let agent = self.agent.as_ref().unwrap();
            self.record.vitals.sample(agent.pid(), &self.scene.spool_dir());
            self.collector.stored_count() >= written
        });
        self.record.recovery_max = self.record.recovery_max.max(begun.elapsed());
        self.record.quiet_points += 1;
        self.record.written = written;
        self.record.stored = self.collector.stored_count();
        let writers: Vec<&Writer> = self.writers.iter().collect();
        if oracle {
            assert_delivered_exactly_once(&writers, &self.collector);
        }
        assert_accounts_agree(&writers, &self.collector);
        self.look_at_requests();
        self.verify();
        for writer in &mut self.writers {
            writer.remove_rotated();
        }
        self.rotated.clear();
    }

    fn look_at_requests(&mut self) {
        let requests = self.proxy.requests();
        assert_resends_identical(&requests);
        assert_batches_keep_their_boundaries(&requests);
        let mut seen = HashSet::new();
        self.record.requests += requests.len() as u64;
        let again = requests.iter().filter(|request| !seen.insert(request.key().to_owned()));
        self.record.lines_resent += again.map(lines).sum::<u64>();
        self.proxy.forget_requests();
    }

    /// The spool is as its own tools want it: beside the agent, whose memory is to be seen over several cycles.
    fn verify(&self) {
        let mut verify = log_agent();
        verify.args(["spool", "verify", "--spool-dir"]).arg(self.scene.spool_dir());
        let told = verify.output().unwrap();
        assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stdout));
    }
}

/// Lines that a request carries, by its ranges.
fn lines(request: &Received) -> u64 {
    let range = |range: &str| -> Option<u64> {
        let (first, last) = range.trim().split_once('-')?;
        Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
    };
    request.seq().split(',').filter_map(range).sum()
}

fn bad_day(rng: &mut SmallRng) -> Fault {
    match rng.random_range(0..100) {
        0..8 => Fault::UNAVAILABLE,
        8..12 => Fault::Status(500),
        12..14 => Fault::StatusRetryAfter(429, "0".into()),
        14..22 => Fault::LoseReply,
        22..26 => Fault::CutReply,
        26..32 => Fault::Reset,
        32..36 => Fault::CloseAfter,
        36..38 => Fault::Hang,
        38..40 => Fault::HangAfterForward,
        40..42 => Fault::Garbage,
        _ => Fault::Pass,
    }
}

#[test]
fn whatever_breaks_meanwhile_every_line_is_stored_once_and_nothing_grows() {
    let minutes = std::env::var("LOG_AGENT_TEST_SOAK_MINUTES").ok();
    let minutes =
        minutes.map(|minutes| minutes.parse::<f64>().expect("LOG_AGENT_TEST_SOAK_MINUTES is not a number"));
    let mut soak = Soak::new();
    let goes_on = |soak: &Soak| match minutes {
        Some(minutes) => soak.record.elapsed().as_secs_f64() < minutes * 60.0,
        None => soak.record.quiet_points < 1,
    };
    soak.await_started();
    while goes_on(&soak) {
        let cycle = soak.record.quiet_points;
        // Half of the time nobody dies, so that one process has time to grow.
        let kills = cycle % 8 < 4;
        for _ in 0..ROUNDS {
            soak.round(kills);
        }
        soak.come_to_rest(cycle.is_multiple_of(CYCLES_PER_ORACLE) || !goes_on(&soak));
    }
    assert_eq!(soak.agent.take().unwrap().stop(), Some(0));
    let writers: Vec<&Writer> = soak.writers.iter().collect();
    assert_delivered_exactly_once(&writers, &soak.collector);
    assert_all_is_acknowledged(&spool_status(&soak.scene), &writers);
    println!("{}", soak.record);
    assert_eq!(soak.record.vitals.growth(&[]), Vec::<String>::new(), "{}", soak.record);
    assert!(fs::read_dir(soak.scene.spool_dir().join("segments")).unwrap().count() <= 2, "segments are left");
}

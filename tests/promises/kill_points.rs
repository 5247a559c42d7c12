//! The agent dies right before each step that the spool takes, one after the other, and whatever it leaves is enough.
//!
//! `LOG_AGENT_TEST_KILL_AT` asks for it (see `src/spool/storage/kill.rs`); only debug builds have the points. What the
//! disk is like after a kill is what the steps before it made of it, so counting up goes through all that a kill can
//! leave, but for a step that is half done: that is what the simulated power cuts are for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::{
    Agent, Collector, Fault, FaultProxy, PATIENCE, Scene, Writer, assert_accounts_agree,
    assert_batches_keep_their_boundaries, assert_delivered_exactly_once, assert_resends_identical,
    await_delivery, log_agent, skip, spool_status, wait_for,
};

const PLAN: &str = "LOG_AGENT_TEST_KILL_AT";
const LEAVE_OUT: &str = "LOG_AGENT_TEST_LEAVE_OUT";
/// In a line that the server is to refuse.
const MARKER: &str = "POISON";
/// Counted steps where nobody asks for another number of them: a start takes about fifteen, the rest is work.
const STEPS: u64 = 45;

/// Steps of each protocol, by name: what a line of data, a batch, a dead letter and a segment go through.
const NAMED: &[&str] = &[
    "create segments 1",
    "write segments 2",
    "sync segments 3",
    "sync-dir segments 2",
    "commit ledger 2",
    "flush ledger 3",
    "sync ledger 4",
    "commit ledger 5",
    "create dead-letters 1",
    "write dead-letters 1",
    "sync dead-letters 1",
    "sync-dir dead-letters 1",
    "unlink segments 1",
];

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Debug builds alone have the points.
fn has_points(test: &str) -> bool {
    if !cfg!(debug_assertions) {
        skip(test, "this is a release build, which has no kill points");
    }
    cfg!(debug_assertions)
}

fn start(scene: &Scene, plan: &str, left_out: Option<&str>) -> Agent {
    Agent::start_with(scene, |command| {
        command.env(PLAN, plan);
        command.envs(left_out.map(|step| (LEAVE_OUT, step)));
    })
}

/// Asserts that the tools find nothing wrong.
#[track_caller]
fn verify(scene: &Scene, when: &str) {
    if !scene.spool_dir().join("segments").is_dir() {
        // It died before there was a spool.
        return;
    }
    let output =
        log_agent().args(["spool", "verify", "--spool-dir"]).arg(scene.spool_dir()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{when}, spool verify says:\n{text}");
}

/// Every byte of the dead letters.
fn dead_letters(scene: &Scene) -> String {
    let files = std::fs::read_dir(scene.spool_dir().join("dead-letters")).unwrap();
    let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server that refuses some events, and an agent with small segments and batches.
struct Trial {
    scene: Scene,
    collector: Collector,
    proxy: FaultProxy,
    good: Writer,
    bad: Writer,
    /// A step that the agent leaves out.
    left_out: Option<&'static str>,
}

impl Trial {
    fn new(name: &str) -> Self {
        let scene = Scene::new(name);
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        proxy.refuse_marked(MARKER, Fault::Status(422));
        scene
            .config()
            .end_point(proxy.url())
            .global("interval_secs", 0.02)
            .global("retry_delay_ms", 5)
            .global("shutdown_secs", 1)
            .global("max_batch_size", 50)
            .global("segment_bytes", 64 << 10)
            .source("app", "logs/app.log")
            .source("bad", "logs/bad.log")
            .write();
        let good = Writer::new(&scene, "app", "logs/app.log");
        let bad = Writer::new(&scene, "bad", "logs/bad.log");
        Self { scene, collector, proxy, good, bad, left_out: None }
    }

    /// One life of the agent: work comes until it dies. Says what its last words were.
    fn live(&mut self, plan: &str) -> String {
        let mut agent = start(&self.scene, plan, self.left_out);
        for round in 0..200 {
            self.good.append(60);
            self.bad.append_line(MARKER);
            let before = self.proxy.request_count();
            let (proxy, collector, agent, written) =
                (&self.proxy, &self.collector, &mut agent, self.good.count());
            wait_for(PATIENCE, "what comes of it, or the end", || {
                // Now and then all of it, so that batches are cut by the clock as well, which nobody could repeat.
                let done = if round % 3 == 2 {
                    collector.stored_count() >= written
                } else {
                    proxy.request_count() > before
                };
                done || !agent.is_running()
            });
            if !agent.is_running() {
                break;
            }
        }
        assert!(!agent.is_running(), "the agent never came to {plan}");
        let said = agent.said();
        let last = said.lines().rev().find(|line| line.starts_with("killed before: "));
        let last = last.unwrap_or_else(|| panic!("{plan}: the agent ended otherwise:\n{said}")).to_owned();
        verify(&self.scene, &format!("after {plan}, {last}"));
        last
    }

    /// Delivers the rest, and looks at everything.
    fn finish(self) {
        let agent = Agent::start(&self.scene);
        await_delivery(&[&self.good], &self.collector);
        wait_for(PATIENCE, "the events that were refused to be dead letters", || {
            let letters = dead_letters(&self.scene);
            self.bad.lines().iter().all(|line| letters.contains(line))
        });
        assert_eq!(agent.stop(), Some(0));
        let status = spool_status(&self.scene);
        let dead: Vec<_> =
            status["sources"].as_array().unwrap().iter().map(|source| &source["dead"]).collect();
        let refused = self.bad.count();
        assert_eq!(dead.iter().filter_map(|dead| dead.as_u64()).sum::<u64>(), refused);
        assert_delivered_exactly_once(&[&self.good], &self.collector);
        assert_accounts_agree(&[&self.good], &self.collector);
        assert_resends_identical(&self.proxy.requests());
        assert_batches_keep_their_boundaries(&self.proxy.requests());
        verify(&self.scene, "at the end");
        println!("{} lines, {refused} refused", self.good.count());
    }
}

#[test]
fn a_kill_before_any_step_of_the_spool_loses_nothing() {
    const NAME: &str = "a_kill_before_any_step_of_the_spool_loses_nothing";
    if !has_points(NAME) {
        return;
    }
    let mut trial = Trial::new(NAME);
    for step in 1..=asked("LOG_AGENT_TEST_STEPS", STEPS) {
        println!("{step}: {}", trial.live(&step.to_string()));
    }
    trial.finish();
}

#[test]
fn a_kill_at_each_step_that_has_a_name_loses_nothing() {
    const NAME: &str = "a_kill_at_each_step_that_has_a_name_loses_nothing";
    if !has_points(NAME) {
        return;
    }
    let mut trial = Trial::new(NAME);
    for plan in NAMED {
        let [step, place] = [0, 1].map(|word| plan.split(' ').nth(word).unwrap());
        let last = trial.live(plan);
        assert!(
            last.starts_with(&format!("killed before: {step} ")) && last.contains(place),
            "{plan}: {last}"
        );
    }
    trial.finish();
}

#[test]
fn a_kill_at_any_step_of_making_a_spool_leaves_one_that_can_be_opened() {
    const NAME: &str = "a_kill_at_any_step_of_making_a_spool_leaves_one_that_can_be_opened";
    if !has_points(NAME) {
        return;
    }
    for step in (1..).step_by(usize::try_from(asked("LOG_AGENT_TEST_STRIDE", 2)).unwrap()) {
        let mut trial = Trial::new(NAME);
        trial.good.append(10);
        let mut agent = start(&trial.scene, &step.to_string(), None);
        let (agent, collector) = (&mut agent, &trial.collector);
        wait_for(PATIENCE, "the lines, or the end", || !agent.is_running() || collector.stored_count() == 10);
        if agent.is_running() {
            println!("a spool was made, and ten lines delivered, in fewer than {step} steps");
            assert!(step > 10, "the agent was not killed");
            return;
        }
        trial.good.append(1);
        trial.finish();
    }
}

/// Batches that are sent before the ledger knows of them are cut anew after a kill, and differently.
#[test]
fn a_ledger_that_is_not_written_is_noticed() {
    const NAME: &str = "a_ledger_that_is_not_written_is_noticed";
    if !has_points(NAME) {
        return;
    }
    let mut trial = Trial::new(NAME);
    trial.left_out = Some("commit ledger");
    let noticed = catch_unwind(AssertUnwindSafe(|| {
        // Late in its life, so that there is something to be taken.
        for plan in ["commit ledger 12", "commit ledger 14", "commit ledger 17"].iter().cycle().take(6) {
            trial.live(plan);
        }
        trial.finish();
    }));
    assert!(noticed.is_err(), "nothing that was shown here needs a ledger");
}

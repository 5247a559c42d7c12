//! What a power cut takes: nothing but what nobody was told of.
//!
//! The spool is on a file system that is shut down at random moments, which drops everything that was not synced. The
//! log files, and what the collector stored, are on another. This does not reorder writes; that is for a simulated disk.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rand::Rng as _;
use serde_json::Value;

use crate::common::{
    Agent, Collector, Disk, Fault, FaultProxy, FileSystem, Load, PATIENCE, Rhythm, Scene, Writer,
    assert_accounts_agree, assert_all_is_acknowledged, assert_batches_keep_their_boundaries,
    assert_delivered_exactly_once, assert_resends_identical, await_delivery, skip, spool_status_with,
    wait_for,
};

/// Power cuts in a run, unless `LOG_AGENT_TEST_POWER_CUTS` says otherwise.
const CUTS: u32 = 10;
/// Whoever knows the boot knows whether the machine went down in between.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn cuts() -> u32 {
    match std::env::var("LOG_AGENT_TEST_POWER_CUTS") {
        Ok(cuts) => cuts.parse().expect("LOG_AGENT_TEST_POWER_CUTS is not a number"),
        Err(_) => CUTS,
    }
}

/// A machine with a disk for the spool. Each of its boots has an id of its own.
struct Machine {
    disk: Disk,
    boot_id: std::path::PathBuf,
    boots: u32,
}

impl Machine {
    fn new(test: &str, scene: &Scene, kind: FileSystem) -> Option<Self> {
        let disk = match Disk::impossible(kind).map_or_else(|| Disk::mount(scene, kind), Err) {
            Ok(disk) => disk,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let boot_id = scene.path("boot_id");
        let mut machine = Self { disk, boot_id, boots: 0 };
        machine.boot();
        machine.disk.show_instead(&machine.boot_id, BOOT_ID);
        Some(machine)
    }

    fn boot(&mut self) {
        self.boots += 1;
        let id = format!("{:08x}-0000-4000-8000-000000000000\n", self.boots);
        fs::write(&self.boot_id, id).unwrap();
    }

    fn start_agent(&self, scene: &Scene) -> Agent {
        let agent = Agent::start_with(scene, |command| self.disk.inside(command));
        agent.await_started();
        agent
    }

    /// Cuts the power while the agent runs, and boots again.
    fn lose_power(&mut self, agent: Agent) {
        self.disk.cut_power();
        self.boot_again(agent);
    }

    /// The same, once the power was cut.
    fn boot_again(&mut self, agent: Agent) {
        agent.kill();
        self.disk.come_back();
        self.boot();
    }

    /// What the spool says of itself while no agent runs.
    fn spool_status(&self, scene: &Scene) -> Value {
        spool_status_with(scene, |command| self.disk.inside(command))
    }
}

/// A run of power cuts under load.
struct Run {
    scene: Scene,
    collector: Collector,
    proxy: FaultProxy,
    machine: Machine,
    agent: Agent,
    writers: Vec<Writer>,
}

impl Run {
    fn of(test: &str, kind: FileSystem, sync: &str) -> Option<Self> {
        let scene = Scene::new(test).with_spool_in("disk/spool");
        let mut machine = Machine::new(test, &scene, kind)?;
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        scene
            .config()
            .end_point(proxy.url())
            .global("sync", sync)
            .global("interval_secs", 0.02)
            .global("retry_delay_ms", 5)
            .global("timeout_secs", 1)
            .global("max_batch_size", 40)
            .global("segment_bytes", 64 << 10)
            .source("app", "logs/app.log")
            .source("web", "logs/web/*.log")
            .write();
        let mut faults = scene.rng("faults");
        proxy.script(move |_| match faults.random_range(0..20) {
            0 => Fault::LoseReply,
            1 => Fault::UNAVAILABLE,
            _ => Fault::Pass,
        });
        let load = |source, path| {
            Load::start(&scene, Writer::new(&scene, source, path), Rhythm::STEADY.up_to(50_000))
        };
        let loads =
            [load("app", "logs/app.log"), load("web", "logs/web/a.log"), load("web", "logs/web/b.log")];

        let mut rng = scene.rng("cuts");
        let mut agent = machine.start_agent(&scene);
        // Without syncs a few are enough to show what they take.
        let cuts = if sync == "group" { cuts() } else { CUTS };
        for cut in 0..cuts {
            std::thread::sleep(Duration::from_millis(rng.random_range(30..350)));
            if rng.random_ratio(1, 4) {
                // A process that was killed just before leaves the disk to write what it wants.
                agent.kill();
                agent = machine.start_agent(&scene);
                std::thread::sleep(Duration::from_millis(rng.random_range(0..50)));
            }
            // In every third round the cut comes while frames are written and synced one after the other.
            let hurry = rng.random_ratio(1, 3);
            if hurry {
                loads.iter().for_each(|load| load.hurry(true));
                std::thread::sleep(Duration::from_millis(rng.random_range(5..40)));
            }
            machine.disk.cut_power();
            loads.iter().for_each(|load| load.hurry(false));
            machine.boot_again(agent);
            if sync == "group" && cut % 4 == 0 {
                machine.spool_status(&scene);
            }
            agent = machine.start_agent(&scene);
        }
        proxy.heal();
        let writers = loads.map(Load::stop).into();
        Some(Self { scene, collector, proxy, machine, agent, writers })
    }

    fn writers(&self) -> Vec<&Writer> {
        self.writers.iter().collect()
    }
}

fn power_cuts_lose_nothing(test: &str, kind: FileSystem) {
    let Some(run) = Run::of(test, kind, "group") else { return };
    await_delivery(&run.writers(), &run.collector);
    assert_delivered_exactly_once(&run.writers(), &run.collector);
    assert_accounts_agree(&run.writers(), &run.collector);
    assert_resends_identical(&run.proxy.requests());
    assert_batches_keep_their_boundaries(&run.proxy.requests());
    let messages = run.agent.messages();
    let errors: Vec<&str> = messages.lines().filter(|line| is_of_recovery(line)).collect();
    assert_eq!(errors, Vec::<&str>::new(), "what was synced came back damaged");
    assert_eq!(run.agent.stop(), Some(0));
    let status = run.machine.spool_status(&run.scene);
    assert_eq!(set_aside(&messages), Vec::<&str>::new(), "{status:#}");
    assert_all_is_acknowledged(&status, &run.writers.iter().collect::<Vec<_>>());
    let lines: u64 = run.writers.iter().map(Writer::count).sum();
    println!("{} cuts, {lines} lines, {} requests", run.machine.boots - 1, run.proxy.request_count());
    let agent = run.machine.start_agent(&run.scene);
    assert!(agent.said().contains(" resent=0"), "batches are left");
    assert_eq!(agent.stop(), Some(0));
}

/// What was set aside, but for the rest of a commit that the cut tore and nobody saw.
fn set_aside(messages: &str) -> Vec<&str> {
    let offset = |line: &str| line.split(' ').find(|word| word.starts_with("offset=")).map(str::to_owned);
    let torn: HashSet<Option<String>> =
        messages.lines().filter(|line| line.contains("torn end of the spool cut")).map(offset).collect();
    messages.lines().filter(|line| line.contains("quarantine") && !torn.contains(&offset(line))).collect()
}

/// Errors in the life of an agent that found its spool; not those of one whose disk has just gone.
fn is_of_recovery(line: &str) -> bool {
    line.contains("ERROR") && line.contains("log_agent::spool::recovery")
}

#[test]
fn a_power_cut_loses_nothing_and_repeats_nothing_on_ext4() {
    power_cuts_lose_nothing("a_power_cut_loses_nothing_and_repeats_nothing_on_ext4", FileSystem::Ext4);
}

#[test]
fn a_power_cut_loses_nothing_and_repeats_nothing_on_xfs() {
    power_cuts_lose_nothing("a_power_cut_loses_nothing_and_repeats_nothing_on_xfs", FileSystem::Xfs);
}

/// The power goes while a batch is on its way, and the agent comes back with a smaller batch size: had the batch's
/// boundaries been lost, it would be cut anew, and differently. That they do not hang on the disk's mercy is shown by
/// the order of calls: this disk writes what it is asked to write, also without an fsync.
#[test]
fn a_batch_that_was_sent_keeps_its_boundaries_through_a_power_cut() {
    let test = "a_batch_that_was_sent_keeps_its_boundaries_through_a_power_cut";
    let scene = Scene::new(test).with_spool_in("disk/spool");
    let Some(mut machine) = Machine::new(test, &scene, FileSystem::Ext4) else { return };
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let config = scene.config().end_point(proxy.url()).source("app", "logs/app.log");
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    for round in 0..6 {
        config.clone().global("max_batch_size", 30).write();
        let agent = machine.start_agent(&scene);
        proxy.always(if round % 2 == 0 { Fault::Hang } else { Fault::HangAfterForward });
        let before = proxy.request_count();
        writer.append(30);
        proxy.await_requests(before + 1);
        machine.lose_power(agent);

        proxy.heal();
        config.clone().global("max_batch_size", 7).write();
        let agent = machine.start_agent(&scene);
        await_delivery(&[&writer], &collector);
        assert_eq!(agent.stop(), Some(0));
    }
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_accounts_agree(&[&writer], &collector);
    assert_resends_identical(&proxy.requests());
    assert_batches_keep_their_boundaries(&proxy.requests());
}

/// `sync = "os"` promises nothing about a power cut but that the agent goes on, and that no key ever names two contents.
/// That cuts do take something here shows that the tests above show something.
#[test]
fn with_sync_os_the_agent_goes_on_after_a_power_cut_under_a_new_spool_id() {
    let test = "with_sync_os_the_agent_goes_on_after_a_power_cut_under_a_new_spool_id";
    let Some(mut run) = Run::of(test, FileSystem::Ext4, "os") else { return };
    let before: Vec<usize> = run.writers.iter().map(|writer| writer.lines().len()).collect();
    run.writers.iter_mut().for_each(|writer| writer.append(50));
    let stored =
        || -> HashSet<String> { run.collector.stored().into_iter().map(|event| event.data).collect() };
    wait_for(PATIENCE, "what was written after the last cut is stored", || {
        let stored = stored();
        let new = run.writers.iter().zip(&before).flat_map(|(writer, before)| &writer.lines()[*before..]);
        new.into_iter().all(|line| stored.contains(line))
    });
    assert_resends_identical(&run.proxy.requests());
    assert_eq!(run.agent.stop(), Some(0));
    let written: HashSet<String> = run.writers.iter().flat_map(|writer| writer.lines().to_owned()).collect();
    let foreign: Vec<String> = stored().difference(&written).take(3).cloned().collect();
    assert_eq!(foreign, Vec::<String>::new(), "nobody wrote this");
    let sources = run.collector.stats().store.sources;
    let spools: HashSet<&str> = sources.iter().map(|source| source.spool.as_str()).collect();
    assert!(spools.len() > 1, "the cuts took nothing");
}

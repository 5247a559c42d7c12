//! What a power cut takes: nothing but what nobody was told of.
//!
//! The spool is on a file system that is shut down at random moments, which drops everything that was not synced. The
//! log files, and what the collector stored, are on another. This does not reorder writes; that is for a simulated disk.

use std::fs;
use std::time::Duration;

use rand::Rng as _;

use crate::common::{
    Agent, Collector, Disk, Fault, FaultProxy, FileSystem, Load, Rhythm, Scene, Writer,
    assert_accounts_agree, assert_delivered_exactly_once, assert_resends_identical, await_delivery, skip,
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
        agent.kill();
        self.disk.come_back();
        self.boot();
    }

    fn quarantined(&self) -> usize {
        fs::read_dir(self.disk.path_from_outside("spool/quarantine")).unwrap().count()
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
            Load::start(&scene, Writer::new(&scene, source, path), Rhythm::BRISK.up_to(50_000))
        };
        let loads =
            [load("app", "logs/app.log"), load("web", "logs/web/a.log"), load("web", "logs/web/b.log")];

        let mut rng = scene.rng("cuts");
        let mut agent = machine.start_agent(&scene);
        for _ in 0..cuts() {
            std::thread::sleep(Duration::from_millis(rng.random_range(30..500)));
            if rng.random_ratio(1, 4) {
                // A process that was killed just before leaves the disk to write what it wants.
                agent.kill();
                agent = machine.start_agent(&scene);
                std::thread::sleep(Duration::from_millis(rng.random_range(0..50)));
            }
            machine.lose_power(agent);
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
    let messages = run.agent.messages();
    let errors: Vec<&str> = messages.lines().filter(|line| is_of_recovery(line)).collect();
    assert_eq!(errors, Vec::<&str>::new(), "what was synced came back damaged");
    assert_eq!(run.machine.quarantined(), 0, "something was set aside");
    assert_eq!(run.agent.stop(), Some(0));
    let agent = run.machine.start_agent(&run.scene);
    assert!(agent.said().contains(" resent=0"), "batches are left");
    assert_eq!(agent.stop(), Some(0));
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

/// That lines come twice, under another spool id, is what `sync = "os"` costs; and it shows that the cuts take what was
/// not synced, without which the tests above would show nothing.
#[test]
fn with_sync_os_a_power_cut_repeats_lines_under_a_new_spool_id_and_loses_none() {
    let test = "with_sync_os_a_power_cut_repeats_lines_under_a_new_spool_id_and_loses_none";
    let Some(run) = Run::of(test, FileSystem::Ext4, "os") else { return };
    let stored = || -> std::collections::HashSet<String> {
        run.collector.stored().into_iter().map(|event| event.data).collect()
    };
    let writers = run.writers();
    crate::common::wait_for(crate::common::PATIENCE, "every line is stored at least once", || {
        let stored = stored();
        writers.iter().flat_map(|writer| writer.lines()).all(|line| stored.contains(line))
    });
    assert_resends_identical(&run.proxy.requests());
    assert_eq!(run.agent.stop(), Some(0));
    let stats = run.collector.stats();
    let spools: std::collections::BTreeSet<&str> =
        stats.store.sources.iter().map(|source| source.spool.as_str()).collect();
    assert!(spools.len() > 1, "the cuts took nothing");
}

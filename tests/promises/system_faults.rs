//! A system that fails the agent: calls that fail or kill, disks that are full, clocks that jump, memory and descriptors
//! that are scarce. Whatever it was, once it is over every line has arrived once, without anybody's help.

mod calls;
mod clocks;
mod full;
mod kills;
mod limits;
mod memory;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use log_agent::spool::inspect;
use memchr::memmem;
use serde_json::Value;

use crate::common::{
    Agent, Collector, ConfigBuilder, Disk, Fault, FaultProxy, FileSystem, Injection, PATIENCE, Scene, Stored,
    Writer, assert_accounts_agree, assert_all_is_acknowledged, assert_batches_keep_their_boundaries,
    assert_delivered_exactly_once, assert_resends_identical, await_delivery, log_agent, skip,
    spool_status_with, wait_for,
};

/// An agent is up within this time, whatever its spool looks like.
const STARTS_WITHIN: Duration = Duration::from_secs(5);

/// Whether the long versions are asked for, with `LOG_AGENT_TEST_FAULTS=all`.
fn all_is_wanted() -> bool {
    std::env::var_os("LOG_AGENT_TEST_FAULTS").is_some_and(|wanted| wanted == "all")
}

/// Whether a test is only for the long version, which it says.
fn is_left_to_the_long_version(test: &str) -> bool {
    if !all_is_wanted() {
        println!("{test}: runs with LOG_AGENT_TEST_FAULTS=all");
    }
    !all_is_wanted()
}

/// Two sources, a collector, and a proxy before it; batches are sent one at a time.
struct Trial {
    writers: Vec<Writer>,
    /// To a source of which the server takes nothing.
    refused: Option<Writer>,
    proxy: FaultProxy,
    collector: Collector,
    /// What the spool is on, where that is a disk of its own.
    disk: Option<Disk>,
    scene: Scene,
}

impl Trial {
    /// What the server does not take.
    const REFUSED: &str = "bad:logs.bad.log ";

    fn new(test: &str) -> Self {
        Self::at(Scene::new(test), None)
    }

    fn at(scene: Scene, disk: Option<Disk>) -> Self {
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        let writers =
            vec![Writer::new(&scene, "app", "logs/app.log"), Writer::new(&scene, "web", "logs/web.log")];
        Self { writers, refused: None, proxy, collector, disk, scene }
    }

    /// One whose spool is on a disk of this kind; none where there can be no such disk.
    fn on_disk(test: &str, kind: FileSystem) -> Option<Self> {
        let scene = Scene::new(test).with_spool_in("disk/spool");
        match Disk::impossible(kind).map_or_else(|| Disk::mount(&scene, kind), Err) {
            Ok(disk) => Some(Self::at(scene, Some(disk))),
            Err(reason) => {
                skip(test, &reason);
                None
            }
        }
    }

    /// One that needs calls to be injected; none where that cannot be.
    fn with_injections(test: &str) -> Option<Self> {
        match Injection::impossible() {
            None => Some(Self::new(test)),
            Some(reason) => {
                skip(test, reason);
                None
            }
        }
    }

    /// The configuration; small segments, so that a life sees several of them.
    fn config(&self) -> ConfigBuilder<'_> {
        self.scene
            .config()
            .end_point(self.proxy.url())
            .global("interval_secs", 0.02)
            .global("retry_delay_ms", 5)
            .global("max_send_task", 1)
            .global("max_batch_size", 60)
            .global("segment_bytes", 64 << 10)
            .source("app", "logs/app.log")
            .source("web", "logs/web.log")
    }

    fn start(&self) -> Agent {
        self.start_with(|_| {})
    }

    fn start_with(&self, change: impl FnOnce(&mut Command)) -> Agent {
        Agent::start_with(&self.scene, |command| {
            change(command);
            self.inside(command);
        })
    }

    /// Lets `command` see the spool.
    fn inside(&self, command: &mut Command) {
        if let Some(disk) = &self.disk {
            disk.inside(command);
        }
    }

    /// The path by which the test sees the spool.
    fn spool(&self) -> PathBuf {
        let dir = self.scene.spool_dir();
        self.disk.as_ref().map_or_else(|| dir.clone(), |disk| disk.seen(&dir))
    }

    /// How many events are in the spool's count.
    fn spooled(&self) -> u64 {
        inspect::spooled(&self.spool()).unwrap_or(0)
    }

    /// Waits until every line was read.
    #[track_caller]
    fn await_read(&self) {
        let written = self.written();
        wait_for(PATIENCE, "every line is in the spool", || self.spooled() >= written);
    }

    /// Appends lines to every file, and a few to the one whose lines are refused.
    fn append(&mut self, lines: usize) {
        self.writers.iter_mut().for_each(|writer| writer.append(lines));
        if let Some(refused) = &mut self.refused {
            refused.append(2);
        }
    }

    fn written(&self) -> u64 {
        self.writers.iter().map(Writer::count).sum()
    }

    /// Lets the server refuse every line of a third source.
    fn refuse_some(&mut self) {
        self.config().source("bad", "logs/bad.log").write();
        self.proxy.refuse_marked(Self::REFUSED, Fault::Status(422));
        self.refused = Some(Writer::new(&self.scene, "bad", "logs/bad.log"));
    }

    /// Whether everything was stored, and what was refused is in the spool for good.
    fn all_is_settled(&self) -> bool {
        // A letter may be there twice, where a kill came before its batch left the ledger.
        let letters = || -> usize {
            let dir = self.scene.spool_dir().join("dead-letters");
            let files = fs::read_dir(dir).into_iter().flatten().flatten();
            let mut numbers = HashSet::new();
            for bytes in files.map(|file| fs::read(file.path()).unwrap_or_default()) {
                let places = memmem::find_iter(&bytes, Self::REFUSED).map(|at| at + Self::REFUSED.len());
                numbers.extend(places.filter_map(|at| bytes.get(at..at + 8).map(<[u8]>::to_owned)));
            }
            numbers.len()
        };
        self.collector.stored_count() >= self.written()
            && self.refused.as_ref().is_none_or(|refused| letters() as u64 >= refused.count())
    }

    /// The lines that were written and are not stored.
    fn missing(&self) -> Vec<String> {
        let stored: HashSet<String> = self.collector.stored().into_iter().map(|event| event.data).collect();
        let lines = self.writers.iter().flat_map(Writer::lines);
        lines.filter(|line| !stored.contains(*line)).cloned().collect()
    }

    /// Starts an agent to which nothing is done; it has to be up soon, and to deliver what is left.
    #[track_caller]
    fn recover(&self) {
        let agent = self.start();
        wait_for(STARTS_WITHIN, "the agent starts unaided", || agent.said().contains(Agent::STARTED));
        wait_for(PATIENCE, "what is left is delivered", || self.all_is_settled());
        assert_eq!(agent.stop(), Some(0));
    }

    /// What the spool says of itself. No agent runs.
    #[track_caller]
    fn status(&self) -> Value {
        spool_status_with(&self.scene, |command| self.inside(command))
    }

    /// What `spool verify` finds wrong.
    fn wrong(&self) -> Option<String> {
        let mut command = log_agent();
        command.args(["spool", "verify", "--spool-dir"]).arg(self.scene.spool_dir());
        self.inside(&mut command);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.code() != Some(0)).then_some(told)
    }

    fn writers(&self) -> Vec<&Writer> {
        self.writers.iter().collect()
    }

    /// Asserts that every line arrived once and in order, and that the spool is in order. No agent runs.
    #[track_caller]
    fn assert_whole(&self) -> Value {
        let writers = self.writers();
        assert_delivered_exactly_once(&writers, &self.collector);
        assert_accounts_agree(&writers, &self.collector);
        assert_eq!(disordered(&self.collector.stored()), Vec::<String>::new());
        let requests = self.proxy.requests();
        assert_resends_identical(&requests);
        assert_batches_keep_their_boundaries(&requests);
        assert_eq!(self.wrong(), None);
        let mut status = self.status();
        let sources = status["sources"].as_array_mut().unwrap();
        if let Some(refused) = &self.refused {
            let at = sources.iter().position(|source| source["source"] == refused.source()).unwrap();
            let source = sources.remove(at);
            assert_eq!(source["dead"], refused.count(), "{source:#}");
            assert_eq!(source["spooled"], source["dead"], "{source:#}");
        }
        assert_all_is_acknowledged(&status, &writers);
        status
    }
}

/// The events that arrived after later ones of their source.
fn disordered(stored: &[Stored]) -> Vec<String> {
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut found = Vec::new();
    for event in stored {
        let last = last.entry(&event.source).or_default();
        if event.seq <= *last {
            found.push(format!("{} {} after {last}", event.source, event.seq));
        }
        *last = event.seq.max(*last);
    }
    found
}

#[test]
fn events_that_arrive_out_of_order_are_found() {
    let event = |source: &str, seq| Stored {
        agent: "agent1".into(),
        source: source.into(),
        seq,
        timestamp: String::new(),
        data: String::new(),
        continues: false,
    };
    let mut stored = vec![event("a", 1), event("b", 1), event("a", 2), event("b", 2)];
    assert_eq!(disordered(&stored), Vec::<String>::new());
    stored.swap(0, 2);
    assert_eq!(disordered(&stored), ["a 1 after 2"]);
}

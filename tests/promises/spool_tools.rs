//! What an operator does with a spool: each tool on a healthy one, on a damaged one, and beside a running agent.

mod damage;
mod letters;
mod reading;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use log_agent::spool::inspect;
use serde_json::Value;

use crate::common::{Agent, Collector, PATIENCE, Scene, Writer, log_agent, spool_status, wait_for};

/// What a tool said, and how it ended.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    errors: String,
}

impl Told {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Every line as an object.
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// `log-agent spool ...` on the scene's spool.
fn spool(scene: &Scene, arguments: &[&str]) -> Told {
    let mut command = log_agent();
    command.arg("spool").args(arguments);
    command.arg("--config").arg(scene.config_path()).arg("--spool-dir").arg(scene.spool_dir());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: status.code(), out: text(stdout), errors: text(stderr) }
}

/// The same, of a tool that has to end well.
#[track_caller]
fn ok(scene: &Scene, arguments: &[&str]) -> Told {
    let told = spool(scene, arguments);
    assert_eq!(told.code, Some(0), "{arguments:?}: {told:?}");
    told
}

/// Asserts that nothing is wrong with the spool.
#[track_caller]
fn assert_clean(scene: &Scene) -> Value {
    ok(scene, &["verify", "--json"]).json()
}

/// Every file below `dir` with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Two sources whose lines wait in several segments, since the collector takes no more. Some lines were delivered before.
struct Backlog {
    scene: Scene,
    collector: Collector,
    app: Writer,
    web: Writer,
}

impl Backlog {
    /// Lines of each source that wait.
    const WAITING: usize = 3000;

    /// The agent was stopped.
    fn of(test: &str) -> Self {
        let (backlog, agent) = Self::with_agent(test);
        assert_eq!(agent.stop(), Some(0));
        backlog
    }

    /// The agent still runs.
    fn with_agent(test: &str) -> (Self, Agent) {
        let scene = Scene::new(test);
        let mut collector = Collector::start(&scene);
        scene
            .config()
            .end_point(collector.url())
            .global("interval_secs", 0.02)
            .global("retry_delay_ms", 5)
            .global("max_batch_size", 50)
            .global("segment_bytes", "64 KiB")
            .source("app", "logs/app.log")
            .source("web", "logs/web.log")
            .write();
        let mut app = Writer::new(&scene, "app", "logs/app.log");
        let mut web = Writer::new(&scene, "web", "logs/web.log");
        let agent = Agent::start(&scene);
        app.append(100);
        web.append(100);
        collector.await_stored(200);
        // A stop waits for the answers, so that what was stored is acknowledged.
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(spool_status(&scene)["backlog"]["events"], 0);
        collector.kill();
        let agent = Agent::start(&scene);
        agent.await_started();
        // In portions, so that there are many frames, and damage to one leaves others.
        for _ in 0..20 {
            app.append(Self::WAITING / 20);
            web.append(Self::WAITING / 20);
            let written = app.count() + web.count();
            wait_for(PATIENCE, "the lines are spooled", || {
                inspect::spooled(&scene.spool_dir()).is_ok_and(|events| events >= written)
            });
        }
        (Self { scene, collector, app, web }, agent)
    }

    fn spool(&self, path: &str) -> PathBuf {
        self.scene.spool_dir().join(path)
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.spool(&format!("segments/{number:020}.seg"))
    }

    fn segments(&self) -> Vec<Value> {
        ok(&self.scene, &["list", "--json"]).json()["segments"].as_array().unwrap().clone()
    }

    fn written(&self) -> u64 {
        self.app.count() + self.web.count()
    }

    /// Starts the agent on what is left and waits until it has delivered all that it can. Every line is stored but those
    /// that are counted as damaged or dropped; says how many those are.
    #[track_caller]
    fn delivers_the_rest(&mut self) -> u64 {
        self.collector.restart();
        let agent = Agent::start(&self.scene);
        agent.await_started();
        // What comes last shows that what is before it was dealt with.
        self.app.append(1);
        let last = self.app.lines().last().unwrap().clone();
        wait_for(PATIENCE, "the last line is stored", || {
            self.collector.stored().iter().any(|event| event.data == last)
        });
        assert_eq!(agent.stop(), Some(0));
        let status = spool_status(&self.scene);
        // A stop leaves what was not acknowledged in time.
        if status["backlog"]["events"] != 0 {
            let agent = Agent::start(&self.scene);
            let waiting = status["backlog"]["events"].as_u64().unwrap();
            let stored = self.collector.stored_count();
            self.collector.await_stored(stored + waiting);
            assert_eq!(agent.stop(), Some(0));
        }
        let status = spool_status(&self.scene);
        let sources = status["sources"].as_array().unwrap();
        let sum = |what: &str| sources.iter().map(|source| source[what].as_u64().unwrap()).sum::<u64>();
        let stored: std::collections::HashSet<_> =
            self.collector.stored().into_iter().map(|event| event.data).collect();
        let lines = self.app.lines().iter().chain(self.web.lines());
        let missing = lines.filter(|line| !stored.contains(*line)).count() as u64;
        assert_eq!(missing, sum("damaged") + sum("dropped"), "{status:#}");
        assert_eq!(stored.len() as u64 + missing, self.written(), "something is stored twice");
        assert_clean(&self.scene);
        missing
    }
}

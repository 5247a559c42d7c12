//! Real receivers, from the directory in `LOG_AGENT_TEST_RECEIVERS`, which `tests/receivers.sh` fills: each is sent the same
//! events while answers are lost and the agent dies, and asked for all that it has stored. Without it these tests are
//! skipped.

mod collector;
mod opensearch;
mod victoria_logs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::common::{
    ConfigBuilder, Fault, FaultProxy, Process, Received, assert_resends_identical, exchange, free_port, skip,
};

/// An event as a receiver has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    source: String,
    seq: u64,
    line: String,
    /// In milliseconds since 1970.
    time: i64,
    path: String,
    labels: BTreeMap<String, String>,
}

/// How often a receiver may have an event that was sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    One,
    AsSent,
}

/// When the lines of the container were written, in milliseconds since 1970, and what is between two of them.
const FIRST: i64 = 1_705_314_600_123;
const BETWEEN: i64 = 250;
/// Events of each source.
const COUNT: usize = 90;

/// Where a receiver is; says that the test is skipped where it is not.
fn installed(test: &str, name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("LOG_AGENT_TEST_RECEIVERS").map(PathBuf::from);
    let found = dir.map(|dir| dir.join(name)).filter(|path| path.exists());
    if found.is_none() {
        skip(test, &format!("LOG_AGENT_TEST_RECEIVERS has no {name}; tests/receivers.sh makes one"));
    }
    found
}

/// A receiver that runs on the loopback.
struct Server {
    address: SocketAddr,
    _process: Process,
}

impl Server {
    /// Starts one that will listen on `port`, and waits until it answers `probe` with 200.
    fn start(scene: &Scene, name: &'static str, mut command: Command, port: u16, probe: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(scene.path("."));
        let mut process = Process::start(name, command, &scene.path(format!("{name}.stderr")));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for(PATIENCE * 2, &format!("{name} answers"), || {
            assert!(process.is_running(), "{name} ended");
            exchange(address, probe, &[], b"").is_ok_and(|answer| answer.status < 500)
        });
        Self { address, _process: process }
    }

    /// The body of its answer, which must be a good one.
    #[track_caller]
    fn ask(&self, request: &str, body: &str) -> String {
        let headers = [("content-type", "application/json")];
        let answer = exchange(self.address, request, &headers, body.as_bytes()).unwrap();
        assert!(matches!(answer.status, 200..300), "{request}: {} {}", answer.status, answer.text());
        answer.text()
    }
}

/// What is followed: `app`, whose events may have several lines, and `web`, a container's log with times of its own.
struct Sources<'a> {
    scene: &'a Scene,
    app: Vec<String>,
    web: Vec<String>,
}

impl<'a> Sources<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut app = lines(2 * COUNT);
        let web = app.split_off(COUNT);
        for event in app.iter_mut().skip(4).step_by(9) {
            event.push_str("\n\tat main.rs:1\n    at <unknown>");
        }
        Self { scene, app, web }
    }

    /// A configuration that sends them to `url`.
    fn config(&self, url: String) -> ConfigBuilder<'a> {
        quick(self.scene, url)
            .global("compression", "gzip")
            .global("timeout_secs", 30)
            .table("labels", "environment", "test")
            .within("multiline", "start_pattern", r"^\d{4} ")
            .within("multiline", "timeout_ms", 100)
            .within("labels", "team", "payments")
            .source("web", "logs/web.log")
            .with("format", "cri")
    }

    /// Appends these events of each source to its file.
    fn append(&self, range: Range<usize>) {
        let app: String = self.app[range.clone()].iter().flat_map(|event| [event, "\n"]).collect();
        let records = range.map(|index| {
            let time = chrono::DateTime::from_timestamp_millis(time(index)).unwrap();
            format!("{} stdout F {}\n", time.to_rfc3339(), self.web[index])
        });
        for (file, text) in [("logs/app.log", app), ("logs/web.log", records.collect())] {
            let path = self.scene.path(file);
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// Asserts that this is each of the events, as it was written, and how often it may be there.
    fn assert_are(&self, stored: &[Stored], copies: Copies, begun: i64) {
        let mut each: BTreeMap<(&str, u64), Vec<&Stored>> = BTreeMap::new();
        stored.iter().for_each(|event| each.entry((&event.source, event.seq)).or_default().push(event));
        assert_eq!(each.len(), 2 * COUNT);
        let now = chrono::Utc::now().timestamp_millis();
        for (source, events) in [("app", &self.app), ("web", &self.web)] {
            for (index, line) in events.iter().enumerate() {
                let copied = &each[&(source, index as u64 + 1)];
                let event = copied[0];
                assert!(copied.iter().all(|copy| *copy == event), "a number names one event: {copied:?}");
                assert!(copies == Copies::AsSent || copied.len() == 1, "stored twice: {copied:?}");
                assert_eq!(event.line, *line);
                assert_eq!(event.path, self.scene.path(format!("logs/{source}.log")).to_str().unwrap());
                assert_eq!(event.labels, labels(source));
                match source {
                    "web" => assert_eq!(event.time, time(index)),
                    _ => assert!((begun..=now).contains(&event.time), "{event:?}"),
                }
            }
        }
    }
}

/// When an event of `web` was written.
fn time(index: usize) -> i64 {
    FIRST + BETWEEN * i64::try_from(index).unwrap()
}

/// The labels that the events of a source have.
fn labels(source: &str) -> BTreeMap<String, String> {
    let team = (source == "app").then_some(("team", "payments"));
    let all = [("environment", "test")].into_iter().chain(team);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Sends all of it with `settings` to `path` of `server`, of which `stored` says what it has. Answers are lost, and the agent
/// dies when requests were stored of which it does not know.
fn deliver(
    scene: &Scene,
    server: SocketAddr,
    path: &str,
    settings: &[(&str, &str)],
    copies: Copies,
    stored: impl Fn() -> Vec<Stored>,
) {
    let begun = chrono::Utc::now().timestamp_millis();
    let sources = Sources::new(scene);
    let proxy = FaultProxy::before_server(server);
    let url = format!("http://{}{path}", proxy.address());
    let config = sources.config(url);
    settings.iter().fold(config, |config, &(key, value)| config.global(key, value)).write();
    let distinct = || {
        let stored = stored();
        stored.iter().map(|event| (event.source.clone(), event.seq)).collect::<BTreeSet<_>>().len()
    };
    sources.append(0..COUNT / 2);
    proxy.next_n(3, Fault::LoseReply);
    let agent = Agent::start(scene);
    wait_for(PATIENCE * 2, "the first half is stored", || distinct() >= COUNT);

    proxy.always(Fault::HangAfterForward);
    sources.append(COUNT / 2..COUNT);
    wait_for(PATIENCE * 2, "some of the second half is stored", || distinct() > COUNT);
    agent.kill();
    proxy.heal();
    let agent = Agent::start(scene);
    wait_for(PATIENCE * 2, "every event is stored", || distinct() >= 2 * COUNT);
    wait_for(PATIENCE * 2, "every batch is acknowledged", || {
        let requests = proxy.requests();
        let passed = requests.iter().filter(|request| request.fault == Fault::Pass).map(Received::key);
        passed.collect::<BTreeSet<_>>().len()
            == requests.iter().map(Received::key).collect::<BTreeSet<_>>().len()
    });
    assert_eq!(agent.stop(), Some(0));

    let requests = proxy.requests();
    assert_resends_identical(&requests);
    let keys: BTreeSet<&str> = requests.iter().map(Received::key).collect();
    assert!(requests.len() >= keys.len() + 4, "too little came twice to show anything");
    let status = spool_status(scene);
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
    for source in status["sources"].as_array().unwrap() {
        assert_eq!((&source["acknowledged"], &source["dead"]), (&COUNT.into(), &0.into()), "{status:#}");
    }
    sources.assert_are(&stored(), copies, begun);
}

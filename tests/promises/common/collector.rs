//! The reference collector as a child process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::{PATIENCE, Process, Scene, free_port, get, log_agent, wait_for};

/// One line of the collector's out file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub agent: String,
    pub source: String,
    pub seq: u64,
    pub timestamp: String,
    pub data: String,
    /// The line goes on in the next event.
    #[serde(default)]
    pub continues: bool,
}

/// What `GET /stats` says.
pub type Stats = log_agent::collect::Stats;

/// A collector whose address and out file stay the same across restarts. Its process is killed when it is dropped.
#[derive(Debug)]
pub struct Collector {
    process: Option<Process>,
    address: SocketAddr,
    out: PathBuf,
    stderr: PathBuf,
    extra: Vec<String>,
}

impl Collector {
    /// Starts a collector that writes to `out.jsonl` in the scene.
    pub fn start(scene: &Scene) -> Self {
        Self::start_at(scene, &scene.path("out.jsonl"), &[])
    }

    /// Starts one that writes to `out`, with more on its command line.
    pub fn start_at(scene: &Scene, out: &Path, extra: &[&str]) -> Self {
        let mut collector = Self {
            process: None,
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            out: out.to_owned(),
            stderr: scene.path("collector.stderr"),
            extra: extra.iter().map(|&argument| argument.to_owned()).collect(),
        };
        collector.restart();
        collector
    }

    /// Starts it again where it was, and returns once it listens.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the collector runs already");
        let mut command = log_agent();
        command.arg("collect").arg("--listen").arg(self.address.to_string()).arg("--out").arg(&self.out);
        command.args(&self.extra).stdout(Stdio::piped());
        let mut process = Process::start("collector", command, &self.stderr);
        let mut first_line = String::new();
        let stdout = process.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut first_line).unwrap();
        assert_eq!(
            first_line,
            format!("listening on http://{}/\n", self.address),
            "the collector does not listen; it said: {}",
            process.messages()
        );
        self.process = Some(process);
    }

    /// Kills it with SIGKILL; connections to it are refused until [`Collector::restart`].
    pub fn kill(&mut self) {
        self.process.take().expect("the collector does not run").kill();
    }

    /// Stops it with SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.take().expect("the collector does not run").stop()
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where an agent sends to.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Where an agent sends frames to.
    pub fn socket_url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The memory of what is stored.
    pub fn index(&self) -> PathBuf {
        let mut path = self.out.clone().into_os_string();
        path.push(".seen");
        path.into()
    }

    /// The whole lines of the out file. Panics on one that is not what the collector writes. A last line without its
    /// line feed is being written, or was torn by a kill and is cut off at the next start: it is not stored.
    pub fn stored(&self) -> Vec<Stored> {
        let bytes = std::fs::read(&self.out).unwrap_or_default();
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |last| last + 1);
        bytes[..whole]
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                serde_json::from_slice(line).unwrap_or_else(|error| {
                    panic!("not a stored event: {error}: {}", String::from_utf8_lossy(line))
                })
            })
            .collect()
    }

    /// How many whole lines the out file has; cheaper than [`Collector::stored`].
    pub fn stored_count(&self) -> u64 {
        let Ok(mut file) = File::open(&self.out) else { return 0 };
        let mut chunk = vec![0; 1 << 18];
        let mut count = 0;
        loop {
            match file.read(&mut chunk).unwrap() {
                0 => return count,
                read => count += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64,
            }
        }
    }

    /// Waits until at least `count` events are stored.
    #[track_caller]
    pub fn await_stored(&self, count: u64) {
        let begun = self.stored_count();
        wait_for(PATIENCE, &format!("{count} events are stored, from {begun}"), || {
            self.stored_count() >= count
        });
    }

    /// What the collector says of itself.
    pub fn stats(&self) -> Stats {
        let answer = get(self.address, "/stats").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }
}

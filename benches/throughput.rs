//! The end-to-end benchmark: files → spool (with its fsync) → HTTP, agent and receiver on the same machine.
//!
//! `cargo bench --bench throughput -- [--lines N] [--line-bytes N] [--batch N] [--mode tail|backlog] [--runs N]`
//!
//! `tail` starts the agent beside a file of N lines and times it until the receiver has the last one. `backlog` lets
//! the agent spool everything first, with nobody listening, and times the drain. Processor time and peak memory are
//! those of the agent's process, as the kernel accounts them. A gigabyte is 10^9 bytes of log text, a megabyte 10^6.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark that meets the unexpected should stop there"
)]

mod sink;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sink::Sink;

struct Settings {
    lines: u64,
    line_bytes: usize,
    batch: u32,
    backlog: bool,
    runs: u32,
    dir: Option<PathBuf>,
}

fn main() {
    let settings = Settings::from_args();
    for run in 1..=settings.runs {
        settings.run(run);
    }
}

impl Settings {
    fn from_args() -> Self {
        let mut settings =
            Self { lines: 2_000_000, line_bytes: 200, batch: 5000, backlog: false, runs: 1, dir: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap();
            match arg.as_str() {
                "--lines" => settings.lines = number(),
                "--line-bytes" => settings.line_bytes = usize::try_from(number()).unwrap(),
                "--batch" => settings.batch = u32::try_from(number()).unwrap(),
                "--runs" => settings.runs = u32::try_from(number()).unwrap(),
                "--mode" => settings.backlog = args.next().as_deref() == Some("backlog"),
                "--dir" => settings.dir = args.next().map(PathBuf::from),
                // What cargo adds.
                "--bench" => {}
                other => panic!("{other}: not an argument of this benchmark"),
            }
        }
        settings
    }

    fn run(&self, run: u32) {
        let dir = match &self.dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        }
        .unwrap();
        let log = dir.path().join("app.log");
        let text_bytes = write_lines(&log, self.lines, self.line_bytes);
        let sink = Sink::start().unwrap();
        println!("run {run}: receiver on {}", sink.address());
        if self.backlog {
            let started = Instant::now();
            let agent = self.start(dir.path(), "http://127.0.0.1:9/");
            while spooled(dir.path()) < text_bytes {
                std::thread::sleep(Duration::from_millis(20));
            }
            let seconds = started.elapsed().as_secs_f64();
            let usage = Usage::of(&agent);
            stop(agent);
            report(run, "spooled", text_bytes, seconds, &usage);
        }
        let started = Instant::now();
        let agent = self.start(dir.path(), &sink.url());
        while sink.counts().events() < self.lines {
            assert!(started.elapsed() < Duration::from_secs(600), "{} events came", sink.counts().events());
            std::thread::sleep(Duration::from_millis(5));
        }
        let seconds = started.elapsed().as_secs_f64();
        let usage = Usage::of(&agent);
        report(run, "delivered", text_bytes, seconds, &usage);
        println!(
            "       {} requests, {:.0} B of body each",
            sink.counts().requests(),
            sink.counts().body_bytes() as f64 / sink.counts().requests() as f64
        );
        stop(agent);
    }

    fn start(&self, dir: &Path, url: &str) -> Child {
        let config = dir.join("log-agent.config");
        let text = format!(
            "[global]\nagent_name = \"bench\"\nend_point = \"{url}\"\nsend_type = \"HTTP\"\n\
             max_batch_size = {}\ninterval_secs = 1\nspool_dir = \"{}\"\nmax_spool_bytes = \"100 GiB\"\n\
             [global.proxy]\nurl = \"none\"\n\
             [[sources]]\nname = \"app\"\nlog_path = \"{}\"\n",
            self.batch,
            dir.join("spool").display(),
            dir.join("app.log").display(),
        );
        fs::write(&config, text).unwrap();
        Command::new(env!("CARGO_BIN_EXE_log-agent"))
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn report(run: u32, what: &str, bytes: u64, seconds: f64, usage: &Usage) {
    let bytes = bytes as f64;
    println!(
        "run {run}: {what} {:.0} MB in {seconds:.2} s: {:.0} MB/s, {:.2} CPU s/GB (user {:.2}, system {:.2}), peak {:.1} MB resident",
        bytes / 1e6,
        bytes / 1e6 / seconds,
        (usage.user + usage.system) / (bytes / 1e9),
        usage.user / (bytes / 1e9),
        usage.system / (bytes / 1e9),
        usage.peak as f64 / 1e6,
    );
}

/// Writes numbered lines of `len` bytes with their line ending; says how many bytes.
fn write_lines(path: &Path, lines: u64, len: usize) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let words = "GET /api/v1/orders/status?id=4711 HTTP/1.1 200 user-agent curl/8.1 latency_ms=12 trace=";
    let filler: String = words.chars().cycle().take(len).collect();
    let mut written = 0;
    for number in 0..lines {
        let head = format!("2026-01-15T10:30:00.123Z INFO {number:010} ");
        let rest = len - head.len() - 1;
        file.write_all(head.as_bytes()).unwrap();
        file.write_all(&filler.as_bytes()[..rest]).unwrap();
        file.write_all(b"\n").unwrap();
        written += len as u64;
    }
    file.flush().unwrap();
    written
}

/// Bytes in the spool's segments.
fn spooled(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir.join("spool/segments")) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// What a process has used so far.
struct Usage {
    /// Seconds.
    user: f64,
    system: f64,
    /// Bytes.
    peak: u64,
}

impl Usage {
    fn of(process: &Child) -> Self {
        let proc = PathBuf::from(format!("/proc/{}", process.id()));
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // Fields 14 and 15 of proc(5), in ticks of 10 ms.
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap() / 100.0;
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        Self { user: ticks(11), system: ticks(12), peak: kilobytes * 1024 }
    }
}

fn stop(mut agent: Child) {
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    agent.wait().unwrap();
}

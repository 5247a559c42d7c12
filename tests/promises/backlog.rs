//! A backlog of days: what an agent reads before it sends does not depend on how much waits, and neither does the memory
//! in which it is sent.
//!
//! The backlog is written by the spool itself, in this process, since that is faster than following files. By default it
//! is small; `LOG_AGENT_TEST_BACKLOG_GB` makes it as large as an outage does.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log_agent::config::{OnFull, SyncMode};
use log_agent::event::{
    Checkpoint, EventBlock, FileIdentity, FileOffset, FrameDraft, FrameSink as _, Skips, SourceName,
    Timestamp, Witness,
};
use log_agent::payload::Profile;
use log_agent::spool::{Spool, SpoolOptions};

use crate::common::{Agent, Fault, FaultProxy, PATIENCE, Scene, Vitals, sink, wait_for};

/// Payload of a frame, about as much as a tailer puts in one.
const FRAME_BYTES: u64 = 256 << 10;
/// What an agent may read of each segment when it starts: its header.
const HEAD_BYTES: u64 = 1 << 10;

/// Puts `bytes` of lines of one file into the scene's spool; says how many lines.
pub fn fill(scene: &Scene, bytes: u64, segment_bytes: u64) -> u64 {
    let options = SpoolOptions {
        dir: scene.spool_dir(),
        profile: Some(Profile::json("agent1")),
        segment_bytes,
        sync: SyncMode::Os,
        max_spool_bytes: u64::MAX,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        channel_bound: 64,
    };
    let spool = Spool::open(&options).unwrap();
    let mut appender = spool.appender();
    let identity = FileIdentity { dev: 1, ino: 2, birth_ns: 3 };
    let (mut offset, mut lines) = (0_u64, 0_u64);
    while offset < bytes {
        let mut events = EventBlock::default();
        let start = offset;
        while offset < start + FRAME_BYTES {
            let line = format!("{lines:012} GET /index.html HTTP/1.1 200 {:0>140}", lines % 7919);
            events.push(line.as_bytes(), false);
            offset += line.len() as u64 + 1;
            lines += 1;
        }
        let checkpoint = Checkpoint {
            source: SourceName::from("app"),
            path: PathBuf::from("/var/log/app.log"),
            identity,
            head: Witness::of(b"head"),
            tail: Witness::of(b"tail"),
            offset: FileOffset(offset),
        };
        let draft = FrameDraft {
            checkpoint,
            start: FileOffset(start),
            detected: Timestamp::from_millis(1_700_000_000_000),
            events,
            skips: Skips::default(),
            before: None,
            forget: false,
        };
        appender.append(draft).unwrap();
    }
    spool.close();
    lines
}

fn configure(scene: &Scene, url: String) {
    scene
        .config()
        .end_point(url)
        .global("max_spool_bytes", "100 GiB")
        .global("max_batch_size", 2000)
        .global("sync", "os")
        .global("timeout_secs", 300)
        .global("shutdown_secs", 0)
        .source("app", "logs/app.log")
        .write();
}

/// Bytes that a process has read so far, from files and connections.
fn bytes_read(agent: &Agent) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Starts an agent on a backlog; what it had read when the oldest batch came, and how many segments there were.
fn read_before_the_first_request(bytes: u64) -> (u64, u64) {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let scene = Scene::new("what_is_read_at_a_start_does_not_depend_on_the_backlog");
    let proxy = FaultProxy::alone();
    configure(&scene, proxy.url());
    fill(&scene, bytes, SEGMENT_BYTES);
    let segments = fs::read_dir(scene.spool_dir().join("segments")).unwrap().count() as u64;
    assert!(segments >= bytes / SEGMENT_BYTES, "{segments} segments");
    proxy.always(Fault::Hang);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "the oldest batch", || {
        proxy.requests().iter().any(|request| request.seq().starts_with("1-"))
    });
    // Nothing is acknowledged, so what it reads ahead comes to an end.
    let mut read = 0;
    wait_for(PATIENCE, "nothing more is read", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut read, bytes_read(&agent)) == read
    });
    agent.kill();
    (read, segments)
}

#[test]
fn what_is_read_at_a_start_does_not_depend_on_the_backlog() {
    let (small, few) = read_before_the_first_request(8 << 20);
    let (large, many) = read_before_the_first_request(160 << 20);
    println!("{small} bytes of {few} segments, {large} bytes of {many}");
    let more = large.saturating_sub(small);
    assert!(more <= (many - few) * HEAD_BYTES, "{more} bytes more of {} segments more", many - few);
}

#[test]
fn a_backlog_drains_in_the_memory_of_a_few_batches() {
    let gigabytes = std::env::var("LOG_AGENT_TEST_BACKLOG_GB").ok();
    let gigabytes =
        gigabytes.map(|number| number.parse::<u64>().expect("LOG_AGENT_TEST_BACKLOG_GB is not a number"));
    let (bytes, segment_bytes) =
        gigabytes.map_or((48 << 20, 1 << 20), |gigabytes| (gigabytes << 30, 64 << 20));
    let scene = Scene::new("a_backlog_drains_in_the_memory_of_a_few_batches");
    let sink = sink::Sink::start().unwrap();
    configure(&scene, sink.url());
    let begun = Instant::now();
    let lines = fill(&scene, bytes, segment_bytes);
    println!("{lines} lines, {bytes} bytes written in {:.1} s", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let agent = Agent::start(&scene);
    wait_for(Duration::from_secs(5), "the first request", || sink.counts().requests() > 0);
    let first = begun.elapsed();
    // A small one is gone in an instant.
    let often = Duration::from_millis(if gigabytes.is_some() { 250 } else { 1 });
    let mut vitals = Vitals::every(often);
    // As long as it goes forward.
    let (mut events, mut moved) = (0, Instant::now());
    while sink.counts().events() < lines {
        if events != sink.counts().events() {
            (events, moved) = (sink.counts().events(), Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "{events} of {lines} lines have come, and no more do");
        vitals.sample(agent.pid(), &scene.spool_dir());
        std::thread::sleep(often.min(Duration::from_millis(20)));
    }
    let took = begun.elapsed().as_secs_f64();
    println!("first request after {:.2} s, drained in {took:.1} s\n{vitals}", first.as_secs_f64());
    let segments = scene.spool_dir().join("segments");
    wait_for(PATIENCE, "the segments are deleted", || fs::read_dir(&segments).unwrap().count() <= 2);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(vitals.growth(&[]), Vec::<String>::new(), "{vitals}");
    assert!(vitals.rss_max_kib() < 131_072.0, "more than a few batches: {vitals}");
}

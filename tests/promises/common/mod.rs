//! A small language for the tests, which all run the real binary.
//!
//! A test sets a [`Scene`] (a temporary directory with logs, spool and configuration), starts a [`Collector`], possibly
//! a [`FaultProxy`] before it, and an [`Agent`], lets a [`Writer`] write numbered lines, breaks something, and asks the
//! oracle whether every line arrived once: [`assert_delivered_exactly_once`].
//!
//! ```ignore
//! let scene = Scene::new("a_restart_goes_on_where_the_kill_was");
//! let collector = Collector::start(&scene);
//! let proxy = FaultProxy::before(&collector);
//! scene.config().end_point(proxy.url()).source("app", "logs/app.log").write();
//! let mut writer = Writer::new(&scene, "app", "logs/app.log");
//! let mut agent = Agent::start(&scene);
//! writer.append(100);
//! proxy.next(Fault::LoseReply);
//! agent.kill();
//! let agent = Agent::start(&scene);
//! await_delivery(&[&writer], &collector);
//! assert_delivered_exactly_once(&[&writer], &collector);
//! assert_resends_identical(&proxy.requests());
//! assert_eq!(agent.stop(), Some(0));
//! ```
//!
//! Nothing here sleeps to wait for the program: [`wait_for`] polls a condition against a deadline that is generous,
//! because it only ends tests that have failed. Randomness comes from [`Scene::rng`], whose seed is printed and can be
//! given in `LOG_AGENT_TEST_SEED`. `LOG_AGENT_TEST_KEEP=1` keeps the directories.
#![allow(dead_code, unused_imports, reason = "a language has more words than the tests of one day use")]

mod agent;
mod client;
mod clock;
mod collector;
mod disk;
mod faults;
mod http;
mod inject;
mod load;
mod oracle;
mod process;
mod receiver;
mod scene;
mod shutdown;
#[cfg(feature = "websocket")]
mod socket;
mod status;
mod tls;
mod trace;
mod vitals;
mod writer;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub use agent::Agent;
pub use client::{Shipment, spool_id};
pub use clock::Clock;
pub use collector::{Collector, Stats, Stored};
pub use disk::{Disk, FileSystem};
pub use faults::{Fault, FaultProxy, Received};
pub use http::{Answer, Message, exchange, get, post};
pub use inject::{Injection, Place, ShortWrites};
pub use load::{Load, Rhythm};
pub use oracle::{
    assert_accounts_agree, assert_batches_keep_their_boundaries, assert_delivered_exactly_once,
    assert_resends_identical, assert_stored_once, assert_written_exactly_once, await_delivery,
};
pub use process::{Process, log_agent};
pub use receiver::{Receiver, Reply};
pub use scene::{ConfigBuilder, Scene};
pub use status::{assert_all_is_acknowledged, spool_status, spool_status_with};
pub use tls::{Authority, ServerTls};
pub use trace::{Call, read_trace, traced};
pub use vitals::Vitals;
pub use writer::Writer;

/// How long [`wait_for`] waits where a test has no reason for another deadline. Far above what anything takes on a
/// loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `condition` until it holds. Panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn wait_for(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Says that a test does not run here, in a form that can be counted: `SKIPPED <test>: <reason>`.
pub fn skip(test: &str, reason: &str) {
    // Past the capturing of output, so that a run with skips can be told from one without.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Lets `program`, which ends with an exec of what follows its arguments, run `command`.
pub fn wrap(command: &mut Command, mut program: Command) {
    program.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => program.env(name, value),
            None => program.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        program.current_dir(dir);
    }
    *command = program;
}

/// Makes a library that stands before the C library's functions; none where there is no compiler.
pub fn preload(scene: &Scene, name: &str, source: &str) -> Option<PathBuf> {
    if !has_program("cc") {
        return None;
    }
    let (file, library) = (scene.path(format!("{name}.c")), scene.path(format!("{name}.so")));
    std::fs::write(&file, source).unwrap();
    let output =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&file).output().unwrap();
    assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// A port of 127.0.0.1 that nothing listens on, outside the range that outgoing connections take theirs from: so it
/// is still free when a server that was down comes back to it, and no connection to it can meet itself.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let spread = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + spread.wrapping_add(step.wrapping_mul(7)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Whether a program is in the search path.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The benchmarks' counting server; here so that its counts are checked.
#[path = "../../../benches/sink/mod.rs"]
pub mod sink;

#[test]
fn the_sink_of_the_benchmarks_counts_what_comes() {
    use std::io::Write as _;

    let sink = sink::Sink::start().unwrap();
    let shipment = Shipment::new(&spool_id(1)).with("a", 1..=2000).with("b", 1..=77);
    let json = shipment.json();
    let request = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{json}", json.len());
    let mut stream = std::net::TcpStream::connect(sink.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    // In pieces of every small size, so that events lie across the seams of what is read.
    let mut rest = request.as_bytes();
    for size in (1..40).cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        stream.write_all(piece).unwrap();
        rest = after;
    }
    stream.write_all(request.repeat(3).as_bytes()).unwrap();
    wait_for(PATIENCE, "four requests are counted", || sink.counts().requests() == 4);
    assert_eq!(sink.counts().events(), 4 * 2077);
    assert_eq!(sink.counts().body_bytes(), 4 * json.len() as u64);
}

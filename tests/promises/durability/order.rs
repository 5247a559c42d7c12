//! In which order the real agent writes, syncs and sends, told by strace.
//!
//! Every line has a token that no other has, so what is in a write, a read or a request shows in its bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use memchr::memmem;

use crate::common::{Agent, Call, FaultProxy, Scene, Writer, has_program, read_trace, skip, traced};

/// Lines of the run, in several segments.
const LINES: u64 = 3000;

/// A trace of an agent that spools and delivers [`LINES`] lines in several rounds, with what strace is told beside;
/// none without strace.
pub(super) fn trace(test: &str, sync: &str, injected: &[&str]) -> Option<Vec<Call>> {
    if !has_program("strace") {
        skip(test, "strace is not installed");
        return None;
    }
    let scene = Scene::new(test);
    let proxy = FaultProxy::alone();
    scene
        .config()
        .end_point(proxy.url())
        .global("sync", sync)
        .global("max_batch_size", 50)
        .global("segment_bytes", 64 << 10)
        .source("app", "logs/app.log")
        .write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let file = scene.path("trace");
    let agent = Agent::start_with(&scene, |command| traced(command, &file, injected));
    for round in 1..=10 {
        writer.append((LINES / 10) as usize);
        proxy.await_requests(round * LINES / 50 / 10);
    }
    assert_eq!(agent.stop(), Some(0));
    // strace gives paths without symbolic links.
    Some(read_trace(&file, &scene.path(".").canonicalize().unwrap()))
}

/// What the durable order is, read from a trace.
pub(super) struct Order<'a> {
    calls: &'a [Call],
    /// For each line the call that wrote it to a segment.
    pub(super) written: BTreeMap<u64, &'a Call>,
}

/// `logs.app.log 00000123 ` as [`Writer`] writes it.
pub(super) fn tokens(bytes: &[u8]) -> impl Iterator<Item = u64> {
    static FINDER: LazyLock<memmem::Finder> = LazyLock::new(|| memmem::Finder::new(b"app:logs.app.log "));
    FINDER.find_iter(bytes).filter_map(|at| {
        // A read may end within a token; the next has the rest of the line.
        let digits = bytes[at + FINDER.needle().len()..].get(..8)?;
        std::str::from_utf8(digits).unwrap().parse().ok()
    })
}

pub(super) fn is_segment(path: &Path) -> bool {
    path.parent() == Some(Path::new("spool/segments"))
}

impl<'a> Order<'a> {
    pub(super) fn new(calls: &'a [Call]) -> Self {
        let mut written = BTreeMap::new();
        for call in calls.iter().filter(|call| call.name.contains("write") && is_segment(&call.path)) {
            written.extend(tokens(&call.bytes).map(|line| (line, call)));
        }
        assert_eq!(written.len() as u64, LINES, "the trace does not show every line being spooled");
        Self { calls, written }
    }

    /// Whether `path` was synced by a call that began after `after` ended, and ended before `before` began.
    fn is_synced(&self, path: &Path, after: usize, before: usize) -> bool {
        self.calls.iter().any(|call| {
            ["fsync", "fdatasync"].contains(&call.name.as_str())
                && call.worked
                && call.path == path
                && call.begun > after
                && call.ended < before
        })
    }

    fn requests(&self) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(|call| call.bytes.starts_with(b"POST "))
    }

    /// What a frame's lines were sent, or read back by the aggregator, before they were durable.
    fn lines_before_their_sync(&self) -> Vec<String> {
        let reads = self.calls.iter().filter(|call| call.name == "pread64" && is_segment(&call.path));
        let mut complaints = Vec::new();
        for (what, call) in reads.map(|c| ("read", c)).chain(self.requests().map(|c| ("sent", c))) {
            for line in tokens(&call.bytes) {
                let write = self.written[&line];
                if !self.is_synced(&write.path, write.ended, call.begun) {
                    complaints.push(format!("line {line} was {what} before the fdatasync that covers it"));
                }
            }
        }
        complaints
    }

    /// The segments of whose lines some were sent before their directory entry was durable.
    fn segments_before_their_directory(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for request in self.requests() {
            for segment in tokens(&request.bytes).map(|line| &self.written[&line].path) {
                let created = self
                    .calls
                    .iter()
                    .find(|call| {
                        call.name.starts_with("open")
                            && call.path == *segment
                            && call.text.contains("O_CREAT")
                    })
                    .expect("the segment was created");
                if !self.is_synced(segment.parent().unwrap(), created.ended, request.begun) {
                    complaints
                        .push(format!("{} was used before its directory was synced", segment.display()));
                }
            }
        }
        complaints
    }

    /// The batches that were sent before their boundaries were durable in the ledger.
    fn batches_before_their_boundaries(&self) -> Vec<String> {
        let ledger = PathBuf::from("spool/ledger/db");
        let mut complaints = Vec::new();
        for request in self.requests() {
            let (first, last) = positions(&request.bytes);
            // As the ledger's format has them: two little-endian numbers side by side.
            let boundaries = [first.to_le_bytes(), last.to_le_bytes()].concat();
            let durable = self.calls.iter().any(|call| {
                call.name == "pwrite64"
                    && call.path == ledger
                    && memmem::find(&call.bytes, &boundaries).is_some()
                    && self.calls.iter().any(|flush| {
                        flush.name == "sync_file_range" && flush.path == ledger && flush.begun > call.ended
                    })
                    && self.is_synced(&ledger, call.ended, request.begun)
            });
            if !durable {
                complaints.push(format!("batch {first}-{last} was sent before its boundaries were durable"));
            }
        }
        complaints
    }

    /// The directories of the spool whose own entry was not durable before the first request.
    fn directories_before_their_parent(&self) -> Vec<String> {
        let first_request = self.requests().next().expect("a request").begun;
        let made = self.calls.iter().filter(|call| call.name.starts_with("mkdir") && call.worked);
        made.filter(|call| call.begun < first_request && call.path.starts_with("spool"))
            // Created by sled for values larger than the ledger has.
            .filter(|call| !call.path.ends_with("blobs"))
            .filter(|call| !self.is_synced(call.path.parent().unwrap(), call.ended, first_request))
            .map(|call| format!("the parent of {} was not synced", call.path.display()))
            .collect()
    }

    pub(super) fn complaints(&self) -> BTreeMap<&'static str, Vec<String>> {
        let kinds = [
            ("lines", self.lines_before_their_sync()),
            ("segments", self.segments_before_their_directory()),
            ("batches", self.batches_before_their_boundaries()),
            ("directories", self.directories_before_their_parent()),
        ];
        kinds.into_iter().filter(|(_, complaints)| !complaints.is_empty()).collect()
    }
}

/// The positions in the key of a request.
fn positions(request: &[u8]) -> (u64, u64) {
    let head = String::from_utf8_lossy(&request[..request.len().min(2000)]).into_owned();
    let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("a key");
    let mut parts = key.trim_matches('"').split('-').skip(1);
    let mut next = || parts.next().unwrap().parse().unwrap();
    (next(), next())
}

#[test]
fn nothing_is_seen_before_it_is_durable() {
    let test = "nothing_is_seen_before_it_is_durable";
    let Some(calls) = trace(test, "group", &[]) else { return };
    let order = Order::new(&calls);
    assert!(order.requests().count() >= 60);
    let read_back = calls.iter().filter(|call| call.name == "pread64" && is_segment(&call.path));
    assert!(read_back.flat_map(|call| tokens(&call.bytes)).count() as u64 > LINES / 2, "reads do not show");
    assert_eq!(order.complaints(), BTreeMap::new());

    // The same trace without one kind of sync is one in which that is found.
    type Left = fn(&Call) -> bool;
    let kinds: [(&str, Left); 4] = [
        ("lines", |call| is_segment(&call.path)),
        ("segments", |call| call.path == Path::new("spool/segments")),
        ("batches", |call| call.path == Path::new("spool/ledger/db")),
        ("directories", |call| call.path == Path::new("spool")),
    ];
    for (kind, left_out) in kinds {
        let is_sync = |call: &Call| ["fsync", "fdatasync"].contains(&call.name.as_str());
        let without: Vec<Call> =
            calls.iter().filter(|call| !(is_sync(call) && left_out(call))).cloned().collect();
        let complaints = Order::new(&without).complaints();
        assert_eq!(complaints.keys().copied().collect::<Vec<_>>(), [kind], "the check does not bite");
    }
}

/// `sync = "os"` leaves the syncs out, as it says; if the checks did not see that, they would see nothing.
#[test]
fn sync_os_leaves_durability_to_the_system_and_the_check_sees_it() {
    let test = "sync_os_leaves_durability_to_the_system_and_the_check_sees_it";
    let Some(calls) = trace(test, "os", &[]) else { return };
    let complaints = Order::new(&calls).complaints();
    assert_eq!(complaints.keys().copied().collect::<Vec<_>>(), ["batches", "lines", "segments"]);
    assert!(complaints["lines"].len() as u64 >= LINES);
}

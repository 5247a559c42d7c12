//! The spool against a model: files that a tailer reads, a server that stores, and everything that may happen to the
//! spool between them.
//!
//! What must hold, whatever the order of operations: every line is stored or a dead letter; nothing that the server was
//! sent under one number or one key ever changes; each line has one number, in the order of its file; and the accounts
//! balance at every start. Where the spool's bytes were damaged, a line may have a second number, and what is missing at
//! the end is counted as damaged; exactly after one damage, as well as can be told after several. What became of the
//! files' bytes is, where nothing was damaged, what the tailer said of them; and it balances in any case.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::files::SourceBytes;
use super::tests::options;
use super::*;
use crate::aggregate::{self, Aggregator, Limits};
use crate::batch::{BatchId, Payload};
use crate::event::{
    EventBlock, FileIdentity, FileOffset, FrameDraft, FrameSink as _, SkipReason, Skips, SourceName,
    Timestamp, Witness,
};
use crate::payload::Encoder;
use crate::retry::Ready;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The files: which source follows them. Two of one source share its numbers.
const FILES: [&str; 3] = ["app", "app", "web"];

#[derive(Clone, Debug)]
enum Op {
    /// The tailer reads lines of a file, and in front of them something that is not delivered.
    Read {
        file: usize,
        lines: u64,
        skip: Option<(SkipReason, u64)>,
    },
    /// A file is truncated, and what was added to it before is lost.
    Truncate {
        file: usize,
        lost: u64,
    },
    /// Everything committed is cut and sent for the first time.
    Cut,
    /// The server has taken a batch that it was sent.
    Acknowledge(prop::sample::Index),
    /// The server refuses a batch.
    Bisect(prop::sample::Index),
    /// The server refuses an event for good.
    Bury(prop::sample::Index),
    /// A batch is sent again.
    Resend(prop::sample::Index),
    /// A clean end and a start.
    Reopen,
    /// What is on the disk goes on elsewhere, as after a kill.
    Crash,
    DropLedger,
    SaveLedger,
    PutBackLedger,
    Tear(u64),
    /// A bit of a byte of a segment; both are counted from the newest and the last.
    Flip {
        segment: usize,
        byte: usize,
        bit: u8,
    },
}

fn ops(faults: BoxedStrategy<Op>) -> impl Strategy<Value = Vec<Op>> {
    let any = any::<prop::sample::Index>;
    let usual = prop_oneof![
        8 => (0..FILES.len(), 1..12_u64, skip()).prop_map(|(file, lines, skip)| Op::Read { file, lines, skip }),
        1 => (0..FILES.len(), 0..30_u64).prop_map(|(file, lost)| Op::Truncate { file, lost }),
        5 => Just(Op::Cut),
        6 => any().prop_map(Op::Acknowledge),
        2 => any().prop_map(Op::Bisect),
        1 => any().prop_map(Op::Bury),
        2 => any().prop_map(Op::Resend),
        1 => Just(Op::Reopen),
        2 => Just(Op::Crash),
    ];
    prop::collection::vec(prop_oneof![12 => usual, 1 => faults], 1..60)
}

fn skip() -> impl Strategy<Value = Option<(SkipReason, u64)>> {
    let reasons = vec![SkipReason::Excluded, SkipReason::Nul, SkipReason::Copy];
    prop::option::of((prop::sample::select(reasons), 1..50_u64))
}

/// A file, and what the tailer said of it.
#[derive(Clone, Debug, Default)]
struct LogFile {
    /// Lines that were ever written to it.
    lines: u64,
    /// Where in its present content the next frame begins.
    offset: u64,
    /// The frames so far. A checkpoint has the number of its frame, from 1, as the hash of its tail.
    frames: Vec<FrameOf>,
}

/// What the tailer said in one frame.
#[derive(Clone, Debug)]
struct FrameOf {
    /// Lines of the file up to here, over all of its contents.
    lines: u64,
    start: u64,
    end: u64,
    skips: Skips,
}

impl LogFile {
    /// Lines that were read.
    fn read(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.lines)
    }

    /// Goes on behind the frame with this number, as after a start.
    fn resume(&mut self, number: usize) {
        self.frames.truncate(number);
        self.offset = self.frames.last().map_or(0, |frame| frame.end);
    }

    /// What became of the bytes of the present content, and adds those of all contents to `source`.
    fn account(&self, source: &mut SourceBytes) -> (u64, Skips) {
        let (mut spooled, mut skips) = (0, Skips::default());
        for frame in &self.frames {
            if frame.start == 0 {
                (spooled, skips) = (0, Skips::default());
            }
            let range = frame.end - frame.start;
            spooled += range - frame.skips.bytes();
            skips.merge(&frame.skips);
            source.read += range;
            source.spooled += range - frame.skips.bytes();
            source.skips.merge(&frame.skips);
        }
        (spooled, skips)
    }

    /// Truncations before which something was lost.
    fn losses(&self) -> usize {
        self.frames.iter().filter(|frame| frame.skips.iter().any(|(reason, _)| reason.is_loss())).count()
    }
}

/// What the server was sent.
#[derive(Debug, Default)]
struct Server {
    /// By spool id, source and sequence number.
    stored: BTreeMap<(String, String, u64), String>,
    /// The body of each key.
    bodies: HashMap<String, bytes::Bytes>,
}

struct Running {
    spool: Spool,
    aggregator: Aggregator,
    ready: mpsc::Receiver<Ready>,
}

struct Rig {
    root: tempfile::TempDir,
    copies: u32,
    running: Option<Running>,
    files: [LogFile; FILES.len()],
    server: Server,
    /// Lines among the dead letters.
    dead: u64,
    /// Position after the last line that was read.
    end: Position,
    /// How often the spool's bytes were damaged.
    damages: u32,
    /// The ledger was lost or an old one put back, so that it does not know what became of some batches.
    forgetful: bool,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            root: tempfile::tempdir().unwrap(),
            copies: 0,
            running: None,
            files: Default::default(),
            server: Server::default(),
            dead: 0,
            end: Position(1),
            damages: 0,
            forgetful: false,
        };
        rig.open();
        rig
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.copies.to_string())
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    fn open(&mut self) {
        let options = SpoolOptions { segment_bytes: 2 << 10, ..options(&self.dir()) };
        let spool = Spool::open(&options).unwrap();
        let mut numbers = [0; FILES.len()];
        for checkpoint in spool.checkpoints() {
            let file = usize::try_from(checkpoint.identity.ino).unwrap();
            numbers[file] = usize::try_from(checkpoint.tail.hash).unwrap();
            assert!(numbers[file] <= self.files[file].frames.len(), "more was read than is there");
        }
        for (file, number) in self.files.iter_mut().zip(numbers) {
            file.resume(number);
        }
        self.end = spool.log.end();
        let (sender, ready) = mpsc::channel(10_000);
        let limits = Limits { events: 7, bytes: 200, interval: Duration::ZERO };
        let aggregator = Aggregator::new(spool.cutter(), limits, sender, RUNTIME.handle().clone());
        self.running = Some(Running { spool, aggregator, ready });
    }

    /// Beside the open spool is known what became of the bytes, as at rest.
    fn check_beside(&self) {
        let known = beside::known_files(&self.dir()).unwrap();
        assert!(known.agent.is_some());
        assert!(known.files.iter().all(FileRecord::is_balanced), "{:#?}", known.files);
        if self.damaged() {
            return;
        }
        assert_eq!(known.files.len(), self.files.iter().filter(|file| !file.frames.is_empty()).count());
        for FileRecord { checkpoint, account } in known.files {
            let file = &self.files[usize::try_from(checkpoint.identity.ino).unwrap()];
            let (spooled, skips) = file.account(&mut SourceBytes::default());
            assert_eq!(checkpoint.tail.hash, file.frames.len() as u64, "{file:?}");
            assert_eq!((account.spooled, account.skips), (spooled, skips), "{file:?}");
        }
    }

    fn close(&mut self) {
        self.check_beside();
        let Running { spool, aggregator, ready } = self.running.take().unwrap();
        drop((aggregator, ready));
        spool.close();
        self.check_accounts();
    }

    fn damaged(&self) -> bool {
        self.damages > 0
    }

    /// Whether it can be told what became of every event. What was damaged is known from what is around it, and that is
    /// only there once.
    fn countable(&self) -> bool {
        self.damages == 0 || self.damages == 1 && !self.forgetful
    }

    fn check_accounts(&self) {
        let report = inspect::report(&self.dir()).unwrap();
        assert!(!self.countable() || report.balanced, "the accounts do not balance: {:#?}", report.sources);
        assert!(report.checkpoints.iter().all(|file| file.balanced), "{:#?}", report.checkpoints);
        assert!(report.sources.iter().all(|source| source.bytes.balanced), "{:#?}", report.sources);
        if !self.damaged() {
            self.check_bytes(&report);
        }
    }

    /// What became of the bytes is what the tailer said.
    fn check_bytes(&self, report: &inspect::Report) {
        let mut sources: BTreeMap<&str, SourceBytes> = BTreeMap::new();
        for (number, file) in self.files.iter().enumerate().filter(|(_, file)| !file.frames.is_empty()) {
            let (spooled, skips) = file.account(sources.entry(FILES[number]).or_default());
            let known = report.checkpoints.iter().find(|known| known.path == path(number)).unwrap();
            let end = file.frames.last().unwrap().end;
            assert_eq!((known.offset, known.spooled), (end, spooled), "file {number}: {file:?}");
            assert_eq!(known.skipped, skips.iter().collect(), "file {number}: {file:?}");
        }
        for source in &report.sources {
            let SourceBytes { read, spooled, skips } = &sources[source.source.as_str()];
            assert_eq!((source.bytes.read, source.bytes.spooled), (*read, *spooled), "{}", source.source);
            assert_eq!(source.bytes.skipped, skips.iter().collect(), "{}", source.source);
        }
        let losses: usize = self.files.iter().map(LogFile::losses).sum();
        assert_eq!((report.losses.count, report.losses.newest.len()), (losses as u64, losses));
    }

    /// The tailer appends a frame: lines, and bytes in front of them that are skipped.
    fn append(&mut self, file: usize, lines: u64, skips: Skips) {
        let log = &mut self.files[file];
        let read = log.read();
        let mut events = EventBlock::default();
        for number in read..read + lines {
            events.push(line(file, number).as_bytes(), number % 5 == 0);
        }
        let (start, end) = (log.offset, log.offset + lines + skips.bytes());
        log.frames.push(FrameOf { lines: read + lines, start, end, skips: skips.clone() });
        let draft = FrameDraft {
            checkpoint: Checkpoint {
                source: SourceName::from(FILES[file]),
                path: PathBuf::from(path(file)),
                identity: FileIdentity { dev: 1, ino: file as u64, birth_ns: 3 },
                head: Witness::of(b"head"),
                tail: Witness { len: 4, hash: log.frames.len() as u64 },
                offset: FileOffset(end),
            },
            start: FileOffset(start),
            detected: Timestamp::from_millis(1_700_000_000_000 + i64::try_from(read).unwrap()),
            events,
            skips,
            before: None,
            forget: false,
        };
        log.offset = end;
        log.lines = log.lines.max(read + lines);
        self.end = self.end.plus(lines);
        self.running().spool.appender().append(draft).unwrap();
    }

    fn read(&mut self, file: usize, lines: u64, skip: Option<(SkipReason, u64)>) {
        let skips = skip.map(|(reason, bytes)| Skips::of(reason, bytes)).unwrap_or_default();
        self.append(file, lines, skips);
        let end = self.end;
        super::tests::committed(&self.running().spool, end.0);
    }

    /// Its new content begins with a line, so that it can be told when all of it is committed.
    fn truncate(&mut self, file: usize, lost: u64) {
        if lost > 0 {
            self.append(file, 0, Skips::of(SkipReason::Truncated, lost));
        }
        self.files[file].offset = 0;
        self.read(file, 1, None);
    }

    fn cut(&mut self) {
        let running = self.running.as_mut().unwrap();
        running.aggregator.catch_up();
        while let Ok(Ready { payload, .. }) = running.ready.try_recv() {
            self.server.take(&payload);
        }
    }

    fn outstanding(&mut self) -> Vec<BatchId> {
        self.running().spool.batches().outstanding()
    }

    fn pick(&mut self, index: prop::sample::Index) -> Option<BatchId> {
        let batches = self.outstanding();
        (!batches.is_empty()).then(|| batches[index.index(batches.len())])
    }

    /// Sends a batch again; none where it was damaged and replaced.
    fn send(&mut self, batch: BatchId) -> Option<Payload> {
        let batches = self.running().spool.batches();
        match batches.read(batch) {
            Ok(read) => {
                let encoder = Encoder::new(&read.profile.1);
                let payload = aggregate::encode(&encoder, batch, read.spool_id, &read.content);
                self.server.take(&payload);
                Some(payload)
            }
            Err(BatchError::Replaced(_)) => {
                assert!(self.damaged() || self.forgetful, "a batch was damaged by nobody");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn acknowledge(&mut self, batch: BatchId) {
        if let Some(payload) = self.send(batch) {
            self.running().spool.batches().acknowledge(batch, payload.sources);
            self.quiet();
        }
    }

    fn bisect(&mut self, batch: BatchId) -> Option<[BatchId; 2]> {
        if batch.events() < 2 {
            return None;
        }
        let halves = self.running().spool.batches().bisect(batch).unwrap();
        Some(halves)
    }

    fn bury(&mut self, mut batch: BatchId) {
        while let Some([first, _]) = self.bisect(batch) {
            batch = first;
        }
        let batches = self.running().spool.batches();
        let there = batches.read(batch).is_ok();
        batches.bury(batch, 422, "no").unwrap();
        self.dead += u64::from(there);
    }

    /// Waits until everything that was said to the keeper is durable, so that a copy is what a kill leaves.
    fn quiet(&mut self) {
        let nothing = BatchId { first: Position(0), last: Position(0), part: None };
        self.running().spool.batches.keeper.replace(nothing, Vec::new(), Counts::new()).unwrap();
    }

    /// Goes on with a copy of what is on the disk.
    fn crash(&mut self) {
        self.quiet();
        self.check_beside();
        let from = self.dir();
        self.copies += 1;
        disk::copy_dir(&from, &self.dir()).unwrap();
        std::fs::remove_file(self.dir().join("lock")).unwrap();
        let Running { spool, aggregator, ready } = self.running.take().unwrap();
        drop((aggregator, ready));
        spool.close();
        std::fs::remove_dir_all(from).unwrap();
        self.check_accounts();
        self.open();
    }

    /// Does something to the spool while nothing runs on it.
    fn between(&mut self, change: impl FnOnce(&mut Self, &Path)) {
        self.close();
        let dir = self.dir();
        change(self, &dir);
        self.check_accounts();
        self.open();
    }

    fn saved_ledger(&self) -> PathBuf {
        self.root.path().join("saved")
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Read { file, lines, skip } => self.read(*file, *lines, *skip),
            Op::Truncate { file, lost } => self.truncate(*file, *lost),
            Op::Cut => self.cut(),
            Op::Acknowledge(index) => drop(self.pick(*index).map(|batch| self.acknowledge(batch))),
            Op::Bisect(index) => drop(self.pick(*index).map(|batch| self.bisect(batch))),
            Op::Bury(index) => drop(self.pick(*index).map(|batch| self.bury(batch))),
            Op::Resend(index) => drop(self.pick(*index).map(|batch| self.send(batch))),
            Op::Reopen => self.between(|_, _| {}),
            Op::Crash => self.crash(),
            Op::DropLedger => self.between(|rig, dir| {
                rig.forgetful = true;
                std::fs::remove_dir_all(dir.join("ledger")).unwrap();
            }),
            Op::SaveLedger => self.between(|rig, dir| {
                let _ = std::fs::remove_dir_all(rig.saved_ledger());
                disk::copy_dir(&dir.join("ledger"), &rig.saved_ledger()).unwrap();
            }),
            Op::PutBackLedger => self.between(|rig, dir| {
                if rig.saved_ledger().exists() {
                    rig.forgetful = true;
                    std::fs::remove_dir_all(dir.join("ledger")).unwrap();
                    disk::copy_dir(&rig.saved_ledger(), &dir.join("ledger")).unwrap();
                }
            }),
            Op::Tear(bytes) => self.between(|rig, dir| {
                rig.damages += 1;
                let Some(path) = segments(dir).pop() else { return };
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len().saturating_sub(*bytes)).unwrap();
            }),
            Op::Flip { segment, byte, bit } => self.between(|rig, dir| {
                rig.damages += 1;
                let segments = segments(dir);
                let Some(path) = segments.iter().rev().nth(*segment % segments.len().max(1)) else { return };
                let mut bytes = std::fs::read(path).unwrap();
                let len = bytes.len();
                if let Some(byte) = bytes.iter_mut().rev().nth(*byte % len.max(1)) {
                    *byte ^= 1 << bit;
                }
                std::fs::write(path, bytes).unwrap();
            }),
        }
    }

    /// Reads and delivers everything, and checks what must hold at the end.
    fn finish(mut self) {
        for file in 0..FILES.len() {
            let left = self.files[file].lines - self.files[file].read();
            if left > 0 {
                self.read(file, left, None);
            }
        }
        self.cut();
        while let Some(batch) = self.outstanding().first().copied() {
            self.acknowledge(batch);
        }
        self.close();
        let report = inspect::report(&self.dir()).unwrap();
        assert_eq!((report.backlog.events, report.batches), (0, 0), "everything was delivered");
        self.check_stored(&report);
    }

    fn check_stored(&self, report: &inspect::Report) {
        let mut last: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        for ((id, _, seq), text) in &self.server.stored {
            *times.entry(text).or_default() += 1;
            let (file, number) = text.split_once(' ').map(|(file, rest)| (file, &rest[..6])).unwrap();
            let number: u64 = number.parse().unwrap();
            if let Some((last_seq, last_number)) = last.insert((id, file), (*seq, number)) {
                assert!(
                    last_number < number || self.damaged(),
                    "line {text} at {seq} after {last_number} at {last_seq}"
                );
            }
        }
        let mut missing = 0;
        for (file, log) in self.files.iter().enumerate() {
            for number in 0..log.lines {
                match times.get(line(file, number).as_str()) {
                    None => missing += 1,
                    Some(1) => {}
                    Some(_) => assert!(self.damaged(), "line {number} of {file} has several numbers"),
                }
            }
        }
        let sum = |count: fn(&inspect::SourceStatus) -> u64| report.sources.iter().map(count).sum::<u64>();
        let damaged = sum(|source| source.damaged);
        assert!(
            !self.countable() || missing <= damaged + self.dead,
            "{missing} lines are missing, {damaged} damaged, {} dead",
            self.dead
        );
        if !self.damaged() {
            let lines: u64 = self.files.iter().map(|file| file.lines).sum();
            assert_eq!(sum(|source| source.spooled), lines);
            assert!(missing <= self.dead);
            if !self.forgetful {
                assert_eq!((damaged, sum(|source| source.dead)), (0, self.dead));
            }
        }
    }
}

impl Server {
    fn take(&mut self, payload: &Payload) {
        let before = self.bodies.insert(payload.key.to_string(), payload.body.clone());
        assert!(before.is_none_or(|before| before == payload.body), "{} names two bodies", payload.key);
        let id = payload.key.split('-').next().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        for (range, source) in payload.sources.iter().zip(body["sources"].as_array().unwrap()) {
            assert_eq!(source["sourceName"], range.source.as_str());
            let logs = source["logs"].as_array().unwrap();
            assert_eq!(logs.len() as u64, range.last.since(range.first) + 1);
            for (number, log) in logs.iter().enumerate() {
                let key = (id.to_owned(), range.source.to_string(), range.first.0 + number as u64);
                let text = log["data"].as_str().unwrap();
                let before = self.stored.insert(key.clone(), text.to_owned());
                assert!(before.is_none_or(|before| before == text), "{key:?} names two lines");
            }
        }
    }
}

fn path(file: usize) -> String {
    format!("/var/log/{file}.log")
}

fn line(file: usize, number: u64) -> String {
    let len = usize::try_from(number * 7 % 40).unwrap();
    format!("{file} {number:06} {}", "x".repeat(len))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments
}

fn run(ops: &[Op]) {
    let mut rig = Rig::new();
    for op in ops {
        rig.apply(op);
    }
    rig.finish();
}

/// Seeded, so that a run can be had again: `LOG_AGENT_TEST_SEED` and `LOG_AGENT_TEST_CASES` ask for other and more.
fn seeded() -> ProptestConfig {
    let asked = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let seed = asked("LOG_AGENT_TEST_SEED", 4711);
    println!("LOG_AGENT_TEST_SEED={seed}");
    ProptestConfig {
        cases: u32::try_from(asked("LOG_AGENT_TEST_CASES", 16)).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn whatever_happens_to_the_ledger_every_line_arrives_under_one_number(
        ops in ops(prop_oneof![
            2 => Just(Op::DropLedger),
            1 => Just(Op::SaveLedger),
            1 => Just(Op::PutBackLedger),
        ].boxed())
    ) {
        run(&ops);
    }

    #[test]
    fn whatever_bytes_are_damaged_every_line_arrives_or_is_counted(
        ops in ops(prop_oneof![
            1 => Just(Op::DropLedger),
            2 => (0..3000_u64).prop_map(Op::Tear),
            3 => (0..5_usize, 0..3000_usize, 0..8_u8).prop_map(|(segment, byte, bit)| Op::Flip { segment, byte, bit }),
        ].boxed())
    ) {
        run(&ops);
    }
}
/// What was found by the tests above, for good.
#[test]
fn a_segment_that_lost_its_header_keeps_its_id_when_the_spool_takes_a_new_one() {
    let flip = |segment, byte| Op::Flip { segment, byte, bit: 0 };
    let read = |lines| Op::Read { file: 0, lines, skip: None };
    run(&[read(3), Op::Tear(206), read(8), read(2), flip(0, 993), flip(0, 625), flip(1, 212), read(1)]);
}

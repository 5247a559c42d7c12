//! The tailer, the server and the spool of the model, what each of them did, and what must hold of it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::prop;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::aggregate::{self, Aggregator, Limits};
use crate::batch::{BatchId, Payload};
use crate::event::{
    EventBlock, FileIdentity, FileOffset, FrameDraft, FrameSink as _, SkipReason, Skips, SourceName,
    Timestamp, Witness,
};
use crate::payload::Encoder;
use crate::retry::Ready;
use crate::spool::files::SourceBytes;
use crate::spool::storage::sim::Sim;
use crate::spool::tests::options;
use crate::spool::*;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The files: which source follows them. Two of one source share its numbers.
pub(in crate::spool) const FILES: [&str; 3] = ["app", "app", "web"];

/// A file, and what the tailer said of it.
#[derive(Clone, Debug, Default)]
pub(in crate::spool) struct LogFile {
    /// Lines that were ever written to it.
    lines: u64,
    /// Where in its present content the next frame begins.
    offset: u64,
    /// The frames so far. A checkpoint has the number of its frame, from 1, as the hash of its tail.
    pub frames: Vec<FrameOf>,
}

/// What the tailer said in one frame.
#[derive(Clone, Debug)]
pub(in crate::spool) struct FrameOf {
    /// Lines of the file up to here, over all of its contents.
    lines: u64,
    start: u64,
    end: u64,
    skips: Skips,
}

impl LogFile {
    /// Lines that were read.
    pub(in crate::spool) fn read(&self) -> u64 {
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
#[derive(Clone, Debug, Default)]
pub(in crate::spool) struct Server {
    /// By spool id, source and sequence number.
    stored: BTreeMap<(String, String, u64), String>,
    /// The body of each key.
    bodies: HashMap<String, bytes::Bytes>,
}

pub(in crate::spool) struct Running {
    pub spool: Spool,
    aggregator: Aggregator,
    ready: mpsc::Receiver<Ready>,
}

pub(in crate::spool) struct Rig {
    pub root: tempfile::TempDir,
    pub copies: u32,
    running: Option<Running>,
    pub files: [LogFile; FILES.len()],
    pub server: Server,
    /// Lines among the dead letters.
    pub dead: u64,
    /// Of those, the ones that are known to be settled.
    pub settled: u64,
    /// Position after the last line that was read.
    end: Position,
    /// How often the spool's bytes were damaged.
    pub damages: u32,
    /// The ledger was lost or an old one put back, so that it does not know what became of some batches.
    pub forgetful: bool,
    pub limits: Sizes,
    /// The disk below the spool, where it is a simulated one, and what was promised on it.
    pub sim: Option<Arc<Sim>>,
    pub promises: Vec<Promise>,
}

/// At which sizes something new begins.
#[derive(Clone, Copy)]
pub(in crate::spool) struct Sizes {
    pub segment_bytes: u64,
    pub batch_events: u32,
}

/// What was known outside of the spool once a disk had done so many steps.
#[derive(Clone)]
pub(in crate::spool) struct Promise {
    pub steps: usize,
    pub files: [LogFile; FILES.len()],
    pub server: Server,
    pub dead: u64,
}

impl Rig {
    pub(in crate::spool) fn new() -> Self {
        let mut rig = Self::closed(tempfile::tempdir().unwrap());
        rig.open();
        rig
    }

    /// One on whose spool nothing runs yet.
    pub(in crate::spool) fn closed(root: tempfile::TempDir) -> Self {
        Self {
            root,
            copies: 0,
            running: None,
            files: Default::default(),
            server: Server::default(),
            dead: 0,
            settled: 0,
            end: Position(1),
            damages: 0,
            forgetful: false,
            limits: Sizes { segment_bytes: 2 << 10, batch_events: 7 },
            sim: None,
            promises: Vec::new(),
        }
    }

    /// Notes what is known now.
    fn promise(&mut self) {
        if let Some(sim) = &self.sim {
            let steps = sim.steps();
            let (files, server, dead) = (self.files.clone(), self.server.clone(), self.dead);
            self.promises.push(Promise { steps, files, server, dead });
        }
    }

    pub(in crate::spool) fn dir(&self) -> PathBuf {
        self.root.path().join(self.copies.to_string())
    }

    pub(in crate::spool) fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    pub(in crate::spool) fn open(&mut self) {
        let dir = self.dir();
        let options = SpoolOptions { segment_bytes: self.limits.segment_bytes, ..options(&dir) };
        let disk = match &self.sim {
            Some(sim) => Disk::on(sim.clone(), &dir),
            None => Disk::new(&dir),
        };
        // Where the disk refuses an agent does not start, and is started again.
        let mut failures = self.sim.as_ref().map_or(0, |sim| sim.failures_left());
        let spool = loop {
            match Spool::open_on(disk.clone(), &options) {
                Err(_) if failures > 0 => failures = self.sim.as_ref().unwrap().failures_left(),
                opened => break opened.unwrap(),
            }
        };
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
        let limits = Limits { events: self.limits.batch_events, bytes: 200, interval: Duration::ZERO };
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

    pub(in crate::spool) fn close(&mut self) {
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
    pub(in crate::spool) fn append(&mut self, file: usize, lines: u64, skips: Skips) {
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

    pub(in crate::spool) fn read(&mut self, file: usize, lines: u64, skip: Option<(SkipReason, u64)>) {
        let skips = skip.map(|(reason, bytes)| Skips::of(reason, bytes)).unwrap_or_default();
        self.append(file, lines, skips);
        let end = self.end;
        crate::spool::tests::committed(&self.running().spool, end.0);
        self.promise();
    }

    /// Its new content begins with a line, so that it can be told when all of it is committed.
    pub(in crate::spool) fn truncate(&mut self, file: usize, lost: u64) {
        if lost > 0 {
            self.append(file, 0, Skips::of(SkipReason::Truncated, lost));
        }
        self.files[file].offset = 0;
        self.read(file, 1, None);
    }

    pub(in crate::spool) fn cut(&mut self) {
        self.running().aggregator.catch_up();
        while let Ok(Ready { payload, .. }) = self.running().ready.try_recv() {
            self.server.take(&payload);
            self.promise();
        }
    }

    pub(in crate::spool) fn outstanding(&mut self) -> Vec<BatchId> {
        self.running().spool.batches().outstanding()
    }

    pub(in crate::spool) fn pick(&mut self, index: prop::sample::Index) -> Option<BatchId> {
        let batches = self.outstanding();
        (!batches.is_empty()).then(|| batches[index.index(batches.len())])
    }

    /// Sends a batch again; none where it was damaged and replaced.
    pub(in crate::spool) fn send(&mut self, batch: BatchId) -> Option<Payload> {
        let batches = self.running().spool.batches();
        match batches.read(batch) {
            Ok(read) => {
                let encoder = Encoder::new(&read.profile.1);
                let payload = aggregate::encode(&encoder, batch, read.spool_id, &read.content);
                self.server.take(&payload);
                self.promise();
                Some(payload)
            }
            Err(BatchError::Replaced(_)) => {
                assert!(self.damaged() || self.forgetful, "a batch was damaged by nobody");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(in crate::spool) fn acknowledge(&mut self, batch: BatchId) {
        if let Some(payload) = self.send(batch) {
            self.running().spool.batches().acknowledge(batch, payload.sources);
            self.quiet();
        }
    }

    pub(in crate::spool) fn bisect(&mut self, batch: BatchId) -> Option<[BatchId; 2]> {
        if batch.events() < 2 {
            return None;
        }
        let halves = self.running().spool.batches().bisect(batch).unwrap();
        Some(halves)
    }

    pub(in crate::spool) fn bury(&mut self, mut batch: BatchId) {
        while let Some([first, _]) = self.bisect(batch) {
            batch = first;
        }
        let batches = self.running().spool.batches();
        let there = batches.read(batch).is_ok();
        batches.bury(batch, 422, "no").unwrap();
        self.dead += u64::from(there);
        self.settled += u64::from(there);
        self.promise();
    }

    /// Waits until everything that was said to the keeper is durable, so that a copy is what a kill leaves.
    pub(in crate::spool) fn quiet(&mut self) {
        let nothing = BatchId { first: Position(0), last: Position(0), part: None };
        self.running().spool.batches.keeper.replace(nothing, Vec::new(), Counts::new()).unwrap();
    }

    /// Goes on with a copy of what is on the disk.
    pub(in crate::spool) fn crash(&mut self) {
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
    pub(in crate::spool) fn between(&mut self, change: impl FnOnce(&mut Self, &Path)) {
        self.close();
        let dir = self.dir();
        change(self, &dir);
        self.check_accounts();
        self.open();
    }

    /// Reads and delivers everything, and checks what must hold at the end.
    pub(in crate::spool) fn finish(self) {
        self.finish_and(|_| {});
    }

    /// As [`Rig::finish`], and has a last look at the spool.
    pub(in crate::spool) fn finish_and(mut self, look: impl FnOnce(&Path)) {
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
        look(&self.dir());
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
                let dead = sum(|source| source.dead);
                assert_eq!(damaged, 0);
                assert!(
                    (self.settled..=self.dead).contains(&dead),
                    "{dead} dead of {} to {}",
                    self.settled,
                    self.dead
                );
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

pub(in crate::spool) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments
}

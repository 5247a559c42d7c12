//! A small spool with everything in it that a spool can have, and what is known of each of its bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::batch::BatchId;
use crate::event::{
    Checkpoint, EventIter, FileOffset, FrameDraft, FrameSink as _, Position, SegmentId, SkipReason,
    SourceName,
};
use crate::spool::frame::{FrameHeader, FrameKind};
use crate::spool::ledger::Books;
use crate::spool::reader::{self, Step};
use crate::spool::tests::{acknowledge, committed, cut, draft, options, wait_for};
use crate::spool::{BatchError, Counts, Disk, Spool, SpoolOptions, dead_letter, disk, segment};

/// Bytes of a file of the spool that belong together.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub segment: SegmentId,
    pub from: u64,
    /// Where the payload begins.
    pub payload: u64,
    pub end: u64,
    pub header: FrameHeader,
}

/// What is to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Settled,
    Outstanding,
}

/// An event of the fixture.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub position: Position,
    pub source: String,
    pub seq: u64,
    pub line: Vec<u8>,
    pub state: State,
}

/// An event as delivery would see it.
pub(super) type Read = BTreeMap<(String, u64), Vec<u8>>;

/// Two segments, of which one is sealed: batches acknowledged, in flight and bisected, a dead letter, skipped bytes, and
/// events that are not cut into batches yet.
pub(super) struct Fixture {
    root: tempfile::TempDir,
    pub frames: Vec<Placed>,
    pub events: Vec<Event>,
    /// Every event before it is settled, says the newest segment.
    pub frontier: Position,
    pub cursor: Position,
    pub newest: SegmentId,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(&Self::options(root.path())).unwrap();
        let mut end = 1;
        let mut append = |source: &str, from: u64, count: u64, skipped: u64| {
            let lines: Vec<_> = (from..from + count).map(|n| format!("{source} line {n:03}")).collect();
            let draft = draft(source, from * 13, &lines);
            let offset = FileOffset(draft.checkpoint.offset.0 + skipped);
            let skips = if skipped > 0 {
                crate::event::Skips::of(SkipReason::Excluded, skipped)
            } else {
                crate::event::Skips::default()
            };
            let checkpoint = Checkpoint { offset, ..draft.checkpoint.clone() };
            spool.appender().append(FrameDraft { checkpoint, skips, ..draft }).unwrap();
            end += count;
            committed(&spool, end);
        };
        append("app", 0, 5, 0);
        append("web", 0, 4, 0);
        append("app", 5, 3, 13);
        let batches = cut(&spool, &[(1, 5), (6, 9), (10, 11), (12, 12)]);
        acknowledge(&spool, batches[0]);
        let [half, _] = spool.batches().bisect(batches[1]).unwrap();
        acknowledge(&spool, half);
        spool.batches().bury(batches[3], 422, "no such line").unwrap();
        settled(&spool, "web", 2);
        append("db", 0, 2, 0);
        append("app", 9, 2, 0);
        append("web", 4, 2, 0);
        cut(&spool, &[(13, 14), (15, 16)]);
        append("app", 11, 1, 0);
        append("db", 2, 1, 0);
        spool.close();
        let disk = Disk::new(root.path());
        let frames = frames(&disk);
        let newest = frames.last().unwrap().segment;
        assert_eq!((frames[0].segment, newest), (SegmentId(1), SegmentId(2)), "two segments are wanted");
        let settled = |position: Position| matches!(position.0, 1..=7 | 12);
        let events = events(&disk, &frames, settled);
        let file = Disk::open(&disk.segment(newest)).unwrap();
        let snapshot = reader::snapshot(&file, newest, u64::MAX).unwrap().unwrap();
        assert_eq!(
            snapshot.frontier,
            Position(6),
            "the newest segment knows what was acknowledged before it"
        );
        Self { root, frames, events, frontier: snapshot.frontier, cursor: Position(17), newest }
    }

    pub(super) fn options(dir: &Path) -> SpoolOptions {
        SpoolOptions { segment_bytes: 700, ..options(dir) }
    }

    pub(super) fn dir(&self) -> &Path {
        self.root.path()
    }

    /// A copy in which the bytes of `file`, a path in the spool, are XORed with `mask` at `at`.
    pub(super) fn flipped(&self, file: &Path, at: usize, mask: u8) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        disk::copy_dir(self.dir(), copy.path()).unwrap();
        let path = copy.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= mask;
        std::fs::write(&path, bytes).unwrap();
        copy
    }

    /// The files below `dir`, a directory of the spool.
    pub(super) fn files(&self, dir: &str) -> Vec<PathBuf> {
        let mut names = Disk::list(&self.dir().join(dir)).unwrap();
        names.sort();
        let paths = names.into_iter().map(|name| Path::new(dir).join(name));
        paths.filter(|path| self.dir().join(path).is_file()).collect()
    }

    pub(super) fn outstanding(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.state == State::Outstanding)
    }

    /// How far each file was read by the frames of which `says` is true.
    pub(super) fn offsets(&self, says: impl Fn(&Placed) -> bool) -> BTreeMap<String, u64> {
        let mut offsets = BTreeMap::new();
        for frame in self.frames.iter().filter(|frame| says(frame)) {
            if frame.header.kind == FrameKind::Events {
                let checkpoint = &frame.header.checkpoint;
                offsets.insert(checkpoint.source.to_string(), checkpoint.offset.0);
            }
        }
        offsets
    }
}

fn settled(spool: &Spool, source: &str, acknowledged: u64) {
    wait_for("the acknowledgement to be durable", || {
        let view = spool.batches.shared.view();
        view.sources.get(&SourceName::from(source)).is_some_and(|r| r.account.acknowledged == acknowledged)
    });
}

/// Every frame of every segment.
fn frames(disk: &Disk) -> Vec<Placed> {
    let mut frames = Vec::new();
    let mut names = Disk::list(&disk.segments()).unwrap();
    names.sort();
    for id in names.iter().map(|name| segment::parse_file_name(name).unwrap()) {
        let file = Disk::open(&disk.segment(id)).unwrap();
        let len = file.metadata().unwrap().len();
        let mut from = segment::HEADER_LEN as u64;
        while from < len {
            let (header, header_len) = reader::header_at(&file, id, from, len).unwrap().unwrap();
            let payload = from + header_len as u64;
            let end = payload + u64::from(header.payload_len);
            frames.push(Placed { segment: id, from, payload, end, header });
            from = end;
        }
    }
    frames
}

fn events(disk: &Disk, frames: &[Placed], settled: impl Fn(Position) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    for frame in frames.iter().filter(|frame| frame.header.kind == FrameKind::Events) {
        let bytes = std::fs::read(disk.segment(frame.segment)).unwrap();
        let payload = &bytes[super::span(frame.payload, frame.end)];
        for (number, event) in EventIter::new(payload).enumerate() {
            let position = frame.header.first_position.plus(number as u64);
            events.push(Event {
                position,
                source: frame.header.checkpoint.source.to_string(),
                seq: frame.header.first_seq.0 + number as u64,
                line: event.line.to_vec(),
                state: if settled(position) { State::Settled } else { State::Outstanding },
            });
        }
    }
    events
}

/// What delivery reads: the outstanding batches, and what the aggregator finds behind the cursor.
pub(super) fn read(spool: &Spool) -> Read {
    let mut all = Read::new();
    let mut queue = spool.batches().outstanding();
    queue.reverse();
    while let Some(batch) = queue.pop() {
        match spool.batches().read(batch) {
            Ok(there) => take_batch(&mut all, batch, &there.content),
            Err(BatchError::Replaced(by)) => queue.extend(by.into_iter().rev()),
            Err(error) => panic!("{error}"),
        }
    }
    let mut cutter = spool.cutter();
    loop {
        match cutter.reader.step().unwrap() {
            Step::Frame(frame) => {
                let skip = usize::try_from(spool.cursor().since(frame.header.first_position)).unwrap();
                for (number, event) in EventIter::new(&frame.payload).enumerate().skip(skip) {
                    let seq = frame.header.first_seq.0 + number as u64;
                    let source = frame.header.checkpoint.source.to_string();
                    let twice = all.insert((source, seq), event.line.to_vec());
                    assert_eq!(twice, None, "seq {seq} is in a batch and behind the cursor");
                }
            }
            Step::Missing(missing) => {
                let owners: Counts = cutter.owners(missing.first, missing.end);
                assert!(owners.values().sum::<u64>() <= missing.end.since(missing.first));
            }
            Step::CaughtUp => return all,
        }
    }
}

fn take_batch(all: &mut Read, batch: BatchId, content: &crate::batch::BatchContent) {
    for run in &content.sources {
        let events = run.slices.iter().flat_map(|slice| slice.events().map(|event| event.line.to_vec()));
        for (number, line) in events.enumerate() {
            let seq = run.first_seq.0 + number as u64;
            let twice = all.insert((run.source.to_string(), seq), line);
            assert_eq!(twice, None, "seq {seq} is in {batch} and in another batch");
        }
    }
}

/// The dead letters that can be read, by position.
pub(super) fn letters(dir: &Path) -> BTreeMap<Position, Vec<u8>> {
    let letters = dead_letter::read_all(&Disk::new(dir)).unwrap();
    letters.into_iter().map(|(position, letter)| (position, letter.line)).collect()
}

/// What the ledger holds.
pub(super) fn books(dir: &Path) -> Option<Books> {
    use crate::spool::ledger::Ledger;
    let copy = tempfile::tempdir().unwrap();
    disk::copy_dir(&dir.join("ledger"), copy.path()).unwrap();
    Ledger::open(&Disk::new(dir), copy.path(), crate::config::SyncMode::Os).ok()?.read().ok()?
}

//! Damage to a spool that nobody has open: what is intact is read, what is not is stepped over, counted and kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::tests::{acknowledge, append, committed, cut, draft, lines, numbered, options, places};
use super::*;
use crate::batch::BatchId;
use crate::event::{FileOffset, FrameDraft, FrameSink as _, SegmentId, SkipReason, SourceName};

/// A spool with two sources and several frames, of which the first twelve events are cut into three batches.
struct Small {
    root: tempfile::TempDir,
    batches: Vec<BatchId>,
    id: SpoolId,
}

impl Small {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(root.path())).unwrap();
        let id = spool.id();
        let mut end = 1;
        for (source, from, count) in [("app", 0, 5), ("web", 0, 4), ("app", 5, 3), ("web", 4, 2)] {
            append(&spool, source, from, count);
            end += count;
            committed(&spool, end);
        }
        let batches = cut(&spool, &[(1, 5), (6, 9), (10, 12)]);
        spool.close();
        Self { root, batches, id }
    }

    fn dir(&self) -> &Path {
        self.root.path()
    }

    fn segment(&self) -> PathBuf {
        Disk::new(self.dir()).segment(SegmentId(1))
    }

    /// A copy to be damaged.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        disk::copy_dir(self.dir(), copy.path()).unwrap();
        copy
    }
}

/// Everything that can be read, by source in order; and events counted as damaged.
fn everything(spool: &Spool) -> (BTreeMap<String, Vec<String>>, u64) {
    let mut read: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    let mut queue = spool.batches().outstanding();
    queue.reverse();
    while let Some(batch) = queue.pop() {
        match spool.batches().read(batch) {
            Ok(there) => {
                for run in &there.content.sources {
                    let lines = run.slices.iter().flat_map(|slice| slice.events().map(|e| e.line.to_vec()));
                    for (number, line) in lines.enumerate() {
                        let line = String::from_utf8(line).unwrap();
                        read.entry(run.source.to_string())
                            .or_default()
                            .push((run.first_seq.0 + number as u64, line));
                    }
                }
            }
            Err(BatchError::Replaced(by)) => queue.extend(by.into_iter().rev()),
            Err(error) => panic!("{error}"),
        }
    }
    let mut lost = 0;
    let mut cutter = spool.cutter();
    loop {
        match cutter.reader.step().unwrap() {
            Step::Frame(frame) => {
                let skip = cutter_skip(spool, &frame);
                let lines = crate::event::EventIter::new(&frame.payload).skip(skip);
                for (number, event) in lines.enumerate() {
                    let line = String::from_utf8(event.line.to_vec()).unwrap();
                    let seq = frame.header.first_seq.0 + (skip + number) as u64;
                    read.entry(frame.header.checkpoint.source.to_string()).or_default().push((seq, line));
                }
            }
            Step::Missing(missing) => lost += cutter.owners(missing.first, missing.end).values().sum::<u64>(),
            Step::CaughtUp => break,
        }
    }
    lost += spool.batches.shared.view().sources.values().map(|record| record.account.damaged).sum::<u64>();
    let in_order = |(source, mut lines): (String, Vec<(u64, String)>)| {
        lines.sort();
        lines.dedup();
        (source, lines.into_iter().map(|(_, line)| line).collect())
    };
    (read.into_iter().map(in_order).collect(), lost)
}

fn cutter_skip(spool: &Spool, frame: &Frame) -> usize {
    usize::try_from(spool.cursor().since(frame.header.first_position)).unwrap()
}

fn all_lines() -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([("app".to_owned(), numbered(0, 8)), ("web".to_owned(), numbered(0, 6))])
}

/// Opens a damaged spool; every line is read, counted as damaged, or is to be read again from its file.
fn check(dir: &Path) -> Spool {
    let spool = Spool::open(&options(dir)).unwrap();
    let (read, lost) = everything(&spool);
    let mut missing = 0;
    for (source, expected) in all_lines() {
        let there = read.get(&source).cloned().unwrap_or_default();
        let offset = spool
            .checkpoints()
            .iter()
            .find(|checkpoint| checkpoint.source.as_str() == source)
            .map_or(0, |checkpoint| checkpoint.offset.0);
        let again = usize::try_from(offset / 12).unwrap();
        assert!(there.iter().all(|line| expected.contains(line)), "{there:?} was never written");
        assert!(there.is_sorted(), "{there:?} is out of order");
        missing += expected.iter().take(again).filter(|line| !there.contains(line)).count() as u64;
    }
    assert!(
        missing <= lost,
        "{missing} lines are neither there nor read again, and {lost} are counted as damaged"
    );
    spool
}

#[test]
fn a_tail_torn_at_any_length_costs_what_was_behind_it() {
    let small = Small::new();
    let bytes = std::fs::read(small.segment()).unwrap();
    for len in places(bytes.len(), 16) {
        let copy = small.copy();
        std::fs::write(Disk::new(copy.path()).segment(SegmentId(1)), &bytes[..len]).unwrap();
        check(copy.path()).close();
    }
    for len in places(bytes.len(), 16) {
        let copy = small.copy();
        let mut zeroed = bytes.clone();
        zeroed[len..].fill(0);
        std::fs::write(Disk::new(copy.path()).segment(SegmentId(1)), zeroed).unwrap();
        check(copy.path()).close();
    }
}

#[test]
fn what_follows_the_last_frame_is_cut_and_kept() {
    let small = Small::new();
    let mut bytes = std::fs::read(small.segment()).unwrap();
    let len = bytes.len();
    bytes.extend_from_slice(b"LAFR and no frame");
    std::fs::write(small.segment(), &bytes).unwrap();
    let spool = check(small.dir());
    assert_eq!(everything(&spool), (all_lines(), 0));
    spool.close();
    assert_eq!(std::fs::metadata(small.segment()).unwrap().len(), len as u64);
    let kept = small.dir().join(format!("quarantine/00000000000000000001.seg.{len}-{}", len + 17));
    assert_eq!(std::fs::read(kept).unwrap(), b"LAFR and no frame");
}

#[test]
fn a_newer_segment_is_refused_and_nothing_is_touched() {
    let small = Small::new();
    let path = Disk::new(small.dir()).segment(SegmentId(2));
    let mut bytes = Vec::new();
    segment::SegmentHeader {
        segment: SegmentId(2),
        first_position: Position(15),
        lineage: small.id,
        spool_id: small.id,
        created: crate::event::Timestamp::from_millis(0),
        unsynced: false,
    }
    .encode(&mut bytes);
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    // A tear in an older segment is not mended either.
    let torn = &std::fs::read(small.segment()).unwrap()[..200];
    std::fs::write(small.segment(), torn).unwrap();
    let error = Spool::open(&options(small.dir())).unwrap_err();
    assert!(matches!(&error, SpoolError::Newer { version: 2, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(std::fs::read(small.segment()).unwrap(), torn);
}

#[test]
fn segments_that_are_not_ours_are_set_aside() {
    let (small, other) = (Small::new(), Small::new());
    let segments = Disk::new(small.dir()).segments();
    // Of another spool; a copy under another name; a name without content; no segment at all.
    std::fs::copy(other.segment(), segments.join(segment::file_name(SegmentId(7)))).unwrap();
    let mut foreign = std::fs::read(segments.join(segment::file_name(SegmentId(7)))).unwrap();
    foreign[16] = 7;
    let crc = crc32fast::hash(&foreign[..segment::HEADER_LEN - 4]);
    foreign[segment::HEADER_LEN - 4..segment::HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(segments.join(segment::file_name(SegmentId(7))), foreign).unwrap();
    std::fs::copy(small.segment(), segments.join(segment::file_name(SegmentId(u64::MAX)))).unwrap();
    std::fs::write(segments.join(segment::file_name(SegmentId(9))), b"").unwrap();
    std::fs::write(segments.join("notes.txt"), b"mine").unwrap();
    for ledger in [true, false] {
        let copy = small.copy();
        if !ledger {
            std::fs::remove_dir_all(copy.path().join("ledger")).unwrap();
            // The two lineages have one segment each, so that the older one's number decides nothing.
            std::fs::remove_file(copy.path().join("segments").join(segment::file_name(SegmentId(7))))
                .unwrap();
        }
        let spool = check(copy.path());
        assert_eq!(everything(&spool), (all_lines(), 0));
        append(&spool, "app", 8, 1);
        committed(&spool, 16);
        spool.close();
        let left = Disk::list(&copy.path().join("segments")).unwrap();
        assert!(left.iter().any(|name| name == "notes.txt"));
        assert!(left.len() <= 4, "{left:?}");
        let aside = Disk::list(&copy.path().join("quarantine")).unwrap();
        assert_eq!(aside.len(), if ledger { 2 } else { 1 }, "{aside:?}");
    }
}

#[test]
fn a_segment_that_a_power_cut_brings_back_is_deleted_again() {
    let small = Small::new();
    let saved = std::fs::read(small.segment()).unwrap();
    let spool = Spool::open(&options(small.dir())).unwrap();
    append(&spool, "app", 8, 1);
    committed(&spool, 16);
    for batch in &small.batches {
        acknowledge(&spool, *batch);
    }
    let rest = cut(&spool, &[(13, 14), (15, 15)]);
    acknowledge(&spool, rest[0]);
    super::tests::wait_for("the segment to be deleted", || !small.segment().exists());
    spool.close();
    std::fs::write(small.segment(), saved).unwrap();
    let spool = Spool::open(&options(small.dir())).unwrap();
    assert!(!small.segment().exists());
    assert_eq!(spool.batches().outstanding(), [rest[1]]);
    assert_eq!(lines(&spool, rest[1]), numbered(8, 1));
    spool.close();
}

#[test]
fn a_missing_segment_is_counted_and_the_rest_is_read() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&SpoolOptions { segment_bytes: 1, ..options(root.path()) }).unwrap();
    for step in 0..4 {
        append(&spool, "app", step * 5, 5);
        committed(&spool, step * 5 + 6);
    }
    let id = spool.id();
    let batch = cut(&spool, &[(1, 8)])[0];
    spool.close();
    std::fs::remove_file(Disk::new(root.path()).segment(SegmentId(2))).unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    assert_eq!(spool.id(), id);
    let Err(BatchError::Replaced(by)) = spool.batches().read(batch) else { panic!("it is not whole") };
    assert_eq!(by.len(), 1);
    assert_eq!(lines(&spool, by[0]), numbered(0, 5));
    let account = spool.batches.shared.view().sources[&SourceName::from("app")].account;
    assert_eq!(account.damaged, 3);
    let (read, lost) = everything(&spool);
    assert_eq!(read["app"], [numbered(0, 5), numbered(10, 10)].concat());
    assert_eq!(lost, 5);
    spool.close();
    assert!(inspect::report(root.path()).unwrap().balanced);
}

#[test]
fn a_first_block_of_zeros_costs_the_frames_that_were_in_it() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    for step in 0..20 {
        append(&spool, "app", step * 20, 20);
        committed(&spool, step * 20 + 21);
    }
    cut(&spool, &[(1, 400)]);
    spool.close();
    let path = Disk::new(root.path()).segment(SegmentId(1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..512].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    let (read, lost) = everything(&spool);
    assert_eq!(read["app"], numbered(20, 380));
    assert_eq!(lost, 20);
    spool.close();
}

#[test]
fn whatever_becomes_of_the_ledger_the_spool_opens_and_resends() {
    let small = Small::new();
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("missing", |ledger| std::fs::remove_dir_all(ledger).unwrap()),
        ("empty", |ledger| {
            std::fs::remove_dir_all(ledger).unwrap();
            std::fs::create_dir(ledger).unwrap();
        }),
        ("conf zeroed", |ledger| zero(&ledger.join("conf"))),
        ("db zeroed", |ledger| zero(&ledger.join("db"))),
        ("db torn", |ledger| {
            let file = std::fs::File::options().write(true).open(ledger.join("db")).unwrap();
            file.set_len(200).unwrap();
        }),
        ("db and snapshots gone", |ledger| {
            for name in Disk::list(ledger).unwrap() {
                if name != "conf" && ledger.join(&name).is_file() {
                    std::fs::remove_file(ledger.join(name)).unwrap();
                }
            }
        }),
        ("snapshots torn", |ledger| {
            for name in Disk::list(ledger).unwrap() {
                if name.to_string_lossy().starts_with("snap") {
                    std::fs::write(ledger.join(name), b"torn").unwrap();
                }
            }
        }),
    ];
    for (what, harm) in harms {
        let copy = small.copy();
        harm(&copy.path().join("ledger"));
        let spool = check(copy.path());
        assert_eq!(everything(&spool), (all_lines(), 0), "{what}");
        assert_eq!(spool.id(), small.id, "{what}");
        append(&spool, "app", 8, 1);
        committed(&spool, 16);
        spool.close();
        let report = inspect::report(copy.path()).unwrap();
        assert!(report.balanced, "{what}");
        assert_eq!(report.backlog.events, 15, "{what}");
    }
}

/// What a database does by itself that takes a damaged place for the end of its log.
#[test]
fn a_ledger_that_has_lost_its_last_commits_is_set_aside() {
    let small = Small::new();
    let before = small.copy();
    let spool = Spool::open(&options(small.dir())).unwrap();
    // The last two are not cut before.
    cut(&spool, &[(13, 14)]);
    spool.close();
    let ledger = small.dir().join("ledger");
    for name in Disk::list(&ledger).unwrap().into_iter().filter(|name| name != "commits") {
        if ledger.join(&name).is_file() {
            std::fs::remove_file(ledger.join(name)).unwrap();
        }
    }
    for name in Disk::list(&before.path().join("ledger")).unwrap() {
        let from = before.path().join("ledger").join(&name);
        if name != "commits" && from.is_file() {
            std::fs::copy(from, ledger.join(name)).unwrap();
        }
    }
    let verified = tools::verify(small.dir(), &|_, _| {}).unwrap();
    let found: Vec<_> = verified.findings.iter().map(ToString::to_string).collect();
    assert!(found[0].contains("the end of its log is damaged"), "{found:?}");
    let spool = check(small.dir());
    assert_eq!(everything(&spool), (all_lines(), 0));
    spool.close();
    assert!(small.dir().join("quarantine/ledger").is_dir());
    assert!(inspect::report(small.dir()).unwrap().balanced);
}

fn zero(path: &Path) {
    let len = std::fs::metadata(path).unwrap().len();
    std::fs::write(path, vec![0; usize::try_from(len).unwrap()]).unwrap();
}

#[test]
fn where_no_snapshot_can_be_read_the_mark_knows_what_became_of_the_bytes() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 0, 5);
    // What is in a later group is not cut with the snapshot.
    committed(&spool, 6);
    let skips = crate::event::Skips::of(SkipReason::Truncated, 40);
    let lost = FrameDraft { skips, ..draft("app", 60, &[]) };
    let checkpoint = Checkpoint { offset: FileOffset(100), ..lost.checkpoint.clone() };
    spool.appender().append(FrameDraft { checkpoint, ..lost }).unwrap();
    append(&spool, "web", 0, 4);
    committed(&spool, 10);
    spool.close();
    let before = inspect::report(root.path()).unwrap();
    assert_eq!((before.losses.count, before.sources[0].bytes.read), (1, 100));
    let path = Disk::new(root.path()).segment(SegmentId(1));
    let mut bytes = std::fs::read(&path).unwrap();
    // In the head of the snapshot's payload.
    bytes[segment::HEADER_LEN + 130] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let after = inspect::report(root.path()).unwrap();
    assert_eq!((after.losses, after.checkpoints), (before.losses, before.checkpoints));
    for (after, before) in after.sources.iter().zip(&before.sources) {
        assert_eq!(after.bytes, before.bytes);
    }
    // An agent that starts now says it to its next segment.
    Spool::open(&options(root.path())).unwrap().close();
    std::fs::remove_dir_all(root.path().join("ledger")).unwrap();
    let rebuilt = inspect::report(root.path()).unwrap();
    assert_eq!((rebuilt.losses.count, rebuilt.sources[0].bytes.read), (1, 100));
}

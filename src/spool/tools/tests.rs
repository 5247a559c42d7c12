//! The tools on spools that are damaged byte by byte, and on batches in every state.

use std::path::Path;

use super::*;
use crate::batch::BatchId;
use crate::event::{FrameSink as _, Position, SegmentId, SourceName, Timestamp};
use crate::spool::tests::{acknowledge, append, committed, cut, draft, lines, numbered, options, places};
use crate::spool::{Spool, dead_letter, disk, disk::Disk, inspect};

fn unseen(_: u64, _: u64) {}

fn findings(dir: &Path) -> Vec<String> {
    verify(dir, &unseen).unwrap().findings.iter().map(ToString::to_string).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

fn copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    disk::copy_dir(dir, copy.path()).unwrap();
    copy
}

/// Four frames of two sources, of which the first twelve events are cut into three batches and the last two are not.
fn four_frames() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    let mut end = 1;
    for (source, from, count) in [("app", 0, 5), ("web", 0, 4), ("app", 5, 3), ("web", 4, 2)] {
        append(&spool, source, from, count);
        end += count;
        committed(&spool, end);
    }
    cut(&spool, &[(1, 5), (6, 9), (10, 12)]);
    spool.close();
    root
}

#[test]
fn every_flipped_byte_is_found_and_mended() {
    let root = four_frames();
    assert_eq!(findings(root.path()), Vec::<String>::new());
    let len = std::fs::metadata(Disk::new(root.path()).segment(SegmentId(1))).unwrap().len();
    for at in places(usize::try_from(len).unwrap(), 24) {
        let copy = copy(root.path());
        flip(&Disk::new(copy.path()).segment(SegmentId(1)), at);
        let found = findings(copy.path());
        assert!(!found.is_empty(), "byte {at} is not found");
        let repaired = repair(&options(copy.path()), &unseen).unwrap();
        assert_eq!(repaired.left, Vec::new(), "byte {at}");
        assert!(!repaired.quarantined.is_empty(), "byte {at}: nothing was kept");
        assert_eq!(findings(copy.path()), Vec::<String>::new(), "byte {at}");
        let report = inspect::report(copy.path()).unwrap();
        let damaged: u64 = report.sources.iter().map(|source| source.damaged).sum();
        assert!(report.balanced && damaged == repaired.damaged_events, "byte {at}: {report:#?}");
        assert_eq!(repair(&options(copy.path()), &unseen).unwrap(), Repaired::default(), "byte {at}");
    }
}

#[test]
fn a_ledger_that_is_damaged_anywhere_is_as_good_as_new_after_a_repair() {
    let root = four_frames();
    let db = Disk::new(root.path()).ledger().join("db");
    let len = usize::try_from(std::fs::metadata(&db).unwrap().len()).unwrap();
    for at in places(len.min(4096), 512) {
        let copy = copy(root.path());
        flip(&Disk::new(copy.path()).ledger().join("db"), at);
        let repaired = repair(&options(copy.path()), &unseen).unwrap();
        assert_eq!(repaired.left, Vec::new(), "byte {at}");
        assert_eq!(findings(copy.path()), Vec::<String>::new(), "byte {at}");
        assert!(inspect::report(copy.path()).unwrap().balanced, "byte {at}");
    }
}

#[test]
fn damage_in_front_of_what_is_not_cut_is_counted_and_the_rest_is_in_batches() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    for frame in 0..4 {
        append(&spool, "app", frame * 150, 150);
        committed(&spool, frame * 150 + 151);
    }
    spool.close();
    let Found::Event(event) = find(root.path(), &Wanted::Position(Position(301))).unwrap() else {
        panic!("no event")
    };
    let at = usize::try_from(event.offset).unwrap();
    flip(&Disk::new(root.path()).segment(SegmentId(1)), at + 300);
    let repaired = repair(&options(root.path()), &unseen).unwrap();
    assert_eq!((repaired.damaged_events, repaired.left), (150, Vec::new()));
    let mut keys = Vec::new();
    batches(root.path(), &unseen, |row| {
        keys.push(row.batch.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(keys, ["1-100", "101-200", "201-300"]);
    let spool = Spool::open(&options(root.path())).unwrap();
    let id = |first, last| BatchId { first: Position(first), last: Position(last), part: None };
    assert_eq!(lines(&spool, id(101, 200)), numbered(100, 100));
    spool.close();
}

#[test]
fn an_event_of_a_bisected_batch_is_where_its_part_is() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 0, 2);
    append(&spool, "web", 0, 2);
    append(&spool, "app", 2, 2);
    committed(&spool, 7);
    let batch = cut(&spool, &[(1, 6)])[0];
    let [first, second] = spool.batches().bisect(batch).unwrap();
    acknowledge(&spool, first);
    spool.close();
    // In payload order: the four of app, then the two of web.
    let state = |position| match find(root.path(), &Wanted::Position(Position(position))).unwrap() {
        Found::Event(event) => event.state,
        Found::Batch(_) => panic!("a batch"),
    };
    let waits = State::Outstanding { batch: second.to_string() };
    let states: Vec<_> = (1..=6).map(state).collect();
    let settled = || State::Settled;
    assert_eq!(states, [settled(), settled(), waits.clone(), waits.clone(), settled(), waits]);
    let Found::Batch(view) = find(root.path(), &Wanted::Batch(second)).unwrap() else { panic!("an event") };
    let events: Vec<_> = view.events.iter().map(|event| event.position).collect();
    assert_eq!((events, view.outstanding), (vec![3, 4, 6], Some(true)));
}

#[test]
fn a_purge_by_age_leaves_a_batch_whole_that_has_a_younger_event() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    for (frame, millis) in [1000, 2000, 3000, 4000].into_iter().enumerate() {
        let frame = frame as u64;
        let mut draft = draft("app", frame * 60, &numbered(frame * 5, 5));
        draft.detected = Timestamp::from_millis(millis);
        spool.appender().append(draft).unwrap();
        committed(&spool, frame * 5 + 6);
    }
    let ids = cut(&spool, &[(1, 5), (6, 12)]);
    spool.close();
    let before = |millis| What::ReadBefore(Timestamp::from_millis(millis));
    let purged = purge(&options(root.path()), before(3000), &unseen).unwrap();
    assert_eq!(purged.dropped, [("app".to_owned(), 5)], "the second batch reaches into the third frame");
    let spool = Spool::open(&options(root.path())).unwrap();
    assert_eq!(spool.batches().outstanding(), ids[1..]);
    spool.close();
    let purged = purge(&options(root.path()), before(4000), &unseen).unwrap();
    assert_eq!(purged.dropped, [("app".to_owned(), 10)]);
    let report = inspect::report(root.path()).unwrap();
    assert_eq!((report.balanced, report.backlog.events, report.sources[0].dropped), (true, 5, 15));
    assert_eq!(findings(root.path()), Vec::<String>::new());
}

/// Three dead letters, and nothing else that waits.
fn three_letters() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 0, 3);
    committed(&spool, 4);
    for batch in cut(&spool, &[(1, 1), (2, 2), (3, 3)]) {
        spool.batches().bury(batch, 422, "no").unwrap();
    }
    spool.close();
    root
}

#[test]
fn what_was_refused_stays_counted_when_its_letter_and_the_ledger_are_gone() {
    let root = three_letters();
    // So that a segment begins after it was refused.
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 3, 2);
    committed(&spool, 6);
    spool.close();
    purge(&options(root.path()), What::All, &unseen).unwrap();
    let one = Selection { events: vec!["app:2".parse().unwrap()], ..Selection::default() };
    assert_eq!(purge_letters(root.path(), &one).unwrap(), 1);
    std::fs::remove_dir_all(Disk::new(root.path()).ledger()).unwrap();
    repair(&options(root.path()), &unseen).unwrap();
    let report = inspect::report(root.path()).unwrap();
    let app = &report.sources[0];
    assert_eq!((app.dead, app.dropped, app.acknowledged, report.balanced), (3, 2, 0, true));
}

#[test]
fn a_letter_that_is_taken_out_leaves_the_others_and_what_is_damaged() {
    let root = three_letters();
    let disk = Disk::new(root.path());
    let path = disk.dead_letters().join("00000000000000000001.seg");
    let len = std::fs::read(&path).unwrap().len();
    flip(&path, len - 1);
    let gone = [Position(1)].into();
    dead_letter::remove(&disk, &gone).unwrap();
    assert_eq!(dead_letter::read_all(&disk).unwrap().into_keys().collect::<Vec<_>>(), [Position(2)]);
    assert_eq!(std::fs::read(&path).unwrap().len(), len / 3 * 2, "the damaged bytes are still there");
    dead_letter::remove(&disk, &[Position(2)].into()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len(), len / 3);
    let sources: Vec<_> = letters(root.path(), &Selection::default()).unwrap();
    assert_eq!(sources, Vec::new());
}

#[test]
fn a_requeued_event_is_of_no_file_and_changes_none() {
    let root = three_letters();
    let before = inspect::report(root.path()).unwrap();
    assert_eq!(requeue(&options(root.path()), &Selection::default(), &unseen).unwrap(), 3);
    let after = inspect::report(root.path()).unwrap();
    assert_eq!(after.checkpoints, before.checkpoints);
    assert_eq!(after.sources[0].bytes, before.sources[0].bytes);
    assert_eq!((after.backlog.events, after.sources[0].spooled, after.sources[0].dead), (3, 6, 3));
    assert!(after.balanced);
    let Found::Event(event) = find(root.path(), &Wanted::Event("app".into(), crate::event::Seq(4))).unwrap()
    else {
        panic!("no event")
    };
    assert_eq!((event.event.position, &*event.event.data, &*event.event.path), (4, "line 000000", ""));
    assert_eq!(event.event.time, "2023-11-14T22:13:20.000Z");
    assert_eq!(findings(root.path()), Vec::<String>::new());
    let spool = Spool::open(&options(root.path())).unwrap();
    assert!(spool.checkpoints().iter().all(|known| known.source == SourceName::from("app")));
    assert_eq!(spool.checkpoints().len(), 1);
    spool.close();
}

#[test]
fn an_export_says_how_many_events_cannot_be_read() {
    let root = four_frames();
    let mut out = Vec::new();
    let all = export(root.path(), None, None, &mut out, &unseen).unwrap();
    assert_eq!((all.events, all.missing), (14, 0));
    let segment = Disk::new(root.path()).segment(SegmentId(1));
    let Found::Event(event) = find(root.path(), &Wanted::Position(Position(6))).unwrap() else {
        panic!("no event")
    };
    flip(&segment, usize::try_from(event.offset).unwrap() + 40);
    let from = Some(Bound::Position(Position(4)));
    out.clear();
    let some = export(root.path(), from, None, &mut out, &unseen).unwrap();
    assert_eq!((some.events, some.missing), (2 + 5, 4));
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 7);
}

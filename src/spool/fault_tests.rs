//! A disk that refuses, a spool that is full, and an end in the middle of things.

use super::storage::sim::{Call, Failure, Sim};
use super::tests::{acknowledge, append, committed, cut, lines, numbered, options, wait_for};
use super::*;
use crate::event::{FrameSink as _, Seq, SourceName};

fn account(spool: &Spool, source: &str) -> Account {
    spool.batches.shared.view().sources.get(&SourceName::from(source)).map(|r| r.account).unwrap_or_default()
}

/// A spool on a disk that can be made to fail.
fn on_sim(root: &tempfile::TempDir) -> (Arc<Sim>, Spool) {
    let sim = Arc::new(Sim::new(root.path()));
    let spool = Spool::open_on(Disk::on(sim.clone(), root.path()), &options(root.path())).unwrap();
    (sim, spool)
}

fn segment_count(spool: &Spool) -> usize {
    Disk::list(&spool.log.disk.segments()).unwrap().len()
}

#[test]
fn after_a_failed_sync_the_frames_are_written_to_another_segment_under_the_same_numbers() {
    let root = tempfile::tempdir().unwrap();
    let (sim, spool) = on_sim(&root);
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    sim.fail(Call::Sync, "segments", Failure::Io, 2);
    append(&spool, "app", 5, 5);
    committed(&spool, 11);
    assert_eq!(sim.failures_left(), 0);
    assert_eq!(segment_count(&spool), 2, "one was given up, one that was never used is gone");
    let batch = cut(&spool, &[(1, 10)])[0];
    assert_eq!(lines(&spool, batch), numbered(0, 10));
    spool.close();
    let spool = Spool::open(&options(root.path())).unwrap();
    let read = spool.batches().read(batch).unwrap();
    assert_eq!(lines(&spool, batch), numbered(0, 10));
    assert_eq!(read.content.ranges()[0].last, Seq(10));
    assert_eq!(spool.checkpoints()[0].offset.0, 120);
    spool.close();
}

#[test]
fn a_failed_write_pauses_reading_and_nothing_is_lost_or_written_twice() {
    let root = tempfile::tempdir().unwrap();
    let (sim, spool) = on_sim(&root);
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    sim.fail(Call::Write, "segments", Failure::NoSpace, 2);
    append(&spool, "app", 5, 5);
    committed(&spool, 11);
    let batch = cut(&spool, &[(1, 10)])[0];
    assert_eq!(lines(&spool, batch), numbered(0, 10));
    spool.close();
    let report = inspect::report(root.path()).unwrap();
    assert!(report.balanced);
    assert_eq!((report.backlog.events, report.quarantine_bytes), (10, 0));
}

#[test]
fn a_ledger_that_cannot_be_synced_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let (sim, spool) = on_sim(&root);
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    let first = cut(&spool, &[(1, 2)])[0];
    sim.fail(Call::Sync, "ledger", Failure::Io, 1);
    let second = cut(&spool, &[(3, 5)])[0];
    acknowledge(&spool, first);
    spool.close();
    assert_eq!(sim.failures_left(), 0);
    let spool = Spool::open(&options(root.path())).unwrap();
    assert_eq!(spool.batches().outstanding(), [second]);
    assert_eq!(account(&spool, "app").acknowledged, 2);
    spool.close();
}

#[test]
fn a_spool_ends_while_others_still_hold_on_to_it() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    let batch = cut(&spool, &[(1, 5)])[0];
    let (batches, cutter, mut appender) = (spool.batches(), spool.cutter(), spool.appender());
    batches.acknowledge(batch, batches.read(batch).unwrap().content.ranges());
    spool.close();
    assert!(cutter.is_closed());
    assert!(appender.append(super::tests::draft("app", 60, &numbered(5, 1))).is_err());
    assert_eq!(batches.bisect(batch), Err(Closed));
    // Whatever was said before the end is durable.
    let spool = Spool::open(&options(root.path())).unwrap();
    assert_eq!(spool.batches().outstanding(), []);
    drop(spool);
    Spool::open(&options(root.path())).unwrap().close();
}

#[test]
fn a_full_spool_goes_on_once_everything_is_delivered_even_where_one_segment_is_all_there_is() {
    let root = tempfile::tempdir().unwrap();
    let full = SpoolOptions { max_spool_bytes: 700 << 10, segment_bytes: 1 << 20, ..options(root.path()) };
    let spool = Spool::open(&full).unwrap();
    let mut appender = spool.appender();
    // The ledger takes half a mebibyte of the budget, and a segment of this size could take all of it.
    let tailer = std::thread::spawn(move || {
        for step in 0..400 {
            appender.append(super::tests::draft("app", step * 1200, &numbered(step * 100, 100))).unwrap();
        }
    });
    wait_for("reading to pause", || spool.log.newest().is_some_and(|(_, extent)| extent.sealed));
    assert!(!tailer.is_finished());
    let mut done = 0;
    while done < 40_000 {
        // What a tailer that waits is let go on with is delivered in its turn.
        let end = spool.log.end().0;
        if end - 1 > done {
            let batch = cut(&spool, &[(done + 1, end - 1)])[0];
            acknowledge(&spool, batch);
            done = end - 1;
        }
        if done < 40_000 {
            let deadline = crate::clock::now() + Duration::from_secs(20);
            assert!(spool.log.wait_for(Position(end), Some(deadline)), "reading does not go on");
        }
    }
    tailer.join().unwrap();
    wait_for("the first segment to be deleted", || {
        !spool.log.disk.segment(crate::event::SegmentId(1)).exists()
    });
    spool.close();
    assert!(inspect::report(root.path()).unwrap().balanced);
}

#[test]
fn what_is_dropped_is_counted_and_what_was_cut_across_it_goes_with_it() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&SpoolOptions { segment_bytes: 1, ..options(root.path()) }).unwrap();
    for step in 0..4 {
        append(&spool, "app", step * 10, 10);
        committed(&spool, step * 10 + 11);
    }
    let batches = cut(&spool, &[(1, 4), (5, 13)]);
    let keeper = spool.batches.keeper.clone();
    assert!(keeper.drop_oldest());
    assert_eq!(spool.batches().outstanding(), []);
    assert_eq!(account(&spool, "app").dropped, 13);
    assert!(matches!(spool.batches().read(batches[1]), Err(BatchError::Replaced(by)) if by.is_empty()));
    // Delivery may still be about to take apart or bury what is gone.
    assert!(spool.batches().bisect(batches[1]).is_ok());
    assert_eq!(spool.batches().bury(batches[0], 422, "no"), Ok(()));
    // The second segment was cut up to 13 and is dropped from there on: an aggregator behind it is moved.
    assert!(keeper.drop_oldest());
    assert_eq!(account(&spool, "app").dropped, 20);
    let late = Cut {
        from: Position(14),
        batches: Vec::new(),
        cursor: Position(16),
        events: Counts::new(),
        damaged: Counts::new(),
    };
    // One that was submitted behind it does not begin at the cursor either, and cuts nothing.
    let later = Cut {
        from: Position(16),
        batches: Vec::new(),
        cursor: Position(30),
        events: Counts::new(),
        damaged: Counts::new(),
    };
    let (late, later) = (keeper.cut(late).unwrap(), keeper.cut(later).unwrap());
    assert_eq!(late.wait(), Ok(CutOutcome::Moved(Position(21))));
    assert_eq!(later.wait(), Ok(CutOutcome::Moved(Position(21))));
    assert!(keeper.drop_oldest());
    assert!(!keeper.drop_oldest(), "the newest segment is never dropped");
    spool.close();
    let report = inspect::report(root.path()).unwrap();
    assert!(report.balanced, "{report:#?}");
    assert_eq!(report.backlog.events, 10);
}

#[test]
fn a_full_spool_drops_its_oldest_where_that_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let full = SpoolOptions {
        max_spool_bytes: 300 << 10,
        segment_bytes: 32 << 10,
        on_full: OnFull::DropOldest,
        ..options(root.path())
    };
    let spool = Spool::open(&full).unwrap();
    for step in 0..300 {
        append(&spool, "app", step * 100, 100);
    }
    committed(&spool, 30_001);
    wait_for("the count", || account(&spool, "app").dropped > 10_000);
    spool.close();
    let report = inspect::report(root.path()).unwrap();
    assert!(report.balanced, "{report:#?}");
    assert_eq!(report.sources[0].spooled, 30_000);
    assert!(Disk::usage(root.path()) < 800 << 10 | 8 << 20);
}

#[test]
fn a_dead_letter_waits_for_a_disk_that_refuses() {
    let root = tempfile::tempdir().unwrap();
    let (sim, spool) = on_sim(&root);
    append(&spool, "app", 0, 1);
    committed(&spool, 2);
    let batch = cut(&spool, &[(1, 1)])[0];
    sim.fail(Call::Write, "dead-letters", Failure::NoSpace, 1);
    assert_eq!(spool.batches().bury(batch, 413, "too large"), Ok(()));
    assert_eq!(account(&spool, "app").dead, 1);
    spool.close();
    let report = inspect::report(root.path()).unwrap();
    assert_eq!(report.dead_letters.by_status, std::collections::BTreeMap::from([(413, 1)]));
    assert_eq!(Disk::list(&root.path().join("dead-letters")).unwrap().len(), 1);
}

/// Where the quarantine is full, half a letter stays where it is, and the spool opens.
#[test]
fn a_torn_letter_that_cannot_be_kept_aside_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(root.path())).unwrap();
    append(&spool, "app", 0, 1);
    committed(&spool, 2);
    let batch = cut(&spool, &[(1, 1)])[0];
    assert_eq!(spool.batches().bury(batch, 422, "no"), Ok(()));
    spool.close();
    let path = root.path().join("dead-letters").join(super::segment::file_name(crate::event::SegmentId(1)));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"half a letter");
    std::fs::write(&path, &bytes).unwrap();
    let full = std::fs::File::create(root.path().join("quarantine/full")).unwrap();
    full.set_len(256 << 20).unwrap();
    Spool::open(&options(root.path())).unwrap().close();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    drop(full);
    std::fs::remove_file(root.path().join("quarantine/full")).unwrap();
    Spool::open(&options(root.path())).unwrap().close();
    assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len() - b"half a letter".len());
}

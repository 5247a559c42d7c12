//! The spool as a whole, in a temporary directory.

use std::path::{Path, PathBuf};

use super::*;
use crate::batch::BatchId;
use crate::event::{
    EventBlock, FileIdentity, FileOffset, FrameDraft, FrameSink as _, SegmentId, Seq, SourceName, Timestamp,
    Witness,
};

/// The seed of this run: `LOG_AGENT_TEST_SEED`, or another one each time.
pub(crate) fn seed() -> u64 {
    use std::hash::BuildHasher as _;
    let seed = match std::env::var("LOG_AGENT_TEST_SEED") {
        Ok(seed) => seed.parse().expect("LOG_AGENT_TEST_SEED is not a number"),
        Err(_) => std::hash::RandomState::new().hash_one(0),
    };
    println!("LOG_AGENT_TEST_SEED={seed}");
    seed
}

/// Every `stride`-th place of `len`, from one that differs between seeds; with `LOG_AGENT_TEST_ALL` every one.
pub(crate) fn places(len: usize, stride: usize) -> impl Iterator<Item = usize> {
    let stride = if std::env::var_os("LOG_AGENT_TEST_ALL").is_some() { 1 } else { stride };
    let from = usize::try_from(seed() % stride as u64).unwrap();
    (from..len).step_by(stride)
}

pub(crate) fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions {
        dir: dir.to_owned(),
        profile: Some(Profile::json("agent")),
        segment_bytes: 64 << 10,
        sync: SyncMode::Group,
        max_spool_bytes: 64 << 20,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        channel_bound: 64,
    }
}

pub(crate) fn draft(source: &str, offset: u64, lines: &[String]) -> FrameDraft {
    let mut events = EventBlock::default();
    for line in lines {
        events.push(line.as_bytes(), false);
    }
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    FrameDraft {
        checkpoint: Checkpoint {
            source: SourceName::from(source),
            path: PathBuf::from(format!("/var/log/{source}.log")),
            identity: FileIdentity { dev: 1, ino: 2, birth_ns: 3 },
            head: Witness::of(b"head"),
            tail: Witness::of(b"tail"),
            offset: FileOffset(offset + bytes as u64),
        },
        start: FileOffset(offset),
        detected: Timestamp::from_millis(1_700_000_000_000),
        events,
        skips: crate::event::Skips::default(),
        before: None,
        forget: false,
    }
}

pub(crate) fn numbered(from: u64, count: u64) -> Vec<String> {
    (from..from + count).map(|number| format!("line {number:06}")).collect()
}

pub(crate) fn append(spool: &Spool, source: &str, from: u64, count: u64) {
    let lines = numbered(from, count);
    spool.appender().append(draft(source, from * 12, &lines)).unwrap();
}

/// Waits until everything up to the event before `end` is committed.
pub(crate) fn committed(spool: &Spool, end: u64) {
    let deadline = crate::clock::now() + std::time::Duration::from_secs(20);
    assert!(spool.log.wait_for(Position(end - 1), Some(deadline)), "nothing was committed");
}

pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = crate::clock::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(crate::clock::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The profiles in the ledger of a spool that is closed.
pub(crate) fn profiles(dir: &Path) -> Vec<Profile> {
    let ledger = ledger::Ledger::open(&Disk::new(dir), &Disk::new(dir).ledger(), SyncMode::Group).unwrap();
    ledger.read().unwrap().unwrap().profiles.into_values().collect()
}

pub(crate) fn cut(spool: &Spool, batches: &[(u64, u64)]) -> Vec<BatchId> {
    let ids: Vec<_> = batches
        .iter()
        .map(|(f, l)| BatchId { first: Position(*f), last: Position(*l), part: None })
        .collect();
    let mut events = Counts::new();
    for id in &ids {
        let mut reader = FrameReader::new(spool.log.clone(), id.first, None, false);
        let run = content::read_run(&mut reader, id.first, id.last).unwrap();
        for run in run.content.sources {
            *events.entry(run.source).or_default() += u64::from(run.events);
        }
    }
    let cut = Cut {
        from: ids[0].first,
        batches: ids.iter().map(|id| BatchRecord { id: *id, at: Default::default() }).collect(),
        cursor: Position(batches.last().unwrap().1 + 1),
        events,
        damaged: Counts::new(),
    };
    let outcome = spool.batches.keeper.cut(cut).unwrap().wait().unwrap();
    assert_eq!(outcome, CutOutcome::Durable);
    ids
}

pub(crate) fn lines(spool: &Spool, batch: BatchId) -> Vec<String> {
    let read = spool.batches().read(batch).unwrap();
    let slices = read.content.sources.iter().flat_map(|run| &run.slices);
    slices
        .flat_map(|slice| {
            slice.events().map(|e| String::from_utf8(e.line.to_vec()).unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

pub(crate) fn acknowledge(spool: &Spool, batch: BatchId) {
    let ranges = spool.batches().read(batch).unwrap().content.ranges();
    spool.batches().acknowledge(batch, ranges);
}

#[test]
fn what_was_committed_is_read_back_after_a_restart_under_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(dir.path())).unwrap();
    let id = spool.id();
    append(&spool, "app", 0, 100);
    append(&spool, "web", 0, 50);
    append(&spool, "app", 100, 10);
    committed(&spool, 161);
    let batches = cut(&spool, &[(1, 120), (121, 155)]);
    let before: Vec<_> = batches.iter().map(|batch| lines(&spool, *batch)).collect();
    spool.close();

    let spool = Spool::open(&options(dir.path())).unwrap();
    assert_eq!(spool.id(), id);
    assert_eq!(spool.batches().outstanding(), batches);
    let after: Vec<_> = batches.iter().map(|batch| lines(&spool, *batch)).collect();
    assert_eq!(after, before);
    let ranges = spool.batches().read(batches[1]).unwrap().content.ranges();
    assert_eq!((ranges[0].source.as_str(), ranges[0].first.0, ranges[0].last.0), ("web", 21, 50));
    assert_eq!((ranges[1].source.as_str(), ranges[1].first.0, ranges[1].last.0), ("app", 101, 105));
    let offsets: Vec<_> = spool.checkpoints().iter().map(|c| (c.source.to_string(), c.offset.0)).collect();
    assert_eq!(offsets, [("app".to_owned(), 110 * 12), ("web".to_owned(), 50 * 12)]);
    assert_eq!(spool.cursor(), Position(156));
    append(&spool, "app", 110, 1);
    committed(&spool, 162);
    cut(&spool, &[(156, 161)]);
    spool.close();
}

#[test]
fn a_segment_is_unlinked_once_all_of_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(dir.path())).unwrap();
    let mut end = 1;
    for step in 0..80 {
        append(&spool, "app", step * 100, 100);
        end += 100;
    }
    committed(&spool, end);
    assert!(spool.log.segments().len() > 1, "the test needs several segments");
    let batches = cut(&spool, &[(1, 4000), (4001, 8000)]);
    acknowledge(&spool, batches[1]);
    acknowledge(&spool, batches[0]);
    let segments = Disk::new(dir.path()).segments();
    wait_for("all but the newest segment to be unlinked", || Disk::list(&segments).unwrap().len() == 1);
    let account = spool.batches.shared.view().sources[&SourceName::from("app")].account;
    assert_eq!(account.acknowledged, 8000);
    spool.close();
}

#[test]
fn halves_take_the_place_of_a_bisected_batch_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(dir.path())).unwrap();
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    let batch = cut(&spool, &[(1, 5)])[0];
    let halves = spool.batches().bisect(batch).unwrap();
    assert_eq!(spool.batches().outstanding(), halves);
    spool.close();
    let spool = Spool::open(&options(dir.path())).unwrap();
    assert_eq!(spool.batches().outstanding(), halves);
    assert_eq!(lines(&spool, halves[0]), numbered(0, 3));
    assert_eq!(lines(&spool, halves[1]), numbered(3, 2));
    let [one, _] = spool.batches().bisect(halves[1]).unwrap();
    spool.batches().bury(one, 422, "bad line").unwrap();
    let letters = dead_letter::read_all(&Disk::new(dir.path())).unwrap();
    let letter = &letters[&Position(4)];
    assert_eq!((letter.seq, letter.status, letter.line.as_slice()), (Seq(4), 422, b"line 000003".as_slice()));
    spool.close();
}

#[test]
fn a_second_process_is_told_who_holds_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(dir.path())).unwrap();
    let error = Spool::open(&options(dir.path())).unwrap_err().to_string();
    assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    spool.close();
}

#[test]
fn directories_are_0700_and_files_0600() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("spool");
    let spool = Spool::open(&options(&root)).unwrap();
    append(&spool, "app", 0, 5);
    committed(&spool, 6);
    spool.close();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("segments")), 0o700);
    assert_eq!(mode(&Disk::new(&root).segment(SegmentId(1))), 0o600);
    assert_eq!(mode(&root.join("lock")), 0o600);
}

//! Every byte of a small spool flipped in turn: what is intact is read as it was written, what is hit is counted, kept and
//! reported, and nothing falls over.
//!
//! Each round runs in a process of its own whose memory is limited, so that a length that was believed before its checksum
//! ends it, and whose panics are noted, also those of threads.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use self::fixture::{Event, Fixture, Read, books, letters, read};
use super::tests::places;
use super::tools::verify;
use super::*;
use crate::event::SegmentId;

/// Set in a process that was started for one test alone.
const ALONE: &str = "LOG_AGENT_TEST_ALONE";
/// Address space that such a process may take beyond what it has; the largest frame has an eighth of it.
const MEMORY_MAX: u64 = 1 << 30;
/// An agent has to be up after 5 s; the rest is for slow machines.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs the test `name` of this module in a process of its own; says how that ended and what it wrote.
fn alone(name: &str, left_out: Option<&str>) -> (bool, String) {
    let shm = Path::new("/dev/shm");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("spool::flip_tests::{name}"), "--nocapture"]).env(ALONE, "1");
    // A sync that costs nothing: what is shown here does not depend on it.
    command.env("TMPDIR", if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() });
    command.env_remove("RUST_BACKTRACE");
    if let Some(left_out) = left_out {
        command.env(super::codec::LEFT_OUT, left_out);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

/// Does `rounds` in a process of its own.
fn in_a_process_of_its_own(name: &str, rounds: impl FnOnce()) {
    if std::env::var_os(ALONE).is_none() {
        let (passed, said) = alone(name, None);
        println!("{said}");
        assert!(passed, "the last place is the one that failed");
        return;
    }
    limit_memory();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // What sled does with a broken file is caught; what is ours must not panic at all.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if !place.contains("sled-0.") {
            PANICS.lock().unwrap().push(place);
            before(info);
        }
    }));
    rounds();
}

fn limit_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = Some((size << 10) + MEMORY_MAX);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
}

/// What a round did to a copy of the fixture.
struct Round<'a> {
    fixture: &'a Fixture,
    copy: tempfile::TempDir,
    what: String,
}

/// What was seen of a damaged copy.
struct Seen {
    read: Read,
    findings: Vec<String>,
    damaged: u64,
    offsets: std::collections::BTreeMap<String, u64>,
}

impl<'a> Round<'a> {
    fn new(fixture: &'a Fixture, file: &Path, at: usize, mask: u8) -> Self {
        let what = format!("{}, byte {at} ^ {mask:#04x}", file.display());
        println!("{what}");
        Self { fixture, copy: fixture.flipped(file, at, mask), what }
    }

    fn dir(&self) -> &Path {
        self.copy.path()
    }

    /// Looks at the copy, opens it, reads all that delivery would read, and closes it. What holds for any damage is
    /// asserted here.
    fn see(&self) -> Seen {
        let what = &self.what;
        let verified = verify(self.dir(), &|_, _| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        let findings = verified.findings.iter().map(ToString::to_string).collect();
        let before = inspect::report(self.dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(before.balanced, "{what}: {before:#?}");

        let begun = crate::clock::now();
        let opened = Spool::open(&Fixture::options(self.dir()));
        let spool = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(begun.elapsed() < OPEN_DEADLINE, "{what}: {:?}", begun.elapsed());
        let read = read(&spool);
        let checkpoints = spool.checkpoints();
        let offsets = checkpoints.iter().map(|known| (known.source.to_string(), known.offset.0)).collect();
        spool.close();

        let after = inspect::report(self.dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(after.balanced, "{what}: {after:#?}");
        let damaged = |report: &inspect::Report| report.sources.iter().map(|s| s.damaged).sum::<u64>();
        assert_eq!(damaged(&before), damaged(&after), "{what}: what is reported does not depend on who asks");
        assert_eq!(before.backlog.events, after.backlog.events, "{what}");
        for ((source, seq), line) in &read {
            let written = self.fixture.events.iter().find(|e| e.source == *source && e.seq == *seq);
            let written = written.unwrap_or_else(|| panic!("{what}: nobody wrote {seq} of {source}"));
            assert_eq!(written.line, *line, "{what}: {seq} of {source} is not as it was written");
        }
        assert_eq!(*PANICS.lock().unwrap(), Vec::<String>::new(), "{what}");
        Seen { read, findings, damaged: damaged(&after), offsets }
    }

    /// Whether the quarantine has bytes `from` to `to` of the damaged `file`.
    fn is_kept(&self, damaged: &[u8], file: &Path, from: u64, to: u64) -> bool {
        let name = format!("{}.{from}-{to}", file.file_name().unwrap().display());
        let kept = std::fs::read(self.dir().join("quarantine").join(name));
        kept.is_ok_and(|kept| kept == damaged[span(from, to)])
    }

    fn quarantined(&self) -> Vec<PathBuf> {
        let dir = self.dir().join("quarantine");
        Disk::list(&dir).unwrap().iter().map(|name| dir.join(name)).collect()
    }
}

/// Offsets as what a slice is indexed with.
fn span(from: u64, to: u64) -> std::ops::Range<usize> {
    usize::try_from(from).unwrap()..usize::try_from(to).unwrap()
}

fn is_read(read: &Read, event: &Event) -> bool {
    read.contains_key(&(event.source.clone(), event.seq))
}

#[test]
fn a_flipped_byte_of_a_segment_costs_the_events_of_its_frame_and_no_others() {
    in_a_process_of_its_own(
        "a_flipped_byte_of_a_segment_costs_the_events_of_its_frame_and_no_others",
        || {
            let fixture = Fixture::new();
            let mut masks = [0x20, 0x01, 0xff, 0x80].into_iter().cycle();
            for (file, id) in fixture.files("segments").iter().zip([SegmentId(1), SegmentId(2)]) {
                let bytes = std::fs::read(fixture.dir().join(file)).unwrap();
                for at in places(bytes.len(), 24) {
                    flip_in_segment(&fixture, file, id, &bytes, at, masks.next().unwrap());
                }
            }
        },
    );
}

fn flip_in_segment(fixture: &Fixture, file: &Path, id: SegmentId, bytes: &[u8], at: usize, mask: u8) {
    let hit = fixture
        .frames
        .iter()
        .find(|frame| frame.segment == id && (frame.from..frame.end).contains(&(at as u64)));
    // A torn end, by the rule of the format: nothing behind it says that it was synced, and it was not acted upon.
    let torn = hit.filter(|hit| {
        let behind = fixture.frames.iter().filter(|frame| frame.segment == id && frame.from > hit.from);
        let position = match (at as u64) < hit.payload {
            true => {
                let before =
                    fixture.frames.iter().filter(|frame| frame.segment == id && frame.from < hit.from);
                let first = fixture.frames.iter().find(|frame| frame.segment == id).unwrap();
                before.map(|frame| frame.header.end_position()).max().unwrap_or(first.header.first_position)
            }
            false => hit.header.first_position,
        };
        id == fixture.newest
            && behind.into_iter().all(|frame| frame.header.group_at <= hit.from)
            && fixture.cursor <= position
    });
    let cut = torn.map(|torn| (id, torn.from));
    let is_hit = |event: &Event| {
        let held = |header: &frame::FrameHeader| {
            header.first_position <= event.position && event.position < header.end_position()
        };
        hit.is_some_and(|hit| held(&hit.header))
            || cut.is_some_and(|cut| {
                fixture.frames.iter().any(|f| (f.segment, f.from) >= cut && held(&f.header))
            })
    };

    let round = Round::new(fixture, file, at, mask);
    let what = &round.what;
    let seen = round.see();
    assert!(!seen.findings.is_empty(), "{what}: it is not found");
    for event in fixture.events.iter() {
        let expected = event.state == fixture::State::Outstanding && !is_hit(event);
        assert_eq!(is_read(&seen.read, event), expected, "{what}: {event:?}");
    }
    let lost = fixture.outstanding().filter(|event| is_hit(event)).count() as u64;
    assert_eq!(seen.damaged, if cut.is_some() { 0 } else { lost }, "{what}");
    // A header that cannot be read does not say how far its file was read: what is behind that is read again.
    let is_known = |frame: &fixture::Placed| {
        let is_read = hit.is_none_or(|hit| (hit.segment, hit.from) != (frame.segment, frame.from));
        cut.is_none_or(|cut| (frame.segment, frame.from) < cut) && (is_read || at as u64 >= frame.payload)
    };
    assert_eq!(seen.offsets, fixture.offsets(is_known), "{what}");
    let mut damaged = bytes.to_vec();
    damaged[at] ^= mask;
    let kept = match (hit, cut) {
        (_, Some((_, from))) => round.is_kept(&damaged, file, from, bytes.len() as u64),
        (None, _) => round.is_kept(&damaged, file, 0, segment::HEADER_LEN as u64),
        // What is settled nobody reads again.
        (Some(hit), _) => lost == 0 || round.is_kept(&damaged, file, hit.from, hit.end),
    };
    assert!(kept, "{what}: the damaged bytes are not kept: {:?}", round.quarantined());
}

#[test]
fn a_flipped_byte_of_the_ledger_costs_no_event() {
    in_a_process_of_its_own("a_flipped_byte_of_the_ledger_costs_no_event", || {
        let fixture = Fixture::new();
        let whole = books(fixture.dir()).unwrap();
        let mut masks = [0x20, 0x01, 0xff, 0x80].into_iter().cycle();
        for file in fixture.files("ledger") {
            let bytes = std::fs::read(fixture.dir().join(&file)).unwrap();
            let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            println!("{}: {} bytes, {} written", file.display(), bytes.len(), written.len());
            for at in places(written.len(), 40).map(|at| written[at]) {
                flip_in_ledger(&fixture, &file, at, masks.next().unwrap(), &whole);
            }
            // Most of the file is zeros, and half a million rounds would take hours.
            let all = std::env::var_os("LOG_AGENT_TEST_ALL").is_some();
            let stride = if all { 599 } else { 59_999 };
            for at in (0..bytes.len()).step_by(stride).filter(|at| bytes[*at] == 0) {
                flip_in_ledger(&fixture, &file, at, masks.next().unwrap(), &whole);
            }
        }
    });
}

fn flip_in_ledger(fixture: &Fixture, file: &Path, at: usize, mask: u8, whole: &ledger::Books) {
    let round = Round::new(fixture, file, at, mask);
    let what = &round.what;
    let read_as = books(round.dir());
    let seen = round.see();
    for event in fixture.events.iter() {
        let is_read = is_read(&seen.read, event);
        let outstanding = event.state == fixture::State::Outstanding;
        assert!(is_read || !outstanding, "{what}: {event:?} is lost");
        assert!(!is_read || event.position >= fixture.frontier, "{what}: {event:?} is known to be settled");
    }
    assert_eq!(seen.damaged, 0, "{what}");
    assert_eq!(seen.offsets, fixture.offsets(|_| true), "{what}");
    let is_aside = round.quarantined().iter().any(|path| path.is_dir());
    println!("  {}", if is_aside { "set aside" } else { "read" });
    if is_aside {
        assert!(seen.findings.iter().any(|found| found.starts_with("ledger")), "{what}: {:?}", seen.findings);
    } else {
        assert_eq!(read_as.as_ref(), Some(whole), "{what}: it is used, and says something else");
    }
}

/// A tree of several pages is read piece by piece, long after it was opened.
#[test]
fn a_flipped_byte_of_a_large_ledger_is_an_error_or_changes_nothing() {
    in_a_process_of_its_own("a_flipped_byte_of_a_large_ledger_is_an_error_or_changes_nothing", || {
        let root = tempfile::tempdir().unwrap();
        let (disk, path) = (Disk::new(root.path()), root.path().join("ledger"));
        let books = large_books();
        drop(ledger::Ledger::create(&disk, &path, SyncMode::Group, &books).unwrap());
        // A second life leaves a snapshot behind, from which the pages are found.
        drop(ledger::Ledger::open(&disk, &path, SyncMode::Group).unwrap());
        for name in Disk::list(&path).unwrap().into_iter().filter(|name| path.join(name).is_file()) {
            let bytes = std::fs::read(path.join(&name)).unwrap();
            let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            for at in places(written.len(), written.len().div_ceil(60).max(1)).map(|at| written[at]) {
                let copy = tempfile::tempdir().unwrap();
                disk::copy_dir(&path, copy.path()).unwrap();
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                std::fs::write(copy.path().join(&name), damaged).unwrap();
                println!("{}, byte {at} of {}", name.display(), bytes.len());
                let opened = ledger::Ledger::open(&disk, copy.path(), SyncMode::Group);
                if let Ok(read) = opened.and_then(|ledger| ledger.read()) {
                    assert!(read.is_some_and(|read| read == books), "it says something else");
                }
                assert_eq!(*PANICS.lock().unwrap(), Vec::<String>::new());
            }
        }
    });
}

fn large_books() -> ledger::Books {
    let id = SpoolId([7; 16]);
    let meta = ledger::Meta { lineage: id, spool_id: id, unsynced_boot: [0; 16] };
    let mut books = ledger::Books::new(meta, Position(1_000_000));
    for number in 0..3000_u64 {
        let name = crate::event::SourceName::from(&*format!("source {number:05}"));
        let account = Account { acknowledged: number, ..Account::default() };
        books.sources.insert(name, ledger::SourceRecord { cut: number, account });
    }
    books
}

#[test]
fn a_flipped_byte_of_the_dead_letters_costs_the_letter_that_it_is_in() {
    in_a_process_of_its_own("a_flipped_byte_of_the_dead_letters_costs_the_letter_that_it_is_in", || {
        let fixture = Fixture::new();
        let whole = letters(fixture.dir());
        assert_eq!(whole.len(), 1);
        for file in fixture.files("dead-letters") {
            let bytes = std::fs::read(fixture.dir().join(&file)).unwrap();
            for at in places(bytes.len(), 12) {
                let round = Round::new(&fixture, &file, at, 0x20);
                let what = &round.what;
                let seen = round.see();
                assert!(seen.findings.iter().any(|found| found.starts_with("dead letter")), "{what}");
                assert_eq!(letters(round.dir()).len(), 0, "{what}");
                for event in fixture.events.iter() {
                    let outstanding = event.state == fixture::State::Outstanding;
                    assert_eq!(is_read(&seen.read, event), outstanding, "{what}: {event:?}");
                }
            }
        }
    });
}

/// The rounds above show something only if they fail without what they are to show.
#[test]
fn without_a_checksum_flipped_bytes_are_delivered_or_lost() {
    for (test, left_out) in [
        ("a_flipped_byte_of_a_segment_costs_the_events_of_its_frame_and_no_others", "payload"),
        ("a_flipped_byte_of_a_segment_costs_the_events_of_its_frame_and_no_others", "header"),
    ] {
        let (passed, said) = alone(test, Some(left_out));
        assert!(!passed && said.contains(", byte "), "without the checksum of the {left_out}: {said}");
    }
}

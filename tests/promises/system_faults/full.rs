//! A disk that others fill, and a budget that is used up: reading pauses, shipping goes on, what is acknowledged is
//! recorded, and reading goes on by itself.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use super::*;

/// Reading goes on within this time of there being room.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);
/// A disk that refused is asked again within this time.
const RETRIES_WITHIN: Duration = Duration::from_millis(600);
/// A disk with little room beside what the spool holds ready for acknowledgements.
const SMALL: FileSystem = FileSystem::Tmpfs("size=12m");
/// A disk with few names.
const FEW_NAMES: FileSystem = FileSystem::Tmpfs("nr_inodes=64");
/// Lines of each source that are more than a segment.
const MANY: usize = 600;
/// Lines of each source whose batches are more than the ledger's file has room for.
const BACKLOG: usize = 800;

/// What somebody else has on the disk.
struct Filling {
    dir: PathBuf,
}

impl Filling {
    /// Takes every byte, or every name.
    fn take_all(trial: &Trial) -> Self {
        let dir = trial.spool().with_file_name("filling");
        fs::create_dir_all(&dir).unwrap();
        let names_left = || -> bool {
            let free = rustix::fs::statvfs(&dir).unwrap();
            free.f_files == 0 || free.f_ffree > 0
        };
        let mut file = File::options().create(true).append(true).open(dir.join("bytes")).unwrap();
        if trial.disk.as_ref().unwrap().kind() == FEW_NAMES {
            for number in 0.. {
                if !names_left() || File::create(dir.join(format!("name {number}"))).is_err() {
                    break;
                }
            }
        } else {
            // What was unlinked just before is free once the journal is written.
            let mut taken = true;
            while std::mem::take(&mut taken) {
                let mut size = 1 << 16;
                while size > 0 {
                    match file.write_all(&vec![7; size]) {
                        Ok(()) => taken = true,
                        Err(_) => size /= 2,
                    }
                }
                let _ = rustix::fs::syncfs(&file);
            }
        }
        Self { dir }
    }

    fn give_back(self) {
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// A server that is away, `backlog` lines of each source in the spool, and a disk that is filled until reading pauses:
/// once, or also with what the spool gives up then.
fn fill_up(trial: &mut Trial, backlog: usize, takes_more: bool) -> Filling {
    trial.proxy.always(Fault::UNAVAILABLE);
    trial.append(backlog);
    trial.await_read();
    let filling = Filling::take_all(trial);
    // More than what is left of a segment, and of the last blocks.
    trial.append(MANY);
    let mut before = (0, Instant::now());
    wait_for(PATIENCE, "reading to pause", || {
        let spooled = trial.spooled();
        if spooled == trial.written() {
            // The spool has given up a file of its own meanwhile, as when the ledger is written anew.
            Filling::take_all(trial);
            trial.append(MANY);
        } else if spooled != before.0 && takes_more {
            Filling::take_all(trial);
        }
        if spooled != before.0 {
            before = (spooled, Instant::now());
        }
        before.1.elapsed() > RETRIES_WITHIN
    });
    assert!(trial.spooled() < trial.written(), "everything fitted: the test shows nothing");
    filling
}

/// An agent with a little delivered. Batches are small, so that the ledger has much to record: more than what the
/// database has room for in its file.
fn begin(trial: &mut Trial) -> Agent {
    trial.config().global("min_free_bytes", 0).global("max_batch_size", 2).write();
    let agent = trial.start();
    trial.append(50);
    await_delivery(&trial.writers(), &trial.collector);
    agent
}

/// The server is back, and takes its time at first: acknowledgements that come together are recorded together, and these
/// are to need more room than the database has in its file.
fn heal_slowly(proxy: &FaultProxy) {
    let mut slow = 250;
    proxy.script(move |_| {
        if slow > 0 {
            slow -= 1;
            std::thread::sleep(Duration::from_millis(12));
        }
        Fault::Pass
    });
}

fn pauses_and_resumes(test: &str, kind: FileSystem) {
    let Some(mut trial) = Trial::on_disk(test, kind) else { return };
    let agent = begin(&mut trial);
    // The server is back before there is room: what is in the spool is shipped, and that is recorded.
    let filling = fill_up(&mut trial, BACKLOG, false);
    let spooled = trial.spooled();
    heal_slowly(&trial.proxy);
    wait_for(PATIENCE, "what is in the spool is shipped", || trial.collector.stored_count() >= spooled);
    assert_eq!(agent.stop(), Some(0));
    let said = fs::read_to_string(Agent::stderr_path(&trial.scene)).unwrap();
    let status = trial.status();
    let sources = status["sources"].as_array().unwrap().iter();
    let acknowledged: u64 = sources.map(|source| source["acknowledged"].as_u64().unwrap()).sum();
    assert!(acknowledged >= spooled, "{acknowledged} of {spooled} were recorded: {said}");
    if kind == SMALL {
        assert!(
            said.contains("it is written anew"),
            "the reserve was not needed: the test shows nothing of it"
        );
    }
    filling.give_back();
    trial.recover();

    // There is room again before the server is back.
    let agent = trial.start();
    agent.await_started();
    let mut taken = Duration::MAX;
    for _ in 0..2 {
        let filling = fill_up(&mut trial, 50, true);
        let before = trial.spooled();
        filling.give_back();
        let begun = Instant::now();
        wait_for(PATIENCE, "reading to go on", || trial.spooled() > before);
        taken = taken.min(begun.elapsed());
        trial.await_read();
        trial.proxy.heal();
        await_delivery(&trial.writers(), &trial.collector);
    }
    // A machine that is busy may be late once.
    assert!(taken < RESUMES_WITHIN, "reading went on {taken:?} after there was room");
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

#[test]
fn a_full_disk_pauses_reading_and_nothing_else() {
    pauses_and_resumes("a_full_disk_pauses_reading_and_nothing_else", SMALL);
}

#[test]
fn a_full_ext4_pauses_reading_and_nothing_else() {
    let test = "a_full_ext4_pauses_reading_and_nothing_else";
    if !is_left_to_the_long_version(test) {
        pauses_and_resumes(test, FileSystem::SmallExt4);
    }
}

#[test]
fn a_disk_without_names_pauses_reading_and_nothing_else() {
    let test = "a_disk_without_names_pauses_reading_and_nothing_else";
    if !is_left_to_the_long_version(test) {
        pauses_and_resumes(test, FEW_NAMES);
    }
}

/// The same without the reserve, which somebody else has taken: that it is the reserve that lets acknowledgements be
/// recorded shows in their not being recorded. Nothing is lost by it.
#[test]
fn without_the_reserve_acknowledgements_wait_for_room() {
    let test = "without_the_reserve_acknowledgements_wait_for_room";
    if is_left_to_the_long_version(test) {
        return;
    }
    let Some(mut trial) = Trial::on_disk(test, SMALL) else { return };
    let agent = begin(&mut trial);
    fs::remove_file(trial.spool().join("reserve")).unwrap();
    let filling = fill_up(&mut trial, BACKLOG, false);
    trial.proxy.heal();
    agent.await_said("the ledger cannot be written; delivery waits");
    filling.give_back();
    await_delivery(&trial.writers(), &trial.collector);
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

/// Lines of one source that are kept at least: those in a segment.
const KEPT: u64 = 100;

/// The ledger's file alone is larger than the smallest budget.
#[test]
fn the_smallest_budget_lets_every_line_through() {
    let mut trial = Trial::new("the_smallest_budget_lets_every_line_through");
    trial.config().global("max_spool_bytes", 128 << 10).write();
    let agent = trial.start();
    for _ in 0..3 {
        trial.append(800);
        await_delivery(&trial.writers(), &trial.collector);
    }
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

/// Runs of numbers as `(first, last)`.
fn runs(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// What is wrong with what `drop_oldest` left of one source: `lines` were written, in waves that end at `ends`, and
/// `stored` arrived, with the sequence numbers that were seen, of which `dropped` are said to be missing.
fn drop_complaints(lines: &[String], ends: &[usize], stored: &[Stored], dropped: u64) -> Vec<String> {
    let mut complaints = disordered(stored);
    let numbers: HashMap<&str, u64> = lines.iter().map(String::as_str).zip(1..).collect();
    let mut there = HashSet::new();
    for event in stored {
        // Every line is an event, so its number is its place in the file.
        if numbers.get(event.data.as_str()) != Some(&event.seq) {
            complaints.push(format!("event {} is not line {}", event.seq, event.seq));
        }
        if !there.insert(event.seq) {
            complaints.push(format!("event {} came twice", event.seq));
        }
    }
    let missing = || (1..=lines.len() as u64).filter(|number| !there.contains(number));
    if missing().count() as u64 != dropped {
        complaints.push(format!("{} are missing, {dropped} are counted as dropped", missing().count()));
    }
    let mut begun = 0;
    for &end in ends {
        let wave = begun as u64 + 1..=end as u64;
        let newest = missing().filter(|number| wave.contains(number)).max();
        match newest {
            None => complaints.push(format!("of the lines up to {end} none is missing")),
            // Older ones that came nevertheless were in memory, on their way.
            Some(newest) if end as u64 - newest < KEPT => {
                complaints.push(format!("of the lines up to {end} {newest} is missing"));
            }
            Some(_) => {}
        }
        begun = end;
    }
    complaints
}

#[test]
fn drop_oldest_drops_the_oldest_and_says_exactly_which() {
    let mut trial = Trial::new("drop_oldest_drops_the_oldest_and_says_exactly_which");
    trial
        .config()
        .global("max_spool_bytes", 3 << 19)
        .global("on_full", "drop_oldest")
        .global("channel_bound", 2)
        .write();
    let mut agent = trial.start();
    let mut ends = Vec::new();
    for wave in 0..if all_is_wanted() { 6 } else { 1 } {
        trial.proxy.always(Fault::UNAVAILABLE);
        for portion in 0..20 {
            trial.append(300);
            if portion % 5 == 0 {
                trial.await_read();
            }
            if (wave, portion) == (0, 10) {
                agent.kill();
                agent = trial.start();
            }
        }
        trial.await_read();
        ends.push(trial.writers[0].lines().len());
        trial.proxy.heal();
        let last: Vec<String> =
            trial.writers.iter().map(|writer| writer.lines().last().unwrap().clone()).collect();
        wait_for(PATIENCE, "the last lines to be stored", || {
            let stored = trial.collector.stored();
            last.iter().all(|line| stored.iter().any(|event| event.data == *line))
        });
    }
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(trial.wrong(), None);
    let status = trial.status();
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
    let stats = trial.collector.stats();
    let stored = trial.collector.stored();
    for writer in &trial.writers {
        let account =
            status["sources"].as_array().unwrap().iter().find(|s| s["source"] == writer.source()).unwrap();
        let dropped = account["dropped"].as_u64().unwrap();
        assert_eq!(account["spooled"], writer.count(), "{account:#}");
        let stored: Vec<Stored> =
            stored.iter().filter(|event| event.source == writer.source()).cloned().collect();
        assert_eq!(account["acknowledged"], stored.len(), "{account:#}");
        assert_eq!(drop_complaints(writer.lines(), &ends, &stored, dropped), Vec::<String>::new());
        // The server sees the same from the numbers alone.
        let seen = stats.store.sources.iter().find(|seen| seen.source == writer.source()).unwrap();
        let mut seqs: Vec<u64> = stored.iter().map(|event| event.seq).collect();
        seqs.sort_unstable();
        assert_eq!(seen.ranges, runs(seqs));

        // One event that is gone without being counted, one of the newest that went, two in the wrong order.
        let bites = |change: &dyn Fn(&mut Vec<Stored>), dropped: u64| {
            let mut stored = stored.clone();
            change(&mut stored);
            assert!(
                !drop_complaints(writer.lines(), &ends, &stored, dropped).is_empty(),
                "the check does not bite"
            );
        };
        bites(&|_| {}, dropped + 1);
        bites(&|stored| drop(stored.pop()), dropped + 1);
        bites(&|stored| drop(stored.remove(stored.len() - 5)), dropped + 1);
        bites(&|stored| stored.swap(3, 4), dropped);
    }
}

//! Power cuts before every step of what a spool does, with writes that are torn and reordered and names that are lost,
//! on a simulated disk.
//!
//! A run of the model is recorded; then for each of its steps every disk that a power cut there can leave is opened,
//! delivered to its end, and looked at. What must hold: nothing that was committed is read again or lost, whatever was
//! sent keeps its number, its key and its bytes, what was settled stays settled, and the tools find nothing wrong.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use super::model::rig::{FILES, LogFile, Promise, Rig, Sizes};
use super::storage::Storage as _;
use super::storage::sim::{self, Call, Failure, Image, Sim};
use super::{SyncMode, dead_letter, disk::Disk, ledger::Ledger, tools};
use crate::event::SkipReason;

/// Memory, where there is some for files: a power cut is simulated, so no real disk is needed.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn random(salt: u64) -> SmallRng {
    let seed = asked("LOG_AGENT_TEST_SEED", 4711);
    println!("LOG_AGENT_TEST_SEED={seed}");
    SmallRng::seed_from_u64(seed.wrapping_add(salt))
}

/// A disk that a power cut can leave, and what must be true of it.
struct Left {
    steps: usize,
    image: Image,
    promise: Promise,
}

/// What was done on a simulated disk.
struct Run {
    sim: Arc<Sim>,
    files: [LogFile; FILES.len()],
    promises: Vec<Promise>,
    limits: Sizes,
    /// The ledger may be one that was rebuilt: the disk failed while it was opened, or it was removed.
    forgetful: bool,
}

/// Small enough for every step of a short run to be of another kind.
const SMALL: Sizes = Sizes { segment_bytes: 600, batch_events: 3 };

fn begin(prepare: impl FnOnce(&Sim)) -> Rig {
    let mut rig = Rig::closed(scratch());
    std::fs::create_dir(rig.dir()).unwrap();
    let sim = Arc::new(Sim::new(&rig.dir()));
    prepare(&sim);
    rig.limits = SMALL;
    rig.sim = Some(sim);
    rig.open();
    rig
}

fn end(mut rig: Rig) -> Run {
    rig.close();
    let (sim, limits) = (rig.sim.take().unwrap(), rig.limits);
    let nothing = Promise { steps: 0, files: Default::default(), server: Default::default(), dead: 0 };
    let promises = std::iter::once(nothing).chain(std::mem::take(&mut rig.promises)).collect();
    Run { sim, files: rig.files.clone(), promises, limits, forgetful: false }
}

/// Append, roll, cut, acknowledge, bisect, reject, unlink, an end and a start.
fn tell(rig: &mut Rig, between: impl Fn(&mut Rig, &'static str)) {
    rig.read(0, 3, None);
    rig.read(2, 2, Some((SkipReason::Excluded, 4)));
    rig.cut();
    let first = rig.outstanding()[0];
    rig.acknowledge(first);
    rig.read(1, 6, None);
    rig.cut();
    let batch = rig.outstanding()[0];
    rig.bury(batch);
    between(rig, "segments");
    rig.read(0, 4, None);
    rig.cut();
    between(rig, "ledger");
    let last = *rig.outstanding().last().unwrap();
    rig.acknowledge(last);
    rig.close();
    between(rig, "restart");
    rig.open();
    rig.read(2, 1, None);
    rig.cut();
    for batch in rig.outstanding() {
        rig.acknowledge(batch);
    }
    rig.read(2, 1, None);
}

/// A run with a segment that is given up and a ledger that is written anew, as the disk fails to sync them.
fn short() -> Run {
    let mut rig = begin(|_| {});
    tell(&mut rig, |rig, place| {
        if place != "restart" {
            rig.sim.as_ref().unwrap().fail(Call::Sync, place, Failure::Io, 1);
        }
    });
    let run = end(rig);
    assert_eq!(run.sim.failures_left(), 0, "everything that was to fail did");
    run
}

/// A run whose ledger is gone when the spool is opened again, and is rebuilt from the segments.
fn rebuilt() -> Run {
    let mut rig = begin(|_| {});
    tell(&mut rig, |rig, place| {
        if place == "restart" {
            rig.forgetful = true;
            rig.sim.as_ref().unwrap().remove_dir(&rig.dir().join("ledger")).unwrap();
        }
    });
    Run { forgetful: true, ..end(rig) }
}

/// A run in which something is done to the disk before its first step, and nothing later.
fn with(prepare: impl FnOnce(&Sim)) -> Run {
    let mut rig = begin(prepare);
    tell(&mut rig, |_, _| {});
    end(rig)
}

/// Whatever comes.
fn long(random: &mut SmallRng) -> Run {
    let mut rig = begin(|_| {});
    for _ in 0..random.random_range(10..40) {
        let file = random.random_range(0..FILES.len());
        let batch = rig.outstanding().choose(random).copied();
        match (random.random_range(0..12), batch) {
            (0..4, _) => {
                let skip =
                    random.random_bool(0.2).then(|| (SkipReason::Excluded, random.random_range(1..50)));
                rig.read(file, random.random_range(1..9), skip);
            }
            (4, _) => rig.truncate(file, random.random_range(0..30)),
            (5..7, _) => rig.cut(),
            (7, Some(batch)) => drop(rig.bisect(batch)),
            (8, Some(batch)) => rig.bury(batch),
            (9, _) => {
                let (call, place) = *[
                    (Call::Sync, "segments"),
                    (Call::Sync, "ledger"),
                    (Call::Write, "segments"),
                    (Call::SyncDir, "segments"),
                    (Call::Create, "segments"),
                ]
                .choose(random)
                .unwrap();
                rig.sim.as_ref().unwrap().fail(call, place, Failure::Io, random.random_range(1..3));
            }
            (10, _) => {
                rig.sim.as_ref().unwrap().heal();
                rig.close();
                rig.open();
            }
            (_, Some(batch)) => rig.acknowledge(batch),
            (_, None) => {}
        }
    }
    rig.sim.as_ref().unwrap().heal();
    end(rig)
}

impl Run {
    /// What was known after so many steps.
    fn promise(&self, steps: usize) -> &Promise {
        self.promises.iter().rfind(|promise| promise.steps <= steps).unwrap()
    }

    /// Every disk that a power cut can leave, each once.
    fn disks(&self, random: &mut SmallRng) -> Vec<Left> {
        let mut seen = HashSet::new();
        let mut disks = Vec::new();
        // The same disk later has to keep more promises.
        for steps in (self.sim.given()..=self.sim.steps()).rev() {
            disks.extend(
                self.disks_after(steps, random).filter(|left| seen.insert(sim::fingerprint(&left.image))),
            );
        }
        println!("{} disks after {} steps", disks.len(), self.sim.steps() - self.sim.given());
        disks
    }

    fn disks_after(&self, steps: usize, random: &mut SmallRng) -> impl Iterator<Item = Left> {
        let promise = self.promise(steps);
        self.sim.crash(steps, random).into_iter().map(move |image| Left {
            steps,
            image,
            promise: promise.clone(),
        })
    }

    /// So many of them, each after another step if there are enough; or with `LOG_AGENT_TEST_ALL` all.
    fn some_disks(&self, count: usize, random: &mut SmallRng) -> Vec<Left> {
        if all_is_wanted() {
            return self.disks(random);
        }
        let steps = sample((self.sim.given()..=self.sim.steps()).collect(), count, random);
        let one = |steps| {
            let mut disks: Vec<_> = self.disks_after(steps, random).collect();
            disks.swap_remove(random.random_range(0..disks.len()))
        };
        steps.into_iter().map(one).collect()
    }

    /// Looks at disks, and says what is wrong with each that has something wrong.
    fn look_at(&self, disks: &[Left]) -> Vec<String> {
        let (next, wrong) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(left) = disks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(why) = catch_unwind(AssertUnwindSafe(|| self.look(left))) {
                            let why = why.downcast_ref::<String>().cloned();
                            let why = why.unwrap_or_else(|| "a panic".to_owned());
                            let last = self.sim.describe(left.steps);
                            wrong
                                .lock()
                                .unwrap()
                                .push(format!("power cut after step {}: {why}\n{last}", left.steps));
                        }
                    }
                });
            }
        });
        wrong.into_inner().unwrap()
    }

    fn look(&self, left: &Left) {
        let mut rig = Rig::closed(scratch());
        std::fs::create_dir(rig.dir()).unwrap();
        sim::make(&left.image, &rig.dir());
        let disk = Disk::new(&rig.dir());
        rig.limits = self.limits;
        rig.files = self.files.clone();
        rig.forgetful = self.forgetful;
        rig.server = left.promise.server.clone();
        // Where the ledger is rebuilt, what is not known to be settled is sent again, refused or not.
        rig.settled = if self.forgetful { 0 } else { left.promise.dead };
        rig.dead = dead_letter::read_all(&disk).unwrap().len() as u64;
        assert!(rig.settled <= rig.dead, "a dead letter is gone");
        rig.open();
        for (file, promised) in rig.files.iter().zip(&left.promise.files) {
            let (is, was) = (file.frames.len(), promised.frames.len());
            assert!(is >= was, "{is} frames of {was} that were committed are there");
        }
        let set_aside = Disk::list(&disk.quarantine()).unwrap();
        for name in set_aside.iter().filter(|name| name.as_encoded_bytes().starts_with(b"ledger")) {
            // What a sync has failed for may never come to the disk, whatever a later one says. Where that was the
            // ledger, as it was opened, it is rebuilt: some batches are sent again.
            if self.forgetful {
                continue;
            }
            let path = disk.quarantine().join(name);
            let read = Ledger::open(&disk, &path, SyncMode::Os).and_then(|ledger| ledger.read());
            panic!("the ledger was not good enough: {read:?}");
        }
        rig.finish_and(|dir| {
            let findings = tools::verify(dir, &|_, _| {}).unwrap().findings;
            assert!(findings.is_empty(), "{findings:#?}");
        });
    }
}

fn all_is_wanted() -> bool {
    std::env::var_os("LOG_AGENT_TEST_ALL").is_some()
}

/// So many of them, or with `LOG_AGENT_TEST_ALL` all.
fn sample<T>(mut all: Vec<T>, usual: usize, random: &mut SmallRng) -> Vec<T> {
    let wanted = if all_is_wanted() { usize::MAX } else { usual };
    println!("{} of {}", all.len().min(wanted), all.len());
    while all.len() > wanted {
        all.swap_remove(random.random_range(0..all.len()));
    }
    all
}

/// What goes on with a disk that was left behind, as far as the power lasts.
fn recovering(run: &Run, promise: &Promise, disk: impl FnOnce(&Path) -> Sim) -> Run {
    let mut rig = Rig::closed(scratch());
    std::fs::create_dir(rig.dir()).unwrap();
    rig.limits = run.limits;
    rig.files = run.files.clone();
    rig.server = promise.server.clone();
    rig.dead = promise.dead;
    rig.sim = Some(Arc::new(disk(&rig.dir())));
    rig.promises.push(Promise { steps: 0, ..promise.clone() });
    rig.open();
    rig.cut();
    Run { files: run.files.clone(), ..end(rig) }
}

fn assert_nothing_wrong(run: &Run, disks: &[Left]) {
    let wrong = run.look_at(disks);
    assert!(wrong.is_empty(), "{} of {} disks: {}", wrong.len(), disks.len(), wrong.join("\n"));
}

#[test]
fn a_power_cut_before_any_step_of_a_short_run_loses_nothing() {
    let mut random = random(1);
    let run = short();
    let disks = run.disks(&mut random);
    assert!(disks.len() > 60, "a short run has more steps than that");
    assert_nothing_wrong(&run, &disks);
}

#[test]
fn a_power_cut_while_the_ledger_is_rebuilt_loses_nothing() {
    let mut random = random(7);
    let run = rebuilt();
    let disks = run.some_disks(60, &mut random);
    assert_nothing_wrong(&run, &disks);
}

#[test]
fn a_power_cut_anywhere_in_a_long_run_loses_nothing() {
    let mut random = random(2);
    for _ in 0..asked("LOG_AGENT_TEST_CASES", 4) {
        let run = long(&mut random);
        let disks = run.some_disks(60, &mut random);
        assert_nothing_wrong(&run, &disks);
    }
}

#[test]
fn a_power_cut_while_another_is_recovered_from_loses_nothing() {
    let mut random = random(3);
    let run = short();
    for left in run.some_disks(5, &mut random) {
        let recovering = recovering(&run, &left.promise, |root| {
            sim::make(&left.image, root);
            Sim::new(root)
        });
        let disks = recovering.some_disks(25, &mut random);
        assert_nothing_wrong(&recovering, &disks);
    }
}

/// What a killed process has written and not synced can be read by the next, and the power may still take it.
#[test]
fn a_power_cut_after_a_kill_loses_nothing() {
    let mut random = random(6);
    let run = short();
    let steps: Vec<_> = (run.sim.given()..=run.sim.steps()).collect();
    for steps in sample(steps, 8, &mut random) {
        println!("killed after step {steps}");
        let recovering = recovering(&run, run.promise(steps), |root| run.sim.killed(steps, root));
        let disks = recovering.some_disks(20, &mut random);
        assert_nothing_wrong(&recovering, &disks);
    }
}

#[test]
fn whichever_call_to_the_disk_fails_nothing_is_lost() {
    let mut random = random(4);
    let calls = with(|_| {}).sim.calls();
    let failing: Vec<_> = (0..calls).flat_map(|n| [(n, Failure::Io), (n, Failure::NoSpace)]).collect();
    for (number, failure) in sample(failing, 30, &mut random) {
        let times = random.random_range(1..4);
        println!("{times} calls from {number} on fail: {failure:?}");
        let run = Run { forgetful: true, ..with(|sim| sim.fail_from(number, failure, times)) };
        let disks = run.some_disks(2, &mut random);
        assert_nothing_wrong(&run, &disks);
    }
}

/// Leaves out one sync everywhere, and says whether a power cut shows it.
fn is_noticed(mistake: (Call, &'static str), random: &mut SmallRng) -> bool {
    let run = with(|sim| sim.leave_out(mistake.0, mistake.1));
    let mut steps: Vec<_> = (run.sim.given()..=run.sim.steps()).collect();
    steps.shuffle(random);
    steps.into_iter().any(|steps| {
        let disks: Vec<_> = run.disks_after(steps, random).take(6).collect();
        !run.look_at(&disks).is_empty()
    })
}

#[test]
fn a_sync_that_is_left_out_is_noticed() {
    let mut random = random(5);
    let mistakes = [
        (Call::Sync, "segments"),
        (Call::SyncDir, "segments"),
        (Call::Sync, "ledger"),
        (Call::SyncDir, "ledger"),
        (Call::SyncDir, "."),
        (Call::Sync, "dead-letters"),
        (Call::SyncDir, "dead-letters"),
    ];
    let unnoticed: Vec<_> =
        mistakes.into_iter().filter(|mistake| !is_noticed(*mistake, &mut random)).collect();
    assert!(unnoticed.is_empty(), "nothing is lost without {unnoticed:?}");
}

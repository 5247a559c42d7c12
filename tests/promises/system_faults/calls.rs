//! Calls of the spool that fail: an error of the disk, a write that is done in part, a call that a signal interrupts.

use rand::Rng as _;
use rustix::process::Signal;

use super::*;
use crate::common::{PATIENCE, Place, ShortWrites};

/// Portions of lines in a life.
const PORTIONS: usize = 3;
/// Lines of each source in a portion: a segment full every two.
const LINES: usize = 120;

/// A kind of failure, and up to which call of a thread a life makes it, at least.
struct Kind {
    injection: Injection,
    calls: u32,
}

const fn kind(calls: &'static str, place: Place, what: &'static str, count: u32) -> Kind {
    Kind { injection: Injection::new(calls, place, what), calls: count }
}

const OF_SEGMENTS: &[Kind] = &[
    kind("writev", Place::Segments, "error=EIO", 4),
    kind("fdatasync", Place::Segments, "error=EIO", 4),
    kind("fsync", Place::SegmentsDir, "error=EIO", 2),
    kind("openat", Place::Segments, "error=EIO", 3),
    kind("unlink", Place::Segments, "error=EIO", 1),
];

const OF_THE_LEDGER: &[Kind] = &[
    kind("pwrite64", Place::Ledger, "error=EIO", 4),
    kind("sync_file_range", Place::Ledger, "error=EIO", 4),
    kind("fsync", Place::Ledger, "error=EIO", 9),
    kind("fsync", Place::Root, "error=EIO", 3),
    kind("fsync", Place::LedgerDir, "error=EIO", 2),
    kind("openat", Place::Ledger, "error=EIO", 3),
];

const OF_LETTERS: &[Kind] = &[
    kind("writev", Place::Letters, "error=EIO", 4),
    kind("fdatasync", Place::Letters, "error=EIO", 4),
    kind("openat", Place::Letters, "error=EIO", 1),
    kind("fsync", Place::LettersDir, "error=EIO", 1),
];

const INTERRUPTED: &[Kind] = &[
    kind("writev", Place::Segments, "error=EINTR", 4),
    kind("fdatasync", Place::Segments, "error=EINTR", 4),
    kind("fsync", Place::SegmentsDir, "error=EINTR", 2),
    kind("openat", Place::Segments, "error=EINTR", 3),
    kind("pwrite64", Place::Ledger, "error=EINTR", 4),
    kind("fsync", Place::Ledger, "error=EINTR", 9),
    kind("writev", Place::Letters, "error=EINTR", 4),
];

/// Lives of which each meets one failure: of so many kinds one at a call that the seed chooses, or all there are.
fn lives_with(trial: &mut Trial, kinds: &[Kind], count: usize) {
    let mut rng = trial.scene.rng("calls");
    let chosen: Vec<usize> = rand::seq::index::sample(&mut rng, kinds.len(), count).into_vec();
    let mut hits = 0;
    for (number, kind) in kinds.iter().enumerate() {
        if all_is_wanted() {
            for call in 1.. {
                match live(trial, &kind.injection.at(call)) {
                    0 => break,
                    hit => hits += hit,
                }
            }
        } else if chosen.contains(&number) {
            hits += live(trial, &kind.injection.at(rng.random_range(1..=kind.calls)));
        }
    }
    // One that is alone may be at a call that its life does not make.
    assert!(hits * 2 >= count - 1, "{hits} failures in {count} lives: the run shows little");
}

/// One life; says how often the injection hit.
#[track_caller]
fn live(trial: &mut Trial, injection: &Injection) -> usize {
    let mut agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    let pid = agent.pid();
    for _ in 0..PORTIONS {
        trial.append(LINES);
        wait_for(PATIENCE, &format!("delivery through {injection}"), || {
            trial.all_is_settled() || !agent.is_running()
        });
    }
    let started = agent.said().contains(Agent::STARTED);
    if agent.is_running() {
        agent.signal(Signal::TERM);
        wait_for(PATIENCE, "the agent stops", || !agent.is_running());
        let said = agent.said();
        assert_eq!(agent.wait(), Some(0), "{injection}");
        if said.contains("is sent again after the next start") {
            trial.recover();
        }
    } else {
        // One that cannot begin says what is wrong; nothing ends one that has begun.
        let said = agent.said();
        assert!(!started, "{injection} ended the agent: {said}");
        assert_eq!(agent.wait(), Some(1), "{injection}");
        let told = said.lines().filter(|line| line.starts_with("log-agent: ")).count();
        assert_eq!(told, 1, "{injection}: {said}");
        trial.recover();
    }
    trial.assert_whole();
    let hits = injection.hits(&trial.scene, pid);
    println!("{injection}: {hits} times");
    hits
}

#[test]
fn no_line_is_lost_where_a_segment_cannot_be_written_or_synced() {
    let Some(mut trial) =
        Trial::with_injections("no_line_is_lost_where_a_segment_cannot_be_written_or_synced")
    else {
        return;
    };
    trial.config().write();
    lives_with(&mut trial, OF_SEGMENTS, 2);
}

#[test]
fn no_line_is_lost_where_the_ledger_cannot_be_written_or_synced() {
    let Some(mut trial) =
        Trial::with_injections("no_line_is_lost_where_the_ledger_cannot_be_written_or_synced")
    else {
        return;
    };
    trial.config().write();
    lives_with(&mut trial, OF_THE_LEDGER, 1);
}

#[test]
fn no_refused_event_is_lost_where_a_dead_letter_cannot_be_written_or_synced() {
    let Some(mut trial) =
        Trial::with_injections("no_refused_event_is_lost_where_a_dead_letter_cannot_be_written_or_synced")
    else {
        return;
    };
    trial.refuse_some();
    lives_with(&mut trial, OF_LETTERS, 1);
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    let Some(mut trial) = Trial::with_injections("a_call_that_is_interrupted_is_made_again") else { return };
    trial.refuse_some();
    lives_with(&mut trial, INTERRUPTED, 1);
}

#[test]
fn a_write_that_is_done_in_part_is_done_to_its_end() {
    let test = "a_write_that_is_done_in_part_is_done_to_its_end";
    let mut trial = Trial::new(test);
    let Some(short) = ShortWrites::new(&trial.scene) else {
        return skip(test, "no C compiler, so writes cannot be cut short");
    };
    trial.config().write();
    let agent = trial.start_with(|command| short.give(command));
    for _ in 0..PORTIONS {
        trial.append(LINES);
        await_delivery(&trial.writers(), &trial.collector);
    }
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
    assert!(short.count() > 100, "{} writes were cut short", short.count());
}

/// The same with a write that the system says was done in part and that was not done at all, of which an agent cannot
/// know: what the tests above look for is then there, and is found.
#[test]
fn a_write_that_did_not_happen_is_found() {
    let Some(mut trial) = Trial::with_injections("a_write_that_did_not_happen_is_found") else { return };
    trial.config().write();
    let injection = Injection::new("writev", Place::Segments, "retval=100").at(2);
    let agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    // Of two at least the second is a commit of its own.
    for _ in 0..2 {
        trial.append(10);
        wait_for(PATIENCE, "lines are stored or damaged", || {
            trial.all_is_settled() || agent.said().contains("damaged bytes in the spool")
        });
    }
    let pid = agent.pid();
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(injection.hits(&trial.scene, pid), 1);
    assert!(!trial.missing().is_empty(), "nothing is missing: the tests above would not see a loss");
    assert!(trial.wrong().is_some(), "nothing is wrong: the tests above would not see damage");
}

/// A ledger that is rebuilt cuts what waits anew, so what was sent before would be sent in other batches: nothing is
/// rebuilt because a disk takes its time.
#[test]
fn a_ledger_on_a_disk_that_stalls_is_waited_for() {
    const STALL: &str = "delay_enter=12000000";
    let Some(mut trial) = Trial::with_injections("a_ledger_on_a_disk_that_stalls_is_waited_for") else {
        return;
    };
    trial.config().global("timeout_secs", 60).write();
    trial.proxy.always(Fault::HangAfterForward);
    trial.append(10);
    let agent = trial.start();
    trial.proxy.await_requests(1);
    agent.kill();
    trial.proxy.heal();
    trial.append(10);
    // Only sled locks this file, so only its opening is delayed.
    let injection = Injection::new("flock", Place::Ledger, STALL);
    let agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    agent.await_said("the ledger is still being opened");
    await_delivery(&trial.writers(), &trial.collector);
    assert!(!agent.said().contains("set aside"), "{}", agent.said());
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

//! Calls of the spool that fail: an error of the disk, a write that is done in part, a call that a signal interrupts.

use rand::Rng as _;

use super::*;
use crate::common::{PATIENCE, Place, ShortWrites};

/// Portions of lines in a life.
const PORTIONS: usize = 4;
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
    kind("writev", Place::Segments, "error=EIO", 6),
    kind("fdatasync", Place::Segments, "error=EIO", 6),
    kind("fsync", Place::SegmentsDir, "error=EIO", 3),
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
    kind("rename", Place::LedgerDir, "error=EIO", 1),
];

const INTERRUPTED: &[Kind] = &[
    kind("writev", Place::Segments, "error=EINTR", 6),
    kind("fdatasync", Place::Segments, "error=EINTR", 6),
    kind("fsync", Place::SegmentsDir, "error=EINTR", 3),
    kind("openat", Place::Segments, "error=EINTR", 3),
    kind("pwrite64", Place::Ledger, "error=EINTR", 4),
    kind("fsync", Place::Ledger, "error=EINTR", 9),
    kind("sync_file_range", Place::Ledger, "error=EINTR", 4),
];

/// Lives of which each meets one failure: of every kind one at a call that the seed chooses, or all there are.
fn lives_with(test: &str, kinds: &[Kind]) {
    let Some(mut trial) = Trial::with_injections(test) else { return };
    trial.config().write();
    let mut rng = trial.scene.rng("calls");
    let mut hits = 0;
    for kind in kinds {
        let from = if all_is_wanted() { 1 } else { rng.random_range(1..=kind.calls) };
        for call in from.. {
            let injection = kind.injection.at(call);
            let hit = live(&mut trial, &injection);
            println!("{injection}: {hit} times");
            hits += hit;
            if hit == 0 || !all_is_wanted() {
                break;
            }
        }
    }
    assert!(hits >= kinds.len() / 2, "{hits} failures among {} lives: the run shows little", kinds.len());
}

/// One life; says how often the injection hit.
#[track_caller]
fn live(trial: &mut Trial, injection: &Injection) -> usize {
    let mut agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    for _ in 0..PORTIONS {
        trial.append(LINES);
        wait_for(PATIENCE, &format!("delivery through {injection}"), || {
            trial.all_is_stored() || !agent.is_running()
        });
    }
    let said = agent.said();
    let started = said.contains(Agent::STARTED);
    if agent.is_running() {
        assert_eq!(agent.stop(), Some(0), "{injection}");
    } else {
        // One that cannot begin says so; nothing ends one that has begun.
        assert!(!started, "{injection} ended the agent: {said}");
        assert_eq!(agent.wait(), Some(1), "{injection}");
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("log-agent: ")).collect();
        assert_eq!(told.len(), 1, "{injection}: {said}");
        trial.recover();
    }
    println!(
        "{}",
        said.lines()
            .filter(|l| l.contains("WARN") || l.contains("ERROR") || l.starts_with("log-agent"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    trial.assert_whole();
    injection.hits(&trial.scene).len()
}

#[test]
fn no_line_is_lost_where_a_segment_cannot_be_written_or_synced() {
    lives_with("no_line_is_lost_where_a_segment_cannot_be_written_or_synced", OF_SEGMENTS);
}

#[test]
fn no_line_is_lost_where_the_ledger_cannot_be_written_or_synced() {
    lives_with("no_line_is_lost_where_the_ledger_cannot_be_written_or_synced", OF_THE_LEDGER);
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    lives_with("a_call_that_is_interrupted_is_made_again", INTERRUPTED);
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

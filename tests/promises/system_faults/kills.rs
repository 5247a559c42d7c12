//! Killed at an exact call: each that the spool makes while it starts, appends, commits, cuts, acknowledges, seals and
//! unlinks.

use rand::Rng as _;

use super::*;
use crate::common::Place;

/// Portions of lines in a life.
const PORTIONS: usize = 3;
/// Lines of each source in a portion.
const LINES: usize = 120;
/// Lives in the short version.
const LIVES: usize = 3;

/// Calls, where, and up to which one of a thread a life makes them, at least.
const CALLS: &[(&str, Place, u32)] = &[
    ("writev", Place::Segments, 4),
    ("fdatasync", Place::Segments, 4),
    ("openat", Place::Segments, 3),
    ("fsync", Place::SegmentsDir, 2),
    ("unlink", Place::Segments, 2),
    ("pwrite64", Place::Ledger, 3),
    ("sync_file_range", Place::Ledger, 3),
    ("fsync", Place::Ledger, 7),
    ("fsync", Place::LedgerDir, 1),
    ("fsync", Place::Root, 3),
    ("writev,fdatasync", Place::Letters, 6),
    ("openat,fsync", Place::LettersDir, 2),
    ("openat,write,writev,pwrite64,fdatasync,fsync,unlink,ftruncate,fallocate", Place::Everywhere, 24),
];

/// One life that ends at the call, if there is one; says whether it did.
#[track_caller]
fn is_killed(trial: &mut Trial, injection: &Injection) -> bool {
    let mut agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    for _ in 0..PORTIONS {
        trial.append(LINES);
        wait_for(PATIENCE, &format!("delivery or {injection}"), || {
            trial.all_is_settled() || !agent.is_running()
        });
    }
    let killed = !agent.is_running();
    println!("{injection}: {}", if killed { "killed" } else { "not reached" });
    if killed {
        assert_eq!(agent.wait(), None, "{injection}: it ended by itself");
        trial.recover();
    } else {
        assert_eq!(agent.stop(), Some(0), "{injection}");
    }
    trial.assert_whole();
    killed
}

#[test]
fn a_kill_at_any_call_of_the_spool_loses_and_repeats_nothing() {
    let Some(mut trial) = Trial::with_injections("a_kill_at_any_call_of_the_spool_loses_and_repeats_nothing")
    else {
        return;
    };
    trial.refuse_some();
    let mut faults = trial.scene.rng("faults");
    trial.proxy.script(move |_| match faults.random_range(0..20) {
        0 => Fault::LoseReply,
        1 => Fault::UNAVAILABLE,
        _ => Fault::Pass,
    });
    let mut rng = trial.scene.rng("calls");
    let chosen = rand::seq::index::sample(&mut rng, CALLS.len(), LIVES).into_vec();
    let mut kills = 0;
    for (number, &(calls, place, count)) in CALLS.iter().enumerate() {
        let injection = Injection::new(calls, place, "signal=KILL");
        if all_is_wanted() {
            kills += (1..).take_while(|call| is_killed(&mut trial, &injection.at(*call))).count();
        } else if chosen.contains(&number) {
            kills += usize::from(is_killed(&mut trial, &injection.at(rng.random_range(1..=count))));
        }
    }
    assert!(kills * 2 >= LIVES - 1, "{kills} kills in {LIVES} lives: the run shows little");
}

/// The same with one byte of what was durable taken away after the kill: what a process would leave that is killed in
/// the middle of its writes and believes that they were made.
#[test]
fn a_kill_that_takes_a_durable_byte_along_is_found() {
    let Some(mut trial) = Trial::with_injections("a_kill_that_takes_a_durable_byte_along_is_found") else {
        return;
    };
    trial.config().write();
    trial.proxy.always(Fault::UNAVAILABLE);
    let injection = Injection::new("fdatasync", Place::Segments, "signal=KILL").at(3);
    let mut agent = trial.start_with(|command| injection.put_on(command, &trial.scene));
    for _ in 0..PORTIONS {
        trial.append(20);
        let written = trial.written();
        wait_for(PATIENCE, "the kill", || trial.spooled() >= written || !agent.is_running());
    }
    assert_eq!(agent.wait(), None);
    let segments = trial.scene.spool_dir().join("segments");
    let path = fs::read_dir(segments).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let frames: Vec<usize> = memmem::find_iter(&bytes, b"LAFR").collect();
    // In the first frame with events; the snapshot stands before it.
    bytes[frames[2] - 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    trial.proxy.heal();
    let agent = trial.start();
    let last = trial.writers[0].lines().last().unwrap().clone();
    wait_for(PATIENCE, "the last line", || trial.collector.stored().iter().any(|event| event.data == last));
    assert_eq!(agent.stop(), Some(0));
    assert!(!trial.missing().is_empty(), "a byte was taken away, and nothing is missing");
}

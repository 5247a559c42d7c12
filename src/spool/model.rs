//! The spool against a model: files that a tailer reads, a server that stores, and everything that may happen to the
//! spool between them.
//!
//! What must hold, whatever the order of operations: every line is stored or a dead letter; nothing that the server was
//! sent under one number or one key ever changes; each line has one number, in the order of its file; and the accounts
//! balance at every start. Where the spool's bytes were damaged, a line may have a second number, and what is missing at
//! the end is counted as damaged; exactly after one damage, as well as can be told after several. What became of the
//! files' bytes is, where nothing was damaged, what the tailer said of them; and it balances in any case.

pub(super) mod rig;

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::disk;
use crate::event::SkipReason;
use rig::{FILES, Rig, segments};

#[derive(Clone, Debug)]
enum Op {
    /// The tailer reads lines of a file, and in front of them something that is not delivered.
    Read {
        file: usize,
        lines: u64,
        skip: Option<(SkipReason, u64)>,
    },
    /// A file is truncated, and what was added to it before is lost.
    Truncate {
        file: usize,
        lost: u64,
    },
    /// Everything committed is cut and sent for the first time.
    Cut,
    /// The server has taken a batch that it was sent.
    Acknowledge(prop::sample::Index),
    /// The server refuses a batch.
    Bisect(prop::sample::Index),
    /// The server refuses an event for good.
    Bury(prop::sample::Index),
    /// A batch is sent again.
    Resend(prop::sample::Index),
    /// A clean end and a start.
    Reopen,
    /// What is on the disk goes on elsewhere, as after a kill.
    Crash,
    DropLedger,
    SaveLedger,
    PutBackLedger,
    /// A byte of the ledger's database is damaged, counted among those that are not zero.
    FlipLedger {
        byte: prop::sample::Index,
        bit: u8,
    },
    Tear(u64),
    /// A bit of a byte of a segment; both are counted from the newest and the last.
    Flip {
        segment: usize,
        byte: usize,
        bit: u8,
    },
}

fn ops(faults: BoxedStrategy<Op>) -> impl Strategy<Value = Vec<Op>> {
    let any = any::<prop::sample::Index>;
    let usual = prop_oneof![
        8 => (0..FILES.len(), 1..12_u64, skip()).prop_map(|(file, lines, skip)| Op::Read { file, lines, skip }),
        1 => (0..FILES.len(), 0..30_u64).prop_map(|(file, lost)| Op::Truncate { file, lost }),
        5 => Just(Op::Cut),
        6 => any().prop_map(Op::Acknowledge),
        2 => any().prop_map(Op::Bisect),
        1 => any().prop_map(Op::Bury),
        2 => any().prop_map(Op::Resend),
        1 => Just(Op::Reopen),
        2 => Just(Op::Crash),
    ];
    prop::collection::vec(prop_oneof![12 => usual, 1 => faults], 1..60)
}

fn skip() -> impl Strategy<Value = Option<(SkipReason, u64)>> {
    let reasons = vec![SkipReason::Excluded, SkipReason::Nul, SkipReason::Copy];
    prop::option::of((prop::sample::select(reasons), 1..50_u64))
}

impl Rig {
    fn saved_ledger(&self) -> PathBuf {
        self.root.path().join("saved")
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Read { file, lines, skip } => self.read(*file, *lines, *skip),
            Op::Truncate { file, lost } => self.truncate(*file, *lost),
            Op::Cut => self.cut(),
            Op::Acknowledge(index) => drop(self.pick(*index).map(|batch| self.acknowledge(batch))),
            Op::Bisect(index) => drop(self.pick(*index).map(|batch| self.bisect(batch))),
            Op::Bury(index) => drop(self.pick(*index).map(|batch| self.bury(batch))),
            Op::Resend(index) => drop(self.pick(*index).map(|batch| self.send(batch))),
            Op::Reopen => self.between(|_, _| {}),
            Op::Crash => self.crash(),
            Op::DropLedger => self.between(|rig, dir| {
                rig.forgetful = true;
                std::fs::remove_dir_all(dir.join("ledger")).unwrap();
            }),
            Op::SaveLedger => self.between(|rig, dir| {
                let _ = std::fs::remove_dir_all(rig.saved_ledger());
                disk::copy_dir(&dir.join("ledger"), &rig.saved_ledger()).unwrap();
            }),
            Op::PutBackLedger => self.between(|rig, dir| {
                if rig.saved_ledger().exists() {
                    rig.forgetful = true;
                    std::fs::remove_dir_all(dir.join("ledger")).unwrap();
                    disk::copy_dir(&rig.saved_ledger(), &dir.join("ledger")).unwrap();
                }
            }),
            Op::FlipLedger { byte, bit } => self.between(|rig, dir| {
                rig.forgetful = true;
                let path = dir.join("ledger/db");
                let mut bytes = std::fs::read(&path).unwrap();
                let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
                bytes[written[byte.index(written.len())]] ^= 1 << bit;
                std::fs::write(path, bytes).unwrap();
            }),
            Op::Tear(bytes) => self.between(|rig, dir| {
                rig.damages += 1;
                let Some(path) = segments(dir).pop() else { return };
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len().saturating_sub(*bytes)).unwrap();
            }),
            Op::Flip { segment, byte, bit } => self.between(|rig, dir| {
                rig.damages += 1;
                let segments = segments(dir);
                let Some(path) = segments.iter().rev().nth(*segment % segments.len().max(1)) else { return };
                let mut bytes = std::fs::read(path).unwrap();
                let len = bytes.len();
                if let Some(byte) = bytes.iter_mut().rev().nth(*byte % len.max(1)) {
                    *byte ^= 1 << bit;
                }
                std::fs::write(path, bytes).unwrap();
            }),
        }
    }
}

fn run(ops: &[Op]) {
    let mut rig = Rig::new();
    for op in ops {
        rig.apply(op);
    }
    rig.finish();
}

/// Seeded, so that a run can be had again: `LOG_AGENT_TEST_SEED` and `LOG_AGENT_TEST_CASES` ask for other and more.
fn seeded() -> ProptestConfig {
    let asked = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let seed = asked("LOG_AGENT_TEST_SEED", 4711);
    println!("LOG_AGENT_TEST_SEED={seed}");
    ProptestConfig {
        cases: u32::try_from(asked("LOG_AGENT_TEST_CASES", 16)).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn whatever_happens_to_the_ledger_every_line_arrives_under_one_number(
        ops in ops(prop_oneof![
            2 => Just(Op::DropLedger),
            1 => Just(Op::SaveLedger),
            1 => Just(Op::PutBackLedger),
            2 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(byte, bit)| Op::FlipLedger { byte, bit }),
        ].boxed())
    ) {
        run(&ops);
    }

    #[test]
    fn whatever_bytes_are_damaged_every_line_arrives_or_is_counted(
        ops in ops(prop_oneof![
            1 => Just(Op::DropLedger),
            2 => (0..3000_u64).prop_map(Op::Tear),
            3 => (0..5_usize, 0..3000_usize, 0..8_u8).prop_map(|(segment, byte, bit)| Op::Flip { segment, byte, bit }),
        ].boxed())
    ) {
        run(&ops);
    }
}
/// A spool that gives numbers again which it has given before is found out.
#[test]
fn numbers_that_are_given_again_are_noticed() {
    let read = Op::Read { file: 0, lines: 3, skip: None };
    let ops = [read.clone(), Op::Cut, Op::Reopen, read, Op::Cut];
    run(&ops);
    super::recovery::FORGETS_NUMBERS.set(true);
    let noticed = std::panic::catch_unwind(|| run(&ops));
    super::recovery::FORGETS_NUMBERS.set(false);
    assert!(noticed.is_err(), "the model does not mind two lines of one number");
}

/// What was found by the tests above, for good.
#[test]
fn a_segment_that_lost_its_header_keeps_its_id_when_the_spool_takes_a_new_one() {
    let flip = |segment, byte| Op::Flip { segment, byte, bit: 0 };
    let read = |lines| Op::Read { file: 0, lines, skip: None };
    run(&[read(3), Op::Tear(206), read(8), read(2), flip(0, 993), flip(0, 625), flip(1, 212), read(1)]);
}

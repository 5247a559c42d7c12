//! Random sequences of what writers, rotations and deaths do to files, against a model in bytes.
//!
//! The model knows every [`Generation`]: what a file held from its creation, or its truncation, to the next truncation
//! or its end. At every [`Op::Settle`] and at the end of a sequence must be stored, of each generation, its complete
//! lines in order, each once, and nothing else: see [`judge`].
//!
//! What nobody can know is kept out of the sequences by waiting first: a file is truncated in place or deleted only
//! when all of it has been read, it is copied and truncated only when its first line has been, by which its copy can be
//! told, and a file that appears anew is seen before anything else happens to it. Operations that
//! make no sense where they stand do nothing; so every part of a sequence is a sequence, and one that fails can be
//! [`shrink`](shrink::shrink)ed.
//!
//! `LOG_AGENT_TEST_CASES` says how many sequences there are.

mod judge;
mod shrink;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::common::spool_status;
use judge::{Generation, judge};

/// The files of a sequence, by the number that operations have for them.
const FILES: [&str; 3] = ["a", "b", "c"];
/// How many sequences there are, and how long they are.
const CASES: usize = 10;
const OPS: usize = 40;
/// How long a sequence that is being shrunk waits for lines. Longer than a file that was rotated away unseen may take.
const SHRINK_PATIENCE: Duration = Duration::from_secs(12);

use Op::*;
use Scheme::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Whole lines, in one write.
    Append {
        file: usize,
        lines: usize,
    },
    /// The beginning of a line.
    Partial {
        file: usize,
    },
    /// The rest of it.
    Finish {
        file: usize,
    },
    /// Rename and create.
    Rotate {
        file: usize,
        scheme: Scheme,
    },
    /// Lines to the file that was rotated away last.
    Late {
        file: usize,
        lines: usize,
    },
    /// Copy and truncate.
    Copytruncate {
        file: usize,
        scheme: Scheme,
    },
    /// Truncate in place.
    Truncate {
        file: usize,
    },
    Delete {
        file: usize,
    },
    /// Everything must be stored by now.
    Settle,
    /// SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
    Start,
}

/// What a file is called that was rotated away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// `a.log.1`, those before it one number up.
    Numbered,
    /// `a.log-20240107`.
    Dated,
}

/// A file and what its writer knows of it.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// Open to append, and the generation it writes to; none after the file was deleted.
    current: Option<(File, usize)>,
    /// The same of the file that was renamed last.
    former: Option<(File, usize)>,
    /// The rest of a line whose beginning is in the current generation, or was before it was truncated.
    unfinished: Option<Vec<u8>>,
    numbered: u32,
    dated: u32,
}

struct World {
    stage: Stage,
    logs: Vec<Log>,
    generations: Vec<Generation>,
    lines: usize,
    patience: Duration,
}

impl World {
    /// All files are there, with a line that has been read: what is rotated away before anybody saw it was not followed.
    fn new(name: &str, glob: &str, patience: Duration) -> Self {
        let stage = Stage::new(name).follow(glob);
        let logs = FILES.map(|name| Log {
            path: stage.scene.path(format!("logs/{name}.log")),
            current: None,
            former: None,
            unfinished: None,
            numbered: 0,
            dated: 0,
        });
        let mut world = Self { stage, logs: logs.into(), generations: Vec::new(), lines: 0, patience };
        for file in 0..FILES.len() {
            world.create(file);
            world.append(file, 1);
        }
        world
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        self.settle()?;
        for (number, op) in ops.iter().enumerate() {
            self.step(*op).map_err(|error| format!("at operation {number}, {op:?}: {error}"))?;
        }
        self.start();
        self.settle().map_err(|error| format!("at the end: {error}"))?;
        self.stage.stop();
        spool_status(&self.stage.scene);
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Append { file, lines } => {
                if self.logs[file].current.is_some() {
                    self.finish(file);
                    self.append(file, lines);
                } else if self.is_running() {
                    self.create(file);
                    self.append(file, lines);
                    self.settle()?;
                }
            }
            Partial { file } => self.append_partial(file),
            Finish { file } => self.finish(file),
            Rotate { file, scheme } => self.rotate(file, scheme),
            Late { file, lines } => self.append_late(file, lines),
            Copytruncate { file, scheme } => {
                self.await_first_line(file);
                self.copytruncate(file, scheme);
            }
            Truncate { file } => {
                if self.is_running() && self.logs[file].current.is_some() {
                    self.settle()?;
                    self.truncate(file);
                }
            }
            Delete { file } => {
                if self.is_running() && self.logs[file].current.is_some() {
                    self.settle()?;
                    self.delete(file);
                }
            }
            Settle => self.settle()?,
            Stop if self.is_running() => self.stage.stop(),
            Kill if self.is_running() => self.stage.kill(),
            Stop | Kill => {}
            Start => self.start(),
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.stage.agent.is_some()
    }

    fn start(&mut self) {
        if !self.is_running() {
            self.stage.start();
        }
    }

    /// Waits until every complete line is stored, and judges what is. Nothing where no agent runs.
    fn settle(&mut self) -> Result<(), String> {
        if !self.is_running() {
            return Ok(());
        }
        let required: usize = self.generations.iter().map(|generation| generation.lines().count()).sum();
        let begun = Instant::now();
        let mut pause = Duration::from_millis(2);
        while self.stage.stored("app").len() < required && begun.elapsed() < self.patience {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.stage.settle();
        judge(&self.generations, &self.stage.stored("app"))?;
        assert_stored_once(&self.stage.collector.stored());
        Ok(())
    }

    /// Waits until the first line of what a file has now is stored, if there is one and an agent that can read it. Where it
    /// does not come, the next settling says so.
    fn await_first_line(&self, file: usize) {
        let Some((_, generation)) = &self.logs[file].current else { return };
        let Some(first) = self.generations[*generation].lines().next() else { return };
        let begun = Instant::now();
        while self.is_running() && begun.elapsed() < self.patience {
            if self.stage.stored("app").contains(&first) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins a generation that is not closed; its number.
    fn begin(&mut self) -> usize {
        self.generations.push(Generation::default());
        self.generations.len() - 1
    }

    fn create(&mut self, file: usize) {
        let generation = self.begin();
        let log = &mut self.logs[file];
        let handle = File::options().create(true).append(true).open(&log.path).unwrap();
        log.current = Some((handle, generation));
        log.unfinished = None;
    }

    /// A line like no other, from whatever bytes of it its place is told.
    fn line(&mut self) -> Vec<u8> {
        let number = self.lines;
        self.lines += 1;
        let len = if number % 61 == 60 { 3000 } else { 4 + number * 7919 % 60 };
        format!("{number:05}<{}>{number:05}\n", "pay\u{e9}".repeat(len)).into_bytes()
    }

    fn write(&mut self, file: usize, bytes: &[u8]) {
        if let Some((handle, generation)) = &mut self.logs[file].current {
            handle.write_all(bytes).unwrap();
            self.generations[*generation].bytes.extend_from_slice(bytes);
        }
    }

    fn append(&mut self, file: usize, lines: usize) {
        let bytes: Vec<u8> = (0..lines).flat_map(|_| self.line()).collect();
        self.write(file, &bytes);
    }

    fn append_partial(&mut self, file: usize) {
        if self.logs[file].current.is_none() || self.logs[file].unfinished.is_some() {
            return;
        }
        let line = self.line();
        // Within the payload, so that both parts have the number; within a character, often.
        let (one, other) = line.split_at(7 + line.len() % 11);
        self.write(file, one);
        self.logs[file].unfinished = Some(other.to_vec());
    }

    fn finish(&mut self, file: usize) {
        if let Some(rest) = self.logs[file].unfinished.take() {
            self.write(file, &rest);
        }
    }

    fn append_late(&mut self, file: usize, lines: usize) {
        let bytes: Vec<u8> = (0..lines).flat_map(|_| self.line()).collect();
        let Some((handle, generation)) = &mut self.logs[file].former else { return };
        let generation = &mut self.generations[*generation];
        // What follows an incomplete line may or may not be its rest, depending on whether that has become an event.
        if generation.rest().is_none() {
            handle.write_all(&bytes).unwrap();
            generation.bytes.extend_from_slice(&bytes);
        }
    }

    /// Where the file goes, or its copy.
    fn rotated(&mut self, file: usize, scheme: Scheme) -> PathBuf {
        let log = &mut self.logs[file];
        let path = |mark: String| PathBuf::from(format!("{}{mark}", log.path.display()));
        match scheme {
            Numbered => {
                for number in (1..=log.numbered).rev() {
                    fs::rename(path(format!(".{number}")), path(format!(".{}", number + 1))).unwrap();
                }
                log.numbered += 1;
                path(".1".into())
            }
            Dated => {
                log.dated += 1;
                path(format!("-2024{:02}{:02}", 1 + log.dated / 28, 1 + log.dated % 28))
            }
        }
    }

    fn rotate(&mut self, file: usize, scheme: Scheme) {
        if self.logs[file].current.is_none() {
            return;
        }
        let to = self.rotated(file, scheme);
        fs::rename(&self.logs[file].path, to).unwrap();
        self.close(file);
        self.logs[file].former = self.logs[file].current.take();
        self.create(file);
    }

    fn copytruncate(&mut self, file: usize, scheme: Scheme) {
        if self.logs[file].current.is_some() {
            let to = self.rotated(file, scheme);
            fs::copy(&self.logs[file].path, to).unwrap();
            self.truncate(file);
        }
    }

    fn truncate(&mut self, file: usize) {
        self.close(file);
        let generation = self.begin();
        if let Some((handle, current)) = &mut self.logs[file].current {
            handle.set_len(0).unwrap();
            *current = generation;
        }
    }

    fn delete(&mut self, file: usize) {
        self.close(file);
        fs::remove_file(&self.logs[file].path).unwrap();
        self.logs[file].current = None;
        self.logs[file].unfinished = None;
    }

    fn close(&mut self, file: usize) {
        if let Some((_, generation)) = &self.logs[file].current {
            self.generations[*generation].closed = true;
        }
    }
}

fn random_ops(rng: &mut SmallRng) -> Vec<Op> {
    let mut running = true;
    let mut ops = Vec::new();
    while ops.len() < OPS {
        if !running && rng.random_ratio(1, 5) {
            running = true;
            ops.push(Start);
            continue;
        }
        let file = rng.random_range(0..FILES.len());
        let scheme = if rng.random() { Numbered } else { Dated };
        ops.push(match rng.random_range(0..100) {
            0..36 => Append { file, lines: rng.random_range(1..60) },
            36..46 => Partial { file },
            46..54 => Finish { file },
            54..68 => Rotate { file, scheme },
            68..74 => Late { file, lines: rng.random_range(1..8) },
            74..82 => Copytruncate { file, scheme },
            82..86 => Truncate { file },
            86..89 => Delete { file },
            89..94 => Settle,
            kind => {
                running = false;
                if kind < 97 { Stop } else { Kill }
            }
        });
    }
    ops
}

/// Runs a sequence; what is wrong, where something is.
fn run(name: &str, glob: &str, ops: &[Op], patience: Duration) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| World::new(name, glob, patience).run(ops))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Err(said.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).to_owned())).unwrap_or_default())
    })
}

/// The sequence as a test that can be added to this file.
fn as_test(glob: &str, ops: &[Op]) -> String {
    let mut text = format!(
        "#[test]\nfn say_what_went_wrong() {{\n    replay(\n        \"say_what_went_wrong\",\n        {glob:?},\n        &[\n"
    );
    for op in ops {
        writeln!(text, "            {op:?},").unwrap();
    }
    text.push_str("        ],\n    );\n}\n");
    text
}

#[test]
fn any_sequence_delivers_every_line_once() {
    const NAME: &str = "any_sequence_delivers_every_line_once";
    let cases =
        std::env::var("LOG_AGENT_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let seeds = Scene::new(NAME);
    for case in 0..cases {
        let ops = random_ops(&mut seeds.rng(&format!("case {case}")));
        // Every other sequence has its rotated files within the glob.
        let glob = if case % 2 == 0 { "logs/*.log" } else { "logs/*.log*" };
        let name = format!("{NAME}, case {case}");
        let Err(error) = run(&name, glob, &ops, PATIENCE) else { continue };
        println!("{name}: {error}\nlooking for a shorter sequence that fails");
        let mut last = error;
        let minimal = shrink::shrink(ops, |ops| {
            run(&name, glob, ops, SHRINK_PATIENCE).map_err(|error| last = error).is_err()
        });
        panic!("{last}\n{} operations fail:\n{}", minimal.len(), as_test(glob, &minimal));
    }
}

/// A sequence that failed once.
#[track_caller]
fn replay(name: &str, glob: &str, ops: &[Op]) {
    if let Err(error) = run(name, glob, ops, PATIENCE) {
        panic!("{error}");
    }
}

#[test]
fn rotated_by_both_schemes_while_down_with_late_lines() {
    replay(
        "rotated_by_both_schemes_while_down_with_late_lines",
        "logs/*.log*",
        &[
            Append { file: 0, lines: 5 },
            Kill,
            Append { file: 0, lines: 5 },
            Rotate { file: 0, scheme: Dated },
            Append { file: 0, lines: 5 },
            Late { file: 0, lines: 2 },
            Rotate { file: 0, scheme: Numbered },
            Late { file: 0, lines: 2 },
            Append { file: 0, lines: 5 },
            Start,
            Settle,
            Late { file: 0, lines: 2 },
            Stop,
            Rotate { file: 0, scheme: Numbered },
            Late { file: 0, lines: 2 },
        ],
    );
}

#[test]
fn unfinished_line_of_a_file_that_is_deleted_and_made_anew() {
    replay(
        "unfinished_line_of_a_file_that_is_deleted_and_made_anew",
        "logs/*.log",
        &[
            Append { file: 1, lines: 3 },
            Partial { file: 1 },
            Delete { file: 1 },
            Append { file: 1, lines: 3 },
            Partial { file: 1 },
            Kill,
            Finish { file: 1 },
            Rotate { file: 1, scheme: Dated },
            Partial { file: 1 },
            Start,
            Settle,
            Truncate { file: 1 },
            Finish { file: 1 },
        ],
    );
}

#[test]
fn copy_is_not_taken_for_a_generation_that_was_rotated_away_unseen() {
    for ops in [
        &[Copytruncate { file: 2, scheme: Numbered }, Rotate { file: 2, scheme: Dated }][..],
        &[Kill, Copytruncate { file: 2, scheme: Numbered }, Rotate { file: 2, scheme: Dated }],
        &[Copytruncate { file: 2, scheme: Dated }, Settle, Stop, Rotate { file: 2, scheme: Numbered }],
    ] {
        replay("copy_is_not_taken_for_a_generation_that_was_rotated_away_unseen", "logs/*.log", ops);
    }
}

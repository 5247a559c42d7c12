//! Mending what a verification found.
//!
//! Invariants:
//! - The lock is held from the first look to the last.
//! - Damaged bytes are in `quarantine/`, durably, before anything is changed; segments and ledgers that are set aside are
//!   moved there. Damaged places stay in their files, where every reader steps over them.
//! - What cannot be delivered is counted as damaged in the ledger, event by event, as delivery would count it.

use std::sync::Arc;

use super::look::{self, Look};
use super::verify::{self, Checked, Finding, Kind};
use super::walk::{Damaged, Directory};
use super::{Progress, ToolError};
use crate::batch::BatchId;
use crate::event::{EventIter, Position, SourceName};
use crate::spool::disk::Disk;
use crate::spool::keeper::{Counts, Cut, CutOutcome};
use crate::spool::ledger::{BatchRecord, GROUP_MAX};
use crate::spool::lock::Lock;
use crate::spool::reader::{self, Step};
use crate::spool::segment::{self, SpoolId};
use crate::spool::survey::io_error;
use crate::spool::{Cutter, Frame, Spool, SpoolError, SpoolOptions};

/// Batches that are cut in passing have so many events, and bytes of lines, at most: what servers take by default.
const BATCH_EVENTS: u64 = 100;
const BATCH_BYTES: u64 = 1 << 20;
/// The most sources in such a batch.
const BATCH_SOURCES: usize = 100;

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Repaired {
    /// Findings that are no more.
    pub done: Vec<Finding>,
    /// Findings that are still there.
    pub left: Vec<Finding>,
    /// What is new in `quarantine/`.
    pub quarantined: Vec<String>,
    /// Events that are counted as damaged now.
    pub damaged_events: u64,
}

/// Mends what is wrong with a spool on which no agent runs.
///
/// # Errors
/// Where there is no spool, an agent holds it, or it cannot be read or written.
pub(crate) fn repair(options: &SpoolOptions, progress: Progress<'_>) -> Result<Repaired, ToolError> {
    let disk = Disk::new(&options.dir);
    if !disk.segments().is_dir() {
        return Err(SpoolError::Missing { path: options.dir.clone() }.into());
    }
    let lock = Arc::new(Lock::take(&disk)?);
    let before = look_and_check(&disk, progress)?;
    if before.findings.is_empty() {
        return Ok(Repaired::default());
    }
    let set_aside = quarantined(&disk)?;
    for damaged in &before.damaged {
        keep(&disk, damaged)?;
    }
    if before.findings.iter().any(|finding| finding.kind == Kind::Accounts) {
        disk.quarantine_path(&disk.ledger()).map_err(io_error(&disk.ledger()))?;
    }
    let damaged_events = settle(options, &lock, &before)?;
    let after = look_and_check(&disk, progress)?;
    let is_left = |finding: &Finding| after.findings.iter().any(|left| is_same(left, finding));
    let done = before.findings.into_iter().filter(|finding| !is_left(finding)).collect();
    let mut new = quarantined(&disk)?;
    new.retain(|name| !set_aside.contains(name));
    Ok(Repaired { done, left: after.findings, quarantined: new, damaged_events })
}

fn look_and_check(disk: &Disk, progress: Progress<'_>) -> Result<Checked, ToolError> {
    let look = Look::with(disk.clone(), None, look::read_ledger(disk)?)?;
    verify::check(&look, progress)
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    one.kind == other.kind
        && one.segment == other.segment
        && one.bytes == other.bytes
        && one.positions == other.positions
}

fn quarantined(disk: &Disk) -> Result<Vec<String>, SpoolError> {
    let names = Disk::list(&disk.quarantine()).map_err(io_error(&disk.quarantine()))?;
    let mut names: Vec<_> = names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Keeps damaged bytes in the quarantine.
fn keep(disk: &Disk, damaged: &Damaged) -> Result<(), ToolError> {
    let path = match damaged.directory {
        Directory::Segments => disk.segment(damaged.segment),
        Directory::DeadLetters => disk.dead_letters().join(segment::file_name(damaged.segment)),
    };
    let kept = Disk::open(&path).and_then(|file| {
        reader::keep(disk, &file, &damaged.quarantine_name(), damaged.from, damaged.to).map(drop)
    });
    kept.map_err(|error| io_error(&disk.quarantine())(error).into())
}

/// Opens the spool, whose recovery mends what it can, and settles the events that cannot be read. Says how many.
fn settle(options: &SpoolOptions, lock: &Arc<Lock>, before: &Checked) -> Result<u64, ToolError> {
    // What recovery has to say is in the findings.
    let silence = tracing::subscriber::NoSubscriber::new();
    tracing::subscriber::with_default(silence, || {
        let spool = Spool::open_with(Disk::new(&options.dir), options, lock.clone(), |recovered| {
            // All that is known stands at the head of a new segment then, whatever the old ones say.
            recovered.begin = true;
            Ok(())
        })?;
        let damaged = || -> u64 {
            spool.batches.shared.view().sources.values().map(|record| record.account.damaged).sum()
        };
        let already = damaged();
        for batch in spool.batches().outstanding() {
            if before.lost.iter().any(|(first, end)| batch.first < *end && *first <= batch.last) {
                // One that is damaged is replaced by what is intact of it.
                let _ = spool.batches().read(batch);
            }
        }
        let end = before.lost.iter().map(|(_, end)| *end).max();
        if let Some(end) = end.filter(|end| *end > spool.cursor) {
            cut_until(spool.cutter(), end)?;
        }
        let events = damaged().saturating_sub(already);
        spool.close();
        Ok(events)
    })
}

/// Cuts batches up to `end`, so that the damaged events before it are counted. Without the name of an agent nothing can
/// be cut: payloads have it.
fn cut_until(mut cutter: Cutter, end: Position) -> Result<(), ToolError> {
    let mut from = cutter.reader.next_position();
    while from < end && !cutter.profile.agent_name.is_empty() {
        let mut slab = Slab::new(from);
        while slab.cut.cursor < end && slab.cut.batches.len() < GROUP_MAX {
            let step = cutter.reader.step().map_err(io_error(&cutter.log.disk.segments()))?;
            match step {
                Step::Frame(frame) => slab.frame(&frame),
                Step::Missing(missing) => {
                    slab.finish();
                    slab.cut.cursor = missing.end;
                    for (source, events) in cutter.owners(missing.first, missing.end) {
                        *slab.cut.damaged.entry(source).or_default() += events;
                    }
                }
                Step::CaughtUp => break,
            }
        }
        slab.finish();
        let cursor = slab.cut.cursor;
        let outcome = cutter.keeper.cut(slab.cut).and_then(crate::spool::Pending::wait);
        if outcome != Ok(CutOutcome::Durable) || cursor == from {
            break;
        }
        from = cursor;
    }
    Ok(())
}

/// Batches in the making.
struct Slab {
    cut: Cut,
    filling: Option<Filling>,
}

struct Filling {
    record: BatchRecord,
    spool_id: SpoolId,
    bytes: u64,
    sources: Vec<SourceName>,
}

impl Slab {
    fn new(from: Position) -> Self {
        let cut =
            Cut { from, batches: Vec::new(), cursor: from, events: Counts::new(), damaged: Counts::new() };
        Self { cut, filling: None }
    }

    fn frame(&mut self, frame: &Frame) {
        let header = &frame.header;
        let skip = self.cut.cursor.since(header.first_position);
        let source = &header.checkpoint.source;
        let positions = (0..u64::from(header.events)).map(|index| header.first_position.plus(index));
        for (position, event) in
            positions.zip(EventIter::new(&frame.payload)).skip(usize::try_from(skip).unwrap_or(usize::MAX))
        {
            let bytes = event.line.len() as u64;
            if self.filling.as_ref().is_some_and(|filling| !filling.takes(frame, bytes)) {
                self.finish();
            }
            let filling = self.filling.get_or_insert_with(|| Filling {
                record: BatchRecord {
                    id: BatchId { first: position, last: position, part: None },
                    at: frame.at,
                },
                spool_id: frame.spool_id,
                bytes: 0,
                sources: Vec::new(),
            });
            filling.record.id.last = position;
            filling.bytes += bytes;
            if !filling.sources.contains(source) {
                filling.sources.push(source.clone());
            }
            *self.cut.events.entry(source.clone()).or_default() += 1;
            self.cut.cursor = position.plus(1);
        }
    }

    fn finish(&mut self) {
        self.cut.batches.extend(self.filling.take().map(|filling| filling.record));
    }
}

impl Filling {
    fn takes(&self, frame: &Frame, bytes: u64) -> bool {
        let source = &frame.header.checkpoint.source;
        self.spool_id == frame.spool_id
            && self.record.id.events() < BATCH_EVENTS
            && self.bytes + bytes <= BATCH_BYTES
            && (self.sources.len() < BATCH_SOURCES || self.sources.contains(source))
    }
}

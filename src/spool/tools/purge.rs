//! Dropping events that wait, at an operator's word.
//!
//! Invariants:
//! - Every event is counted, as dropped or as damaged, in the commit of the ledger that drops it.
//! - A batch goes whole or not at all, and none goes that has an event which was not meant.
//! - Events go from the oldest on, without leaving out one: what is read later stays in order.

use std::sync::Arc;

use serde::Serialize;

use super::{Progress, ToolError};
use crate::event::{Position, Timestamp};
use crate::spool::disk::Disk;
use crate::spool::drop_oldest::Plan;
use crate::spool::keeper::Counts;
use crate::spool::ledger::{Books, Changes, Group};
use crate::spool::lock::Lock;
use crate::spool::log::Log;
use crate::spool::missing;
use crate::spool::reader::{FrameReader, Step};
use crate::spool::recovery::Recovered;
use crate::spool::survey::io_error;
use crate::spool::view::Shared;
use crate::spool::{Spool, SpoolError, SpoolOptions};

/// Which events are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// All.
    All,
    /// Those that stand in front of the first that was read at this time or later.
    ReadBefore(Timestamp),
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Purged {
    /// Events dropped, by source.
    pub dropped: Vec<(String, u64)>,
    /// Events that could not be read anyway, by source; they count as damaged.
    pub damaged: Vec<(String, u64)>,
    /// Bytes of disk that are free now.
    pub freed_bytes: u64,
}

/// Drops events of a spool on which no agent runs.
///
/// # Errors
/// Where there is no spool, an agent holds it, or it cannot be read or written.
pub(crate) fn purge(options: &SpoolOptions, what: What, progress: Progress<'_>) -> Result<Purged, ToolError> {
    let disk = Disk::new(&options.dir);
    if !disk.segments().is_dir() {
        return Err(SpoolError::Missing { path: options.dir.clone() }.into());
    }
    let lock = Arc::new(Lock::take(&disk)?);
    let before = Disk::usage(&disk.segments());
    let mut purged = Purged::default();
    let spool = Spool::open_with(disk.clone(), options, lock.clone(), |recovered| {
        let log = Log::new(disk.clone(), recovered.segments.clone(), recovered.end);
        let shared = Shared::new(&recovered.books, recovered.totals.clone());
        let mut planner =
            Planner { log: Arc::new(log), shared, books: &recovered.books, plan: Plan::default() };
        let end = planner.end(what, recovered.end).map_err(io_error(&disk.segments()))?;
        planner.before(end, progress).map_err(io_error(&disk.segments()))?;
        let plan = planner.plan;
        purged.dropped = named(&plan.dropped);
        purged.damaged = named(&plan.damaged);
        carry_out(recovered, plan)
    })?;
    // What the segments that go held is settled, and the newest one says so.
    spool.batches.keeper.tidy();
    spool.close();
    purged.freed_bytes = before.saturating_sub(Disk::usage(&disk.segments()));
    Ok(purged)
}

fn named(counts: &Counts) -> Vec<(String, u64)> {
    counts.iter().map(|(source, events)| (source.to_string(), *events)).collect()
}

struct Planner<'a> {
    log: Arc<Log>,
    shared: Shared,
    books: &'a Books,
    plan: Plan,
}

impl Planner<'_> {
    /// The position in front of which everything is to go.
    fn end(&self, what: What, end: Position) -> std::io::Result<Position> {
        let What::ReadBefore(time) = what else { return Ok(end) };
        let mut reader = FrameReader::new(self.log.clone(), self.books.frontier(), None, false);
        loop {
            let next = reader.next_position();
            match reader.step()? {
                Step::Frame(frame) if frame.header.detected >= time => {
                    return Ok(frame.header.first_position.max(next));
                }
                Step::Frame(_) | Step::Missing(_) => {}
                Step::CaughtUp => return Ok(end),
            }
        }
    }

    fn before(&mut self, end: Position, progress: Progress<'_>) -> std::io::Result<()> {
        let frontier = self.books.frontier();
        let total = end.since(frontier);
        for record in self.books.batches().filter(|record| record.id.last < end) {
            self.plan.count(&self.log, &self.shared, record.id, true)?;
            self.plan.gone.push(record.id);
            progress(record.id.last.since(frontier), total);
        }
        self.plan.cursor = self.books.cursor.max(end);
        let mut reader = FrameReader::new(self.log.clone(), self.books.cursor, None, false);
        while reader.next_position() < end {
            let next = reader.next_position();
            match reader.step()? {
                Step::Frame(frame) => {
                    let first = frame.header.first_position.max(next);
                    let events = frame.header.end_position().min(end).since(first);
                    let source = frame.header.checkpoint.source;
                    *self.plan.dropped.entry(source.clone()).or_default() += events;
                    *self.plan.uncut.entry(source).or_default() += events;
                }
                Step::Missing(gap) => {
                    let last = gap.end.min(end);
                    for (source, events) in missing::owners(&self.log, &self.shared, gap.first, last)? {
                        *self.plan.damaged.entry(source.clone()).or_default() += events;
                        *self.plan.uncut.entry(source).or_default() += events;
                    }
                }
                Step::CaughtUp => break,
            }
            progress(reader.next_position().since(frontier), total);
        }
        Ok(())
    }
}

/// Commits what was planned.
fn carry_out(recovered: &mut Recovered, plan: Plan) -> Result<(), SpoolError> {
    if plan.gone.is_empty() && plan.uncut.is_empty() {
        return Ok(());
    }
    let books = &mut recovered.books;
    let mut changes = Changes::default();
    let gone: std::collections::HashSet<_> = plan.gone.into_iter().collect();
    for (number, group) in &mut books.groups {
        let before = group.batches.len();
        group.batches.retain(|record| !gone.contains(&record.id));
        if group.batches.is_empty() {
            changes.group(*number, &Group::default());
        } else if group.batches.len() < before {
            changes.group(*number, group);
        }
    }
    books.groups.retain(|_, group| !group.batches.is_empty());
    for (source, events) in plan.dropped {
        books.sources.entry(source).or_default().account.dropped += events;
    }
    for (source, events) in plan.damaged {
        books.sources.entry(source).or_default().account.damaged += events;
    }
    for (source, events) in plan.uncut {
        books.sources.entry(source).or_default().cut += events;
    }
    for (source, record) in &books.sources {
        changes.source(source, record);
    }
    books.cursor = plan.cursor;
    changes.cursor(books.cursor);
    recovered.ledger.commit(changes)?;
    // The segment that held them can go once there is a newer one.
    recovered.begin = true;
    Ok(())
}

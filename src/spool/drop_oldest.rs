//! What dropping the oldest segment means: which batches go, which events are counted, where cutting goes on.
//!
//! Invariant: a batch goes whole or not at all, so that none comes to be that delivery does not know of: one that
//! reaches past the segment goes with it.

use std::io;
use std::sync::Arc;

use super::content;
use super::keeper::Counts;
use super::ledger::Books;
use super::log::{Extent, Log};
use super::reader::FrameReader;
use super::view::Shared;
use crate::batch::BatchId;
use crate::event::Position;

/// What is to be changed in the books.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Batches that are taken out.
    pub gone: Vec<BatchId>,
    /// Events dropped of each source.
    pub dropped: Counts,
    /// Events of each source that were damaged before.
    pub damaged: Counts,
    /// Those of both that were not cut into batches.
    pub uncut: Counts,
    /// The first position that is not cut, after the drop.
    pub cursor: Position,
}

/// Plans to drop all that is not settled before the end of `extent`, the oldest segment with such events.
pub(super) fn plan(log: &Arc<Log>, shared: &Shared, books: &Books, extent: Extent) -> io::Result<Plan> {
    let mut plan = Plan { cursor: books.cursor.max(extent.end), ..Plan::default() };
    for record in books.batches().filter(|record| record.id.first < extent.end) {
        plan.count(log, shared, record.id, true)?;
        plan.gone.push(record.id);
    }
    if books.cursor < extent.end {
        let last = Position(extent.end.0.saturating_sub(1));
        plan.count(log, shared, BatchId { first: books.cursor, last, part: None }, false)?;
    }
    Ok(plan)
}

impl Plan {
    /// Counts what is left of a batch, or of a run that is not cut.
    pub(super) fn count(
        &mut self,
        log: &Arc<Log>,
        shared: &Shared,
        id: BatchId,
        cut: bool,
    ) -> io::Result<()> {
        let mut reader = FrameReader::new(log.clone(), id.first, None, false);
        let run = content::read_run(&mut reader, id.first, id.last)?;
        let salvage = content::salvage(log, shared, id, &run, &Counts::new())?;
        for (source, events) in salvage.counts.iter().chain(&salvage.damaged).filter(|_| !cut) {
            *self.uncut.entry(source.clone()).or_default() += events;
        }
        for (source, events) in salvage.counts {
            *self.dropped.entry(source).or_default() += events;
        }
        for (source, events) in salvage.damaged {
            *self.damaged.entry(source).or_default() += events;
        }
        Ok(())
    }
}

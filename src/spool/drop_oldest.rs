//! What dropping the oldest segment means: which batches go, which events are counted, where cutting goes on.

use std::io;
use std::sync::Arc;

use super::content;
use super::keeper::Counts;
use super::ledger::{BatchRecord, Books, Location};
use super::log::{Extent, Log};
use super::reader::FrameReader;
use crate::batch::{BatchContent, BatchId};
use crate::event::{Position, Seq, SourceName};

/// What is to be changed in the books.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Batches that are taken out.
    pub gone: Vec<BatchId>,
    /// What is left of a batch that reaches past the segment.
    pub kept: Vec<BatchRecord>,
    /// Events dropped of each source.
    pub dropped: Counts,
    /// Where the segment was not cut to its end: the sequence numbers after it.
    pub cut_seqs: Vec<(SourceName, Seq)>,
    /// The first position that is not cut, after the drop.
    pub cursor: Position,
}

/// Plans to drop all that is not acknowledged before the end of `extent`, the oldest segment with such events.
pub(super) fn plan(log: &Arc<Log>, books: &Books, extent: Extent) -> io::Result<Plan> {
    let mut plan = Plan { cursor: books.cursor, ..Plan::default() };
    for record in books.batches().filter(|record| record.id.first < extent.end) {
        let id = record.id;
        let last = if id.part.is_some() { id.last } else { Position(id.last.0.min(extent.end.0 - 1)) };
        let mut reader = FrameReader::new(log.clone(), id.first, Some(record.at), false);
        let run = content::read_run(&mut reader, id.first, last)?;
        match id.part {
            Some(part) => plan.count(counts(&run.content.part(part.from, part.to))),
            None => plan.count(run.counts),
        }
        plan.gone.push(id);
        if id.part.is_none() && id.last >= extent.end {
            let rest = BatchId { first: extent.end, last: id.last, part: None };
            plan.kept.push(BatchRecord { id: rest, at: Location::default() });
        }
    }
    if books.cursor < extent.end {
        let mut reader = FrameReader::new(log.clone(), books.cursor, None, false);
        let last = Position(extent.end.0 - 1);
        let run = content::read_run(&mut reader, books.cursor, last)?;
        plan.count(run.counts);
        plan.cut_seqs = run.next_seqs.into_iter().collect();
        plan.cursor = extent.end;
    }
    Ok(plan)
}

fn counts(content: &BatchContent) -> impl Iterator<Item = (SourceName, u64)> {
    content.sources.iter().map(|run| (run.source.clone(), u64::from(run.events)))
}

impl Plan {
    fn count(&mut self, counts: impl IntoIterator<Item = (SourceName, u64)>) {
        for (source, events) in counts {
            *self.dropped.entry(source).or_default() += events;
        }
    }
}

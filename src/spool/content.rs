//! Reading a run of positions back as the content of a batch.

use std::io;

use super::keeper::Counts;
use super::log::Log;
use super::missing;
use super::reader::{Frame, FrameReader, Step};
use super::view::Shared;
use crate::batch::{BatchContent, BatchId, FrameSlice, Part};
use crate::event::{EventIter, Position, SourceName};

/// What was found of a run of positions.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The events before the first that is missing, in payload order.
    pub content: BatchContent,
    /// All positions, piece by piece.
    pieces: Vec<Piece>,
}

/// Positions of one source, or missing ones.
#[derive(Clone, Debug)]
struct Piece {
    first: Position,
    events: u64,
    /// None where they are missing and it is not known yet whose they were.
    source: Option<SourceName>,
    intact: bool,
}

/// What is left of a damaged batch.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Intact positions: runs of first and last, both included.
    pub intact: Vec<(Position, Position)>,
    /// Intact events of each source.
    pub counts: Counts,
    /// Missing events of each source, as far as it is known whose they were.
    pub damaged: Counts,
}

impl Run {
    /// Whether everything is there.
    pub(super) fn is_whole(&self) -> bool {
        self.pieces.iter().all(|piece| piece.intact)
    }

    fn missing(&mut self, first: Position, end: Position) {
        self.pieces.push(Piece { first, events: end.since(first), source: None, intact: false });
    }

    /// What is left of the run, or of a part of it. `owners` says whose the events from one position to before another
    /// were.
    fn salvage(
        &self,
        part: Option<Part>,
        owners: impl Fn(Position, Position) -> io::Result<Counts>,
    ) -> io::Result<Salvage> {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            if piece.source.is_some() {
                pieces.push(piece.clone());
                continue;
            }
            let mut first = piece.first;
            for (source, events) in owners(piece.first, piece.first.plus(piece.events))? {
                pieces.push(Piece { first, events, source: Some(source), intact: false });
                first = first.plus(events);
            }
        }
        let (from, to) = part.map_or((0, u64::MAX), |part| (part.from.into(), part.to.into()));
        let mut sources: Vec<&SourceName> = Vec::new();
        for source in pieces.iter().filter_map(|piece| piece.source.as_ref()) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let mut salvage = Salvage::default();
        let mut index = 0_u64;
        for source in sources {
            for piece in pieces.iter().filter(|piece| piece.source.as_ref() == Some(source)) {
                let (start, end) = (from.max(index), to.min(index + piece.events));
                if start < end {
                    salvage.add(source, piece, start - index, end - start);
                }
                index += piece.events;
            }
        }
        salvage.intact.sort_unstable();
        salvage.intact.dedup_by(|next, run| {
            let joins = run.1.plus(1) == next.0;
            if joins {
                run.1 = next.1;
            }
            joins
        });
        Ok(salvage)
    }
}

impl Salvage {
    fn add(&mut self, source: &SourceName, piece: &Piece, skip: u64, events: u64) {
        let counts = if piece.intact { &mut self.counts } else { &mut self.damaged };
        *counts.entry(source.clone()).or_default() += events;
        if piece.intact {
            let first = piece.first.plus(skip);
            self.intact.push((first, Position(first.0 + events - 1)));
        }
    }
}

/// Says what is left of a batch that was read as `run`. `counted` are events that are known to be elsewhere.
pub(super) fn salvage(
    log: &Log,
    shared: &Shared,
    batch: BatchId,
    run: &Run,
    counted: &Counts,
) -> io::Result<Salvage> {
    let mut salvage = run.salvage(batch.part, |first, end| missing::owners(log, shared, first, end))?;
    let found =
        salvage.counts.values().chain(salvage.damaged.values()).fold(0, |sum: u64, n| sum.saturating_add(*n));
    let mut counted = counted.clone();
    for (source, events) in &salvage.counts {
        *counted.entry(source.clone()).or_default() += events;
    }
    missing::fill_up(shared, &mut salvage.damaged, batch.events().saturating_sub(found), &counted);
    Ok(salvage)
}

/// Reads the events from `first` to `last`, both included. The reader stands at `first`.
pub(super) fn read_run(reader: &mut FrameReader, first: Position, last: Position) -> io::Result<Run> {
    let mut run = Run::default();
    let mut next = first;
    let end = last.plus(1);
    while next < end {
        match reader.step()? {
            Step::Frame(frame) => {
                let from = frame.header.first_position.max(next);
                if from > last {
                    break;
                }
                let to = Position(frame.header.end_position().0.saturating_sub(1)).min(last);
                if run.is_whole() {
                    push(&mut run.content, &frame, from, to);
                }
                run.pieces.push(Piece {
                    first: from,
                    events: to.since(from) + 1,
                    source: Some(frame.header.checkpoint.source),
                    intact: true,
                });
                next = to.plus(1);
            }
            Step::Missing(missing) => {
                run.missing(missing.first.max(next), missing.end.min(end));
                next = missing.end;
            }
            Step::CaughtUp => break,
        }
    }
    if next < end {
        run.missing(next, end);
    }
    Ok(run)
}

/// Adds the events of `frame` from position `from` to position `to`, both included.
pub(super) fn push(content: &mut BatchContent, frame: &Frame, from: Position, to: Position) {
    let skip = from.since(frame.header.first_position);
    let events = to.since(from) + 1;
    let mut events_left = EventIter::new(&frame.payload);
    let start = advance(&mut events_left, skip, frame.payload.len());
    let end = advance(&mut events_left, events, frame.payload.len());
    let slice = FrameSlice {
        payload: frame.payload.clone(),
        range: start..end,
        detected: frame.header.detected,
        path: frame.header.checkpoint.path.as_path().into(),
    };
    let count = u32::try_from(events).unwrap_or(u32::MAX);
    content.push(&frame.header.checkpoint.source, frame.header.first_seq.plus(skip), count, slice);
}

/// Steps over `events` events and says where in the payload of `len` bytes the next one begins.
fn advance(events_left: &mut EventIter<'_>, events: u64, len: usize) -> usize {
    for _ in 0..events {
        if events_left.next().is_none() {
            break;
        }
    }
    len - events_left.rest().len()
}

//! Reading a run of positions back as the content of a batch.

use std::collections::BTreeMap;
use std::io;

use super::keeper::Counts;
use super::reader::{Frame, FrameReader, Step};
use crate::batch::{BatchContent, FrameSlice};
use crate::event::{EventIter, Position, Seq, SourceName};

/// What was found of a run of positions.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The events of the first intact run, in payload order.
    pub content: BatchContent,
    /// Intact events of each source, over all runs.
    pub counts: Counts,
    /// For each source met, the sequence number after its last event.
    pub next_seqs: BTreeMap<SourceName, Seq>,
    /// The intact positions: runs of first and last, both included. One run is what an undamaged batch has.
    pub intact: Vec<(Position, Position)>,
    /// Events of each source whose frames are damaged while their headers are not.
    pub damaged: Vec<(SourceName, u64)>,
}

impl Run {
    /// Whether everything from `first` to `last` is there.
    pub(super) fn is_whole(&self, first: Position, last: Position) -> bool {
        self.intact.as_slice() == [(first, last)]
    }
}

/// Reads the events from `first` to `last`, both included. The reader stands at or before `first`.
pub(super) fn read_run(reader: &mut FrameReader, first: Position, last: Position) -> io::Result<Run> {
    let mut run = Run::default();
    let mut next = first;
    while next <= last {
        match reader.step()? {
            Step::Frame(frame) => {
                if frame.header.first_position > last {
                    break;
                }
                let from = frame.header.first_position.max(next);
                let to = Position(frame.header.end_position().0.saturating_sub(1)).min(last);
                match run.intact.last_mut() {
                    Some((_, end)) if end.plus(1) == from => *end = to,
                    _ => run.intact.push((from, to)),
                }
                if run.intact.len() == 1 {
                    push(&mut run.content, &frame, from, to);
                }
                let source = &frame.header.checkpoint.source;
                *run.counts.entry(source.clone()).or_default() += to.since(from) + 1;
                let after = to.plus(1).since(frame.header.first_position);
                run.next_seqs.insert(source.clone(), frame.header.first_seq.plus(after));
                next = to.plus(1);
            }
            Step::Damaged(header) => {
                let from = header.first_position.max(next);
                let to = header.end_position().min(last.plus(1));
                if to > from {
                    run.damaged.push((header.checkpoint.source.clone(), to.since(from)));
                    next = to;
                }
            }
            Step::CaughtUp => break,
        }
    }
    Ok(run)
}

/// Adds the events of `frame` from position `from` to position `to`, both included.
fn push(content: &mut BatchContent, frame: &Frame, from: Position, to: Position) {
    let skip = from.since(frame.header.first_position);
    let events = to.since(from) + 1;
    let mut events_left = EventIter::new(&frame.payload);
    let start = advance(&mut events_left, skip, frame.payload.len());
    let end = advance(&mut events_left, events, frame.payload.len());
    let slice =
        FrameSlice { payload: frame.payload.clone(), range: start..end, detected: frame.header.detected };
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

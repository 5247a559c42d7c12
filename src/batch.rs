//! What a batch is on its way from the spool to the server.
//!
//! Invariant: a [`BatchId`] under one spool id names one content for ever, so a resend carries the same key and the
//! same bytes.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{EventIter, LogEvent, Position, Seq, SourceName, Timestamp};

/// Names a batch: a contiguous run of positions, or a part of one that was bisected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Position of its first event; for a part, that of the whole batch.
    pub first: Position,
    /// Position of its last event, included; for a part, that of the whole batch.
    pub last: Position,
    /// For a part of a bisected batch, which of the whole batch's events it has.
    pub part: Option<Part>,
}

/// A run of a bisected batch's events, counted in payload order (sources in order of first appearance, the events of
/// each in order), from 0, `to` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Index of the first event.
    pub from: u32,
    /// Index after the last event.
    pub to: u32,
}

impl BatchId {
    /// How many events the batch, or the part, has.
    #[must_use]
    pub fn events(&self) -> u64 {
        match self.part {
            Some(part) => u64::from(part.to.saturating_sub(part.from)),
            None => self.last.since(self.first).saturating_add(1),
        }
    }

    /// The two halves of this batch in payload order, the first never smaller; `None` for a single event.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let events = u32::try_from(self.events()).ok().filter(|events| *events > 1)?;
        let from = self.part.map_or(0, |part| part.from);
        let to = from.saturating_add(events);
        let middle = from.saturating_add(events.div_ceil(2));
        let half = |from, to| Self { part: Some(Part { from, to }), ..*self };
        Some([half(from, middle), half(middle, to)])
    }
}

impl fmt::Display for BatchId {
    /// `1001-1050`, or `1001-1050.0-25` for a part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)?;
        match self.part {
            Some(part) => write!(f, ".{}-{}", part.from, part.to),
            None => Ok(()),
        }
    }
}

/// The events of one batch as they stand in the spool, in payload order.
#[derive(Clone, Debug, Default)]
pub struct BatchContent {
    /// Sources in order of first appearance.
    pub sources: Vec<SourceRun>,
}

impl BatchContent {
    /// Adds a run of `events` events of `source` that stand in `slice`, after what the batch has of that source.
    ///
    /// The first is number `first_seq`, the one after the last of the source that the batch already has: a batch
    /// never spans a gap.
    pub fn push(&mut self, source: &SourceName, first_seq: Seq, events: u32, slice: FrameSlice) {
        if events == 0 {
            return;
        }
        // Neighbouring frames are mostly of one source, the last one.
        match self.sources.iter_mut().rev().find(|run| run.source == *source) {
            Some(run) => {
                debug_assert_eq!(
                    run.first_seq.plus(run.events.into()),
                    first_seq,
                    "a batch never spans a gap"
                );
                run.events = run.events.saturating_add(events);
                run.slices.push(slice);
            }
            None => self.sources.push(SourceRun {
                source: source.clone(),
                first_seq,
                events,
                slices: vec![slice],
            }),
        }
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.sources.iter().map(|run| u64::from(run.events)).sum()
    }

    /// What the batch has of each source, in payload order.
    #[must_use]
    pub fn ranges(&self) -> Vec<SourceRange> {
        let range = |run: &SourceRun| SourceRange {
            source: run.source.clone(),
            first: run.first_seq,
            last: run.first_seq.plus(u64::from(run.events.saturating_sub(1))),
        };
        self.sources.iter().map(range).collect()
    }

    /// The events from index `from` to before index `to`, counted in payload order from 0: the content of a [`Part`].
    ///
    /// Sources without an event in it are left out. The parts of a batch, one after the other, have its events in
    /// its payload order.
    #[must_use]
    pub fn part(&self, from: u32, to: u32) -> Self {
        let mut part = Self::default();
        let mut run_start = 0_u32;
        for run in &self.sources {
            let run_end = run_start.saturating_add(run.events);
            let (first, last) = (from.clamp(run_start, run_end), to.clamp(run_start, run_end));
            if first < last {
                part.sources.push(run.part(first - run_start, last - run_start));
            }
            run_start = run_end;
        }
        part
    }
}

/// The events of one source in a batch, in file order, with sequence numbers that follow each other.
#[derive(Clone, Debug)]
pub struct SourceRun {
    /// The source.
    pub source: SourceName,
    /// Sequence number of the first event.
    pub first_seq: Seq,
    /// How many events there are, at least one.
    pub events: u32,
    /// Where they stand.
    pub slices: Vec<FrameSlice>,
}

impl SourceRun {
    /// The events from index `from` to before index `to` of this run.
    fn part(&self, from: u32, to: u32) -> Self {
        let mut slices = Vec::new();
        let mut at = 0_u32;
        for slice in &self.slices {
            if at >= to {
                break;
            }
            let mut walk = slice.walk();
            let skipped = walk.by_ref().take(from.saturating_sub(at) as usize).count();
            let start = slice.range.end - walk.rest().len();
            at = at.saturating_add(u32::try_from(skipped).unwrap_or(u32::MAX));
            let kept = walk.by_ref().take(to.saturating_sub(at) as usize).count();
            let end = slice.range.end - walk.rest().len();
            at = at.saturating_add(u32::try_from(kept).unwrap_or(u32::MAX));
            if kept > 0 {
                slices.push(FrameSlice { range: start..end, ..slice.clone() });
            }
        }
        Self {
            source: self.source.clone(),
            first_seq: self.first_seq.plus(from.into()),
            events: to.saturating_sub(from),
            slices,
        }
    }
}

/// A run of events within one frame.
#[derive(Clone, Debug)]
pub struct FrameSlice {
    /// The frame's payload, checked.
    pub payload: Arc<Vec<u8>>,
    /// The encoded events within it.
    pub range: Range<usize>,
    /// When the lines were detected.
    pub detected: Timestamp,
    /// The file that they were read from.
    pub path: Arc<Path>,
}

impl FrameSlice {
    /// The events of the slice.
    pub fn events(&self) -> impl Iterator<Item = LogEvent<'_>> {
        self.walk()
    }

    fn walk(&self) -> EventIter<'_> {
        EventIter::new(self.payload.get(self.range.clone()).unwrap_or_default())
    }
}

/// A range of sequence numbers of one source, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The source.
    pub source: SourceName,
    /// Its first event in the batch.
    pub first: Seq,
    /// Its last event in the batch.
    pub last: Seq,
}

/// A batch encoded for the wire.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The batch.
    pub batch: BatchId,
    /// Its key without the quotes: `<spool id>-<batch id>`. Equal keys mean equal bodies, always.
    pub key: Arc<str>,
    /// The agent's name that it was encoded under, which the configuration may have changed since.
    pub agent: Arc<str>,
    /// What it has of each source, in payload order.
    pub sources: Vec<SourceRange>,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body before any content coding.
    pub body: Bytes,
    /// Where in the body each event ends, its line feed included, where events follow upon each other in it; empty where
    /// nobody takes it apart.
    pub ends: Vec<usize>,
}

impl Payload {
    /// The value of the `Log-Agent-Seq` header: one range for each source in payload order, as in
    /// `1001-1050, 77-90`.
    #[must_use]
    pub fn seq_header(&self) -> String {
        let mut header = String::new();
        for range in &self.sources {
            if !header.is_empty() {
                header.push_str(", ");
            }
            // Writing to a String cannot fail.
            let _ = write!(header, "{}-{}", range.first, range.last);
        }
        header
    }

    /// The value of the `Idempotency-Key` header, a quoted string.
    #[must_use]
    pub fn key_header(&self) -> String {
        format!("\"{}\"", self.key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventBlock;

    /// A batch whose frames alternate between sources as `frames` says: source number and lines of each.
    fn content_of(frames: &[(u8, Vec<Vec<u8>>)]) -> BatchContent {
        let mut content = BatchContent::default();
        let mut next_seq = [Seq(100); 256];
        for (source, lines) in frames {
            let mut block = EventBlock::default();
            // An event before the slice and one after it: a batch may begin and end within a frame.
            block.push(b"before", false);
            let start = block.bytes().len();
            lines.iter().for_each(|line| block.push(line, false));
            let end = block.bytes().len();
            block.push(b"after", false);
            let events = u32::try_from(lines.len()).unwrap();
            let slice = FrameSlice {
                payload: Arc::new(block.into_buffer()),
                range: start..end,
                detected: Timestamp::from_millis(0),
                path: Path::new("/app.log").into(),
            };
            let seq = &mut next_seq[usize::from(*source)];
            content.push(&SourceName::from(source.to_string().as_str()), *seq, events, slice);
            *seq = seq.plus(events.into());
        }
        content
    }

    /// Every event as source, sequence number and line, in payload order.
    fn numbered(content: &BatchContent) -> Vec<(SourceName, Seq, Vec<u8>)> {
        let mut all = Vec::new();
        for run in &content.sources {
            let lines: Vec<_> = run.slices.iter().flat_map(FrameSlice::events).collect();
            assert_eq!(lines.len(), run.events as usize, "the count of a run is that of its slices");
            for (index, event) in lines.iter().enumerate() {
                all.push((run.source.clone(), run.first_seq.plus(index as u64), event.line.to_vec()));
            }
        }
        all
    }

    #[test]
    fn ranges_name_the_first_and_the_last_event_of_each_source() {
        let lines = |count| vec![b"x".to_vec(); count];
        let content = content_of(&[(1, lines(3)), (2, lines(1)), (1, lines(2))]);
        let range = |source: &str, first, last| SourceRange {
            source: SourceName::from(source),
            first: Seq(first),
            last: Seq(last),
        };
        assert_eq!(content.ranges(), [range("1", 100, 104), range("2", 100, 100)]);
        assert_eq!(content.events(), 6);
    }

    #[test]
    fn halves_of_halves_end_in_single_events() {
        let whole = BatchId { first: Position(11), last: Position(15), part: None };
        let mut open = vec![whole];
        let mut single = Vec::new();
        while let Some(batch) = open.pop() {
            match batch.halves() {
                Some(halves) => open.extend(halves),
                None => single.push(batch.part.unwrap()),
            }
        }
        single.sort_unstable();
        assert_eq!(single, (0..5).map(|from| Part { from, to: from + 1 }).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn parts_one_after_the_other_are_the_whole_batch(
            frames in proptest::collection::vec(
                (0..4_u8, proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..6)), 0..8),
            cuts in proptest::collection::vec(any::<u32>(), 0..5),
        ) {
            let whole = content_of(&frames);
            let events = u32::try_from(whole.events()).unwrap();
            let mut cuts: Vec<u32> = cuts.iter().map(|cut| cut % (events + 1)).chain([0, events]).collect();
            cuts.sort_unstable();
            let mut joined = Vec::new();
            for pair in cuts.windows(2) {
                let part = whole.part(pair[0], pair[1]);
                prop_assert_eq!(part.events(), u64::from(pair[1] - pair[0]));
                prop_assert!(part.sources.iter().all(|run| run.events > 0));
                joined.extend(numbered(&part));
            }
            prop_assert_eq!(joined, numbered(&whole));
        }
    }
}

//! What a batch is on its way from the spool to the server.
//!
//! Invariant: a [`BatchId`] under one spool id names one content for ever, so a resend carries the same key and the
//! same bytes.

use std::fmt::{self, Write as _};
use std::ops::Range;
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

/// A run of events within one frame.
#[derive(Clone, Debug)]
pub struct FrameSlice {
    /// The frame's payload, checked.
    pub payload: Arc<Vec<u8>>,
    /// The encoded events within it.
    pub range: Range<usize>,
    /// When the lines were detected.
    pub detected: Timestamp,
}

impl FrameSlice {
    /// The events of the slice.
    pub fn events(&self) -> impl Iterator<Item = LogEvent<'_>> {
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
    /// What it has of each source, in payload order.
    pub sources: Vec<SourceRange>,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body before any content coding.
    pub body: Bytes,
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

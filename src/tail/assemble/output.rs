//! The last stage: leaves out, replaces, pushes, and knows how much of the file is used.
//!
//! Invariants:
//! - Up to the last commit, the bytes used are those of the events that were pushed and those that were skipped, each byte
//!   once.
//! - What was pushed or skipped after the last commit is taken back at the end: it is read again with the next input.

use super::filter::Filter;
use super::record::{Record, Span};
use super::redact::Redaction;
use crate::event::{BlockMark, EventBlock, SkipReason, Skipped, Skips};

/// What is done to whole events.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    pub filter: Filter,
    pub redaction: Redaction,
}

/// Why bytes do not become events here.
const REASONS: [SkipReason; 4] =
    [SkipReason::Excluded, SkipReason::NotIncluded, SkipReason::ByteOrderMark, SkipReason::Nul];

/// What was skipped, for each of [`REASONS`]; copied with every commit, so without an allocation.
#[derive(Clone, Copy, Debug, Default)]
struct Tally([Skipped; REASONS.len()]);

impl Tally {
    fn add(&mut self, reason: SkipReason, span: Span) {
        debug_assert!(REASONS.contains(&reason), "{reason} is decided elsewhere");
        for (known, skipped) in REASONS.iter().zip(&mut self.0) {
            if *known == reason {
                skipped.bytes = skipped.bytes.saturating_add(span.bytes as u64);
                skipped.lines = skipped.lines.saturating_add(span.lines as u64);
            }
        }
    }

    fn into_skips(self) -> Skips {
        let mut skips = Skips::default();
        for (reason, Skipped { bytes, lines }) in REASONS.into_iter().zip(self.0) {
            if bytes > 0 {
                skips.add(reason, bytes, lines);
            }
        }
        skips
    }
}

/// Where events go.
#[derive(Debug)]
pub(super) struct Output<'a> {
    finish: &'a Finish,
    block: &'a mut EventBlock,
    tally: Tally,
    committed: Committed,
}

#[derive(Clone, Copy, Debug)]
struct Committed {
    position: usize,
    mark: BlockMark,
    tally: Tally,
}

impl<'a> Output<'a> {
    pub(super) fn new(finish: &'a Finish, block: &'a mut EventBlock) -> Self {
        let tally = Tally::default();
        let committed = Committed { position: 0, mark: block.mark(), tally };
        Self { finish, block, tally, committed }
    }

    /// An event: the text of `record`, and what it covers.
    #[inline]
    pub(super) fn event(&mut self, record: &Record<'_>) {
        match self.finish.filter.leaves_out(record.text) {
            Some(reason) => self.tally.add(reason, record.span),
            None => {
                let text = self.finish.redaction.apply(record.text);
                self.block.push_timed(&text, record.continues, record.time);
            }
        }
    }

    /// Bytes that are no line.
    pub(super) fn skip(&mut self, reason: SkipReason, bytes: usize) {
        self.tally.add(reason, Span { bytes, lines: 0 });
    }

    /// Everything before `position` is done with: nothing that is not pushed or skipped yet begins before it.
    #[inline]
    pub(super) const fn commit(&mut self, position: usize) {
        self.committed = Committed { position, mark: self.block.mark(), tally: self.tally };
    }

    /// Where the last commit was.
    pub(super) const fn committed(&self) -> usize {
        self.committed.position
    }

    /// How much is used and what of it was skipped; takes back what came after.
    pub(super) fn finish(self) -> (usize, Skips) {
        self.block.rewind(self.committed.mark);
        (self.committed.position, self.committed.tally.into_skips())
    }
}

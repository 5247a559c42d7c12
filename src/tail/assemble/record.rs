//! What the stages hand on to each other.
//!
//! Invariants:
//! - Records come in the order in which their events are to come.
//! - The spans of the records of a *run* add up to the bytes of the file that the run covers. A run is as many records as
//!   have to be used together: nearly always one, and more where the lines of two container streams overlap. Its first
//!   record knows where it starts, its last one where it ends.

use crate::event::Timestamp;

/// Bytes of a file, line endings and wrappers included, and how many lines end in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub bytes: usize,
    pub lines: usize,
}

impl Span {
    pub(super) const fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.lines = self.lines.saturating_add(other.lines);
    }
}

/// Where a container wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"stdout" => Some(Self::Stdout),
            b"stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// A text on its way to becoming an event, or a line of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub text: &'a [u8],
    /// Its own time.
    pub time: Option<Timestamp>,
    /// Where a container wrote it.
    pub stream: Option<Stream>,
    /// What it covers.
    pub span: Span,
    /// Its line goes on after it.
    pub continues: bool,
    /// Its line began before it.
    pub is_rest: bool,
    /// Where its run starts, for the first record of one.
    pub starts: Option<usize>,
    /// Where its run ends, for the last record of one.
    pub ends: Option<usize>,
}

/// A stage that takes records.
pub(super) trait Next {
    /// Takes the next record.
    fn take(&mut self, record: &Record<'_>);
}

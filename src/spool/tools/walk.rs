//! Damaged places of the files of frames.

use crate::event::SegmentId;
use crate::spool::dead_letter;
use crate::spool::segment;

/// Damaged bytes, and what they are called in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    pub directory: Directory,
    pub segment: SegmentId,
    pub from: u64,
    pub to: u64,
}

/// Where files of frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    Segments,
    DeadLetters,
}

impl Damaged {
    pub(super) fn quarantine_name(&self) -> String {
        match self.directory {
            Directory::Segments => format!("{}.{}-{}", segment::file_name(self.segment), self.from, self.to),
            Directory::DeadLetters => dead_letter::quarantine_name(self.segment, self.from, self.to),
        }
    }
}

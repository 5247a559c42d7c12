//! Every place of a file of frames, intact or not.

use std::fs::File;
use std::io;

use crate::event::SegmentId;
use crate::spool::dead_letter;
use crate::spool::frame::FrameHeader;
use crate::spool::reader::{self, Found};
use crate::spool::segment;

/// What stands at a place.
pub(super) enum Place<'a> {
    /// A frame that passes its checksums.
    Frame(&'a FrameHeader, &'a [u8]),
    /// Bytes that are none; the header, where that passes its own.
    Damage(Option<&'a FrameHeader>),
}

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

/// Shows every place from offset `from` to `len`: where it begins, where it ends, what it is.
pub(super) fn places<E: From<io::Error>>(
    file: &File,
    id: SegmentId,
    from: u64,
    len: u64,
    mut show: impl FnMut(u64, u64, Place<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = from;
    while at < len {
        let next = match reader::frame_at(file, id, at, len)? {
            Found::Frame(header, payload, next) => {
                show(at, next, Place::Frame(&header, &payload))?;
                next
            }
            Found::BadPayload(header, next) => {
                show(at, next, Place::Damage(Some(&header)))?;
                next
            }
            Found::BadHeader => {
                let next = reader::find_frame(file, id, at + 1, len)?.unwrap_or(len);
                show(at, next, Place::Damage(None))?;
                next
            }
        };
        at = next;
    }
    Ok(())
}

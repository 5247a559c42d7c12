//! What the end of the log says: the second step of recovery.
//!
//! Invariants:
//! - What a crash left of a commit that nobody saw is cut. Everything before the last group was synced before that group
//!   was written, so damage there is stepped over and counted, never cut.
//! - What may have been sent is never cut: where the ledger's cursor is past the damage, it is stepped over.
//! - The cost is that of the newest segment; only where its snapshot cannot be read, of those before it as well.

use std::fs::File;
use std::io;

use super::SpoolError;
use super::disk::{self, Disk};
use super::files::FileState;
use super::frame::FrameHeader;
use super::ledger::Books;
use super::missing::{self, Places};
use super::reader::{self, Place};
use super::segment::{self, Snapshot};
use super::survey::{Survey, io_error};
use crate::event::{Position, SegmentId};

/// What the end of the log says.
#[derive(Debug)]
pub(super) struct Tail {
    /// The newest snapshot that can be read.
    pub snapshot: Option<Snapshot>,
    /// The files, as far as the frames know them.
    pub files: FileState,
    /// The numbers of the sources, and what is missing.
    pub places: Places,
    /// The position after the last event.
    pub end: Position,
    /// Something was cut off that was not all zeros.
    pub torn: bool,
}

/// Reads the newest segment and cuts what is torn. `books` are the ledger's, where there is one.
pub(super) fn read_tail(disk: &Disk, survey: &mut Survey, books: Option<&Books>) -> Result<Tail, SpoolError> {
    let cursor = books.map(|books| books.cursor);
    let mut ids = Vec::new();
    for (id, known) in survey.known.iter().rev() {
        ids.push(*id);
        let path = disk.segment(*id);
        let snapshot = Disk::open(&path).and_then(|file| reader::snapshot(&file, *id, known.len));
        if snapshot.map_err(io_error(&path))?.is_some() {
            break;
        }
    }
    let newest = ids.first().copied();
    let mut tail = Tail {
        snapshot: None,
        files: FileState::default(),
        places: Places::new(Position(1)),
        end: Position(1),
        torn: false,
    };
    // Where no snapshot can be read, the mark stands in for that of the segment after it.
    let mark = books.map(|books| &books.mark);
    tail.files = mark.map(|mark| mark.state.clone()).unwrap_or_default();
    for id in ids.into_iter().rev() {
        let path = disk.segment(id);
        let Some(known) = survey.known.get_mut(&id) else { continue };
        let first = known.header.first_position;
        if tail.places.spool_id().is_none() {
            tail.places = Places::new(first);
        }
        tail.places.enter(known.header.spool_id, first);
        tail.end = tail.end.max(first);
        if Some(id) == newest {
            known.len =
                cut_torn(disk, id, known.len, first, cursor, &mut tail.torn).map_err(io_error(&path))?;
        }
        let len = known.len;
        let taken_over = survey.known.range(id.plus(1)..).map(|(_, known)| known.header.first_position).min();
        let known_to_mark = mark.is_some_and(|mark| id <= mark.segment);
        tail.adopt(disk, id, len, taken_over, known_to_mark).map_err(io_error(&path))?;
    }
    Ok(tail)
}

/// Cuts what a crash left of the last group, and says how long the segment is then.
fn cut_torn(
    disk: &Disk,
    id: SegmentId,
    len: u64,
    first: Position,
    cursor: Option<Position>,
    torn: &mut bool,
) -> io::Result<u64> {
    let path = disk.segment(id);
    let file = Disk::open(&path)?;
    let Some((at, position)) = damage_in_last_group(&file, id, len, first)? else { return Ok(len) };
    if cursor.is_some_and(|cursor| cursor > position) {
        return Ok(len);
    }
    let mut kept = None;
    if !disk::is_zero(&file, at)? {
        *torn = true;
        // What cannot be kept stops no start: the lines are in their files.
        kept = reader::keep_damaged(disk, &file, id, at, len).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the torn end of the spool cannot be kept");
            None
        });
    }
    tracing::warn!(
        path = %path.display(),
        offset = at,
        bytes = len - at,
        kept = kept.map(|path| path.display().to_string()),
        "torn end of the spool cut; its lines are read again from their files"
    );
    disk.truncate(&path, at)?;
    Ok(at)
}

/// The first damage behind all that is known to have been synced, and the position that is damaged there.
pub(super) fn damage_in_last_group(
    file: &File,
    id: SegmentId,
    len: u64,
    first: Position,
) -> io::Result<Option<(u64, Position)>> {
    let mut damage: Vec<(u64, Position)> = Vec::new();
    let mut position = first;
    reader::places(file, id, segment::HEADER_LEN as u64, len, |at, _, place| {
        let (header, intact) = match place {
            Place::Frame(header, _) => (Some(header), true),
            Place::Damage(header) => (header, false),
        };
        if let Some(header) = header {
            // A group that was begun behind the damage proves that the damaged one was synced.
            damage.retain(|(damaged_at, _)| header.group_at <= *damaged_at);
        }
        if !intact {
            damage.push((at, header.map_or(position, |header| header.first_position)));
        }
        position = header.map_or(position, |header| position.max(header.end_position()));
        Ok::<_, io::Error>(())
    })?;
    Ok(damage.first().copied())
}

impl Tail {
    /// Takes over what the frames of one segment say, damaged payloads included. From the position `taken_over` on they
    /// are the next segment's. What they say of the files is not new where the mark that `files` began with knew it.
    fn adopt(
        &mut self,
        disk: &Disk,
        id: SegmentId,
        len: u64,
        taken_over: Option<Position>,
        known_to_mark: bool,
    ) -> io::Result<()> {
        let file = Disk::open(&disk.segment(id))?;
        missing::walk(&file, id, len, |header, snapshot, damaged| {
            if let Some(snapshot) = snapshot {
                self.files = snapshot.state();
                self.places.begin(&snapshot);
                self.snapshot = Some(snapshot);
            }
            let is_known = known_to_mark && self.snapshot.is_none();
            if !is_known && !is_taken_over(header, taken_over) {
                self.files.apply(header);
            }
            self.places.frame(header, damaged);
            self.end = self.end.max(header.end_position());
        })
    }
}

/// Whether a frame was written again to the segment that begins with the position `by`. A frame without events stands at
/// the position of the next event, so at the border it counts for the segment that it is in.
pub(super) fn is_taken_over(header: &FrameHeader, by: Option<Position>) -> bool {
    by.is_some_and(|by| header.first_position > by || header.first_position == by && header.events > 0)
}

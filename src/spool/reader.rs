//! Reading frames front to back.
//!
//! Invariants:
//! - A frame is handed out only when its header and its payload pass their checksums.
//! - What fails is stepped over, its bytes are kept in `quarantine/`, and the positions that are missing are said: a
//!   reader never stops at damage and never hides it. Positions go up without a hole, as frames or as [`Missing`].
//! - Memory is bounded by one frame.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::{Covered, holds};
use super::disk::{self, Disk};
use super::frame::{self, FrameError, FrameHeader, FrameKind, HEADER_MAX};
use super::ledger::Location;
use super::log::Log;
use super::segment::{self, Snapshot, SpoolId};
use crate::event::{Position, SegmentId};

/// How much is read at first: a header with its names, and the whole frame where it is small.
const WINDOW: usize = 4096;
/// How much is looked through at a time for the next frame behind damaged bytes.
const SCAN: usize = 64 << 10;
/// The most bytes of one damaged place that are kept.
const QUARANTINE_MAX: u64 = 64 << 20;

/// A frame that passed its checksums.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub header: FrameHeader,
    pub payload: Arc<Vec<u8>>,
    pub at: Location,
    /// The id under which its events are sent.
    pub spool_id: SpoolId,
}

/// One step of a reader.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next frame with events.
    Frame(Frame),
    /// Positions whose events cannot be read.
    Missing(Missing),
    /// Everything committed was read.
    CaughtUp,
}

/// Positions whose events cannot be read: their frame is damaged, or their segment is gone.
#[derive(Debug)]
pub(crate) struct Missing {
    /// The first of them.
    pub first: Position,
    /// The position after the last of them.
    pub end: Position,
}

/// What stands at one place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A header and its payload, and where the next frame begins.
    Frame(FrameHeader, Vec<u8>, u64),
    /// An intact header whose payload is damaged or cut off, and where the next frame would begin.
    BadPayload(FrameHeader, u64),
    /// No header.
    BadHeader,
}

/// Reads the header of the frame at `offset` of a segment that counts for `len` bytes, and says how long it is with its
/// names.
pub(super) fn header_at(
    file: &File,
    segment: SegmentId,
    offset: u64,
    len: u64,
) -> io::Result<Result<(FrameHeader, usize), FrameError>> {
    let mut bytes = Vec::new();
    read_header(file, segment, offset, len, &mut bytes)
}

/// Leaves what was read, at least the header, in `bytes`.
fn read_header(
    file: &File,
    segment: SegmentId,
    offset: u64,
    len: u64,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<(FrameHeader, usize), FrameError>> {
    let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
    bytes.resize(left.min(WINDOW), 0);
    let read = disk::read_at(file, bytes, offset)?;
    bytes.truncate(read);
    let decoded = FrameHeader::decode(bytes, segment);
    if decoded != Err(FrameError::Short) || left <= WINDOW {
        return Ok(decoded);
    }
    bytes.resize(left.min(HEADER_MAX), 0);
    let read = disk::read_at(file, bytes, offset)?;
    bytes.truncate(read);
    Ok(FrameHeader::decode(bytes, segment))
}

/// Reads the frame at `offset` of a segment that counts for `len` bytes.
pub(super) fn frame_at(file: &File, segment: SegmentId, offset: u64, len: u64) -> io::Result<Found> {
    let mut bytes = Vec::new();
    let Ok((header, header_len)) = read_header(file, segment, offset, len, &mut bytes)? else {
        return Ok(Found::BadHeader);
    };
    let payload_at = offset + header_len as u64;
    let end = payload_at + u64::from(header.payload_len);
    if end > len {
        return Ok(Found::BadPayload(header, len));
    }
    let payload_len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
    let mut payload = bytes.get(header_len..).unwrap_or_default().to_vec();
    if payload.len() >= payload_len {
        payload.truncate(payload_len);
    } else {
        let have = payload.len();
        payload.resize(payload_len, 0);
        let rest = payload.get_mut(have..).unwrap_or_default();
        if disk::read_at(file, rest, payload_at + have as u64)? < payload_len - have {
            return Ok(Found::BadPayload(header, end));
        }
    }
    if !holds(Covered::Payload, crc32fast::hash(&payload), header.payload_crc) {
        return Ok(Found::BadPayload(header, end));
    }
    Ok(Found::Frame(header, payload, end))
}

/// The snapshot at the head of a segment, if it can be read.
pub(super) fn snapshot(file: &File, segment: SegmentId, len: u64) -> io::Result<Option<Snapshot>> {
    Ok(match frame_at(file, segment, segment::HEADER_LEN as u64, len)? {
        Found::Frame(header, payload, _) if header.kind == FrameKind::Snapshot => Snapshot::decode(&payload),
        _ => None,
    })
}

/// Looks for the next frame header at or behind `from`; `None` where there is none before `len`.
pub(super) fn find_frame(file: &File, segment: SegmentId, from: u64, len: u64) -> io::Result<Option<u64>> {
    let finder = memchr::memmem::Finder::new(&frame::MAGIC);
    let mut window = vec![0; SCAN];
    let mut at = from;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(SCAN).min(SCAN);
        let read = disk::read_at(file, window.get_mut(..want).unwrap_or_default(), at)?;
        let seen = window.get(..read).unwrap_or_default();
        for found in finder.find_iter(seen) {
            let offset = at + found as u64;
            if !matches!(frame_at(file, segment, offset, len)?, Found::BadHeader) {
                return Ok(Some(offset));
            }
        }
        if read < want || read <= frame::MAGIC.len() {
            break;
        }
        // A magic may stand across the border of two windows.
        at += (read - (frame::MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

/// What stands at a place.
pub(super) enum Place<'a> {
    /// A frame that passes its checksums.
    Frame(&'a FrameHeader, &'a [u8]),
    /// Bytes that are none; the header, where that passes its own.
    Damage(Option<&'a FrameHeader>),
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
        let next = match frame_at(file, id, at, len)? {
            Found::Frame(header, payload, next) => {
                show(at, next, Place::Frame(&header, &payload))?;
                next
            }
            Found::BadPayload(header, next) => {
                show(at, next, Place::Damage(Some(&header)))?;
                next
            }
            Found::BadHeader => {
                let next = find_frame(file, id, at + 1, len)?.unwrap_or(len);
                show(at, next, Place::Damage(None))?;
                next
            }
        };
        at = next;
    }
    Ok(())
}

/// Keeps damaged bytes of a segment; a failure to keep them is logged and stops nothing.
pub(super) fn quarantine(disk: &Disk, file: &File, segment: SegmentId, from: u64, to: u64) {
    match keep_damaged(disk, file, segment, from, to) {
        Ok(None) => {}
        Ok(Some(path)) => tracing::error!(
            segment = segment.0,
            offset = from,
            bytes = to - from,
            path = %path.display(),
            "damaged bytes in the spool; they are kept"
        ),
        Err(error) => tracing::error!(
            segment = segment.0,
            offset = from,
            bytes = to - from,
            %error,
            "damaged bytes in the spool; they could not be kept"
        ),
    }
}

/// Keeps damaged bytes of a segment; says where, unless they are there already.
pub(super) fn keep_damaged(
    disk: &Disk,
    file: &File,
    segment: SegmentId,
    from: u64,
    to: u64,
) -> io::Result<Option<PathBuf>> {
    keep(disk, file, &format!("{}.{from}-{to}", segment::file_name(segment)), from, to)
}

/// Keeps bytes of a file in `quarantine/NAME`; says where, unless they are there already.
pub(super) fn keep(disk: &Disk, file: &File, name: &str, from: u64, to: u64) -> io::Result<Option<PathBuf>> {
    let len = to.saturating_sub(from).min(QUARANTINE_MAX);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = disk::read_at(file, &mut bytes, from)?;
    bytes.truncate(read);
    disk.quarantine_bytes(name, &bytes)
}

/// Walks the committed frames from a position on.
#[derive(Debug)]
pub(crate) struct FrameReader {
    log: Arc<Log>,
    open: Option<Open>,
    /// The first position not handed out.
    next: Position,
    /// Whether damage is copied to the quarantine: by the one who meets it first.
    keeps_damage: bool,
}

#[derive(Debug)]
struct Open {
    segment: SegmentId,
    file: File,
    offset: u64,
}

impl FrameReader {
    /// A reader whose first frame is the one that holds `position`. `hint` says where that frame stands, if known.
    pub(super) fn new(log: Arc<Log>, position: Position, hint: Option<Location>, keeps_damage: bool) -> Self {
        let open = hint.and_then(|at| {
            let extent = log.extent(at.segment)?;
            let file = Disk::open(&log.disk.segment(at.segment)).ok()?;
            // A hint is believed only where a frame with the position begins there.
            match frame_at(&file, at.segment, at.offset, extent.len).ok()? {
                Found::Frame(header, ..) | Found::BadPayload(header, _)
                    if header.first_position <= position && position < header.end_position() =>
                {
                    Some(Open { segment: at.segment, file, offset: at.offset })
                }
                _ => None,
            }
        });
        Self { log, open, next: position, keeps_damage }
    }

    /// The first position not handed out.
    pub(crate) const fn next_position(&self) -> Position {
        self.next
    }

    /// The next step.
    ///
    /// # Errors
    /// Where a segment cannot be opened or read.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            let Some(open) = &mut self.open else {
                let Some((segment, extent)) = self.log.find(self.next) else { return Ok(Step::CaughtUp) };
                if extent.first > self.next {
                    // The segment before it is gone.
                    return Ok(self.missing(extent.first));
                }
                let file = Disk::open(&self.log.disk.segment(segment))?;
                self.open = Some(Open { segment, file, offset: segment::HEADER_LEN as u64 });
                continue;
            };
            let Some(extent) = self.log.extent(open.segment) else {
                // Unlinked meanwhile.
                self.open = None;
                continue;
            };
            if open.offset >= extent.len || extent.end <= self.next {
                if extent.end > self.next {
                    return Ok(self.missing(extent.end));
                }
                if self.log.next(open.segment).is_none() {
                    return Ok(Step::CaughtUp);
                }
                self.open = None;
                continue;
            }
            let at = open.offset;
            match frame_at(&open.file, open.segment, at, extent.len)? {
                Found::Frame(header, ..) | Found::BadPayload(header, _)
                    if header.kind == FrameKind::Events
                        && header.first_position > self.next
                        && self.next < extent.end =>
                {
                    // The frame is read again by the next step. What a successor took over is not this segment's.
                    return Ok(self.missing(header.first_position.min(extent.end)));
                }
                Found::Frame(header, payload, end) => {
                    open.offset = end;
                    // Snapshots, checkpoints alone, and frames before the position that was asked for.
                    if header.kind != FrameKind::Events || header.end_position() <= self.next {
                        continue;
                    }
                    self.next = header.end_position();
                    let at = Location { segment: open.segment, offset: at };
                    let payload = Arc::new(payload);
                    return Ok(Step::Frame(Frame { header, payload, at, spool_id: extent.spool_id }));
                }
                Found::BadPayload(header, end) => {
                    open.offset = end;
                    if self.keeps_damage {
                        quarantine(&self.log.disk, &open.file, open.segment, at, end);
                    }
                    if header.kind == FrameKind::Events && header.end_position() > self.next {
                        return Ok(self.missing(header.end_position().min(extent.end)));
                    }
                }
                Found::BadHeader => {
                    let end = find_frame(&open.file, open.segment, at + 1, extent.len)?.unwrap_or(extent.len);
                    open.offset = end;
                    if self.keeps_damage {
                        quarantine(&self.log.disk, &open.file, open.segment, at, end);
                    }
                }
            }
        }
    }

    /// Passes over the positions before `end`.
    fn missing(&mut self, end: Position) -> Step {
        let first = self.next;
        self.next = end;
        Step::Missing(Missing { first, end })
    }
}

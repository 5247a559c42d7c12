//! Dead letters: events that the server refused for good, kept with its answer.
//!
//! Invariants:
//! - A dead letter is durable before its batch leaves the ledger. A crash in between makes a second copy of the same
//!   position, which readers count once.
//! - The files use the spool's frames; the ledger holds the counts alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, IoSlice};

use super::codec::{Cursor, Put as _};
use super::disk::{self, Disk};
use super::frame::{FrameHeader, FrameKind};
use super::reader::{self, Place};
use super::segment;
use crate::event::{Position, SegmentId, Seq, SourceName, Timestamp};

/// A file takes no more dead letters past this size.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The most bytes of the server's answer that are kept.
const RESPONSE_MAX: usize = 4096;

/// One event that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the log.
    pub position: Position,
    /// Its source.
    pub source: SourceName,
    /// Its sequence number in the source.
    pub seq: Seq,
    /// The time that it was sent with: its own, or else when its line was detected.
    pub detected: Timestamp,
    /// The status that the server answered with.
    pub status: u16,
    /// The beginning of the server's answer.
    pub response: String,
    /// The line.
    pub line: Vec<u8>,
}

/// The files of dead letters, open for appending.
#[derive(Debug)]
pub(super) struct DeadLetters {
    disk: Disk,
    active: Option<(SegmentId, File, u64)>,
    /// A file with what was written of a letter that failed, and how long it was before.
    torn: Option<(SegmentId, File, u64)>,
    next: SegmentId,
}

impl DeadLetters {
    pub(super) fn open(disk: Disk) -> io::Result<Self> {
        let last = files(&disk)?.last().copied();
        Ok(Self { disk, active: None, torn: None, next: last.map_or(SegmentId(1), |last| last.plus(1)) })
    }

    /// Appends a dead letter, durably.
    pub(super) fn append(&mut self, letter: &DeadLetter) -> io::Result<()> {
        self.take_back()?;
        let (id, file, len) = match self.active.take().filter(|(_, _, len)| *len < FILE_BYTES_MAX) {
            Some(active) => active,
            None => {
                let id = self.next;
                self.next = id.plus(1);
                let file = self.disk.create_new(&self.disk.dead_letters().join(segment::file_name(id)))?;
                self.disk.sync_dir(&self.disk.dead_letters())?;
                (id, file, 0)
            }
        };
        let payload = encode(letter);
        let mut header = FrameHeader::bare(FrameKind::DeadLetter, id, letter.position, &payload);
        header.first_seq = letter.seq;
        header.events = 1;
        header.detected = letter.detected;
        header.checkpoint.source = letter.source.clone();
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        // After a failure the file is not used again: `active` was taken out.
        let written = self
            .disk
            .write(&file, &mut [IoSlice::new(&bytes), IoSlice::new(&payload)])
            .and_then(|()| self.disk.sync_data(&file));
        if let Err(error) = written {
            self.torn = Some((id, file, len));
            // Now, or else before the next letter.
            let _ = self.take_back();
            return Err(error);
        }
        self.active = Some((id, file, len + (bytes.len() + payload.len()) as u64));
        Ok(())
    }

    /// Takes back what was written of a letter that failed: the newest file alone may end with half a letter.
    fn take_back(&mut self) -> io::Result<()> {
        let Some((id, file, len)) = &self.torn else { return Ok(()) };
        if *len == 0 {
            // Durable with the name of the next file.
            match self.disk.unlink(&self.disk.dead_letters().join(segment::file_name(*id))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else {
            self.disk.set_len(file, *len)?;
            self.disk.sync_all(file)?;
        }
        self.torn = None;
        Ok(())
    }
}

pub(super) fn encode(letter: &DeadLetter) -> Vec<u8> {
    let mut payload = Vec::with_capacity(16 + letter.response.len() + letter.line.len());
    let mut cut = letter.response.len().min(RESPONSE_MAX);
    while !letter.response.is_char_boundary(cut) {
        cut -= 1;
    }
    payload.put_u16(letter.status);
    payload.put_sized(letter.response.as_bytes().get(..cut).unwrap_or_default());
    payload.put(&letter.line);
    payload
}

pub(super) fn decode(header: &FrameHeader, payload: &[u8]) -> Option<DeadLetter> {
    let mut cursor = Cursor::new(payload);
    Some(DeadLetter {
        position: header.first_position,
        source: header.checkpoint.source.clone(),
        seq: header.first_seq,
        detected: header.detected,
        status: cursor.u16()?,
        response: cursor.text()?.to_owned(),
        line: cursor.rest().to_vec(),
    })
}

/// The numbers of the files, ascending.
pub(super) fn files(disk: &Disk) -> io::Result<Vec<SegmentId>> {
    let mut files: Vec<_> =
        Disk::list(&disk.dead_letters())?.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    files.sort_unstable();
    Ok(files)
}

/// Reads all dead letters, by position; damaged ones are passed over.
pub(super) fn read_all(disk: &Disk) -> io::Result<BTreeMap<Position, DeadLetter>> {
    let mut letters = BTreeMap::new();
    for id in files(disk)? {
        read(disk, id, &mut letters)?;
    }
    Ok(letters)
}

/// Reads the newest files of dead letters, until they have `count` or there are no more, and makes them durable: what
/// a kill left may be in memory alone.
pub(super) fn take_newest(disk: &Disk, count: usize) -> io::Result<BTreeMap<Position, DeadLetter>> {
    let mut letters = BTreeMap::new();
    for id in files(disk)?.into_iter().rev() {
        if letters.len() >= count {
            break;
        }
        read(disk, id, &mut letters)?;
        disk.sync_all(&Disk::open(&disk.dead_letters().join(segment::file_name(id)))?)?;
    }
    disk.sync_dir(&disk.dead_letters())?;
    Ok(letters)
}

/// Adds what is in one file.
fn read(disk: &Disk, id: SegmentId, letters: &mut BTreeMap<Position, DeadLetter>) -> io::Result<()> {
    let file = Disk::open(&disk.dead_letters().join(segment::file_name(id)))?;
    reader::places(&file, id, 0, file.metadata()?.len(), |_, _, place| {
        if let Place::Frame(header, payload) = place
            && let Some(letter) = decode(header, payload)
        {
            letters.entry(letter.position).or_insert(letter);
        }
        Ok(())
    })
}

/// Cuts what a crash left of the newest letter, which nobody was promised. Bytes that say something are kept; where they
/// cannot be, they stay where they are.
pub(super) fn cut_torn(disk: &Disk) -> io::Result<()> {
    let Some(newest) = files(disk)?.last().copied() else { return Ok(()) };
    let path = disk.dead_letters().join(segment::file_name(newest));
    let file = Disk::open(&path)?;
    let len = file.metadata()?.len();
    let mut intact = 0;
    reader::places(&file, newest, 0, len, |_, to, place| {
        if let Place::Frame(..) = place {
            intact = to;
        }
        Ok::<_, io::Error>(())
    })?;
    if intact == len && len > 0 {
        return Ok(());
    }
    if !disk::is_zero(&file, intact)?
        && let Err(error) = reader::keep(disk, &file, &quarantine_name(newest, intact, len), intact, len)
    {
        tracing::error!(path = %path.display(), offset = intact, %error, "a torn dead letter could not be kept aside");
        return Ok(());
    }
    if len > 0 {
        tracing::warn!(
            path = %path.display(),
            offset = intact,
            bytes = len - intact,
            "torn end of the dead letters cut; its event is sent again"
        );
    }
    if intact > 0 {
        return disk.truncate(&path, intact);
    }
    disk.unlink(&path)?;
    disk.sync_dir(&disk.dead_letters())
}

/// Under which name bytes of a file of dead letters are kept.
pub(super) fn quarantine_name(id: SegmentId, from: u64, to: u64) -> String {
    format!("dead-letters.{}.{from}-{to}", segment::file_name(id))
}

/// Takes the letters of these positions out of their files, durably. What cannot be read stays.
pub(super) fn remove(disk: &Disk, gone: &BTreeSet<Position>) -> io::Result<()> {
    for id in files(disk)? {
        let path = disk.dead_letters().join(segment::file_name(id));
        let file = Disk::open(&path)?;
        let len = file.metadata()?.len();
        let (mut kept, mut removed) = (Vec::new(), false);
        reader::places(&file, id, 0, len, |from, to, place| {
            let goes = matches!(place, Place::Frame(header, _) if gone.contains(&header.first_position));
            removed |= goes;
            if !goes {
                let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
                let read = disk::read_at(&file, &mut bytes, from)?;
                kept.extend_from_slice(bytes.get(..read).unwrap_or_default());
            }
            Ok::<_, io::Error>(())
        })?;
        if removed && kept.is_empty() {
            disk.unlink(&path)?;
            disk.sync_dir(&disk.dead_letters())?;
        } else if removed {
            disk.replace(&path, &kept)?;
        }
    }
    Ok(())
}

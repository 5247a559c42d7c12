//! What a spool knows of the files, whether or not an agent runs on it.
//!
//! Invariants:
//! - Nothing is changed and nothing is locked. Without an agent it is what one would start from; beside one, what the
//!   newest snapshot and the frames behind it say.
//! - What is told is durable: whoever deletes a file because of it does not lose a line to a power cut after that.
//! - Beside an agent never more is told than recovery would take for committed: not what is just being written, and
//!   nothing behind damage in the last group. Telling less is no harm, asking again tells more.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::SpoolError;
use super::adopt;
use super::disk::{self, Disk};
use super::files::{FileRecord, FileState};
use super::frame::FrameHeader;
use super::inspect;
use super::lock::Lock;
use super::reader::{self, Found};
use super::segment::{self, SegmentError, SegmentHeader, Snapshot};
use crate::event::{Position, SegmentId};

/// How often the segments are looked at again because they changed meanwhile: they are sealed and unlinked in steps that
/// take far longer than a look.
const ATTEMPTS: usize = 10;

/// An agent that runs on a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Agent {
    /// Its process; unknown for the instant in which it starts.
    pub pid: Option<u32>,
}

/// What a spool knows of the files.
#[derive(Debug)]
pub(crate) struct Known {
    /// The agent that runs on the spool.
    pub agent: Option<Agent>,
    /// By source and identity.
    pub files: Vec<FileRecord>,
}

/// Says what the spool in `dir` knows of the files, after making that durable.
///
/// # Errors
/// Where there is no spool or it cannot be read.
pub(crate) fn known_files(dir: &Path) -> Result<Known, SpoolError> {
    let disk = Disk::new(dir);
    if !disk.segments().is_dir() {
        return Err(SpoolError::Missing { path: dir.to_owned() });
    }
    let mut agent = holder(&disk)?;
    if agent.is_none() {
        let state = at_rest(&disk)?;
        agent = holder(&disk)?;
        if agent.is_none() {
            return Ok(Known { agent, files: state.files.into_values().collect() });
        }
        // An agent that started meanwhile may have changed what was looked at.
    }
    let state = beside(&disk)?;
    Ok(Known { agent, files: state.files.into_values().collect() })
}

/// The agent that holds the spool.
pub(super) fn holder(disk: &Disk) -> Result<Option<Agent>, SpoolError> {
    match Lock::probe(disk) {
        Ok(()) => Ok(None),
        Err(SpoolError::Held { pid, .. }) => Ok(Some(Agent { pid: pid.parse().ok() })),
        Err(error) => Err(error),
    }
}

/// What an agent would start from.
fn at_rest(disk: &Disk) -> Result<FileState, SpoolError> {
    let (_copy, _, recovered) = inspect::recover_copy(disk)?;
    let ids = segments(disk).map_err(|source| unreadable(disk, source))?;
    let newest = ids.len().saturating_sub(2);
    make_durable(disk, &ids, ids.get(newest..).unwrap_or_default())
        .map_err(|source| unreadable(disk, source))?;
    Ok(recovered.state)
}

fn beside(disk: &Disk) -> Result<FileState, SpoolError> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..ATTEMPTS {
        match look(disk) {
            Ok(state) => return Ok(state),
            Err(Look::Newer(path, version)) => return Err(SpoolError::Newer { path, version }),
            Err(Look::Io(error)) => last = error,
        }
        std::thread::yield_now();
    }
    Err(unreadable(disk, last))
}

fn unreadable(disk: &Disk, source: io::Error) -> SpoolError {
    SpoolError::Io { path: disk.segments(), source }
}

/// Why a look failed.
#[derive(Debug)]
enum Look {
    /// The segments cannot be read, or changed meanwhile.
    Io(io::Error),
    /// A segment is of a newer version.
    Newer(PathBuf, u32),
}

impl From<io::Error> for Look {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A segment of which frames are read.
struct Open {
    id: SegmentId,
    file: File,
    len: u64,
    /// Its header; damaged, or not there yet, where it is none.
    header: Option<SegmentHeader>,
    snapshot: Option<Snapshot>,
}

/// Reads the newest segment; where its snapshot cannot be read yet, or is damaged, those before it as well.
fn look(disk: &Disk) -> Result<FileState, Look> {
    let ids = segments(disk)?;
    let mut open = Vec::new();
    for id in ids.iter().rev() {
        let segment = Open::new(disk, *id)?;
        let is_whole = segment.snapshot.is_some();
        open.push(segment);
        if is_whole {
            break;
        }
    }
    let has_begun = open.iter().any(|segment| segment.len > 0);
    if has_begun && !open.last().is_some_and(|oldest| oldest.snapshot.is_some() || oldest.is_first()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no snapshot can be read").into());
    }
    let mut state = FileState::default();
    let mut ends = Vec::with_capacity(open.len());
    open.reverse();
    for (at, segment) in open.iter().enumerate() {
        if let Some(snapshot) = &segment.snapshot {
            state = snapshot.state();
        }
        let taken_over = open.iter().skip(at + 1).find_map(Open::first_position);
        ends.push(segment.apply(&mut state, taken_over)?);
    }
    let looked_at: Vec<_> = open.iter().map(|segment| segment.id).collect();
    make_durable(disk, &ids, &looked_at)?;
    // The agent takes a group back when its sync fails, whatever ours said.
    for (segment, end) in open.iter().zip(ends) {
        if segment.file.metadata()?.len() < end {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
    }
    Ok(state)
}

/// The numbers of the segments, ascending.
fn segments(disk: &Disk) -> io::Result<Vec<SegmentId>> {
    let names = Disk::list(&disk.segments())?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Makes durable what `looked_at` hold, and with them the segments that say that they are not.
fn make_durable(disk: &Disk, all: &[SegmentId], looked_at: &[SegmentId]) -> io::Result<()> {
    for id in all {
        match Disk::open(&disk.segment(*id)) {
            Ok(file) if looked_at.contains(id) || read_header(&file)?.is_ok_and(|head| head.unsynced) => {
                disk.sync_data(&file)?;
            }
            Ok(_) => {}
            // It was settled meanwhile: all of it was sent or given up, and the ledger says so durably.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    disk.sync_dir(&disk.segments())
}

fn read_header(file: &File) -> io::Result<Result<SegmentHeader, SegmentError>> {
    let mut head = [0; segment::HEADER_LEN];
    let read = disk::read_at(file, &mut head, 0)?;
    Ok(SegmentHeader::decode(head.get(..read).unwrap_or_default()))
}

impl Open {
    fn new(disk: &Disk, id: SegmentId) -> Result<Self, Look> {
        let path = disk.segment(id);
        let file = Disk::open(&path)?;
        let len = file.metadata()?.len();
        let header = match read_header(&file)? {
            Err(SegmentError::Newer(version)) => return Err(Look::Newer(path, version)),
            header => header.ok().filter(|header| header.segment == id),
        };
        let snapshot = reader::snapshot(&file, id, len)?;
        Ok(Self { id, file, len, header, snapshot })
    }

    fn first_position(&self) -> Option<Position> {
        let header = self.header.map(|header| header.first_position);
        header.or_else(|| self.snapshot.as_ref().map(|snapshot| snapshot.position))
    }

    /// Whether nothing was spooled before it.
    fn is_first(&self) -> bool {
        self.id == SegmentId(1)
    }

    /// Takes over what its frames say, up to the position from which on they are the next segment's. Says where they end.
    fn apply(&self, state: &mut FileState, taken_over: Option<Position>) -> io::Result<u64> {
        let last_group = self.last_group()?;
        let mut at = segment::HEADER_LEN as u64;
        while let Some((header, next)) = self.header_at(at)? {
            if next > self.len {
                break;
            }
            // What is in front of the last group was synced before that was written.
            if at >= last_group && !matches!(self.frame_at(at)?, Found::Frame(..)) {
                break;
            }
            match header {
                Some(header) if !adopt::is_taken_over(&header, taken_over) => state.apply(&header),
                _ => {}
            }
            at = next;
        }
        Ok(at.min(self.len))
    }

    /// Where the last group begins that was begun.
    fn last_group(&self) -> io::Result<u64> {
        let mut last_group = 0;
        let mut at = segment::HEADER_LEN as u64;
        while let Some((header, next)) = self.header_at(at)? {
            last_group = header.map_or(last_group, |header| last_group.max(header.group_at));
            at = next;
        }
        Ok(last_group)
    }

    /// The header at `at`, or none where it is damaged, and where the next one stands; nothing where there is none.
    fn header_at(&self, at: u64) -> io::Result<Option<(Option<FrameHeader>, u64)>> {
        if at >= self.len {
            return Ok(None);
        }
        if let Ok((header, len)) = reader::header_at(&self.file, self.id, at, self.len)? {
            let next = at + len as u64 + u64::from(header.payload_len);
            return Ok(Some((Some(header), next)));
        }
        Ok(reader::find_frame(&self.file, self.id, at + 1, self.len)?.map(|next| (None, next)))
    }

    fn frame_at(&self, at: u64) -> io::Result<Found> {
        reader::frame_at(&self.file, self.id, at, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FrameSink as _;
    use crate::event::{SkipReason, Skips};
    use crate::spool::Spool;
    use crate::spool::tests::{append, committed, draft, numbered, options};

    /// A spool that an agent has open, with three groups of one file of 12 bytes a line, 5 lines each.
    fn three_groups(dir: &Path) -> Spool {
        let spool = Spool::open(&options(dir)).unwrap();
        for group in 0..3 {
            append(&spool, "app", group * 5, 5);
            committed(&spool, group * 5 + 6);
        }
        spool
    }

    fn only(dir: &Path) -> FileRecord {
        let mut known = known_files(dir).unwrap();
        assert_eq!(known.files.len(), 1);
        known.files.remove(0)
    }

    /// Where the frames of a segment begin, the snapshot left out.
    fn frames(path: &Path, id: SegmentId) -> Vec<u64> {
        let file = Disk::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let mut starts = Vec::new();
        let mut at = segment::HEADER_LEN as u64;
        while let Found::Frame(_, _, next) = reader::frame_at(&file, id, at, len).unwrap() {
            starts.push(at);
            at = next;
            if at >= len {
                break;
            }
        }
        starts.remove(0);
        starts
    }

    fn flip(path: &Path, at: u64) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn beside_an_agent_is_known_what_it_would_start_from() {
        let dir = tempfile::tempdir().unwrap();
        let spool = three_groups(dir.path());
        let skips = Skips::of(SkipReason::Excluded, 7);
        let lines = numbered(15, 1);
        let skipping = crate::event::FrameDraft { skips, ..draft("app", 180, &lines) };
        spool.appender().append(skipping).unwrap();
        committed(&spool, 17);
        let beside = only(dir.path());
        assert_eq!((beside.checkpoint.offset.0, beside.account.spooled), (192, 185));
        let agent = known_files(dir.path()).unwrap().agent;
        assert_eq!(agent, Some(Agent { pid: Some(std::process::id()) }));
        spool.close();
        assert_eq!(known_files(dir.path()).unwrap().agent, None);
        assert_eq!(only(dir.path()), beside);
    }

    #[test]
    fn what_is_just_being_written_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let spool = three_groups(dir.path());
        let path = Disk::new(dir.path()).segment(SegmentId(1));
        let (bytes, last) = (std::fs::read(&path).unwrap(), frames(&path, SegmentId(1))[2]);
        for len in last..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..usize::try_from(len).unwrap()]).unwrap();
            assert_eq!(only(dir.path()).checkpoint.offset.0, 120, "{len} bytes");
        }
        // The next segment was begun and says nothing yet, or not all that it is to say.
        std::fs::write(&path, &bytes).unwrap();
        let next = Disk::new(dir.path()).segment(SegmentId(2));
        let header = read_header(&Disk::open(&path).unwrap()).unwrap().unwrap();
        let mut preamble = Vec::new();
        SegmentHeader { segment: SegmentId(2), first_position: Position(16), ..header }.encode(&mut preamble);
        preamble.extend_from_slice(&bytes[segment::HEADER_LEN..][..100]);
        for begun in [0, 50, 80, 100, 180] {
            std::fs::write(&next, &preamble[..begun]).unwrap();
            assert_eq!(only(dir.path()).checkpoint.offset.0, 180, "{begun} bytes");
        }
        spool.close();
    }

    #[test]
    fn what_recovery_would_cut_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let spool = three_groups(dir.path());
        let path = Disk::new(dir.path()).segment(SegmentId(1));
        let bytes = std::fs::read(&path).unwrap();
        for at in frames(&path, SegmentId(1))[2]..bytes.len() as u64 {
            flip(&path, at);
            assert_eq!(only(dir.path()).checkpoint.offset.0, 120, "byte {at}");
            std::fs::write(&path, &bytes).unwrap();
        }
        spool.close();
    }

    #[test]
    fn damage_that_recovery_steps_over_is_told_as_loss_of_what_it_hides() {
        let dir = tempfile::tempdir().unwrap();
        let spool = three_groups(dir.path());
        let path = Disk::new(dir.path()).segment(SegmentId(1));
        let second = frames(&path, SegmentId(1))[1];
        let bytes = std::fs::read(&path).unwrap();
        flip(&path, second);
        let record = only(dir.path());
        assert_eq!(record.checkpoint.offset.0, 180);
        assert_eq!(record.account.skips, Skips::of(SkipReason::Damaged, 60));
        // A payload that is damaged has a header that says what became of the bytes.
        std::fs::write(&path, &bytes).unwrap();
        flip(&path, second + 200);
        assert_eq!(only(dir.path()).account.skips, Skips::default());
        spool.close();
    }

    #[test]
    fn a_segment_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spool = three_groups(dir.path());
        let mut bytes = std::fs::read(Disk::new(dir.path()).segment(SegmentId(1))).unwrap();
        bytes[8] = 2;
        let end = segment::HEADER_LEN - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..segment::HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(Disk::new(dir.path()).segment(SegmentId(2)), bytes).unwrap();
        assert!(matches!(known_files(dir.path()), Err(SpoolError::Newer { version: 2, .. })));
        spool.close();
    }

    #[test]
    fn segments_that_come_and_go_meanwhile_are_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(dir.path())).unwrap();
        let mut seen = 0;
        for step in 0..120 {
            append(&spool, "app", step * 100, 100);
            let known = known_files(dir.path()).unwrap();
            if let Some(record) = known.files.first() {
                assert!(record.is_balanced() && record.checkpoint.offset.0 >= seen, "{record:?}");
                assert_eq!(record.account.skips, Skips::default());
                seen = record.checkpoint.offset.0;
            }
            if step % 10 == 9 {
                committed(&spool, (step + 1) * 100 + 1);
                let batch = crate::spool::tests::cut(&spool, &[(step * 100 - 899, step * 100 + 100)])[0];
                crate::spool::tests::acknowledge(&spool, batch);
            }
        }
        assert!(spool.log.segments().len() < 10, "the test needs segments that went");
        spool.close();
        assert_eq!(only(dir.path()).checkpoint.offset.0, 12_000 * 12);
    }
}

//! Which segments there are: the first step of recovery.
//!
//! Invariants:
//! - A newer version stops everything before anything is changed.
//! - Nothing is deleted but what never held a frame. What is not ours, or cannot be told to be, goes to `quarantine/`.
//! - A damaged header costs nothing: the snapshot, the frames and the neighbours say what it said.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::SpoolError;
use super::disk::{self, Disk};
use super::log::Extent;
use super::reader::{self, Found};
use super::segment::{self, SegmentError, SegmentHeader, SpoolId};
use crate::event::{Position, SegmentId, Timestamp};

/// A segment of this spool.
#[derive(Debug)]
pub(super) struct Known {
    pub header: SegmentHeader,
    /// Its bytes, as far as they are to be read.
    pub len: u64,
}

/// What is in the directory of segments.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub known: BTreeMap<SegmentId, Known>,
    /// Files that are named as segments and whose header cannot be read.
    headless: Vec<(SegmentId, SegmentError)>,
    /// Segments whose snapshot stands in for their header.
    mended: Vec<SegmentId>,
}

/// What is done to a segment before it is recovered.
#[derive(Debug)]
pub(super) enum Change {
    /// It cannot be told to be ours, or is not, for this reason.
    SetAside(SegmentId, String),
    /// It was begun and never held a frame.
    Remove(SegmentId),
    /// Its header is damaged, and this one is written over it.
    Mend(SegmentHeader),
}

impl Change {
    fn make(&self, disk: &Disk) -> Result<(), SpoolError> {
        match self {
            Self::SetAside(id, why) => set_aside(disk, *id, why),
            Self::Remove(id) => {
                // Begun and nothing more, when the agent or the machine went down.
                let path = disk.segment(*id);
                tracing::info!(path = %path.display(), "the beginning of a segment is removed");
                disk.unlink(&path).map_err(io_error(&path))
            }
            Self::Mend(header) => {
                mend(disk, header.segment, header);
                Ok(())
            }
        }
    }
}

/// Reads the header of every segment.
///
/// # Errors
/// Where a segment is of a newer version or cannot be read.
pub(super) fn survey(disk: &Disk) -> Result<Survey, SpoolError> {
    let dir = disk.segments();
    let mut survey = Survey::default();
    for name in Disk::list(&dir).map_err(io_error(&dir))? {
        let path = dir.join(&name);
        let Some(id) = segment::parse_file_name(&name) else {
            tracing::warn!(path = %path.display(), "not a segment; ignored");
            continue;
        };
        match read_header(&path, id).map_err(io_error(&path))? {
            Ok((segment, mended)) => {
                survey.known.insert(id, segment);
                survey.mended.extend(mended.then_some(id));
            }
            Err(SegmentError::Newer(version)) => return Err(SpoolError::Newer { path, version }),
            Err(error) => survey.headless.push((id, error)),
        }
    }
    Ok(survey)
}

impl Survey {
    /// Whether there is any segment.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> Option<(SegmentId, &Known)> {
        self.known.iter().next_back().map(|(id, known)| (*id, known))
    }

    /// The lineage that most segments have.
    pub(super) fn lineage(&self) -> Option<SpoolId> {
        let mut counts: BTreeMap<SpoolId, usize> = BTreeMap::new();
        for known in self.known.values() {
            *counts.entry(known.header.lineage).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(lineage, _)| lineage)
    }

    /// Whether a segment has this lineage.
    pub(super) fn has(&self, lineage: SpoolId) -> bool {
        self.known.values().any(|known| known.header.lineage == lineage)
    }

    /// Sets aside what is not of this lineage, finds out what the segments without a header are, and gives them
    /// one: what their neighbours say of them now may not hold later. `newest_id` is the id of the newest segment where
    /// the ledger knows it.
    pub(super) fn settle(
        &mut self,
        disk: &Disk,
        lineage: SpoolId,
        newest_id: Option<SpoolId>,
    ) -> Result<(), SpoolError> {
        self.resolve(disk, lineage, newest_id)?.iter().try_for_each(|change| change.make(disk))
    }

    /// Decides what [`Survey::settle`] does, and changes nothing on the disk.
    pub(super) fn resolve(
        &mut self,
        disk: &Disk,
        lineage: SpoolId,
        newest_id: Option<SpoolId>,
    ) -> Result<Vec<Change>, SpoolError> {
        let mut changes = Vec::new();
        self.known.retain(|id, known| {
            let ours = known.header.lineage == lineage;
            if !ours {
                changes.push(Change::SetAside(*id, "it belongs to another spool".to_owned()));
            }
            ours
        });
        for (id, error) in std::mem::take(&mut self.headless) {
            let path = disk.segment(id);
            let file = Disk::open(&path).map_err(io_error(&path))?;
            let len = file.metadata().map_err(io_error(&path))?.len();
            if len < segment::HEADER_LEN as u64 || disk::is_zero(&file, 0).map_err(io_error(&path))? {
                changes.push(Change::Remove(id));
                continue;
            }
            let first = first_position(&file, id, len).map_err(io_error(&path))?;
            match (self.spool_id_between(id, newest_id), first) {
                (Some(spool_id), Some(first_position)) => {
                    tracing::warn!(path = %path.display(), %error, "segment header damaged; its frames stand in");
                    let created = Timestamp::default();
                    let header = SegmentHeader {
                        segment: id,
                        first_position,
                        lineage,
                        spool_id,
                        created,
                        unsynced: false,
                    };
                    self.known.insert(id, Known { header, len });
                    self.mended.push(id);
                }
                _ => changes.push(Change::SetAside(id, error.to_string())),
            }
        }
        for id in std::mem::take(&mut self.mended) {
            changes.extend(self.known.get(&id).map(|known| Change::Mend(known.header)));
        }
        Ok(changes)
    }

    /// The id of the segments on either side, if they agree. Behind the newest stands what the ledger says.
    fn spool_id_between(&self, id: SegmentId, newest_id: Option<SpoolId>) -> Option<SpoolId> {
        let before = self.known.range(..id).next_back().map(|(_, known)| known.header.spool_id);
        let after = self.known.range(id..).next().map(|(_, known)| known.header.spool_id).or(newest_id);
        let agrees = |other: Option<SpoolId>, id: SpoolId| other.is_none_or(|other| other == id);
        before.or(after).filter(|id| agrees(before, *id) && agrees(after, *id))
    }

    /// The segments as a log, which ends at `end`.
    pub(super) fn extents(&self, end: Position) -> BTreeMap<SegmentId, Extent> {
        let mut extents = BTreeMap::new();
        let mut after = end;
        for (id, known) in self.known.iter().rev() {
            let first = known.header.first_position;
            let extent = Extent {
                spool_id: known.header.spool_id,
                first,
                end: after.max(first),
                len: known.len,
                sealed: true,
            };
            // The next segment's first position takes over whatever this one holds past it.
            after = first.min(after);
            extents.insert(*id, extent);
        }
        extents
    }
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    move |source| SpoolError::Io { path, source }
}

fn set_aside(disk: &Disk, id: SegmentId, why: &str) -> Result<(), SpoolError> {
    let path = disk.segment(id);
    let to = disk.quarantine_path(&path).map_err(io_error(&path))?;
    tracing::error!(path = %path.display(), error = why, to = %to.display(), "segment set aside");
    Ok(())
}

/// Writes a header in the place of a damaged one. Where that fails the next start finds it damaged again.
fn mend(disk: &Disk, id: SegmentId, header: &SegmentHeader) {
    let path = disk.segment(id);
    if let Ok(file) = Disk::open(&path) {
        reader::quarantine(disk, &file, id, 0, segment::HEADER_LEN as u64);
    }
    let mut bytes = Vec::with_capacity(segment::HEADER_LEN);
    header.encode(&mut bytes);
    if let Err(error) = disk.mend_head(&path, &bytes) {
        tracing::warn!(path = %path.display(), %error, "the segment's header cannot be mended");
    }
}

/// Reads a segment's header, or where that is damaged what the snapshot behind it says of it. Says whether it was that.
fn read_header(path: &Path, id: SegmentId) -> io::Result<Result<(Known, bool), SegmentError>> {
    let file = Disk::open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = [0; segment::HEADER_LEN];
    let read = disk::read_at(&file, &mut bytes, 0)?;
    let error = match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
        Ok(header) if header.segment == id => return Ok(Ok((Known { header, len }, false))),
        Ok(_) => SegmentError::Misnamed,
        Err(error) => error,
    };
    if matches!(error, SegmentError::Newer(_) | SegmentError::Misnamed) {
        return Ok(Err(error));
    }
    let Some(snapshot) = reader::snapshot(&file, id, len)? else { return Ok(Err(error)) };
    tracing::warn!(path = %path.display(), %error, "segment header damaged; its snapshot stands in");
    let header = SegmentHeader {
        segment: id,
        first_position: snapshot.position,
        lineage: snapshot.lineage,
        spool_id: snapshot.spool_id,
        created: Timestamp::default(),
        unsynced: snapshot.unsynced,
    };
    Ok(Ok((Known { header, len }, true)))
}

/// The position of the first frame whose header can be read.
fn first_position(file: &File, id: SegmentId, len: u64) -> io::Result<Option<Position>> {
    let Some(at) = reader::find_frame(file, id, segment::HEADER_LEN as u64, len)? else { return Ok(None) };
    Ok(match reader::frame_at(file, id, at, len)? {
        Found::Frame(header, ..) | Found::BadPayload(header, _) => Some(header.first_position),
        Found::BadHeader => None,
    })
}

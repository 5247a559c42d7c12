//! Looking into a spool from outside.
//!
//! Invariants:
//! - Nothing is changed: what would have to be is done to a copy. The ledger is opened as a copy, since opening writes;
//!   of the segments only those are copied that recovery may cut.
//! - What is said is what an agent would start from: the same recovery runs.
//! - The events that wait are counted one by one in the frames, so that the accounts can be checked against them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::content;
use super::dead_letter;
use super::disk::{self, Disk};
use super::files::{FileRecord, FileState, Loss, SourceBytes};
use super::frame::FrameKind;
use super::ledger::Books;
use super::lock::Lock;
use super::log::Log;
use super::missing;
use super::reader::{self, FrameReader, Step};
use super::recovery;
use super::segment::{self, SegmentHeader};
use super::view::Shared;
use super::{Counts, SpoolError, SpoolOptions};
use crate::batch::{BatchContent, BatchId};
use crate::clock;
use crate::config::{OnFull, SyncMode};
use crate::event::{Position, SegmentId, SkipReason, Skipped, SourceName, Timestamp};

/// What is in a spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The spool's directory.
    pub dir: PathBuf,
    /// The id under which new events are sent.
    pub spool_id: String,
    /// What waits for the server.
    pub backlog: Backlog,
    /// The files of frames.
    pub segments: Segments,
    /// Batches that were cut and are not acknowledged.
    pub batches: u64,
    /// Events that the server refused.
    pub dead_letters: DeadLetters,
    /// What was set aside as damaged, in bytes.
    pub quarantine_bytes: u64,
    /// How far each file was read.
    pub checkpoints: Vec<FileStatus>,
    /// What became of the events and the bytes of each source.
    pub sources: Vec<SourceStatus>,
    /// What was lost of the files.
    pub losses: LossReport,
    /// Whether the accounts balance: the bytes of each file and each source; the events of each source, or where events
    /// were damaged those of all together. Damage can leave it open whose the events were, and then the split is as good
    /// a guess as the frames around it allow.
    pub balanced: bool,
}

/// What waits for the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// Bytes of their lines, without line endings.
    pub bytes: u64,
    /// When the oldest of them was read, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// How long ago that was, in seconds; 0 where the clock was set back since.
    pub oldest_age_secs: Option<u64>,
}

/// The files of frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Events that the server refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// How many there are.
    pub count: u64,
    /// How many the server answered with each status.
    pub by_status: BTreeMap<u16, u64>,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// The source that follows it.
    pub source: String,
    /// Where it was last seen; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Everything before this offset is in the spool, or was skipped for a counted reason.
    pub offset: u64,
    /// Bytes before the offset that became events, line endings included.
    pub spooled: u64,
    /// Bytes before the offset that did not, by reason.
    pub skipped: BTreeMap<SkipReason, Skipped>,
    /// Whether `offset = spooled + skipped`.
    pub balanced: bool,
}

/// What became of the bytes of a source: `read = spooled + skipped`, over all of its files for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByteStatus {
    /// Bytes of the files that were accounted for, each time that they were read.
    pub read: u64,
    /// Bytes that became events, line endings included.
    pub spooled: u64,
    /// Bytes that did not, by reason.
    pub skipped: BTreeMap<SkipReason, Skipped>,
    /// Whether the identity holds.
    pub balanced: bool,
}

/// What was lost of the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LossReport {
    /// How many losses there were ever.
    pub count: u64,
    /// The last of them, newest last.
    pub newest: Vec<LossStatus>,
}

/// Bytes of a file that were to be delivered and are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LossStatus {
    /// The source that follows the file.
    pub source: String,
    /// Where it was last seen; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// The first byte of the range.
    pub start: u64,
    /// The byte after the range.
    pub end: u64,
    /// Why.
    pub reason: SkipReason,
    /// When it was found out, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What became of what was read of a source. Of its events: `spooled = acknowledged + pending + dead + dropped + damaged`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub source: String,
    /// Events that were ever spooled, by their sequence numbers.
    pub spooled: u64,
    /// Events that the server has taken.
    pub acknowledged: u64,
    /// Events that wait, counted in the frames.
    pub pending: u64,
    /// Events that the server refused for good.
    pub dead: u64,
    /// Events dropped because the spool was full and `on_full` said so.
    pub dropped: u64,
    /// Events whose bytes were damaged on disk, those included that are only found damaged now.
    pub damaged: u64,
    /// Whether that identity holds.
    pub balanced: bool,
    /// What became of the bytes of its files.
    pub bytes: ByteStatus,
}

/// Looks into the spool in `dir`, on which no agent runs.
///
/// # Errors
/// Where there is no spool, an agent holds it, or it cannot be read.
pub fn report(dir: &Path) -> Result<Report, SpoolError> {
    let disk = Disk::new(dir);
    if !disk.segments().is_dir() {
        return Err(SpoolError::Missing { path: dir.to_owned() });
    }
    Lock::probe(&disk)?;
    let report = report_of(&disk)?;
    // What an agent that started meanwhile changed under this look makes it worthless.
    Lock::probe(&disk)?;
    Ok(report)
}

/// The same, whoever has the lock. An agent must not run.
pub(super) fn report_of(disk: &Disk) -> Result<Report, SpoolError> {
    let dir = disk.root();
    let io = |source| SpoolError::Io { path: dir.to_owned(), source };
    let (_copy, cloned, recovered) = recover_copy(disk)?;
    let letters = dead_letter::read_all(disk).map_err(io)?;
    let mut dead_letters = DeadLetters::default();
    for letter in letters.values() {
        dead_letters.count += 1;
        *dead_letters.by_status.entry(letter.status).or_default() += 1;
    }
    let recovery::Recovered { books, segments, state, end, totals, .. } = recovered;
    let size = Segments {
        count: segments.len() as u64,
        bytes: segments.values().map(|extent| extent.len).fold(0, u64::saturating_add),
    };
    let shared = Shared::new(&books, totals);
    let log = Arc::new(Log::new(cloned, segments, end));
    let mut pending =
        Pending { log, shared, backlog: Backlog::default(), intact: Counts::new(), lost: Counts::new() };
    pending.count(&books, end).map_err(io)?;
    let sources = sources(&books, &state, &pending);
    let checkpoints: Vec<_> = state.files.values().map(FileStatus::of).collect();
    let losses = LossReport {
        count: state.losses.total,
        newest: state.losses.newest.iter().map(LossStatus::of).collect(),
    };
    Ok(Report {
        dir: dir.to_owned(),
        spool_id: books.meta.spool_id.to_string(),
        batches: books.batches().count() as u64,
        backlog: pending.backlog,
        segments: size,
        dead_letters,
        quarantine_bytes: Disk::usage(&disk.quarantine()),
        balanced: balance(&sources) && checkpoints.iter().all(|file| file.balanced),
        checkpoints,
        sources,
        losses,
    })
}

/// Recovers a copy of the spool, as an agent would recover the spool itself. The copy goes with the directory.
pub(super) fn recover_copy(
    disk: &Disk,
) -> Result<(tempfile::TempDir, Disk, recovery::Recovered), SpoolError> {
    let io = |source| SpoolError::Io { path: disk.root().to_owned(), source };
    let copy = tempfile::tempdir().map_err(io)?;
    disk.clone_to(copy.path()).map_err(io)?;
    let cloned = Disk::new(copy.path());
    let options = SpoolOptions {
        dir: copy.path().to_owned(),
        profile: None,
        segment_bytes: u64::MAX,
        sync: SyncMode::Group,
        max_spool_bytes: u64::MAX,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        channel_bound: 1,
    };
    let recovered = recovery::recover(&cloned, &options)?;
    Ok((copy, cloned, recovered))
}

impl FileStatus {
    fn of(record: &FileRecord) -> Self {
        let FileRecord { checkpoint, account } = record;
        Self {
            source: checkpoint.source.to_string(),
            path: checkpoint.display_path().to_string(),
            offset: checkpoint.offset.0,
            spooled: account.spooled,
            skipped: account.skips.iter().collect(),
            balanced: record.is_balanced(),
        }
    }
}

impl ByteStatus {
    fn of(bytes: &SourceBytes) -> Self {
        let SourceBytes { read, spooled, skips } = bytes;
        Self {
            read: *read,
            spooled: *spooled,
            skipped: skips.iter().collect(),
            balanced: bytes.is_balanced(),
        }
    }
}

impl LossStatus {
    fn of(loss: &Loss) -> Self {
        Self {
            source: loss.source.to_string(),
            path: loss.path.display().to_string(),
            start: loss.start.0,
            end: loss.end.0,
            reason: loss.reason,
            at_ms: loss.at.millis(),
        }
    }
}

fn balance(sources: &[SourceStatus]) -> bool {
    let sum = |count: fn(&SourceStatus) -> u64| sources.iter().map(count).fold(0, u64::saturating_add);
    let events = sources.iter().all(|source| source.balanced)
        || sum(|source| source.damaged) > 0 && sum(|source| source.spooled) == sum(SourceStatus::accounted);
    events && sources.iter().all(|source| source.bytes.balanced)
}

impl SourceStatus {
    /// Events of which it is known what became of them.
    const fn accounted(&self) -> u64 {
        self.acknowledged
            .saturating_add(self.pending)
            .saturating_add(self.dead)
            .saturating_add(self.dropped)
            .saturating_add(self.damaged)
    }
}

fn sources(books: &Books, state: &FileState, pending: &Pending) -> Vec<SourceStatus> {
    let FileState { next_seqs, bytes, .. } = state;
    let names: std::collections::BTreeSet<_> = books
        .sources
        .keys()
        .chain(next_seqs.keys())
        .chain(bytes.keys())
        .chain(pending.intact.keys())
        .chain(pending.lost.keys())
        .collect();
    let status = |name: &SourceName| {
        let account = books.sources.get(name).map(|record| record.account).unwrap_or_default();
        let under_this_id = next_seqs.get(name).map_or(0, |next| next.0.saturating_sub(1));
        let waiting = pending.intact.get(name).copied().unwrap_or(0);
        let damaged = account.damaged + pending.lost.get(name).copied().unwrap_or(0);
        let spooled = account.earlier + under_this_id;
        let mut status = SourceStatus {
            source: name.to_string(),
            spooled,
            acknowledged: account.acknowledged,
            pending: waiting,
            dead: account.dead,
            dropped: account.dropped,
            damaged,
            balanced: false,
            bytes: ByteStatus::of(bytes.get(name).unwrap_or(&SourceBytes::default())),
        };
        status.balanced = spooled == status.accounted();
        status
    };
    names.into_iter().map(status).collect()
}

/// What is counted in the frames.
struct Pending {
    log: Arc<Log>,
    shared: Shared,
    backlog: Backlog,
    /// Events of each source that wait.
    intact: Counts,
    /// Events of each source that wait and cannot be read.
    lost: Counts,
}

impl Pending {
    fn count(&mut self, books: &Books, end: Position) -> io::Result<()> {
        for record in books.batches() {
            self.batch(record.id)?;
        }
        let mut reader = FrameReader::new(self.log.clone(), books.cursor, None, false);
        while reader.next_position() < end {
            let next = reader.next_position();
            match reader.step()? {
                Step::Frame(frame) => {
                    let mut content = BatchContent::default();
                    let last = Position(frame.header.end_position().0.saturating_sub(1));
                    content::push(&mut content, &frame, frame.header.first_position.max(next), last);
                    self.add(&content);
                }
                Step::Missing(missing) => self.lose(missing.first, missing.end)?,
                Step::CaughtUp => return self.lose(next, end),
            }
        }
        Ok(())
    }

    fn batch(&mut self, id: BatchId) -> io::Result<()> {
        let mut reader = FrameReader::new(self.log.clone(), id.first, None, false);
        let run = content::read_run(&mut reader, id.first, id.last)?;
        if run.is_whole() {
            match id.part {
                Some(part) => self.add(&run.content.part(part.from, part.to)),
                None => self.add(&run.content),
            }
            return Ok(());
        }
        let mut counted = self.intact.clone();
        for (source, events) in &self.lost {
            *counted.entry(source.clone()).or_default() += events;
        }
        let salvage = content::salvage(&self.log, &self.shared, id, &run, &counted)?;
        for (first, last) in salvage.intact {
            self.batch(BatchId { first, last, part: None })?;
        }
        for (source, events) in salvage.damaged {
            *self.lost.entry(source).or_default() += events;
        }
        Ok(())
    }

    fn add(&mut self, content: &BatchContent) {
        for run in &content.sources {
            *self.intact.entry(run.source.clone()).or_default() += u64::from(run.events);
            self.backlog.events += u64::from(run.events);
            for slice in &run.slices {
                self.backlog.bytes += slice.events().map(|event| event.line.len() as u64).sum::<u64>();
                self.backlog.note(slice.detected);
            }
        }
    }

    fn lose(&mut self, first: Position, end: Position) -> io::Result<()> {
        for (source, events) in missing::owners(&self.log, &self.shared, first, end)? {
            *self.lost.entry(source).or_default() += events;
        }
        Ok(())
    }
}

impl Backlog {
    fn note(&mut self, detected: Timestamp) {
        let oldest = self.oldest_ms.map_or(detected.millis(), |oldest| oldest.min(detected.millis()));
        let age_ms = clock::wall().millis().saturating_sub(oldest);
        self.oldest_ms = Some(oldest);
        self.oldest_age_secs = Some(u64::try_from(age_ms / 1000).unwrap_or(0));
    }
}

/// How many events were ever written to the spool in `dir`, beside an agent that may run on it. Reads the headers of the
/// newest segment's frames; what is just being written does not count.
///
/// # Errors
/// Where there is no segment that can be read.
pub fn spooled(dir: &Path) -> io::Result<u64> {
    let disk = Disk::new(dir);
    // A segment may be replaced by the next one between looking for it and opening it.
    for _ in 0..3 {
        let names = Disk::list(&disk.segments())?;
        let Some(id) = names.iter().filter_map(|name| segment::parse_file_name(name)).max() else {
            return Ok(0);
        };
        match spooled_until(&disk, id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            spooled => return spooled,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn spooled_until(disk: &Disk, id: SegmentId) -> io::Result<u64> {
    let file = Disk::open(&disk.segment(id))?;
    let len = file.metadata()?.len();
    let mut head = [0; segment::HEADER_LEN];
    let read = disk::read_at(&file, &mut head, 0)?;
    let header = SegmentHeader::decode(head.get(..read).unwrap_or_default())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut end = header.first_position;
    let mut at = segment::HEADER_LEN as u64;
    while let Ok((header, header_len)) = reader::header_at(&file, id, at, len)? {
        at += header_len as u64 + u64::from(header.payload_len);
        if at > len {
            break;
        }
        if header.kind == FrameKind::Events {
            end = end.max(header.end_position());
        }
    }
    Ok(end.0.saturating_sub(1))
}

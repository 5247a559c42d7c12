//! A look at a spool that changes nothing.
//!
//! Invariants:
//! - The segments are read where they are, by the rules of recovery: what an agent would cut, set aside or mend is known
//!   and not done.
//! - The ledger is read from a copy, since opening it writes; beside an agent it is not read.

use std::path::Path;
use std::sync::Arc;

use super::ToolError;
use crate::config::SyncMode;
use crate::event::{Position, SegmentId};
use crate::spool::adopt;
use crate::spool::beside::{self, Agent};
use crate::spool::disk::{self, Disk};
use crate::spool::frame::FrameKind;
use crate::spool::ledger::{Books, Ledger, LedgerError};
use crate::spool::lock::Lock;
use crate::spool::log::Log;
use crate::spool::reader::{self, FrameReader, Step};
use crate::spool::segment;
use crate::spool::survey::{Change, Survey, io_error, survey};
use crate::spool::{Frame, SpoolError};

/// How often the segments are looked at again because an agent unlinked one meanwhile.
const ATTEMPTS: usize = 10;

/// What is seen of a spool.
pub(super) struct Look {
    pub disk: Disk,
    /// The agent that runs on it.
    pub agent: Option<Agent>,
    pub survey: Survey,
    /// What recovery would do to segments first.
    pub changes: Vec<Change>,
    /// Where the torn end of the newest segment begins, and the length of the file.
    pub torn: Option<(SegmentId, u64, u64)>,
    pub ledger: Seen,
    pub log: Arc<Log>,
    /// The position after the last event.
    pub end: Position,
}

/// What is seen of the ledger.
#[derive(Debug)]
pub(super) enum Seen {
    /// An agent has it.
    Held,
    Missing,
    /// It cannot be used, for this reason.
    Broken(String),
    Books(Box<Books>),
}

/// What stands at a position.
pub(super) enum Entry<'a> {
    Frame(&'a Frame),
    /// Positions from the first to before the second cannot be read.
    Missing(Position, Position),
}

impl Look {
    /// Looks at the spool in `dir`.
    ///
    /// # Errors
    /// Where there is none, or it was written by a newer version, or cannot be read.
    pub(super) fn at(dir: &Path) -> Result<Self, SpoolError> {
        let disk = Disk::new(dir);
        if !disk.segments().is_dir() {
            return Err(SpoolError::Missing { path: dir.to_owned() });
        }
        let agent = beside::holder(&disk)?;
        let ledger = if agent.is_some() { Seen::Held } else { read_ledger(&disk)? };
        Self::with(disk, agent, ledger)
    }

    /// The same, where an agent is an error.
    pub(super) fn at_rest(dir: &Path) -> Result<Self, SpoolError> {
        let disk = Disk::new(dir);
        if disk.segments().is_dir() {
            Lock::probe(&disk)?;
        }
        Self::at(dir)
    }

    /// Looks at a spool whose lock this process has. `ledger` is what is in it.
    pub(super) fn with(disk: Disk, agent: Option<Agent>, ledger: Seen) -> Result<Self, SpoolError> {
        // What recovery has to say of it is said by whoever looks.
        let silence = tracing::subscriber::NoSubscriber::new();
        tracing::subscriber::with_default(silence, || {
            let mut attempts = if agent.is_some() { ATTEMPTS } else { 1 };
            loop {
                attempts -= 1;
                match see(&disk, ledger.books()) {
                    Err(SpoolError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound && attempts > 0 => {}
                    Err(error) => return Err(error),
                    Ok(Sight { survey, changes, torn, end }) => {
                        let log = Arc::new(Log::new(disk.clone(), survey.extents(end), end));
                        return Ok(Self { disk, agent, survey, changes, torn, ledger, log, end });
                    }
                }
            }
        })
    }

    pub(super) fn books(&self) -> Option<&Books> {
        self.ledger.books()
    }

    /// The position of the first event in the segments.
    pub(super) fn first(&self) -> Position {
        self.log.segments().values().next().map_or(self.end, |extent| extent.first)
    }

    /// Shows everything from `first` to before `end`, in order, until `show` says that it has seen enough.
    pub(super) fn entries(
        &self,
        first: Position,
        end: Position,
        mut show: impl FnMut(Entry<'_>) -> Result<bool, ToolError>,
    ) -> Result<(), ToolError> {
        let mut reader = FrameReader::new(self.log.clone(), first, None, false);
        while reader.next_position() < end {
            let next = reader.next_position();
            let goes_on = match reader.step() {
                Ok(Step::Frame(frame)) if frame.header.first_position >= end => return Ok(()),
                Ok(Step::Frame(frame)) => show(Entry::Frame(&frame))?,
                Ok(Step::Missing(missing)) => show(Entry::Missing(missing.first, missing.end.min(end)))?,
                Ok(Step::CaughtUp) => return Ok(()),
                Err(error) => {
                    let is_gone = error.kind() == std::io::ErrorKind::NotFound && self.agent.is_some();
                    let Some((_, extent)) = self.log.find(next).filter(|_| is_gone) else {
                        return Err(io_error(&self.disk.segments())(error).into());
                    };
                    // The agent unlinked it meanwhile: all of it was settled.
                    reader = FrameReader::new(self.log.clone(), extent.end, None, false);
                    true
                }
            };
            if !goes_on {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Seen {
    pub(super) fn books(&self) -> Option<&Books> {
        match self {
            Self::Books(books) => Some(books),
            Self::Held | Self::Missing | Self::Broken(_) => None,
        }
    }
}

struct Sight {
    survey: Survey,
    changes: Vec<Change>,
    torn: Option<(SegmentId, u64, u64)>,
    end: Position,
}

/// The first steps of recovery, up to where it would write.
fn see(disk: &Disk, books: Option<&Books>) -> Result<Sight, SpoolError> {
    let mut survey = survey(disk)?;
    // A ledger of another spool does not say which segments are ours.
    let books = books.filter(|books| survey.has(books.meta.lineage));
    let lineage = books.map(|books| books.meta.lineage).or_else(|| survey.lineage());
    let changes = match lineage {
        Some(lineage) => survey.resolve(disk, lineage, books.map(|books| books.meta.spool_id))?,
        None => Vec::new(),
    };
    let mut sight = Sight { survey, changes, torn: None, end: Position(1) };
    let Some((id, known)) = sight.survey.newest() else { return Ok(sight) };
    let (path, len, first) = (disk.segment(id), known.len, known.header.first_position);
    let file = Disk::open(&path).map_err(io_error(&path))?;
    let cursor = books.map(|books| books.cursor);
    let damage = adopt::damage_in_last_group(&file, id, len, first).map_err(io_error(&path))?;
    let torn = damage.filter(|(_, position)| cursor.is_none_or(|cursor| cursor <= *position));
    let counts = torn.map_or(len, |(at, _)| at);
    sight.torn = torn.map(|(at, _)| (id, at, len));
    sight.end = end(&file, id, counts, first).map_err(io_error(&path))?;
    if let Some(known) = sight.survey.known.get_mut(&id) {
        known.len = counts;
    }
    Ok(sight)
}

/// The position after the last event of a segment that counts for `len` bytes.
fn end(file: &std::fs::File, id: SegmentId, len: u64, first: Position) -> std::io::Result<Position> {
    let mut end = first;
    let mut at = segment::HEADER_LEN as u64;
    while at < len {
        match reader::header_at(file, id, at, len)? {
            Ok((header, header_len)) => {
                if header.kind == FrameKind::Events {
                    end = end.max(header.end_position());
                }
                at += header_len as u64 + u64::from(header.payload_len);
            }
            Err(_) => at = reader::find_frame(file, id, at + 1, len)?.unwrap_or(len),
        }
    }
    Ok(end)
}

/// Reads the ledger of a spool that nobody has open.
pub(super) fn read_ledger(disk: &Disk) -> Result<Seen, SpoolError> {
    let path = disk.ledger();
    let copy = tempfile::tempdir().map_err(io_error(&path))?;
    let there = Disk::new(copy.path());
    for (from, to) in
        [(path.clone(), there.ledger()), (path.with_extension("old"), there.ledger().with_extension("old"))]
    {
        disk::copy_dir(&from, &to).map_err(io_error(&from))?;
    }
    Ledger::settle(&there).map_err(io_error(&path))?;
    if !there.ledger().exists() {
        return Ok(Seen::Missing);
    }
    match Ledger::open(&there, &there.ledger(), SyncMode::Os).and_then(|ledger| ledger.read()) {
        Ok(Some(books)) => Ok(Seen::Books(Box::new(books))),
        Ok(None) => Ok(Seen::Broken("it is empty".to_owned())),
        Err(LedgerError::Newer { version, .. }) => Err(SpoolError::Newer { path, version }),
        Err(error) => {
            // The copy's place would only confuse.
            let why = crate::error_chain(&error);
            Ok(Seen::Broken(why.replace(&*copy.path().to_string_lossy(), &disk.root().to_string_lossy())))
        }
    }
}

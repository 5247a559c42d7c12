//! The dead letters: which there are, sending them again, deleting them.
//!
//! Invariants:
//! - A letter leaves its file only after its event is durable in the log again. A crash in between leaves both: the event
//!   is sent, and the letter can be requeued once more.
//! - A requeued event is a new one, with the number that comes next in its source; the old one stays counted as dead.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::show::Wanted;
use super::{Progress, ToolError, event};
use crate::clock;
use crate::event::{
    Checkpoint, EventBlock, FileIdentity, FileOffset, FrameDraft, FrameSink as _, Position, Skips,
    SourceName, Witness,
};
use crate::spool::dead_letter::{self, DeadLetter};
use crate::spool::disk::Disk;
use crate::spool::lock::Lock;
use crate::spool::survey::io_error;
use crate::spool::{Spool, SpoolError, SpoolOptions};

/// The most bytes of lines in one frame of requeued events.
const FRAME_BYTES: usize = 256 << 10;
/// How long the disk may take for a frame before it counts as refusing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A dead letter as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LetterRecord {
    /// The event's place in the log.
    pub position: u64,
    pub source: String,
    /// Its number in the source.
    pub seq: u64,
    /// The time that it was sent with.
    pub time: String,
    /// The status that the server answered with.
    pub status: u16,
    /// The beginning of the server's answer.
    pub response: String,
    /// The line; what is not UTF-8 is replaced.
    pub data: String,
    /// The line's bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// Which dead letters are meant: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// One of these; any where there is none.
    pub events: Vec<Wanted>,
    pub source: Option<String>,
    pub status: Option<u16>,
}

impl Selection {
    fn has(&self, letter: &DeadLetter) -> bool {
        let is_wanted = |wanted: &Wanted| match wanted {
            Wanted::Position(position) => *position == letter.position,
            Wanted::Event(source, seq) => source == letter.source.as_str() && *seq == letter.seq,
            Wanted::Batch(id) => id.first <= letter.position && letter.position <= id.last,
        };
        (self.events.is_empty() || self.events.iter().any(is_wanted))
            && self.source.as_ref().is_none_or(|source| source == letter.source.as_str())
            && self.status.is_none_or(|status| status == letter.status)
    }
}

/// Shows the dead letters of the spool in `dir`, by position.
///
/// # Errors
/// Where there is no spool or they cannot be read.
pub(crate) fn letters(dir: &Path, selection: &Selection) -> Result<Vec<LetterRecord>, ToolError> {
    let disk = existing(dir)?;
    Ok(selected(&disk, selection)?.into_iter().map(record).collect())
}

/// Deletes dead letters of a spool on which no agent runs. Says how many.
///
/// # Errors
/// Where there is no spool, an agent holds it, or they cannot be read or written.
pub(crate) fn purge_letters(dir: &Path, selection: &Selection) -> Result<u64, ToolError> {
    let disk = existing(dir)?;
    let _lock = Lock::take(&disk)?;
    let gone: BTreeSet<_> = selected(&disk, selection)?.iter().map(|letter| letter.position).collect();
    dead_letter::remove(&disk, &gone).map_err(io_error(&disk.dead_letters()))?;
    Ok(gone.len() as u64)
}

/// Appends dead letters to the log of a spool on which no agent runs, as new events of their sources, and takes them out of
/// the dead letters. Says how many.
///
/// # Errors
/// Where there is no spool, an agent holds it, or it cannot be read or written.
pub(crate) fn requeue(
    options: &SpoolOptions,
    selection: &Selection,
    progress: Progress<'_>,
) -> Result<u64, ToolError> {
    let disk = existing(&options.dir)?;
    let lock = Arc::new(Lock::take(&disk)?);
    let letters = selected(&disk, selection)?;
    if letters.is_empty() {
        return Ok(0);
    }
    let spool = Spool::open_with(disk.clone(), options, lock, |_| Ok(()))?;
    let mut done = 0;
    while let Some(rest) = letters.get(done..).filter(|rest| !rest.is_empty()) {
        let (draft, count) = draft(rest);
        let end = spool.log.end().plus(count as u64);
        spool.appender().append(draft).map_err(|_| ToolError::NotTaken)?;
        let until = Some(clock::now() + PATIENCE);
        if !spool.log.wait_for(Position(end.0.saturating_sub(1)), until) {
            return Err(ToolError::NotTaken);
        }
        let gone = rest.iter().take(count).map(|letter| letter.position).collect();
        dead_letter::remove(&disk, &gone).map_err(io_error(&disk.dead_letters()))?;
        done += count;
        progress(done as u64, letters.len() as u64);
    }
    spool.close();
    Ok(done as u64)
}

/// The first of the letters that are of one source, as events of no file: nothing is read of any, and nothing is
/// remembered of it.
fn draft(letters: &[DeadLetter]) -> (FrameDraft, usize) {
    let source = letters.first().map_or_else(|| SourceName::from(""), |letter| letter.source.clone());
    let mut events = EventBlock::default();
    for letter in letters {
        if letter.source != source || !events.is_empty() && events.bytes().len() >= FRAME_BYTES {
            break;
        }
        events.push_timed(&letter.line, false, Some(letter.detected));
    }
    let count = usize::try_from(events.count()).unwrap_or(usize::MAX);
    let checkpoint = Checkpoint {
        source,
        path: std::path::PathBuf::new(),
        identity: FileIdentity::default(),
        head: Witness::default(),
        tail: Witness::default(),
        offset: FileOffset(0),
    };
    let draft = FrameDraft {
        checkpoint,
        start: FileOffset(0),
        detected: clock::wall(),
        events,
        skips: Skips::default(),
        before: None,
        forget: true,
    };
    (draft, count)
}

fn existing(dir: &Path) -> Result<Disk, SpoolError> {
    let disk = Disk::new(dir);
    match disk.segments().is_dir() {
        true => Ok(disk),
        false => Err(SpoolError::Missing { path: dir.to_owned() }),
    }
}

fn selected(disk: &Disk, selection: &Selection) -> Result<Vec<DeadLetter>, SpoolError> {
    let letters = dead_letter::read_all(disk).map_err(io_error(&disk.dead_letters()))?;
    Ok(letters.into_values().filter(|letter| selection.has(letter)).collect())
}

fn record(letter: DeadLetter) -> LetterRecord {
    let (data, data_base64) = event::text(&letter.line);
    LetterRecord {
        position: letter.position.0,
        source: letter.source.to_string(),
        seq: letter.seq.0,
        time: letter.detected.to_string(),
        status: letter.status,
        response: letter.response,
        data: data.into_owned(),
        data_base64,
    }
}

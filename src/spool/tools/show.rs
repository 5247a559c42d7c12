//! One event or one batch, with what has become of it.

use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use super::ToolError;
use super::event::{self, EventRecord};
use super::list::{SourceRow, idempotency_key};
use super::look::{Entry, Look};
use crate::batch::{BatchId, Part};
use crate::event::{Position, SegmentId, Seq};
use crate::spool::content;
use crate::spool::dead_letter;
use crate::spool::disk::Disk;
use crate::spool::frame::{FrameHeader, FrameKind};
use crate::spool::log::Extent;
use crate::spool::reader::{self, FrameReader};
use crate::spool::segment;
use crate::spool::survey::io_error;
use crate::spool::{Frame, SpoolError};

/// What is looked for: `@120345`, `app:1001`, `1001-1050`, or a key as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Position(Position),
    Event(String, Seq),
    Batch(BatchId),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let position = text.strip_prefix('@').map(|digits| digits.parse().map(Position));
        if let Some(position) = position {
            return position.map(Self::Position).map_err(|error| format!("{text} is no position: {error}"));
        }
        // Names of sources may have colons, and may look like a batch up to the last one.
        if let Some((source, seq)) = text.rsplit_once(':') {
            let seq = seq.parse().map_err(|error| format!("{seq:?} is no sequence number: {error}"))?;
            return Ok(Self::Event(source.to_owned(), Seq(seq)));
        }
        batch(text).map(Self::Batch).ok_or_else(|| {
            format!("{text:?} is neither SOURCE:NUMBER, @POSITION, nor the key of a batch such as 1001-1050")
        })
    }
}

/// `1001-1050`, `1001-1050.0-25`, or either behind a spool id and before the name of a profile, in quotes or not.
fn batch(text: &str) -> Option<BatchId> {
    let text = text.trim_matches('"');
    let text = match text.split_once('-') {
        Some((id, rest)) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest,
        _ => text,
    };
    let text = match text.rsplit_once('-') {
        Some((range, profile)) if is_profile(range, profile) => range,
        _ => text,
    };
    let (positions, part) = match text.split_once('.') {
        Some((positions, part)) => {
            let (from, to) = part.split_once('-')?;
            (positions, Some(Part { from: from.parse().ok()?, to: to.parse().ok()? }))
        }
        None => (text, None),
    };
    let (first, last) = positions.split_once('-')?;
    let (first, last) = (Position(first.parse().ok()?), Position(last.parse().ok()?));
    (first <= last).then_some(BatchId { first, last, part })
}

/// Whether what stands behind the last dash of a key names a profile, and is not the end of the range before it.
fn is_profile(range: &str, text: &str) -> bool {
    let last = range.rsplit_once('.').map_or(range, |(_, part)| part);
    last.contains('-') && text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Found {
    Event(Box<EventView>),
    Batch(BatchView),
}

/// An event and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EventView {
    #[serde(flatten)]
    pub event: EventRecord<'static>,
    pub spool_id: String,
    /// The segment that holds its frame.
    pub segment: u64,
    /// Where the frame begins in it.
    pub offset: u64,
    /// The range of the file that the frame accounts for.
    pub file_start: u64,
    pub file_end: u64,
    #[serde(flatten)]
    pub state: State,
}

/// What has become of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum State {
    /// An agent runs, and only it knows.
    Unknown,
    /// The ledger cannot be read; after its rebuilding it may be sent again.
    NoLedger,
    /// It is not cut into a batch yet.
    Uncut,
    /// It is in a batch that is not acknowledged.
    Outstanding {
        /// The batch.
        batch: String,
    },
    /// The server refused it for good.
    Dead {
        /// With this status.
        status: u16,
    },
    /// It was acknowledged or dropped, or is a dead letter no more.
    Settled,
}

/// A batch and its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BatchView {
    pub batch: String,
    pub idempotency_key: String,
    pub sources: Vec<SourceRow>,
    /// Whether it is cut and not acknowledged; the ledger says, which an agent has for itself.
    pub outstanding: Option<bool>,
    /// Positions of the range whose events cannot be read.
    pub missing: u64,
    /// By position.
    pub events: Vec<EventRecord<'static>>,
}

/// Looks for an event or a batch in the spool in `dir`.
///
/// # Errors
/// Where it is not there, there is no spool, or it cannot be read.
pub(crate) fn find(dir: &Path, wanted: &Wanted) -> Result<Found, ToolError> {
    let look = Look::at(dir)?;
    let not_there = || ToolError::NotThere {
        what: match wanted {
            Wanted::Position(position) => format!("event that can be read at position {position}"),
            Wanted::Event(source, seq) => format!("event {seq} of source {source:?} that can be read"),
            Wanted::Batch(id) => format!("event of batch {id}"),
        },
    };
    match wanted {
        Wanted::Position(position) => event_at(&look, *position)?.ok_or_else(not_there),
        Wanted::Event(source, seq) => {
            let position = position_of(&look, source, *seq)?.ok_or_else(not_there)?;
            event_at(&look, position)?.ok_or_else(not_there)
        }
        Wanted::Batch(id) => batch_view(&look, *id)?.map(Found::Batch).ok_or_else(not_there),
    }
}

fn event_at(look: &Look, position: Position) -> Result<Option<Found>, ToolError> {
    let mut found = None;
    look.entries(position, position.plus(1), |entry| {
        if let Entry::Frame(frame) = entry
            && let Some((index, event)) = event::events(frame, position, position.plus(1)).next()
        {
            let record = EventRecord::of(frame, index, &event);
            let state = state(look, frame, &record)?;
            found = Some(Found::Event(Box::new(EventView {
                event: record.into_owned(),
                spool_id: frame.spool_id.to_string(),
                segment: frame.at.segment.0,
                offset: frame.at.offset,
                file_start: frame.header.start.0,
                file_end: frame.header.checkpoint.offset.0,
                state,
            })));
        }
        Ok(false)
    })?;
    Ok(found)
}

fn state(look: &Look, frame: &Frame, event: &EventRecord<'_>) -> Result<State, ToolError> {
    let position = Position(event.position);
    let letters = dead_letter::read_all(&look.disk).map_err(io_error(&look.disk.dead_letters()))?;
    let dead = letters.get(&position).map(|letter| State::Dead { status: letter.status });
    if look.agent.is_some() {
        return Ok(dead.unwrap_or(State::Unknown));
    }
    let Some(books) = look.books() else { return Ok(dead.unwrap_or(State::NoLedger)) };
    if position >= books.cursor {
        return Ok(State::Uncut);
    }
    for record in books.batches().filter(|record| record.id.first <= position && position <= record.id.last) {
        let holds = match record.id.part {
            None => true,
            Some(part) => {
                let index = index_in(look, record.id, frame, Seq(event.seq))?;
                index.is_some_and(|index| (part.from.into()..part.to.into()).contains(&index))
            }
        };
        if holds {
            return Ok(State::Outstanding { batch: record.id.to_string() });
        }
    }
    Ok(dead.unwrap_or(State::Settled))
}

/// The place of an event in the payload of the whole batch that has it.
fn index_in(look: &Look, id: BatchId, frame: &Frame, seq: Seq) -> Result<Option<u64>, ToolError> {
    let mut reader = FrameReader::new(look.log.clone(), id.first, None, false);
    let run = content::read_run(&mut reader, id.first, id.last).map_err(io_error(&look.disk.segments()))?;
    let mut before = 0;
    for run in &run.content.sources {
        if run.source == frame.header.checkpoint.source {
            return Ok(Some(before + seq.since(run.first_seq)));
        }
        before += u64::from(run.events);
    }
    Ok(None)
}

/// The position of the event with this number; under several spool ids that of the newest.
fn position_of(look: &Look, source: &str, seq: Seq) -> Result<Option<Position>, ToolError> {
    for (id, extent) in look.log.segments().into_iter().rev() {
        let path = look.disk.segment(id);
        match in_segment(&path, id, &extent, source, seq) {
            Ok(Some(position)) => return Ok(Some(position)),
            Ok(None) => {}
            // Settled and unlinked meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && look.agent.is_some() => {}
            Err(error) => return Err(SpoolError::Io { path, source: error }.into()),
        }
    }
    Ok(None)
}

fn in_segment(
    path: &Path,
    id: SegmentId,
    extent: &Extent,
    source: &str,
    seq: Seq,
) -> std::io::Result<Option<Position>> {
    let file = Disk::open(path)?;
    let snapshot = reader::snapshot(&file, id, extent.len)?;
    let is_before = snapshot.is_some_and(|snapshot| {
        snapshot.sources.iter().any(|(name, entry)| name.as_str() == source && seq < entry.next_seq)
    });
    if is_before {
        return Ok(None);
    }
    let holds = |header: &FrameHeader| {
        header.kind == FrameKind::Events
            && header.checkpoint.source.as_str() == source
            && header.first_seq <= seq
            && seq < header.first_seq.plus(u64::from(header.events))
    };
    let mut at = segment::HEADER_LEN as u64;
    while at < extent.len {
        at = match reader::header_at(&file, id, at, extent.len)? {
            Ok((header, _)) if holds(&header) => {
                let position = header.first_position.plus(seq.since(header.first_seq));
                // What a successor took over is found there.
                return Ok((position < extent.end).then_some(position));
            }
            Ok((header, len)) => at + len as u64 + u64::from(header.payload_len),
            Err(_) => reader::find_frame(&file, id, at + 1, extent.len)?.unwrap_or(extent.len),
        };
    }
    Ok(None)
}

fn batch_view(look: &Look, id: BatchId) -> Result<Option<BatchView>, ToolError> {
    if id.last < look.first() || id.first >= look.end {
        return Ok(None);
    }
    let mut reader = FrameReader::new(look.log.clone(), id.first, None, false);
    let run = content::read_run(&mut reader, id.first, id.last).map_err(io_error(&look.disk.segments()))?;
    let content = match id.part {
        Some(part) => run.content.part(part.from, part.to),
        None => run.content,
    };
    let sources: Vec<_> = content
        .ranges()
        .into_iter()
        .map(|range| SourceRow { source: range.source.to_string(), first: range.first.0, last: range.last.0 })
        .collect();
    // Damage hides what is behind it from the payload, but not from whoever wants to see what is there.
    let in_payload = |event: &EventRecord<'_>| {
        id.part.is_none()
            || sources
                .iter()
                .any(|range| range.source == event.source && (range.first..=range.last).contains(&event.seq))
    };
    let mut view = BatchView {
        batch: id.to_string(),
        idempotency_key: idempotency_key(look, id),
        outstanding: look.books().map(|books| books.batches().any(|record| record.id == id)),
        missing: 0,
        events: Vec::new(),
        sources: sources.clone(),
    };
    let end = id.last.plus(1);
    look.entries(id.first, end, |entry| {
        match entry {
            Entry::Frame(frame) => {
                let records = event::events(frame, id.first, end)
                    .map(|(index, event)| EventRecord::of(frame, index, &event));
                view.events.extend(records.filter(in_payload).map(EventRecord::into_owned));
            }
            Entry::Missing(from, to) => view.missing += to.since(from),
        }
        Ok(true)
    })?;
    Ok((!view.events.is_empty() || view.missing > 0).then_some(view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read_as_it_is_printed() {
        let batch =
            |first, last, part| Wanted::Batch(BatchId { first: Position(first), last: Position(last), part });
        let key = "\"000102030405060708090a0b0c0d0e0f-7-9.0-2\"";
        for (text, wanted) in [
            ("@17", Wanted::Position(Position(17))),
            ("app:1001", Wanted::Event("app".into(), Seq(1001))),
            ("k8s:pods:3", Wanted::Event("k8s:pods".into(), Seq(3))),
            ("1001-1050", batch(1001, 1050, None)),
            ("7-9.0-2", batch(7, 9, Some(Part { from: 0, to: 2 }))),
            (key, batch(7, 9, Some(Part { from: 0, to: 2 }))),
            ("7-9-0123456789abcdef", batch(7, 9, None)),
            ("7-9.0-2-0123456789012345", batch(7, 9, Some(Part { from: 0, to: 2 }))),
            ("1-1234567890123456", batch(1, 1_234_567_890_123_456, None)),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for nonsense in ["", "17", "app", "app:", "@", "9-7", "1-2-3", "1-2.3", "1-0123456789abcdef"] {
            assert!(nonsense.parse::<Wanted>().is_err(), "{nonsense}");
        }
    }
}

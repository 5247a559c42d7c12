//! Which segments and which outstanding batches there are.

use std::path::Path;

use serde::Serialize;

use super::look::Look;
use super::{Progress, ToolError};
use crate::batch::BatchId;
use crate::event::{Position, SegmentId};
use crate::payload::Profile;
use crate::spool::beside::Agent;
use crate::spool::content;
use crate::spool::ledger::Books;
use crate::spool::log::Extent;
use crate::spool::reader::FrameReader;
use crate::spool::survey::{Change, io_error};

/// The segments of a spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listing {
    /// The agent that runs on the spool.
    pub agent: Option<Agent>,
    /// Ascending by number.
    pub segments: Vec<SegmentRow>,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SegmentRow {
    pub number: u64,
    /// Position of its first event, or of the next one where it has none.
    pub first: u64,
    /// Position of its last event.
    pub last: Option<u64>,
    /// How many positions it has.
    pub events: u64,
    /// How many of them wait for the server; the ledger says, which an agent has for itself.
    pub waiting: Option<u64>,
    /// Bytes that count.
    pub bytes: u64,
    /// The id under which its events are sent.
    pub spool_id: String,
    /// When it was begun, in milliseconds since the Unix epoch; 0 where its header is damaged.
    pub created_ms: i64,
    /// An agent writes to it. Every other one is sealed.
    pub active: bool,
    /// Its header is damaged; what stands behind it says what it said.
    pub header_damaged: bool,
}

/// An outstanding batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BatchRow {
    /// What `show` finds it by.
    pub batch: String,
    /// What it is sent under.
    pub idempotency_key: String,
    /// Position of its first event; for a part, that of the whole batch.
    pub first: u64,
    /// Position of its last event; for a part, that of the whole batch.
    pub last: u64,
    pub events: u64,
    /// What it has of each source, in payload order.
    pub sources: Vec<SourceRow>,
    /// Some of its events cannot be read; what is intact is sent in smaller ones.
    pub damaged: bool,
}

/// What a batch has of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SourceRow {
    pub source: String,
    /// The first sequence number.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// Lists the segments of the spool in `dir`. Reads their heads, and the frames of the newest.
///
/// # Errors
/// Where there is no spool or it cannot be read.
pub(crate) fn list(dir: &Path) -> Result<Listing, ToolError> {
    let look = Look::at(dir)?;
    let extents = look.log.segments();
    let newest = extents.keys().next_back().copied();
    let row = |(id, extent): (&SegmentId, &Extent)| {
        let events = extent.end.since(extent.first);
        let header_damaged =
            look.changes.iter().any(|change| matches!(change, Change::Mend(header) if header.segment == *id));
        SegmentRow {
            number: id.0,
            first: extent.first.0,
            last: (events > 0).then(|| extent.end.0 - 1),
            events,
            waiting: look.books().map(|books| waiting(books, extent)),
            bytes: extent.len,
            spool_id: extent.spool_id.to_string(),
            created_ms: look.survey.known.get(id).map_or(0, |known| known.header.created.millis()),
            active: look.agent.is_some() && newest == Some(*id),
            header_damaged,
        }
    };
    Ok(Listing { agent: look.agent, segments: extents.iter().map(row).collect() })
}

/// Events of a segment that are not settled.
fn waiting(books: &Books, extent: &Extent) -> u64 {
    let cut = books.batches().map(|record| {
        let BatchId { first, last, part } = record.id;
        match part {
            // Which positions a part has is in the frames; those of one batch are mostly of one segment.
            Some(_) if (extent.first..extent.end).contains(&first) => record.id.events(),
            Some(_) => 0,
            None => last.plus(1).min(extent.end).since(first.max(extent.first)),
        }
    });
    cut.fold(extent.end.since(books.cursor.max(extent.first)), u64::saturating_add)
}

/// Shows the outstanding batches of the spool in `dir`, on which no agent runs, oldest first. Reads all of their events.
///
/// # Errors
/// Where there is no spool, an agent holds it, or it cannot be read.
pub(crate) fn batches(
    dir: &Path,
    progress: Progress<'_>,
    mut show: impl FnMut(&BatchRow) -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    let look = Look::at_rest(dir)?;
    let mut records: Vec<_> = look.books().into_iter().flat_map(Books::batches).copied().collect();
    records.sort_unstable_by_key(|record| record.id);
    for (done, record) in records.iter().enumerate() {
        let mut reader = FrameReader::new(look.log.clone(), record.id.first, Some(record.at), false);
        show(&row(&look, record.id, &mut reader)?)?;
        progress(done as u64 + 1, records.len() as u64);
    }
    Ok(())
}

fn row(look: &Look, id: BatchId, reader: &mut FrameReader) -> Result<BatchRow, ToolError> {
    let run = content::read_run(reader, id.first, id.last).map_err(io_error(&look.disk.segments()))?;
    let damaged = !run.is_whole();
    let content = match id.part {
        Some(part) => run.content.part(part.from, part.to),
        None => run.content,
    };
    let sources = content
        .ranges()
        .into_iter()
        .map(|range| SourceRow { source: range.source.to_string(), first: range.first.0, last: range.last.0 })
        .collect();
    Ok(BatchRow {
        batch: id.to_string(),
        idempotency_key: idempotency_key(look, id),
        first: id.first.0,
        last: id.last.0,
        events: id.events(),
        sources,
        damaged,
    })
}

/// The batch's name under the id of its events; without the quotes of the header.
pub(super) fn idempotency_key(look: &Look, id: BatchId) -> String {
    let spool_id =
        look.log.find(id.first).map_or_else(String::new, |(_, extent)| extent.spool_id.to_string());
    let profile = look.books().and_then(|books| books.profile_of(id));
    format!("{spool_id}-{id}{}", profile.map(Profile::key_suffix).unwrap_or_default())
}

/// Whether some of the positions from `first` to before `end` may still have to be delivered, by the ledger.
pub(super) fn is_outstanding(books: &Books, first: Position, end: Position) -> bool {
    end > books.cursor || books.batches().any(|record| record.id.first < end && first <= record.id.last)
}

//! The events of the log as lines of JSON.

use std::io::Write;
use std::path::Path;

use super::event::{self, EventRecord};
use super::look::{Entry, Look};
use super::{Progress, ToolError};
use crate::event::{Position, Timestamp};

/// Where an export begins or ends, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// At an event.
    Position(Position),
    /// At a time of events.
    Time(Timestamp),
}

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Events written.
    pub events: u64,
    /// Positions of the range whose events cannot be read.
    pub missing: u64,
}

/// Writes the events of the spool in `dir` to `out`, one object of JSON a line, in the order of their positions.
///
/// # Errors
/// Where there is no spool, or it cannot be read, or `out` not be written.
pub(crate) fn export(
    dir: &Path,
    from: Option<Bound>,
    to: Option<Bound>,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Exported, ToolError> {
    let look = Look::at(dir)?;
    let first = match from {
        Some(Bound::Position(first)) => first.max(look.first()),
        _ => look.first(),
    };
    let end = match to {
        Some(Bound::Position(last)) => last.plus(1).min(look.end),
        _ => look.end,
    };
    let wants = |time: Timestamp| {
        !matches!(from, Some(Bound::Time(from)) if time < from)
            && !matches!(to, Some(Bound::Time(to)) if time > to)
    };
    let mut exported = Exported::default();
    look.entries(first, end, |entry| {
        match entry {
            Entry::Frame(frame) => {
                for (index, event) in event::events(frame, first, end) {
                    if !wants(event::time(frame, &event)) {
                        continue;
                    }
                    serde_json::to_writer(&mut *out, &EventRecord::of(frame, index, &event))
                        .map_err(|error| ToolError::Output(error.into()))?;
                    out.write_all(b"\n").map_err(ToolError::Output)?;
                    exported.events += 1;
                }
                progress(frame.header.end_position().min(end).since(first), end.since(first));
            }
            Entry::Missing(from, to) => exported.missing += to.since(from),
        }
        Ok(true)
    })?;
    out.flush().map_err(ToolError::Output)?;
    Ok(exported)
}

//! An event as the tools show it.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::event::{EventIter, LogEvent, Position, Timestamp};
use crate::spool::Frame;

/// An event of the log, as one object of `log-agent spool export`. The order of the fields is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EventRecord<'a> {
    /// Its place in the log.
    pub position: u64,
    pub source: Cow<'a, str>,
    /// Its number in the source.
    pub seq: u64,
    /// The file, as it was named when the event was read; what is not UTF-8 is replaced.
    pub path: Cow<'a, str>,
    /// The path's bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Its own time, or else when it was read; RFC 3339 in UTC.
    pub time: String,
    /// Its line goes on, or may go on, in the next event of the file.
    pub continues: bool,
    /// The line; what is not UTF-8 is replaced.
    pub data: Cow<'a, str>,
    /// The line's bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

impl<'a> EventRecord<'a> {
    pub(super) fn of(frame: &'a Frame, index: u64, event: &LogEvent<'a>) -> Self {
        let checkpoint = &frame.header.checkpoint;
        let (path, path_base64) = text(checkpoint.path.as_os_str().as_bytes());
        let (data, data_base64) = text(event.line);
        Self {
            position: frame.header.first_position.plus(index).0,
            source: Cow::Borrowed(checkpoint.source.as_str()),
            seq: frame.header.first_seq.plus(index).0,
            path,
            path_base64,
            time: time(frame, event).to_string(),
            continues: event.continues,
            data,
            data_base64,
        }
    }
}

impl EventRecord<'_> {
    /// The same for longer than its frame is held.
    pub(super) fn into_owned(self) -> EventRecord<'static> {
        let Self { position, source, seq, path, path_base64, time, continues, data, data_base64 } = self;
        EventRecord {
            position,
            source: Cow::Owned(source.into_owned()),
            seq,
            path: Cow::Owned(path.into_owned()),
            path_base64,
            time,
            continues,
            data: Cow::Owned(data.into_owned()),
            data_base64,
        }
    }
}

/// Text, and the bytes as Base64 where the text does not say all of them.
pub(super) fn text(bytes: &[u8]) -> (Cow<'_, str>, Option<String>) {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => (Cow::Borrowed(text), None),
        replaced => (replaced, Some(STANDARD.encode(bytes))),
    }
}

/// The event's own time, or else that of its frame.
pub(super) fn time(frame: &Frame, event: &LogEvent<'_>) -> Timestamp {
    event.time.unwrap_or(frame.header.detected)
}

/// The events of a frame from position `first` to before `end`, each with its index in the frame.
pub(super) fn events(
    frame: &Frame,
    first: Position,
    end: Position,
) -> impl Iterator<Item = (u64, LogEvent<'_>)> {
    let at = frame.header.first_position;
    (0..u64::from(frame.header.events))
        .zip(EventIter::new(&frame.payload))
        .filter(move |(index, _)| (first..end).contains(&at.plus(*index)))
}

//! A batch's events one by one, as the formats other than JSON need them.

use std::fmt::Write as _;
use std::path::Path;

use crate::batch::{FrameSlice, SourceRun};
use crate::event::{Seq, Timestamp};

/// An event on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its number in its source.
    pub seq: Seq,
    /// The file that it was read from.
    pub path: &'a Path,
    /// Its time: its own, or else when its line was detected.
    pub time: Timestamp,
    /// When its line was detected.
    pub detected: Timestamp,
    /// The line.
    pub line: &'a [u8],
    /// The line goes on, or may go on, in the next event of its file.
    pub continues: bool,
}

/// The events of `run`, in order.
pub fn outgoing(run: &SourceRun) -> impl Iterator<Item = Outgoing<'_>> {
    let of_slice = |slice| FrameSlice::events(slice).map(move |event| (slice, event));
    run.slices.iter().flat_map(of_slice).zip(0_u64..).map(|((slice, event), index)| Outgoing {
        seq: run.first_seq.plus(index),
        path: &slice.path,
        time: event.time.unwrap_or(slice.detected),
        detected: slice.detected,
        line: event.line,
        continues: event.continues,
    })
}

/// The text of a time, made once for events in a row that share it.
#[derive(Debug, Default)]
pub(super) struct Clockface {
    time: Option<Timestamp>,
    text: String,
}

impl Clockface {
    pub(super) fn text(&mut self, time: Timestamp) -> &str {
        if self.time != Some(time) {
            self.time = Some(time);
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{time}");
        }
        &self.text
    }
}

/// Nanoseconds since the Unix epoch; what is before it, or past the year 2554, is at the end of the range.
pub(super) fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.millis()).unwrap_or(0).saturating_mul(1_000_000)
}

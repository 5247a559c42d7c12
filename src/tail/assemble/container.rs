//! Unwraps the lines of container runtimes and joins their partial records.
//!
//! Invariants:
//! - A line that is not a record of its format is handed on as it is, without a time of its own. Nothing is lost for its
//!   form.
//! - A partial record is joined with the following ones of its stream up to the first that is not partial. The joined
//!   record has the time of its first part, and stands where its first part stood.
//! - While a record is open, what is behind it waits too: together they are a *run*, which comes out as a whole. A run
//!   covers at most `run_max` bytes of the file and a joined text at most `max_line_bytes`: before a record
//!   that would be too much, what is there comes out, open records marked as going on. The same happens before a line
//!   that is no record, and before a hole in the file.
//! - A text longer than `max_line_bytes` comes out in pieces, all but the last marked as going on.

mod cri;
mod docker;
mod time;

use std::borrow::Cow;

use super::encoding::Charset;
use super::lines::Piece;
use super::record::{Next, Record, Span, Stream};
use crate::config::LineFormat;
use crate::event::Timestamp;

/// The most text that Docker and the CRI runtimes put into one record.
const RECORD_TEXT: usize = 16 * 1024;
/// The longest line that a runtime makes of a record: each byte of its text may be escaped with six, and attributes come
/// on top.
pub(super) const RECORD_LINE: usize = 6 * RECORD_TEXT + 32 * 1024;

/// What wraps the lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    DockerJson,
    Cri,
}

impl Wrapper {
    pub(super) const fn new(format: LineFormat) -> Option<Self> {
        match format {
            LineFormat::Plain => None,
            LineFormat::DockerJson => Some(Self::DockerJson),
            LineFormat::Cri => Some(Self::Cri),
        }
    }

    fn unwrap<'a>(self, text: &'a [u8], has_carriage_return: bool) -> Option<Unwrapped<'a>> {
        match self {
            Self::DockerJson => docker::unwrap(text),
            Self::Cri => cri::unwrap(text, has_carriage_return),
        }
    }
}

/// A line without its wrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unwrapped<'a> {
    text: Cow<'a, [u8]>,
    time: Timestamp,
    stream: Stream,
    is_partial: bool,
}

/// A record of the open run.
#[derive(Clone, Debug)]
struct Held {
    text: Vec<u8>,
    time: Timestamp,
    stream: Stream,
    span: Span,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Containers {
    wrapper: Option<Wrapper>,
    max_text: usize,
    run_max: usize,
    /// The records of the open run, and where it starts and ends.
    run: Vec<Held>,
    run_starts: usize,
    run_ends: usize,
    /// Which of them is open, for each [`Stream`].
    open: [Option<usize>; 2],
}

impl Containers {
    /// Texts are to be no longer than `max_text`, and runs no longer than `run_max`.
    pub(super) const fn new(wrapper: Option<Wrapper>, max_text: usize, run_max: usize) -> Self {
        Self { wrapper, max_text, run_max, run: Vec::new(), run_starts: 0, run_ends: 0, open: [None; 2] }
    }

    /// Where the open run starts.
    pub(super) fn open_at(&self) -> Option<usize> {
        (!self.run.is_empty()).then_some(self.run_starts)
    }

    /// Takes a line or a piece of one, whose content is `text` in UTF-8.
    #[inline]
    pub(super) fn take(&mut self, piece: &Piece<'_>, text: &[u8], next: &mut impl Next) {
        let plain = Record {
            text,
            time: None,
            stream: None,
            span: Span { bytes: piece.end - piece.start, lines: usize::from(!piece.continues) },
            continues: piece.continues,
            is_rest: piece.is_rest,
            starts: Some(piece.start),
            ends: Some(piece.end),
        };
        let Some(wrapper) = self.wrapper else { return next.take(&plain) };
        let is_whole = !piece.continues && !piece.is_rest;
        match is_whole.then(|| wrapper.unwrap(text, piece.has_carriage_return)).flatten() {
            Some(unwrapped) => self.take_record(&plain, piece, unwrapped, next),
            None => {
                self.flush(true, next);
                self.hand_on(&plain, next);
            }
        }
    }

    /// Takes what was unwrapped of a line.
    fn take_record(
        &mut self,
        line: &Record<'_>,
        piece: &Piece<'_>,
        unwrapped: Unwrapped<'_>,
        next: &mut impl Next,
    ) {
        if !self.has_room_for(piece.end, &unwrapped) {
            self.flush(true, next);
        }
        let Unwrapped { text, time, stream, is_partial } = unwrapped;
        if self.run.is_empty() {
            if !is_partial || text.len() > self.max_text {
                let (time, stream) = (Some(time), Some(stream));
                let record = Record { text: &text, time, stream, continues: is_partial, ..*line };
                return self.hand_on(&record, next);
            }
            self.run_starts = piece.start;
        }
        self.run_ends = piece.end;
        self.hold(Unwrapped { text, time, stream, is_partial }, line.span);
        if self.open == [None; 2] {
            self.flush(false, next);
        }
    }

    /// Adds a record to the open run.
    fn hold(&mut self, unwrapped: Unwrapped<'_>, span: Span) {
        let Unwrapped { text, time, stream, is_partial } = unwrapped;
        let at = self.open_of(stream).unwrap_or(self.run.len());
        match self.run.get_mut(at) {
            Some(held) => {
                held.text.extend_from_slice(&text);
                held.span.add(span);
                if !is_partial && self.wrapper == Some(Wrapper::DockerJson) {
                    // Its newline may have come in a record of its own.
                    held.text.pop_if(|last| *last == b'\r');
                }
            }
            None => self.run.push(Held { text: text.into_owned(), time, stream, span }),
        }
        let [stdout, stderr] = &mut self.open;
        *match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        } = is_partial.then_some(at);
    }

    /// Which record of the run is open for `stream`.
    const fn open_of(&self, stream: Stream) -> Option<usize> {
        let [stdout, stderr] = self.open;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    /// Whether the open run may go on with a record that ends at `ends`.
    fn has_room_for(&self, ends: usize, unwrapped: &Unwrapped<'_>) -> bool {
        let open = self.open_of(unwrapped.stream).and_then(|at| self.run.get(at));
        let joined = open.map_or(0, |held| held.text.len()).saturating_add(unwrapped.text.len());
        joined <= self.max_text && ends.saturating_sub(self.run_starts) <= self.run_max
    }

    /// Hands the open run on. `marked` says that more may come to its open records.
    pub(super) fn flush(&mut self, marked: bool, next: &mut impl Next) {
        let run = std::mem::take(&mut self.run);
        let open = std::mem::take(&mut self.open);
        let last = run.len().saturating_sub(1);
        for (at, held) in run.iter().enumerate() {
            let record = Record {
                text: &held.text,
                time: Some(held.time),
                stream: Some(held.stream),
                span: held.span,
                continues: marked && open.contains(&Some(at)),
                is_rest: false,
                starts: (at == 0).then_some(self.run_starts),
                ends: (at == last).then_some(self.run_ends),
            };
            self.hand_on(&record, next);
        }
    }

    /// Hands a record on, in pieces where its text is too long.
    fn hand_on(&self, record: &Record<'_>, next: &mut impl Next) {
        let mut rest = *record;
        while rest.text.len() > self.max_text {
            let (piece, after) = rest
                .text
                .split_at_checked(Charset::Utf8.split(rest.text, self.max_text))
                .unwrap_or((rest.text, &[]));
            let bytes = piece.len().min(rest.span.bytes);
            let span = Span { bytes, lines: 0 };
            next.take(&Record { text: piece, span, continues: true, ends: None, ..rest });
            rest.span.bytes -= bytes;
            (rest.text, rest.starts, rest.is_rest) = (after, None, true);
        }
        next.take(&rest);
    }

    /// Whether a line, whose content is `text` in UTF-8, is one that the open run goes on with.
    pub(super) fn goes_on_with(&self, piece: &Piece<'_>, text: &[u8]) -> bool {
        let Some(wrapper) = self.wrapper.filter(|_| !piece.continues && !self.run.is_empty()) else {
            return false;
        };
        let bytes = piece.end - piece.start;
        wrapper
            .unwrap(text, piece.has_carriage_return)
            .is_some_and(|unwrapped| self.has_room_for(self.run_ends.saturating_add(bytes), &unwrapped))
    }
}

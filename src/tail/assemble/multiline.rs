//! Joins the lines of multi-line events.
//!
//! Invariants:
//! - An event is complete when a line comes that does not go on with it, when it has reached `max_lines` or `max_bytes`,
//!   or when the end of the input says so. What follows begins a new event, also where it would not match the pattern for
//!   a beginning: so it is at the beginning of a file, too, and nothing has to be remembered from one event to the next.
//! - Lines are joined with a newline. The event has the time of its first line.
//! - Lines of different container streams are never joined.
//! - A line that comes out in pieces is never joined with what is before it, and only its last piece with what is behind
//!   it.
//! - A line that can neither begin nor go on with an event of several lines is an event of its own at once.
//! - A blank line that is in a stack trace only if the trace goes on after it is held with the trace, and is an event of
//!   its own where it does not.

mod presets;

use regex::bytes::Regex;

use self::presets::{Preset, State};
use super::output::Output;
use super::record::{Next, Record, Span, Stream};
use crate::config::{Multiline, MultilinePattern};
use crate::event::Timestamp;

/// `[sources.multiline]`.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pattern: Pattern,
    max_lines: usize,
    max_bytes: usize,
}

#[derive(Clone, Debug)]
enum Pattern {
    Start(Regex),
    Continue(Regex),
    Preset(&'static Preset),
}

impl Rule {
    pub(super) fn new(multiline: &Multiline) -> Self {
        let pattern = match &multiline.pattern {
            MultilinePattern::Start(pattern) => Pattern::Start(pattern.clone()),
            MultilinePattern::Continue(pattern) => Pattern::Continue(pattern.clone()),
            MultilinePattern::Preset(preset) => Pattern::Preset(Preset::of(*preset)),
        };
        Self { pattern, max_lines: multiline.max_lines, max_bytes: multiline.max_bytes }
    }

    /// The most bytes that an event covers, but for one of a single line.
    pub(super) const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The state after a line that is the first one; `None` where nothing can go on with it.
    fn begin(&self, text: &[u8]) -> Option<State> {
        match &self.pattern {
            Pattern::Start(_) | Pattern::Continue(_) => Some(State::Idle),
            Pattern::Preset(preset) => preset.next(State::Idle, text),
        }
    }

    /// The state after a line that goes on; `None` where it does not.
    fn go_on(&self, state: State, text: &[u8]) -> Option<State> {
        match &self.pattern {
            Pattern::Start(pattern) => (!pattern.is_match(text)).then_some(state),
            Pattern::Continue(pattern) => pattern.is_match(text).then_some(state),
            Pattern::Preset(preset) => preset.next(state, text),
        }
    }

    /// Whether a blank line is in the event only if it goes on.
    const fn holds_blank_lines(&self) -> bool {
        matches!(self.pattern, Pattern::Preset(_))
    }
}

/// An event that may go on. Its text is in [`Groups::text`].
#[derive(Clone, Copy, Debug)]
struct Open {
    state: State,
    time: Option<Timestamp>,
    stream: Option<Stream>,
    span: Span,
    records: usize,
    /// A blank line behind it, which may be a part of it.
    blank: Option<Blank>,
}

#[derive(Clone, Copy, Debug)]
struct Blank {
    time: Option<Timestamp>,
    span: Span,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    rule: Option<&'a Rule>,
    /// The most bytes between two commits, beyond which the open event is complete at the next opportunity. It never comes
    /// to that where the lines of streams do not overlap.
    commit_max: usize,
    open: Option<Open>,
    text: Vec<u8>,
    output: Output<'a>,
}

impl<'a> Groups<'a> {
    pub(super) const fn new(rule: Option<&'a Rule>, commit_max: usize, output: Output<'a>) -> Self {
        Self { rule, commit_max, open: None, text: Vec::new(), output }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) const fn output(&mut self) -> &mut Output<'a> {
        &mut self.output
    }

    pub(super) fn into_output(self) -> Output<'a> {
        self.output
    }

    /// Completes the open event. Everything up to `position` has been taken.
    pub(super) fn complete(&mut self, position: usize) {
        self.close();
        self.output.commit(position);
    }

    /// Whether `record` goes on with the open event.
    pub(super) fn goes_on_with(&self, record: &Record<'_>) -> bool {
        self.next_state(record).is_some()
    }

    /// The state of the open event after `record`; `None` where it does not go on with it.
    fn next_state(&self, record: &Record<'_>) -> Option<State> {
        let (rule, open) = (self.rule?, self.open.as_ref()?);
        let blank = open.blank.map_or(0, |blank| blank.span.bytes);
        let bytes = open.span.bytes.saturating_add(blank).saturating_add(record.span.bytes);
        let is_apart = record.continues || record.is_rest || record.stream != open.stream;
        if is_apart || bytes > rule.max_bytes { None } else { rule.go_on(open.state, record.text) }
    }

    /// Adds a record to the open event.
    fn add(&mut self, rule: &Rule, record: &Record<'_>, state: State) {
        let Some(open) = &mut self.open else { return };
        open.state = state;
        if let Some(blank) = open.blank.take() {
            self.text.push(b'\n');
            open.span.add(blank.span);
        }
        open.records += 1;
        if record.text.is_empty() && rule.holds_blank_lines() {
            open.blank = Some(Blank { time: record.time, span: record.span });
        } else {
            self.text.push(b'\n');
            self.text.extend_from_slice(record.text);
            open.span.add(record.span);
        }
    }

    fn begin(&mut self, record: &Record<'_>, state: State) {
        self.text.clear();
        self.text.extend_from_slice(record.text);
        self.open = Some(Open {
            state,
            time: record.time,
            stream: record.stream,
            span: record.span,
            records: 1,
            blank: None,
        });
    }

    /// Hands the open event on, and the blank line behind it.
    fn close(&mut self) {
        let Some(Open { time, stream, span, blank, .. }) = self.open.take() else { return };
        let event = Record {
            text: &self.text,
            time,
            stream,
            span,
            continues: false,
            is_rest: false,
            starts: None,
            ends: None,
        };
        self.output.event(&event);
        if let Some(Blank { time, span }) = blank {
            self.output.event(&Record { text: b"", time, span, ..event });
        }
    }

    /// Whether the open event has reached a limit.
    fn is_full(&self, rule: &Rule) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let blank = open.blank.map_or(0, |blank| blank.span.bytes);
            open.records >= rule.max_lines || open.span.bytes.saturating_add(blank) >= rule.max_bytes
        })
    }

    fn join(&mut self, rule: &Rule, record: &Record<'_>) {
        if let Some(state) = self.next_state(record) {
            self.add(rule, record, state);
        } else {
            self.close();
            if let Some(starts) = record.starts {
                self.output.commit(starts);
            }
            match rule.begin(record.text) {
                Some(state) if !record.continues => self.begin(record, state),
                _ => self.output.event(record),
            }
        }
        if self.is_full(rule) {
            self.close();
        }
    }
}

impl Next for Groups<'_> {
    #[inline]
    fn take(&mut self, record: &Record<'_>) {
        match self.rule {
            Some(rule) => self.join(rule, record),
            None => self.output.event(record),
        }
        let Some(ends) = record.ends else { return };
        if self.open.is_some() && ends.saturating_sub(self.output.committed()) > self.commit_max {
            self.close();
        }
        if self.open.is_none() {
            self.output.commit(ends);
        }
    }
}

//! Turns the bytes of a followed file into events. Pure: a slice in, events out.
//!
//! Invariants:
//! - Nothing is remembered between two calls. What is not used stays in the file and comes again with the next call, so
//!   neither a crash nor a rotation can tear an event or double it.
//! - What is used is whole events and skipped bytes: the bytes of the events (line endings, wrappers and what was joined
//!   included) and [`Cut::skips`] add up to [`Cut::used`].
//! - What comes out does not depend on how the bytes were cut into reads: every decision is a matter of the bytes since
//!   the last place where everything was used, and of the 1 KiB before it.
//! - Events come in the order of the file.
//! - What is held back is bounded: [`Assembler::hold_max`].
//!
//! The stages, in the order in which the bytes pass them: `lines` (with `bom` and `nul`) cuts them, `encoding` makes UTF-8
//! of them, `container` unwraps and joins records of container runtimes, `multiline` joins lines, `output` leaves out
//! (`filter`), replaces (`redact`) and pushes. `record` is what the last four hand on to each other.

mod bom;
mod container;
mod encoding;
mod filter;
mod lines;
mod multiline;
mod nul;
mod output;
mod record;
mod redact;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::container::{Containers, Wrapper};
use self::encoding::Charset;
use self::filter::Filter;
use self::lines::{Lines, Piece, Token};
use self::multiline::{Groups, Rule};
use self::output::{Finish, Output};
use self::record::{Next, Record};
use self::redact::Redaction;
use crate::config::{LineFormat, LineRules};
use crate::event::{EventBlock, SkipReason, Skips};

/// A longer line is never whole, whatever the configuration says: decoded it is at most three times as long, and has to
/// fit an event.
const LINE_MAX: usize = EventBlock::MAX_EVENT_BYTES / 4;
/// The shortest line that may be cut: pieces have to be longer than the longest character.
const LINE_MIN: usize = 16;

/// How the bytes of one source's files become events. Immutable: built once from the configuration.
#[derive(Clone, Debug)]
pub(super) struct Assembler {
    charset: Charset,
    wrapper: Option<Wrapper>,
    /// The longest text of a line.
    max_text: usize,
    /// The longest line, as it stands in the file.
    max_line: usize,
    multiline: Option<Rule>,
    finish: Finish,
    group_timeout: Option<Duration>,
    partial_timeout: Option<Duration>,
    /// Lines need nothing but to be cut.
    is_plain: bool,
}

/// What is to be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    /// Bytes from the offset on. The offset is a place where an earlier [`Assembler::cut`] stopped, or 0.
    pub data: &'a [u8],
    /// Bytes just before the offset: 1 KiB, or as many as there are.
    pub before: &'a [u8],
    /// What is known about what follows `data`.
    pub end: End,
}

/// What is known about what follows the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// More may come at any time.
    Open,
    /// Nothing has come for [`Assembler::group_timeout`]: an open multi-line event is complete. A last line without
    /// newline still waits, and so does a partial container record.
    GroupQuiet,
    /// Nothing has come for [`Assembler::partial_timeout`]: a last line without newline and a partial container record
    /// become events too, marked as going on. Only what is there of a last character waits still.
    Quiet,
    /// The file is finished: everything becomes an event, and none of it is marked for having no end.
    Finished,
}

/// What came of a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// How many bytes are done with. Where none are, no event was pushed.
    pub used: usize,
    /// Which of them did not become events.
    pub skips: Skips,
    /// What the bytes after them wait for.
    pub waits: Waits,
}

/// What the bytes that were not used are waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// There are none.
    Nothing,
    /// For the end of a line; no complete one is among them.
    Newline,
    /// For the end of a multi-line event, or for the other parts of a partial container record. An incomplete line may
    /// be behind them. After [`End::GroupQuiet`] it is a partial record: only [`End::Quiet`] helps.
    Group,
}

impl Assembler {
    pub(super) fn new(rules: &LineRules) -> Self {
        Self::with_record_line(rules, container::RECORD_LINE)
    }

    /// `record_line` is the longest line of a container runtime.
    fn with_record_line(rules: &LineRules, record_line: usize) -> Self {
        let charset = Charset::new(rules.encoding);
        let wrapper = Wrapper::new(rules.format);
        let max_text = rules.max_line_bytes.clamp(LINE_MIN, LINE_MAX);
        let max_line = if wrapper.is_some() { max_text.max(record_line) } else { max_text };
        let finish = Finish {
            filter: Filter::new(&rules.include, &rules.exclude),
            redaction: Redaction::new(&rules.redact),
        };
        let is_plain = charset == Charset::Utf8
            && rules.format == LineFormat::Plain
            && rules.multiline.is_none()
            && finish.filter.keeps_all()
            && finish.redaction.changes_nothing();
        Self {
            charset,
            wrapper,
            max_text,
            max_line,
            multiline: rules.multiline.as_ref().map(Rule::new),
            finish,
            group_timeout: rules.multiline.as_ref().map(|multiline| multiline.timeout),
            partial_timeout: rules.partial_timeout,
            is_plain,
        }
    }

    /// The most bytes that may have to be held back before something is certain: given more than these, [`Self::cut`]
    /// uses at least one.
    pub(super) fn hold_max(&self) -> usize {
        let line = Lines::hold_max(self.charset, self.max_line).saturating_add(self.charset.unit());
        self.commit_max().saturating_add(self.run_max()).saturating_add(line)
    }

    /// Whether complete lines may have to wait for others.
    pub(super) const fn joins(&self) -> bool {
        self.multiline.is_some() || self.wrapper.is_some()
    }

    /// How long a file has to be quiet for its open multi-line event to be complete; `None` where lines are not joined.
    pub(super) const fn group_timeout(&self) -> Option<Duration> {
        self.group_timeout
    }

    /// How long a file has to be quiet for its last line without newline to be delivered.
    pub(super) const fn partial_timeout(&self) -> Option<Duration> {
        self.partial_timeout
    }

    /// Appends the events at the beginning of the input to `out`.
    pub(super) fn cut(&self, input: Input<'_>, out: &mut EventBlock) -> Cut {
        let mut lines = Lines::new(self.charset, self.max_line, &input);
        if self.is_plain {
            return cut_plain(&mut lines, input.data.len(), out);
        }
        let mut stages = self.stages(out);
        while let Some(token) = lines.next() {
            stages.take(token, lines.at());
        }
        stages.end(lines.at(), input.end);
        let holds_lines = stages.is_open();
        let (used, skips) = stages.groups.into_output().finish();
        let waits = match input.data.len() {
            len if used == len => Waits::Nothing,
            _ if holds_lines => Waits::Group,
            _ => Waits::Newline,
        };
        Cut { used, skips, waits }
    }

    /// Whether the first complete line of `next`, the beginning of the file that took over the name, goes on with what
    /// is open at the end of `held`, the bytes of the former file that its last cut did not use: with its multi-line event,
    /// or with its partial container record. `None`: it cannot be told yet.
    ///
    /// A file that begins with a byte order mark or with a hole never goes on with another.
    pub(super) fn goes_on(&self, held: &[u8], next: &[u8]) -> Option<bool> {
        let mut ignored = EventBlock::default();
        let mut stages = self.stages(&mut ignored);
        let mut lines = Lines::within(self.charset, self.max_line, held, End::Finished);
        while let Some(token) = lines.next() {
            stages.take(token, lines.at());
        }
        if !stages.is_open() {
            return Some(false);
        }
        let mut first = First::default();
        let mut containers = self.containers();
        let mut decoded = String::new();
        for token in
            Lines::new(self.charset, self.max_line, &Input { data: next, before: b"", end: End::Open })
        {
            let Token::Piece(piece) = token else { return Some(false) };
            let text = self.charset.decode(piece.content, &mut decoded);
            if stages.containers.goes_on_with(&piece, text) {
                return Some(true);
            }
            stages.containers.flush(true, &mut stages.groups);
            containers.take(&piece, text, &mut first);
            if let Some(first) = first.record() {
                return Some(stages.groups.goes_on_with(&first));
            }
        }
        None
    }

    /// The start of the line that is incomplete at the end of `bytes`, which begin at an offset that is a multiple of
    /// [`Self::alignment`]; `None` where no newline is in them.
    pub(super) fn last_line_start(&self, bytes: &[u8]) -> Option<usize> {
        Some(self.charset.find_last_newline(bytes)? + self.alignment())
    }

    /// What the offsets of lines are multiples of.
    pub(super) const fn alignment(&self) -> usize {
        self.charset.unit()
    }

    fn stages<'a>(&'a self, out: &'a mut EventBlock) -> Stages<'a> {
        let output = Output::new(&self.finish, out);
        Stages {
            charset: self.charset,
            decoded: String::new(),
            containers: self.containers(),
            groups: Groups::new(self.multiline.as_ref(), self.commit_max(), output),
        }
    }

    /// A run may be a long line in many records, with what comes between them.
    fn run_max(&self) -> usize {
        self.wrapper.map_or(0, |_| self.max_line.saturating_mul(2))
    }

    fn containers(&self) -> Containers {
        Containers::new(self.wrapper, self.max_text, self.run_max())
    }

    /// Between two commits there is an event of several lines, and what of a run was before it.
    fn commit_max(&self) -> usize {
        self.multiline.as_ref().map_or(0, |rule| rule.max_bytes().saturating_add(self.run_max()))
    }
}

/// Where nothing is done to lines but to cut them, only what is special about one leaves the fast way.
fn cut_plain(lines: &mut Lines<'_>, len: usize, out: &mut EventBlock) -> Cut {
    let mut skips = Skips::default();
    loop {
        lines.push_plain(out);
        match lines.next() {
            Some(Token::Piece(piece)) => out.push(piece.content, piece.continues),
            Some(Token::Skip { reason, bytes }) => skips.add(reason, bytes as u64, 0),
            Some(Token::Ending) => {}
            None => break,
        }
    }
    let used = lines.at();
    Cut { used, skips, waits: if used == len { Waits::Nothing } else { Waits::Newline } }
}

/// The stages behind `lines`, for one cut.
#[derive(Debug)]
struct Stages<'a> {
    charset: Charset,
    decoded: String,
    containers: Containers,
    groups: Groups<'a>,
}

impl Stages<'_> {
    #[inline]
    fn take(&mut self, token: Token<'_>, end: usize) {
        match token {
            Token::Piece(piece) => self.line(&piece),
            Token::Skip { reason, bytes } => self.skip(reason, bytes, end),
            // What it ends came out before; nothing is open.
            Token::Ending => self.groups.complete(end),
        }
    }

    #[inline]
    fn line(&mut self, piece: &Piece<'_>) {
        let text = self.charset.decode(piece.content, &mut self.decoded);
        self.containers.take(piece, text, &mut self.groups);
    }

    /// Bytes that are no line, which end at `end`. What was open is complete: a hole in the file comes of a truncation or
    /// a power cut, and the bytes on its two sides have nothing to do with each other.
    fn skip(&mut self, reason: SkipReason, bytes: usize, end: usize) {
        self.containers.flush(true, &mut self.groups);
        self.groups.complete(end - bytes);
        self.groups.output().skip(reason, bytes);
        self.groups.output().commit(end);
    }

    /// There is no further line; those before `position` have been taken.
    fn end(&mut self, position: usize, end: End) {
        match end {
            End::Open => {}
            End::GroupQuiet => self.groups.complete(self.containers.open_at().unwrap_or(position)),
            End::Quiet | End::Finished => {
                self.containers.flush(end == End::Quiet, &mut self.groups);
                self.groups.complete(position);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.groups.is_open() || self.containers.open_at().is_some()
    }
}

/// Keeps the first record that it is given.
#[derive(Debug, Default)]
struct First(Option<(Vec<u8>, Record<'static>)>);

impl First {
    fn record(&self) -> Option<Record<'_>> {
        self.0.as_ref().map(|(text, record)| Record { text, ..*record })
    }
}

impl Next for First {
    fn take(&mut self, record: &Record<'_>) {
        if self.0.is_none() {
            self.0 = Some((record.text.to_vec(), Record { text: b"", ..*record }));
        }
    }
}

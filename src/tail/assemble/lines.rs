//! Cuts bytes into lines, and pieces of those that are too long.
//!
//! Invariants:
//! - A line's `\n`, and one `\r` before it, belong to the line ending; every other byte is content, or is skipped for a
//!   counted reason.
//! - A line whose content is at most `max_line` bytes is one piece. A longer one comes out as pieces of `max_line` bytes,
//!   each a few bytes shorter where that keeps a character whole; all but the last continue. A piece is certain as soon
//!   as the line is known to be longer.
//! - No more than [`Lines::hold_max`] bytes are ever held back.
//! - What comes next is a matter of the bytes from the position on, of those just before it, and of nothing else: a place
//!   where this stopped is as good to begin at as the beginning of the file.
//!
//! # Inside a line
//! A position whose line has been delivered in part already (a piece of it, or all of a finished file that grew again) is
//! told by the bytes before it, which do not end with a newline. Then what follows is the rest of that line; where just
//! its ending is left, there is no event in it. A byte order mark and runs of NUL that were skipped are not a line: the
//! position after them begins one, if it does before them. NULs inside a line are its content, but for one case: where
//! nothing but NULs is within [`LOOK_BACK`] bytes before a place where a line was cut, they are a hole, the line ended
//! with it, and the rest of the hole is skipped. So a hole passes through however long it is, and whatever is before it.

use super::bom::{self, Mark};
use super::encoding::Charset;
use super::{End, Input, nul};
use crate::event::{EventBlock, SkipReason};

/// How far before a position it is looked for what it is in the middle of; as much as a witness covers, which is read
/// anyway.
const LOOK_BACK: usize = 1024;

/// The next stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Bytes that are no line.
    Skip { reason: SkipReason, bytes: usize },
    /// The ending of a line that was delivered before.
    Ending,
    /// A line, or a piece of one.
    Piece(Piece<'a>),
}

/// A line, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// The bytes without the line ending.
    pub content: &'a [u8],
    /// Where it begins in the input.
    pub start: usize,
    /// Where it ends, line ending included.
    pub end: usize,
    /// The line goes on, or may go on, after it.
    pub continues: bool,
    /// It is not the beginning of its line.
    pub is_rest: bool,
    /// A carriage return belongs to its line ending.
    pub has_carriage_return: bool,
}

/// Walks the lines of an input.
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    charset: Charset,
    max_line: usize,
    before: &'a [u8],
    data: &'a [u8],
    end: End,
    position: usize,
    /// The position is inside a line.
    is_inside: bool,
    /// The position may have a byte order mark.
    at_beginning: bool,
    /// Where nothing is before the data, they begin the file.
    may_be_start: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(charset: Charset, max_line: usize, input: &Input<'a>) -> Self {
        let Input { data, before, end } = *input;
        let mut lines = Self {
            charset,
            max_line,
            before,
            data,
            end,
            position: 0,
            is_inside: false,
            at_beginning: before.is_empty(),
            may_be_start: true,
        };
        lines.is_inside = lines.looks_inside();
        lines
    }

    /// The lines of bytes that begin at the beginning of a line somewhere in a file.
    pub(super) fn within(charset: Charset, max_line: usize, data: &'a [u8], end: End) -> Self {
        Self {
            charset,
            max_line,
            before: b"",
            data,
            end,
            position: 0,
            is_inside: false,
            at_beginning: false,
            may_be_start: false,
        }
    }

    /// The most bytes that can be there without the first of them being certain.
    pub(super) const fn hold_max(charset: Charset, max_line: usize) -> usize {
        // Those of one unit more than `max_line` may be the carriage return of a line that is just not too long.
        max_line.saturating_add(charset.unit())
    }

    /// Everything before is done with.
    pub(super) const fn at(&self) -> usize {
        self.position
    }

    /// The next stretch that is certain.
    fn cut(&mut self) -> Option<Token<'a>> {
        let rest = self.data.get(self.position..).filter(|rest| !rest.is_empty())?;
        if !self.is_inside {
            match self.skip(rest) {
                Ok(None) => {}
                Ok(skip) => return skip,
                Err(Undecided) => return None,
            }
        }
        // Looking farther would look at an over-long line once for each of its pieces.
        let unit = self.charset.unit();
        let window = rest.get(..self.max_line.saturating_add(2 * unit)).unwrap_or(rest);
        if let Some(newline) = self.charset.find_newline(window) {
            let line = window.get(..newline).unwrap_or(window);
            let (content, has_carriage_return) = self.charset.strip_carriage_return(line);
            if content.len() > self.max_line {
                return Some(self.piece_of(rest));
            }
            let is_rest = self.is_inside;
            let token = self.take(content, newline + unit, false, has_carriage_return);
            return Some(if is_rest && content.is_empty() { Token::Ending } else { token });
        }
        if rest.len() > Self::hold_max(self.charset, self.max_line) {
            return Some(self.piece_of(rest));
        }
        self.unfinished(rest)
    }

    /// What is to be skipped at the beginning of a line.
    fn skip(&mut self, rest: &[u8]) -> Result<Option<Token<'a>>, Undecided> {
        if self.at_beginning {
            let mark = bom::at_beginning(self.charset, rest, self.end != End::Finished);
            self.at_beginning = mark == Mark::Possible;
            match mark {
                Mark::Found(bytes) => return Ok(Some(self.pass(SkipReason::ByteOrderMark, bytes))),
                Mark::Possible => return Err(Undecided),
                Mark::Absent => {}
            }
        }
        let run = nul::run(self.charset, rest);
        if run == 0 {
            return Ok(None);
        }
        // What of it is before the position, at the beginning of a line, was skipped.
        let before = self.nuls_before();
        let begins_file = self.may_be_start && before == self.before.len().saturating_add(self.position);
        if begins_file || run.saturating_add(before) >= nul::RUN_MIN {
            return Ok(Some(self.pass(SkipReason::Nul, run)));
        }
        let may_grow = rest.len() - run < self.charset.unit() && self.end != End::Finished;
        if may_grow { Err(Undecided) } else { Ok(None) }
    }

    /// How many NULs are just before the position, as far as that matters.
    fn nuls_before(&self) -> usize {
        let read = self.data.get(..self.position).unwrap_or(self.data);
        let bytes = read.iter().rev().chain(self.before.iter().rev());
        bytes.take(nul::RUN_MIN).take_while(|byte| **byte == 0).count()
    }

    fn pass(&mut self, reason: SkipReason, bytes: usize) -> Token<'a> {
        self.position += bytes;
        Token::Skip { reason, bytes }
    }

    /// A last line without newline.
    fn unfinished(&mut self, rest: &'a [u8]) -> Option<Token<'a>> {
        let (content, continues) = match self.end {
            End::Open | End::GroupQuiet => return None,
            // What is there of a last character waits for the rest of it, or for the end of the file.
            End::Quiet => (rest.get(..self.charset.whole_characters(rest)).unwrap_or(rest), true),
            // Of UTF-16 there may be half a unit. A writer that comes back after that has left no text to be aligned to.
            End::Finished => (rest, false),
        };
        if content.is_empty() {
            None
        } else if content.len() > self.max_line {
            Some(self.piece_of(content))
        } else {
            Some(self.take(content, content.len(), continues, false))
        }
    }

    /// The first piece of an over-long line.
    fn piece_of(&mut self, line: &'a [u8]) -> Token<'a> {
        let len = self.charset.split(line, self.max_line);
        self.take(line.get(..len).unwrap_or(line), len, true, false)
    }

    fn take(
        &mut self,
        content: &'a [u8],
        bytes: usize,
        continues: bool,
        has_carriage_return: bool,
    ) -> Token<'a> {
        let (start, is_rest) = (self.position, self.is_inside);
        self.position += bytes;
        self.is_inside = continues && self.looks_inside();
        Token::Piece(Piece { content, start, end: self.position, continues, is_rest, has_carriage_return })
    }

    /// Whether the bytes before the position say that it is inside a line.
    fn looks_inside(&self) -> bool {
        let unit = self.charset.unit();
        let read = self.data.get(..self.position).unwrap_or(self.data);
        let read = read.get(read.len().saturating_sub(LOOK_BACK)..).unwrap_or(read);
        let more = LOOK_BACK - read.len();
        let before = self.before.get(self.before.len().saturating_sub(more)..).unwrap_or(self.before);
        let reaches_beginning = before.len() + read.len() < LOOK_BACK;
        let mut units = read.rchunks(unit).chain(before.rchunks(unit)).enumerate();
        let Some((back, last)) = units.find(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) else {
            return false;
        };
        if self.charset.is_newline(last) {
            return false;
        }
        let until = (before.len() + read.len()).saturating_sub(back * unit);
        let mark = self.charset.byte_order_mark();
        let is_mark =
            reaches_beginning && until == mark.len() && before.iter().chain(read).take(until).eq(mark);
        !is_mark
    }

    /// Pushes the lines that need nothing but to be cut, as fast as they can be found: UTF-8, from the beginning of a
    /// line on, as long as none is too long or begins with NUL. [`Lines::next`] goes on from there.
    pub(super) fn push_plain(&mut self, out: &mut EventBlock) {
        if self.is_inside || self.at_beginning || self.charset != Charset::Utf8 {
            return;
        }
        let rest = self.data.get(self.position..).unwrap_or_default();
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', rest) {
            let line = rest.get(start..newline).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > self.max_line || line.first() == Some(&0) {
                break;
            }
            out.push(line, false);
            start = newline + 1;
        }
        self.position += start;
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        self.cut()
    }
}

/// More bytes are needed.
struct Undecided;

#[cfg(test)]
mod tests {
    use super::*;

    const UTF8: Charset = Charset::Utf8;

    /// What comes out: a line or piece as text with a `+` behind it where it goes on and before it where it is a rest,
    /// `<n>` for a skip of n bytes, `.` for an ending alone. And how much was used.
    fn cut(charset: Charset, max_line: usize, before: &[u8], data: &[u8], end: End) -> (Vec<String>, usize) {
        let mut lines = Lines::new(charset, max_line, &Input { data, before, end });
        let mut scratch = String::new();
        let mut out = Vec::new();
        for token in lines.by_ref() {
            out.push(match token {
                Token::Skip { bytes, .. } => format!("<{bytes}>"),
                Token::Ending => ".".to_owned(),
                Token::Piece(piece) => {
                    let text =
                        String::from_utf8_lossy(charset.decode(piece.content, &mut scratch)).into_owned();
                    let sign = |is: bool| if is { "+" } else { "" };
                    format!("{}{text}{}", sign(piece.is_rest), sign(piece.continues))
                }
            });
        }
        (out, lines.at())
    }

    fn open(data: impl AsRef<[u8]>) -> (Vec<String>, usize) {
        cut(UTF8, 16, b"\n", data.as_ref(), End::Open)
    }

    fn after(before: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Vec<String> {
        cut(UTF8, 16, before.as_ref(), data.as_ref(), End::Open).0
    }

    fn at_end(data: impl AsRef<[u8]>, end: End) -> (Vec<String>, usize) {
        cut(UTF8, 16, b"\n", data.as_ref(), end)
    }

    fn whole(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn blank_lines_are_lines_and_one_carriage_return_belongs_to_the_ending() {
        let data = b"\na\r\n\r\n\r\r\nb\n\n";
        assert_eq!(open(data), (whole(&["", "a", "", "\r", "b", ""]), data.len()));
    }

    #[test]
    fn a_line_without_its_newline_waits() {
        assert_eq!(open("one\ntwo\r"), (whole(&["one"]), 4));
        assert_eq!(open(""), (vec![], 0));
        assert_eq!(at_end("one\ntwo", End::GroupQuiet), (whole(&["one"]), 4));
    }

    #[test]
    fn a_line_of_just_the_maximum_is_not_split_whatever_its_ending() {
        let line = "x".repeat(16);
        assert_eq!(open(format!("{line}\n{line}\r\n")).0, whole(&[&line, &line]));
        assert_eq!(open(format!("{line}\r")), (vec![], 0));
    }

    #[test]
    fn a_longer_line_is_split_and_a_character_stays_whole() {
        assert_eq!(open("0123456789abcdeé|\n"), (whole(&["0123456789abcde+", "+é|"]), 19));
        let (out, used) = cut(UTF8, 16, b"\n", &[0x80; 40], End::Open);
        assert_eq!((out.len(), used), (2, 32), "not UTF-8: cut where it must be");
    }

    #[test]
    fn a_piece_is_certain_once_the_line_is_known_to_be_longer() {
        let line = "0123456789abcdefgh";
        assert_eq!(open(&line[..17]), (vec![], 0), "the last may be a carriage return");
        assert_eq!(open(line), (whole(&["0123456789abcdef+"]), 16));
    }

    #[test]
    fn a_finished_rest_keeps_its_carriage_return_and_is_split_too() {
        assert_eq!(at_end("", End::Finished), (vec![], 0));
        assert_eq!(at_end("0123456789abcdef\r", End::Finished), (whole(&["0123456789abcdef+", "+\r"]), 17));
    }

    #[test]
    fn a_quiet_rest_comes_out_as_a_piece_that_goes_on() {
        assert_eq!(at_end("one\ntwo", End::Quiet), (whole(&["one", "two+"]), 7));
        assert_eq!(after("one\ntwo", " and more\nthree\n"), ["+ and more", "three"]);
    }

    #[test]
    fn what_is_there_of_a_last_character_waits_in_a_quiet_file_but_not_in_a_finished_one() {
        let torn = &"caf\u{e9}".as_bytes()[..4];
        assert_eq!(at_end(torn, End::Quiet), (whole(&["caf+"]), 3));
        assert_eq!(at_end(b"\xC3", End::Quiet), (vec![], 0));
        assert_eq!(at_end(torn, End::Finished), (whole(&["caf\u{FFFD}"]), 4));
    }

    #[test]
    fn the_ending_of_a_line_that_was_delivered_is_no_event() {
        assert_eq!(after("one", "\ntwo\n"), [".", "two"]);
        assert_eq!(after("one", "\r\n\n"), [".", ""]);
        assert_eq!(after("one\n", "\ntwo\n"), ["", "two"]);
        assert_eq!(after("one", " more\n"), ["+ more"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert_eq!(after("", "\u{FEFF}one\n\u{FEFF}two\n"), ["<3>", "one", "\u{FEFF}two"]);
        assert_eq!(after("", "\u{FEFF}\u{FEFF}one\n"), ["<3>", "\u{FEFF}one"]);
        assert_eq!(after("\n", "\u{FEFF}one\n"), ["\u{FEFF}one"]);
        assert_eq!(after("", b"\xEF\xBB"), Vec::<String>::new(), "it may still become one");
        assert_eq!(cut(UTF8, 16, b"", b"\xEF\xBB", End::Finished).0, ["\u{FFFD}"]);
    }

    #[test]
    fn after_a_byte_order_mark_and_after_nuls_a_line_begins() {
        let hole = "\0".repeat(nul::RUN_MIN);
        for before in [String::new(), "\u{FEFF}".into(), format!("\u{FEFF}{hole}"), format!("one\n{hole}")] {
            assert_eq!(after(&before, "\nline\n"), ["", "line"], "{before:?}");
            assert_eq!(after(&before, format!("{hole}line\n")), ["<16>", "line"], "{before:?}");
        }
        assert_eq!(after(format!("one\n{hole}"), "\0\0line\n"), ["<2>", "line"], "the hole goes on");
        assert_eq!(after("\n\u{FEFF}", "\nline\n"), [".", "line"], "this one is content");
    }

    #[test]
    fn nuls_at_the_start_of_a_line_are_skipped_at_once_and_those_inside_are_content() {
        let hole = "\0".repeat(nul::RUN_MIN);
        assert_eq!(after("\n", &hole), ["<16>"]);
        assert_eq!(after("\n", format!("{hole}one\0\n{hole}\0two\n")), ["<16>", "one\0", "<17>", "two"]);
        assert_eq!(after("one", "\0two\n"), ["+\0two"]);
        assert_eq!(after("one\0", "\0two\n"), ["+\0two"]);
        assert_eq!(after("\n", format!("{hole}\n")), ["<16>", ""]);
    }

    #[test]
    fn a_few_nuls_are_content_but_at_the_beginning_of_the_file() {
        assert_eq!(after("\n", "\0\0one\n\0\n"), ["\0\0one", "\0"]);
        assert_eq!(after("\n", "\0\0"), Vec::<String>::new(), "it may still become a hole");
        assert_eq!(cut(UTF8, 16, b"\n", b"\0\0", End::Finished).0, ["\0\0"]);
        assert_eq!(after("", "\0\0one\n"), ["<2>", "one"]);
    }

    #[test]
    fn a_hole_inside_a_line_ends_it_where_the_line_is_cut() {
        let data = [&b"half"[..], &[0; 100_000], b"whole\n"].concat();
        let (out, used) = cut(UTF8, 2_000, b"\n", &data, End::Open);
        assert_eq!(used, data.len());
        assert_eq!(out.len(), 3);
        assert_eq!(out[1..], [format!("<{}>", 100_004 - 2_000), "whole".to_owned()]);
    }

    #[test]
    fn utf16_is_cut_at_its_units() {
        let bytes = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let run =
            |before: &str, text: &str, end| cut(Charset::Utf16Le, 16, &bytes(before), &bytes(text), end);
        assert_eq!(
            run("", "\u{FEFF}one\r\n\u{A00}two\n", End::Open),
            (whole(&["<2>", "one", "\u{A00}two"]), 22)
        );
        assert_eq!(run("\n", "01234567\r\n", End::Open).0, ["01234567"]);
        assert_eq!(run("\n", "01234567\r", End::Open).0, Vec::<String>::new());
        assert_eq!(run("\n", "0123456😀\n", End::Open).0, ["0123456+", "+😀"]);
        let hole = "\0".repeat(nul::RUN_MIN / 2);
        assert_eq!(run("\n", &format!("{hole}one\n"), End::Open).0, ["<16>", "one"]);
        assert_eq!(run("one", &format!("\n{hole}two\n"), End::Open).0, [".", "<16>", "two"]);
        assert_eq!(run("\n", "\0two\n", End::Open).0, ["\0two"]);
        let torn = &bytes("a😀")[..5];
        assert_eq!(cut(Charset::Utf16Le, 16, b"\n\0", torn, End::Quiet), (whole(&["a+"]), 2));
        assert_eq!(cut(Charset::Utf16Le, 16, b"\n\0", torn, End::Finished), (whole(&["a\u{FFFD}"]), 5));
    }

    #[test]
    fn plain_lines_are_pushed_up_to_the_first_that_needs_a_look() {
        let data = format!("one\r\n\ntwo\n{}three\nfour\n", "\0".repeat(nul::RUN_MIN));
        let mut block = EventBlock::default();
        let mut lines = Lines::new(UTF8, 16, &Input { data: data.as_bytes(), before: b"\n", end: End::Open });
        lines.push_plain(&mut block);
        assert_eq!(block.events().map(|event| event.line).collect::<Vec<_>>(), [&b"one"[..], b"", b"two"]);
        assert_eq!(lines.at(), 10);
        assert_eq!(lines.next(), Some(Token::Skip { reason: SkipReason::Nul, bytes: nul::RUN_MIN }));
    }
}

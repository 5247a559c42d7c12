//! Cuts bytes into events. Pure: a slice in, events out.
//!
//! Invariants:
//! - What comes out does not depend on how the bytes were cut into reads.
//! - A line's `\n`, and one `\r` before it, belong to the line ending; every other byte comes out, in order.
//! - A line whose content is at most `max_line` bytes is one event. A longer one comes out as pieces of `max_line`
//!   bytes, each up to three bytes shorter where that keeps a UTF-8 character whole; all but the last continue.
//! - No more than `max_line + 1` bytes are ever held back.

use crate::event::EventBlock;

/// Appends the complete lines at the beginning of `bytes` to `out`, and the pieces of an over-long line that are
/// certain although its end is not there yet. Returns how many bytes were used; the rest waits for its newline.
///
/// `bytes` begin at the start of a line, or of a piece of one.
pub(super) fn cut_lines(bytes: &[u8], max_line: usize, out: &mut EventBlock) -> usize {
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes.get(start..newline).unwrap_or_default();
        push_line(line.strip_suffix(b"\r").unwrap_or(line), max_line, out);
        start = newline + 1;
    }
    let mut rest = bytes.get(start..).unwrap_or_default();
    // With one byte more than `max_line` the last may be the `\r` of a line that is just not too long.
    while rest.len() > max_line.saturating_add(1) {
        let (piece, after) = split_piece(rest, max_line);
        out.push(piece, true);
        start += piece.len();
        rest = after;
    }
    start
}

/// Appends what is left of a finished file, whose last line has no newline. A `\r` at its end is content.
pub(super) fn cut_rest(bytes: &[u8], max_line: usize, out: &mut EventBlock) {
    if !bytes.is_empty() {
        push_line(bytes, max_line, out);
    }
}

#[inline]
fn push_line(line: &[u8], max_line: usize, out: &mut EventBlock) {
    if line.len() <= max_line {
        out.push(line, false);
    } else {
        push_pieces(line, max_line, out);
    }
}

#[cold]
fn push_pieces(line: &[u8], max_line: usize, out: &mut EventBlock) {
    let mut rest = line;
    while rest.len() > max_line {
        let (piece, after) = split_piece(rest, max_line);
        out.push(piece, true);
        rest = after;
    }
    out.push(rest, false);
}

/// The first piece of a line longer than `max_line`, and what comes after it.
fn split_piece(line: &[u8], max_line: usize) -> (&[u8], &[u8]) {
    let max_line = max_line.max(1);
    let is_continuation = |at: usize| line.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    // A character has at most three continuation bytes; where there are more, this is not UTF-8.
    let cut = (max_line.saturating_sub(3)..=max_line)
        .rev()
        .find(|at| *at > 0 && !is_continuation(*at))
        .unwrap_or(max_line);
    line.split_at_checked(cut).unwrap_or((line, &[]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(block: &EventBlock) -> Vec<(Vec<u8>, bool)> {
        block.events().map(|event| (event.line.to_vec(), event.continues)).collect()
    }

    fn cut(bytes: &[u8], max_line: usize) -> (Vec<(Vec<u8>, bool)>, usize) {
        let mut block = EventBlock::default();
        let used = cut_lines(bytes, max_line, &mut block);
        (events(&block), used)
    }

    fn whole(lines: &[&str]) -> Vec<(Vec<u8>, bool)> {
        lines.iter().map(|line| (line.as_bytes().to_vec(), false)).collect()
    }

    #[test]
    fn blank_lines_are_events_and_one_carriage_return_belongs_to_the_ending() {
        assert_eq!(
            cut(b"\na\r\n\r\n\r\r\nb\n\n", 16),
            (whole(&["", "a", "", "\r", "b", ""]), b"\na\r\n\r\n\r\r\nb\n\n".len())
        );
    }

    #[test]
    fn a_line_without_its_newline_waits() {
        assert_eq!(cut(b"one\ntwo\r", 16), (whole(&["one"]), 4));
        assert_eq!(cut(b"", 16), (vec![], 0));
    }

    #[test]
    fn a_line_of_just_the_maximum_is_not_split_whatever_its_ending() {
        let line = "x".repeat(16);
        assert_eq!(cut(format!("{line}\n{line}\r\n").as_bytes(), 16).0, whole(&[&line, &line]));
        assert_eq!(cut(format!("{line}\r").as_bytes(), 16), (vec![], 0));
    }

    #[test]
    fn a_longer_line_is_split_and_a_character_stays_whole() {
        let (out, used) = cut("0123456789abcdé|\n".as_bytes(), 15);
        assert_eq!(out, [(b"0123456789abcd".to_vec(), true), ("é|".as_bytes().to_vec(), false)]);
        assert_eq!(used, 18);
        let (out, _) = cut(&[0x80; 40], 16);
        assert_eq!(out, [(vec![0x80; 16], true), (vec![0x80; 16], true)], "not UTF-8: cut where it must be");
    }

    #[test]
    fn a_finished_rest_keeps_its_carriage_return_and_is_split_too() {
        let mut block = EventBlock::default();
        cut_rest(b"", 16, &mut block);
        assert!(block.is_empty());
        cut_rest(b"0123456789abcdef\r", 16, &mut block);
        assert_eq!(events(&block), [(b"0123456789abcdef".to_vec(), true), (b"\r".to_vec(), false)]);
    }

    proptest! {
        /// However the bytes arrive, the same events come out, and nothing long is held back.
        #[test]
        fn the_events_do_not_depend_on_how_the_bytes_were_cut(
            pieces in prop::collection::vec("[ab\r\né€😀]{0,12}", 0..40),
            raw in prop::collection::vec(any::<u8>(), 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            max_line in 16_usize..24,
        ) {
            let mut input = pieces.concat().into_bytes();
            input.extend_from_slice(&raw);
            let (expected, expected_used) = cut(&input, max_line);

            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            ends.push(input.len());
            ends.sort_unstable();
            let mut block = EventBlock::default();
            let mut offset = 0;
            for end in ends {
                offset += cut_lines(&input[offset..end], max_line, &mut block);
                prop_assert!(end - offset <= max_line + 1);
            }
            prop_assert_eq!(events(&block), expected);
            prop_assert_eq!(offset, expected_used);
        }

        /// Joining the pieces of each line gives the lines back.
        #[test]
        fn no_byte_is_lost(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12)) {
            let lines: Vec<Vec<u8>> = lines
                .into_iter()
                .map(|line| line.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect())
                .collect();
            let input: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
            let (out, used) = cut(&input, 16);
            prop_assert_eq!(used, input.len());
            let mut joined = vec![Vec::new()];
            for (line, continues) in out {
                joined.last_mut().unwrap().extend_from_slice(&line);
                prop_assert!(line.len() <= 16);
                if !continues {
                    joined.push(Vec::new());
                }
            }
            joined.pop();
            prop_assert_eq!(joined, lines);
        }
    }
}

//! The format of the container runtime interface of Kubernetes: `2024-01-15T10:30:00.123456789Z stdout F text`.

use std::borrow::Cow;

use super::{Unwrapped, time};
use crate::tail::assemble::record::Stream;

/// The record in `line`, if it is one. The first of its tags, which colons separate, says whether it is partial (`P`) or
/// the last of its line (`F`). `has_carriage_return`: there was one after `line`, which a partial record keeps, as it is
/// in the middle of its text.
pub(super) fn unwrap(line: &[u8], has_carriage_return: bool) -> Option<Unwrapped<'_>> {
    let (time, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    // A record of an empty text may have lost the blank before it.
    let (tags, text) = word(rest).unwrap_or((rest, b""));
    let is_partial = match tags.split(|byte| *byte == b':').next() {
        Some(b"P") => true,
        Some(b"F") => false,
        _ => return None,
    };
    let text = if is_partial && has_carriage_return {
        Cow::Owned([text, b"\r"].concat())
    } else {
        Cow::Borrowed(text)
    };
    Some(Unwrapped { text, time: time::parse(time)?, stream: Stream::from_name(stream)?, is_partial })
}

/// What is before the first blank, and what is after it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn unwrapped(line: &str) -> Option<(String, Stream, bool)> {
        let unwrapped = unwrap(line.as_bytes(), false)?;
        assert_eq!(unwrapped.time, Timestamp::from_millis(1_705_314_600_123));
        let text = String::from_utf8(unwrapped.text.into_owned()).unwrap();
        Some((text, unwrapped.stream, unwrapped.is_partial))
    }

    #[test]
    fn a_record_is_its_text_with_its_blanks() {
        let record = |text: &str, stream, is_partial| Some((text.to_owned(), stream, is_partial));
        assert_eq!(
            unwrapped("2024-01-15T10:30:00.123456789Z stdout F  two  blanks "),
            record(" two  blanks ", Stream::Stdout, false)
        );
        assert_eq!(
            unwrapped("2024-01-15T11:30:00.123456789+01:00 stderr P part"),
            record("part", Stream::Stderr, true)
        );
        assert_eq!(
            unwrapped("2024-01-15T10:30:00.123Z stdout F:x:y text"),
            record("text", Stream::Stdout, false)
        );
    }

    #[test]
    fn an_empty_text_is_one_with_and_without_a_blank_before_it() {
        for line in ["2024-01-15T10:30:00.123Z stdout F ", "2024-01-15T10:30:00.123Z stdout F"] {
            assert_eq!(unwrapped(line), Some((String::new(), Stream::Stdout, false)));
        }
    }

    #[test]
    fn a_partial_record_keeps_its_carriage_return() {
        let line = b"2024-01-15T10:30:00.123Z stdout P part";
        assert_eq!(&*unwrap(line, true).unwrap().text, b"part\r");
        assert_eq!(&*unwrap(b"2024-01-15T10:30:00.123Z stdout F last", true).unwrap().text, b"last");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in [
            "",
            "plain text of a line",
            "2024-01-15T10:30:00.123Z",
            "2024-01-15T10:30:00.123Z stdout",
            "2024-01-15T10:30:00.123Z stdout X text",
            "2024-01-15T10:30:00.123Z stdin F text",
            "2024-01-15 stdout F text",
        ] {
            assert_eq!(unwrap(line.as_bytes(), false), None, "{line}");
        }
    }
}

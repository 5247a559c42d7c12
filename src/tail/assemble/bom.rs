//! The byte order mark at the beginning of a file: skipped, once.

use super::encoding::Charset;

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// They are the mark, that long.
    Found(usize),
    /// They may still become one.
    Possible,
    /// The file has none.
    Absent,
}

/// Looks for the mark of `charset` in `bytes`, the beginning of a file. Without `more` nothing comes after them.
pub(super) fn at_beginning(charset: Charset, bytes: &[u8], more: bool) -> Mark {
    let mark = charset.byte_order_mark();
    if mark.is_empty() {
        Mark::Absent
    } else if bytes.starts_with(mark) {
        Mark::Found(mark.len())
    } else if more && mark.starts_with(bytes) {
        Mark::Possible
    } else {
        Mark::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_once_all_of_it_is_there() {
        let mark = |bytes: &[u8], more| at_beginning(Charset::Utf8, bytes, more);
        assert_eq!(mark(b"\xEF\xBB\xBFline", true), Mark::Found(3));
        assert_eq!(mark(b"\xEF\xBB\xBF", false), Mark::Found(3));
        for len in 0..3 {
            assert_eq!(mark(&b"\xEF\xBB\xBF"[..len], true), Mark::Possible);
            assert_eq!(mark(&b"\xEF\xBB\xBF"[..len], false), Mark::Absent);
        }
        assert_eq!(mark(b"\xEF\xBBx", true), Mark::Absent);
    }

    #[test]
    fn the_mark_of_the_other_byte_order_is_content() {
        assert_eq!(at_beginning(Charset::Utf16Le, b"\xFF\xFEa\0", true), Mark::Found(2));
        assert_eq!(at_beginning(Charset::Utf16Be, b"\xFE\xFF\0a", true), Mark::Found(2));
        assert_eq!(at_beginning(Charset::Utf16Le, b"\xFE\xFF\0a", true), Mark::Absent);
        assert_eq!(
            at_beginning(Charset::Other(encoding_rs::WINDOWS_1252), b"\xEF\xBB\xBF", true),
            Mark::Absent
        );
    }
}

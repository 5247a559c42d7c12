//! The encoding of a file: where its lines and characters end, and what they are in UTF-8.
//!
//! Invariants:
//! - UTF-8 is never decoded here: its bytes stay as they are. Every other encoding becomes valid UTF-8, what is malformed
//!   in it U+FFFD.
//! - In UTF-16 only an aligned unit is a newline; `0A` inside a character is none. In every other encoding the byte `0A`
//!   is never a part of another character.
//! - Where a character ends is a matter of the bytes before that place alone, so a cut does not depend on how much of
//!   the file has been read.

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_2022_JP, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE,
};

/// What the bytes of a file stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// UTF-8, and whatever else bytes may be: they are not looked into.
    Utf8,
    /// UTF-16, the lower byte first.
    Utf16Le,
    /// UTF-16, the higher byte first.
    Utf16Be,
    /// Any other encoding; all of them have ASCII in its place.
    Other(&'static Encoding),
}

impl Charset {
    pub(super) fn new(encoding: &'static Encoding) -> Self {
        if encoding == UTF_8 {
            Self::Utf8
        } else if encoding == UTF_16LE {
            Self::Utf16Le
        } else if encoding == UTF_16BE {
            Self::Utf16Be
        } else {
            Self::Other(encoding)
        }
    }

    /// Bytes of a code unit: newlines, carriage returns and NULs are that long, and offsets are multiples of it.
    pub(super) const fn unit(self) -> usize {
        match self {
            Self::Utf8 | Self::Other(_) => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// The byte order mark; empty where the encoding has none.
    pub(super) const fn byte_order_mark(self) -> &'static [u8] {
        match self {
            Self::Utf8 => b"\xEF\xBB\xBF",
            Self::Utf16Le => b"\xFF\xFE",
            Self::Utf16Be => b"\xFE\xFF",
            Self::Other(_) => b"",
        }
    }

    /// The unit of an ASCII control character.
    const fn control(self, newline: bool) -> &'static [u8] {
        match (self, newline) {
            (Self::Utf8 | Self::Other(_), true) => b"\n",
            (Self::Utf8 | Self::Other(_), false) => b"\r",
            (Self::Utf16Le, true) => b"\n\0",
            (Self::Utf16Le, false) => b"\r\0",
            (Self::Utf16Be, true) => b"\0\n",
            (Self::Utf16Be, false) => b"\0\r",
        }
    }

    pub(super) fn is_newline(self, unit: &[u8]) -> bool {
        unit == self.control(true)
    }

    /// Where the first newline is in `bytes`, which begin at a unit.
    #[inline]
    pub(super) fn find_newline(self, bytes: &[u8]) -> Option<usize> {
        if self.unit() == 1 {
            return memchr::memchr(b'\n', bytes);
        }
        memchr::memchr_iter(b'\n', bytes).map(|at| at & !1).find(|at| self.is_newline_at(bytes, *at))
    }

    /// Where the last newline is in `bytes`, which begin at a unit.
    pub(super) fn find_last_newline(self, bytes: &[u8]) -> Option<usize> {
        if self.unit() == 1 {
            return memchr::memrchr(b'\n', bytes);
        }
        memchr::memrchr_iter(b'\n', bytes).map(|at| at & !1).find(|at| self.is_newline_at(bytes, *at))
    }

    fn is_newline_at(self, bytes: &[u8], at: usize) -> bool {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(self.control(true)))
    }

    /// `line` without the carriage return at its end, and whether there was one.
    #[inline]
    pub(super) fn strip_carriage_return(self, line: &[u8]) -> (&[u8], bool) {
        match line.strip_suffix(self.control(false)) {
            Some(stripped) if stripped.len().is_multiple_of(self.unit()) => (stripped, true),
            _ => (line, false),
        }
    }

    /// The length of the first piece of a line longer than `max` bytes: at most `max`, and as much shorter as keeps a
    /// character whole.
    pub(super) fn split(self, line: &[u8], max: usize) -> usize {
        match self.whole_characters(line.get(..max).unwrap_or(line)) {
            0 => max.min(line.len()),
            whole => whole,
        }
    }

    /// How many of `bytes`, which begin at a character, are left without a character that is cut off at their end.
    pub(super) fn whole_characters(self, bytes: &[u8]) -> usize {
        match self {
            Self::Utf8 => whole_utf8(bytes),
            Self::Utf16Le => whole_utf16(bytes, u16::from_le_bytes),
            Self::Utf16Be => whole_utf16(bytes, u16::from_be_bytes),
            Self::Other(encoding) if encoding == ISO_2022_JP => whole_iso_2022_jp(bytes),
            Self::Other(encoding) => whole_multi_byte(encoding, bytes),
        }
    }

    /// `bytes` as UTF-8; in `scratch` where they have to be changed for it.
    pub(super) fn decode<'a>(self, bytes: &'a [u8], scratch: &'a mut String) -> &'a [u8] {
        let encoding = match self {
            Self::Utf8 => return bytes,
            Self::Utf16Le => UTF_16LE,
            Self::Utf16Be => UTF_16BE,
            Self::Other(encoding) => {
                // ISO-2022-JP has other characters in the place of ASCII, after an escape.
                if Encoding::ascii_valid_up_to(bytes) == bytes.len() && !bytes.contains(&ESCAPE) {
                    return bytes;
                }
                encoding
            }
        };
        let mut decoder = encoding.new_decoder_without_bom_handling();
        scratch.clear();
        scratch.reserve(decoder.max_utf8_buffer_length(bytes.len()).unwrap_or_default());
        let (_, _, _) = decoder.decode_to_string(bytes, scratch, true);
        scratch.as_bytes()
    }
}

const ESCAPE: u8 = 0x1B;

/// A character has at most three continuation bytes; what has more is not UTF-8 and is cut anywhere.
fn whole_utf8(bytes: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(bytes.iter().rev()) {
        let len = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if len > back { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

fn whole_utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> usize {
    let (units, _) = bytes.as_chunks::<2>();
    let whole = units.len() * 2;
    match units.last() {
        Some(last) if (0xD800..0xDC00).contains(&unit(*last)) => whole - 2,
        _ => whole,
    }
}

/// For the encodings whose characters begin with a lead byte; in those of one byte each no byte leads.
fn whole_multi_byte(encoding: &'static Encoding, bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let len = character_len(encoding, rest);
        if len > rest.len() {
            break;
        }
        at += len;
    }
    at
}

/// The length of the character at the beginning of `bytes`, as the Encoding Standard has it; of one that is cut off, at
/// least one byte more than there is.
fn character_len(encoding: &'static Encoding, bytes: &[u8]) -> usize {
    let lead = bytes.first().copied().unwrap_or_default();
    let second = bytes.get(1).copied();
    let is_lead = if encoding == SHIFT_JIS {
        matches!(lead, 0x81..=0x9F | 0xE0..=0xFC)
    } else if encoding == EUC_JP {
        matches!(lead, 0x8E | 0x8F | 0xA1..=0xFE)
    } else if [BIG5, EUC_KR, GBK, GB18030].contains(&encoding) {
        matches!(lead, 0x81..=0xFE)
    } else {
        false
    };
    match second {
        _ if !is_lead => 1,
        None => 2,
        Some(b'0'..=b'9') if encoding == GBK || encoding == GB18030 => 4,
        // A lead byte without its trail: the decoder takes it alone.
        Some(..=0x3F) => 1,
        Some(_) if encoding == EUC_JP && lead == 0x8F => 3,
        Some(_) => 2,
    }
}

/// In ISO-2022-JP escapes switch between sets of characters, and every piece of a line is decoded from the beginning
/// state: ASCII. So a cut is good only where that is the state.
fn whole_iso_2022_jp(bytes: &[u8]) -> usize {
    let (mut ascii, mut whole, mut at) = (true, 0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if ascii {
            whole = at;
        }
        if rest.first() != Some(&ESCAPE) {
            at += 1;
        } else if rest.len() < 3 {
            return whole;
        } else {
            ascii = rest.starts_with(b"\x1B(B");
            at += 3;
        }
    }
    if ascii { at } else { whole }
}

#[cfg(test)]
mod tests {
    use encoding_rs::WINDOWS_1252;
    use proptest::prelude::*;

    use super::*;

    fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes_of).collect()
    }

    fn decoded(charset: Charset, bytes: &[u8]) -> String {
        let mut scratch = String::new();
        String::from_utf8(charset.decode(bytes, &mut scratch).to_vec()).unwrap()
    }

    #[test]
    fn utf8_stays_as_it_is_even_where_it_is_none() {
        let mut scratch = String::new();
        assert_eq!(Charset::Utf8.decode(b"caf\xE9 \xC3\xA9", &mut scratch), b"caf\xE9 \xC3\xA9");
    }

    #[test]
    fn other_encodings_become_utf8_and_what_is_malformed_is_replaced() {
        assert_eq!(decoded(Charset::new(WINDOWS_1252), b"caf\xE9"), "café");
        assert_eq!(decoded(Charset::new(WINDOWS_1252), b"plain"), "plain");
        assert_eq!(decoded(Charset::new(SHIFT_JIS), b"\x93\xFA\x96\x7B"), "日本");
        assert_eq!(decoded(Charset::new(SHIFT_JIS), b"a\x93"), "a\u{FFFD}");
        assert_eq!(decoded(Charset::new(ISO_2022_JP), b"a\x1B$B\x46\x7C\x1B(Bb"), "a日b");
        assert_eq!(decoded(Charset::Utf16Le, &utf16("é😀", u16::to_le_bytes)), "é😀");
        assert_eq!(decoded(Charset::Utf16Be, &utf16("é😀", u16::to_be_bytes)), "é😀");
        assert_eq!(decoded(Charset::Utf16Be, b"\0a\0"), "a\u{FFFD}");
    }

    #[test]
    fn a_newline_of_utf16_is_an_aligned_unit() {
        // U+0A00 and U+010A contain the byte of a newline; so do a low and a high byte side by side.
        let text = "\u{A00}\u{10A}\u{A41}\u{41}\n\u{A00}\n.";
        for (charset, bytes) in [
            (Charset::Utf16Le, utf16(text, u16::to_le_bytes)),
            (Charset::Utf16Be, utf16(text, u16::to_be_bytes)),
        ] {
            assert_eq!(charset.find_newline(&bytes), Some(8));
            assert_eq!(charset.find_last_newline(&bytes), Some(12));
            assert_eq!(charset.find_newline(&bytes[..9]), None, "half of it");
        }
    }

    #[test]
    fn a_carriage_return_of_utf16_is_an_aligned_unit_too() {
        let line = utf16("a\r", u16::to_le_bytes);
        assert_eq!(Charset::Utf16Le.strip_carriage_return(&line), (&line[..2], true));
        assert_eq!(Charset::Utf16Le.strip_carriage_return(b"\0\r\0"), (&b"\0\r\0"[..], false));
        assert_eq!(Charset::Utf8.strip_carriage_return(b"a\r\r"), (&b"a\r"[..], true));
    }

    #[test]
    fn what_is_cut_off_of_a_character_is_told() {
        for (text, whole) in [("é", 0), ("aé", 1), ("€", 0), ("😀", 0), ("aa😀", 2)]
            .map(|(text, whole)| (text.as_bytes(), whole))
        {
            for len in whole + 1..text.len() {
                assert_eq!(Charset::Utf8.whole_characters(&text[..len]), whole, "{:?}", &text[..len]);
            }
            assert_eq!(Charset::Utf8.whole_characters(text), text.len());
        }
        assert_eq!(Charset::Utf8.whole_characters(&[0x80; 40]), 40, "not UTF-8");
        assert_eq!(Charset::Utf8.whole_characters(b"\xFF"), 1);
        let pair = utf16("a😀", u16::to_le_bytes);
        assert_eq!([3, 4, 5, 6].map(|len| Charset::Utf16Le.whole_characters(&pair[..len])), [2, 2, 2, 6]);
        assert_eq!(Charset::new(WINDOWS_1252).whole_characters(b"\x81\x93"), 2);
        assert_eq!(Charset::new(SHIFT_JIS).whole_characters(b"\x93\xFA\x96"), 2);
        assert_eq!(Charset::new(EUC_JP).whole_characters(b"\xA4\xA2\x8F\xB0"), 2);
        assert_eq!(Charset::new(GB18030).whole_characters(b"\xB0\xA1\x84\x31\xA4"), 2);
        assert_eq!(Charset::new(GB18030).whole_characters(b"\xB0\xA1\x84\x31\xA4\x37"), 6);
        assert_eq!(Charset::new(ISO_2022_JP).whole_characters(b"ab\x1B$B\x46\x7C"), 2);
        assert_eq!(Charset::new(ISO_2022_JP).whole_characters(b"ab\x1B$B\x46\x7C\x1B(Bc"), 11);
        assert_eq!(Charset::new(ISO_2022_JP).whole_characters(b"ab\x1B$"), 2);
    }

    const TEXT: &str = "[a 0é日本語ｱ\\\\~]{0,40}";

    proptest! {
        /// Cutting a text anywhere and decoding the pieces gives the text back.
        #[test]
        fn no_cut_tears_a_character(text in TEXT, max in 16..24_usize) {
            let text: String = text.chars().filter(|c| !"é\\~".contains(*c)).collect();
            for encoding in [BIG5, EUC_JP, EUC_KR, GBK, GB18030, SHIFT_JIS] {
                let (bytes, _, lossy) = encoding.encode(&text);
                if lossy {
                    continue;
                }
                let charset = Charset::new(encoding);
                let mut rest: &[u8] = &bytes;
                let mut back = String::new();
                while rest.len() > max {
                    let (piece, after) = rest.split_at(charset.split(rest, max));
                    prop_assert!(piece.len() > max - 4);
                    back.push_str(&decoded(charset, piece));
                    rest = after;
                }
                back.push_str(&decoded(charset, rest));
                prop_assert_eq!(&back, &text, "{}", encoding.name());
            }
        }

        #[test]
        fn no_cut_tears_a_character_of_utf16(text in "[aé日😀]{0,40}", max in 16..24_usize) {
            for (charset, bytes) in [
                (Charset::Utf16Le, utf16(&text, u16::to_le_bytes)),
                (Charset::Utf16Be, utf16(&text, u16::to_be_bytes)),
            ] {
                let mut rest: &[u8] = &bytes;
                let mut back = String::new();
                while rest.len() > max {
                    let (piece, after) = rest.split_at(charset.split(rest, max));
                    back.push_str(&decoded(charset, piece));
                    rest = after;
                }
                back.push_str(&decoded(charset, rest));
                prop_assert_eq!(&back, &text);
            }
        }
    }
}

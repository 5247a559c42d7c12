//! Runs of NUL at the beginning of a line: what a writer leaves that goes on at its old offset after a truncation, or a
//! file system after a power cut. They are skipped: at the beginning of the file whatever their length, elsewhere from
//! [`RUN_MIN`] bytes on. Fewer are content, as every other byte is.

use super::encoding::Charset;

/// The shortest run that is a hole and not content, in bytes. Holes are as long as what was written before, or as a block.
pub(super) const RUN_MIN: usize = 16;

/// How many bytes are looked at at once: holes may be as long as the file was, so the compiler should see a loop without
/// an exit.
const CHUNK_BYTES: usize = 64;

/// The length of the run of NUL units at the beginning of `bytes`.
#[inline]
pub(super) fn run(charset: Charset, bytes: &[u8]) -> usize {
    if bytes.first() != Some(&0) {
        return 0;
    }
    let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
    let clear = chunks.iter().take_while(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0).count();
    let from = clear * CHUNK_BYTES;
    let rest = bytes.get(from..).unwrap_or_default();
    let len = from + rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
    len - len % charset.unit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_other_byte() {
        for len in [0, 1, 63, 64, 65, 128, 1000] {
            let mut bytes = vec![0; len];
            assert_eq!(run(Charset::Utf8, &bytes), len);
            bytes.extend_from_slice(b"a\0\0");
            assert_eq!(run(Charset::Utf8, &bytes), len);
        }
    }

    #[test]
    fn in_utf16_a_run_is_of_whole_units() {
        assert_eq!(run(Charset::Utf16Be, b"\0\0\0a"), 2, "the third NUL is half of a character");
        assert_eq!(run(Charset::Utf16Be, b"\0\n"), 0);
        assert_eq!(run(Charset::Utf16Le, b"\0\0\0"), 2, "what comes of the third is not known yet");
        assert_eq!(run(Charset::Utf16Le, b"\0A\0\0"), 0);
    }
}

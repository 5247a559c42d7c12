//! Docker's `json-file` driver: a JSON object a line, `{"log":"text\n","stream":"stdout","time":"…"}`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Unwrapped, time};
use crate::tail::assemble::record::Stream;

/// What is read of a record; its other keys are left out.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: &'a RawValue,
    stream: &'a str,
    time: &'a str,
}

/// The record in `line`, if it is one. A record whose text does not end with a newline is partial.
pub(super) fn unwrap(line: &[u8]) -> Option<Unwrapped<'_>> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let stream = Stream::from_name(entry.stream.as_bytes())?;
    let time = time::parse(entry.time.as_bytes())?;
    let quoted = entry.log.get();
    let (text, is_partial) = match plain(quoted) {
        Some(text) => (Cow::Borrowed(text), false),
        None => unescaped(serde_json::from_str(quoted).ok()?),
    };
    Some(Unwrapped { text, time, stream, is_partial })
}

/// The text of a JSON string that has no escape but the newline at its end: most of them.
fn plain(quoted: &str) -> Option<&[u8]> {
    let text = quoted.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\\n\"")?;
    memchr::memchr(b'\\', text).is_none().then_some(text)
}

/// The text of any other, and whether it is partial.
fn unescaped(text: Cow<'_, str>) -> (Cow<'_, [u8]>, bool) {
    let mut text = text.into_owned().into_bytes();
    let is_partial = text.pop_if(|byte| *byte == b'\n').is_none();
    if !is_partial {
        text.pop_if(|byte| *byte == b'\r');
    }
    (Cow::Owned(text), is_partial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    const TIME: &str = "2024-01-15T10:30:00.123456789Z";

    fn text_of(log: &str) -> Option<(String, bool)> {
        let line = format!(r#"{{"log":{log},"stream":"stderr","time":"{TIME}"}}"#);
        let unwrapped = unwrap(line.as_bytes())?;
        assert_eq!(unwrapped.time, Timestamp::from_millis(1_705_314_600_123));
        assert_eq!(unwrapped.stream, Stream::Stderr);
        Some((String::from_utf8(unwrapped.text.into_owned()).unwrap(), unwrapped.is_partial))
    }

    #[test]
    fn the_text_comes_without_its_newline_and_its_escapes() {
        let whole = |text: &str| Some((text.to_owned(), false));
        assert_eq!(text_of(r#""plain\n""#), whole("plain"));
        assert_eq!(text_of(r#""\n""#), whole(""));
        assert_eq!(text_of(r#""a \"quoted\" \u003ctag\u003e \\n\n""#), whole(r#"a "quoted" <tag> \n"#));
        assert_eq!(text_of(r#""terminal\r\n""#), whole("terminal"));
        assert_eq!(text_of(r#""two\n\n""#), whole("two\n"));
        assert_eq!(text_of(r#""\ud83d\ude00 é\n""#), whole("😀 é"));
    }

    #[test]
    fn a_text_without_newline_is_partial() {
        assert_eq!(text_of(r#""part""#), Some(("part".to_owned(), true)));
        assert_eq!(text_of(r#""back\\n""#), Some((r"back\n".to_owned(), true)));
        assert_eq!(text_of(r#""part\r""#), Some(("part\r".to_owned(), true)));
        assert_eq!(text_of(r#""""#), Some((String::new(), true)));
    }

    #[test]
    fn a_text_without_escapes_is_not_copied() {
        let line = format!(r#"{{"log":"plain é\n","stream":"stdout","time":"{TIME}"}}"#);
        assert!(matches!(unwrap(line.as_bytes()).unwrap().text, Cow::Borrowed(_)));
    }

    #[test]
    fn other_keys_and_their_order_do_not_matter() {
        let line =
            format!(r#" {{ "attrs":{{"tag":["x"]}}, "time":"{TIME}", "stream":"stdout", "log":"text\n" }} "#);
        assert_eq!(&*unwrap(line.trim().as_bytes()).unwrap().text, b"text");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in [
            "",
            "plain",
            "{}",
            r#"{"log":"x\n","stream":"stdout"}"#,
            r#"{"log":"x\n","stream":"stdout","time":"now"}"#,
            r#"{"log":"x\n","stream":"stdfoo","time":"2024-01-15T10:30:00Z"}"#,
            r#"{"log":5,"stream":"stdout","time":"2024-01-15T10:30:00Z"}"#,
            r#"{"log":"\ud800\n","stream":"stdout","time":"2024-01-15T10:30:00Z"}"#,
            r#"{"log":"x\n","stream":"stdout","time":"2024-01-15T10:30:00Z"} more"#,
            r#"{"log":"x\n","stream":"stdout","time":"2024-01"#,
        ] {
            assert_eq!(unwrap(line.as_bytes()), None, "{line}");
        }
        assert_eq!(
            unwrap(b"{\"log\":\"\xFF\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-15T10:30:00Z\"}"),
            None
        );
    }
}

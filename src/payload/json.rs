//! The JSON body: `{"agentName":…,"sources":[{"sourceName":…,"logs":[{"data":…,"timestamp":…}]}]}`, without white space.
//! A source with labels has `"labels":{…}` behind its name.
//! An event whose line goes on in the next one has `"continues":true` behind its timestamp.
//!
//! Invariants:
//! - The body is valid JSON and valid UTF-8 whatever the bytes of a line are, and a parser gets back exactly what
//!   [`String::from_utf8_lossy`] makes of the line: nothing is dropped, nothing is normalised.
//! - Nothing is allocated per event. What the events of a slice share (everything but the line) is built once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::profile::Profile;
use crate::batch::{BatchContent, FrameSlice};
use crate::config::Labels;
use crate::event::{LogEvent, SourceName, Timestamp};

/// What stands between the line and the next event, in bytes: `{"data":"` + `","timestamp":"…"}` + `,`, where the
/// time is 24 bytes long until the year 9999.
const FRAMING_BYTES: usize = 9 + 41 + 1;
/// What stands around the events of a source beside its name, in bytes, rounded up.
const SOURCE_BYTES: usize = 32;
/// What an event's length word takes in a slice, in bytes.
const LENGTH_WORD_BYTES: usize = 4;
/// What an invalid sequence becomes: U+FFFD in UTF-8.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Encodes batches as JSON for one agent.
#[derive(Clone, Debug)]
pub struct JsonEncoder {
    /// The body up to the first source.
    head: Vec<u8>,
    /// `,"labels":{…}` of a source that has none of its own, or nothing.
    labels: Vec<u8>,
    /// The same of those sources that have some.
    source_labels: BTreeMap<SourceName, Vec<u8>>,
}

impl JsonEncoder {
    /// An encoder whose bodies name `agent_name`, without labels.
    #[must_use]
    pub fn new(agent_name: &str) -> Self {
        Self::of(&Profile::json(agent_name))
    }

    /// An encoder for what `profile` says.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        let agent_name = profile.agent_name.as_str();
        let rendered = |labels: &Labels| {
            let mut out = Vec::new();
            write_labels(labels, &mut out);
            out
        };
        let own = profile.source_labels.keys();
        let source_labels = own.map(|name| (name.clone(), rendered(&profile.labels_of(name)))).collect();
        let mut head = Vec::with_capacity(agent_name.len() + 32);
        head.extend_from_slice(b"{\"agentName\":\"");
        escape(agent_name.as_bytes(), &mut head);
        head.extend_from_slice(b"\",\"sources\":[");
        Self { head, labels: rendered(&profile.labels), source_labels }
    }

    /// Appends the body of `content` to `body`.
    pub fn encode(&self, content: &BatchContent, body: &mut Vec<u8>) {
        body.reserve(self.expected_bytes(content));
        body.extend_from_slice(&self.head);
        let mut tail = String::new();
        for (number, run) in content.sources.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(b"{\"sourceName\":\"");
            escape(run.source.as_str().as_bytes(), body);
            body.push(b'"');
            body.extend_from_slice(self.source_labels.get(&run.source).unwrap_or(&self.labels));
            body.extend_from_slice(b",\"logs\":[");
            let mut prefix: &[u8] = b"{\"data\":\"";
            for slice in &run.slices {
                tail.clear();
                // Writing to a String cannot fail.
                let _ = write!(tail, "\",\"timestamp\":\"{}\"}}", slice.detected);
                prefix = encode_slice(slice, prefix, tail.as_bytes(), body);
            }
            body.extend_from_slice(b"]}");
        }
        body.extend_from_slice(b"]}");
    }

    /// How long the body becomes if no line needs escaping, in bytes; what is above that is grown into.
    fn expected_bytes(&self, content: &BatchContent) -> usize {
        content.sources.iter().fold(self.head.len().saturating_add(2), |bytes, run| {
            let lines: usize = run.slices.iter().map(|slice| slice.range.len()).sum();
            let events = usize::try_from(run.events).unwrap_or(usize::MAX);
            bytes
                .saturating_add(lines)
                .saturating_add(events.saturating_mul(FRAMING_BYTES - LENGTH_WORD_BYTES))
                .saturating_add(run.source.as_str().len() + SOURCE_BYTES)
                .saturating_add(self.labels.len())
        })
    }
}

/// Writes the events of one slice, the first after `prefix`; returns the prefix of the event after them.
fn encode_slice<'a>(slice: &FrameSlice, prefix: &'a [u8], tail: &[u8], body: &mut Vec<u8>) -> &'a [u8] {
    let mut prefix = prefix;
    for event in slice.events() {
        body.extend_from_slice(prefix);
        encode_line(event.line, body);
        if event.continues || event.time.is_some() {
            close_special(&event, slice.detected, body);
        } else {
            body.extend_from_slice(tail);
        }
        prefix = b",{\"data\":\"";
    }
    prefix
}

/// Ends an event that has a time of its own, or whose line goes on.
#[cold]
fn close_special(event: &LogEvent<'_>, detected: Timestamp, body: &mut Vec<u8>) {
    body.extend_from_slice(b"\",\"timestamp\":\"");
    body.extend_from_slice(event.time.unwrap_or(detected).to_string().as_bytes());
    body.extend_from_slice(if event.continues { b"\",\"continues\":true}" } else { b"\"}" });
}

/// Writes `text` as a JSON string; bytes that are not UTF-8 become U+FFFD.
pub(super) fn write_string(text: &[u8], body: &mut Vec<u8>) {
    body.push(b'"');
    encode_line(text, body);
    body.push(b'"');
}

/// Writes `,"labels":{…}`, or nothing where there are none.
pub(super) fn write_labels(labels: &Labels, body: &mut Vec<u8>) {
    let mut separator: &[u8] = b",\"labels\":{";
    for (name, value) in labels {
        body.extend_from_slice(separator);
        separator = b",";
        write_string(name.as_bytes(), body);
        body.push(b':');
        write_string(value.as_bytes(), body);
    }
    if !labels.is_empty() {
        body.push(b'}');
    }
}

/// Writes a line as the inside of a JSON string.
#[inline]
fn encode_line(line: &[u8], body: &mut Vec<u8>) {
    if is_plain(line) {
        body.extend_from_slice(line);
    } else {
        encode_special_line(line, body);
    }
}

/// The part of [`encode_line`] for lines with something to escape or with bytes beyond ASCII.
fn encode_special_line(line: &[u8], body: &mut Vec<u8>) {
    if std::str::from_utf8(line).is_ok() {
        return escape(line, body);
    }
    for chunk in line.utf8_chunks() {
        escape(chunk.valid().as_bytes(), body);
        if !chunk.invalid().is_empty() {
            body.extend_from_slice(REPLACEMENT);
        }
    }
}

/// How many bytes are looked at between two decisions: two or more vector registers, so that looking is cheap, and few
/// enough that one quote in a long line costs little.
const CHUNK_BYTES: usize = 32;

/// Whether a byte has to be escaped inside a JSON string.
const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Whether a line can be copied as it is: ASCII, nothing to escape.
#[inline]
fn is_plain(line: &[u8]) -> bool {
    // Folds without an early exit over an array of fixed length, which the compiler turns into vector instructions.
    fn is_plain_chunk(chunk: &[u8; CHUNK_BYTES]) -> bool {
        !chunk.iter().fold(false, |found, byte| found | needs_escape(*byte) | (*byte >= 0x80))
    }
    let (chunks, rest) = line.as_chunks::<CHUNK_BYTES>();
    if !chunks.iter().all(is_plain_chunk) {
        return false;
    }
    match line.last_chunk::<CHUNK_BYTES>() {
        // Some bytes are looked at twice, which is cheaper than looking at the rest one by one.
        Some(last) => rest.is_empty() || is_plain_chunk(last),
        None => !rest.iter().fold(false, |found, byte| found | needs_escape(*byte) | (*byte >= 0x80)),
    }
}

/// Writes `text`, which is valid UTF-8, with the escapes that JSON asks for. Clean runs are copied whole.
fn escape(text: &[u8], body: &mut Vec<u8>) {
    let mut clean_from = 0;
    let mut at = 0;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        let mut found = escapes_in(u64::from_le_bytes(*word));
        while found != 0 {
            let index = at + (found.trailing_zeros() / 8) as usize;
            escape_byte(text, clean_from, index, body);
            clean_from = index + 1;
            found &= found - 1;
        }
        at += 8;
    }
    for byte in rest {
        if needs_escape(*byte) {
            escape_byte(text, clean_from, at, body);
            clean_from = at + 1;
        }
        at += 1;
    }
    body.extend_from_slice(text.get(clean_from..).unwrap_or_default());
}

/// Writes what is clean from `clean_from` up to `index`, then the escape of the byte at `index`.
fn escape_byte(text: &[u8], clean_from: usize, index: usize, body: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    body.extend_from_slice(text.get(clean_from..index).unwrap_or_default());
    let byte = text.get(index).copied().unwrap_or_default();
    match byte {
        b'"' => body.extend_from_slice(b"\\\""),
        b'\\' => body.extend_from_slice(b"\\\\"),
        b'\t' => body.extend_from_slice(b"\\t"),
        b'\n' => body.extend_from_slice(b"\\n"),
        b'\r' => body.extend_from_slice(b"\\r"),
        0x08 => body.extend_from_slice(b"\\b"),
        0x0C => body.extend_from_slice(b"\\f"),
        control => {
            let digit = |value: u8| HEX.get(usize::from(value & 0x0F)).copied().unwrap_or(b'0');
            body.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control)]);
        }
    }
}

/// The bytes of a word that need escaping: bit 7 of each such byte is set, all other bits are clear.
///
/// Exact, not a guess: with the high bits taken off, each sum stays within its byte, so nothing is carried over.
const fn escapes_in(word: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & !HIGH;
    let no_quote = (low ^ (ONES * b'"' as u64)) + (HIGH - ONES);
    let no_backslash = (low ^ (ONES * b'\\' as u64)) + (HIGH - ONES);
    let no_control = low + ONES * 0x60;
    !(no_quote & no_backslash & no_control) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::{EventBlock, Seq, SourceName};

    const DETECTED: i64 = 1_705_314_600_123;

    fn slice(lines: &[&[u8]], millis: i64) -> FrameSlice {
        let mut block = EventBlock::default();
        for line in lines {
            block.push(line, false);
        }
        let payload = Arc::new(block.into_buffer());
        FrameSlice {
            range: 0..payload.len(),
            payload,
            detected: Timestamp::from_millis(millis),
            path: Path::new("/app.log").into(),
        }
    }

    fn one_source(lines: &[&[u8]]) -> BatchContent {
        let mut content = BatchContent::default();
        let events = u32::try_from(lines.len()).unwrap();
        content.push(&SourceName::from("app1"), Seq(1), events, slice(lines, DETECTED));
        content
    }

    fn encoded(agent: &str, content: &BatchContent) -> Vec<u8> {
        let mut body = Vec::new();
        JsonEncoder::new(agent).encode(content, &mut body);
        body
    }

    fn data_of(body: &[u8]) -> Vec<String> {
        let parsed: Value = serde_json::from_slice(body).unwrap();
        let logs = |source: &Value| source["logs"].as_array().unwrap().clone();
        let sources = parsed["sources"].as_array().unwrap();
        sources.iter().flat_map(logs).map(|log| log["data"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_body_is_the_documented_one_byte_for_byte() {
        let body = encoded("agent1", &one_source(&[b"the line"]));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"agentName":"agent1","sources":[{"sourceName":"app1","logs":[{"data":"the line","timestamp":"2024-01-15T10:30:00.123Z"}]}]}"#
        );
    }

    #[test]
    fn sources_slices_and_blank_lines_keep_their_order_and_times() {
        let mut content = BatchContent::default();
        let (one, two) = (SourceName::from("one"), SourceName::from("two"));
        content.push(&two, Seq(7), 2, slice(&[b"a", b""], 0));
        content.push(&one, Seq(1), 1, slice(&[b"b"], 1));
        content.push(&two, Seq(9), 1, slice(&[b"c"], 2));
        let parsed: Value = serde_json::from_slice(&encoded("x", &content)).unwrap();
        let log = |data: &str, time: &str| json!({"data": data, "timestamp": time});
        assert_eq!(
            parsed,
            json!({"agentName": "x", "sources": [
                {"sourceName": "two", "logs": [
                    log("a", "1970-01-01T00:00:00.000Z"),
                    log("", "1970-01-01T00:00:00.000Z"),
                    log("c", "1970-01-01T00:00:00.002Z"),
                ]},
                {"sourceName": "one", "logs": [log("b", "1970-01-01T00:00:00.001Z")]},
            ]})
        );
    }

    #[test]
    fn an_event_with_a_time_of_its_own_and_one_that_goes_on_say_so() {
        let mut block = EventBlock::default();
        block.push_timed(b"own", false, Some(Timestamp::from_millis(1)));
        block.push(b"piece", true);
        block.push_timed(b"both", true, Some(Timestamp::from_millis(2)));
        block.push(b"plain", false);
        let payload = Arc::new(block.into_buffer());
        let mut content = BatchContent::default();
        let detected = Timestamp::from_millis(DETECTED);
        let slice =
            FrameSlice { range: 0..payload.len(), payload, detected, path: Path::new("/app.log").into() };
        content.push(&SourceName::from("s"), Seq(1), 4, slice);
        let parsed: Value = serde_json::from_slice(&encoded("x", &content)).unwrap();
        let detected = "2024-01-15T10:30:00.123Z";
        assert_eq!(
            parsed["sources"][0]["logs"],
            json!([
                {"data": "own", "timestamp": "1970-01-01T00:00:00.001Z"},
                {"data": "piece", "timestamp": detected, "continues": true},
                {"data": "both", "timestamp": "1970-01-01T00:00:00.002Z", "continues": true},
                {"data": "plain", "timestamp": detected},
            ])
        );
    }

    #[test]
    fn names_are_escaped_too() {
        let mut content = BatchContent::default();
        content.push(&SourceName::from("so\"urce"), Seq(1), 1, slice(&[b"x"], 0));
        let parsed: Value = serde_json::from_slice(&encoded("ag\\ent\n", &content)).unwrap();
        assert_eq!(parsed["agentName"], "ag\\ent\n");
        assert_eq!(parsed["sources"][0]["sourceName"], "so\"urce");
    }

    #[test]
    fn every_single_byte_at_every_place_of_a_line_arrives() {
        for byte in 0..=255_u8 {
            for len in [1, 7, 8, 9, 31, 32, 33, 64, 70] {
                for at in [0, len / 2, len - 1] {
                    let mut line = vec![b'x'; len];
                    line[at] = byte;
                    let body = encoded("a", &one_source(&[&line]));
                    assert_eq!(
                        data_of(&body),
                        [String::from_utf8_lossy(&line)],
                        "byte {byte} at {at} of {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn escapes_are_found_exactly_in_every_word_of_two_special_bytes() {
        let interesting =
            [0x00, 0x1F, 0x20, 0x21, 0x22, 0x23, 0x5B, 0x5C, 0x5D, 0x7F, 0x80, 0xA2, 0xDC, 0xFF];
        for first in interesting {
            for second in interesting {
                let bytes = [b'a', first, second, b'z', second, first, first, second];
                let expected = bytes.map(|byte| if needs_escape(byte) { 0x80 } else { 0 });
                assert_eq!(escapes_in(u64::from_le_bytes(bytes)).to_le_bytes(), expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn plain_lines_fit_the_room_reserved_for_them() {
        let content = one_source(&[b"plain".as_slice(); 100]);
        let encoder = JsonEncoder::new("agent");
        assert!(encoder.expected_bytes(&content) >= encoded("agent", &content).len());
    }

    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..120),
            "[ -~]{0,300}".prop_map(String::into_bytes),
            "\\PC{0,80}".prop_map(String::into_bytes),
            "[\"\\\\\\x00-\\x20é€😀]{0,40}".prop_map(String::into_bytes),
            // A text cut in the middle of a character, as a split line may be.
            ("[é€😀a]{1,20}", 0..4_usize).prop_map(|(text, cut)| {
                let mut bytes = text.into_bytes();
                bytes.truncate(bytes.len().saturating_sub(cut));
                bytes
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_parser_gets_back_what_from_utf8_lossy_makes_of_each_line(
            lines in proptest::collection::vec(any_line(), 0..12), agent in "\\PC{0,20}",
        ) {
            let borrowed: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let body = encoded(&agent, &one_source(&borrowed));
            let text = std::str::from_utf8(&body).expect("the body is UTF-8");
            let parsed: Value = serde_json::from_str(text).expect("the body is JSON");
            prop_assert_eq!(&parsed["agentName"], &Value::from(agent));
            let expected: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            prop_assert_eq!(data_of(&body), expected);
        }
    }
}

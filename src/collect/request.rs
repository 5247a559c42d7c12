//! What an agent sends: the identity headers, the content codings and the payload.
//!
//! Invariant: a [`Batch`] has exactly as many events as its headers announce, each with its sequence number, and each
//! rendered as one line that is valid JSON and has one line feed, at its end. Nothing past this module looks at what
//! came over the network.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use serde::Deserialize;

use super::ranges::{Run, SEQ_MAX};
use crate::event::SourceName;

/// The longest accepted agent name, in bytes; it is repeated on every line.
const AGENT_NAME_BYTES_MAX: usize = 1024;
/// The longest accepted timestamp, in bytes; RFC 3339 with nanoseconds has 35.
const TIMESTAMP_BYTES_MAX: usize = 64;
/// The most entries of `sources[]` in one request.
const SOURCES_MAX: usize = 65_536;
/// What a decoded body may grow to, as a multiple of what the body itself may have.
const DECODED_FACTOR: u64 = 4;

/// Why a request is refused. Each is one line for the person who reads the sender's log.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request has no `Idempotency-Key`, or no `Log-Agent-Seq`.
    #[error("header {0} is missing: without it an event has no identity and cannot be stored once")]
    HeaderMissing(&'static str),
    /// The key or the ranges cannot be read.
    #[error("{name}: {problem}")]
    Header {
        /// Where they stand.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A content coding other than gzip, zstd and identity.
    #[error("Content-Encoding is not supported: use gzip, zstd or none")]
    Encoding,
    /// The body does not decode.
    #[error("the body does not decode as {coding}: {source}")]
    Decoding {
        /// The coding that the request names.
        coding: &'static str,
        /// What the decoder says.
        source: std::io::Error,
    },
    /// The body, or what it decodes to, is past the limit.
    #[error("the body is larger than {limit} bytes{}", if *.decoded { " when decoded" } else { "" })]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Whether it is about the decoded body.
        decoded: bool,
    },
    /// The body is not the payload.
    #[error("the body is not the payload: {0}")]
    Payload(#[from] serde_json::Error),
    /// A name or a number in the payload is past its limit.
    #[error("{what} is past the limit of {limit}")]
    Limit {
        /// What is too long or too many.
        what: &'static str,
        /// The limit, in bytes or entries.
        limit: usize,
    },
    /// The ranges do not belong to the payload.
    #[error("Log-Agent-Seq has {ranges} ranges, the payload has {sources} sources")]
    RangeCount {
        /// Ranges in the header.
        ranges: usize,
        /// Entries of `sources[]`.
        sources: usize,
    },
    /// A range does not belong to its source.
    #[error("Log-Agent-Seq announces {announced} events of source {index}, the payload has {found}")]
    EventCount {
        /// Index in `sources[]`, from 0.
        index: usize,
        /// Events by the header.
        announced: u64,
        /// Events in the payload.
        found: usize,
    },
}

impl Refusal {
    /// The HTTP status that says the same.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::Encoding => 415,
            _ => 400,
        }
    }
}

/// Names a spool: 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId([u8; 32]);

impl SpoolId {
    /// Reads an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.as_bytes().try_into().ok()?;
        let hexadecimal = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        hexadecimal.then_some(Self(digits))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the identity headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The spool that numbered the events.
    pub spool: SpoolId,
    /// One range of sequence numbers for each entry of `sources[]`.
    pub ranges: Vec<Run>,
}

impl Identity {
    /// The header with the batch's key.
    pub const KEY_HEADER: &'static str = "Idempotency-Key";
    /// The header with the ranges.
    pub const SEQ_HEADER: &'static str = "Log-Agent-Seq";

    /// Reads the values of both headers.
    ///
    /// # Errors
    /// [`Refusal::Header`] where one of them is not what an agent sends.
    pub fn parse(key: &str, seq: &str) -> Result<Self, Refusal> {
        let name = "header Idempotency-Key";
        let bare = key.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let bare = bare.ok_or(Refusal::Header { name, problem: "not a quoted string" })?;
        Ok(Self { spool: parse_key(name, bare)?, ranges: parse_ranges("header Log-Agent-Seq", seq)? })
    }

    /// Reads the values of the members `key` and `seq` of a frame.
    ///
    /// # Errors
    /// [`Refusal::Header`] where one of them is not what an agent sends.
    #[cfg(feature = "websocket")]
    pub fn of_members(key: &str, seq: &str) -> Result<Self, Refusal> {
        Ok(Self { spool: parse_key("member key", key)?, ranges: parse_ranges("member seq", seq)? })
    }
}

/// The spool id of `<spool id>-<batch>`. What follows the id names the batch and is not looked into: which events
/// came is said by the ranges, and a batch may be cut again.
fn parse_key(name: &'static str, key: &str) -> Result<SpoolId, Refusal> {
    let refusal = |problem| Refusal::Header { name, problem };
    let (spool, batch) = key.split_once('-').ok_or(refusal("no '-' after the spool id"))?;
    let spool =
        SpoolId::parse(spool).ok_or(refusal("the spool id is not 32 lower-case hexadecimal digits"))?;
    let plain = batch.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'.'));
    if batch.is_empty() || !plain {
        return Err(refusal("no range of positions after the spool id"));
    }
    Ok(spool)
}

/// The ranges of `1001-1050, 77-90`.
fn parse_ranges(name: &'static str, seq: &str) -> Result<Vec<Run>, Refusal> {
    let refusal = |problem| Refusal::Header { name, problem };
    seq.split(',')
        .map(|range| {
            let (first, last) = range.trim().split_once('-').ok_or(refusal("a range is <first>-<last>"))?;
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| text.parse::<u64>().ok()).flatten().filter(|seq| (1..=SEQ_MAX).contains(seq))
            };
            let first = number(first).ok_or(refusal("not a sequence number from 1"))?;
            let last = number(last).ok_or(refusal("not a sequence number from 1"))?;
            if last < first {
                return Err(refusal("a range ends before it begins"));
            }
            Ok(Run { first, last })
        })
        .collect()
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// gzip, of one member or several.
    Gzip,
    /// zstd.
    Zstd,
}

impl Coding {
    /// Reads the value of `Content-Encoding`, if there is one.
    ///
    /// # Errors
    /// [`Refusal::Encoding`] for any other coding, and for several on top of each other.
    pub fn parse(header: Option<&str>) -> Result<Self, Refusal> {
        match header.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(_) => Err(Refusal::Encoding),
        }
    }

    /// Decodes `body`, to at most [`DECODED_FACTOR`] times `body_bytes_max`.
    ///
    /// # Errors
    /// [`Refusal::Decoding`] where it is not what the header says, [`Refusal::TooLarge`] past the limit.
    pub fn decode(self, body: &[u8], body_bytes_max: u64) -> Result<Cow<'_, [u8]>, Refusal> {
        let limit = body_bytes_max.saturating_mul(DECODED_FACTOR);
        match self {
            Self::Identity => Ok(Cow::Borrowed(body)),
            Self::Gzip => read_to_limit("gzip", flate2::read::MultiGzDecoder::new(body), limit),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(body);
                let decoder = decoder.map_err(|source| Refusal::Decoding { coding: "zstd", source })?;
                read_to_limit("zstd", decoder, limit)
            }
        }
    }
}

fn read_to_limit<'a>(coding: &'static str, decoder: impl Read, limit: u64) -> Result<Cow<'a, [u8]>, Refusal> {
    let mut decoded = Vec::new();
    let read = decoder.take(limit.saturating_add(1)).read_to_end(&mut decoded);
    let read = read.map_err(|source| Refusal::Decoding { coding, source })?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(Refusal::TooLarge { limit, decoded: true });
    }
    Ok(Cow::Owned(decoded))
}

/// The payload as it stands in the body. Unknown keys are passed over, so that agents may learn to say more.
#[derive(Debug, Deserialize)]
pub(super) struct Payload<'a> {
    #[serde(borrow, rename = "agentName")]
    pub(super) agent_name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) sources: Vec<PayloadSource<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PayloadSource<'a> {
    #[serde(borrow, rename = "sourceName")]
    source_name: Cow<'a, str>,
    #[serde(borrow)]
    logs: Vec<PayloadLog<'a>>,
}

#[derive(Debug, Deserialize)]
struct PayloadLog<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    /// The line goes on in the next event.
    #[serde(default)]
    continues: bool,
}

/// A request whose content was checked, as it goes to the store.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events of each source, in payload order.
    pub sources: Vec<BatchSource>,
    /// The rendered events, each with its line feed, in payload order.
    pub lines: Vec<u8>,
}

/// The events of one source in a [`Batch`].
#[derive(Debug)]
pub struct BatchSource {
    /// The spool that numbered them.
    pub spool: SpoolId,
    /// The source's name.
    pub name: String,
    /// Their sequence numbers.
    pub run: Run,
    /// Where the first event begins in [`Batch::lines`].
    pub start: usize,
    /// Where each event ends in [`Batch::lines`].
    pub ends: Vec<usize>,
}

impl BatchSource {
    /// Where the events of `part`, a part of [`BatchSource::run`], stand in [`Batch::lines`].
    #[must_use]
    pub fn span(&self, part: Run) -> std::ops::Range<usize> {
        let index = |seq: u64| usize::try_from(seq.saturating_sub(self.run.first)).unwrap_or(usize::MAX);
        let end_of = |index: usize| self.ends.get(index).copied().unwrap_or(self.start);
        let start = index(part.first).checked_sub(1).map_or(self.start, end_of);
        start..end_of(index(part.last))
    }
}

impl Batch {
    /// Reads a decoded body and renders its events.
    ///
    /// # Errors
    /// A [`Refusal`] where the body is not the payload, or does not fit what the headers announce.
    pub fn parse(identity: &Identity, body: &[u8], body_bytes_max: u64) -> Result<Self, Refusal> {
        Self::render(identity, &serde_json::from_slice(body)?, body.len(), body_bytes_max)
    }

    /// Renders the events of a payload that came as `body_bytes` bytes.
    ///
    /// # Errors
    /// A [`Refusal`] where the payload does not fit what was announced, or is past a limit.
    pub(super) fn render(
        identity: &Identity,
        payload: &Payload<'_>,
        body_bytes: usize,
        body_bytes_max: u64,
    ) -> Result<Self, Refusal> {
        check_limits(payload)?;
        if payload.sources.len() != identity.ranges.len() {
            let (ranges, sources) = (identity.ranges.len(), payload.sources.len());
            return Err(Refusal::RangeCount { ranges, sources });
        }
        let lines_bytes_max = body_bytes_max.saturating_mul(DECODED_FACTOR);
        let events: usize = payload.sources.iter().map(|source| source.logs.len()).sum();
        // A line is about as long as the event in the payload, and has its names and its number besides.
        let mut batch =
            Self { sources: Vec::new(), lines: Vec::with_capacity(body_bytes + events.saturating_mul(64)) };
        for (index, (source, run)) in payload.sources.iter().zip(&identity.ranges).enumerate() {
            let found = source.logs.len();
            if u64::try_from(found).unwrap_or(u64::MAX) != run.count() {
                return Err(Refusal::EventCount { index, announced: run.count(), found });
            }
            let head = LineHead::new(&payload.agent_name, &source.source_name)?;
            let start = batch.lines.len();
            let mut ends = Vec::with_capacity(found);
            for (seq, log) in (run.first..).zip(&source.logs) {
                head.render(&mut batch.lines, seq, log)?;
                ends.push(batch.lines.len());
                if u64::try_from(batch.lines.len()).unwrap_or(u64::MAX) > lines_bytes_max {
                    return Err(Refusal::TooLarge { limit: lines_bytes_max, decoded: true });
                }
            }
            let name = source.source_name.clone().into_owned();
            batch.sources.push(BatchSource { spool: identity.spool, name, run: *run, start, ends });
        }
        Ok(batch)
    }
}

fn check_limits(payload: &Payload<'_>) -> Result<(), Refusal> {
    let within = |what, len: usize, limit: usize| {
        if len > limit { Err(Refusal::Limit { what, limit }) } else { Ok(()) }
    };
    within("agentName", payload.agent_name.len(), AGENT_NAME_BYTES_MAX)?;
    within("the number of sources", payload.sources.len(), SOURCES_MAX)?;
    for source in &payload.sources {
        within("sourceName", source.source_name.len(), SourceName::MAX_BYTES)?;
        for log in &source.logs {
            within("timestamp", log.timestamp.len(), TIMESTAMP_BYTES_MAX)?;
        }
    }
    Ok(())
}

/// What all lines of one source have in common, rendered once.
struct LineHead {
    text: Vec<u8>,
}

impl LineHead {
    fn new(agent: &str, source: &str) -> Result<Self, serde_json::Error> {
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(b"{\"agent\":");
        serde_json::to_writer(&mut text, agent)?;
        text.extend_from_slice(b",\"source\":");
        serde_json::to_writer(&mut text, source)?;
        text.extend_from_slice(b",\"seq\":");
        Ok(Self { text })
    }

    fn render(&self, lines: &mut Vec<u8>, seq: u64, log: &PayloadLog<'_>) -> Result<(), serde_json::Error> {
        lines.extend_from_slice(&self.text);
        serde_json::to_writer(&mut *lines, &seq)?;
        lines.extend_from_slice(b",\"timestamp\":");
        serde_json::to_writer(&mut *lines, &*log.timestamp)?;
        lines.extend_from_slice(b",\"data\":");
        serde_json::to_writer(&mut *lines, &*log.data)?;
        lines.extend_from_slice(if log.continues { b",\"continues\":true}\n" } else { b"}\n" });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOOL: &str = "0123456789abcdef0123456789abcdef";
    const LIMIT: u64 = 1 << 20;

    fn identity(seq: &str) -> Identity {
        Identity::parse(&format!("\"{SPOOL}-1-9\""), seq).unwrap()
    }

    #[test]
    fn the_headers_of_a_whole_batch_and_of_a_part_are_read() {
        let whole = Identity::parse(&format!("\"{SPOOL}-1001-1064\""), "1001-1050, 77-90").unwrap();
        assert_eq!(whole.spool.as_str(), SPOOL);
        assert_eq!(whole.ranges, [Run { first: 1001, last: 1050 }, Run { first: 77, last: 90 }]);
        let part = Identity::parse(&format!("\"{SPOOL}-1001-1064.0-25\""), "1-25").unwrap();
        assert_eq!(part.spool, whole.spool);
    }

    #[test]
    fn headers_that_no_agent_sends_are_refused() {
        let upper = SPOOL.to_uppercase();
        for key in ["", "x", &format!("{SPOOL}-1-2"), &format!("\"{upper}-1-2\""), &format!("\"{SPOOL}\"")] {
            assert!(Identity::parse(key, "1-2").is_err(), "{key}");
        }
        for seq in ["", "1", "0-1", "2-1", "1-2,", "a-b", "+1-2", "1-2-3", "1-18446744073709551615"] {
            assert!(Identity::parse(&format!("\"{SPOOL}-1-2\""), seq).is_err(), "{seq}");
        }
    }

    #[test]
    fn every_event_becomes_one_line_of_json() {
        let body = r#"{"agentName":"a\"1","sources":[{"sourceName":"app","logs":[
            {"data":"plain","timestamp":"2024-01-15T10:30:00.123Z"},
            {"data":"tab\t \"quote\" \u0000 \ud83d\ude00 é","timestamp":"t","more":[1,2]}]}],"more":{}}"#;
        let batch = Batch::parse(&identity("7-8"), body.as_bytes(), LIMIT).unwrap();
        let lines = String::from_utf8(batch.lines.clone()).unwrap();
        let lines: Vec<&str> = lines.split_terminator('\n').collect();
        assert_eq!(
            lines[0],
            r#"{"agent":"a\"1","source":"app","seq":7,"timestamp":"2024-01-15T10:30:00.123Z","data":"plain"}"#
        );
        let second: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(second["data"], "tab\t \"quote\" \0 \u{1f600} é");
        assert_eq!(second["seq"], 8);
        let source = &batch.sources[0];
        let span = source.span(Run { first: 8, last: 8 });
        assert_eq!(&batch.lines[span], format!("{}\n", lines[1]).as_bytes());
        assert_eq!(source.span(Run { first: 7, last: 8 }), 0..batch.lines.len());
    }

    #[test]
    fn counts_that_do_not_fit_the_headers_are_refused() {
        let body =
            br#"{"agentName":"a","sources":[{"sourceName":"s","logs":[{"data":"x","timestamp":"t"}]}]}"#;
        assert!(Batch::parse(&identity("1-1"), body, LIMIT).is_ok());
        let refusal = Batch::parse(&identity("1-2"), body, LIMIT).unwrap_err();
        assert!(matches!(refusal, Refusal::EventCount { announced: 2, found: 1, .. }), "{refusal}");
        let refusal = Batch::parse(&identity("1-1,2-2"), body, LIMIT).unwrap_err();
        assert!(matches!(refusal, Refusal::RangeCount { ranges: 2, sources: 1 }), "{refusal}");
        // A range as long as the number space must not be counted one by one, or allocated for.
        assert!(Batch::parse(&identity("1-18446744073709551614"), body, LIMIT).is_err());
    }

    #[test]
    fn a_small_body_cannot_grow_without_bound() {
        let zeros = vec![b' '; 8 << 20];
        let packed = zstd::bulk::compress(&zeros, 3).unwrap();
        assert!(packed.len() < 4096);
        let refusal = Coding::Zstd.decode(&packed, LIMIT).unwrap_err();
        assert_eq!(refusal.status(), 413);
        // Names are repeated on every line, so many small events with a long name would grow too.
        let name = "n".repeat(AGENT_NAME_BYTES_MAX);
        let logs = vec![r#"{"data":"","timestamp":""}"#; 8000].join(",");
        let body = format!(r#"{{"agentName":"{name}","sources":[{{"sourceName":"s","logs":[{logs}]}}]}}"#);
        let refusal = Batch::parse(&identity("1-8000"), body.as_bytes(), LIMIT).unwrap_err();
        assert_eq!(refusal.status(), 413);
    }

    #[test]
    fn codings_are_told_apart() {
        assert_eq!(Coding::parse(None).unwrap(), Coding::Identity);
        assert_eq!(Coding::parse(Some("GZIP")).unwrap(), Coding::Gzip);
        assert_eq!(Coding::parse(Some("zstd")).unwrap(), Coding::Zstd);
        assert_eq!(Coding::parse(Some("gzip, zstd")).unwrap_err().status(), 415);
        assert_eq!(Coding::Gzip.decode(b"no gzip", LIMIT).unwrap_err().status(), 400);
        assert_eq!(Coding::Zstd.decode(b"no zstd", LIMIT).unwrap_err().status(), 400);
    }
}

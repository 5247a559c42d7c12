//! A payload as messages.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Per;
use super::json::{self, Part};
use crate::batch::{Payload, SourceRange};
use crate::config::Format;

/// Carries the key of the batch that a message was sent with.
pub(in crate::send) const KEY_HEADER: &str = "Log-Agent-Key";
/// Carries the sequence number; a range where a message has several events, and ranges where it has several sources.
pub(in crate::send) const SEQ_HEADER: &str = "Log-Agent-Seq";
/// Carries the source, where a message has the events of one.
pub(in crate::send) const SOURCE_HEADER: &str = "Log-Agent-Source";
/// Carries the media type of the content, where the protocol has no place of its own for it.
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(in crate::send) const TYPE_HEADER: &str = "Content-Type";

/// The payload cannot be taken apart, which only a payload of another form than this program's can cause.
#[derive(Debug)]
pub(in crate::send) struct NotOurs;

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the batch's payload cannot be taken apart into messages: set messages to \"batch\"")
    }
}

/// A payload taken apart. Its messages are made one by one, as they are asked for.
pub(in crate::send) struct Apart<'a> {
    payload: &'a Payload,
    spool: &'a str,
    #[cfg_attr(
        not(feature = "queue"),
        allow(dead_code, reason = "headers name an event, and no identifier")
    )]
    suffix: &'a str,
    per: Per,
    runs: Vec<Run<'a>>,
}

/// The messages with the events of one source, or the one message of the batch.
pub(in crate::send) struct Run<'a> {
    /// The source, where it is one.
    range: Option<&'a SourceRange>,
    bodies: Bodies<'a>,
}

/// Where the bodies of messages come from.
enum Bodies<'a> {
    /// The payload as it is.
    Whole(&'a Payload),
    /// What a document has of a source.
    Part(Part<'a>),
    /// The same, event by event.
    Events(Part<'a>, Vec<&'a RawValue>),
    /// A stretch of the payload, from `start` to the last of `ends`.
    Stretch(Stretch<'a>),
    /// The same, event by event.
    Lines(Stretch<'a>),
}

/// What a payload in which event follows upon event has of one source.
struct Stretch<'a> {
    body: &'a Bytes,
    /// Where it begins in the payload.
    start: usize,
    /// Where each event ends in the payload, its line feed included.
    ends: &'a [usize],
}

impl<'a> Apart<'a> {
    /// Takes `payload` apart into messages as `per` says; there is at least one.
    pub(in crate::send) fn of(payload: &'a Payload, per: Per) -> Result<Self, NotOurs> {
        let (spool, rest) = payload.key.split_once('-').ok_or(NotOurs)?;
        let suffix = rest.strip_prefix(payload.batch.to_string().as_str()).ok_or(NotOurs)?;
        let runs = if per == Per::Batch {
            vec![Run { range: None, bodies: Bodies::Whole(payload) }]
        } else if payload.ends.is_empty() {
            of_document(payload, per)?
        } else {
            of_lines(payload, per)?
        };
        if runs.is_empty() { Err(NotOurs) } else { Ok(Self { payload, spool, suffix, per, runs }) }
    }

    /// The id of the spool that the payload comes from.
    pub(in crate::send) const fn spool(&self) -> &'a str {
        self.spool
    }

    /// What the batch's key ends with. An event that was sent in another format before has other bytes, and is to have another
    /// name where it is named by one.
    #[cfg(feature = "queue")]
    pub(in crate::send) const fn suffix(&self) -> &'a str {
        self.suffix
    }

    /// The media type of the messages. One line of NDJSON, without its line feed, is a JSON text.
    pub(in crate::send) fn content_type(&self) -> &'static str {
        if self.per == Per::Event && self.payload.content_type == Format::Ndjson.content_type() {
            Format::Json.content_type()
        } else {
            self.payload.content_type
        }
    }

    /// The messages, source by source, in payload order.
    pub(in crate::send) fn runs(&self) -> &[Run<'a>] {
        &self.runs
    }
}

/// How many events a range has.
fn count(range: &SourceRange) -> usize {
    usize::try_from(range.last.since(range.first).saturating_add(1)).unwrap_or(usize::MAX)
}

/// The runs of a payload that is one JSON document.
fn of_document(payload: &Payload, per: Per) -> Result<Vec<Run<'_>>, NotOurs> {
    let parts = json::parts(&payload.body)?;
    if parts.len() != payload.sources.len() {
        return Err(NotOurs);
    }
    parts.into_iter().zip(&payload.sources).map(|(part, range)| of_part(part, range, per)).collect()
}

fn of_part<'a>(part: Part<'a>, range: &'a SourceRange, per: Per) -> Result<Run<'a>, NotOurs> {
    if per != Per::Event {
        return Ok(Run { range: Some(range), bodies: Bodies::Part(part) });
    }
    let events = part.events()?;
    if events.len() != count(range) {
        return Err(NotOurs);
    }
    Ok(Run { range: Some(range), bodies: Bodies::Events(part, events) })
}

/// The runs of a payload in which event follows upon event, and that says where each ends.
fn of_lines(payload: &Payload, per: Per) -> Result<Vec<Run<'_>>, NotOurs> {
    let (mut start, mut left) = (0, payload.ends.as_slice());
    let rising = left.iter().try_fold(0, |before, end| (before < *end).then_some(*end));
    if rising != Some(payload.body.len()) {
        return Err(NotOurs);
    }
    let mut runs = Vec::with_capacity(payload.sources.len());
    for range in &payload.sources {
        let (ends, rest) = left.split_at_checked(count(range)).ok_or(NotOurs)?;
        let stretch = Stretch { body: &payload.body, start, ends };
        (start, left) = (*ends.last().ok_or(NotOurs)?, rest);
        let bodies = if per == Per::Event { Bodies::Lines(stretch) } else { Bodies::Stretch(stretch) };
        runs.push(Run { range: Some(range), bodies });
    }
    if left.is_empty() { Ok(runs) } else { Err(NotOurs) }
}

impl<'a> Run<'a> {
    /// The source of the events, where it is one.
    pub(in crate::send) fn source(&self) -> Option<&'a str> {
        self.range.map(|range| range.source.as_str())
    }

    /// How many messages there are.
    pub(in crate::send) fn len(&self) -> usize {
        match &self.bodies {
            Bodies::Whole(_) | Bodies::Part(_) | Bodies::Stretch(_) => 1,
            Bodies::Events(_, events) => events.len(),
            Bodies::Lines(stretch) => stretch.ends.len(),
        }
    }

    /// Which events the message number `at` has: a number, a range of them, or ranges.
    pub(in crate::send) fn seq(&self, at: usize) -> String {
        match (&self.bodies, self.range) {
            (Bodies::Events(..) | Bodies::Lines(_), Some(range)) => range.first.plus(at as u64).to_string(),
            (Bodies::Whole(payload), _) => payload.seq_header(),
            (_, Some(range)) => format!("{}-{}", range.first, range.last),
            (_, None) => String::new(),
        }
    }

    /// The content of the message number `at`.
    pub(in crate::send) fn body(&self, at: usize) -> Bytes {
        match &self.bodies {
            Bodies::Whole(payload) => payload.body.clone(),
            Bodies::Part(part) => part.body().into(),
            Bodies::Events(part, events) => match (events.get(at), self.range) {
                (Some(event), Some(range)) => part.event_body(range.first.plus(at as u64), event).into(),
                _ => Bytes::new(),
            },
            Bodies::Stretch(stretch) => stretch.all(),
            Bodies::Lines(stretch) => stretch.line(at),
        }
    }
}

impl Stretch<'_> {
    fn all(&self) -> Bytes {
        self.between(self.start, self.ends.last().copied().unwrap_or(self.start))
    }

    /// An event without the line feed that ends it.
    fn line(&self, at: usize) -> Bytes {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(at).map_or(self.start, |end| end.saturating_sub(1));
        self.between(before.copied().unwrap_or(self.start), end)
    }

    /// A part of the payload, which it shares.
    fn between(&self, from: usize, to: usize) -> Bytes {
        self.body.get(from..to).map(|part| self.body.slice_ref(part)).unwrap_or_default()
    }
}

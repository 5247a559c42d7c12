//! What a message of a transport has: a whole batch, what it has of a source, or one event.
//!
//! Invariants:
//! - A message is a pure function of the payload: the same payload makes the same messages, with the same bytes.
//! - What is not understood is not sent: a payload that does not have what it says is not taken apart.
//!
//! `apart` makes messages of a payload, in whatever format it is; `json` reads the one format whose events share what stands
//! around them.

#[cfg(any(feature = "kafka", feature = "queue"))]
mod apart;
#[cfg(any(feature = "kafka", feature = "queue"))]
mod json;

#[cfg(feature = "kafka")]
pub(super) use self::apart::Run;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(super) use self::apart::TYPE_HEADER;
#[cfg(any(feature = "kafka", feature = "queue"))]
pub(super) use self::apart::{Apart, KEY_HEADER, NotOurs, SEQ_HEADER, SOURCE_HEADER};
use crate::config::Format;
use crate::config::options::{ConfigError, Located, Problem, Table};

/// How many events travel in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    /// The whole batch.
    Batch,
    /// What it has of a source.
    Source,
    /// One.
    Event,
}

/// The formats of messages. The others are what one kind of server asks of those that write to it by HTTP.
pub(super) const FORMATS: &[Format] =
    &[Format::Json, Format::Ndjson, Format::OtlpJson, Format::OtlpProtobuf, Format::Raw];

impl Per {
    /// What the key `messages` of `table` says, which must go with the format.
    ///
    /// A request of OTLP has its events below what they share, and is one message for those who read it.
    pub(super) fn check(
        table: &Table<'_>,
        messages: &Located<Self>,
        format: Format,
    ) -> Result<Self, ConfigError> {
        let whole = matches!(format, Format::OtlpJson | Format::OtlpProtobuf);
        if whole && messages.value != Self::Batch {
            let problem = Problem::Conflict(format!(
                "must be \"batch\", as format is \"{}\", which is not taken apart; with \"source\" and \"event\" go \
                 \"json\", \"ndjson\" and \"raw\"",
                format.name()
            ));
            return Err(table.error("messages", messages.line, problem));
        }
        Ok(messages.value)
    }
}

//! Wire formats: a batch's events encoded as a request body.
//!
//! Invariant: an encoder is a pure function of the profile, the spool's id and the content. The same content gives the same
//! bytes in every run and in every version that writes the same format, which is what makes a resend equal to the first
//! send.

mod elasticsearch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod json;
mod loki;
mod ndjson;
pub(crate) mod otlp;
mod outgoing;
pub(crate) mod profile;
pub mod raw;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::batch::BatchContent;
use crate::config::Format;

pub use elasticsearch::ElasticsearchEncoder;
pub use json::JsonEncoder;
pub use loki::LokiEncoder;
pub use ndjson::NdjsonEncoder;
pub use otlp::OtlpEncoder;
pub use outgoing::{Outgoing, outgoing};
pub use profile::Profile;

/// Encodes batches as a profile says.
#[derive(Clone, Debug)]
pub struct Encoder {
    format: Format,
    kind: Kind,
    agent_name: Arc<str>,
    key_suffix: String,
    /// Whether where events end is wanted.
    marks: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Json(JsonEncoder),
    Ndjson(NdjsonEncoder),
    Otlp(OtlpEncoder),
    Loki(LokiEncoder),
    Elasticsearch(ElasticsearchEncoder),
    Raw,
}

impl Encoder {
    /// An encoder for what `profile` says.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let kind = match profile.format {
            Format::Json => Kind::Json(JsonEncoder::of(profile)),
            Format::Ndjson => Kind::Ndjson(NdjsonEncoder::new(profile)),
            Format::OtlpJson | Format::OtlpProtobuf => Kind::Otlp(OtlpEncoder::new(profile)),
            Format::Loki => Kind::Loki(LokiEncoder::new(profile)),
            Format::Elasticsearch => Kind::Elasticsearch(ElasticsearchEncoder::new(profile)),
            Format::Raw => Kind::Raw,
        };
        let agent_name = Arc::from(profile.agent_name.as_str());
        Self { format: profile.format, kind, agent_name, key_suffix: profile.key_suffix(), marks: false }
    }

    /// The same encoder, which also says where events end if that is wanted. The bodies are no others.
    #[must_use]
    pub fn marking_ends(self, wanted: bool) -> Self {
        Self { marks: wanted, ..self }
    }

    /// Appends the body of `content`, whose events have their numbers from the spool of this id, to `body`.
    ///
    /// Returns where each event ends in `body`, its line feed included, where [`Encoder::marking_ends`] has asked for it and
    /// events follow upon each other in the format; otherwise nothing, at no cost.
    pub fn encode(&self, spool_id: &str, content: &BatchContent, body: &mut Vec<u8>) -> Vec<usize> {
        let mut ends = Vec::new();
        match &self.kind {
            Kind::Ndjson(ndjson) if self.marks => {
                ndjson.encode(spool_id, content, body, |end| ends.push(end))
            }
            Kind::Raw if self.marks => raw::encode(content, body, |end| ends.push(end)),
            Kind::Ndjson(ndjson) => ndjson.encode(spool_id, content, body, |_| {}),
            Kind::Raw => raw::encode(content, body, |_| {}),
            Kind::Json(json) => json.encode(content, body),
            Kind::Otlp(otlp) => otlp.encode(spool_id, content, body),
            Kind::Loki(loki) => loki.encode(content, body),
            Kind::Elasticsearch(elasticsearch) => elasticsearch.encode(spool_id, content, body),
        }
        ends
    }

    /// The agent's name that bodies have.
    #[must_use]
    pub const fn agent_name(&self) -> &Arc<str> {
        &self.agent_name
    }

    /// The media type of the bodies.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        self.format.content_type()
    }

    /// What the key of a batch ends with.
    #[must_use]
    pub fn key_suffix(&self) -> &str {
        &self.key_suffix
    }

    /// What the format adds to a line of ordinary text, in bytes, with names of usual lengths: for the account of memory.
    #[must_use]
    pub const fn event_overhead(&self) -> u64 {
        let mark = if self.marks { size_of::<usize>() as u64 } else { 0 };
        mark + match self.format {
            Format::Json => 56,
            Format::Ndjson => 240,
            Format::OtlpJson => 400,
            Format::OtlpProtobuf => 240,
            Format::Loki => 40,
            Format::Elasticsearch => 360,
            Format::Raw => 1,
        }
    }
}

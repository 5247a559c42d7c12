//! `format`: what a batch looks like on the wire, as far as the configuration has to know it. One row a format.

use super::types::Compression;

/// The wire formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The JSON document of the README.
    #[default]
    Json,
    /// One JSON object a line, one line an event.
    Ndjson,
    /// OTLP/HTTP logs in JSON.
    OtlpJson,
    /// OTLP/HTTP logs in protobuf.
    OtlpProtobuf,
    /// Loki's push API, version 1, in JSON.
    Loki,
    /// Elasticsearch's bulk API.
    Elasticsearch,
    /// The lines, as they were in their files.
    Raw,
}

/// What the names of labels may be in a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelNames {
    /// Letters, digits, `_`, `.` and `-`.
    Dotted,
    /// Letters, digits and `_`.
    Plain,
    /// The same, but for those that the format has a use of its own for.
    PlainBut(&'static [&'static str]),
    /// There are no labels.
    None,
}

impl Format {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Json,
        Self::Ndjson,
        Self::OtlpJson,
        Self::OtlpProtobuf,
        Self::Loki,
        Self::Elasticsearch,
        Self::Raw,
    ];

    /// What is written in a file.
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Json.name(), Self::Json),
        (Self::Ndjson.name(), Self::Ndjson),
        (Self::OtlpJson.name(), Self::OtlpJson),
        (Self::OtlpProtobuf.name(), Self::OtlpProtobuf),
        (Self::Loki.name(), Self::Loki),
        (Self::Elasticsearch.name(), Self::Elasticsearch),
        (Self::Raw.name(), Self::Raw),
    ];

    /// Its name, as it is written in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::OtlpJson => "otlp-json",
            Self::OtlpProtobuf => "otlp-protobuf",
            Self::Loki => "loki",
            Self::Elasticsearch => "elasticsearch",
            Self::Raw => "raw",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The media type of a body.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::OtlpJson | Self::Loki => "application/json",
            Self::Ndjson | Self::Elasticsearch => "application/x-ndjson",
            Self::OtlpProtobuf => "application/x-protobuf",
            Self::Raw => "text/plain",
        }
    }

    /// Whether its servers take bodies of this coding. Loki and Elasticsearch know gzip, and answer another with 400 as they
    /// answer content that they do not take: every event would become a dead letter.
    pub(super) const fn takes(self, compression: Compression) -> bool {
        match self {
            Self::Loki | Self::Elasticsearch => matches!(compression, Compression::None | Compression::Gzip),
            _ => true,
        }
    }

    /// What the names of labels may be.
    ///
    /// Loki knows letters, digits and `_`, and the agent's own labels must stay its own. In Elasticsearch a dot makes an
    /// object, so that `a` and `a.b` would refuse each other.
    pub(super) const fn label_names(self) -> LabelNames {
        match self {
            Self::Json | Self::Ndjson | Self::OtlpJson | Self::OtlpProtobuf => LabelNames::Dotted,
            Self::Elasticsearch => LabelNames::Plain,
            Self::Loki => LabelNames::PlainBut(&["agent", "source", "path"]),
            Self::Raw => LabelNames::None,
        }
    }
}

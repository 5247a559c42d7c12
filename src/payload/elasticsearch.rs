//! Elasticsearch's bulk API: an action and a document, a line each, for every event.
//!
//! Invariants:
//! - A document's id is the event's identity for ever: spool id, source, number. With `create`, one that is there already is
//!   not written again, whichever batch brings it.
//! - An index is named from the event alone, so the same event always goes to the same index.

use std::io::Write as _;

use super::json::{write_labels, write_string};
use super::outgoing::{Clockface, Outgoing, outgoing};
use super::profile::Profile;
use crate::batch::{BatchContent, SourceRun};

/// The longest name of an index, in bytes.
const INDEX_BYTES_MAX: usize = 255;
/// The most that a filled-in name takes of it.
const FIELD_BYTES_MAX: usize = 64;

/// Encodes batches as bulk requests.
#[derive(Clone, Debug)]
pub struct ElasticsearchEncoder {
    profile: Profile,
}

impl ElasticsearchEncoder {
    /// An encoder for what `profile` says.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.clone() }
    }

    /// Appends the body of `content` to `body`.
    pub fn encode(&self, spool_id: &str, content: &BatchContent, body: &mut Vec<u8>) {
        for run in &content.sources {
            let head = Head::new(&self.profile, spool_id, run);
            let mut clockface = Clockface::default();
            for event in outgoing(run) {
                head.encode(&event, clockface.text(event.time), body);
            }
        }
    }
}

/// What the events of one source in one batch have in common, rendered once.
struct Head {
    /// The index up to the date and after it, where it has one.
    index: (String, Option<String>),
    /// From behind the index up to the number in the id.
    id: Vec<u8>,
    /// From behind the time up to the number.
    middle: Vec<u8>,
    /// `,"labels":{…}`, or nothing.
    labels: Vec<u8>,
}

impl Head {
    fn new(profile: &Profile, spool_id: &str, run: &SourceRun) -> Self {
        let source = run.source.as_str();
        let index = profile
            .index
            .replace("{agent}", &index_field(&profile.agent_name))
            .replace("{source}", &index_field(source));
        let index = match index.split_once("{date}") {
            // A date begins with a digit.
            Some((before, after)) => (index_start(before).to_owned(), Some(after.replace("{date}", ""))),
            None if index_start(&index).is_empty() => ("log-agent".to_owned(), None),
            None => (index_start(&index).to_owned(), None),
        };
        let mut id = b"\",\"_id\":".to_vec();
        write_string(format!("{spool_id}-{source}-").as_bytes(), &mut id);
        // The number goes in front of the closing quote.
        id.pop();
        let mut middle = b"\",\"agent\":{\"name\":".to_vec();
        write_string(profile.agent_name.as_bytes(), &mut middle);
        middle.extend_from_slice(b"},\"event\":{\"dataset\":");
        write_string(source.as_bytes(), &mut middle);
        middle.extend_from_slice(b",\"sequence\":");
        let mut labels = Vec::new();
        write_labels(&profile.labels_of(&run.source), &mut labels);
        Self { index, id, middle, labels }
    }

    fn encode(&self, event: &Outgoing<'_>, time: &str, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"create\":{\"_index\":\"");
        let index_from = body.len();
        body.extend_from_slice(self.index.0.as_bytes());
        if let Some(after) = &self.index.1 {
            // `2024-01-15T…` as `2024.01.15`; years of more or less than four digits have a sign, which an index cannot have.
            let date = time.trim_start_matches(['+', '-']).split('T').next().unwrap_or_default();
            body.extend(date.bytes().map(|byte| if byte == b'-' { b'.' } else { byte }));
            body.extend_from_slice(after.as_bytes());
        }
        body.truncate(index_from + INDEX_BYTES_MAX.min(body.len() - index_from));
        body.extend_from_slice(&self.id);
        // Writing to a Vec cannot fail.
        let _ = write!(body, "{}\"}}}}\n{{\"@timestamp\":\"{time}", event.seq);
        body.extend_from_slice(&self.middle);
        let _ = write!(body, "{}}},\"log\":{{\"file\":{{\"path\":", event.seq);
        write_string(event.path.as_os_str().as_encoded_bytes(), body);
        body.extend_from_slice(b"}}");
        body.extend_from_slice(&self.labels);
        body.extend_from_slice(b",\"message\":");
        write_string(event.line, body);
        body.extend_from_slice(if event.continues { b",\"tags\":[\"continues\"]}\n" } else { b"}\n" });
    }
}

/// A name with the characters that an index may have.
fn index_field(name: &str) -> String {
    let fits =
        |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(fits).take(FIELD_BYTES_MAX).collect()
}

/// `index` without what an index does not begin with.
fn index_start(index: &str) -> &str {
    index.trim_start_matches(['-', '_', '.'])
}

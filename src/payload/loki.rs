//! Loki's push API: `{"streams":[{"stream":{…labels…},"values":[["<nanoseconds>","<line>"],…]},…]}`.
//!
//! Invariants:
//! - A stream is a source and a file; its entries are in the order of their times, and those of one time in the order of
//!   their numbers.
//! - An entry's time is its event's, in whole milliseconds. Loki keeps one of entries that have time and text in common, so
//!   the nanoseconds below hold the event's number: two like lines of one millisecond stay two, and an entry that comes
//!   again is the same.

use std::io::Write as _;
use std::path::Path;

use super::json::write_string;
use super::outgoing::{Outgoing, outgoing};
use super::profile::Profile;
use crate::batch::{BatchContent, SourceRun};

/// Nanoseconds in a millisecond.
const MILLI: i128 = 1_000_000;

/// Encodes batches for Loki.
#[derive(Clone, Debug)]
pub struct LokiEncoder {
    profile: Profile,
}

impl LokiEncoder {
    /// An encoder for what `profile` says.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.clone() }
    }

    /// Appends the body of `content` to `body`.
    pub fn encode(&self, content: &BatchContent, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"streams\":[");
        let mut separator: &[u8] = b"";
        for run in &content.sources {
            for (path, mut entries) in streams(run) {
                entries.sort_by_key(|(nanos, _)| *nanos);
                body.extend_from_slice(separator);
                separator = b",";
                self.encode_labels(run, path, body);
                encode_entries(&entries, body);
            }
        }
        body.extend_from_slice(b"]}");
    }

    fn encode_labels(&self, run: &SourceRun, path: &Path, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"stream\":{\"agent\":");
        write_string(self.profile.agent_name.as_bytes(), body);
        body.extend_from_slice(b",\"source\":");
        write_string(run.source.as_str().as_bytes(), body);
        body.extend_from_slice(b",\"path\":");
        write_string(path.as_os_str().as_encoded_bytes(), body);
        for (name, value) in self.profile.labels_of(&run.source) {
            body.push(b',');
            write_string(name.as_bytes(), body);
            body.push(b':');
            write_string(value.as_bytes(), body);
        }
        body.extend_from_slice(b"},\"values\":");
    }
}

/// A time in nanoseconds, and a line.
type Entry<'a> = (i128, &'a [u8]);

/// The events of `run` by the file that they came from, in order of first appearance, each with its time.
fn streams(run: &SourceRun) -> Vec<(&Path, Vec<Entry<'_>>)> {
    let mut streams: Vec<(&Path, Vec<Entry<'_>>)> = Vec::new();
    for event in outgoing(run) {
        let entry = (nanos(&event), event.line);
        // Neighbours are mostly of one file.
        match streams.iter_mut().rev().find(|(path, _)| *path == event.path) {
            Some((_, entries)) => entries.push(entry),
            None => streams.push((event.path, vec![entry])),
        }
    }
    streams
}

fn nanos(event: &Outgoing<'_>) -> i128 {
    i128::from(event.time.millis()) * MILLI + i128::from(event.seq.0) % MILLI
}

fn encode_entries(entries: &[Entry<'_>], body: &mut Vec<u8>) {
    let mut separator = b'[';
    for (nanos, line) in entries {
        body.push(separator);
        separator = b',';
        // Writing to a Vec cannot fail.
        let _ = write!(body, "[\"{nanos}\",");
        write_string(line, body);
        body.push(b']');
    }
    body.extend_from_slice(b"]}");
}

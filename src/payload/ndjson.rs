//! NDJSON: each event is a JSON object on a line of its own, which says everything about it.

use std::io::Write as _;

use super::json::{write_labels, write_string};
use super::outgoing::{Clockface, Outgoing, outgoing};
use super::profile::Profile;
use crate::batch::{BatchContent, SourceRun};

/// Encodes batches, or single events, as JSON objects.
#[derive(Clone, Debug)]
pub struct NdjsonEncoder {
    profile: Profile,
}

/// What the events of one source in one batch have in common, rendered once.
#[derive(Debug)]
struct EventHead {
    /// From behind the timestamp up to the sequence number.
    middle: Vec<u8>,
    /// `,"labels":{…}`, or nothing.
    labels: Vec<u8>,
    clockface: Clockface,
}

impl NdjsonEncoder {
    /// An encoder for what `profile` says.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.clone() }
    }

    /// Appends the body of `content` to `body`, and tells `mark` where each event ends in it.
    pub fn encode(
        &self,
        spool_id: &str,
        content: &BatchContent,
        body: &mut Vec<u8>,
        mut mark: impl FnMut(usize),
    ) {
        for run in &content.sources {
            let mut head = self.head(spool_id, run);
            for event in outgoing(run) {
                head.encode(&event, body);
                body.push(b'\n');
                mark(body.len());
            }
        }
    }

    /// What the events of `run` have in common.
    fn head(&self, spool_id: &str, run: &SourceRun) -> EventHead {
        let mut middle = b"\",\"agentName\":".to_vec();
        write_string(self.profile.agent_name.as_bytes(), &mut middle);
        middle.extend_from_slice(b",\"sourceName\":");
        write_string(run.source.as_str().as_bytes(), &mut middle);
        middle.extend_from_slice(b",\"spoolId\":");
        write_string(spool_id.as_bytes(), &mut middle);
        middle.extend_from_slice(b",\"seq\":");
        let mut labels = Vec::new();
        write_labels(&self.profile.labels_of(&run.source), &mut labels);
        EventHead { middle, labels, clockface: Clockface::default() }
    }
}

impl EventHead {
    /// Appends one event as a JSON object, without a line feed.
    fn encode(&mut self, event: &Outgoing<'_>, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"timestamp\":\"");
        body.extend_from_slice(self.clockface.text(event.time).as_bytes());
        body.extend_from_slice(&self.middle);
        // Writing to a Vec cannot fail.
        let _ = write!(body, "{}", event.seq);
        body.extend_from_slice(b",\"path\":");
        write_string(event.path.as_os_str().as_encoded_bytes(), body);
        body.extend_from_slice(&self.labels);
        body.extend_from_slice(b",\"data\":");
        write_string(event.line, body);
        body.extend_from_slice(if event.continues { b",\"continues\":true}" } else { b"}" });
    }
}

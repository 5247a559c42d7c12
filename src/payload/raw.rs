//! Raw: the lines as they were in their files, each with a line feed.

use super::outgoing::{Outgoing, outgoing};
use crate::batch::BatchContent;

/// Appends the body of `content` to `body`.
pub fn encode(content: &BatchContent, body: &mut Vec<u8>) {
    for event in content.sources.iter().flat_map(outgoing) {
        encode_event(&event, body);
        body.push(b'\n');
    }
}

/// Appends one event: its bytes, without a line feed.
pub fn encode_event(event: &Outgoing<'_>, body: &mut Vec<u8>) {
    body.extend_from_slice(event.line);
}

//! Raw: the lines as they were in their files, each with a line feed.

use super::outgoing::outgoing;
use crate::batch::BatchContent;

/// Appends the body of `content` to `body`, and tells `mark` where each event ends in it: an event may have line feeds of its
/// own.
pub fn encode(content: &BatchContent, body: &mut Vec<u8>, mut mark: impl FnMut(usize)) {
    for event in content.sources.iter().flat_map(outgoing) {
        body.extend_from_slice(event.line);
        body.push(b'\n');
        mark(body.len());
    }
}

//! What the collector reads as functions of bytes.

use super::request::{Batch, Coding, Identity};

/// The limit of a body.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// A request: coding, key and ranges, each on a line of its own, and the body.
pub(crate) fn request(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(coding), Some(key), Some(seq)) = (text(), text(), text()) else { return };
    let body = parts.next().unwrap_or_default();
    let Ok(coding) = Coding::parse(Some(coding)) else { return };
    let Ok(body) = coding.decode(body, BODY_BYTES_MAX) else { return };
    let Ok(identity) = Identity::parse(key, seq) else { return };
    if let Ok(batch) = Batch::parse(&identity, &body, BODY_BYTES_MAX) {
        check(&batch);
    }
}

/// A text frame of a WebSocket.
#[cfg(feature = "websocket")]
pub(crate) fn websocket_frame(bytes: &[u8]) {
    match super::frame::parse(bytes, BODY_BYTES_MAX) {
        Ok((_, batch)) => check(&batch),
        Err(unreadable) => assert!((400..500).contains(&unreadable.refusal.status())),
    }
}

fn check(batch: &Batch) {
    for source in &batch.sources {
        assert_eq!(source.ends.len() as u64, source.run.count());
        let span = source.span(source.run);
        let lines = batch.lines.get(span).unwrap_or_default();
        assert_eq!(memchr::memchr_iter(b'\n', lines).count(), source.ends.len());
    }
}

/// The memory of what is stored: records, one a line, with the right checksums or as they are.
pub(crate) fn index(bytes: &[u8]) {
    let mut sealed = super::seen::FORMAT_LINE.to_vec();
    for record in bytes.split(|byte| *byte == b'\n') {
        sealed.extend_from_slice(format!("{:08x} ", crc32fast::hash(record)).as_bytes());
        sealed.extend_from_slice(record);
        sealed.push(b'\n');
    }
    for bytes in [bytes, &sealed] {
        let Some(file) = crate::fuzzing::file_of(bytes) else { return };
        if let Ok(loaded) = super::seen::load(std::path::Path::new("out.jsonl.seen"), file) {
            let runs = loaded.seen.sources().flat_map(|(_, _, runs)| runs.iter());
            let events = runs.map(|run| run.count()).fold(0, u64::saturating_add);
            assert_eq!(events, loaded.seen.event_count());
        }
    }
}

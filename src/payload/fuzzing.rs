//! The encoder of batches as a function of the bytes of a frame.

use std::path::Path;
use std::sync::Arc;

use super::json::JsonEncoder;
use crate::batch::{BatchContent, FrameSlice};
use crate::event::{EventIter, Seq, SourceName, Timestamp};

/// The events of a frame: what is sent of them is what is in the frame.
pub(crate) fn payload(bytes: &[u8]) {
    let mut walk = EventIter::new(bytes);
    let events: Vec<_> = walk.by_ref().collect();
    let range = 0..bytes.len() - walk.rest().len();
    let Ok(count) = u32::try_from(events.len()) else { return };
    let path = Arc::from(Path::new("/var/log/app.log"));
    let slice = FrameSlice { payload: Arc::new(bytes.to_vec()), range, detected: Timestamp::default(), path };
    let mut content = BatchContent::default();
    content.push(&SourceName::from("app"), Seq(1), count, slice);
    if let Some(half) = count.checked_sub(1).filter(|half| *half > 0) {
        assert_eq!(content.part(0, half).events() + content.part(half, count).events(), u64::from(count));
    }
    let mut body = Vec::new();
    JsonEncoder::new("agent").encode(&content, &mut body);
    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&body);
    assert!(parsed.is_ok(), "{parsed:?}");
    let parsed = parsed.unwrap_or_default();
    let logs =
        parsed.pointer("/sources/0/logs").and_then(|logs| logs.as_array().cloned()).unwrap_or_default();
    assert_eq!(logs.len(), events.len());
    for (log, event) in logs.iter().zip(&events) {
        let data = log.get("data").and_then(|data| data.as_str());
        assert_eq!(data, Some(&*String::from_utf8_lossy(event.line)));
    }
}

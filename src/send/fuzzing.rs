//! What a server says as functions of bytes.

/// The value of `Retry-After`.
pub(crate) fn retry_after(bytes: &[u8]) {
    let Ok(value) = reqwest::header::HeaderValue::from_bytes(bytes) else { return };
    let headers = [(reqwest::header::RETRY_AFTER, value)].into_iter().collect();
    let _ = super::client::retry_after(&headers);
}

/// An answer over a WebSocket.
#[cfg(feature = "websocket")]
pub(crate) fn websocket_answer(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        super::websocket::fuzz_answer(text);
    }
}

//! The WebSocket side: frames with batches come in, each is answered once it is stored, in any order.
//!
//! Invariants:
//! - `{"ack":…}` is sent after the writer said that every event of the frame is durable, and never otherwise.
//! - A frame that is refused is answered under its key, with the status that HTTP would have. One without a readable
//!   key ends the connection: nothing could be said of it.
//! - What was taken before the collector was told to stop is answered.
//!
//! The protocol is in `docs/strategies.md`. What a connection costs: one frame that has come, beside those in hand,
//! which are bounded over all connections and requests together.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio_tungstenite::tungstenite;

use super::frame::{self, Unreadable};
use super::http::{Collecting, Failure};
use super::store::Stored;
use crate::clock;
use crate::send::WEBSOCKET_PROTOCOL;

/// The most frames of one connection that are stored at once.
const FRAMES_IN_HAND_MAX: usize = 16;
/// A connection on which nothing came for so long, not even a ping, has nobody at its other end.
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);
/// How long an answer may take to be written: it is short, so the other side does not read.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Close codes (RFC 6455, section 7.4.1).
mod code {
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const INVALID: u16 = 1007;
    pub(super) const TOO_BIG: u16 = 1009;
}
/// The longest reason that fits a close frame, in bytes.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Answers a handshake, on any path.
pub(super) async fn upgrade(collecting: Arc<Collecting>, mut parts: Parts) -> Response {
    let limit = usize::try_from(collecting.body_bytes_max()).unwrap_or(usize::MAX);
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade
            .protocols([WEBSOCKET_PROTOCOL])
            .max_message_size(limit)
            .max_frame_size(limit)
            .on_upgrade(move |socket| serve(socket, collecting)),
        Err(rejection) => rejection.into_response(),
    }
}

/// What ends a connection.
enum End {
    /// The other side is gone, or does not read.
    Gone,
    /// It is to be closed.
    Close { code: u16, reason: String },
}

async fn serve(mut socket: WebSocket, collecting: Arc<Collecting>) {
    // Held to the end: the collector waits for it when it stops.
    let mut stopping = collecting.stopping();
    let mut in_hand = FuturesUnordered::new();
    let mut heard = clock::timer_now();
    let mut end = loop {
        tokio::select! {
            biased;
            Some(done) = in_hand.next() => if let Err(end) = answer(&mut socket, done).await {
                break end;
            },
            () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
                break End::Close { code: code::GOING_AWAY, reason: "the collector stops".to_owned() };
            }
            received = socket.recv(), if in_hand.len() < FRAMES_IN_HAND_MAX => {
                heard = clock::timer_now();
                match frame_of(received) {
                    Ok(Some(text)) => in_hand.push(take(&collecting, text)),
                    Ok(None) => {}
                    Err(end) => break end,
                }
            }
            () = tokio::time::sleep_until(heard + IDLE_TIME_MAX), if in_hand.is_empty() => {
                break End::Close { code: code::GOING_AWAY, reason: "nothing came for too long".to_owned() };
            }
        }
    };
    // What was taken is stored also where nobody hears of it any more.
    while let Some(done) = in_hand.next().await {
        if !matches!(end, End::Gone)
            && let Err(worse) = answer(&mut socket, done).await
        {
            end = worse;
        }
    }
    if let End::Close { code, mut reason } = end {
        tracing::debug!(code, reason, "a WebSocket connection is closed");
        while reason.len() > CLOSE_REASON_BYTES_MAX {
            reason.pop();
        }
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = tokio::time::timeout(ANSWER_TIME_MAX, socket.send(Message::Close(Some(frame)))).await;
    }
}

/// The text of a frame with a batch; none for what only shows that the other side is there.
fn frame_of(received: Option<Result<Message, axum::Error>>) -> Result<Option<Utf8Bytes>, End> {
    match received {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => {
            Err(End::Close { code: code::UNSUPPORTED, reason: "a batch is a text frame".to_owned() })
        }
        None | Some(Ok(Message::Close(_))) => Err(End::Gone),
        Some(Err(error)) => {
            let error = error.into_inner();
            match error.downcast_ref::<tungstenite::Error>() {
                Some(tungstenite::Error::Capacity(error)) => {
                    Err(End::Close { code: code::TOO_BIG, reason: error.to_string() })
                }
                Some(tungstenite::Error::Utf8(_)) => {
                    Err(End::Close { code: code::INVALID, reason: "a text frame is not UTF-8".to_owned() })
                }
                _ => Err(End::Gone),
            }
        }
    }
}

/// What became of a frame.
struct Done {
    /// Its batch's key, where it could be read.
    key: Option<String>,
    result: Result<Stored, Failure>,
}

/// Stores the batch of a frame.
async fn take(collecting: &Collecting, text: Utf8Bytes) -> Done {
    collecting.came(text.len());
    let (key, result) = match store(collecting, text).await {
        Ok((key, stored)) => (Some(key), Ok(stored)),
        Err((key, failure)) => (key, Err(failure)),
    };
    collecting.count(&result);
    Done { key, result }
}

async fn store(
    collecting: &Collecting,
    text: Utf8Bytes,
) -> Result<(String, Stored), (Option<String>, Failure)> {
    // Held to the end, as for requests.
    let _permit = collecting.permit().await.map_err(|failure| (None, failure))?;
    let limit = collecting.body_bytes_max();
    let parsed = tokio::task::spawn_blocking(move || frame::parse(text.as_bytes(), limit)).await;
    let parsed = parsed.map_err(|_| (None, Failure::GivenUp))?;
    let (key, batch) = parsed.map_err(|Unreadable { key, refusal }| (key, refusal.into()))?;
    match collecting.store(batch).await {
        Ok(stored) => Ok((key, stored)),
        Err(failure) => Err((Some(key), failure)),
    }
}

/// Says what became of a frame.
async fn answer(socket: &mut WebSocket, done: Done) -> Result<(), End> {
    let text = match done {
        Done { key: Some(key), result: Ok(Stored { stored, duplicates }) } => {
            json!({"ack": key, "stored": stored, "duplicates": duplicates})
        }
        Done { key: Some(key), result: Err(failure) } => {
            json!({"nack": key, "status": failure.status().as_u16(), "reason": failure.to_string()})
        }
        Done { key: None, result } => {
            let reason = result.err().map(|failure| failure.to_string()).unwrap_or_default();
            return Err(End::Close { code: code::INVALID, reason });
        }
    };
    let sent = socket.send(Message::Text(text.to_string().into()));
    match tokio::time::timeout(ANSWER_TIME_MAX, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

//! The HTTP side: reads a request within its limits, has it stored, and says what became of it.
//!
//! Invariant: 2xx is answered after the writer said that every event of the request is durable, and never otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::request::{Batch, Coding, Identity, Refusal};
use super::store::Stored;
use super::writer::{StoreStats, Writer, WriterGone};

/// The most requests whose bodies are in memory at once; further ones wait with their bodies unread.
const REQUESTS_IN_HAND_MAX: usize = 16;
/// How long a request may take to arrive once its headers are there.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a body that is too large is still read before it is refused, as a multiple of the limit. A connection
/// that is closed with bytes unread is reset, and its sender may never see the answer.
const DRAIN_FACTOR: u64 = 4;

/// What requests share.
#[derive(Debug)]
pub struct Collecting {
    writer: Writer,
    body_bytes_max: u64,
    in_hand: Semaphore,
    counts: Counts,
    #[cfg(feature = "websocket")]
    stopping: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    duplicates: AtomicU64,
    bytes: AtomicU64,
}

/// What `GET /stats` says. What is stored comes from the index and outlives a restart; the other counts begin at zero
/// with each start.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Batches that came, by whatever answer they got.
    pub requests: u64,
    /// Of these, refused as wrong (4xx).
    pub refused: u64,
    /// Of these, not stored for a reason of the collector's (5xx).
    pub failed: u64,
    /// Events that came and were stored already.
    pub duplicates_suppressed: u64,
    /// Bytes of request bodies, as they came.
    pub bytes_received: u64,
    /// What is stored.
    #[serde(flatten)]
    pub store: StoreStats,
}

impl Collecting {
    /// Takes requests whose bodies have at most `body_bytes_max` bytes and stores them through `writer`.
    #[must_use]
    pub fn new(writer: Writer, body_bytes_max: u64) -> Self {
        let in_hand = Semaphore::new(REQUESTS_IN_HAND_MAX);
        Self {
            writer,
            body_bytes_max,
            in_hand,
            counts: Counts::default(),
            #[cfg(feature = "websocket")]
            stopping: tokio::sync::watch::Sender::new(false),
        }
    }

    /// The most bytes in a request's body, or in a frame.
    pub(super) const fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }

    /// Room for one batch, to be held until it is stored or refused: it bounds what is read, decoded, rendered and waiting
    /// for its commit.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.in_hand.acquire().await.map_err(|_| Failure::GivenUp)
    }

    /// Stores a batch. When this returns `Ok`, every event of it is durable.
    pub(super) async fn store(&self, batch: Batch) -> Result<Stored, Failure> {
        Ok(self.writer.store(batch).await??)
    }

    /// Counts a batch as having come, with so many bytes.
    pub(super) fn came(&self, bytes: usize) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what became of a batch.
    pub(super) fn count(&self, result: &Result<Stored, Failure>) {
        match result {
            Ok(stored) => _ = self.counts.duplicates.fetch_add(stored.duplicates, Ordering::Relaxed),
            Err(failure) => {
                let is_ours = failure.status().is_server_error();
                let counter = if is_ours { &self.counts.failed } else { &self.counts.refused };
                counter.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(status = failure.status().as_u16(), error = %failure, "a batch was not stored");
            }
        }
    }

    /// Tells a connection when to end. The collector waits until nobody has one of these any more.
    #[cfg(feature = "websocket")]
    pub(super) fn stopping(&self) -> tokio::sync::watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Tells connections that outlive their request to end.
    pub(super) fn stop(&self) {
        #[cfg(feature = "websocket")]
        self.stopping.send_replace(true);
    }

    /// Waits until they have ended.
    pub(super) async fn stopped(&self) {
        #[cfg(feature = "websocket")]
        self.stopping.closed().await;
    }

    /// The counts.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn stats(&self) -> Result<Stats, WriterGone> {
        let store = self.writer.describe().await?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            requests: count(&self.counts.requests),
            refused: count(&self.counts.refused),
            failed: count(&self.counts.failed),
            duplicates_suppressed: count(&self.counts.duplicates),
            bytes_received: count(&self.counts.bytes),
            store,
        })
    }
}

/// `POST` on any path takes a batch, and the handshake of a WebSocket on any path a connection with frames of them;
/// `GET /stats` says what there is.
pub fn router(collecting: Arc<Collecting>) -> Router {
    Router::new().route("/stats", get(stats).fallback(receive)).fallback(receive).with_state(collecting)
}

async fn stats(State(collecting): State<Arc<Collecting>>) -> Response {
    match collecting.stats().await.map(|stats| serde_json::to_vec(&stats)) {
        Ok(Ok(mut json)) => {
            json.push(b'\n');
            ([(header::CONTENT_TYPE, "application/json")], json).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Why a request gets another answer than 2xx.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("only POST takes batches, and GET /stats says what is stored")]
    Method,
    #[error("the body did not arrive")]
    BodyCut,
    #[error("the body did not arrive within {} s", BODY_TIMEOUT.as_secs())]
    BodySlow,
    #[error(transparent)]
    NotStored(#[from] super::store::CommitError),
    #[error(transparent)]
    WriterGone(#[from] WriterGone),
    #[error("reading the request was given up")]
    GivenUp,
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => {
                StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyCut => StatusCode::BAD_REQUEST,
            Self::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::WriterGone(_) | Self::GivenUp => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        if matches!(self, Self::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

async fn receive(State(collecting): State<Arc<Collecting>>, request: Request) -> Response {
    #[cfg(feature = "websocket")]
    if request.method() == Method::GET && request.headers().contains_key(header::UPGRADE) {
        return super::websocket::upgrade(collecting, request.into_parts().0).await;
    }
    if request.method() != Method::POST {
        return Failure::Method.into_response();
    }
    collecting.came(0);
    let result = take(&collecting, request).await;
    collecting.count(&result);
    match result {
        Ok(stored) => {
            let body = format!("{{\"stored\":{},\"duplicates\":{}}}\n", stored.stored, stored.duplicates);
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn take(collecting: &Collecting, request: Request) -> Result<Stored, Failure> {
    let _permit = collecting.permit().await?;
    let limit = collecting.body_bytes_max();
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_TIMEOUT, read_body(body, limit)).await;
    let body = body.map_err(|_| Failure::BodySlow)??;
    collecting.counts.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    let identity = identity(&parts.headers)?;
    let coding = Coding::parse(joined(&parts.headers, "content-encoding").as_deref())?;
    let batch = tokio::task::spawn_blocking(move || {
        let decoded = coding.decode(&body, limit)?;
        Batch::parse(&identity, &decoded, limit)
    });
    let batch = batch.await.map_err(|_| Failure::GivenUp)??;
    collecting.store(batch).await
}

/// The whole body, where it is within `limit` bytes.
async fn read_body(body: Body, limit: u64) -> Result<Bytes, Failure> {
    let mut stream = body.into_data_stream();
    let mut whole: Vec<u8> = Vec::new();
    let mut first: Option<Bytes> = None;
    let mut len: u64 = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Failure::BodyCut)?;
        len = len.saturating_add(chunk.len() as u64);
        if len > limit.saturating_mul(DRAIN_FACTOR) {
            break;
        }
        if len > limit {
            whole = Vec::new();
            first = None;
            continue;
        }
        // A body that comes in one piece is not copied.
        if whole.is_empty() && first.is_none() {
            first = Some(chunk);
            continue;
        }
        if let Some(first) = first.take() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&chunk);
    }
    if len > limit {
        return Err(Refusal::TooLarge { limit, decoded: false }.into());
    }
    Ok(first.unwrap_or_else(|| Bytes::from(whole)))
}

fn identity(headers: &HeaderMap) -> Result<Identity, Refusal> {
    let value = |name: &'static str| joined(headers, name).ok_or(Refusal::HeaderMissing(name));
    Identity::parse(&value(Identity::KEY_HEADER)?, &value(Identity::SEQ_HEADER)?)
}

/// A header's value; several of one name are one list, as proxies may cut it.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?.into_owned();
    Some(values.fold(first, |joined, value| joined + "," + &value))
}

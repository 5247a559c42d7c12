//! HTTP and HTTPS: one POST a batch.
//!
//! Invariants:
//! - The server has a batch when a status line of 2xx and its headers arrived, and only then. What happens to the
//!   connection afterwards does not matter.
//! - One call makes one request, by the shared client, whose rules hold: see `client`.
//! - No text that leaves this module holds a secret.

mod coding;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::client::{self, RESPONSE_KEPT_BYTES, Redactor, Verdict, fault};
use super::{Outcome, Registered, SendError, Strategy};
use crate::batch::Payload;
use crate::config::{Compression, Global, Schemes, Takes, Transport};

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "HTTP",
        about: "one request each",
        schemes: Schemes { plain: "http", secure: "https" },
        takes: Takes { compression: true, headers: true, bearer: true },
        feature: None,
        options: None,
        sends,
    },
    new: |global| Ok(Arc::new(HttpStrategy::new(global)?)),
};

/// Carries one range of sequence numbers for each source of the body.
const SEQ_HEADER: HeaderName = HeaderName::from_static("log-agent-seq");
/// Names the batch; equal keys mean equal bodies.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The most of a server's answer that is read so that the connection can be used again, in bytes. A longer answer
/// costs its connection.
const RESPONSE_READ_BYTES: usize = 64 * 1024;
/// The longest wait for the rest of an answer whose content is of no interest.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// How `check` says that batches travel.
fn sends(global: &Global) -> String {
    let compression = match global.compression {
        Compression::None => "uncompressed",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    format!("up to {} requests at a time, {:?} each, {compression}", global.max_send_task, global.timeout)
}

/// Sends batches as HTTP requests.
#[derive(Debug)]
pub struct HttpStrategy {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
    compression: Compression,
    redactor: Redactor,
    timeout: Duration,
}

impl HttpStrategy {
    /// A strategy that sends to `end_point` as `global` says. Opens no connection.
    ///
    /// # Errors
    /// [`SendError`] where a configured certificate, key or header cannot be used.
    pub fn new(global: &Global) -> Result<Self, SendError> {
        let url = global.end_point.0.clone();
        let idle_max = global.max_send_task.saturating_mul(2);
        let client = client::client(global, &url, idle_max)?;
        let authorization = client::authorization(&client, &url, global.auth.as_ref())?;
        let redactor = Redactor::new(global, authorization.as_ref());
        let (compression, timeout) = (global.compression, global.timeout);
        Ok(Self { client, url, authorization, compression, redactor, timeout })
    }

    async fn send_once(&self, payload: &Payload) -> Outcome {
        let request = match self.request(payload).await {
            Ok(request) => request,
            Err(reason) => return Outcome::EndpointFault { reason },
        };
        match request.send().await {
            Ok(response) => self.outcome_of(response).await,
            Err(error) => fault::outcome_of(error, self.timeout, &self.redactor),
        }
    }

    async fn request(&self, payload: &Payload) -> Result<reqwest::RequestBuilder, String> {
        let seq = HeaderValue::try_from(payload.seq_header());
        let key = HeaderValue::try_from(payload.key_header());
        let (Ok(seq), Ok(key)) = (seq, key) else {
            return Err("the batch's key cannot be written as a header".to_owned());
        };
        let (body, content_encoding) = coding::encode(self.compression, payload.body.clone()).await;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(payload.content_type))
            .header(SEQ_HEADER, seq)
            .header(KEY_HEADER, key)
            .body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(coding) = content_encoding {
            request = request.header(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(request)
    }

    async fn outcome_of(&self, mut response: Response) -> Outcome {
        let status = response.status();
        if Verdict::of(status.as_u16()) == Verdict::Refused {
            let kept = read_start(&mut response).await;
            let response = self.redactor.clean(String::from_utf8_lossy(&kept).into_owned());
            return Outcome::Rejected { status: status.as_u16(), response };
        }
        let outcome = self.outcome_without_body(status, response.headers());
        // The outcome stands; this only saves the connection, and no server can hold us here for long.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, read_start(&mut response)).await;
        outcome
    }

    fn outcome_without_body(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        match Verdict::of(status.as_u16()) {
            Verdict::Taken => Outcome::Acknowledged,
            Verdict::Later => Outcome::Retry {
                after: client::retry_after(headers),
                reason: format!("the server answered {status}"),
            },
            _ if status.is_redirection() => Outcome::EndpointFault {
                reason: client::redirect_reason(status, headers, &self.url, &self.redactor),
            },
            _ => Outcome::EndpointFault { reason: fault::status_reason(status, self.compression) },
        }
    }
}

impl Strategy for HttpStrategy {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_once(payload))
    }
}

/// Reads an answer up to [`RESPONSE_READ_BYTES`] and returns its first [`RESPONSE_KEPT_BYTES`]. An answer that breaks
/// off is as long as it is.
async fn read_start(response: &mut Response) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut read = 0_usize;
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = RESPONSE_KEPT_BYTES.saturating_sub(kept.len()).min(chunk.len());
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
        read = read.saturating_add(chunk.len());
        if read > RESPONSE_READ_BYTES {
            break;
        }
    }
    kept
}

//! HTTP and HTTPS: one POST a batch.
//!
//! Invariants:
//! - The server has a batch when a status line of 2xx and its headers arrived, and only then. What happens to the
//!   connection afterwards does not matter.
//! - One call makes one request: no redirect is followed, nothing is retried here, no proxy is taken from the
//!   environment. What the configuration says is all there is.
//! - The server's certificate is always verified, against `ca_file` alone where it is given.
//! - No text that leaves this module holds a secret: neither credentials, nor configured header values, nor the query
//!   of a URL.

mod coding;
mod fault;
mod redact;
mod retry_after;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Response, StatusCode, redirect, retry};
use url::Url;

use self::redact::Redactor;
use super::{Outcome, SendError, Strategy};
use crate::batch::Payload;
use crate::clock;
use crate::config::{Auth, Compression, Global, Tls};

/// How the agent names itself.
const USER_AGENT: &str = concat!("log-agent/", env!("CARGO_PKG_VERSION"));
/// Carries one range of sequence numbers for each source of the body.
const SEQ_HEADER: HeaderName = HeaderName::from_static("log-agent-seq");
/// Names the batch; equal keys mean equal bodies.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The most of a server's answer that is kept, in bytes.
const RESPONSE_KEPT_BYTES: usize = 4 * 1024;
/// The most of a server's answer that is read so that the connection can be used again, in bytes. A longer answer
/// costs its connection.
const RESPONSE_READ_BYTES: usize = 64 * 1024;
/// The longest wait for the rest of an answer whose content is of no interest.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

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
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(configured_headers(global)?)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(idle_max)
            .timeout(global.timeout);
        let client = with_tls(builder, &global.tls, &url)?.build().map_err(SendError::Client)?;
        let authorization =
            global.auth.as_ref().map(|auth| authorization(&client, &url, auth)).transpose()?;
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
        if matches!(status.as_u16(), 400 | 413 | 422) {
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
        match status.as_u16() {
            200..=299 => Outcome::Acknowledged,
            408 | 425 | 429 | 500..=599 => Outcome::Retry {
                after: headers
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| retry_after::parse(value, clock::wall())),
                reason: format!("the server answered {status}"),
            },
            300..=399 => Outcome::EndpointFault {
                reason: fault::redirect_reason(status, headers.get(LOCATION), &self.url, &self.redactor),
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

/// The configured headers. They are treated as secrets, which they often are.
fn configured_headers(global: &Global) -> Result<HeaderMap, SendError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &global.headers {
        let refused = || SendError::Header { key: "[global.headers]", name: name.clone() };
        let header = HeaderName::try_from(name.as_str()).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

/// The value of the `Authorization` header.
fn authorization(client: &Client, url: &Url, auth: &Auth) -> Result<HeaderValue, SendError> {
    let request = client.post(url.clone());
    let request = match auth {
        Auth::Bearer(token) => request.bearer_auth(token.reveal()),
        Auth::Basic { user, password } => request.basic_auth(user, Some(password.reveal())),
    };
    let value = request.build().ok().and_then(|request| request.headers().get(AUTHORIZATION).cloned());
    value.ok_or_else(|| SendError::Header { key: "[global.auth]", name: AUTHORIZATION.to_string() })
}

/// Sets what the agent trusts and who it is.
fn with_tls(builder: ClientBuilder, tls: &Tls, url: &Url) -> Result<ClientBuilder, SendError> {
    // One provider for the whole process. That another one is there already is no error: it then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if url.scheme() != "https" {
        // Nothing is trusted because nothing is asked: a machine without certificates can send to a plain endpoint.
        return Ok(builder.tls_certs_only([]));
    }
    let mut builder = builder.https_only(true);
    if let Some(pem) = &tls.ca_pem {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|error| SendError::Ca(Some(error)))?;
        if certificates.is_empty() {
            return Err(SendError::Ca(None));
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(identity) = &tls.client_identity_pem {
        let mut pem = Vec::with_capacity(identity.cert_pem.len() + identity.key_pem.len() + 1);
        pem.extend_from_slice(&identity.cert_pem);
        pem.push(b'\n');
        pem.extend_from_slice(&identity.key_pem);
        builder = builder.identity(Identity::from_pem(&pem).map_err(SendError::ClientIdentity)?);
    }
    Ok(builder)
}

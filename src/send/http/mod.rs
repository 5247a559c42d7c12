//! HTTP and HTTPS: one POST a batch.
//!
//! Invariants:
//! - The server has a batch when a status line of 2xx and its headers arrived, and only then. What happens to the
//!   connection afterwards does not matter; but where the format has its servers say in the body what became of the
//!   events, the server has it when the whole body says that all were taken.
//! - One call makes one request, by the shared client, whose rules hold: see `client`.
//! - A batch has the same bytes and the same key whichever end point it goes to.
//! - No text that leaves this module holds a secret.

mod answer;
mod choice;
mod coding;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};

use self::choice::{Choice, End};
use super::client::{self, RESPONSE_KEPT_BYTES, Redactor, Verdict, Versions, fault};
use super::{Outcome, Probe, Registered, SendError, Strategy};
use crate::batch::Payload;
use crate::clock;
use crate::config::{Compression, EndPoint, Format, Global, Schemes, Takes, Transport};
use crate::event::SourceName;

/// The strategy, as `send_type` chooses it.
pub(super) const STRATEGY: Registered = Registered {
    transport: &Transport {
        name: "HTTP",
        about: "one request each",
        schemes: Schemes { plain: "http", secure: "https" },
        takes: Takes {
            end_points: true,
            formats: &Format::ALL,
            compression: true,
            headers: true,
            bearer: true,
        },
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
/// The most failures in a row before the next end point is gone over to: as many as open the circuit breaker.
const FAILURES_MAX: u32 = 5;

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
    /// At least one; the first is the one that is preferred.
    targets: Vec<Target>,
    choice: Mutex<Choice>,
    compression: Compression,
    format: Format,
    redactor: Redactor,
    timeout: Duration,
}

/// One end point, with a client that trusts what its scheme asks for.
#[derive(Debug)]
struct Target {
    end_point: EndPoint,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl Target {
    fn new(global: &Global, end_point: &EndPoint) -> Result<Self, SendError> {
        let idle_max = global.max_send_task.saturating_mul(2);
        let client = client::client(global, &end_point.0, idle_max, Versions::Any)?;
        let authorization = client::authorization(&client, &end_point.0, global.auth.as_ref())?;
        Ok(Self { end_point: end_point.clone(), client, authorization })
    }

    fn request(&self, method: Method) -> RequestBuilder {
        let request = self.client.request(method, self.end_point.0.clone());
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }
}

impl HttpStrategy {
    /// A strategy that sends to `end_point` as `global` says. Opens no connection.
    ///
    /// # Errors
    /// [`SendError`] where a configured certificate, key or header cannot be used.
    pub fn new(global: &Global) -> Result<Self, SendError> {
        let targets: Vec<_> =
            global.end_points().map(|end_point| Target::new(global, end_point)).collect::<Result<_, _>>()?;
        let authorization = targets.first().and_then(|target| target.authorization.as_ref());
        let redactor = Redactor::new(global, authorization);
        let failures_max = global.retry_count.saturating_add(1).min(FAILURES_MAX);
        let choice = Mutex::new(Choice::new(targets.len(), failures_max));
        let (compression, format, timeout) = (global.compression, global.format, global.timeout);
        Ok(Self { targets, choice, compression, format, redactor, timeout })
    }

    async fn send_once(&self, payload: &Payload) -> Outcome {
        let index = self.choice().pick(clock::timer_now());
        // An index that is none of the targets' cannot be picked.
        let Some(target) = self.targets.get(index) else {
            return Outcome::EndpointFault { reason: "there is no end point".to_owned() };
        };
        let outcome = self.send_to(target, payload).await;
        let end = match &outcome {
            Outcome::Acknowledged | Outcome::Rejected { .. } => End::Well,
            Outcome::Retry { after: Some(_), .. } => End::Later,
            Outcome::Retry { after: None, .. } | Outcome::EndpointFault { .. } => End::Badly,
        };
        self.ended(index, end);
        self.naming(target, outcome)
    }

    /// Notes how a request ended, and says it where that makes another end point the current one.
    fn ended(&self, index: usize, end: End) {
        let current = {
            let mut choice = self.choice();
            choice.ended(index, end, clock::timer_now()).then(|| choice.current())
        };
        if let Some(current) = current.and_then(|current| self.targets.get(current)) {
            tracing::warn!(end_point = %current.end_point, "batches go to another end point from now on");
        }
    }

    /// `outcome`, whose reason names the end point where there are several.
    fn naming(&self, target: &Target, mut outcome: Outcome) -> Outcome {
        if self.targets.len() > 1
            && let Outcome::Retry { reason, .. } | Outcome::EndpointFault { reason } = &mut outcome
        {
            *reason = format!("{}: {reason}", target.end_point);
        }
        outcome
    }

    fn choice(&self) -> MutexGuard<'_, Choice> {
        // No code panics while it holds the lock, and the choice is whole at every moment.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_to(&self, target: &Target, payload: &Payload) -> Outcome {
        let request = match self.request(target, payload).await {
            Ok(request) => request,
            Err(reason) => return Outcome::EndpointFault { reason },
        };
        match request.send().await {
            Ok(response) => self.outcome_of(target, payload, response).await,
            Err(error) => fault::outcome_of(error, self.timeout, &self.redactor),
        }
    }

    async fn request(&self, target: &Target, payload: &Payload) -> Result<RequestBuilder, String> {
        let seq = HeaderValue::try_from(payload.seq_header());
        let key = HeaderValue::try_from(payload.key_header());
        let (Ok(seq), Ok(key)) = (seq, key) else {
            return Err("the batch's key cannot be written as a header".to_owned());
        };
        let (body, content_encoding) = coding::encode(self.compression, payload.body.clone()).await;
        let mut request = target
            .request(Method::POST)
            .header(CONTENT_TYPE, HeaderValue::from_static(payload.content_type))
            .header(SEQ_HEADER, seq)
            .header(KEY_HEADER, key)
            .body(body);
        if let Some(coding) = content_encoding {
            request = request.header(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(request)
    }

    async fn outcome_of(&self, target: &Target, payload: &Payload, mut response: Response) -> Outcome {
        let status = response.status();
        match Verdict::of(status.as_u16()) {
            Verdict::Refused => {
                let kept = read_start(&mut response).await;
                let response = self.redactor.clean(String::from_utf8_lossy(&kept).into_owned());
                return Outcome::Rejected { status: status.as_u16(), response };
            }
            Verdict::Taken => {
                let events = payload.batch.events();
                if let Some(bytes_max) = answer::bytes_max(self.format, events) {
                    return self.outcome_by_answer(events, bytes_max, response).await;
                }
            }
            Verdict::Later | Verdict::Fault => {}
        }
        let outcome = self.outcome_without_body(target, status, response.headers());
        // The outcome stands; this only saves the connection, and no server can hold us here for long.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, read_start(&mut response)).await;
        outcome
    }

    /// The outcome where a 2xx says in its body what became of the events. One that cannot be read to its end says nothing.
    async fn outcome_by_answer(&self, events: u64, bytes_max: usize, mut response: Response) -> Outcome {
        let status = response.status();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) <= bytes_max => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    let reason = format!("the server's answer is longer than {bytes_max} bytes");
                    return Outcome::EndpointFault { reason };
                }
                Ok(None) => break,
                Err(error) => return fault::outcome_of(error, self.timeout, &self.redactor),
            }
        }
        self.cleaned(answer::outcome(self.format, status.as_u16(), events, &body))
    }

    /// `outcome` without secrets, and with no more of the answer than is kept.
    fn cleaned(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Acknowledged => Outcome::Acknowledged,
            Outcome::Retry { after, reason } => Outcome::Retry { after, reason: self.redactor.clean(reason) },
            Outcome::EndpointFault { reason } => {
                Outcome::EndpointFault { reason: self.redactor.clean(reason) }
            }
            Outcome::Rejected { status, response } => {
                let response = self.redactor.clean(response);
                let kept = response.as_bytes().get(..RESPONSE_KEPT_BYTES).unwrap_or(response.as_bytes());
                Outcome::Rejected { status, response: String::from_utf8_lossy(kept).into_owned() }
            }
        }
    }

    fn outcome_without_body(&self, target: &Target, status: StatusCode, headers: &HeaderMap) -> Outcome {
        match Verdict::of(status.as_u16()) {
            Verdict::Taken => Outcome::Acknowledged,
            Verdict::Later => Outcome::Retry {
                after: client::retry_after(headers),
                reason: format!("the server answered {status}"),
            },
            _ if status.is_redirection() => Outcome::EndpointFault {
                reason: client::redirect_reason(status, headers, &target.end_point.0, &self.redactor),
            },
            _ => {
                Outcome::EndpointFault { reason: fault::status_reason(status, self.compression, self.format) }
            }
        }
    }

    /// Asks one end point what it allows, which stores nothing whatever the server.
    async fn probe_one(&self, target: &Target) -> Result<String, String> {
        let response = match target.request(Method::OPTIONS).send().await {
            Ok(response) => response,
            Err(error) => {
                return Err(fault::outcome_of(error, self.timeout, &self.redactor).into_reason());
            }
        };
        let (status, version) = (response.status(), response.version());
        let reached = format!("{version:?}, answered {status} to OPTIONS");
        match status.as_u16() {
            401 | 403 | 407 => Err(fault::status_reason(status, self.compression, self.format)),
            // Not implemented is said of the method.
            500 | 502..=599 => Err(format!("the server answered {status}")),
            300..=399 => {
                Err(client::redirect_reason(status, response.headers(), &target.end_point.0, &self.redactor))
            }
            404 | 410 => Ok(format!("{reached}: if that is not said of the method, the path is wrong")),
            _ => Ok(reached),
        }
    }
}

impl Strategy for HttpStrategy {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_once(payload))
    }

    fn probe<'a>(&'a self, _: &'a [SourceName]) -> BoxFuture<'a, Vec<Probe>> {
        Box::pin(async {
            let mut probes = Vec::with_capacity(self.targets.len());
            for target in &self.targets {
                let found = self.probe_one(target).await;
                probes.push(Probe { end_point: target.end_point.to_string(), found });
            }
            probes
        })
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

//! The handshake (RFC 6455, section 4): a request of the shared client whose connection is then the WebSocket's.
//!
//! Invariants:
//! - Nothing of a batch is sent to a server that did not accept: 101, the right `Sec-WebSocket-Accept`, no extension,
//!   and no other subprotocol. One that names none is taken to speak the one that was offered.
//! - No answer to a handshake is about a batch: what HTTP would call a refusal for good is the endpoint's fault here.

use reqwest::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Client, Response, StatusCode, Upgraded};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use super::answer::ANSWER_BYTES_MAX;
use super::strategy::PROTOCOL;
use crate::config::{Compression, Format, Global};
use crate::send::client::{self, Redactor, Verdict, fault};
use crate::send::{Outcome, SendError};

/// What is read at a time, in bytes: answers are short.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// A connection that frames travel on.
pub(super) type Socket = WebSocketStream<Upgraded>;

/// What is needed to make connections.
#[derive(Debug)]
pub(super) struct Handshake {
    client: Client,
    /// The endpoint, with the scheme of the request.
    url: Url,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

impl Handshake {
    /// Handshakes with `end_point` as `global` says. Opens no connection.
    ///
    /// # Errors
    /// [`SendError`] where a configured certificate, key or header cannot be used.
    pub(super) fn new(global: &Global) -> Result<Self, SendError> {
        let mut url = global.end_point.0.clone();
        let scheme = if global.end_point.is_secure(global.send_type) { "https" } else { "http" };
        // Fails only between schemes of different kinds, which these are not.
        let _ = url.set_scheme(scheme);
        let client = client::client(global, &url, 0, client::Versions::Http1)?;
        let authorization = client::authorization(&client, &url, global.auth.as_ref())?;
        Ok(Self { client, url, authorization, timeout: global.timeout })
    }

    /// A redactor for the secrets of `global`.
    pub(super) fn redactor(&self, global: &Global) -> Redactor {
        Redactor::new(global, self.authorization.as_ref())
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// The outcome for a batch that waits for it: a retry, or an endpoint fault.
    pub(super) async fn connect(&self, redactor: &Redactor) -> Result<Socket, Outcome> {
        let key = generate_key();
        let failed = |error| fault::outcome_of(error, self.timeout, redactor);
        let response = self.request(&key).send().await.map_err(failed)?;
        self.check(&response, &key, redactor)?;
        let upgraded = response.upgrade().await.map_err(failed)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(ANSWER_BYTES_MAX))
            .max_frame_size(Some(ANSWER_BYTES_MAX));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    fn request(&self, key: &str) -> reqwest::RequestBuilder {
        let request = self
            .client
            .get(self.url.clone())
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL))
            .header(SEC_WEBSOCKET_KEY, key);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    /// Whether the server accepts.
    fn check(&self, response: &Response, key: &str, redactor: &Redactor) -> Result<(), Outcome> {
        let (status, headers) = (response.status(), response.headers());
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(status, headers, redactor));
        }
        let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let is_accepted = value(UPGRADE).is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
            && value(SEC_WEBSOCKET_ACCEPT) == Some(&derive_accept_key(key.as_bytes()));
        let problem = if !is_accepted {
            "its answer to the handshake is not that of a WebSocket"
        } else if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            "it chose an extension that was not offered"
        } else if headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
            && value(SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL)
        {
            "it speaks another subprotocol than the log-agent.v1 that was offered"
        } else {
            return Ok(());
        };
        Err(Outcome::EndpointFault {
            reason: format!("the server cannot be used: {problem}: check end_point"),
        })
    }

    /// What a status other than 101 means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, redactor: &Redactor) -> Outcome {
        let reason = match Verdict::of(status.as_u16()) {
            Verdict::Later => {
                return Outcome::Retry {
                    after: client::retry_after(headers),
                    reason: format!("the server answered {status} to the handshake"),
                };
            }
            _ if status.is_redirection() => client::redirect_reason(status, headers, &self.url, redactor),
            Verdict::Taken | Verdict::Refused => no_websocket(status),
            Verdict::Fault if matches!(status.as_u16(), 405 | 426 | 501) => no_websocket(status),
            Verdict::Fault => fault::status_reason(status, Compression::None, Format::Json),
        };
        Outcome::EndpointFault { reason }
    }
}

fn no_websocket(status: StatusCode) -> String {
    format!("the server answered {status} to the handshake of a WebSocket: check end_point and send_type")
}

//! What transports that begin with an HTTP request share: the client, whom it trusts and who it is, what a status means,
//! and what is said of a failure.
//!
//! Invariants:
//! - One call makes one request: no redirect is followed, nothing is retried here. A proxy is the one that the
//!   configuration says; the environment's where it says nothing.
//! - The server's certificate is always verified, against `ca_file` alone where it is given.
//! - A text that went through the [`Redactor`] holds no secret: neither credentials, nor configured header values, nor
//!   the query of a URL.

pub(super) mod fault;
mod proxy;
mod redact;
mod retry_after;
mod status;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode, redirect, retry};
use url::Url;

pub(super) use self::redact::Redactor;
pub(super) use self::status::Verdict;
use super::SendError;
use crate::clock;
use crate::config::{Auth, Global, Tls};

/// How the agent names itself.
const USER_AGENT: &str = concat!("log-agent/", env!("CARGO_PKG_VERSION"));
/// How often an HTTP/2 connection is asked whether it is alive, at the least; one that idles is closed after 90 s.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(10);
/// The most of a server's answer that is kept, in bytes.
pub(super) const RESPONSE_KEPT_BYTES: usize = 4 * 1024;

/// Which versions of HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// HTTP/1.1, which a handshake that changes protocols needs.
    #[cfg(feature = "websocket")]
    Http1,
    /// HTTP/2 where the server offers it in its TLS handshake, otherwise HTTP/1.1.
    Any,
}

/// The client for `url`, as `global` says. Opens no connection.
///
/// # Errors
/// [`SendError`] where a configured certificate, key or header cannot be used.
pub(super) fn client(
    global: &Global,
    url: &Url,
    idle_connections_max: usize,
    versions: Versions,
) -> Result<Client, SendError> {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .default_headers(configured_headers(global)?)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(idle_connections_max)
        .timeout(global.timeout);
    let builder = match versions {
        #[cfg(feature = "websocket")]
        Versions::Http1 => builder.http1_only(),
        // All requests share one connection, so one that is dead without a word has to be found by asking.
        Versions::Any => builder
            .http2_keep_alive_interval(HTTP2_PING_EVERY.min(global.timeout))
            .http2_keep_alive_timeout(global.timeout)
            .http2_keep_alive_while_idle(true),
    };
    let builder = proxy::with_proxy(builder, &global.proxy)?;
    with_tls(builder, &global.tls, url)?.build().map_err(SendError::Client)
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

/// The value of the `Authorization` header, where there is one.
///
/// # Errors
/// [`SendError::Header`] where the credentials cannot be written as one.
pub(super) fn authorization(
    client: &Client,
    url: &Url,
    auth: Option<&Auth>,
) -> Result<Option<HeaderValue>, SendError> {
    let Some(auth) = auth else { return Ok(None) };
    let request = client.post(url.clone());
    let request = match auth {
        Auth::Bearer(token) => request.bearer_auth(token.reveal()),
        Auth::Basic { user, password } => request.basic_auth(user, Some(password.reveal())),
    };
    let value = request.build().ok().and_then(|request| request.headers().get(AUTHORIZATION).cloned());
    let refused = || SendError::Header { key: "[global.auth]", name: AUTHORIZATION.to_string() };
    value.map(Some).ok_or_else(refused)
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

/// How long the server asks to be left alone, counted from now.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry_after::parse(value, clock::wall())
}

/// What is said of a redirect, from the headers that came with it.
pub(super) fn redirect_reason(
    status: StatusCode,
    headers: &HeaderMap,
    from: &Url,
    redactor: &Redactor,
) -> String {
    fault::redirect_reason(status, headers.get(LOCATION), from, redactor)
}

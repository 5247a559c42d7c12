//! What failed, said in one line, with what to look at where a person must act.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::redact::Redactor;
use crate::config::{Compression, Format};
use crate::send::Outcome;

/// What the client says where a proxy answered 407 to `CONNECT`; it has no other sign of it.
const PROXY_ASKS: &str = "proxy authorization required";

/// The outcome of a request that got no answer.
///
/// TLS failures are the endpoint's or the operator's fault; everything else on the way to the server may pass.
pub(in crate::send) fn outcome_of(error: reqwest::Error, timeout: Duration, redactor: &Redactor) -> Outcome {
    // The URL may carry a key in its query.
    let error = error.without_url();
    if let Some(hint) = tls_error(&error).and_then(tls_hint) {
        return Outcome::EndpointFault { reason: redactor.clean(format!("{}: {hint}", chain(&error))) };
    }
    let said = chain(&error);
    if said.contains(PROXY_ASKS) {
        let hint =
            "check user and password in [global.proxy], or those in the proxy's URL in the environment";
        return Outcome::EndpointFault { reason: redactor.clean(format!("{said}: {hint}")) };
    }
    let reason = if error.is_timeout() {
        format!("no answer within {} s: {}", timeout.as_secs_f64(), said)
    } else {
        said
    };
    Outcome::Retry { after: None, reason: redactor.clean(reason) }
}

/// What a transport that is not HTTP says of `error`: of a failure of TLS that it is the endpoint's or the operator's
/// fault, of everything else that it may pass.
#[cfg(feature = "queue")]
pub(in crate::send) fn of_connecting(error: &(dyn Error + 'static)) -> Outcome {
    match tls_error(error).and_then(tls_hint) {
        Some(hint) => Outcome::EndpointFault { reason: format!("{}: {hint}", chain(error)) },
        None => Outcome::Retry { after: None, reason: chain(error) },
    }
}

/// An error and its causes in one line, each said once.
pub(in crate::send) fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = one_line(&cause.to_string());
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// `text` on one line, cut where it is long: what a server says is repeated in messages.
#[cfg(feature = "queue")]
pub(in crate::send) fn said(text: &str) -> String {
    const BYTES_MAX: usize = 1024;
    let mut bytes = 0_usize;
    let fits = |c: &char| {
        bytes = bytes.saturating_add(c.len_utf8());
        bytes <= BYTES_MAX
    };
    one_line(text).chars().take_while(fits).collect()
}

/// `text` on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The TLS error among the causes of `error`.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // The cause of an I/O error is inside it, not behind it.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => cause.source(),
        };
    }
    None
}

/// What to look at; `None` for a failure that may pass by itself.
fn tls_hint(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as Certificate;
    use rustls::Error as Tls;
    Some(match error {
        Tls::AlertReceived(
            AlertDescription::InternalError | AlertDescription::UserCanceled | AlertDescription::CloseNotify,
        ) => return None,
        Tls::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server asks for a client certificate: set client_cert_file and client_key_file in [global.tls]"
        }
        Tls::AlertReceived(_) => {
            "the server refused the TLS handshake: check client_cert_file in [global.tls], and which TLS versions \
             and clients the server accepts"
        }
        Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            "the server's certificate is not from a trusted authority: check ca_file in [global.tls]"
        }
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "the server's certificate has expired: renew it, or check this machine's clock"
        }
        Tls::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet: check this machine's clock"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name: check the host in end_point",
        Tls::InvalidCertificate(_) => {
            "the server's certificate is refused: check it, and ca_file in [global.tls]"
        }
        Tls::InvalidMessage(_) => "the server does not speak TLS there: check scheme and port in end_point",
        Tls::PeerIncompatible(_) => "the server offers neither TLS 1.2 nor TLS 1.3 with a known cipher",
        _ => "TLS failed: check the server's certificate and [global.tls]",
    })
}

/// A status that is neither an acknowledgement nor about the content nor about the moment.
pub(in crate::send) fn status_reason(status: StatusCode, compression: Compression, format: Format) -> String {
    let hint = match status.as_u16() {
        401 | 403 => "check [global.auth] and what the server allows this agent",
        407 => "a proxy on the way asks for credentials: set user and password in [global.proxy]",
        404 | 405 | 410 => "check the path in end_point",
        415 if compression != Compression::None => {
            "the server may not take compressed bodies: check compression in [global]"
        }
        406 | 415 if format == Format::Json => "the server takes no JSON there: check end_point",
        406 | 415 => "the server does not take this format there: check end_point and format in [global]",
        431 => "the server takes no request headers that long: shorten [global.headers] or raise its limit",
        _ => "check end_point and what the server expects",
    };
    format!("the server answered {status}: {hint}")
}

/// A redirect, which would turn the POST into a GET or lead the content elsewhere.
pub(in crate::send) fn redirect_reason(
    status: StatusCode,
    location: Option<&HeaderValue>,
    from: &Url,
    redactor: &Redactor,
) -> String {
    let target = location.and_then(|value| value.to_str().ok()).and_then(|value| from.join(value).ok());
    let Some(mut target) = target else {
        return format!("the server answered {status} without a usable address: check end_point");
    };
    target.set_query(None);
    target.set_fragment(None);
    // Fails only for addresses that cannot hold credentials.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    redactor.clean(format!(
        "the server answered {status} and points to {target}: redirects are not followed, check end_point"
    ))
}

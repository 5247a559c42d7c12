//! `end_point` and `[global.headers]`: where requests go and what the operator adds to each.

use toml::de::DeValue;
use url::Url;

use super::document::{Located, Table, found_secret, quoted};
use super::error::{ConfigError, Problem};
use super::transport::{Schemes, SendType};
use super::types::{EndPoint, Secret};

/// Headers that the agent sets itself, with one strategy or another, or that HTTP and the handshake of a WebSocket set for
/// a connection.
const OWN_HEADERS: &[&str] = &[
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Host",
    "Idempotency-Key",
    "Log-Agent-Key",
    "Log-Agent-Seq",
    "Log-Agent-Source",
    "Log-Agent-Spool",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "Transfer-Encoding",
    "Upgrade",
];
/// The longest header value, in bytes; servers commonly refuse more than this for all headers together.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// Reads `end_point`: the first, and the others, which only HTTP has.
pub(super) fn resolve(
    table: &Table<'_>,
    end_points: &[Located<String>],
    send_type: SendType,
) -> Result<(EndPoint, Vec<EndPoint>), ConfigError> {
    let [first, others @ ..] = end_points else {
        return Err(table.missing("end_point", "a URL".to_owned()));
    };
    if let (Some(second), false) = (others.first(), send_type.takes.end_points) {
        let problem = Problem::Conflict(format!(
            "must be one URL, as send_type is \"{}\", which goes over to no other",
            send_type.name
        ));
        return Err(table.error("end_point", second.line, problem));
    }
    let others = others.iter().map(|other| resolve_one(table, other, send_type)).collect::<Result<_, _>>()?;
    Ok((resolve_one(table, first, send_type)?, others))
}

/// Reads one URL, whose scheme must fit `send_type`.
fn resolve_one(
    table: &Table<'_>,
    end_point: &Located<String>,
    send_type: SendType,
) -> Result<EndPoint, ConfigError> {
    let Schemes { plain, secure } = send_type.schemes;
    let unacceptable = |found: String| {
        let accepts = format!(
            "a URL that begins with {plain}:// or {secure}://, as send_type is \"{}\"",
            send_type.name
        );
        let problem = Problem::Unacceptable { accepts, found };
        table.error("end_point", end_point.line, problem)
    };
    let url = Url::parse(&end_point.value)
        .map_err(|error| unacceptable(format!("is {}: {error}", without_secrets(&end_point.value))))?;
    // `user@host` is a URL too, of the scheme in front of its first colon: credentials come first.
    if !url.username().is_empty() || url.password().is_some() {
        let problem = Problem::Conflict(
            "must be a URL without user and password; those go under [global.auth], which is never printed"
                .to_owned(),
        );
        return Err(table.error("end_point", end_point.line, problem));
    }
    if ![plain, secure].contains(&url.scheme()) {
        return Err(unacceptable(format!("is {}", without_secrets(&end_point.value))));
    }
    // A URL needs no host unless its scheme is one of the web's.
    if url.host_str().is_none_or(str::is_empty) {
        return Err(unacceptable(format!("is {}: empty host", without_secrets(&end_point.value))));
    }
    Ok(EndPoint(url))
}

/// A URL for a message, without what may be a secret in it.
fn without_secrets(url: &str) -> String {
    if url.contains('@') {
        return "not shown, as it may hold a password".to_owned();
    }
    match url.split_once('?') {
        Some((before, _)) => format!("{} with a query that is not shown", quoted(before)),
        None => quoted(url),
    }
}

/// Reads `[global.headers]`. Its values are taken for secrets, as API keys are often sent so.
pub(super) fn headers(table: &Table<'_>, has_auth: bool) -> Result<Vec<(String, Secret)>, ConfigError> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    let mut lines: Vec<(String, usize)> = Vec::new();
    for entry in table.entries() {
        let error = |problem| table.error(entry.name, entry.line, problem);
        let lower = entry.name.to_ascii_lowercase();
        if entry.name.is_empty() || !entry.name.bytes().all(is_token) {
            return Err(error(Problem::Conflict(
                "is not the name of a header; it must be of letters, digits and !#$%&'*+-.^_`|~".to_owned(),
            )));
        }
        if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(entry.name)) {
            return Err(error(Problem::Conflict(format!(
                "is set by the agent itself; it must be none of {}",
                OWN_HEADERS.join(", ")
            ))));
        }
        if has_auth && lower == "authorization" {
            return Err(error(Problem::Conflict(
                "is set by the agent itself from [global.auth]; it must be given by one of the two"
                    .to_owned(),
            )));
        }
        if let Some((first, first_line)) = lines.iter().find(|(name, _)| *name == lower) {
            let what = format!("the header {first}");
            let accepts = "each must be there once, whatever its case";
            return Err(error(Problem::Duplicate { what, first_line: *first_line, accepts }));
        }
        let value = match entry.value {
            DeValue::String(text) if is_header_value(text) => text.to_string(),
            other => {
                let accepts =
                    format!("a string of at most {HEADER_BYTES_MAX} visible ASCII characters and spaces");
                return Err(error(Problem::Unacceptable { accepts, found: found_secret(other) }));
            }
        };
        lines.push((lower, entry.line));
        headers.push((entry.name.to_owned(), Secret::new(value)));
    }
    Ok(headers)
}

/// What RFC 9110 section 5.6.2 allows in a header's name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_header_value(text: &str) -> bool {
    text.len() <= HEADER_BYTES_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

//! The proxy of a client, and what of it is secret.

use base64::Engine as _;
use reqwest::{ClientBuilder, NoProxy};
use url::Url;

use crate::config::Proxy;
use crate::send::SendError;

/// What an environment that has proxies has them in.
const VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Sets the proxy that `proxy` says.
///
/// # Errors
/// [`SendError::Client`] where the client does not take its URL.
pub(super) fn with_proxy(builder: ClientBuilder, proxy: &Proxy) -> Result<ClientBuilder, SendError> {
    match proxy {
        // The client reads the environment where it is told nothing.
        Proxy::Environment => Ok(builder),
        Proxy::None => Ok(builder.no_proxy()),
        Proxy::Through { url, credentials, except } => {
            let mut through = reqwest::Proxy::all(url.clone()).map_err(SendError::Client)?;
            if let Some((user, password)) = credentials {
                through = through.basic_auth(user, password.reveal());
            }
            // A proxy that was set takes the place of the environment's.
            Ok(builder.proxy(through.no_proxy(NoProxy::from_string(&except.join(",")))))
        }
    }
}

/// What must not be shown: passwords as they are and as they are sent.
pub(super) fn secrets(proxy: &Proxy) -> Vec<String> {
    match proxy {
        Proxy::None => Vec::new(),
        Proxy::Through { credentials, .. } => {
            credentials.iter().flat_map(|(user, password)| of_credentials(user, password.reveal())).collect()
        }
        Proxy::Environment => VARIABLES
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .flat_map(|url| of_url(&url))
            .collect(),
    }
}

fn of_credentials(user: &str, password: &str) -> [String; 2] {
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    [password.to_owned(), sent]
}

/// The secrets in a URL of the environment, which may be without a scheme.
fn of_url(url: &str) -> Vec<String> {
    let parsed =
        Url::parse(url).ok().filter(Url::has_host).or_else(|| Url::parse(&format!("http://{url}")).ok());
    let Some(parsed) = parsed else { return Vec::new() };
    let Some(password) = parsed.password() else { return Vec::new() };
    let (user, decoded) = (decode(parsed.username()), decode(password));
    let mut secrets = vec![password.to_owned()];
    secrets.extend(of_credentials(&user, &decoded));
    secrets
}

/// A part of a URL without its percent-encoding.
fn decode(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_of_a_proxy_are_its_password_in_every_form() {
        let sent = "YTpiL2M6ZA==";
        for url in ["http://a:b%2Fc:d@proxy:3128", "a:b%2Fc:d@proxy:3128", "http://a:b%2Fc%3Ad@proxy"] {
            let secrets = of_url(url);
            assert!(
                secrets.contains(&"b/c:d".to_owned()) && secrets.contains(&sent.to_owned()),
                "{url}: {secrets:?}"
            );
        }
        for url in ["http://proxy:3128", "proxy", "", "http://user@proxy", "%%%"] {
            assert!(of_url(url).is_empty(), "{url}");
        }
    }
}

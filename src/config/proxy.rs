//! `[global.proxy]`: what stands between the agent and the servers.

use url::Url;

use super::auth::Places;
use super::document::{Located, Table, quoted};
use super::error::{ConfigError, Problem};
use super::keys::ProxyKeys;
use super::types::Proxy;

/// What `url` says for no proxy at all, whatever the environment has.
const NONE: &str = "none";

/// Reads `[global.proxy]`.
pub(super) fn resolve(table: &Table<'_>) -> Result<Proxy, ConfigError> {
    let keys = ProxyKeys::read(table)?;
    let password =
        Places { name: "password", direct: keys.password, env: keys.password_env, file: keys.password_file };
    let meaningless = || Problem::Conflict(format!("has no meaning with url = \"{NONE}\""));
    if keys.url.value == NONE {
        password.refuse(table, meaningless)?;
        let line_of_except = keys.except.first().map(|host| ("except", host.line));
        if let Some((name, line)) = keys.user.map(|user| ("user", user.line)).or(line_of_except) {
            return Err(table.error(name, line, meaningless()));
        }
        return Ok(Proxy::None);
    }
    let url = proxy_url(table, &keys.url)?;
    let credentials = match keys.user {
        Some(user) if user.value.contains(':') => {
            let problem = Problem::Conflict("must be a user name without a colon".to_owned());
            return Err(table.error("user", user.line, problem));
        }
        Some(user) => {
            let (_, password) = password.find(table)?;
            Some((user.value, super::types::Secret::new(password.value)))
        }
        None => {
            password.refuse(table, || Problem::Conflict("needs user beside it".to_owned()))?;
            None
        }
    };
    if let Some(host) = keys.except.iter().find(|host| host.value.contains([',', ' '])) {
        let problem = Problem::Unacceptable {
            accepts: "an array of hosts, domains, addresses and networks, one in each string".to_owned(),
            found: format!("has {}", quoted(&host.value)),
        };
        return Err(table.error("except", host.line, problem));
    }
    Ok(Proxy::Through { url, credentials, except: keys.except.into_iter().map(|host| host.value).collect() })
}

/// The proxy's URL. It is not repeated where it may hold a password.
fn proxy_url(table: &Table<'_>, url: &Located<String>) -> Result<Url, ConfigError> {
    let error = |problem| table.error("url", url.line, problem);
    let parsed = Url::parse(&url.value).ok().filter(|parsed| parsed.scheme() == "http" && parsed.has_host());
    let Some(parsed) = parsed else {
        let found = if url.value.contains('@') {
            "is not shown, as it may hold a password".to_owned()
        } else {
            format!("is {}", quoted(&url.value))
        };
        let accepts = format!("\"{NONE}\", or a URL that begins with http://");
        return Err(error(Problem::Unacceptable { accepts, found }));
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(error(Problem::Conflict(
            "must be a URL without user and password; those are the keys user and password, which are never printed"
                .to_owned(),
        )));
    }
    Ok(parsed)
}

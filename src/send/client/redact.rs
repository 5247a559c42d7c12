//! Keeps secrets out of texts: a server may repeat in its answer what it was sent.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::config::{Auth, Global};

/// What stands in a secret's place.
const REDACTED: &str = "(secret)";
/// Shorter values than this are not looked for: they would be found in innocent places.
const SECRET_BYTES_MIN: usize = 4;

/// Replaces everything that a configuration holds secret.
pub(in crate::send) struct Redactor {
    /// Longest first, so that no part of a secret is left where one holds another.
    secrets: Vec<String>,
}

impl Redactor {
    /// A redactor for the secrets of `global`: credentials in every form they are sent in, and configured header
    /// values and the query of the URL, among which there are often keys.
    pub(in crate::send) fn new(global: &Global, authorization: Option<&HeaderValue>) -> Self {
        let mut secrets: Vec<String> =
            global.headers.iter().map(|(_, value)| value.reveal().to_owned()).collect();
        match &global.auth {
            Some(Auth::Bearer(secret) | Auth::Basic { password: secret, .. }) => {
                secrets.push(secret.reveal().to_owned());
            }
            None => {}
        }
        // The scheme is no secret, what follows it is.
        let sent =
            authorization.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        secrets.extend(sent.map(|(_, credentials)| credentials.to_owned()));
        secrets.extend(global.end_points().filter_map(|end_point| end_point.0.query()).map(str::to_owned));
        secrets.extend(super::proxy::secrets(&global.proxy));
        Self::of(secrets)
    }

    /// The same, and what a strategy holds secret besides.
    #[cfg(feature = "queue")]
    pub(in crate::send) fn with(global: &Global, more: impl IntoIterator<Item = String>) -> Self {
        let mut secrets = Self::new(global, None).secrets;
        secrets.extend(more);
        Self::of(secrets)
    }

    fn of(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// `text` without secrets.
    pub(in crate::send) fn clean(&self, mut text: String) -> String {
        for secret in &self.secrets {
            if text.contains(secret) {
                text = text.replace(secret, REDACTED);
            }
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_holds_another_leaves_nothing_behind() {
        let redactor = Redactor::of(vec!["key-1234".into(), "key-1234-5678".into(), "abc".into()]);
        let text = redactor.clean("got key-1234-5678, key-1234 and abc".into());
        assert_eq!(text, "got (secret), (secret) and abc");
    }
}

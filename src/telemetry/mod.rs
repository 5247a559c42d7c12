//! How the agent speaks of itself: its messages on standard error.
//!
//! Invariant: neither a full disk behind standard error nor a reader that went away stops or panics the agent.

mod repeats;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

pub use repeats::Repeats;

/// The form of the agent's own messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the messages of this process to standard error: those of level info and above, or what `RUST_LOG` asks for.
///
/// The first call decides; later ones, as in tests that run the agent in process, change nothing. A `RUST_LOG` that
/// makes no sense is told in a warning and not followed.
pub fn init(format: LogFormat) {
    let (filter, refused) = filter(std::env::var("RUST_LOG").ok().as_deref());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // A message that cannot be written is lost; telling that to the same standard error would panic.
        .log_internal_errors(false);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if installed.is_ok()
        && let Some(error) = refused
    {
        tracing::warn!(%error, "RUST_LOG is not a filter; messages of level info and above are shown");
    }
}

/// Libraries that speak of their own matters, and what is heard of them unless `RUST_LOG` names them. What goes wrong
/// in them is returned to us and told in our own words.
const LIBRARIES: &[(&str, &str)] = &[
    ("sled", "off"),
    ("hyper", "warn"),
    ("hyper_util", "warn"),
    ("reqwest", "warn"),
    ("rustls", "warn"),
    ("rdkafka", "off"),
    ("tungstenite", "warn"),
    ("tokio_tungstenite", "warn"),
    ("async_nats", "off"),
    ("lapin", "off"),
    ("rumqttc", "off"),
];

/// `wanted` with the libraries that it does not name turned down.
fn quiet(wanted: &str) -> String {
    let unnamed = LIBRARIES.iter().filter(|(name, _)| {
        !wanted.split(',').any(|directive| directive.trim().split(['=', ':', '[']).next() == Some(name))
    });
    unnamed.fold(wanted.to_owned(), |filter, (name, level)| format!("{filter},{name}={level}"))
}

/// The filter that `wanted` asks for, and why it was not followed.
fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(quiet("info"));
    match wanted.filter(|wanted| !wanted.trim().is_empty()) {
        None => (default(), None),
        Some(wanted) => match EnvFilter::try_new(quiet(wanted)) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn info_is_the_default_and_nonsense_is_told() {
        for wanted in [None, Some(""), Some("  ")] {
            let (filter, refused) = filter(wanted);
            assert_eq!((filter.max_level_hint(), refused), (Some(LevelFilter::INFO), None));
        }
        let (debug, refused) = filter(Some("log_agent=debug"));
        assert_eq!((debug.max_level_hint(), refused), (Some(LevelFilter::DEBUG), None));
        let (fallback, refused) = filter(Some("=;=nonsense="));
        assert_eq!(fallback.max_level_hint(), Some(LevelFilter::INFO));
        assert!(refused.is_some());
    }
}

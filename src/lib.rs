//! log-agent: a durable log-shipping agent.

pub mod agent;
pub mod aggregate;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod demo;
pub mod event;
mod outbox;
pub mod payload;
pub mod retry;
pub mod send;
pub mod spool;
pub mod tail;
pub mod telemetry;

/// An error and its causes in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

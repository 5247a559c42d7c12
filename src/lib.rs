//! log-agent follows log files and delivers every line to a server, whatever happens on the way.
//!
//! ```text
//!  files ──▶ tail ──▶ SPOOL ──▶ aggregate ──▶ retry ──▶ send ──▶ server
//!            watch,    append     cuts batches  first     one        │
//!            identity, +offset    by events,    sends,    transport  │
//!            lines     one frame  bytes, time   replays              ▼
//!                        │                                   acknowledged, rejected,
//!              segments + ledger  ◀── acknowledge = delete ── retry, endpoint fault
//! ```
//!
//! Data moves one way. The spool is the only place where state lives; every other stage can be thrown away and rebuilt
//! from it, which is exactly what a crash does.
//!
//! - [`config`]: a configuration that was accepted cannot be invalid.
//! - [`tail`]: which file is which, what is new in it, line by line.
//! - [`event`], [`batch`]: the words of the data path and the numbers that name things.
//! - [`spool`]: frames, segments, the ledger; commit, recovery, damage, the disk budget.
//! - [`aggregate`]: cuts the log into batches; [`payload`] encodes them.
//! - [`retry`]: what is sent when; [`send`]: one transport each.
//! - [`agent`]: starts the stages in order and drains them in order.
//! - `files`: the followed files as an operator sees them, by what the spool knows of them.
//! - [`collect`]: a server that stores every event once; `demo`: all of it in half a minute.
//! - [`cli`], [`telemetry`], [`clock`]: the edges.
//!
//! Spool and tailers are plain threads and plain code; asynchronous code begins where the network does.

pub mod agent;
pub mod aggregate;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod demo;
pub mod event;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
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

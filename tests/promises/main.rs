//! The users' promises, each shown against the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test that meets the unexpected should stop there"
)]

mod backlog;
mod collector;
mod common;
mod config_errors;
mod delivery;
mod demo;
mod durability;
mod kill_points;
mod kill_restart;
mod soak;
mod spool_faults;
mod spool_tools;
mod system_faults;
mod tailing;

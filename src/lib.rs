//! log-agent: a durable log-shipping agent.

pub mod batch;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod event;
pub mod payload;
pub mod retry;
pub mod send;
pub mod tail;
pub mod telemetry;

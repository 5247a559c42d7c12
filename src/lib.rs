//! log-agent: a durable log-shipping agent.

pub mod batch;
pub mod clock;
pub mod config;
pub mod event;
pub mod retry;
pub mod send;

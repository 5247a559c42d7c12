//! The command line of log-agent.

fn main() {}

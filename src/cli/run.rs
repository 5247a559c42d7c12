//! `log-agent` without a subcommand: the agent itself.

use std::process::ExitCode;

/// Runs the agent until it is told to stop.
pub fn run(_cli: &super::Cli) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the agent is being built")
}

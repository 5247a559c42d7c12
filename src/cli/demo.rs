//! `log-agent demo`.

use std::process::ExitCode;

/// Arguments of `log-agent demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo is being built")
}

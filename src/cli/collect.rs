//! `log-agent collect`.

use std::process::ExitCode;

/// Arguments of `log-agent collect`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("collect is being built")
}

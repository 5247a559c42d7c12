//! `log-agent check`.

use std::process::ExitCode;

/// Arguments of `log-agent check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_cli: &super::Cli, _args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("check is being built")
}

//! `log-agent spool`.

use std::process::ExitCode;

/// Arguments of `log-agent spool`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_cli: &super::Cli, _args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("spool is being built")
}

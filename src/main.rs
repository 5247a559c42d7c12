//! The `log-agent` command: parse the command line, start tracing, call the library, map errors to exit codes.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    log_agent::cli::Cli::parse().run()
}

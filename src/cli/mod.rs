//! The command line: one file a subcommand, each with its arguments and its `run`.

mod check;
mod collect;
mod demo;
mod run;
mod spool;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::telemetry;

pub use crate::telemetry::LogFormat;

/// Exit code for a wrong command line or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code of a check or verification that found something wrong.
pub const EXIT_FOUND: u8 = 2;
/// Exit code for a failure at run time.
pub const EXIT_RUNTIME: u8 = 1;

const AFTER_HELP: &str = "\
Examples:
  log-agent                                  run with ./log-agent.config, spool in ./log-agent-spool
  log-agent --config /etc/log-agent/log-agent.config --spool-dir /var/lib/log-agent
  log-agent check                            what would be followed, and where it would be sent
  log-agent demo                             see it survive a kill, an outage and a rotation

Signals:
  HUP        read the configuration again; one that is wrong is refused and changes nothing
  TERM, INT  stop reading, commit, give requests in flight shutdown_secs, exit 0; a second one exits at once

Environment:
  RUST_LOG   which of its own messages the agent shows, as in `debug` or `log_agent::tail=trace`; info by default

Exit codes:
  0   ok
  1   failed at run time
  2   a check or verification found something
  64  wrong command line or configuration";

/// Follows log files and delivers every line to a server, whatever happens.
///
/// Each new line is written to a spool on disk together with its place in the file, and sent in batches from there. A
/// server that is down, a restart or a kill lose nothing: the spool is sent once the server takes it again.
///
/// Without a subcommand, the agent runs.
#[derive(Debug, Parser)]
#[command(name = "log-agent", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "log-agent.config", global = true)]
    pub config: PathBuf,
    /// Spool directory; wins over `spool_dir` in the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    pub spool_dir: Option<PathBuf>,
    /// How the agent writes its own messages to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Without a subcommand, the agent runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validates the configuration and says what would be followed and where it would be sent.
    Check(check::Args),
    /// Runs the reference collector.
    Collect(collect::Args),
    /// Looks into a spool, mends it, takes something out of it.
    Spool(spool::Args),
    /// Shows the agent surviving a kill, an outage and a rotation, and counts every line.
    Demo(demo::Args),
}

/// Parses the command line of this process and runs it. A command line that makes no sense exits with [`EXIT_USAGE`].
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

impl Cli {
    /// Runs the command and says how the process is to exit.
    #[must_use]
    pub fn run(self) -> ExitCode {
        telemetry::init(self.log_format);
        let result = match &self.command {
            None => run::run(&self),
            Some(Command::Check(args)) => check::run(&self, args),
            Some(Command::Collect(args)) => collect::run(args),
            Some(Command::Spool(args)) => spool::run(&self, args),
            Some(Command::Demo(args)) => demo::run(args),
        };
        result.unwrap_or_else(|error| {
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(io::stderr(), "log-agent: {}", in_one_line(&error));
            ExitCode::from(exit_code(&error))
        })
    }
}

/// The exit code for `error`: [`EXIT_USAGE`] where a [`ConfigError`] is among its causes, else [`EXIT_RUNTIME`].
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<ConfigError>()) { EXIT_USAGE } else { EXIT_RUNTIME }
}

/// The error with its causes, `what: why: why`, on one line.
fn in_one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_configuration_error_is_one_of_usage_under_any_context() {
        let wrong = crate::config::Config::load("/nonexistent/config".as_ref(), None, &[]);
        let error = wrong.context("cannot start").context("again").unwrap_err();
        assert_eq!(exit_code(&error), EXIT_USAGE);
        assert_eq!(exit_code(&anyhow::anyhow!("disk on fire")), EXIT_RUNTIME);
    }

    #[test]
    fn an_error_is_told_in_one_line_with_its_causes() {
        let error = anyhow::anyhow!("disk\n  on fire\r\n").context("cannot start");
        assert_eq!(in_one_line(&error), "cannot start: disk on fire");
    }
}

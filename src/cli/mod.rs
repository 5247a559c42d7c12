//! The command line: one file a subcommand, each with its arguments and its `run`.

mod check;
mod collect;
mod demo;
mod run;
mod spool;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Exit code for a wrong command line or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code of a check or verification that found something wrong.
pub const EXIT_FOUND: u8 = 2;
/// Exit code for a failure at run time.
pub const EXIT_RUNTIME: u8 = 1;

/// Follows log files and delivers every line, whatever happens.
#[derive(Debug, Parser)]
#[command(name = "log-agent", version)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "log-agent.config", global = true)]
    pub config: PathBuf,
    /// Spool directory; wins over `spool_dir` in the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    pub spool_dir: Option<PathBuf>,
    /// How the agent writes its own messages to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Without a subcommand, the agent runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The form of the agent's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validates the configuration and says what would be followed and where it would be sent.
    Check(check::Args),
    /// Runs the reference collector.
    Collect(collect::Args),
    /// Looks into a spool.
    Spool(spool::Args),
    /// Shows the agent surviving a kill, an outage and a rotation, and counts every line.
    Demo(demo::Args),
}

impl Cli {
    /// Runs the command and says how the process is to exit.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match &self.command {
            None => run::run(&self),
            Some(Command::Check(args)) => check::run(&self, args),
            Some(Command::Collect(args)) => collect::run(args),
            Some(Command::Spool(args)) => spool::run(&self, args),
            Some(Command::Demo(args)) => demo::run(args),
        };
        match result {
            Ok(code) => code,
            Err(error) => {
                eprintln!("log-agent: {error:#}");
                ExitCode::from(EXIT_RUNTIME)
            }
        }
    }
}

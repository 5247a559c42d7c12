//! `log-agent spool`.

mod file;
mod files;
mod status;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::HumanCount;
use serde::Serialize;

use crate::config::Config;
use crate::event::{SkipReason, Skipped};

/// Where a spool is if nothing says otherwise; the default of `spool_dir`.
const SPOOL_DIR: &str = "./log-agent-spool";

const AFTER_HELP: &str = "\
The spool is that of --spool-dir, or else of the configuration where it can be loaded, or else ./log-agent-spool. It is
not changed.";

/// Arguments of `log-agent spool`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with the spool.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says what is in a spool while no agent runs on it; with --files also beside one.
    Status(status::Args),
    /// Says what a spool knows of a file, and whether the file may be deleted.
    File(file::Args),
}

/// Runs the subcommand.
pub fn run(cli: &super::Cli, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Status(args) => status::run(cli, args),
        Command::File(args) => file::run(cli, args),
    }
}

/// The spool that is meant, and the configuration where it can be loaded.
fn directory(cli: &super::Cli) -> (PathBuf, Option<Config>) {
    let config = Config::load(&cli.config, None).ok();
    let dir = match (&cli.spool_dir, &config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => config.global.spool_dir.clone(),
        (None, None) => Path::new(SPOOL_DIR).to_owned(),
    };
    (dir, config)
}

/// Prints a report as JSON, or as what `text` says.
fn print(json: bool, report: &impl Serialize, text: &dyn fmt::Display) -> anyhow::Result<()> {
    let told = if json {
        serde_json::to_string_pretty(report).context("the report cannot be written as JSON")? + "\n"
    } else {
        text.to_string()
    };
    match io::stdout().write_all(told.as_bytes()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// One line of a report for people: what it is about, and what is said of it.
fn line(f: &mut fmt::Formatter<'_>, label: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:<14}{text}")
}

/// What was skipped, as ` + 12 excluded (1 line) + 3 nul`; nothing where nothing was.
fn skipped(skipped: &std::collections::BTreeMap<SkipReason, Skipped>) -> String {
    let mut text = String::new();
    for (reason, Skipped { bytes, lines }) in skipped {
        // Writing to a String cannot fail.
        let _ = write!(text, " + {bytes} {reason}");
        let _ = match lines {
            0 => Ok(()),
            1 => write!(text, " (1 line)"),
            lines => write!(text, " ({} lines)", HumanCount(*lines)),
        };
    }
    text
}

/// A count with its noun.
fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

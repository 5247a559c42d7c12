//! `log-agent spool`.

mod export;
mod file;
mod files;
mod letters;
mod list;
mod progress;
mod purge;
mod repair;
mod show;
mod status;
mod verify;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::HumanCount;
use serde::Serialize;

use crate::config::{Config, OnFull, SyncMode};
use crate::event::{SkipReason, Skipped, Timestamp};
use crate::payload::Profile;
use crate::send;
use crate::spool::SpoolOptions;
use crate::spool::tools::ToolError;

/// Where a spool is if nothing says otherwise; the default of `spool_dir`.
const SPOOL_DIR: &str = "./log-agent-spool";

/// The size at which a segment is sealed where no configuration says it; the default of `segment_bytes`.
const SEGMENT_BYTES: u64 = 64 << 20;

const AFTER_HELP: &str = "\
The spool is that of --spool-dir, or else of the configuration where it can be loaded, or else ./log-agent-spool. It is
changed by repair, purge, dead-letters requeue and dead-letters purge alone, which need the agent stopped; everything else
only looks, and but for status and list --batches also works beside a running agent.";

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
    /// Reads everything in a spool and says what is wrong.
    Verify(verify::Args),
    /// Lists the segments, or the batches that are not acknowledged.
    List(list::Args),
    /// Shows an event or a batch.
    Show(show::Args),
    /// Writes events as lines of JSON.
    Export(export::Args),
    /// Mends what `verify` finds; destroys nothing.
    Repair(repair::Args),
    /// Lists, shows, requeues or deletes what the server refused for good.
    DeadLetters(letters::Args),
    /// Drops events that wait, and counts them.
    Purge(purge::Args),
}

/// Runs the subcommand.
pub fn run(cli: &super::Cli, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Status(args) => status::run(cli, args),
        Command::File(args) => file::run(cli, args),
        Command::Verify(args) => verify::run(cli, args),
        Command::List(args) => list::run(cli, args),
        Command::Show(args) => show::run(cli, args),
        Command::Export(args) => export::run(cli, args),
        Command::Repair(args) => repair::run(cli, args),
        Command::DeadLetters(args) => letters::run(cli, args),
        Command::Purge(args) => purge::run(cli, args),
    }
}

/// The spool that is meant, and the configuration where it can be loaded.
fn directory(cli: &super::Cli) -> (PathBuf, Option<Config>) {
    let config = Config::load(&cli.config, None, &send::transports()).ok();
    let dir = match (&cli.spool_dir, &config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => config.global.spool_dir.clone(),
        (None, None) => Path::new(SPOOL_DIR).to_owned(),
    };
    (dir, config)
}

/// How a spool is opened that is to be changed: as the configuration says, where it can be loaded, without its bounds, which
/// are those of reading.
fn options(cli: &super::Cli) -> SpoolOptions {
    let (dir, config) = directory(cli);
    let unbounded = SpoolOptions {
        dir,
        profile: None,
        segment_bytes: SEGMENT_BYTES,
        sync: SyncMode::Group,
        max_spool_bytes: u64::MAX,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        channel_bound: 1,
    };
    match config {
        Some(config) => {
            let profile = Some(Profile::from(&config));
            SpoolOptions { profile, segment_bytes: config.global.segment_bytes, ..unbounded }
        }
        None => unbounded,
    }
}

/// A time as in `2024-01-15T10:30:00Z`.
fn time(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp::from_millis(time.timestamp_millis()))
}

/// Whether a person reads the output as it comes.
fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A reader that has seen enough is no failure.
fn quiet_pipe<T>(result: Result<T, ToolError>) -> Result<Option<T>, ToolError> {
    match result {
        Err(error) if error.is_closed_pipe() => Ok(None),
        result => result.map(Some),
    }
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

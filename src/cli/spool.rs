//! `log-agent spool`.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::config::Config;
use crate::event::Timestamp;
use crate::spool::inspect::{self, Report};

/// Where a spool is if nothing says otherwise; the default of `spool_dir`.
const SPOOL_DIR: &str = "./log-agent-spool";

const AFTER_HELP: &str = "\
The spool is that of --spool-dir, or else of the configuration where it can be loaded, or else ./log-agent-spool. It is
not changed. While an agent runs on it, this is refused with the agent's process id.

Examples:
  log-agent spool status
  log-agent spool status --spool-dir /var/lib/log-agent
  log-agent spool status --json | jq .backlog.events

Exit codes:
  0   everything balances
  1   there is no spool, an agent runs on it, or it cannot be read
  2   events are unaccounted for";

/// Arguments of `log-agent spool`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with the spool.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says what is in a spool while no agent runs on it.
    #[command(after_help = AFTER_HELP)]
    Status {
        /// Prints JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
pub fn run(cli: &super::Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Status { json } = args.command;
    let report = inspect::report(&directory(cli))?;
    let text = if json {
        serde_json::to_string_pretty(&report).context("the report cannot be written as JSON")? + "\n"
    } else {
        Text(&report).to_string()
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(if report.balanced { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_FOUND) })
}

fn directory(cli: &super::Cli) -> PathBuf {
    match (&cli.spool_dir, Config::load(&cli.config, None)) {
        (Some(dir), _) => dir.clone(),
        (None, Ok(config)) => config.global.spool_dir,
        (None, Err(_)) => Path::new(SPOOL_DIR).to_owned(),
    }
}

/// The report for people.
struct Text<'a>(&'a Report);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { backlog, segments, dead_letters, .. } = self.0;
        let mut line = |label: &str, text: &dyn fmt::Display| writeln!(f, "{label:<14}{text}");
        line("spool", &self.0.dir.display())?;
        line("id", &self.0.spool_id)?;
        line(
            "backlog",
            &format_args!("{} events, {}", HumanCount(backlog.events), HumanBytes(backlog.bytes)),
        )?;
        if let (Some(oldest), Some(age)) = (backlog.oldest_ms, backlog.oldest_age_secs) {
            let age = HumanDuration(std::time::Duration::from_secs(age));
            line("", &format_args!("the oldest from {}, {age} ago", Timestamp::from_millis(oldest)))?;
        }
        line("segments", &format_args!("{}, {}", segments.count, HumanBytes(segments.bytes)))?;
        line("batches", &format_args!("{} cut and not acknowledged", HumanCount(self.0.batches)))?;
        let mut dead = HumanCount(dead_letters.count).to_string();
        for (index, (status, count)) in dead_letters.by_status.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(dead, "{before}{count} with status {status}")?;
        }
        line("dead letters", &dead)?;
        if self.0.quarantine_bytes > 0 {
            line("quarantine", &format_args!("{} of damaged bytes", HumanBytes(self.0.quarantine_bytes)))?;
        }
        for source in &self.0.sources {
            line("source", &source.source)?;
            let sign = if source.balanced { "=" } else { "≠" };
            line(
                "",
                &format_args!(
                    "{} spooled {sign} {} acknowledged + {} pending + {} dead + {} dropped + {} damaged",
                    source.spooled,
                    source.acknowledged,
                    source.pending,
                    source.dead,
                    source.dropped,
                    source.damaged
                ),
            )?;
            for file in self.0.checkpoints.iter().filter(|file| file.source == source.source) {
                line("", &format_args!("{} read to {}", file.path, file.offset))?;
            }
        }
        let known = |source: &str| self.0.sources.iter().any(|status| status.source == source);
        for file in self.0.checkpoints.iter().filter(|file| !known(&file.source)) {
            line("source", &file.source)?;
            line("", &format_args!("{} read to {}", file.path, file.offset))?;
        }
        if !self.0.balanced {
            line("WRONG", &"the accounts do not balance: events are unaccounted for")?;
        }
        Ok(())
    }
}

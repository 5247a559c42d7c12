//! `log-agent spool verify`.

use std::fmt;
use std::process::ExitCode;

use indicatif::{HumanBytes, HumanCount};

use super::progress::Bar;
use super::{count, files, line};
use crate::cli::{Cli, EXIT_FOUND};
use crate::spool::tools::{self, Verified};

const AFTER_HELP: &str = "\
Every segment, frame, checksum, snapshot and dead letter is read; the ledger is compared with them, and the accounts are
checked. Each thing that is wrong is one line: where it is, what it means, and what `log-agent spool repair` would do.
Nothing is changed. Beside a running agent what it has committed is read; its ledger and the accounts are not.

Damage that was dealt with (its bytes are in quarantine/, its events settled) is counted and is no finding.

Examples:
  log-agent spool verify
  log-agent spool verify --spool-dir /var/lib/log-agent || log-agent spool repair --spool-dir /var/lib/log-agent
  log-agent spool verify --json | jq '.findings[] | {kind, segment, positions}'

Exit codes:
  0   nothing is wrong
  1   there is no spool, or it cannot be read
  2   something is wrong";

/// Arguments of `log-agent spool verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    let bar = Bar::new("verify", true);
    let verified = tools::verify(&dir, &|done, total| bar.show(done, total))?;
    drop(bar);
    super::print(args.json, &verified, &Text(&verified))?;
    Ok(if verified.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// The report for people.
struct Text<'a>(&'a Verified);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { agent, read, findings } = self.0;
        if let Some(agent) = agent {
            line(f, "agent", files::runs(*agent))?;
            line(f, "", "its ledger and what it is just writing are not looked at")?;
        }
        for finding in findings {
            line(f, "WRONG", finding)?;
        }
        line(
            f,
            "read",
            format_args!(
                "{}, {}: {}, {}, {}",
                count(read.segments, "segment"),
                HumanBytes(read.bytes),
                count(read.frames, "frame"),
                count(read.events, "event"),
                count(read.dead_letters, "dead letter")
            ),
        )?;
        if read.dealt_with > 0 {
            let places = count(read.dealt_with, "damaged place");
            line(f, "", format_args!("{places} dealt with: kept in quarantine/, the events settled"))?;
        }
        match findings.len() {
            0 => line(f, "verdict", "nothing is wrong"),
            1 => line(f, "verdict", "1 thing is wrong"),
            many => line(f, "verdict", format_args!("{} things are wrong", HumanCount(many as u64))),
        }
    }
}

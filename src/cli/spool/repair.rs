//! `log-agent spool repair`.

use std::fmt;
use std::process::ExitCode;

use super::progress::Bar;
use super::{count, line};
use crate::cli::{Cli, EXIT_FOUND};
use crate::spool::tools::{self, Repaired};

const AFTER_HELP: &str = "\
Does what `log-agent spool verify` says of each finding, and verifies again. No byte is destroyed: what is damaged is kept
in quarantine/ first, segments and ledgers that are set aside are moved there. Events that cannot be read any more are
counted as damaged. An agent does all of that by itself as it meets the damage; repair does it now, and for all of it.

No agent may run. Batches that are cut in passing carry the agent_name of the configuration, or else the last one known.

Examples:
  log-agent spool repair
  log-agent spool repair --json | jq .left

Exit codes:
  0   nothing is wrong, or not any more
  1   there is no spool, an agent runs on it, or it cannot be read or written
  2   something is left that cannot be mended";

/// Arguments of `log-agent spool repair`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let bar = Bar::new("repair", true);
    let repaired = tools::repair(&super::options(cli), &|done, total| bar.show(done, total))?;
    drop(bar);
    super::print(args.json, &repaired, &Text(&repaired))?;
    Ok(if repaired.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

struct Text<'a>(&'a Repaired);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repaired { done, left, quarantined, damaged_events } = self.0;
        for finding in done {
            line(f, "repaired", finding)?;
        }
        for finding in left {
            line(f, "LEFT", finding)?;
        }
        for name in quarantined {
            line(f, "kept", format_args!("quarantine/{name}"))?;
        }
        if *damaged_events > 0 {
            line(f, "damaged", format_args!("{} counted as damaged", count(*damaged_events, "event")))?;
        }
        match (done.len(), left.len()) {
            (_, 1..) => line(f, "verdict", "not everything can be mended"),
            (0, 0) => line(f, "verdict", "nothing was wrong, and nothing was changed"),
            (_, 0) => line(f, "verdict", "nothing is wrong any more"),
        }
    }
}

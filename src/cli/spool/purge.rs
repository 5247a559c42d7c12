//! `log-agent spool purge`.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::line;
use super::progress::Bar;
use crate::cli::Cli;
use crate::clock;
use crate::event::Timestamp;
use crate::spool::tools::{self, Purged, What};

const AFTER_HELP: &str = "\
The events are never delivered. They are counted as dropped, event by event, so that the accounts balance; those that
cannot be read count as damaged. How far the files were read does not change, so nothing of it is read again.

--older-than drops from the oldest event on, up to the first that was read later than that. A batch with an event that is
younger stays whole. Dead letters are another matter: log-agent spool dead-letters purge.

Examples:
  log-agent spool purge --older-than 7d --yes
  log-agent spool purge --all --yes

Exit codes:
  0   ok, also where there was nothing to drop
  1   there is no spool, an agent runs on it, it cannot be read or written, or --yes is missing";

/// Arguments of `log-agent spool purge`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Drops what was read longer ago than this, as in 90s, 30m, 12h, 7d or 2w.
    #[arg(long, value_name = "DURATION", value_parser = duration, required_unless_present = "all", conflicts_with = "all")]
    older_than: Option<Duration>,
    /// Drops everything that waits.
    #[arg(long)]
    all: bool,
    /// Confirms that it is not needed any more.
    #[arg(long)]
    yes: bool,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// A whole number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.chars().next_back();
    let seconds = unit.and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        'w' => Some(7 * 86_400),
        _ => None,
    });
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<u64>().ok());
    match (number, seconds) {
        (Some(number), Some(seconds)) => number
            .checked_mul(seconds)
            .map(Duration::from_secs)
            .ok_or_else(|| "longer than can be counted".to_owned()),
        _ => Err("not a whole number with s, m, h, d or w behind it".to_owned()),
    }
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.yes, "the events would never be delivered: say --yes if that is meant");
    let what = match args.older_than {
        Some(age) => {
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            What::ReadBefore(Timestamp::from_millis(clock::wall().millis().saturating_sub(age_ms)))
        }
        None => What::All,
    };
    let bar = Bar::new("purge", true);
    let purged = tools::purge(&super::options(cli), what, &|done, total| bar.show(done, total))?;
    drop(bar);
    super::print(args.json, &purged, &Text(&purged))?;
    Ok(ExitCode::SUCCESS)
}

struct Text<'a>(&'a Purged);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Purged { dropped, damaged, freed_bytes } = self.0;
        for (source, events) in dropped {
            line(f, "dropped", format_args!("{} of {source}", super::count(*events, "event")))?;
        }
        for (source, events) in damaged {
            line(f, "damaged", format_args!("{} of {source}", super::count(*events, "event")))?;
        }
        let events: u64 = dropped.iter().map(|(_, events)| events).sum();
        line(f, "sum", format_args!("{} dropped, {} freed", HumanCount(events), HumanBytes(*freed_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for nonsense in ["", "7", "d", "-1d", "1.5h", "7 d", "1y", "3é", "18446744073709551615w"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }
}

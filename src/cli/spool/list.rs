//! `log-agent spool list`.

use std::fmt;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use indicatif::HumanBytes;

use super::progress::Bar;
use super::{count, files, line, quiet_pipe};
use crate::cli::Cli;
use crate::event::Timestamp;
use crate::spool::tools::{self, BatchRow, Listing, SegmentRow, ToolError};

const AFTER_HELP: &str = "\
How many events of a segment wait is in the ledger, which a running agent has for itself; beside one the segments are
listed without that, and --batches is refused with the agent's process id.

Examples:
  log-agent spool list
  log-agent spool list --batches
  log-agent spool list --json | jq '.segments[] | select(.waiting > 0)'
  log-agent spool list --batches --json | jq -r .idempotency_key

Exit codes:
  0   ok
  1   there is no spool, or it cannot be read; with --batches also: an agent runs on it";

/// Arguments of `log-agent spool list`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Lists the batches that were cut and are not acknowledged, instead of the segments.
    #[arg(long)]
    batches: bool,
    /// Prints JSON instead of text; batches as one object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    if args.batches {
        quiet_pipe(batches(&dir, args.json))?;
    } else {
        let listing = tools::list(&dir)?;
        super::print(args.json, &listing, &Text(&listing))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn batches(dir: &Path, json: bool) -> Result<(), ToolError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let bar = Bar::new("list", !super::is_terminal());
    tools::batches(dir, &|done, total| bar.show(done, total), |row| {
        let text = if json {
            serde_json::to_string(row).map_err(|error| ToolError::Output(error.into()))? + "\n"
        } else {
            BatchText(row).to_string()
        };
        out.write_all(text.as_bytes()).map_err(ToolError::Output)
    })?;
    out.flush().map_err(ToolError::Output)
}

/// The segments for people.
struct Text<'a>(&'a Listing);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listing { agent, segments } = self.0;
        if let Some(agent) = agent {
            line(f, "agent", files::runs(*agent))?;
        }
        let bytes = segments.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
        line(
            f,
            "segments",
            format_args!("{}, {}", count(segments.len() as u64, "segment"), HumanBytes(bytes)),
        )?;
        segments.iter().try_for_each(|row| segment(f, row))
    }
}

fn segment(f: &mut fmt::Formatter<'_>, row: &SegmentRow) -> fmt::Result {
    let state = match (row.active, row.waiting, row.events) {
        (true, ..) => "active".to_owned(),
        (false, None, _) => "sealed".to_owned(),
        (false, _, 0) => "sealed, no events".to_owned(),
        (false, Some(0), _) => "sealed, all settled".to_owned(),
        (false, Some(waiting), _) => format!("sealed, {} waiting", count(waiting, "event")),
    };
    let positions = match row.last {
        Some(last) => format!("positions {}-{last}, ", row.first),
        None => String::new(),
    };
    let begun = match row.created_ms {
        0 => "header damaged".to_owned(),
        ms => format!("begun {}", Timestamp::from_millis(ms)),
    };
    line(
        f,
        &format!("  {}", row.number),
        format_args!(
            "{positions}{}, {}, {state}, {begun}",
            count(row.events, "event"),
            HumanBytes(row.bytes)
        ),
    )
}

struct BatchText<'a>(&'a BatchRow);

impl fmt::Display for BatchText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BatchRow { batch, events, sources, damaged, .. } = self.0;
        write!(f, "{batch:<24}{:>12}", count(*events, "event"))?;
        for source in sources {
            write!(f, "  {} {}-{}", source.source, source.first, source.last)?;
        }
        writeln!(f, "{}", if *damaged { "  DAMAGED" } else { "" })
    }
}

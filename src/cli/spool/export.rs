//! `log-agent spool export`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::progress::Bar;
use super::{count, quiet_pipe};
use crate::cli::{Cli, EXIT_FOUND};
use crate::event::Position;
use crate::spool::tools::{self, Bound};

const AFTER_HELP: &str = "\
One object a line, by position: position, source, seq, path, time, continues, data. What is not UTF-8 is replaced in data,
and stands in data_base64 as it is. All events of the segments are written, those that were delivered included, for as long
as their segment is there. Works whether or not an agent runs, and changes nothing.

--from and --to take a position, or a time such as 2024-01-15T10:30:00Z; both include what they name.

Examples:
  log-agent spool export | jq -r 'select(.source == \"app\") | .data'
  log-agent spool export --from 120000 --to 120345 --out events.ndjson
  log-agent spool export --from 2024-01-15T10:30:00Z | zstd > events.ndjson.zst

Exit codes:
  0   every event of the range was written
  1   there is no spool, it cannot be read, or the output not be written
  2   some events of the range cannot be read: see log-agent spool verify";

/// Arguments of `log-agent spool export`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The first event.
    #[arg(long, value_name = "POSITION|TIME", value_parser = bound)]
    from: Option<Bound>,
    /// The last event.
    #[arg(long, value_name = "POSITION|TIME", value_parser = bound)]
    to: Option<Bound>,
    /// Writes to this file, which must not exist, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn bound(text: &str) -> Result<Bound, String> {
    if let Ok(position) = text.parse() {
        return Ok(Bound::Position(Position(position)));
    }
    super::time(text).map(Bound::Time).ok_or_else(|| "neither a position nor a time".to_owned())
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    let (out, is_in_the_way): (Box<dyn Write>, bool) = match &args.out {
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
            (Box::new(file), false)
        }
        None => (Box::new(io::stdout().lock()), super::is_terminal()),
    };
    let bar = Bar::new("export", !is_in_the_way);
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let exported = tools::export(&dir, args.from, args.to, &mut out, &|done, total| bar.show(done, total));
    drop(bar);
    let Some(exported) = quiet_pipe(exported)? else { return Ok(ExitCode::SUCCESS) };
    if exported.missing == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(
        io::stderr(),
        "log-agent: {} of the range cannot be read: see log-agent spool verify",
        count(exported.missing, "event")
    );
    Ok(ExitCode::from(EXIT_FOUND))
}

//! `log-agent spool show`.

use std::fmt;
use std::process::ExitCode;

use super::{count, line};
use crate::cli::Cli;
use crate::spool::tools::{self, BatchView, EventRecord, EventView, Found, State, Wanted};

const AFTER_HELP: &str = "\
An event is named by its source and its sequence number, as in app:1001, or by its position, as in @120345. Where a number
was given under several spool ids, the newest is meant. A batch is named by its key: 1001-1050, 1001-1050.0-25 for a part,
or the whole Idempotency-Key that a server has seen. Works whether or not an agent runs; beside one it is not told what has
become of an event. Nothing is changed.

Examples:
  log-agent spool show app:1001
  log-agent spool show @120345 --json | jq -r .data
  log-agent spool show 1001-1050

Exit codes:
  0   it was found
  1   it is not there, there is no spool, or it cannot be read";

/// Arguments of `log-agent spool show`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// SOURCE:NUMBER, @POSITION, or the key of a batch.
    #[arg(value_name = "EVENT|BATCH")]
    wanted: Wanted,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    let found = tools::find(&dir, &args.wanted)?;
    super::print(args.json, &found, &Text(&found))?;
    Ok(ExitCode::SUCCESS)
}

struct Text<'a>(&'a Found);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Found::Event(view) => event(f, view),
            Found::Batch(view) => batch(f, view),
        }
    }
}

fn event(f: &mut fmt::Formatter<'_>, view: &EventView) -> fmt::Result {
    let EventView { event, spool_id, segment, offset, file_start, file_end, state } = view;
    line(f, "event", format_args!("{}:{}", event.source, event.seq))?;
    line(f, "position", event.position)?;
    line(f, "id", spool_id)?;
    match event.path.is_empty() {
        true => line(f, "file", "none, it was a dead letter")?,
        false => line(f, "file", format_args!("{}, from {file_start} to {file_end}", event.path))?,
    }
    line(f, "time", &event.time)?;
    line(f, "frame", format_args!("segment {segment}, offset {offset}"))?;
    match state {
        State::Unknown => line(f, "state", "known to the agent that runs on this spool")?,
        State::NoLedger => line(f, "state", "unknown: the ledger cannot be read")?,
        State::Uncut => line(f, "state", "waits, not cut into a batch yet")?,
        State::Outstanding { batch } => line(f, "state", format_args!("waits in batch {batch}"))?,
        State::Dead { status } => line(f, "state", format_args!("dead letter, status {status}"))?,
        State::Settled => line(f, "state", "settled")?,
    }
    line(f, "data", data(event))
}

fn batch(f: &mut fmt::Formatter<'_>, view: &BatchView) -> fmt::Result {
    let BatchView { idempotency_key, sources, outstanding, missing, events, .. } = view;
    line(f, "batch", &view.batch)?;
    line(f, "key", idempotency_key)?;
    for source in sources {
        line(f, "source", format_args!("{} {}-{}", source.source, source.first, source.last))?;
    }
    match outstanding {
        Some(true) => line(f, "state", "cut and not acknowledged")?,
        Some(false) => line(f, "state", "no outstanding batch of this key")?,
        None => {}
    }
    if *missing > 0 {
        line(f, "DAMAGED", format_args!("{} cannot be read", count(*missing, "event")))?;
    }
    for event in events {
        writeln!(
            f,
            "{:>10}  {}:{}  {}  {}",
            event.position,
            event.source,
            event.seq,
            event.time,
            data(event)
        )?;
    }
    Ok(())
}

/// The line with control characters escaped, so that it is one line and moves no cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut printable, c| {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
        printable
    })
}

fn data(event: &EventRecord<'_>) -> String {
    let goes_on = if event.continues { " …" } else { "" };
    format!("{}{goes_on}", printable(&event.data))
}

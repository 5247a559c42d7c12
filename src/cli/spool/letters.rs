//! `log-agent spool dead-letters`.

use std::fmt;
use std::process::ExitCode;

use super::progress::Bar;
use super::show::printable;
use super::{count, line};
use crate::cli::{Cli, EXIT_FOUND};
use crate::spool::tools::{self, LetterRecord, Selection, Wanted};

const AFTER_HELP: &str = "\
A dead letter is an event that the server refused for good (400, 413, 422), with its answer. `list` and `show` work whether
or not an agent runs, and change nothing; `requeue` and `purge` need the agent stopped.

requeue appends the events to the spool again, as new events of their sources under new sequence numbers, and takes each out
of the dead letters once that is durable. The server sees the same line with the same time. In the accounts the old event
stays dead, and the new one is spooled. purge deletes dead letters; in the accounts the events stay dead.

Which ones: EVENT... as SOURCE:NUMBER, @POSITION or a range of positions such as 1001-1050; --source and --status narrow
that down; --all is all of them.

Examples:
  log-agent spool dead-letters list --status 422
  log-agent spool dead-letters show app:1017
  log-agent spool dead-letters requeue --all
  log-agent spool dead-letters purge app:1017 --yes

Exit codes:
  0   ok
  1   there is no spool, it cannot be read or written, or an agent runs on it (requeue, purge)
  2   there is no such dead letter (show, requeue, purge)";

/// Arguments of `log-agent spool dead-letters`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with the dead letters.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists them: position, event, time, status and the server's answer.
    #[command(after_help = AFTER_HELP)]
    List(List),
    /// Shows some with their lines.
    #[command(after_help = AFTER_HELP)]
    Show(Show),
    /// Sends some again, as new events.
    #[command(after_help = AFTER_HELP)]
    Requeue(Which),
    /// Deletes some.
    #[command(after_help = AFTER_HELP)]
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    narrow: Narrow,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    which: Which,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Purge {
    #[command(flatten)]
    which: Which,
    /// Confirms that they are not needed any more.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// SOURCE:NUMBER, @POSITION, or a range of positions such as 1001-1050.
    #[arg(value_name = "EVENT", required_unless_present_any = ["all", "source", "status"])]
    events: Vec<Wanted>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["events", "source", "status"])]
    all: bool,
    #[command(flatten)]
    narrow: Narrow,
}

#[derive(Debug, clap::Args)]
struct Narrow {
    /// Only those of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only those that the server answered with this status.
    #[arg(long, value_name = "STATUS")]
    status: Option<u16>,
}

impl Which {
    fn selection(&self) -> Selection {
        Selection { events: self.events.clone(), ..self.narrow.selection() }
    }
}

impl Narrow {
    fn selection(&self) -> Selection {
        Selection { events: Vec::new(), source: self.source.clone(), status: self.status }
    }
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    let done = match &args.command {
        Command::List(list) => {
            let letters = tools::letters(&dir, &list.narrow.selection())?;
            super::print(list.json, &letters, &ListText(&letters))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Show(show) => {
            let letters = tools::letters(&dir, &show.which.selection())?;
            if !letters.is_empty() {
                super::print(show.json, &letters, &ShowText(&letters))?;
                return Ok(ExitCode::SUCCESS);
            }
            Done { events: 0, what: "" }
        }
        Command::Requeue(which) => {
            let bar = Bar::new("requeue", true);
            let show = |done, total| bar.show(done, total);
            let events = tools::requeue(&super::options(cli), &which.selection(), &show)?;
            Done { events, what: "in the spool again, as a new event" }
        }
        Command::Purge(purge) => {
            anyhow::ensure!(
                purge.yes,
                "the dead letters would be deleted for good: say --yes if that is meant"
            );
            let events = tools::purge_letters(&dir, &purge.which.selection())?;
            Done { events, what: "deleted" }
        }
    };
    super::print(false, &(), &done)?;
    Ok(if done.events == 0 { ExitCode::from(EXIT_FOUND) } else { ExitCode::SUCCESS })
}

struct Done {
    events: u64,
    what: &'static str,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.events {
            0 => writeln!(f, "there is no such dead letter"),
            1 => writeln!(f, "1 dead letter is {}", self.what),
            many => {
                let what = self.what.replace("as a new event", "as new events");
                writeln!(f, "{} are {what}", count(many, "dead letter"))
            }
        }
    }
}

struct ListText<'a>(&'a [LetterRecord]);

impl fmt::Display for ListText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "dead letters", count(self.0.len() as u64, "event"))?;
        for LetterRecord { position, source, seq, time, status, response, .. } in self.0 {
            let answer = printable(response.lines().next().unwrap_or_default());
            writeln!(f, "{position:>10}  {source}:{seq}  {time}  {status}  {answer}")?;
        }
        Ok(())
    }
}

struct ShowText<'a>(&'a [LetterRecord]);

impl fmt::Display for ShowText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, letter) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            line(f, "event", format_args!("{}:{}", letter.source, letter.seq))?;
            line(f, "position", letter.position)?;
            line(f, "time", &letter.time)?;
            line(f, "status", letter.status)?;
            line(f, "answer", printable(&letter.response))?;
            line(f, "data", printable(&letter.data))?;
        }
        Ok(())
    }
}

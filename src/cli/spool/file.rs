//! `log-agent spool file`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::HumanCount;

use super::{files, line, skipped};
use crate::cli::{Cli, EXIT_FOUND};
use crate::config::Config;
use crate::event::SourceName;
use crate::files::{Answer, FileReport, FileVerdict, examine};
use crate::tail::discover::Pattern;

const AFTER_HELP: &str = "\
The file is looked for by what it is (device, inode, birth time and content), so it may have been renamed since. It may
be deleted when every byte of it is in the spool, or was skipped for a counted reason, for every source that follows it:
those that the spool knows, and those of the configuration, where it can be loaded, whose log_path matches. That holds
for what the file has now, whatever happens to the agent or the machine; a writer may still add to it. Works whether or
not an agent runs; nothing is changed.

Examples:
  log-agent spool file /var/log/app.log.1 && rm /var/log/app.log.1
  log-agent spool file /var/log/app.log --json | jq .sources

Exit codes:
  0   it may be deleted
  2   it must be kept: something in it is not read, or the spool does not know it
  1   it cannot be told: there is no spool, or it or the file cannot be read";

/// Arguments of `log-agent spool file`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The file.
    path: PathBuf,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, config) = super::directory(cli);
    let followers = config.as_ref().map_or(Vec::new(), |config| followers(config, &args.path));
    let report = examine(&dir, &args.path, &followers)?;
    super::print(args.json, &report, &Text(&report))?;
    Ok(if report.may_be_deleted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// The sources that follow what is at `path`.
fn followers(config: &Config, path: &Path) -> Vec<SourceName> {
    // As it is named and as it is: a pattern may lead through links.
    let names: Vec<_> = [std::path::absolute(path), path.canonicalize()].into_iter().flatten().collect();
    let matches = |text: &String| {
        Pattern::new(text).is_ok_and(|pattern| names.iter().any(|name| pattern.matches(name)))
    };
    let follows = config
        .sources
        .iter()
        .filter(|source| matches(&source.log_path) && !source.exclude.iter().any(matches));
    follows.map(|source| source.name.clone()).collect()
}

/// The report for people.
struct Text<'a>(&'a FileReport);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        line(f, "file", &report.path)?;
        line(
            f,
            "",
            format_args!("{}, {} bytes", files::identity(&report.identity), HumanCount(report.size)),
        )?;
        if let Some(agent) = report.agent {
            line(f, "agent", files::runs(agent))?;
        }
        for verdict in &report.sources {
            source(f, verdict)?;
        }
        match (report.may_be_deleted, report.sources.is_empty()) {
            (true, _) => line(f, "answer", "it may be deleted"),
            (false, true) => line(f, "answer", "it must be kept: the spool does not know it"),
            (false, false) => line(f, "answer", "it must be kept"),
        }
    }
}

fn source(f: &mut fmt::Formatter<'_>, verdict: &FileVerdict) -> fmt::Result {
    line(f, "source", &verdict.source)?;
    if verdict.answer == Answer::Unknown {
        return line(f, "", "follows it by the configuration, and the spool does not know it yet");
    }
    let skipped = skipped(&verdict.skipped);
    let sign = if verdict.answer == Answer::Unbalanced { "≠" } else { "=" };
    line(f, "", format_args!("read to {} {sign} {} spooled{skipped}", verdict.offset, verdict.spooled))?;
    match verdict.answer {
        Answer::Read | Answer::Unknown => Ok(()),
        Answer::Unread { unread_bytes } => line(f, "", format_args!("{unread_bytes} bytes are not read")),
        Answer::IncompleteLine { unread_bytes } => {
            line(f, "", format_args!("{unread_bytes} bytes wait for the end of their line"))
        }
        Answer::Replaced { unread_bytes } => line(
            f,
            "",
            format_args!("truncated or written anew since: none of its {unread_bytes} bytes is read"),
        ),
        Answer::Unbalanced => line(f, "", "WRONG: the account of its bytes does not balance"),
    }
}

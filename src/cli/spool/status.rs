//! `log-agent spool status`.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde::Serialize;

use super::{count, files, line, skipped};
use crate::cli::{Cli, EXIT_FOUND};
use crate::event::Timestamp;
use crate::files::{FileList, list};
use crate::spool::inspect::{self, Report, SourceStatus};

const AFTER_HELP: &str = "\
The spool is that of --spool-dir, or else of the configuration where it can be loaded, or else ./log-agent-spool. It is
not changed. While an agent runs on it, this is refused with the agent's process id; with --files only the files are
listed then.

Examples:
  log-agent spool status
  log-agent spool status --spool-dir /var/lib/log-agent
  log-agent spool status --json | jq .backlog.events
  log-agent spool status --files --json | jq '.files.list[] | select(.lag_bytes > 0)'

Exit codes:
  0   everything balances
  1   there is no spool, an agent runs on it, or it cannot be read
  2   events or bytes are unaccounted for";

/// Arguments of `log-agent spool status`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Lists the files with where they are, how far they are read and how far that is behind.
    #[arg(long)]
    files: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    report: Option<Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<FileList>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> anyhow::Result<ExitCode> {
    let (dir, _) = super::directory(cli);
    let files = if args.files { Some(list(&dir)?) } else { None };
    // Beside an agent the files are all that can be told.
    let agent_runs = files.as_ref().is_some_and(|files| files.agent.is_some());
    let report = if agent_runs { None } else { Some(inspect::report(&dir)?) };
    let status = Status { report, files };
    super::print(args.json, &status, &status)?;
    Ok(if status.is_balanced() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

impl Status {
    fn is_balanced(&self) -> bool {
        self.report.as_ref().is_none_or(|report| report.balanced)
            && self.files.iter().flat_map(|files| &files.list).all(|file| file.balanced)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            Text { report, lists_files: self.files.is_none() }.fmt(f)?;
        }
        if let Some(files) = &self.files {
            files::Text(files).fmt(f)?;
        }
        if !self.is_balanced() {
            line(f, "WRONG", "the accounts do not balance: events or bytes are unaccounted for")?;
        }
        Ok(())
    }
}

/// The report for people.
struct Text<'a> {
    report: &'a Report,
    /// The files are listed with their sources, and not on their own.
    lists_files: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { backlog, segments, dead_letters, .. } = self.report;
        line(f, "spool", self.report.dir.display())?;
        line(f, "id", &self.report.spool_id)?;
        let waiting = format_args!("{} events, {}", HumanCount(backlog.events), HumanBytes(backlog.bytes));
        line(f, "backlog", waiting)?;
        if let (Some(oldest), Some(age)) = (backlog.oldest_ms, backlog.oldest_age_secs) {
            let age = HumanDuration(std::time::Duration::from_secs(age));
            line(f, "", format_args!("the oldest from {}, {age} ago", Timestamp::from_millis(oldest)))?;
        }
        line(f, "segments", format_args!("{}, {}", segments.count, HumanBytes(segments.bytes)))?;
        line(f, "batches", format_args!("{} cut and not acknowledged", HumanCount(self.report.batches)))?;
        let mut dead = HumanCount(dead_letters.count).to_string();
        for (index, (status, count)) in dead_letters.by_status.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(dead, "{before}{count} with status {status}")?;
        }
        line(f, "dead letters", &dead)?;
        if self.report.quarantine_bytes > 0 {
            let bytes = HumanBytes(self.report.quarantine_bytes);
            line(f, "quarantine", format_args!("{bytes} of damaged bytes"))?;
        }
        for source in &self.report.sources {
            self.source(f, source)?;
        }
        self.losses(f)
    }
}

impl Text<'_> {
    fn source(&self, f: &mut fmt::Formatter<'_>, status: &SourceStatus) -> fmt::Result {
        let SourceStatus { acknowledged, pending, dead, dropped, damaged, bytes, .. } = status;
        let sign = |balanced| if balanced { "=" } else { "≠" };
        line(f, "source", &status.source)?;
        let events = format_args!(
            "{} spooled {} {acknowledged} acknowledged + {pending} pending + {dead} dead + {dropped} dropped \
             + {damaged} damaged",
            status.spooled,
            sign(status.balanced),
        );
        line(f, "  events", events)?;
        let skipped = skipped(&bytes.skipped);
        let sign = sign(bytes.balanced);
        line(f, "  bytes", format_args!("{} read {sign} {} spooled{skipped}", bytes.read, bytes.spooled))?;
        let files = self.report.checkpoints.iter().filter(|file| file.source == status.source);
        for file in files.filter(|file| self.lists_files || !file.balanced) {
            let wrong = if file.balanced { "" } else { ", and its bytes do not add up to that" };
            line(f, "", format_args!("{} read to {}{wrong}", file.path, file.offset))?;
        }
        Ok(())
    }

    /// The newest losses, newest last.
    fn losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let losses = &self.report.losses;
        if losses.count == 0 {
            return Ok(());
        }
        let kept = losses.newest.len() as u64;
        let shown = if kept < losses.count { format!(", the last {kept} of them:") } else { ":".to_owned() };
        line(f, "LOST", format_args!("bytes of files, {}{shown}", count(losses.count, "time")))?;
        for loss in &losses.newest {
            let (bytes, at) = (loss.end.saturating_sub(loss.start), Timestamp::from_millis(loss.at_ms));
            line(f, "", format_args!("{} of source {}", loss.path, loss.source))?;
            let range = format_args!("{} to {}", loss.start, loss.end);
            line(f, "", format_args!("  {} from {range}: {}, {at}", HumanBytes(bytes), loss.reason))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FileOffset, FrameDraft, FrameSink as _, SkipReason, Skips};
    use crate::spool::Spool;
    use crate::spool::tests::{committed, draft, numbered, options};

    #[test]
    fn what_was_lost_is_said_with_its_place_and_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(dir.path())).unwrap();
        let mut lost = draft("app", 0, &[]);
        lost.checkpoint.offset = FileOffset(2048);
        lost.skips = Skips::of(SkipReason::Truncated, 2048);
        spool.appender().append(lost).unwrap();
        let mut skipping = draft("app", 0, &numbered(0, 2));
        skipping.checkpoint.offset = FileOffset(24 + 10);
        skipping.skips.add(SkipReason::Excluded, 10, 2);
        spool.appender().append(FrameDraft { start: FileOffset(0), ..skipping }).unwrap();
        committed(&spool, 3);
        spool.close();
        let report = inspect::report(dir.path()).unwrap();
        let status = Status { report: Some(report), files: None };
        assert!(status.is_balanced());
        let text = status.to_string();
        let told = "  bytes       2082 read = 24 spooled + 10 excluded (2 lines) + 2048 truncated\n";
        assert!(text.contains(told), "{text}");
        let lost = "LOST          bytes of files, 1 time:\n              /var/log/app.log of source app\n                \
                    2.00 KiB from 0 to 2048: truncated, 2023-11-14T22:13:20.000Z\n";
        assert!(text.ends_with(lost), "{text}");
    }
}

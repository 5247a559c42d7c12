//! The files that a spool knows, for people.

use std::fmt;

use indicatif::{HumanBytes, HumanDuration};

use super::{count, line};
use crate::event::Timestamp;
use crate::files::{FileEntry, FileList, Identity, Place};
use crate::spool::Agent;

/// The list for people.
pub(super) struct Text<'a>(pub &'a FileList);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileList { agent, lag_bytes, held_bytes, list } = self.0;
        if let Some(agent) = agent {
            line(f, "agent", runs(*agent))?;
        }
        let files = count(list.len() as u64, "file");
        line(f, "files", format_args!("{files}, {} not read yet", HumanBytes(*lag_bytes)))?;
        match (agent, held_bytes) {
            (Some(_), None) => line(f, "", "which files the agent has open cannot be seen")?,
            (_, Some(bytes)) if *bytes > 0 => {
                line(f, "", format_args!("{} of disk held by deleted files", HumanBytes(*bytes)))?;
            }
            _ => {}
        }
        let mut before = None;
        for file in list {
            if before.replace(&file.source) != Some(&file.source) {
                line(f, "source", &file.source)?;
            }
            entry(f, file)?;
        }
        Ok(())
    }
}

fn entry(f: &mut fmt::Formatter<'_>, file: &FileEntry) -> fmt::Result {
    line(f, "", &file.path)?;
    match &file.place {
        Place::Renamed { found_at } => line(f, "", format_args!("  renamed to {found_at}"))?,
        Place::DeletedHeldOpen { held_bytes } => {
            line(f, "", format_args!("  deleted, held open: {} of disk", HumanBytes(*held_bytes)))?;
        }
        Place::Gone => line(f, "", "  gone")?,
        Place::Current => {}
    }
    let wrong = if file.balanced { "" } else { "; WRONG: its bytes do not add up to that" };
    match (file.size, file.lag_bytes, file.lag_secs) {
        (Some(size), Some(0), _) => line(f, "", format_args!("  read to its end at {size}{wrong}"))?,
        (Some(size), Some(bytes), Some(secs)) => {
            let behind = HumanDuration(std::time::Duration::from_secs(secs));
            let bytes = HumanBytes(bytes);
            line(
                f,
                "",
                format_args!("  read to {} of {size}: {bytes} and {behind} behind{wrong}", file.offset),
            )?;
        }
        _ => line(f, "", format_args!("  read to {}{wrong}", file.offset))?,
    }
    line(f, "", format_args!("  {}", identity(&file.identity)))
}

/// What the file system says a file is.
pub(super) fn identity(identity: &Identity) -> String {
    let Identity { dev, ino, birth_ns } = identity;
    match i64::try_from(birth_ns / 1_000_000) {
        Ok(ms) if ms > 0 => format!("inode {dev}:{ino}, born {}", Timestamp::from_millis(ms)),
        _ => format!("inode {dev}:{ino}"),
    }
}

/// That an agent runs.
pub(super) fn runs(agent: Agent) -> String {
    match agent.pid {
        Some(pid) => format!("process {pid} runs on this spool"),
        None => "one runs on this spool".to_owned(),
    }
}

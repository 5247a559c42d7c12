//! What an operator does with a spool: read all of it, find out what is wrong, mend it, take something out of it.
//!
//! Invariants:
//! - What only looks ([`list()`], [`find`], [`export()`], [`verify()`], [`letters()`]) changes nothing and holds no lock, so it
//!   may run beside an agent; it reads what the agent has committed then, and not the ledger, which only the agent can.
//! - What changes something ([`repair()`], [`purge()`], [`requeue`], [`purge_letters`]) holds the spool's lock from its first
//!   look to its last write, and goes through the recovery that an agent starts with.
//! - Nothing is deleted that nobody asked to delete: damaged bytes are kept in `quarantine/`.
//! - Memory is bounded by a frame, a batch, or the dead letters, however long the log is.

mod event;
mod export;
mod letters;
mod list;
mod look;
mod purge;
mod repair;
mod show;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::io;

pub(crate) use event::EventRecord;
pub(crate) use export::{Bound, export};
pub(crate) use letters::{LetterRecord, Selection, letters, purge_letters, requeue};
pub(crate) use list::{BatchRow, Listing, SegmentRow, batches, list};
pub(crate) use purge::{Purged, What, purge};
pub(crate) use repair::{Repaired, repair};
pub(crate) use show::{BatchView, EventView, Found, State, Wanted, find};
pub(crate) use verify::{Verified, verify};

use super::{LedgerError, SpoolError};

/// How far long work has come: what is done, and what there is to do.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, u64);

/// Why a tool could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What was found cannot be written.
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    /// There is no such event or batch.
    #[error("there is no {what} in the segments of this spool")]
    NotThere {
        /// What was looked for.
        what: String,
    },
    /// The spool did not take what was appended.
    #[error("the disk did not take the events; what was not taken is still among the dead letters")]
    NotTaken,
}

impl From<LedgerError> for ToolError {
    fn from(error: LedgerError) -> Self {
        Self::Spool(error.into())
    }
}

impl ToolError {
    /// Whether whoever reads the output has seen enough.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

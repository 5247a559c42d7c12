//! What the ledger holds, for the threads that do not own it.
//!
//! Invariant: the view shows what is durable in the ledger, never what is only on its way there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::keeper::Counts;
use super::ledger::{Books, Location, SourceRecord};
use crate::batch::BatchId;
use crate::event::{Position, SourceName};

/// Where an outstanding batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filed {
    pub at: Location,
    pub profile: u32,
    /// The group that it is filed under.
    pub group: u64,
}

/// The durable state of delivery.
#[derive(Debug)]
pub(super) struct View {
    pub batches: HashMap<BatchId, Filed>,
    pub sources: BTreeMap<SourceName, SourceRecord>,
    /// The first position that is not cut into a batch.
    pub cursor: Position,
    /// Every event before this position is acknowledged, dead, dropped or damaged.
    pub frontier: Position,
}

/// The view and its lock.
#[derive(Debug)]
pub(super) struct Shared {
    view: Mutex<View>,
    spooled: Mutex<Counts>,
}

impl Shared {
    pub(super) fn new(books: &Books, spooled: Counts) -> Self {
        let mut batches = HashMap::new();
        for (number, group) in &books.groups {
            for record in &group.batches {
                let filed = Filed { at: record.at, profile: group.profile, group: *number };
                batches.insert(record.id, filed);
            }
        }
        let sources = books.sources.clone();
        let (cursor, frontier) = (books.cursor, books.frontier());
        Self { view: Mutex::new(View { batches, sources, cursor, frontier }), spooled: Mutex::new(spooled) }
    }

    /// For each source the events that were ever committed.
    pub(super) fn spooled(&self) -> MutexGuard<'_, Counts> {
        // No code panics while it holds the lock, and the counts are whole at every moment.
        self.spooled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // No code panics while it holds the lock, and the view is whole at every moment.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What the ledger holds, for the threads that do not own it.
//!
//! Invariant: the view shows what is durable in the ledger, never what is only on its way there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::{Books, Location};
use super::segment::Account;
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
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub batches: HashMap<BatchId, Filed>,
    pub accounts: BTreeMap<SourceName, Account>,
    /// Every event before this position is acknowledged, dead, dropped or damaged.
    pub frontier: Position,
}

/// The view and its lock.
#[derive(Debug, Default)]
pub(super) struct Shared {
    view: Mutex<View>,
}

impl Shared {
    pub(super) fn new(books: &Books) -> Self {
        let mut view = View { frontier: books.frontier(), ..View::default() };
        for (number, group) in &books.groups {
            for record in &group.batches {
                let filed = Filed { at: record.at, profile: group.profile, group: *number };
                view.batches.insert(record.id, filed);
            }
        }
        view.accounts = books.sources.iter().map(|(name, record)| (name.clone(), record.account)).collect();
        Self { view: Mutex::new(view) }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // No code panics while it holds the lock, and the view is whole at every moment.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

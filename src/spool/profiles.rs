//! The profiles of the books: what batches are encoded under beside their content.
//!
//! Invariants:
//! - A batch keeps its profile, and with it its bytes, as long as its format is the one that batches are sent in.
//! - A batch that takes another profile takes another key with it, which names that profile.

use std::collections::BTreeSet;

use super::ledger::{Books, Changes, Group};
use crate::batch::BatchId;
use crate::payload::Profile;

impl Books {
    /// Makes `profile` the one that batches are cut under; says its number. What is filed under another format is filed
    /// under this one: what it was would mean nothing where batches go to now.
    pub(super) fn use_profile(&mut self, profile: &Profile, changes: &mut Changes) -> u32 {
        let number = self.enter_profile(profile, changes);
        self.refile(profile, changes);
        self.forget_profiles(number, changes);
        number
    }

    /// The number of the profile that was used last.
    pub(super) fn last_profile(&self) -> u32 {
        let last = self.profiles.iter().rev().find(|(_, known)| !known.rekeyed);
        last.map_or(0, |(number, _)| *number)
    }

    /// The number of `profile`, which is entered where it is new.
    fn enter_profile(&mut self, profile: &Profile, changes: &mut Changes) -> u32 {
        if let Some((number, _)) = self.profiles.iter().find(|(_, known)| *known == profile) {
            return *number;
        }
        let number = self.profiles.keys().next_back().map_or(0, |last| last.saturating_add(1));
        changes.profile(number, profile);
        self.profiles.insert(number, profile.clone());
        number
    }

    /// What `batch`, one that is not acknowledged, is encoded under.
    pub(super) fn profile_of(&self, batch: BatchId) -> Option<&Profile> {
        let has = |group: &&Group| group.batches.iter().any(|record| record.id == batch);
        self.profiles.get(&self.groups.values().find(has)?.profile)
    }

    /// Files the batches that have another format than `profile` under it, with keys of their own.
    fn refile(&mut self, profile: &Profile, changes: &mut Changes) {
        let of_another_format = |books: &Self, group: &Group| {
            books.profiles.get(&group.profile).is_some_and(|own| own.format != profile.format)
        };
        let numbers: Vec<u64> = self
            .groups
            .iter()
            .filter(|(_, group)| of_another_format(self, group))
            .map(|(number, _)| *number)
            .collect();
        if numbers.is_empty() {
            return;
        }
        let rekeyed = self.enter_profile(&Profile { rekeyed: true, ..profile.clone() }, changes);
        tracing::info!(
            format = profile.format.name(),
            groups = numbers.len(),
            "batches that were cut under another format are sent in the new one, under new keys"
        );
        for number in numbers {
            if let Some(group) = self.groups.get_mut(&number) {
                group.profile = rekeyed;
                changes.group(number, group);
            }
        }
    }

    /// Forgets the profiles that no batch is filed under, but for `current`: a configuration may change for ever.
    fn forget_profiles(&mut self, current: u32, changes: &mut Changes) {
        let used: BTreeSet<u32> = self.groups.values().map(|group| group.profile).chain([current]).collect();
        self.profiles.retain(|number, profile| {
            let is_used = used.contains(number);
            if !is_used {
                changes.forget_profile(*number, profile);
            }
            is_used
        });
    }
}

//! Files that lost their names: where they are looked for, and when they are given up.
//!
//! Invariants:
//! - A file is looked for through its handle, by inode beside its old name, by inode in the directories near, and at last
//!   as a copy of itself, in this order.
//! - Nothing is given up before its time; what is known to be lost then is counted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{FORGET_AFTER, FORGET_UNMOUNTED_AFTER, Roster, SAFETY_LOOK, copies, skip_note, through_handle};
use crate::clock;
use crate::event::{FileOffset, SkipReason};
use crate::tail::detour::Then;
use crate::tail::file::{FileKey, Origin, Place, ReadBuffer};
use crate::tail::identity::{self, Stat};

/// How long files are searched for in directories near before what is ready is read: each may take some milliseconds.
const SEARCH_AT_ONCE: Duration = Duration::from_millis(20);
/// After this time a file that is nowhere to be found is searched for once more in the directories near.
const SEARCH_AGAIN: Duration = Duration::from_secs(60);

impl Roster {
    /// Looks for the files that lost their names, and for generations that came and went unseen.
    pub(in crate::tail) fn settle(&mut self, buffer: &mut ReadBuffer, now: Instant) {
        let mut by_dir: HashMap<PathBuf, Vec<FileKey>> = HashMap::new();
        for key in std::mem::take(&mut self.displaced) {
            let Some(file) = self.files.get(&key) else { continue };
            if !matches!(file.place, Place::Displaced | Place::Missing) {
                continue;
            }
            if let Some((path, stat)) = through_handle(file) {
                self.locate(key, path, &stat, now);
            } else if let Some(dir) = file.path.parent() {
                by_dir.entry(dir.to_owned()).or_default().push(key);
            }
        }
        for (dir, keys) in by_dir {
            self.find_in(&dir, &keys, buffer, now);
        }
        for older in std::mem::take(&mut self.successions) {
            self.find_generations(older, buffer, now);
        }
    }

    /// Looks for files by identity beside their old names.
    fn find_in(&mut self, dir: &Path, keys: &[FileKey], buffer: &mut ReadBuffer, now: Instant) {
        self.find_by_inode(dir, keys, now);
        let missing: Vec<FileKey> =
            keys.iter().copied().filter(|key| self.is_search_due(*key, now)).collect();
        let later = if missing.is_empty() { HashSet::new() } else { self.search(dir, &missing, buffer, now) };
        for key in keys.iter().filter(|key| !later.contains(key)) {
            let Some(file) = self.files.get_mut(key) else { continue };
            if !matches!(file.place, Place::Displaced | Place::Missing) {
                continue;
            }
            file.place = Place::Missing;
            let since = *file.missing_since.get_or_insert(now);
            if file.handle.is_some() || file.detour.is_some() {
                continue;
            }
            let (dev, inode) = (file.identity.dev, (file.identity.dev, file.identity.ino));
            let is_replaced =
                self.sources.get(file.source).is_none_or(|source| source.by_inode.get(&inode) != Some(key));
            let is_mounted = identity::stat_path(dir).is_ok_and(|stat| stat.identity.dev == dev);
            let patience = match (file.is_recorded, is_mounted) {
                // Another file has its inode by now, so it cannot come back.
                _ if is_replaced => Duration::ZERO,
                // Nothing was read of it, so nothing has to be remembered; but names may just be moving.
                (false, _) => SAFETY_LOOK * 2,
                (true, true) => FORGET_AFTER,
                (true, false) => FORGET_UNMOUNTED_AFTER,
            };
            if now.saturating_duration_since(since) >= patience {
                self.note_gone(*key);
                self.forget(*key);
            } else if now == since && file.is_recorded {
                tracing::warn!(
                    path = %file.path.display(), offset = file.progress.offset,
                    "a followed file is not there any more; what was added to it after the offset cannot be read"
                );
            }
        }
    }

    fn find_by_inode(&mut self, dir: &Path, keys: &[FileKey], now: Instant) {
        let wanted: HashMap<u64, FileKey> =
            keys.iter().filter_map(|key| self.files.get(key).map(|file| (file.identity.ino, *key))).collect();
        for (path, stat) in identity::find_entries(dir, |ino, _| wanted.contains_key(&ino)) {
            if let Some(key) = wanted.get(&stat.identity.ino)
                && let Some(file) = self.files.get(key)
                && identity::same_identity(&stat.identity, &file.identity)
            {
                self.locate(*key, Some(path), &stat, now);
            }
        }
    }

    /// Whether a file is to be searched for further away: when it is first missed, and once more a minute later.
    fn is_search_due(&self, key: FileKey, now: Instant) -> bool {
        self.files.get(&key).is_some_and(|file| {
            let waited =
                file.missing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            matches!(file.place, Place::Displaced | Place::Missing)
                && file.is_recorded
                && file.handle.is_none()
                && file.detour.is_none()
                && (file.searches == 0 || file.searches == 1 && waited >= SEARCH_AGAIN)
        })
    }

    /// Looks for files that are not beside their old names: moved to a directory near, or gone and left as an archive or
    /// as a copy.
    ///
    /// Stops after a while, so that the files that are there are read meanwhile; returns those that are still to be searched
    /// for, which are displaced again.
    fn search(
        &mut self,
        dir: &Path,
        keys: &[FileKey],
        buffer: &mut ReadBuffer,
        now: Instant,
    ) -> HashSet<FileKey> {
        let began = clock::now();
        let near = copies::nearby(dir);
        for dir in &near {
            self.find_by_inode(dir, keys, now);
        }
        let dirs: Vec<PathBuf> = std::iter::once(dir.to_owned()).chain(near).collect();
        for (index, key) in keys.iter().enumerate() {
            if index > 0 && clock::now().saturating_duration_since(began) >= SEARCH_AT_ONCE {
                let later = keys.get(index..).unwrap_or_default();
                self.displaced.extend_from_slice(later);
                return later.iter().copied().collect();
            }
            let Some(file) = self.files.get_mut(key) else { continue };
            file.searches += 1;
            if !matches!(file.place, Place::Displaced | Place::Missing) {
                continue;
            }
            self.begin_detour(*key, Then::Forget, &dirs, 0, buffer);
        }
        HashSet::new()
    }

    /// Whether files are still to be looked for.
    pub(in crate::tail) fn is_searching(&self) -> bool {
        !self.displaced.is_empty()
    }

    /// A displaced file was found under a path, or without any name (`None`).
    fn locate(&mut self, key: FileKey, path: Option<PathBuf>, stat: &Stat, now: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        file.observe(stat.stamp);
        let Some(path) = path else {
            file.place = Place::Deleted;
            return;
        };
        let matches = self.sources.get(file.source).is_some_and(|source| source.pattern.matches(&path));
        tracing::debug!(from = %file.path.display(), path = %path.display(), "a followed file has another name");
        self.put(key, Arc::from(path), if matches { Place::Matched } else { Place::Renamed }, now);
        if let Some(file) = self.files.get_mut(&key) {
            file.seen_in = self.looks;
        }
        self.enqueue(key);
    }

    /// Counts the bytes of a file that is gone and that were not read, where any are known.
    pub(super) fn note_gone(&mut self, key: FileKey) {
        let Some(file) = self.files.get(&key).filter(|file| file.origin != Origin::Packed) else { return };
        let end = file.progress.offset.saturating_add(file.known_unread());
        if end > file.progress.offset {
            tracing::error!(
                path = %file.path.display(), offset = file.progress.offset, bytes = file.known_unread(),
                "a file is gone before it was read to its end"
            );
            self.note_loss(key, end, SkipReason::Deleted);
        }
    }

    /// Has the spool count what a file had from its offset to `end` as lost. It stands at `end` then.
    pub(in crate::tail) fn note_loss(&mut self, key: FileKey, end: u64, reason: SkipReason) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let Some(source) = self.sources.get(file.source) else { return };
        let start = std::mem::replace(&mut file.progress.offset, end);
        file.is_recorded = true;
        self.notes.push(skip_note(file.checkpoint(&source.name), FileOffset(start), reason));
    }
}

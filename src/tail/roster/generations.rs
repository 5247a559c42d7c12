//! Generations of one path: files that had the same name one after the other.
//!
//! Invariants:
//! - They are read in the order in which they had the name: each waits until the one before has been read to its end.
//!   It does not wait longer: an older one that cannot be read does not hold up the others, and what is written to it
//!   later comes when it comes.
//! - Nobody waits in a circle, and whoever no longer waits stands in the queue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Roster;
use super::copies::{is_copy, is_prefix};
use crate::tail::content::Content as _;
use crate::tail::detour::Candidate;
use crate::tail::file::{FileKey, FollowedFile, Origin, Place, ReadBuffer};
use crate::tail::identity::{self, Stat};
use crate::tail::names;

/// Writers keep writing to a file that was renamed for about this long.
const LATE_WRITES: Duration = Duration::from_secs(10);
const LATE_WRITES_NS: u64 = 10_000_000_000;

impl Roster {
    /// Lets `newer` wait until `older`, and what waits for that already, has been read to its end.
    pub(super) fn succeed(&mut self, older: FileKey, newer: FileKey, now: Instant) {
        // Never in a circle, whatever the births say.
        let mut before = Some(older);
        while let Some(key) = before {
            if key == newer {
                return;
            }
            before = self.files.get(&key).and_then(|file| file.waits_for);
        }
        let mut last = older;
        while let Some(next) = self.files.get(&last).and_then(|file| file.successor) {
            if next == newer {
                return;
            }
            last = next;
        }
        if let Some(file) = self.files.get_mut(&last) {
            file.successor = Some(newer);
        }
        if let Some(file) = self.files.get_mut(&newer) {
            file.waits_for = Some(last);
            file.comes_after = Some(Box::new((last, now + LATE_WRITES)));
        }
    }

    /// Whether the generation before a file has grown since it was read, while its writer may still be there: what was added
    /// to it was written before what the file has by now. Then that one is next, and the file behind it.
    pub(in crate::tail) fn yield_to_older(&mut self, key: FileKey, now: Instant) -> bool {
        let after = self.files.get(&key).and_then(|file| file.comes_after.as_deref().copied());
        let Some((older, until)) = after else {
            return false;
        };
        let has_grown = self.files.get(&older).is_some_and(|older| {
            let size = older.handle.as_ref().and_then(|handle| handle.size().ok());
            older.waits_for.is_none()
                && older.trouble.is_none()
                && older.detour.is_none()
                && size.is_some_and(|size| size > older.progress.scanned)
        });
        if now >= until || !self.files.contains_key(&older) {
            if let Some(file) = self.files.get_mut(&key) {
                file.comes_after = None;
            }
            return false;
        }
        if has_grown {
            self.enqueue(older);
            self.enqueue(key);
        }
        has_grown
    }

    /// Lets the next generation be read.
    pub(in crate::tail) fn release_successor(&mut self, key: FileKey) {
        let successor = self.files.get_mut(&key).and_then(|file| file.successor.take());
        if let Some(next) = successor
            && let Some(file) = self.files.get_mut(&next)
        {
            file.waits_for = None;
            self.enqueue(next);
        }
    }

    /// Looks for generations between two that had the same name one after the other: files that were created and
    /// rotated away while nobody looked. They are found by name beside it, and by their birth: after that of the older
    /// one, not after that of the newer one, and not while the older one was still being written, as a copy would be.
    pub(super) fn find_generations(&mut self, older: FileKey, buffer: &mut ReadBuffer, now: Instant) {
        let Some(old) = self.files.get(&older) else { return };
        let Some((newer, once_named)) = old.taken_over.as_deref().cloned() else { return };
        let Some(new) = self.files.get(&newer) else { return };
        let (first, last) = (old.identity.birth_ns, new.identity.birth_ns);
        let (source, written) = (new.source, u64::try_from(old.stamp.modified_ns).unwrap_or(0));
        let (Some(dir), Some(name)) = (once_named.parent(), once_named.file_name()) else { return };
        if first == 0 || last == 0 {
            return;
        }
        let is_candidate =
            |path: &Path| path.file_name().is_some_and(|found| names::is_rotated_name(name, found));
        let mut between = identity::find_entries(dir, |_, path| is_candidate(path));
        between.retain(|(_, stat)| {
            stat.is_regular()
                && (first..=last).contains(&stat.identity.birth_ns)
                && stat.identity.birth_ns.saturating_add(LATE_WRITES_NS) >= written
        });
        // One that has all that was read of the older one is a copy of it.
        let progress = old.progress;
        between.retain(|(path, _)| progress.head.len == 0 || !is_copy(path, &progress, buffer));
        between.sort_by_key(|(path, stat)| {
            (stat.identity.birth_ns, stat.stamp.modified_ns, std::cmp::Reverse(path.clone()))
        });
        let generations: Vec<FileKey> = between
            .into_iter()
            .filter_map(|(path, stat)| self.follow_generation(source, path, &once_named, &stat, now))
            .filter(|key| *key != older && *key != newer)
            .collect();
        self.line_up(Some(older), generations, newer, now);
    }

    /// Looks for copies of a file that were made after `copy` while nobody looked: it was copied and truncated several
    /// times. What they have comes before what is in the file now. One that has just that is a copy in the making.
    pub(in crate::tail) fn find_copied_generations(
        &mut self,
        key: FileKey,
        copy: &Candidate,
        buffer: &mut ReadBuffer,
        now: Instant,
    ) {
        let Some(file) = self.files.get(&key) else { return };
        let (source, named, birth) = (file.source, Arc::clone(&file.path), copy.identity.birth_ns);
        let (Some(dir), Some(name)) = (named.parent(), named.file_name()) else { return };
        if birth == 0 || copy.is_archive {
            return;
        }
        let is_candidate =
            |path: &Path| path.file_name().is_some_and(|found| names::is_rotated_name(name, found));
        let mut later = identity::find_entries(dir, |_, path| is_candidate(path));
        later.retain(|(path, stat)| {
            stat.is_regular()
                && stat.identity.birth_ns > birth
                && stat.stamp.size > 0
                && !file.handle.as_ref().is_some_and(|handle| is_prefix(path, stat, handle, buffer))
        });
        later.sort_by_key(|(_, stat)| stat.identity.birth_ns);
        let generations: Vec<FileKey> = later
            .into_iter()
            .filter_map(|(path, stat)| self.follow_generation(source, path, &named, &stat, now))
            .filter(|generation| *generation != key)
            .collect();
        for generation in &generations {
            if let Some(file) = self.files.get_mut(generation) {
                file.origin = Origin::Own;
                // Nobody took a name from it.
                file.named = Arc::clone(&file.path);
            }
        }
        self.line_up(None, generations, key, now);
    }

    /// Lets `newest` wait for the last of the generations, each for the one before, and the first for `older`.
    fn line_up(
        &mut self,
        older: Option<FileKey>,
        mut generations: Vec<FileKey>,
        newest: FileKey,
        now: Instant,
    ) {
        let Some(first) = older.or(generations.first().copied()).filter(|_| !generations.is_empty()) else {
            return;
        };
        generations.push(newest);
        for next in &generations {
            self.stop_waiting(*next);
        }
        for next in generations.into_iter().filter(|next| *next != first) {
            self.succeed(first, next, now);
        }
    }

    fn stop_waiting(&mut self, key: FileKey) {
        self.enqueue(key);
        let before = self.files.get_mut(&key).and_then(|file| file.waits_for.take());
        if let Some(file) = before.and_then(|before| self.files.get_mut(&before)) {
            file.successor = None;
        }
    }

    /// Follows a generation that was not known. One that was found by its own name, but not read yet, takes its place
    /// in the order as well. Its checkpoints have the name it once had, so that a restart treats it the same.
    fn follow_generation(
        &mut self,
        source: usize,
        path: PathBuf,
        once_named: &Arc<Path>,
        stat: &Stat,
        now: Instant,
    ) -> Option<FileKey> {
        if let Some(key) = self.known(source, stat, now) {
            let file = self.files.get_mut(&key).filter(|file| !file.is_recorded && file.last_read == 0)?;
            file.named = Arc::clone(once_named);
            if file.quiet_since.replace(now).is_none() {
                self.finishing.push(key);
            }
            return Some(key);
        }
        let followed = self.sources.get(source)?;
        let place = if followed.pattern.matches(&path) { Place::Matched } else { Place::Renamed };
        tracing::info!(
            source = %followed.name, path = %path.display(), "a generation that was rotated away unseen is read"
        );
        let path: Arc<Path> = Arc::from(path);
        let mut file = FollowedFile::new(source, stat.identity, Arc::clone(&path), place);
        file.named = Arc::clone(once_named);
        file.quiet_since = Some(now);
        file.origin = Origin::Own;
        file.stamp = stat.stamp;
        file.seen_in = self.looks;
        let key = self.enter(file);
        self.finishing.push(key);
        self.put(key, path, place, now);
        self.enqueue(key);
        Some(key)
    }
}

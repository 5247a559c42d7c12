//! Files that no longer have what was to be read of them: their rest is read from a copy, or counted as lost.
//!
//! Invariants:
//! - What is left of a file is read before what the file has now.
//! - A copy is noted as read only after everything in it was taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::Follower;
use crate::event::{FrameSink, SinkClosed, SkipReason};
use crate::tail::assemble::End;
use crate::tail::detour::{Candidate, Search, Then};
use crate::tail::file::{FileKey, Place, Progress};
use crate::tail::identity;
use crate::tail::roster::copies;

/// How often copies are searched for again because names were moving.
const SEARCHES_MAX: u8 = 3;

impl Follower {
    /// Reads on in a copy of a file, or looks for one first.
    pub(super) fn read_copy(
        &mut self,
        key: FileKey,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let is_back = matches!(file.place, Place::Matched | Place::Renamed);
        if is_back && file.detour.as_ref().is_some_and(|detour| detour.then == Then::Forget) {
            // It has all that its copy has.
            file.detour = None;
            self.roster.enqueue(key);
            return Ok(());
        }
        if !self.may_open_copy(key) {
            // Those that are open are read to their ends.
            self.roster.enqueue(key);
            return Ok(());
        }
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let Some(detour) = &mut file.detour else { return Ok(()) };
        match detour.step(&file.progress, &mut self.buffer) {
            Search::Seeking => {
                self.roster.enqueue(key);
                Ok(())
            }
            Search::Nothing => {
                let searches = detour.searches + 1;
                let (then, may_search) = (detour.then, detour.is_stale && searches <= SEARCHES_MAX);
                if !may_search || !self.search_copy(key, then, searches) {
                    self.end_detour(key, false, now);
                }
                Ok(())
            }
            Search::Found => self.read_chunk(key, End::Open, now, sink),
        }
    }

    /// Whether the copy of a file is open, or may be opened.
    fn may_open_copy(&mut self, key: FileKey) -> bool {
        let files = &self.roster.files;
        let is_open = |key: &FileKey| {
            files.get(key).and_then(|file| file.detour.as_ref()).is_some_and(|detour| detour.is_open())
        };
        if is_open(&key) {
            return true;
        }
        if self.copying.len() >= self.max_copies {
            self.copying.retain(is_open);
        }
        let is_room = self.copying.len() < self.max_copies;
        if is_room && !self.copying.contains(&key) {
            self.copying.push(key);
        }
        is_room
    }

    /// Lets others be read while what is open at the end of a copy waits for what goes on with it.
    pub(super) fn postpone_copy(&mut self, key: FileKey, now: Instant) {
        if self.copying.len() >= self.max_copies
            && let Some(detour) = self.roster.files.get_mut(&key).and_then(|file| file.detour.as_mut())
        {
            detour.pause();
        }
        self.postpone(key, now);
    }

    /// The way to a copy has come to an end: everything in it was read, or there is none.
    pub(super) fn end_detour(&mut self, key: FileKey, is_read: bool, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let Some(mut detour) = file.detour.take() else { return };
        let is_broken = detour.copy().is_some_and(|(_, copied)| copied.is_broken());
        if is_broken {
            tracing::warn!(
                path = %file.path.display(), offset = file.progress.offset,
                "the archive of a file is damaged or not complete, what it has behind the offset cannot be read"
            );
        }
        let is_read = is_read && !is_broken;
        let (source, path, offset) = (file.source, Arc::clone(&file.path), file.progress.offset);
        if let Some((copy, _)) = detour.copy().filter(|_| is_read) {
            tracing::info!(
                path = %path.display(), copy = %copy.path.display(), offset,
                "what a file no longer had was read from a copy of it"
            );
        }
        let copy = detour.copy().map(|(copy, _)| copy.clone()).filter(|_| is_read);
        // What was born after the copy that was read was made of what the file had later.
        let is_later = |shorter: &Candidate| {
            let births = (shorter.identity.birth_ns, copy.as_ref().map_or(0, |copy| copy.identity.birth_ns));
            copy.is_some() && births.0 > births.1
        };
        for copy in copy.iter().chain(detour.shorter.iter().filter(|shorter| !is_later(shorter))) {
            self.roster.consumed(source, copy, &mut self.buffer, now);
        }
        match detour.then {
            Then::StartOver => {
                self.start_over(key, is_read);
                if let Some(copy) = copy {
                    self.roster.find_copied_generations(key, &copy, &mut self.buffer, now);
                }
            }
            Then::Forget if is_read => self.roster.forget(key),
            Then::Forget => {
                self.leave(key);
                self.roster.not_found(key);
            }
        }
    }

    /// A file no longer has what was before its offset. What came behind that is looked for in a copy.
    pub(super) fn truncated(&mut self, key: FileKey) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        if let Some(stat) = file.handle.as_ref().and_then(|handle| identity::stat_handle(handle).ok()) {
            // If it is shorter than it was seen to be, so much it had.
            file.observe(stat.stamp);
        }
        tracing::debug!(
            path = %file.path.display(), offset = file.progress.offset, head = ?file.progress.head,
            tail = ?file.progress.tail, size = file.stamp.size, "a file was truncated or replaced in place"
        );
        if !self.search_copy(key, Then::StartOver, 0) {
            self.start_over(key, false);
        }
    }

    /// Searches for copies of a file. Returns whether there may be one.
    fn search_copy(&mut self, key: FileKey, then: Then, searches: u8) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        let home = file.path.parent().map(Path::to_owned).unwrap_or_default();
        let near = copies::nearby(&home);
        let dirs: Vec<PathBuf> = std::iter::once(home).chain(near).collect();
        self.roster.begin_detour(key, then, &dirs, searches, &mut self.buffer)
    }

    /// Begins a truncated file again. `is_read`: everything that it had before was read.
    fn start_over(&mut self, key: FileKey, is_read: bool) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let (path, offset, end) = (Arc::clone(&file.path), file.progress.offset, file.known_end());
        let (path, unread) = (path.display(), end.saturating_sub(offset));
        if unread > 0 {
            tracing::error!(
                %path, offset, bytes = unread,
                "a file was truncated before it was read to its end, and there is no copy of the rest"
            );
            self.roster.note_loss(key, end, SkipReason::Truncated);
        } else if is_read {
            tracing::info!(%path, offset, "a file was truncated, it is read from its start");
        } else {
            tracing::warn!(
                %path, offset,
                "a file was truncated, it is read from its start; what was written just before that may be lost"
            );
        }
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        file.progress = Progress::default();
        file.shrunk_from = 0;
        file.stamp.size = 0;
        file.at_end = false;
        self.roster.release_copies_of(key);
        self.roster.enqueue(key);
    }
}

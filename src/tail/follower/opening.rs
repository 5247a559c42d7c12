//! Opening files, and what becomes of those that cannot be opened or read.
//!
//! Invariants:
//! - A handle is kept only of the file that is followed: what the path leads to by now is checked first.
//! - Trouble with one file holds up no other: it is tried again later, at growing intervals.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{FINISHING_EVERY, Follower};
use crate::tail::file::{FileKey, Place, Trouble};
use crate::tail::identity;

/// Where more files have something to read than may be open, each is closed for another after so many reads: opening one
/// again costs a tenth of a read.
const TURNS_OPEN: u32 = 1;
/// First delay after a failed read or open; doubled up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

impl Follower {
    /// Opens a file and makes sure that it is the one that is followed. Returns whether it can be read now.
    pub(super) fn open(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        if !matches!(file.place, Place::Matched | Place::Renamed) {
            // There is no name to open it by: nothing more can be read, and nobody needs to wait for it.
            if let Some(file) = self.roster.files.get_mut(&key) {
                file.at_end = true;
            }
            self.roster.release_successor(key);
            return false;
        }
        let path = Arc::clone(&file.path);
        let many = 1 + self.max_open / 8;
        if self.roster.open >= self.max_open
            && !self.roster.close_quiet(many)
            && !self.roster.close_busy(many, TURNS_OPEN)
        {
            if self.roster.is_any_busy() {
                // In the next round one of them has had its turns.
                self.roster.enqueue(key);
            } else {
                self.postpone(key, now);
            }
            return false;
        }
        let opened = identity::open(&path).and_then(|handle| Ok((identity::stat_handle(&handle)?, handle)));
        let (stat, handle) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.open_failed(key, &error, now);
                return false;
            }
        };
        let Some(file) = self.roster.files.get_mut(&key) else { return false };
        if !stat.is_regular() || !identity::same_identity(&stat.identity, &file.identity) {
            self.roster.displace(key, now);
            return false;
        }
        let head_agrees = match file.progress.head_agrees(&mut &handle, &mut self.buffer) {
            Ok(agrees) => agrees,
            Err(error) => {
                self.fail(key, &error, now);
                return false;
            }
        };
        tracing::debug!(
            path = %path.display(), identity = ?stat.identity, offset = file.progress.offset,
            head = ?file.progress.head, tail = ?file.progress.tail, head_agrees, "a followed file is opened"
        );
        file.handle = Some(handle);
        file.turns = 0;
        self.roster.open += 1;
        let is_alone = file.watch.is_none() && (stat.links > 1 || identity::is_symlink(&path));
        if is_alone {
            self.watch_alone(key);
        }
        if !head_agrees {
            self.truncated(key);
        }
        head_agrees
    }

    fn open_failed(&mut self, key: FileKey, error: &io::Error, now: Instant) {
        let errno = Errno::from_io_error(error);
        match errno {
            Some(Errno::NOENT | Errno::NOTDIR) => self.roster.displace(key, now),
            Some(Errno::MFILE | Errno::NFILE) => {
                self.roster.close_quiet(1 + self.max_open / 8);
                self.postpone(key, now);
            }
            _ => self.fail(key, error, now),
        }
    }

    /// There is no room for another open file at the moment.
    pub(super) fn postpone(&mut self, key: FileKey, now: Instant) {
        if let Some(file) = self.roster.files.get_mut(&key) {
            file.trouble = Some(Trouble { retry_at: now + FINISHING_EVERY, failures: 0 });
            self.troubled.push(key);
        }
    }

    /// A file cannot be opened or read: it is tried again later, the others go on.
    pub(super) fn fail(&mut self, key: FileKey, error: &io::Error, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let failures = file.trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
        if failures == 1 {
            tracing::warn!(
                path = %file.path.display(), offset = file.progress.offset, %error,
                "a file cannot be read, it is tried again"
            );
        }
        let delay = FIRST_RETRY.saturating_mul(1 << failures.min(7).saturating_sub(1)).min(MAX_RETRY);
        file.trouble = Some(Trouble { retry_at: now + delay, failures });
        file.at_end = false;
        self.troubled.push(key);
        self.roster.release_successor(key);
    }

    /// Watches a file by itself: it has names, or is written to, where no directory is watched.
    pub(super) fn watch_alone(&mut self, key: FileKey) {
        if let Some(file) = self.roster.files.get_mut(&key)
            && file.watch.is_none()
        {
            file.watch = self.watch.cover_file(&file.path, key);
        }
    }
}

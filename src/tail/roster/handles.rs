//! Which files are closed so that others can be opened.
//!
//! Invariant: only a file that can be opened again by its path is closed before it is finished.

use super::Roster;
use crate::tail::file::{FileKey, FollowedFile, Handle};

impl Roster {
    /// Closes a file's handle. It can be opened again by its path.
    pub(in crate::tail) fn close(&mut self, key: FileKey) {
        if let Some(file) = self.files.get_mut(&key)
            && file.handle.take().is_some()
        {
            self.open -= 1;
        }
    }

    /// Opens a file that was closed for others, for one read. Returns whether that can be done.
    pub(in crate::tail) fn reopen(&mut self, key: FileKey) -> bool {
        let Some(file) = self.files.get_mut(&key) else { return false };
        let Some(Handle::Opened(handle)) = file.handle() else { return false };
        file.handle = Some(handle);
        self.open += 1;
        true
    }

    /// Closes the files that have been quiet for longest: at most `many`, all read to their end and under a known path,
    /// those that were just renamed last. Returns whether there was one.
    pub(in crate::tail) fn close_quiet(&mut self, many: usize) -> bool {
        self.close_first(many, |file| {
            (file.at_end && !file.queued).then_some((file.quiet_since.is_some(), file.last_read))
        })
    }

    /// Closes files that had `turns` reads since they were opened, or wait for another, at most `many`, those that were read
    /// last first, so that others can be opened. Returns whether there was one.
    pub(in crate::tail) fn close_busy(&mut self, many: usize, turns: u32) -> bool {
        self.close_first(many, |file| {
            (file.turns >= turns || file.waits_for.is_some())
                .then_some((file.quiet_since.is_some(), u64::MAX - file.last_read))
        })
    }

    /// Closes at most `many` of the files that have a rank, those with the lowest.
    fn close_first(&mut self, many: usize, rank: impl Fn(&FollowedFile) -> Option<(bool, u64)>) -> bool {
        let open = self.files.iter().filter(|(_, file)| file.may_close());
        let mut ranked: Vec<_> = open.filter_map(|(key, file)| Some((rank(file)?, *key))).collect();
        if ranked.len() > many {
            ranked.select_nth_unstable(many);
            ranked.truncate(many);
        }
        for (_, key) in &ranked {
            self.close(*key);
        }
        !ranked.is_empty()
    }

    /// Whether a file is open that is about to have its turn and can be closed after it.
    pub(in crate::tail) fn is_any_busy(&self) -> bool {
        self.files.values().any(|file| file.may_close() && file.queued)
    }
}

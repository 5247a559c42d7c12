//! Tailers: follow the files of the sources and turn new lines into frames.
//!
//! What holds:
//! - **Every line once, in order.** The frames of a file, in the order in which they are appended, contain exactly its
//!   complete lines, in order. A crash between two frames loses and repeats nothing, because the offset travels in the
//!   frame. Generations of one path that were seen while they had it are read in that order.
//! - **One thread** for all sources and files. It waits for input only here, in [`Tailer::run`], and for room only in
//!   the [`FrameSink`].
//! - **Bounded.** One read buffer, one frame in the making, a few hundred bytes and at most one descriptor a file, and
//!   at most [`TailOptions::max_open_files`] descriptors. Lines held back stay in their files.
//! - **Nothing is asked of notification** but when to look; a look every ten seconds finds what it missed.
//!
//! From the outside in: [`discover`] says which files a source has, `watch` when to look, `roster` which file is which,
//! `follower` does a turn of work, `file` a read, `assemble` makes events of it. `detour` leads to a copy where a file no longer has
//! what was to be read of it.
//!
//! # Outcomes that are choices
//! - A remembered file is the same if device, inode, birth time, head and the bytes before the offset do not disagree.
//!   A source that is given another name is a new source; other options do not make one.
//! - A generation that was rotated away before anyone looked is looked for under rotated names, and once more when the
//!   one before it is finished: where names move faster than a directory can be listed, it comes late rather than never.
//! - `start_at = "end"` moves to the start of a last line that has no newline yet, so that it is delivered whole.
//! - A file that was renamed or deleted is finished when it has not grown for 5 seconds. Then a rest without newline is
//!   an event. A renamed file that grows later nevertheless is still read on.
//! - A deleted file is forgotten when it is finished. One that was deleted while nobody looked is forgotten after an
//!   hour; after a week where its directory is not there, as it may lie on a file system that is not mounted.

mod assemble;
mod content;
mod detour;
pub mod discover;
mod file;
mod follower;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod identity;
mod names;
mod roster;
mod watch;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use self::discover::{Pattern, PatternError};
use self::follower::{Follower, Pace};
pub(crate) use self::identity::{Stat, find_entries, stat_path};
use crate::clock;
use crate::config::SourceConfig;
use crate::event::{Checkpoint, FrameSink, SourceName};

/// After work, notifications are left to gather for this long: a writer of single lines makes a few hundred frames a
/// second, not tens of thousands.
const GATHER: Duration = Duration::from_millis(5);

/// How to follow files, beyond what a source says.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// Poll every source; use no notification.
    pub polling: bool,
    /// Most files kept open. Those beyond it are opened for each read, and may lose what was written to them just
    /// before they were deleted.
    pub max_open_files: usize,
}

impl TailOptions {
    /// The default, or at most `max_open_files` where that is given.
    #[must_use]
    pub fn new(max_open_files: Option<usize>) -> Self {
        let default = Self::default();
        Self { max_open_files: max_open_files.unwrap_or(default.max_open_files), ..default }
    }
}

impl Default for TailOptions {
    /// Notification, and half of the descriptors this process may have (at most 16,384): the rest is for the spool and
    /// the connections.
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
        Self { polling: false, max_open_files: half.clamp(16, 16_384) }
    }
}

/// Why tailing cannot start or go on. Trouble with single files is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// A source's path cannot be followed.
    #[error("source {name}: log_path cannot be followed")]
    Pattern {
        /// The source.
        name: SourceName,
        /// Why not.
        #[source]
        source: PatternError,
    },
    /// The system refused what the loop needs to be woken.
    #[error("the tailer cannot wait for changes")]
    Wait(#[source] io::Error),
}

/// Follows the files of all sources.
#[derive(Debug)]
pub struct Tailer {
    follower: Follower,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
}

/// Stops a [`Tailer`] from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Stop>);

impl Stopper {
    /// Asks the tailer to return after the read it is at. One that waits in its sink returns when the sink is closed.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::Release);
        // It fails only where it is readable already.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
    }
}

impl Tailer {
    /// Prepares to follow `sources`, reading on where `checkpoints` say: what the spool remembers of every file, one
    /// for each key. Opens no file yet.
    ///
    /// # Errors
    /// [`TailError::Pattern`] for a path that cannot be followed; [`TailError::Wait`] where the process has no
    /// descriptor left.
    pub fn new(
        sources: &[SourceConfig],
        checkpoints: Vec<Checkpoint>,
        options: &TailOptions,
    ) -> Result<Self, TailError> {
        let patterns = sources
            .iter()
            .map(|source| {
                let excluded =
                    source.exclude.iter().map(|glob| Pattern::new(glob)).collect::<Result<Vec<_>, _>>();
                Pattern::new(&source.log_path)
                    .and_then(|pattern| Ok(pattern.excluding(excluded?)))
                    .map_err(|error| TailError::Pattern { name: source.name.clone(), source: error })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| TailError::Wait(error.into()))?;
        let follower = Follower::new(sources, patterns, checkpoints, options, clock::now());
        Ok(Self { follower, stop: Arc::new(Stop { asked: AtomicBool::new(false), wake }) })
    }

    /// A handle that stops the loop.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Follows the files until stopped or the sink is closed. Blocks: it is to have a thread of its own.
    ///
    /// # Errors
    /// [`TailError::Wait`] where waiting for changes fails.
    pub fn run(mut self, sink: &mut impl FrameSink) -> Result<(), TailError> {
        while !self.stop.asked.load(Ordering::Acquire) {
            match self.follower.turn(clock::now(), sink) {
                Err(_closed) => break,
                Ok(Pace::Busy) => {}
                Ok(Pace::Idle { until }) => {
                    wait(&[self.stop.wake.as_fd()], clock::now() + GATHER)?;
                    let changes = self.follower.notification();
                    let waited_for: Vec<_> = changes.into_iter().chain([self.stop.wake.as_fd()]).collect();
                    wait(&waited_for, until)?;
                }
            }
        }
        Ok(())
    }
}

/// Waits until one of `fds` is readable, or until `deadline`.
fn wait(fds: &[std::os::fd::BorrowedFd<'_>], deadline: Instant) -> Result<(), TailError> {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = deadline.saturating_duration_since(clock::now());
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(TailError::Wait(error.into())),
    }
}

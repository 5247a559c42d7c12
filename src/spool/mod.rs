//! The spool: the write-ahead log between reading and sending, and the only place where state lives.
//!
//! Terms: a *frame* is what one append writes, the events of one file and the offset after them; a *segment* is an
//! append-only file of frames; the *ledger* is the index over them: which batches were cut, how far, and what became
//! of them.
//!
//! Invariants:
//! - Events and the offset they came from are in one frame: durable together or not at all.
//! - A frame is visible to readers only after the fdatasync that covers it.
//! - A batch's boundaries are durable in the ledger before its first send, and never change after that.
//! - The segments are the truth. The ledger can be lost at the cost of resends, never of an event.
//!
//! Not durable: with `sync = "os"` nothing is synced, so a power cut may take what a killed process would keep.
//!
//! Threads: the *writer* owns the segment that is appended to, the *keeper* owns the ledger. Everything else reads.
//!
//! `codec` → `entries`, `frame`, `segment` (pure layouts) → `files` (what frames say of files) → `storage` (the seam to
//! the operating system), `disk` → `log`, `reader`, `ledger` → `writer`, `keeper`, `recovery` → this file, which only
//! wires. `ledger_watch` wakes a ledger that waits in vain. `inspect` and `beside` look from outside; `tools` are what an
//! operator does with a spool.

mod adopt;
mod batches;
mod beside;
mod budget;
mod burials;
mod codec;
mod commits;
mod content;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
mod dead_letter;
mod disk;
mod drop_oldest;
mod entries;
#[cfg(test)]
mod fault_tests;
mod files;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod format_doc;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod inspect;
mod keeper;
mod ledger;
mod ledger_watch;
mod lock;
mod log;
mod missing;
#[cfg(test)]
mod model;
mod profiles;
mod queue;
mod reader;
mod recovery;
mod segment;
mod storage;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tools;
mod view;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use batches::{BatchError, Batches, ReadBatch};
pub(crate) use beside::{Agent, Known, known_files};
pub use dead_letter::DeadLetter;
pub(crate) use files::{FileRecord, is_same_file};
pub use keeper::Closed;
pub(crate) use keeper::{Counts, Cut, CutOutcome, KeeperHandle, Pending};
pub use ledger::LedgerError;
pub(crate) use ledger::{BatchRecord, GROUP_MAX};
pub use queue::Appender;
pub(crate) use reader::{Frame, FrameReader, Missing, Step};
pub use segment::{Account, SpoolId};

use crate::config::{Config, OnFull, SyncMode};
use crate::event::{Checkpoint, Position};
use crate::payload::Profile;
use disk::Disk;
use lock::Lock;
use log::Log;
use queue::Queue;
use view::Shared;

#[cfg(test)]
pub(crate) use format_doc::seeds as fuzzing_seeds;

/// How a spool is to be opened.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its directory; created where it does not exist.
    pub dir: PathBuf,
    /// What batches that are cut from now on are encoded under. None stands for the last.
    pub profile: Option<Profile>,
    /// The size at which a segment is sealed.
    pub segment_bytes: u64,
    /// What a commit waits for.
    pub sync: SyncMode,
    /// The disk budget.
    pub max_spool_bytes: u64,
    /// Free space left to others.
    pub min_free_bytes: u64,
    /// What happens when the budget is used up.
    pub on_full: OnFull,
    /// The most drafts that wait for the writer.
    pub channel_bound: usize,
}

impl From<&Config> for SpoolOptions {
    fn from(config: &Config) -> Self {
        let global = &config.global;
        Self {
            dir: global.spool_dir.clone(),
            profile: Some(Profile::from(config)),
            segment_bytes: global.segment_bytes,
            sync: global.sync,
            max_spool_bytes: global.max_spool_bytes,
            min_free_bytes: global.min_free_bytes,
            on_full: global.on_full,
            channel_bound: global.channel_bound,
        }
    }
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its directory cannot be created or written.
    #[error("the spool directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the spool directory {path} is held by process {pid}")]
    Held {
        /// The directory.
        path: PathBuf,
        /// The process that holds it; `?` where it does not say.
        pid: String,
    },
    /// There is none.
    #[error("there is no spool in {path}")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It was written by a newer version and is left untouched.
    #[error(
        "{path} has format version {version}, which this log-agent does not know: use the version that wrote it"
    )]
    Newer {
        /// The segment or ledger.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file operation failed.
    #[error("the spool file {path} cannot be used")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The ledger could be neither used nor rebuilt.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    queue: Arc<Queue>,
    log: Arc<Log>,
    batches: Batches,
    checkpoints: Vec<Checkpoint>,
    cursor: Position,
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    spool_id: SpoolId,
    profile: u32,
    /// Held until everything is closed, or longer by whoever has more to do.
    _lock: Arc<Lock>,
}

impl Spool {
    /// Opens a spool, recovers what is in it, and starts its threads.
    ///
    /// # Errors
    /// Where the directory cannot be used, is held by another process, or was written by a newer version.
    pub fn open(options: &SpoolOptions) -> Result<Self, SpoolError> {
        Self::open_on(Disk::new(&options.dir), options)
    }

    /// Opens a spool on a disk, which tests make.
    fn open_on(disk: Disk, options: &SpoolOptions) -> Result<Self, SpoolError> {
        disk.create_dirs().map_err(|source| SpoolError::Directory { path: options.dir.clone(), source })?;
        let lock = Arc::new(Lock::take(&disk)?);
        Self::open_with(disk, options, lock, |_| Ok(()))
    }

    /// Opens a spool whose lock this process has. `prepare` may change what was recovered before anyone sees it.
    fn open_with(
        disk: Disk,
        options: &SpoolOptions,
        lock: Arc<Lock>,
        prepare: impl FnOnce(&mut recovery::Recovered) -> Result<(), SpoolError>,
    ) -> Result<Self, SpoolError> {
        let directory = |source| SpoolError::Directory { path: options.dir.clone(), source };
        if let Err(error) = disk.keep_reserve(keeper::RESERVE_BYTES) {
            tracing::warn!(%error, "no reserve could be kept for a full disk");
        }
        let mut recovered = recovery::recover(&disk, options)?;
        prepare(&mut recovered)?;
        let profile = use_profile(&mut recovered, options.profile.as_ref())?;
        let recovery::Recovered { ledger, books, segments, state, end, totals, next_segment, begin } =
            recovered;
        let log = Arc::new(Log::new(disk.clone(), segments, end));
        let shared = Arc::new(Shared::new(&books, totals));
        let dead = dead_letter::DeadLetters::open(disk).map_err(directory)?;
        let (cursor, meta) = (books.cursor, books.meta);
        let profiles =
            books.profiles.iter().map(|(number, known)| (*number, Arc::new(known.clone()))).collect();
        let (keeper, handle) =
            keeper::Keeper::new(ledger, books, profile, log.clone(), shared.clone(), dead, options.sync);
        let mut spool = Self {
            queue: Arc::new(Queue::new(options.channel_bound)),
            log: log.clone(),
            batches: Batches {
                log: log.clone(),
                shared: shared.clone(),
                keeper: handle.clone(),
                profiles: Arc::new(profiles),
            },
            checkpoints: state.checkpoints().cloned().collect(),
            cursor,
            writer: None,
            keeper: None,
            spool_id: meta.spool_id,
            profile,
            _lock: lock,
        };
        let mut writer = writer::Writer {
            log,
            queue: spool.queue.clone(),
            shared,
            keeper: handle,
            budget: budget::Budget::new(
                options.max_spool_bytes,
                options.min_free_bytes,
                options.on_full,
                options.segment_bytes,
            ),
            lineage: meta.lineage,
            spool_id: meta.spool_id,
            segment_bytes: options.segment_bytes,
            sync: options.sync,
            next_seqs: state.next_seqs.clone().into_iter().collect(),
            committed: state,
            next_segment,
            active: None,
            next_position: end,
            trouble: writer::Trouble::default(),
        };
        if begin {
            // Where the disk refuses, the next frame begins it.
            writer.begin_segment();
        }
        // Where the second cannot be started, dropping the spool ends the first.
        spool.keeper = Some(spawn("spool-keeper", || keeper.run()).map_err(directory)?);
        spool.writer = Some(spawn("spool-writer", || writer.run()).map_err(directory)?);
        Ok(spool)
    }

    /// The id under which new events are sent.
    #[must_use]
    pub const fn id(&self) -> SpoolId {
        self.spool_id
    }

    /// How far each file was read, for the tailers.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.checkpoints.clone()
    }

    /// Where tailers put what they read.
    #[must_use]
    pub fn appender(&self) -> Appender {
        Appender { queue: self.queue.clone() }
    }

    /// The outstanding batches, for delivery.
    #[must_use]
    pub fn batches(&self) -> Batches {
        self.batches.clone()
    }

    /// The end at which batches are cut, for the aggregator.
    #[must_use]
    pub(crate) fn cutter(&self) -> Cutter {
        Cutter {
            reader: FrameReader::new(self.log.clone(), self.cursor, None, true),
            log: self.log.clone(),
            shared: self.batches.shared.clone(),
            keeper: self.batches.keeper.clone(),
            profile: self.batches.profiles.get(&self.profile).cloned().unwrap_or_default(),
        }
    }

    #[cfg(test)]
    fn cursor(&self) -> Position {
        self.cursor
    }

    /// Takes no more frames, commits what was taken, and wakes whoever waits for more.
    pub fn stop_appending(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // A thread that panicked has nothing more to say than its message.
            let _ = writer.join();
        }
        self.log.close();
    }

    /// Commits what was taken and leaves the ledger complete. A [`Batches`] or cutter that is still there finds the spool
    /// closed. Dropping a spool does the same.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop_appending();
        self.batches.keeper.stop();
        if let Some(keeper) = self.keeper.take() {
            // A thread that panicked has nothing more to say than its message.
            let _ = keeper.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The number of the profile to cut under, entered durably where it is new.
fn use_profile(recovered: &mut recovery::Recovered, profile: Option<&Profile>) -> Result<u32, SpoolError> {
    let Some(profile) = profile else { return Ok(recovered.books.last_profile()) };
    let mut changes = ledger::Changes::default();
    let number = recovered.books.use_profile(profile, &mut changes);
    if !changes.is_empty() {
        recovered.ledger.commit(changes)?;
    }
    Ok(number)
}

/// What the aggregator works with: the committed frames from the cursor on, and the way to cut them.
pub(crate) struct Cutter {
    pub reader: FrameReader,
    pub keeper: KeeperHandle,
    pub profile: Arc<Profile>,
    log: Arc<Log>,
    shared: Arc<Shared>,
}

impl Cutter {
    /// Waits until there is more to read, or `until` comes, or no more will come. Says whether there is more.
    pub(crate) fn wait(&self, until: Option<Instant>) -> bool {
        self.log.wait_for(self.reader.next_position(), until)
    }

    /// Whether no more frames will come.
    pub(crate) fn is_closed(&self) -> bool {
        self.log.is_closed()
    }

    /// Says that the spool cannot be read at the moment.
    pub(crate) fn say_unreadable(&self, error: &io::Error) {
        self.log.say_unreadable(error);
    }

    /// Waits a while, or until no more frames will come. Says whether that is so.
    pub(crate) fn pause(&self, wait: Duration) -> bool {
        self.log.wait_freed(crate::clock::now() + wait);
        self.log.is_closed()
    }

    /// Events of each source among the positions from `first` to before `end`, none of which can be read.
    pub(crate) fn owners(&self, first: Position, end: Position) -> Counts {
        missing::owners(&self.log, &self.shared, first, end).unwrap_or_else(|error| {
            tracing::error!(%error, "damaged events cannot be counted by source");
            Counts::new()
        })
    }

    /// Goes on reading at `position`.
    pub(crate) fn move_to(&mut self, position: Position) {
        self.reader = FrameReader::new(self.log.clone(), position, None, true);
    }
}

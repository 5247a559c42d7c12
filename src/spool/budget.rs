//! The disk budget: how much the spool may take, and how much it must leave.
//!
//! Invariants:
//! - Asked before every write; a write that was granted may exceed the budget by one group at most.
//! - Two segments, or a quarter of the budget, have room whatever the ledger takes, and a spool of which everything is settled takes a group whatever
//!   the rest takes: the ledger's file is half a mebibyte at least and may be larger than a small budget, and nothing
//!   would ever make room for lines that wait then.
//! - The file system's free space is looked at when enough was written since, or time has passed, not at every write.

use std::time::{Duration, Instant};

use super::keeper::RESERVE_BYTES;
use super::log::Log;
use crate::clock;
use crate::config::OnFull;

/// Free space is looked at again after this many bytes.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// Free space and the ledger's size are looked at again after this long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The answer to a request for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Write.
    Granted,
    /// Wait.
    Full {
        /// What is used up, for a message.
        why: String,
    },
}

/// The budget of one spool.
#[derive(Debug)]
pub(super) struct Budget {
    max_bytes: u64,
    /// Bytes that segments may have in any case.
    segments_min: u64,
    min_free: u64,
    on_full: OnFull,
    /// Bytes of everything beside the segments, when last looked at.
    beside: u64,
    free: u64,
    /// What the reserve lacks: lines must not take the room that acknowledgements need.
    unreserved: u64,
    looked: Option<Instant>,
    /// Bytes granted since.
    granted: u64,
}

impl Budget {
    pub(super) const fn new(max_bytes: u64, min_free: u64, on_full: OnFull, segment_bytes: u64) -> Self {
        Self {
            max_bytes,
            segments_min: if segment_bytes < max_bytes / 8 { segment_bytes * 2 } else { max_bytes / 4 },
            min_free,
            on_full,
            beside: 0,
            free: u64::MAX,
            unreserved: 0,
            looked: None,
            granted: 0,
        }
    }

    pub(super) fn drops_oldest(&self) -> bool {
        self.on_full == OnFull::DropOldest
    }

    /// Whether `bytes` more may be written to a spool of which everything is `settled`, or not.
    pub(super) fn ask(&mut self, log: &Log, settled: bool, bytes: u64) -> Room {
        let now = clock::now();
        let stale = self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY);
        if stale || self.granted >= LOOK_EVERY_BYTES {
            self.look(log, now);
        }
        let beside = self.beside.min(self.max_bytes.saturating_sub(self.segments_min));
        let used = log.bytes().saturating_add(beside);
        if !settled && used.saturating_add(bytes) > self.max_bytes {
            return Room::Full { why: format!("max_spool_bytes = {} is used up", self.max_bytes) };
        }
        if !self.leaves_enough(bytes) {
            // What was granted may have been unlinked since: refuse on a fresh look only.
            self.look(log, now);
            if !self.leaves_enough(bytes) {
                return Room::Full {
                    why: format!(
                        "{} bytes are free, of which {} are to stay free (min_free_bytes, and {} for the ledger)",
                        self.free,
                        self.min_free.saturating_add(self.unreserved),
                        self.unreserved
                    ),
                };
            }
        }
        self.granted = self.granted.saturating_add(bytes);
        Room::Granted
    }

    /// Whether enough stays free when `bytes` more are written.
    const fn leaves_enough(&self, bytes: u64) -> bool {
        let needed = self.min_free.saturating_add(self.unreserved).saturating_add(bytes);
        self.free.saturating_sub(self.granted) >= needed
    }

    fn look(&mut self, log: &Log, now: Instant) {
        use super::disk::Disk;
        self.beside = Disk::usage(&log.disk.ledger()).saturating_add(Disk::usage(&log.disk.dead_letters()));
        // Where the file system does not say, it is the write that will.
        self.free = log.disk.free_bytes().unwrap_or(u64::MAX);
        self.unreserved = RESERVE_BYTES.saturating_sub(log.disk.reserved());
        self.granted = 0;
        self.looked = Some(now);
    }
}

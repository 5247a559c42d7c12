//! The log as readers see it: which segments there are and how far each is committed.
//!
//! Invariants:
//! - What the log shows is durable: the writer publishes a frame after its fdatasync and not before, and readers go no
//!   further than what is published.
//! - Extents do not overlap and are in order of their numbers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::segment::SpoolId;
use crate::event::{Position, SegmentId};
use crate::telemetry::Repeats;

/// How often a disk that cannot be read is said again.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// How long is waited before something is tried again that the disk refused.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });

/// One segment as far as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub spool_id: SpoolId,
    /// Position of its first event.
    pub first: Position,
    /// The position after its last event.
    pub end: Position,
    /// Committed bytes; what is behind them is not to be read.
    pub len: u64,
    /// No frame will be added.
    pub sealed: bool,
}

/// What is committed, shared by the writer, the readers and the keeper.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) disk: Disk,
    state: Mutex<State>,
    changed: Condvar,
    /// A disk that cannot be read, said by whoever reads and meets it.
    unreadable: Repeats,
}

#[derive(Debug)]
struct State {
    segments: BTreeMap<SegmentId, Extent>,
    end: Position,
    closed: bool,
    /// Counts unlinked segments, for a writer that waits for room.
    freed: u64,
}

impl Log {
    pub(super) fn new(disk: Disk, segments: BTreeMap<SegmentId, Extent>, end: Position) -> Self {
        Self {
            disk,
            state: Mutex::new(State { segments, end, closed: false, freed: 0 }),
            changed: Condvar::new(),
            unreadable: Repeats::new(SAY_EVERY),
        }
    }

    /// Says that a segment cannot be read at the moment: once, and again in a while however many try.
    pub(super) fn say_unreadable(&self, error: &io::Error) {
        if let Some(more) = self.unreadable.seen() {
            tracing::error!(%error, more, "the spool cannot be read; delivery waits");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position after the last committed event.
    pub(super) fn end(&self) -> Position {
        self.state().end
    }

    pub(super) fn extent(&self, segment: SegmentId) -> Option<Extent> {
        self.state().segments.get(&segment).copied()
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> Option<(SegmentId, Extent)> {
        self.state().segments.iter().next_back().map(|(id, extent)| (*id, *extent))
    }

    /// The segment that holds `position`, or else the next one after it.
    pub(super) fn find(&self, position: Position) -> Option<(SegmentId, Extent)> {
        let state = self.state();
        state.segments.iter().find(|(_, extent)| extent.end > position).map(|(id, extent)| (*id, *extent))
    }

    /// The segment after `segment`.
    pub(super) fn next(&self, segment: SegmentId) -> Option<(SegmentId, Extent)> {
        let state = self.state();
        state.segments.range(SegmentId(segment.0.checked_add(1)?)..).next().map(|(id, e)| (*id, *e))
    }

    /// Publishes frames of `segment`, which is new or grows.
    pub(super) fn publish(&self, segment: SegmentId, extent: Extent) {
        let mut state = self.state();
        state.end = state.end.max(extent.end);
        state.segments.insert(segment, extent);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there is an event at or past `position`, the log is closed, or `until` comes. Says whether there
    /// is such an event.
    pub(super) fn wait_for(&self, position: Position, until: Option<Instant>) -> bool {
        let mut state = self.state();
        loop {
            if state.end > position {
                return true;
            }
            if state.closed {
                return false;
            }
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(crate::clock::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits until a segment was unlinked, the log is closed, or `until` comes.
    pub(super) fn wait_freed(&self, until: Instant) {
        let mut state = self.state();
        let before = state.freed;
        loop {
            let left = until.saturating_duration_since(crate::clock::now());
            if state.freed != before || state.closed || left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes everyone who waits; nothing more will be published that anyone waits for.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.state().segments.values().map(|extent| extent.len).fold(0, u64::saturating_add)
    }

    pub(super) fn segments(&self) -> BTreeMap<SegmentId, Extent> {
        self.state().segments.clone()
    }

    /// Takes out the sealed segments whose events are all before `frontier`, to be unlinked. The newest stays: its
    /// snapshot and its frames are what is known of the files.
    pub(super) fn take_finished(&self, frontier: Position) -> Vec<SegmentId> {
        let mut state = self.state();
        let newest = state.segments.keys().next_back().copied();
        let finished: Vec<_> = state
            .segments
            .iter()
            .take_while(|(id, extent)| extent.sealed && extent.end <= frontier && Some(**id) != newest)
            .map(|(id, _)| *id)
            .collect();
        for id in &finished {
            state.segments.remove(id);
        }
        finished
    }

    /// Says that room was made.
    pub(super) fn notify_freed(&self) {
        self.state().freed += 1;
        self.changed.notify_all();
    }
}

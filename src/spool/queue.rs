//! The queue between the tailers and the writer.
//!
//! Invariants:
//! - Bounded by drafts and by bytes: a writer that waits for the disk holds the tailers, not the memory.
//! - Buffers go round: a frame's buffer comes back to the tailer after its commit.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::event::{FrameDraft, FrameSink, SinkClosed};

/// The most bytes of drafts that wait for the writer. Four mebibytes keep the disk busy while tailers gather the next
/// group, and are most of what reading costs in memory.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// The most buffers kept for reuse, and the largest that is worth keeping.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 512 << 10;

/// A draft with the checksum of its events, computed on the tailer's thread.
#[derive(Debug)]
pub(super) struct Queued {
    pub draft: FrameDraft,
    pub payload_crc: u32,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something was added, or the queue was closed.
    filled: Condvar,
    /// Something was taken, or the queue was closed.
    emptied: Condvar,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    drafts: VecDeque<Queued>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), bound }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for drafts and takes all that are there; `None` once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<VecDeque<Queued>> {
        let mut state = self.state();
        while state.drafts.is_empty() {
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes = 0;
        let drafts = std::mem::take(&mut state.drafts);
        drop(state);
        self.emptied.notify_all();
        Some(drafts)
    }

    pub(super) fn recycle(&self, buffers: impl Iterator<Item = Vec<u8>>) {
        let mut state = self.state();
        for buffer in buffers.filter(|buffer| buffer.capacity() <= SPARE_BYTES_MAX) {
            if state.spare.len() >= SPARE_MAX {
                break;
            }
            state.spare.push(buffer);
        }
    }

    /// Takes no more drafts; what is queued is still written.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

/// The tailers' end of the spool.
#[derive(Clone, Debug)]
pub struct Appender {
    pub(super) queue: Arc<Queue>,
}

impl FrameSink for Appender {
    fn append(&mut self, draft: FrameDraft) -> Result<(), SinkClosed> {
        let payload_crc = crc32fast::hash(draft.events.bytes());
        let bytes = draft.events.bytes().len();
        let mut state = self.queue.state();
        while !state.closed
            && !state.drafts.is_empty()
            && (state.drafts.len() >= self.queue.bound || state.bytes + bytes > QUEUED_BYTES_MAX)
        {
            state = self.queue.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(SinkClosed);
        }
        state.bytes += bytes;
        state.drafts.push_back(Queued { draft, payload_crc });
        drop(state);
        self.queue.filled.notify_one();
        Ok(())
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.queue.state().spare.pop().unwrap_or_default()
    }
}

//! The batches that wait for a replay.
//!
//! Invariant: in strict order the batch in front is the oldest there is, due or not; otherwise it is the one that is
//! due first, and of several due at the same time the oldest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use crate::batch::BatchId;

/// A batch that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The batch.
    pub batch: BatchId,
    /// How often it was sent, each time without success.
    pub attempts: u32,
    /// It is not sent again before.
    pub due: Instant,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// What is due first.
    Due,
    /// What is oldest.
    Strict,
}

/// Batches by [`Order`].
#[derive(Debug)]
pub(super) struct WaitingQueue {
    order: Order,
    heap: BinaryHeap<Reverse<Entry>>,
    /// A batch that failed more often than this is parked.
    retry_count: u32,
    untried: usize,
    parked: usize,
}

/// Ordered by its fields, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The due time where it decides.
    rank: Option<Instant>,
    batch: BatchId,
    due: Instant,
    attempts: u32,
}

impl WaitingQueue {
    /// An empty queue; batches that failed more than `retry_count` times count as parked.
    pub(super) fn new(order: Order, retry_count: u32) -> Self {
        Self { order, heap: BinaryHeap::new(), retry_count, untried: 0, parked: 0 }
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        let Waiting { batch, attempts, due } = waiting;
        self.untried += usize::from(attempts == 0);
        self.parked += usize::from(attempts > self.retry_count);
        let rank = (self.order == Order::Due).then_some(due);
        self.heap.push(Reverse(Entry { rank, batch, due, attempts }));
    }

    /// When the batch in front is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the batch in front, due or not.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let Reverse(Entry { batch, attempts, due, .. }) = self.heap.pop()?;
        self.untried -= usize::from(attempts == 0);
        self.parked -= usize::from(attempts > self.retry_count);
        Some(Waiting { batch, attempts, due })
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// How many were not sent since the start: from before a restart, or halves of a refused batch.
    pub(super) const fn untried(&self) -> usize {
        self.untried
    }

    /// How many are out of quick retries.
    pub(super) const fn parked(&self) -> usize {
        self.parked
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Position;

    fn waiting(first: u64, attempts: u32, due: Instant) -> Waiting {
        let batch = BatchId { first: Position(first), last: Position(first + 9), part: None };
        Waiting { batch, attempts, due }
    }

    fn order_of(order: Order) -> Vec<u64> {
        let now = Instant::now();
        let mut queue = WaitingQueue::new(order, 3);
        let later = now + Duration::from_secs(1);
        [waiting(1, 1, later), waiting(31, 0, now), waiting(21, 4, now), waiting(11, 1, later)]
            .into_iter()
            .for_each(|entry| queue.push(entry));
        assert_eq!((queue.len(), queue.untried(), queue.parked()), (4, 1, 1));
        let popped = std::iter::from_fn(|| queue.pop()).map(|entry| entry.batch.first.0).collect();
        assert_eq!((queue.len(), queue.untried(), queue.parked()), (0, 0, 0));
        popped
    }

    #[test]
    fn what_is_due_comes_first_and_of_that_the_oldest() {
        assert_eq!(order_of(Order::Due), [21, 31, 1, 11]);
    }

    #[test]
    fn in_strict_order_the_oldest_comes_first_due_or_not() {
        assert_eq!(order_of(Order::Strict), [1, 11, 21, 31]);
    }
}

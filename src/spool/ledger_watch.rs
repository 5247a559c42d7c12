//! Wakes whoever waits in the ledger's database for a word that never comes.
//!
//! sled writes on threads of its own, and wakes whoever waits for a write when it is done. Of its two ways to learn that
//! a write has failed one wakes nobody (0.34.7, `Log::exit_reservation`): a waiter that has just looked for an error
//! waits for ever, and with it every acknowledgement. Whoever else asks the database for anything finds the error and
//! wakes all who wait. So an operation that takes long is looked after by a second one, from another thread.
//!
//! Invariants:
//! - An idle ledger costs nothing: its watch sleeps until the next operation.
//! - What looks after an operation changes nothing: it asks for what was asked for already.
//! - The last handle of the database is given up by a thread that may panic: sled does where the file cannot be synced
//!   at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{JoinHandle, park, park_timeout};
use std::time::Duration;

/// An operation that takes longer than this is looked after, and again after twice as long, and so on.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest time between two looks: a disk that hangs is not to be met by ever more threads.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// Looks after the operations on one database.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Beginnings and ends of operations: odd while there is one.
    turns: AtomicU64,
    /// The watch sleeps until it is woken.
    asleep: AtomicBool,
    ended: AtomicBool,
}

impl Watch {
    /// Looks after operations on `database` with `ask`. It is a handle that nobody keeps longer.
    pub(super) fn new<D: Clone + Send + 'static>(
        database: D,
        ask: impl Fn(&D) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("ledger-watch".into()).spawn({
            let shared = shared.clone();
            move || {
                shared.watch(|| {
                    let (database, ask) = (database.clone(), ask.clone());
                    // One that cannot be started is tried again; one that waits as well is woken by the next.
                    let _ = std::thread::Builder::new().name("ledger-look".into()).spawn(move || {
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            ask(&database);
                            drop(database);
                        }));
                    });
                });
                let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Runs an operation that may wait for another thread.
    pub(super) fn over<T>(&self, operation: impl FnOnce() -> T) -> T {
        self.shared.turns.fetch_add(1, SeqCst);
        if self.shared.asleep.swap(false, SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        let result = operation();
        self.shared.turns.fetch_add(1, SeqCst);
        result
    }
}

impl Shared {
    fn watch(&self, look: impl Fn()) {
        let mut patience = PATIENCE;
        let mut turns = self.turns.load(SeqCst);
        while !self.ended.load(SeqCst) {
            park_timeout(patience);
            let before = std::mem::replace(&mut turns, self.turns.load(SeqCst));
            if turns != before {
                patience = PATIENCE;
            } else if turns % 2 == 1 {
                look();
                patience = (patience * 2).min(PATIENCE_MAX);
            } else {
                self.asleep.store(true, SeqCst);
                // What begins after this look wakes it.
                if self.turns.load(SeqCst) == turns && !self.ended.load(SeqCst) {
                    park();
                }
                self.asleep.store(false, SeqCst);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It catches what panics.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    /// What an operation waits for comes only when somebody else asks.
    #[test]
    fn an_operation_that_waits_for_ever_is_looked_after() {
        let (asked, answers) = sync_channel(1);
        let watch = Watch::new(asked, |asked| _ = asked.try_send(())).unwrap();
        for _ in 0..2 {
            watch.over(|| answers.recv_timeout(Duration::from_secs(60))).unwrap();
            let begun = crate::clock::now();
            while !watch.shared.asleep.load(SeqCst) {
                assert!(begun.elapsed() < Duration::from_secs(60), "it does not sleep");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn operations_that_end_are_left_alone() {
        let (asked, answers) = channel();
        let watch = Watch::new(asked, |asked| _ = asked.send(())).unwrap();
        for number in 0..1000 {
            assert_eq!(watch.over(|| number), number);
        }
        drop(watch);
        assert_eq!(answers.recv().ok(), None, "it was asked, or the handle is still there");
    }

    #[test]
    fn a_database_that_panics_at_its_end_takes_nobody_along() {
        #[derive(Clone)]
        struct Panics(Arc<()>);
        impl Drop for Panics {
            fn drop(&mut self) {
                assert!(Arc::strong_count(&self.0) > 1, "the last one");
            }
        }
        let database = Panics(Arc::new(()));
        let watch = Watch::new(database.clone(), |_| {}).unwrap();
        drop(database);
        drop(watch);
    }
}

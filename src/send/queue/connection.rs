//! One connection for all batches: made when there is none, by one of those that need it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::send::Outcome;

/// A connection that knows whether it still serves.
pub(in crate::send) trait Live {
    /// Whether messages can still go over it, as far as is known.
    fn is_live(&self) -> bool;
}

/// Keeps a connection.
#[derive(Debug)]
pub(super) struct Shared<C> {
    /// The connection that new messages go to.
    current: Mutex<Option<Arc<C>>>,
    /// Held while one is made, so that there is one attempt at a time; why the last one failed.
    connecting: tokio::sync::Mutex<Option<Outcome>>,
    /// How many attempts failed.
    failures: AtomicU64,
}

impl<C> Default for Shared<C> {
    fn default() -> Self {
        Self {
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }
}

impl<C: Live> Shared<C> {
    /// The connection that there is, or what `connect` makes. An attempt that ended while others waited for it speaks for
    /// all of them.
    pub(super) async fn find(
        &self,
        connect: impl Future<Output = Result<C, Outcome>>,
    ) -> Result<Arc<C>, Outcome> {
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        let failures = self.failures.load(Ordering::Relaxed);
        let mut last_failure = self.connecting.lock().await;
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        if self.failures.load(Ordering::Relaxed) != failures
            && let Some(failure) = &*last_failure
        {
            return Err(failure.clone());
        }
        match connect.await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *self.current() = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(failure) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *last_failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn usable(&self) -> Option<Arc<C>> {
        self.current().as_ref().filter(|connection| connection.is_live()).cloned()
    }

    /// Lets nothing go to `connection` any more. It ends once nobody waits on it.
    pub(super) fn retire(&self, connection: &Arc<C>) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *current = None;
        }
    }

    /// Takes the connection away.
    pub(super) fn take(&self) -> Option<Arc<C>> {
        self.current().take()
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<C>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    struct Line(AtomicBool);

    impl Live for Line {
        fn is_live(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn line() -> Line {
        Line(AtomicBool::new(true))
    }

    #[tokio::test]
    async fn a_connection_serves_until_it_is_dead_or_retired() {
        let shared = Shared::default();
        let first = shared.find(async { Ok(line()) }).await.unwrap();
        let never = async { panic!("there is one") };
        assert!(Arc::ptr_eq(&first, &shared.find(never).await.unwrap()));
        first.0.store(false, Ordering::Relaxed);
        let second = shared.find(async { Ok(line()) }).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // A connection that is not the current one any more takes nothing with it.
        shared.retire(&first);
        assert!(shared.usable().is_some());
        shared.retire(&second);
        assert!(shared.take().is_none());
    }

    #[tokio::test]
    async fn one_attempt_speaks_for_all_that_wait_for_it() {
        let shared = Shared::<Line>::default();
        let failure = Outcome::Retry { after: None, reason: "refused".into() };
        let attempts = AtomicU64::new(0);
        let attempt = || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(failure.clone())
        };
        let (a, b, c) = tokio::join!(shared.find(attempt()), shared.find(attempt()), shared.find(attempt()));
        for outcome in [a.err(), b.err(), c.err()] {
            assert_eq!(outcome, Some(failure.clone()));
        }
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        // The next batch makes its own.
        assert!(shared.find(attempt()).await.is_err());
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }
}

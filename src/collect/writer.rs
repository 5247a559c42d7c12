//! The one thread that writes: it commits together whatever has gathered while the commit before was synced.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::request::Batch;
use super::store::{CommitError, Store, Stored};

/// The most batches in one commit; also the most that wait for one.
const BATCHES_MAX: usize = 64;
/// A commit takes no further batch once it has this many bytes.
const COMMIT_BYTES_MAX: usize = 64 << 20;

/// What is asked of the writer.
enum Ask {
    /// Store a batch.
    Store(Batch, oneshot::Sender<Result<Stored, CommitError>>),
    /// Say what is stored.
    Describe(oneshot::Sender<StoreStats>),
}

/// What is stored, from the ranges that the index has on disk.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StoreStats {
    /// Events in the out file.
    pub events_stored: u64,
    /// Bytes in the out file.
    pub out_bytes: u64,
    /// What there is of each source.
    pub sources: Vec<SourceStats>,
}

/// What is stored of one source of one spool.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SourceStats {
    /// The spool that numbered its events.
    pub spool: String,
    /// Its name.
    pub source: String,
    /// First and last sequence number of each range without a gap.
    pub ranges: Vec<(u64, u64)>,
}

/// The writer is gone: its thread panicked, or it was closed.
#[derive(Debug, thiserror::Error)]
#[error("the writer has stopped")]
pub struct WriterGone;

/// A way to the writer.
#[derive(Clone, Debug)]
pub struct Writer {
    asks: mpsc::Sender<Ask>,
}

impl Writer {
    /// Starts the thread. It ends once every clone of the writer is dropped.
    ///
    /// # Errors
    /// What the system says where there can be no thread.
    pub fn start(store: Store) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (asks, queue) = mpsc::channel(BATCHES_MAX);
        let thread =
            std::thread::Builder::new().name("collect-writer".into()).spawn(move || serve(store, queue))?;
        Ok((Self { asks }, thread))
    }

    /// Stores a batch. When this returns `Ok(Ok(_))`, every event of it is durable.
    ///
    /// # Errors
    /// [`WriterGone`] where it can no longer be said what became of the batch.
    pub async fn store(&self, batch: Batch) -> Result<Result<Stored, CommitError>, WriterGone> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Store(batch, reply)).await.map_err(|_| WriterGone)?;
        answer.await.map_err(|_| WriterGone)
    }

    /// Says what is stored.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn describe(&self) -> Result<StoreStats, WriterGone> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Describe(reply)).await.map_err(|_| WriterGone)?;
        answer.await.map_err(|_| WriterGone)
    }
}

fn serve(mut store: Store, mut queue: mpsc::Receiver<Ask>) {
    let mut batches = Vec::new();
    let mut replies = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut bytes = 0;
        let mut describe = Vec::new();
        while let Some(ask) = next {
            match ask {
                Ask::Store(batch, reply) => {
                    bytes += batch.lines.len();
                    batches.push(batch);
                    replies.push(reply);
                }
                Ask::Describe(reply) => describe.push(reply),
            }
            let full = batches.len() >= BATCHES_MAX || bytes >= COMMIT_BYTES_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        // A reply that nobody waits for belongs to a connection that is gone; its events are stored all the same.
        for (reply, answer) in replies.drain(..).zip(store.commit(&batches)) {
            let _ = reply.send(answer);
        }
        batches.clear();
        for reply in describe {
            let _ = reply.send(stats(&store));
        }
    }
}

fn stats(store: &Store) -> StoreStats {
    let sources = store.seen().sources().map(|(spool, source, ranges)| SourceStats {
        spool: spool.to_string(),
        source: source.to_owned(),
        ranges: ranges.iter().map(|run| (run.first, run.last)).collect(),
    });
    StoreStats {
        events_stored: store.seen().event_count(),
        out_bytes: store.out_len(),
        sources: sources.collect(),
    }
}

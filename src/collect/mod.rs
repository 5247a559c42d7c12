//! The reference collector: receives batches over HTTP and WebSockets and stores every event once, however often it is sent.
//!
//! Invariants:
//! - An event is (spool id, source name, sequence number). Which were stored is remembered durably, as ranges, so
//!   batches may come in any order, be cut in any way, overlap, and come again after any crash on either side.
//! - 2xx, or an ack, is answered after the lines and the memory of them are durable.
//! - A request, or a frame, is stored whole or not at all.
//!
//! `http` reads requests, `websocket` and `frame` what comes over connections that stay; `request` turns headers and body into rendered lines; `writer`, one thread, commits together
//! what gathered while the commit before was synced; `store` says in which order lines and index reach the disk and
//! why a crash at any instruction is safe; `seen` is the memory, in `ranges` and on disk.
//!
//! What it costs: memory for at most 16 requests and frames, whose bodies and decoded forms are limited, for one further
//! frame of each WebSocket, and one range a source in the ordinary case. The number of connections is left to the limit of open files. There is no authentication
//! and no TLS: it listens where it is told to, and a proxy belongs in front of it where that is not a trusted network.

#[cfg(feature = "websocket")]
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod http;
mod ranges;
mod request;
mod seen;
mod store;
#[cfg(feature = "websocket")]
mod websocket;
mod writer;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use http::Stats;
pub use store::StoreError;
pub use writer::{SourceStats, StoreStats};

/// How long requests may finish once the collector is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a collector is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port to listen on, as in `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: String,
    /// The file that the lines go to. Its index is `<out>.seen`, beside it.
    pub out: PathBuf,
    /// The most bytes in a request's body, or in a frame, as it comes. Decoded it may have four times as many.
    pub body_bytes_max: u64,
}

impl Options {
    /// The default of `body_bytes_max`: 32 MiB, well above what an agent puts into a batch.
    pub const BODY_BYTES_MAX: u64 = 32 << 20;
}

/// Why the collector cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The out file or its index cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: String,
        /// What the system says.
        source: io::Error,
    },
    /// Serving failed.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
    /// The thread that writes is gone.
    #[error("the writer has stopped")]
    WriterGone,
}

/// A collector that has its files and its port, and does not answer yet.
#[derive(Debug)]
pub struct Collector {
    store: store::Store,
    listener: TcpListener,
    address: SocketAddr,
    body_bytes_max: u64,
}

impl Collector {
    /// Opens the files, takes their lock, recovers from whatever ended the collector before, and listens.
    ///
    /// # Errors
    /// [`CollectError::Store`] and [`CollectError::Listen`].
    pub fn bind(options: &Options) -> Result<Self, CollectError> {
        let store = store::Store::open(&options.out)?;
        let listen = |source| CollectError::Listen { listen: options.listen.clone(), source };
        let listener = TcpListener::bind(&options.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { store, listener, address, body_bytes_max: options.body_bytes_max.max(1) })
    }

    /// The address it listens on, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then lets requests in flight finish for up to five seconds. Returns the counts.
    ///
    /// # Errors
    /// [`CollectError::Serve`] and [`CollectError::WriterGone`].
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<Stats, CollectError> {
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(CollectError::Serve)?;
        let (writer, thread) = writer::Writer::start(self.store).map_err(CollectError::Serve)?;
        let collecting = Arc::new(http::Collecting::new(writer, self.body_bytes_max));

        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let stop = {
            let collecting = Arc::clone(&collecting);
            async move {
                stop.await;
                collecting.stop();
                let _ = stopping.send(());
            }
        };
        let router = http::router(Arc::clone(&collecting));
        let serving = async {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop).await;
            // The server does not know of connections that were upgraded.
            collecting.stopped().await;
            served
        };
        let given_up = async {
            let _ = stopped.await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            served = serving => served.map_err(CollectError::Serve)?,
            () = given_up => tracing::warn!("requests were still in flight when the collector stopped"),
        }

        let stats = collecting.stats().await.map_err(|_| CollectError::WriterGone)?;
        drop(collecting);
        // With connections given up on, their tasks may hold the writer for a little longer; a commit that they
        // started ends either way as after a crash: stored, or cut off at the next start.
        if thread.is_finished() {
            thread.join().map_err(|_| CollectError::WriterGone)?;
        }
        Ok(stats)
    }
}

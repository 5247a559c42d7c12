//! The agent: starts the stages, waits for a reason to end, and drains.
//!
//! ```text
//!  tailer ──▶ spool ──▶ aggregator ──▶ delivery ──▶ server
//!  (thread)  (writer,    (thread)      (runtime)
//!             keeper)
//! ```
//!
//! Invariants:
//! - Everything that can be refused is refused before a file is followed: the configuration, the strategy, the spool.
//! - Stages stop in the order of the data: reading, committing, cutting, sending, keeping the books. Nothing waits for
//!   the server longer than `shutdown_secs`.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::aggregate::{Aggregator, Limits};
use crate::config::{Config, SyncMode};
use crate::outbox::SpoolOutbox;
use crate::retry::{BackoffError, Delivery, DeliveryError, Policy};
use crate::send::{self, SendError};
use crate::spool::{Spool, SpoolError, SpoolOptions};
use crate::tail::{TailError, TailOptions, Tailer};

/// The most threads of the runtime: sending needs little processor time, compressing some.
const RUNTIME_THREADS_MAX: usize = 4;
/// Payloads that wait for a sender, at most: the bound in bytes is the aggregator's.
const READY_MAX: usize = 64;

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The transport cannot be set up.
    #[error("the transport cannot be set up")]
    Send(#[from] SendError),
    /// The retry settings make no sense.
    #[error("the retry settings cannot be used")]
    Retry(#[from] BackoffError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The files cannot be followed.
    #[error("the sources cannot be followed")]
    Tail(#[from] TailError),
    /// Delivery ended by itself.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A thread could not be started.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    /// A thread ended by itself, which only a defect or a failed disk does.
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the agent until `stop` comes, then drains and returns.
///
/// # Errors
/// Where it cannot start, or a stage fails. What was spooled is kept.
pub fn run(config: &Config, runtime: &Runtime, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let global = &config.global;
    let strategy = send::strategy(global)?;
    let policy = Policy::new(global)?;
    let mut spool = Spool::open(&SpoolOptions::from(config))?;
    let tailer = Tailer::new(&config.sources, spool.checkpoints(), &TailOptions::new(global.max_open_files))?;
    let stopper = tailer.stopper();
    let batches = spool.batches();
    let recovered = batches.outstanding();
    tracing::info!(
        agent = global.agent_name,
        spool = %spool.id(),
        sources = config.sources.len(),
        end_point = %global.end_point,
        resent = recovered.len(),
        "started"
    );
    if global.sync == SyncMode::Os {
        tracing::warn!("sync = \"os\": the spool survives a killed process, not a power cut");
    }

    let (ended, mut any_ended) = mpsc::unbounded_channel();
    let (ready_in, ready) = mpsc::channel(READY_MAX.min(global.channel_bound));
    let ends_wanted = strategy.takes_apart();
    let aggregator =
        Aggregator::new(spool.cutter(), Limits::from(global), ready_in, runtime.handle().clone())
            .marking_ends(ends_wanted);
    let mut appender = spool.appender();
    let tail = spawn("tailer", ended.clone(), move || tailer.run(&mut appender))?;
    let aggregate = spawn("aggregator", ended, move || aggregator.run())?;
    let (stop_delivery, delivery_stopped) = oneshot::channel::<()>();
    let outbox = SpoolOutbox::new(batches).marking_ends(ends_wanted);
    let delivery = Delivery::new(Arc::new(outbox), strategy, policy);
    let mut delivery = runtime.spawn(delivery.run(recovered, ready, async {
        // A sender that is gone means the same as one that says so.
        let _ = delivery_stopped.await;
    }));

    let mut delivered = None;
    let early = runtime.block_on(async {
        tokio::select! {
            () = stop => None,
            name = any_ended.recv() => name,
            result = &mut delivery => {
                delivered = Some(result);
                Some("delivery")
            }
        }
    });

    tracing::info!("stopping");
    stopper.stop();
    // A tailer that waits for room in a full spool comes back once the spool takes no more.
    spool.stop_appending();
    let read = join(tail, "tailer");
    // Delivery that has ended by itself needs no telling.
    let _ = stop_delivery.send(());
    let delivered = match delivered {
        Some(delivered) => delivered,
        None => runtime.block_on(delivery),
    };
    let aggregated = join(aggregate, "aggregator");
    spool.close();

    read??;
    aggregated?;
    match delivered {
        Ok(result) => result?,
        Err(_panic) => return Err(AgentError::Ended("delivery")),
    }
    match early {
        Some(name) => Err(AgentError::Ended(name)),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Starts a thread that says its name when it ends, however it ends.
fn spawn<T: Send + 'static>(
    name: &'static str,
    ended: mpsc::UnboundedSender<&'static str>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, AgentError> {
    struct Says(mpsc::UnboundedSender<&'static str>, &'static str);
    impl Drop for Says {
        fn drop(&mut self) {
            // Nobody listens any more once the agent stops.
            let _ = self.0.send(self.1);
        }
    }
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _says = Says(ended, name);
            run()
        })
        .map_err(AgentError::Thread)
}

fn join<T>(thread: JoinHandle<T>, name: &'static str) -> Result<T, AgentError> {
    thread.join().map_err(|_panic| AgentError::Ended(name))
}

/// A runtime for [`run`].
///
/// # Errors
/// Where its threads cannot be started.
pub fn runtime() -> Result<Runtime, AgentError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(RUNTIME_THREADS_MAX))
        .thread_name("sender")
        .enable_all()
        .build()
        .map_err(AgentError::Thread)
}

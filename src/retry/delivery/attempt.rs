//! One send from its start to its end: load, send, and record at once what the server said.
//!
//! Invariant: what has to be durable (an acknowledgement noted, halves, a dead letter) was handed to the spool before
//! the end is reported, so the loop may forget the batch, and a stop between the two loses nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::super::counters::DeliveryCounters;
use super::super::waiting::Waiting;
use super::super::{Outbox, OutboxError};
use super::{DeliveryError, Ready};
use crate::batch::{BatchId, Payload};
use crate::event::{Seq, SourceName};
use crate::send::{Outcome, Strategy};

/// Where batches come from and where they go.
pub(super) struct Ways {
    pub outbox: Arc<dyn Outbox>,
    pub strategy: Arc<dyn Strategy>,
    pub counters: Arc<DeliveryCounters>,
}

/// What is to be sent.
pub(super) enum Job {
    First(Ready),
    Replay(Waiting),
}

/// A send that is over.
pub(super) struct Done {
    pub batch: BatchId,
    /// How often the batch failed before.
    pub attempts: u32,
    pub first: bool,
    pub probe: bool,
    pub end: End,
}

/// How a send ended.
pub(super) enum End {
    /// The server has the batch.
    Acknowledged,
    /// The server refused the batch; these take its place.
    Halved([BatchId; 2]),
    /// The server refused the batch, which was a single event.
    Buried { event: Option<(SourceName, Seq)>, status: u16 },
    /// The batch could not be read any more and nothing was sent; these take its place.
    Damaged(Vec<BatchId>),
    /// It is to be sent again.
    Failed { after: Option<Duration>, fault: bool, reason: String },
}

impl Ways {
    /// Does `job`. A batch's payload is in memory from here to the end of this call, no longer.
    pub(super) async fn attempt(self: Arc<Self>, job: Job, probe: bool) -> Result<Done, DeliveryError> {
        match job {
            Job::First(Ready { payload, room }) => {
                let batch = payload.batch;
                let end = self.send(payload).await?;
                drop(room);
                Ok(Done { batch, attempts: 0, first: true, probe, end })
            }
            Job::Replay(Waiting { batch, attempts, .. }) => {
                let end = self.load_and_send(batch).await?;
                Ok(Done { batch, attempts, first: false, probe, end })
            }
        }
    }

    async fn load_and_send(&self, batch: BatchId) -> Result<End, DeliveryError> {
        let outbox = Arc::clone(&self.outbox);
        match spawn_blocking(move || outbox.load(batch)).await? {
            Ok(payload) => self.send(payload).await,
            Err(OutboxError::Replaced(replacements)) => Ok(End::Damaged(replacements)),
            Err(closed @ OutboxError::Closed) => Err(closed.into()),
        }
    }

    async fn send(&self, payload: Payload) -> Result<End, DeliveryError> {
        match self.strategy.send(&payload).await {
            Outcome::Acknowledged => {
                self.outbox.acknowledge(&payload);
                self.counters.acknowledged(payload.batch.events());
                Ok(End::Acknowledged)
            }
            Outcome::Retry { after, reason } => {
                self.counters.retried();
                Ok(End::Failed { after, fault: false, reason })
            }
            Outcome::EndpointFault { reason } => {
                self.counters.retried();
                Ok(End::Failed { after: None, fault: true, reason })
            }
            Outcome::Rejected { status, response } => {
                self.counters.rejected();
                self.take_apart(payload, status, response).await
            }
        }
    }

    /// What to do with a batch that the server refused.
    async fn take_apart(
        &self,
        payload: Payload,
        status: u16,
        response: String,
    ) -> Result<End, DeliveryError> {
        let batch = payload.batch;
        let outbox = Arc::clone(&self.outbox);
        if batch.events() > 1 {
            drop(payload);
            let halves = spawn_blocking(move || outbox.bisect(batch)).await??;
            tracing::debug!(%batch, status, "batch refused and cut in two");
            return Ok(End::Halved(halves));
        }
        let event = payload.sources.first().map(|range| (range.source.clone(), range.first));
        spawn_blocking(move || outbox.bury(&payload, status, &response)).await??;
        self.counters.died();
        Ok(End::Buried { event, status })
    }
}

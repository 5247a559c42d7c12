//! The spool's outstanding batches as delivery asks for them: read back, encoded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::aggregate;
use crate::batch::{BatchId, Payload};
use crate::payload::JsonEncoder;
use crate::retry::{Outbox, OutboxError};
use crate::spool::{BatchError, Batches};

/// [`Outbox`] over a spool.
pub(crate) struct SpoolOutbox {
    batches: Batches,
    /// One encoder for each agent name that outstanding batches were cut under: mostly one.
    encoders: Mutex<BTreeMap<String, JsonEncoder>>,
}

impl SpoolOutbox {
    pub(crate) fn new(batches: Batches) -> Self {
        Self { batches, encoders: Mutex::default() }
    }
}

impl From<BatchError> for OutboxError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Replaced(by) => Self::Replaced(by),
            BatchError::Closed(_) => Self::Closed,
        }
    }
}

impl Outbox for SpoolOutbox {
    fn load(&self, batch: BatchId) -> Result<Payload, OutboxError> {
        let read = self.batches.read(batch)?;
        let encoder = {
            let mut encoders = self.encoders.lock().unwrap_or_else(PoisonError::into_inner);
            encoders
                .entry(read.agent_name)
                .or_insert_with_key(|agent_name| JsonEncoder::new(agent_name))
                .clone()
        };
        Ok(aggregate::encode(&encoder, batch, read.spool_id, &read.content))
    }

    fn acknowledge(&self, payload: &Payload) {
        self.batches.acknowledge(payload.batch, payload.sources.clone());
    }

    fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], OutboxError> {
        self.batches.bisect(batch).map_err(|_| OutboxError::Closed)
    }

    fn bury(&self, payload: &Payload, status: u16, response: &str) -> Result<(), OutboxError> {
        self.batches.bury(payload.batch, status, response).map_err(|_| OutboxError::Closed)
    }
}

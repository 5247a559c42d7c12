//! Batches as delivery sees them: read one back, and say what became of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::content::{self, Run};
use super::dead_letter::DeadLetter;
use super::keeper::{Closed, Counts, KeeperHandle};
use super::ledger::{BatchRecord, Location};
use super::log::{self, Log};
use super::reader::{FrameReader, Step};
use super::segment::SpoolId;
use super::view::{Filed, Shared};
use crate::batch::{BatchContent, BatchId, SourceRange};
use crate::event::{Position, Seq, SourceName, Timestamp};
use crate::payload::Profile;

/// The outstanding batches of a spool.
#[derive(Clone, Debug)]
pub struct Batches {
    pub(super) log: Arc<Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) keeper: KeeperHandle,
    pub(super) profiles: Arc<BTreeMap<u32, Arc<Profile>>>,
}

/// A batch read back.
#[derive(Debug)]
pub struct ReadBatch {
    /// Its events, for a part those of the part.
    pub content: BatchContent,
    /// What it is encoded under, and the number of that in the spool.
    pub profile: (u32, Arc<Profile>),
    /// The id under which it was first sent.
    pub spool_id: SpoolId,
}

/// Why a batch cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Some of it was damaged on disk: these hold what is intact and take its place.
    #[error("the batch was damaged on disk and replaced")]
    Replaced(Vec<BatchId>),
    /// The spool is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Batches {
    /// The batches that were cut and are not acknowledged, oldest first.
    #[must_use]
    pub fn outstanding(&self) -> Vec<BatchId> {
        let mut batches: Vec<_> = self.shared.view().batches.keys().copied().collect();
        batches.sort_unstable();
        batches
    }

    /// Reads a batch back, as it was first sent.
    ///
    /// # Errors
    /// Where it is damaged, or the spool is closed while the disk cannot be read.
    pub fn read(&self, batch: BatchId) -> Result<ReadBatch, BatchError> {
        let Some(filed) = self.filed(batch) else {
            // Acknowledged or dropped meanwhile.
            return Err(BatchError::Replaced(Vec::new()));
        };
        let run = self.retry(|| {
            let mut reader = FrameReader::new(self.log.clone(), batch.first, Some(filed.at), true);
            content::read_run(&mut reader, batch.first, batch.last)
        })?;
        if !run.is_whole() {
            return Err(self.replace(batch, filed, &run)?);
        }
        let spool_id = self.log.find(batch.first).map_or(SpoolId([0; 16]), |(_, extent)| extent.spool_id);
        let content = match batch.part {
            Some(part) => run.content.part(part.from, part.to),
            None => run.content,
        };
        let profile = self.profiles.get(&filed.profile).cloned().unwrap_or_default();
        Ok(ReadBatch { content, profile: (filed.profile, profile), spool_id })
    }

    /// Notes that the server has taken a batch.
    pub fn acknowledge(&self, batch: BatchId, sources: Vec<SourceRange>) {
        self.keeper.acknowledge(batch, sources);
    }

    /// Replaces a batch by its halves, durably.
    ///
    /// # Errors
    /// Where the spool is closed, or the batch is not outstanding or has a single event.
    pub fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], Closed> {
        self.keeper.bisect(batch)
    }

    /// Moves the only event of a batch to the dead letters, durably. One that is damaged or was dropped meanwhile is
    /// counted as that. Waits while the disk refuses.
    ///
    /// # Errors
    /// Where the spool is closed.
    pub fn bury(&self, batch: BatchId, status: u16, response: &str) -> Result<(), Closed> {
        let read = match self.read(batch) {
            Ok(read) => read,
            Err(BatchError::Replaced(_)) => return Ok(()),
            Err(BatchError::Closed(closed)) => return Err(closed),
        };
        let Some(run) = read.content.sources.first() else { return Err(Closed) };
        let (line, detected) = run
            .slices
            .first()
            .and_then(|slice| {
                slice.events().next().map(|event| {
                    let time = event.time.unwrap_or(slice.detected);
                    (event.line.to_vec(), time)
                })
            })
            .unwrap_or((Vec::new(), Timestamp::default()));
        let position = self.retry(|| self.position_of(batch, &run.source, run.first_seq))?;
        let letter = DeadLetter {
            position,
            source: run.source.clone(),
            seq: run.first_seq,
            detected,
            status,
            response: response.to_owned(),
            line,
        };
        while !self.keeper.bury(batch, letter.clone())? {
            if self.log.is_closed() {
                return Err(Closed);
            }
            self.log.wait_freed(crate::clock::now() + log::RETRY_EVERY);
        }
        Ok(())
    }

    fn filed(&self, batch: BatchId) -> Option<Filed> {
        self.shared.view().batches.get(&batch).copied()
    }

    /// The position of an event that is somewhere in `batch`.
    fn position_of(&self, batch: BatchId, source: &SourceName, seq: Seq) -> io::Result<Position> {
        let hint = self.filed(batch).map(|filed| filed.at);
        let mut reader = FrameReader::new(self.log.clone(), batch.first, hint, false);
        while reader.next_position() <= batch.last {
            match reader.step()? {
                Step::Frame(frame) => {
                    let header = &frame.header;
                    let ends = header.first_seq.plus(u64::from(header.events));
                    if header.checkpoint.source == *source && header.first_seq <= seq && seq < ends {
                        return Ok(header.first_position.plus(seq.since(header.first_seq)));
                    }
                }
                Step::Missing(_) => {}
                Step::CaughtUp => break,
            }
        }
        Ok(batch.first)
    }

    /// Puts the intact runs of a damaged batch in its place.
    fn replace(&self, batch: BatchId, filed: Filed, run: &Run) -> Result<BatchError, Closed> {
        let salvage = self.retry(|| content::salvage(&self.log, &self.shared, batch, run, &Counts::new()))?;
        let records: Vec<_> = salvage
            .intact
            .iter()
            .map(|(first, last)| BatchRecord {
                id: BatchId { first: *first, last: *last, part: None },
                at: if *first == batch.first { filed.at } else { Location::default() },
            })
            .collect();
        let by = records.iter().map(|record| record.id).collect();
        let damaged: u64 = salvage.damaged.values().sum();
        tracing::error!(
            %batch,
            events = damaged,
            intact = records.len(),
            "a batch is damaged on disk; what is intact is sent in smaller ones"
        );
        self.keeper.replace(batch, records, salvage.damaged)?;
        Ok(BatchError::Replaced(by))
    }

    /// Reads until it succeeds: a disk that cannot be read holds delivery up, loudly, and loses nothing.
    fn retry<T>(&self, mut read: impl FnMut() -> io::Result<T>) -> Result<T, Closed> {
        loop {
            match read() {
                Ok(value) => return Ok(value),
                Err(_) if self.log.is_closed() => return Err(Closed),
                Err(error) => self.log.say_unreadable(&error),
            }
            self.log.wait_freed(crate::clock::now() + log::RETRY_EVERY);
        }
    }
}

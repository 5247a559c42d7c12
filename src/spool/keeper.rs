//! The keeper: the thread that owns the ledger and writes down what becomes of batches.
//!
//! Invariants:
//! - A change is answered, and shown in the view, after it is durable.
//! - Whatever has gathered while the last commit ran is committed together. Acknowledgements alone wait a few
//!   milliseconds for company: one that is lost costs a resend under a known key, never an event.
//! - A segment is unlinked only after the ledger says durably that nothing in it is needed.
//! - The keeper's memory of the books is complete, so a ledger that fails is set aside and written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::dead_letter::{DeadLetter, DeadLetters};
use super::disk::Disk;
use super::ledger::{BatchRecord, Books, Changes, GROUP_MAX, Group, Ledger, LedgerError, Mark};
use super::log::Log;
use super::view::{Filed, Shared};
use crate::batch::{BatchId, SourceRange};
use crate::config::SyncMode;
use crate::event::{Position, Seq, SourceName};

/// How long acknowledgements alone wait for company.
const LINGER: Duration = Duration::from_millis(10);
/// The most commands in one commit.
const COMMANDS_MAX: usize = 1024;
/// How long the keeper waits before it tries again after the disk refused.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// A group that was bisected takes new parts up to this size, so that its value stays below 8 KiB.
const GROUP_PARTS_MAX: usize = 180;
/// Bytes held ready on the disk so that acknowledgements can be recorded when everything else is used up.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;

/// The spool takes no more changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool is closed")]
pub struct Closed;

type Reply<T> = SyncSender<Result<T, Closed>>;

/// Batches cut in one step.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub batches: Vec<BatchRecord>,
    /// The position after the last of them.
    pub cursor: Position,
    /// For each source in them, the sequence number after the last event.
    pub cut_seqs: Vec<(SourceName, Seq)>,
    /// Events that were found damaged on the way.
    pub damaged: Vec<(SourceName, u64)>,
}

#[derive(Debug)]
enum Command {
    Cut(Cut, Reply<CutOutcome>),
    Acknowledge(BatchId, Vec<SourceRange>),
    Bisect(BatchId, Reply<[BatchId; 2]>),
    Bury(BatchId, Box<DeadLetter>, Reply<()>),
    Replace(BatchId, Vec<BatchRecord>, Vec<(SourceName, u64)>, Reply<()>),
    Mark(Box<Mark>),
    DropOldest(Reply<bool>),
}

/// The way to the keeper, for every thread.
#[derive(Clone, Debug)]
pub(crate) struct KeeperHandle {
    /// Unbounded, so that an acknowledgement never waits for the disk. What can be in it is bounded by the batches that
    /// are cut and not acknowledged: cutting waits for the keeper.
    commands: Sender<Command>,
}

/// What became of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutOutcome {
    /// Its batches are durable and may be sent.
    Durable,
    /// Some of its events were dropped meanwhile: nothing was cut, and cutting goes on at this position.
    Moved(Position),
}

/// What a cut waits on.
#[derive(Debug)]
pub(crate) struct Pending(Receiver<Result<CutOutcome, Closed>>);

impl Pending {
    /// Waits until it is known what became of the cut.
    ///
    /// # Errors
    /// Where the spool was closed before.
    pub(crate) fn wait(self) -> Result<CutOutcome, Closed> {
        self.0.recv().unwrap_or(Err(Closed))
    }
}

impl KeeperHandle {
    fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Receiver<Result<T, Closed>>, Closed> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| Closed)?;
        Ok(answer)
    }

    fn ask_and_wait<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Closed> {
        self.ask(command)?.recv().unwrap_or(Err(Closed))
    }

    pub(crate) fn cut(&self, cut: Cut) -> Result<Pending, Closed> {
        self.ask(|reply| Command::Cut(cut, reply)).map(Pending)
    }

    pub(super) fn acknowledge(&self, batch: BatchId, sources: Vec<SourceRange>) {
        // A keeper that is gone leaves the batch unacknowledged: it is sent again after the restart.
        let _ = self.commands.send(Command::Acknowledge(batch, sources));
    }

    pub(super) fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], Closed> {
        self.ask_and_wait(|reply| Command::Bisect(batch, reply))
    }

    pub(super) fn bury(&self, batch: BatchId, letter: DeadLetter) -> Result<(), Closed> {
        self.ask_and_wait(|reply| Command::Bury(batch, Box::new(letter), reply))
    }

    pub(super) fn replace(
        &self,
        batch: BatchId,
        by: Vec<BatchRecord>,
        damaged: Vec<(SourceName, u64)>,
    ) -> Result<(), Closed> {
        self.ask_and_wait(|reply| Command::Replace(batch, by, damaged, reply))
    }

    pub(super) fn mark(&self, mark: Mark) {
        // The mark is the second witness; the snapshot of the next segment is the first.
        let _ = self.commands.send(Command::Mark(Box::new(mark)));
    }

    /// Drops the oldest sealed segment's events; says whether there was one.
    pub(super) fn drop_oldest(&self) -> bool {
        self.ask_and_wait(Command::DropOldest).unwrap_or(false)
    }
}

/// The keeper's thread.
pub(super) struct Keeper {
    commands: Receiver<Command>,
    ledger: Option<Ledger>,
    books: Books,
    profile: u32,
    log: Arc<Log>,
    shared: Arc<Shared>,
    dead: DeadLetters,
    sync: SyncMode,
    next_group: u64,
}

/// What one commit has gathered.
#[derive(Default)]
struct Gathered {
    changes: Changes,
    groups: BTreeSet<u64>,
    sources: BTreeSet<SourceName>,
    /// View entries to add and to take away.
    filed: Vec<(BatchId, Filed)>,
    gone: Vec<BatchId>,
    /// Answers to give once everything is durable.
    answers: Vec<Box<dyn FnOnce(Result<(), Closed>)>>,
}

impl Keeper {
    pub(super) fn new(
        ledger: Ledger,
        books: Books,
        profile: u32,
        log: Arc<Log>,
        shared: Arc<Shared>,
        dead: DeadLetters,
        sync: SyncMode,
    ) -> (Self, KeeperHandle) {
        let (sender, commands) = channel();
        let next_group = books.groups.keys().next_back().map_or(1, |last| last.saturating_add(1));
        let keeper =
            Self { commands, ledger: Some(ledger), books, profile, log, shared, dead, sync, next_group };
        (keeper, KeeperHandle { commands: sender })
    }

    /// Serves until every handle is gone, then leaves the ledger complete.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.commands.recv() {
            let mut alone = matches!(first, Command::Acknowledge(..));
            let mut gathered = Gathered::default();
            self.apply(first, &mut gathered);
            let deadline = crate::clock::now() + LINGER;
            for _ in 1..COMMANDS_MAX {
                let wait = if alone {
                    deadline.saturating_duration_since(crate::clock::now())
                } else {
                    Duration::ZERO
                };
                match self.commands.recv_timeout(wait) {
                    Ok(command) => {
                        alone &= matches!(command, Command::Acknowledge(..));
                        self.apply(command, &mut gathered);
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.commit(gathered);
        }
        self.leave();
    }

    fn apply(&mut self, command: Command, gathered: &mut Gathered) {
        match command {
            Command::Cut(cut, reply) => {
                let outcome = self.cut(cut, gathered);
                gathered.answer(reply, outcome);
            }
            Command::Acknowledge(batch, sources) => {
                if self.remove(batch, gathered) {
                    for range in sources {
                        let events = range.last.since(range.first).saturating_add(1);
                        self.account(&range.source, gathered).account.acknowledged += events;
                    }
                }
            }
            Command::Bisect(batch, reply) => match self.bisect(batch, gathered) {
                Some(halves) => gathered.answer(reply, halves),
                None => gathered.refuse(reply),
            },
            Command::Bury(batch, letter, reply) => match self.dead.append(&letter) {
                Ok(()) => {
                    if self.remove(batch, gathered) {
                        self.account(&letter.source, gathered).account.dead += 1;
                    }
                    gathered.answer(reply, ());
                }
                Err(error) => {
                    tracing::error!(%error, "a dead letter could not be written; its batch is kept");
                    gathered.refuse(reply);
                }
            },
            Command::Replace(batch, by, damaged, reply) => {
                self.replace(batch, by, &damaged, gathered);
                gathered.answer(reply, ());
            }
            Command::Mark(mark) => {
                gathered.changes.mark(&mark, &self.books.mark);
                self.books.mark = *mark;
            }
            Command::DropOldest(reply) => {
                let dropped = self.drop_oldest(gathered);
                gathered.answer(reply, dropped);
            }
        }
    }

    fn account(&mut self, name: &SourceName, gathered: &mut Gathered) -> &mut super::ledger::SourceRecord {
        gathered.sources.insert(name.clone());
        self.books.sources.entry(name.clone()).or_default()
    }

    fn cut(&mut self, cut: Cut, gathered: &mut Gathered) -> CutOutcome {
        if cut.batches.first().is_some_and(|record| record.id.first < self.books.cursor) {
            return CutOutcome::Moved(self.books.cursor);
        }
        for (name, seq) in cut.cut_seqs {
            self.account(&name, gathered).cut = seq;
        }
        for (name, events) in cut.damaged {
            self.account(&name, gathered).account.damaged += events;
        }
        self.books.cursor = self.books.cursor.max(cut.cursor);
        gathered.changes.cursor(self.books.cursor);
        self.file(self.profile, cut.batches, gathered);
        CutOutcome::Durable
    }

    fn file(&mut self, profile: u32, batches: Vec<BatchRecord>, gathered: &mut Gathered) {
        for batches in batches.chunks(GROUP_MAX) {
            let number = self.next_group;
            self.next_group = number.saturating_add(1);
            for record in batches {
                gathered.filed.push((record.id, Filed { at: record.at, profile, group: number }));
            }
            self.books.groups.insert(number, Group { profile, batches: batches.to_vec() });
            gathered.groups.insert(number);
        }
    }

    /// The number of the group that holds a batch. What was gathered and is not yet in the view counts too.
    fn group_of(&self, batch: BatchId, gathered: &Gathered) -> Option<u64> {
        let filed = self.shared.view().batches.get(&batch).map(|filed| filed.group);
        filed.or_else(|| {
            gathered.filed.iter().rev().find(|(id, _)| *id == batch).map(|(_, filed)| filed.group)
        })
    }

    /// Takes a batch out of its group; says whether it was there.
    fn remove(&mut self, batch: BatchId, gathered: &mut Gathered) -> bool {
        let Some(number) = self.group_of(batch, gathered) else { return false };
        let Some(group) = self.books.groups.get_mut(&number) else { return false };
        let before = group.batches.len();
        group.batches.retain(|record| record.id != batch);
        let removed = group.batches.len() < before;
        gathered.groups.insert(number);
        gathered.gone.push(batch);
        removed
    }

    fn bisect(&mut self, batch: BatchId, gathered: &mut Gathered) -> Option<[BatchId; 2]> {
        let halves = batch.halves()?;
        let number = self.group_of(batch, gathered)?;
        let group = self.books.groups.get_mut(&number)?;
        let index = group.batches.iter().position(|record| record.id == batch)?;
        let at = group.batches.get(index)?.at;
        let profile = group.profile;
        let records = halves.map(|id| BatchRecord { id, at });
        gathered.groups.insert(number);
        gathered.gone.push(batch);
        if group.batches.len() < GROUP_PARTS_MAX {
            group.batches.splice(index..=index, records);
            for id in halves {
                gathered.filed.push((id, Filed { at, profile, group: number }));
            }
        } else {
            group.batches.remove(index);
            self.file(profile, records.to_vec(), gathered);
        }
        Some(halves)
    }

    fn replace(
        &mut self,
        batch: BatchId,
        by: Vec<BatchRecord>,
        damaged: &[(SourceName, u64)],
        gathered: &mut Gathered,
    ) {
        let profile = self
            .group_of(batch, gathered)
            .and_then(|number| self.books.groups.get(&number))
            .map_or(self.profile, |group| group.profile);
        if self.remove(batch, gathered) {
            for (name, events) in damaged {
                self.account(name, gathered).account.damaged += events;
            }
            self.file(profile, by, gathered);
        }
    }

    fn drop_oldest(&mut self, gathered: &mut Gathered) -> bool {
        let segments = self.log.segments();
        let frontier = self.books.frontier();
        let last = segments.keys().next_back().copied();
        let oldest =
            segments.iter().find(|(id, extent)| extent.sealed && extent.end > frontier && Some(**id) != last);
        let Some((id, extent)) = oldest else { return false };
        match super::drop_oldest::plan(&self.log, &self.books, *extent) {
            Ok(plan) => {
                for batch in &plan.gone {
                    self.remove(*batch, gathered);
                }
                for (name, events) in &plan.dropped {
                    self.account(name, gathered).account.dropped += events;
                }
                for (name, seq) in plan.cut_seqs {
                    self.account(&name, gathered).cut = seq;
                }
                if self.books.cursor < plan.cursor {
                    self.books.cursor = plan.cursor;
                    gathered.changes.cursor(plan.cursor);
                }
                self.file(self.profile, plan.kept, gathered);
                let events: u64 = plan.dropped.values().sum();
                tracing::error!(segment = id.0, events, "the spool is full: its oldest events are dropped");
                true
            }
            Err(error) => {
                tracing::error!(segment = id.0, %error, "the oldest segment cannot be read, so it is not dropped");
                false
            }
        }
    }

    /// Makes everything gathered durable, then answers, shows and unlinks.
    fn commit(&mut self, mut gathered: Gathered) {
        for number in std::mem::take(&mut gathered.groups) {
            match self.books.groups.get(&number) {
                Some(group) => gathered.changes.group(number, group),
                None => gathered.changes.group(number, &Group::default()),
            }
            if self.books.groups.get(&number).is_some_and(|group| group.batches.is_empty()) {
                self.books.groups.remove(&number);
            }
        }
        for name in std::mem::take(&mut gathered.sources) {
            if let Some(record) = self.books.sources.get(&name) {
                gathered.changes.source(&name, record);
            }
        }
        if !gathered.changes.is_empty() {
            self.write(std::mem::take(&mut gathered.changes));
            self.compact();
        }
        let frontier = self.books.frontier();
        {
            let mut view = self.shared.view();
            for (id, filed) in gathered.filed {
                view.batches.insert(id, filed);
            }
            for id in gathered.gone {
                view.batches.remove(&id);
            }
            view.frontier = frontier;
            view.accounts =
                self.books.sources.iter().map(|(name, record)| (name.clone(), record.account)).collect();
        }
        for answer in gathered.answers {
            answer(Ok(()));
        }
        self.unlink(frontier);
    }

    /// Writes to the ledger; where that fails, to a new one that holds everything.
    fn write(&mut self, changes: Changes) {
        let first = match &self.ledger {
            Some(ledger) => ledger.commit(changes),
            None => self.renew(),
        };
        let Err(mut error) = first else { return };
        tracing::warn!(%error, cause = ?error, "the ledger could not be written; it is written anew");
        loop {
            // The reserve makes room where the disk is full; it is made again once there is room.
            self.log.disk.give_up_reserve();
            match self.renew() {
                Ok(()) => break,
                Err(again) => error = again,
            }
            tracing::error!(%error, "the ledger cannot be written; delivery waits");
            std::thread::sleep(RETRY_EVERY);
        }
        if let Err(error) = self.log.disk.keep_reserve(RESERVE_BYTES) {
            tracing::warn!(%error, "no reserve could be kept for a full disk");
        }
    }

    /// Writes a ledger anew that sled has let grow.
    fn compact(&mut self) {
        let Some(ledger) = self.ledger.take_if(|ledger| ledger.has_outgrown()) else { return };
        match ledger.replace(&self.log.disk, &self.books) {
            Ok(ledger) => {
                tracing::debug!("the ledger was written anew");
                self.ledger = Some(ledger);
            }
            // The next write finds no ledger and makes one.
            Err(error) => tracing::warn!(%error, "the ledger could not be compacted"),
        }
    }

    fn renew(&mut self) -> Result<(), LedgerError> {
        let path = self.log.disk.ledger();
        // Dropped first, so that its lock is released.
        self.ledger = None;
        if path.exists() {
            self.log
                .disk
                .quarantine_path(&path)
                .map_err(|source| LedgerError::Io { path: path.clone(), source })?;
        }
        self.ledger = Some(Ledger::create(&path, self.sync, &self.books)?);
        Ok(())
    }

    fn unlink(&self, frontier: Position) {
        let finished = self.log.take_finished(frontier);
        if finished.is_empty() {
            return;
        }
        for id in &finished {
            match Disk::unlink(&self.log.disk.segment(*id)) {
                Ok(()) => tracing::debug!(segment = id.0, "segment unlinked"),
                Err(error) => tracing::warn!(segment = id.0, %error, "segment cannot be unlinked"),
            }
        }
        self.log.notify_freed();
    }

    /// Notes a clean end: nothing that was sent is unsynced.
    fn leave(mut self) {
        if self.sync == SyncMode::Group || self.books.meta.unsynced_boot == [0; 16] {
            return;
        }
        let synced = self
            .log
            .segments()
            .keys()
            .try_for_each(|id| Disk::open(&self.log.disk.segment(*id)).and_then(|file| Disk::sync_all(&file)))
            .and_then(|()| Disk::sync_dir(&self.log.disk.segments()));
        if synced.is_ok() {
            self.books.meta.unsynced_boot = [0; 16];
            let mut changes = Changes::default();
            changes.meta(&self.books.meta);
            self.write(changes);
        }
    }
}

impl Gathered {
    fn answer<T: 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move |result| {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(result.map(|()| value));
        }));
    }

    fn refuse<T>(&self, reply: Reply<T>) {
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(Err(Closed));
    }
}

/// Events of each source in some ranges.
pub(super) type Counts = BTreeMap<SourceName, u64>;

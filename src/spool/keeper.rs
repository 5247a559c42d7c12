//! The keeper: the thread that owns the ledger and writes down what becomes of batches.
//!
//! Invariants:
//! - A change is answered, and shown in the view, after it is durable.
//! - Whatever has gathered while the last commit ran is committed together. Acknowledgements alone wait a few
//!   milliseconds for company: one that is lost costs a resend under a known key, never an event.
//! - A segment is unlinked only after the ledger says durably that nothing in it is needed.
//! - The keeper's memory of the books is complete, so a ledger that fails is set aside and written anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use super::dead_letter::{DeadLetter, DeadLetters};
use super::ledger::{BatchRecord, Books, Changes, GROUP_MAX, Group, Ledger, LedgerError, Mark};
use super::log::{self, Log};
use super::view::{Filed, Shared};
use crate::batch::{BatchId, SourceRange};
use crate::config::SyncMode;
use crate::event::{Position, SegmentId, SourceName};
use crate::telemetry::Repeats;

/// How long acknowledgements alone wait for company.
const LINGER: Duration = Duration::from_millis(10);
/// The most commands in one commit.
pub(super) const COMMANDS_MAX: usize = 1024;
/// How often it is tried to have the reserve again after it was given up.
const RESERVE_EVERY: Duration = Duration::from_secs(10);
/// How often a ledger that cannot be written is said again.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// So many dropped batches are remembered: more than can be encoded or on their way at once.
const DROPPED_MAX: usize = 4096;
/// A group that was bisected takes new parts up to this size, so that its value stays below 8 KiB.
const GROUP_PARTS_MAX: usize = 180;
/// Bytes held ready on the disk so that acknowledgements can be recorded when everything else is used up.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;

/// The spool takes no more changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool is closed")]
pub struct Closed;

type Reply<T> = SyncSender<Result<T, Closed>>;

/// Events of each source.
pub(crate) type Counts = BTreeMap<SourceName, u64>;

/// Batches cut in one step.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Where the step begins: the cursor after the step before.
    pub from: Position,
    pub batches: Vec<BatchRecord>,
    /// The position after all that was cut or found damaged.
    pub cursor: Position,
    /// Events of each source in the batches.
    pub events: Counts,
    /// Events of each source that were found damaged on the way.
    pub damaged: Counts,
}

#[derive(Debug)]
enum Command {
    Cut(Cut, Reply<CutOutcome>),
    Acknowledge(BatchId, Vec<SourceRange>),
    Bisect(BatchId, Reply<[BatchId; 2]>),
    Bury(BatchId, Box<DeadLetter>, Reply<bool>),
    Replace(BatchId, Vec<BatchRecord>, Counts, Reply<()>),
    Mark(Box<Mark>),
    DropOldest(Reply<bool>),
    Tidy,
    Stop,
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
    /// It does not begin at the cursor, as some of its events were dropped meanwhile: nothing was cut, and cutting goes
    /// on at this position.
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

    /// Says whether the letter could be written.
    pub(super) fn bury(&self, batch: BatchId, letter: DeadLetter) -> Result<bool, Closed> {
        self.ask_and_wait(|reply| Command::Bury(batch, Box::new(letter), reply))
    }

    pub(super) fn replace(
        &self,
        batch: BatchId,
        by: Vec<BatchRecord>,
        damaged: Counts,
    ) -> Result<(), Closed> {
        self.ask_and_wait(|reply| Command::Replace(batch, by, damaged, reply))
    }

    pub(super) fn mark(&self, mark: Mark) {
        // The mark is the second witness; the snapshot of the next segment is the first.
        let _ = self.commands.send(Command::Mark(Box::new(mark)));
    }

    /// Unlinks the segments that are not needed any more, as every commit does, and has the reserve again after that.
    pub(super) fn tidy(&self) {
        // One that is gone leaves them to the next start.
        let _ = self.commands.send(Command::Tidy);
    }

    /// Ends the keeper once everything that was said before is durable.
    pub(super) fn stop(&self) {
        // One that is gone has ended.
        let _ = self.commands.send(Command::Stop);
    }

    /// Drops the oldest sealed segment's events; says whether there was one.
    pub(crate) fn drop_oldest(&self) -> bool {
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
    /// The newest batches that were dropped: one that was on its way then may be acknowledged nevertheless.
    dropped: VecDeque<BatchId>,
    /// The reserve was given up, and when it was last tried to have it again.
    reserve_tried: Option<Instant>,
    /// The ledger could not be written until the spool was closed: nothing is accepted any more.
    failed: bool,
    /// Dead letters that could not be written.
    unwritten: Repeats,
    /// Segments that could not be unlinked.
    undeleted: Repeats,
    /// Segments that are not needed and could not be unlinked, and when that was last tried.
    stuck: BTreeSet<SegmentId>,
    stuck_tried: Option<Instant>,
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
    answers: Vec<Answer>,
    stop: bool,
}

type Answer = Box<dyn FnOnce(Result<(), Closed>)>;

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
        let keeper = Self {
            commands,
            ledger: Some(ledger),
            books,
            profile,
            log,
            shared,
            dead,
            sync,
            next_group,
            dropped: VecDeque::new(),
            reserve_tried: None,
            failed: false,
            unwritten: Repeats::new(SAY_EVERY),
            undeleted: Repeats::new(SAY_EVERY),
            stuck: BTreeSet::new(),
            stuck_tried: None,
        };
        (keeper, KeeperHandle { commands: sender })
    }

    /// Serves until it is told to stop or every handle is gone, then leaves the ledger complete.
    pub(super) fn run(mut self) {
        let mut stop = false;
        while !stop && let Ok(first) = self.commands.recv() {
            let mut alone = matches!(first, Command::Acknowledge(..));
            let mut gathered = Gathered::default();
            self.apply(first, &mut gathered);
            let deadline = crate::clock::now() + LINGER;
            for _ in 1..COMMANDS_MAX {
                if gathered.stop {
                    break;
                }
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
            stop = gathered.stop;
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
                let outstanding = self.remove(batch, gathered);
                if outstanding || self.was_dropped(batch) {
                    for range in sources {
                        let events = range.last.since(range.first).saturating_add(1);
                        let account = &mut self.account(&range.source, gathered).account;
                        account.acknowledged += events;
                        if !outstanding {
                            account.dropped = account.dropped.saturating_sub(events);
                        }
                    }
                }
            }
            Command::Bisect(batch, reply) => match batch.halves() {
                Some(halves) => {
                    // One that was dropped meanwhile has halves that are as little outstanding as itself.
                    self.bisect(batch, halves, gathered);
                    gathered.answer(reply, halves);
                }
                None => gathered.refuse(&reply),
            },
            Command::Bury(batch, letter, reply) => match self.dead.append(&letter) {
                Ok(()) => {
                    if self.remove(batch, gathered) {
                        self.account(&letter.source, gathered).account.dead += 1;
                    }
                    gathered.answer(reply, true);
                }
                Err(error) => {
                    if let Some(more) = self.unwritten.seen() {
                        tracing::error!(%error, more, "a dead letter could not be written; its batch is kept");
                    }
                    gathered.answer(reply, false);
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
            Command::Tidy => self.reserve_tried = Some(crate::clock::now()),
            Command::Stop => gathered.stop = true,
        }
    }

    fn account(&mut self, name: &SourceName, gathered: &mut Gathered) -> &mut super::ledger::SourceRecord {
        gathered.sources.insert(name.clone());
        self.books.sources.entry(name.clone()).or_default()
    }

    fn cut(&mut self, cut: Cut, gathered: &mut Gathered) -> CutOutcome {
        if cut.from != self.books.cursor {
            return CutOutcome::Moved(self.books.cursor);
        }
        for (name, events) in cut.events {
            self.account(&name, gathered).cut += events;
        }
        for (name, events) in cut.damaged {
            let record = self.account(&name, gathered);
            record.cut += events;
            record.account.damaged += events;
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

    /// Puts `halves` in the place of `batch`, if it is outstanding.
    fn bisect(&mut self, batch: BatchId, halves: [BatchId; 2], gathered: &mut Gathered) -> Option<()> {
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
        Some(())
    }

    fn replace(&mut self, batch: BatchId, by: Vec<BatchRecord>, damaged: &Counts, gathered: &mut Gathered) {
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

    /// Whether the batch was dropped while it was on its way to the server, which has taken it after all.
    fn was_dropped(&mut self, batch: BatchId) -> bool {
        let place = self.dropped.iter().position(|dropped| *dropped == batch);
        place.is_some_and(|place| self.dropped.remove(place).is_some())
    }

    fn drop_oldest(&mut self, gathered: &mut Gathered) -> bool {
        let segments = self.log.segments();
        let frontier = self.books.frontier();
        let last = segments.keys().next_back().copied();
        let oldest =
            segments.iter().find(|(id, extent)| extent.sealed && extent.end > frontier && Some(**id) != last);
        let Some((id, extent)) = oldest else { return false };
        match super::drop_oldest::plan(&self.log, &self.shared, &self.books, *extent) {
            Ok(plan) => {
                for batch in &plan.gone {
                    self.remove(*batch, gathered);
                    self.dropped.push_back(*batch);
                }
                while self.dropped.len() > DROPPED_MAX {
                    self.dropped.pop_front();
                }
                for (name, events) in &plan.dropped {
                    self.account(name, gathered).account.dropped += events;
                }
                for (name, events) in &plan.damaged {
                    self.account(name, gathered).account.damaged += events;
                }
                for (name, events) in &plan.uncut {
                    self.account(name, gathered).cut += events;
                }
                if self.books.cursor < plan.cursor {
                    self.books.cursor = plan.cursor;
                    gathered.changes.cursor(plan.cursor);
                }
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

    /// Makes everything gathered durable, then shows, unlinks and answers.
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
        for name in &gathered.sources {
            if let Some(record) = self.books.sources.get(name) {
                gathered.changes.source(name, record);
            }
        }
        if !gathered.changes.is_empty() {
            self.write(std::mem::take(&mut gathered.changes));
            self.compact();
        }
        if self.failed {
            gathered.answers.drain(..).for_each(|answer| answer(Err(Closed)));
            return;
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
            for name in gathered.sources {
                if let Some(record) = self.books.sources.get(&name) {
                    view.sources.insert(name, *record);
                }
            }
            view.frontier = frontier;
            view.cursor = self.books.cursor;
        }
        self.unlink(frontier);
        gathered.answers.drain(..).for_each(|answer| answer(Ok(())));
    }

    /// Writes to the ledger; where that fails, to a new one that holds everything, until that succeeds or the spool is
    /// closed.
    fn write(&mut self, changes: Changes) {
        if self.failed {
            return;
        }
        let first = match &self.ledger {
            Some(ledger) => ledger.commit(changes),
            None => self.renew(),
        };
        let Err(mut error) = first else { return self.keep_reserve() };
        tracing::warn!(
            error = crate::error_chain(&error),
            "the ledger could not be written; it is written anew"
        );
        let said = Repeats::new(SAY_EVERY);
        loop {
            // The reserve makes room where the disk is full; it is made again once there is room.
            self.log.disk.give_up_reserve();
            self.reserve_tried = Some(crate::clock::now());
            match self.renew() {
                Ok(()) => break,
                Err(again) => error = again,
            }
            if self.log.is_closed() {
                tracing::error!(
                    error = crate::error_chain(&error),
                    "the ledger cannot be written; what was delivered last is sent again after the next start"
                );
                self.failed = true;
                return;
            }
            if let Some(more) = said.seen() {
                tracing::error!(
                    error = crate::error_chain(&error),
                    more,
                    "the ledger cannot be written; delivery waits"
                );
            }
            self.log.wait_freed(crate::clock::now() + log::RETRY_EVERY);
        }
    }

    /// Has the reserve again once there is room for it.
    fn keep_reserve(&mut self) {
        let now = crate::clock::now();
        if self.reserve_tried.is_some_and(|tried| now.duration_since(tried) >= RESERVE_EVERY) {
            self.reserve_tried = match self.log.disk.keep_reserve(RESERVE_BYTES) {
                Ok(()) => None,
                Err(_) => Some(now),
            };
        }
    }

    /// Writes a ledger anew that sled has let grow.
    fn compact(&mut self) {
        if self.ledger.as_ref().is_some_and(Ledger::has_outgrown) {
            match self.renew() {
                Ok(()) => tracing::debug!("the ledger was written anew"),
                // The next write finds no ledger and makes one.
                Err(error) => {
                    tracing::warn!(error = crate::error_chain(&error), "the ledger could not be compacted");
                }
            }
        }
    }

    /// Writes the ledger anew from memory. The one on the disk stays until the new one is whole.
    fn renew(&mut self) -> Result<(), LedgerError> {
        // Dropped first, so that its lock is released.
        self.ledger = None;
        self.ledger = Some(Ledger::write_anew(&self.log.disk, self.sync, &self.books)?);
        Ok(())
    }

    /// Unlinks the segments of which nothing is needed, and again those that could not be unlinked before.
    fn unlink(&mut self, frontier: Position) {
        let mut finished = self.log.take_finished(frontier);
        let now = crate::clock::now();
        if !self.stuck.is_empty()
            && self.stuck_tried.is_none_or(|tried| now.duration_since(tried) >= log::RETRY_EVERY)
        {
            self.stuck_tried = Some(now);
            finished.extend(&self.stuck);
        }
        if finished.is_empty() {
            return;
        }
        for id in finished {
            match self.log.disk.unlink(&self.log.disk.segment(id)) {
                Ok(()) => {
                    self.stuck.remove(&id);
                    tracing::debug!(segment = id.0, "segment unlinked");
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(self.stuck.remove(&id)),
                Err(error) => {
                    self.stuck.insert(id);
                    if let Some(more) = self.undeleted.seen() {
                        tracing::warn!(segment = id.0, %error, more, "segment cannot be unlinked; it is tried again");
                    }
                }
            }
        }
        self.log.notify_freed();
    }

    /// Notes a clean end: nothing that was sent is unsynced.
    fn leave(mut self) {
        if self.failed || self.sync == SyncMode::Group || self.books.meta.unsynced_boot == [0; 16] {
            return;
        }
        if self.log.disk.sync_segments(self.log.segments().keys()).is_ok() {
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

    fn refuse<T>(&self, reply: &Reply<T>) {
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(Err(Closed));
    }
}

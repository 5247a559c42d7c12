//! The work of the tailer, one turn at a time: notice changes, look for files, read.
//!
//! Invariants:
//! - A turn never waits for input; only the sink may make it wait.
//! - In a turn each file is read at most once, in the order in which files became ready, so a busy file cannot starve
//!   a quiet one.
//! - A file's state moves on only together with a frame that the sink took; when the sink is closed, everything that
//!   was not taken is still in its file.

mod copying;
mod held;
mod opening;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::TailOptions;
use super::assemble::{End, Waits};
use super::discover::Pattern;
use super::file::{Chunk, FileKey, Origin, Place, ReadBuffer, Rule};
use super::identity;
use super::roster::copies::Verdict;
use super::roster::{Roster, SAFETY_LOOK, note, skip_note};
use super::watch::{Change, Watch};
use crate::clock;
use crate::config::SourceConfig;
use crate::event::{Checkpoint, EventBlock, FileOffset, FrameDraft, FrameSink, SinkClosed, SkipReason};

/// A renamed or deleted file is finished after it has not grown for this long: writers keep the old handle for a while
/// after a rotation. A rest without newline is an event then, and the handle is closed.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// How often files that were renamed or deleted are looked at through their handles.
const FINISHING_EVERY: Duration = Duration::from_millis(250);
/// Which part of the files that may be open is for copies of files.
const COPIES_SHARE: usize = 8;
/// Most reads in one turn, so that notifications are taken in between.
const READS_A_TURN: usize = 64;
/// How often failures that last are mentioned again.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// There is more to read.
    Busy,
    /// There is nothing to do until a notification or this moment.
    Idle { until: Instant },
}

/// Follows the files of all sources.
#[derive(Debug)]
pub(super) struct Follower {
    roster: Roster,
    watch: Watch,
    buffer: ReadBuffer,
    /// Holds the buffer of the next frame.
    block: EventBlock,
    scratch: PathBuf,
    max_open: usize,
    /// Files whose copies are open, and some whose were.
    copying: Vec<FileKey>,
    /// Most copies that are open.
    max_copies: usize,
    reads: u64,
    finishing_due: Instant,
    /// When to read again what waits in a file, one entry a file.
    timers: BTreeSet<(Instant, FileKey)>,
    /// Files that failed or found no room to be opened: not in the queue until they are tried again.
    troubled: Vec<FileKey>,
    summary_due: Instant,
}

impl Follower {
    pub(super) fn new(
        configs: &[SourceConfig],
        patterns: Vec<Pattern>,
        checkpoints: Vec<Checkpoint>,
        options: &TailOptions,
        now: Instant,
    ) -> Self {
        let max_copies = (options.max_open_files / COPIES_SHARE).max(1);
        Self {
            roster: Roster::new(configs, patterns, checkpoints, now),
            watch: Watch::new(options.polling),
            buffer: ReadBuffer::default(),
            block: EventBlock::default(),
            scratch: PathBuf::new(),
            max_open: options.max_open_files.saturating_sub(max_copies).max(1),
            copying: Vec::new(),
            max_copies,
            reads: 0,
            finishing_due: now,
            timers: BTreeSet::new(),
            troubled: Vec::new(),
            summary_due: now,
        }
    }

    /// Becomes readable when something has changed.
    pub(super) fn notification(&self) -> Option<BorrowedFd<'_>> {
        self.watch.fd()
    }

    /// One turn at `now`.
    pub(super) fn turn(&mut self, now: Instant, sink: &mut impl FrameSink) -> Result<Pace, SinkClosed> {
        let more_changes = self.notice(now);
        self.look(now);
        self.retry(now);
        self.roster.settle(&mut self.buffer, now);
        for key in std::mem::take(&mut self.roster.unwatched) {
            self.watch_alone(key);
        }
        for (watch, key) in std::mem::take(&mut self.roster.watches_to_end) {
            self.watch.uncover_file(watch, key);
        }
        self.check_timers(now, sink)?;
        self.check_finishing(now, sink)?;
        self.append_notes(sink)?;
        for _ in 0..self.roster.ready.len().min(READS_A_TURN) {
            let Some(key) = self.roster.ready.pop_front() else { break };
            self.read(key, now, sink)?;
            // Before anything that is read later.
            self.append_notes(sink)?;
        }
        if more_changes || self.roster.is_searching() || !self.roster.ready.is_empty() {
            return Ok(Pace::Busy);
        }
        self.buffer.shrink();
        Ok(Pace::Idle { until: self.next_due(now) })
    }

    #[cfg(test)]
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.roster.files.is_empty()
    }

    fn next_due(&self, now: Instant) -> Instant {
        let looks = self.roster.sources.iter().map(|source| source.look_due);
        let finishing = (!self.roster.finishing.is_empty()).then_some(self.finishing_due);
        let troubles = self
            .troubled
            .iter()
            .filter_map(|key| self.roster.files.get(key)?.trouble.map(|trouble| trouble.retry_at));
        looks.chain(finishing).chain(troubles).chain(self.timer_due()).min().unwrap_or(now + SAFETY_LOOK)
    }

    /// Takes notifications. Returns whether there may be more.
    fn notice(&mut self, now: Instant) -> bool {
        let Self { roster, watch, scratch, .. } = self;
        watch.drain(|change| match change {
            Change::Written { dir, name, sources } => {
                scratch.clear();
                scratch.push(dir);
                scratch.push(name);
                for source in sources {
                    roster.written(*source, scratch);
                }
            }
            Change::Renamed { dir, name, sources } => {
                scratch.clear();
                scratch.push(dir);
                scratch.push(name);
                for source in sources {
                    roster.renamed(*source, scratch, now);
                }
            }
            Change::Tree { sources } => {
                for source in sources {
                    roster.ask_for_look(*source, now);
                }
            }
            Change::Single { files } => {
                for file in files {
                    roster.enqueue(*file);
                }
            }
            Change::Overflow => {
                for source in 0..roster.sources.len() {
                    roster.ask_for_look(source, now);
                }
            }
        })
    }

    /// Looks through the sources whose time has come.
    fn look(&mut self, now: Instant) {
        for source in 0..self.roster.sources.len() {
            if self.roster.sources.get(source).is_some_and(|source| source.look_due <= now) {
                self.roster.look(source, &mut self.watch, now);
            }
        }
    }

    /// Puts files that failed back into the queue when their time has come.
    fn retry(&mut self, now: Instant) {
        if self.troubled.is_empty() {
            return;
        }
        let mut waiting = 0;
        let mut troubled = std::mem::take(&mut self.troubled);
        troubled.sort_unstable();
        troubled.dedup();
        for key in troubled {
            match self.roster.files.get(&key).and_then(|file| file.trouble) {
                Some(trouble) if trouble.retry_at > now => {
                    waiting += usize::from(trouble.failures > 1);
                    self.troubled.push(key);
                }
                Some(_) => self.roster.enqueue(key),
                None => {}
            }
        }
        if waiting > 0 && now >= self.summary_due {
            tracing::warn!(files = waiting, "files still cannot be read");
            self.summary_due = now + SUMMARY_EVERY;
        }
    }

    fn append_notes(&mut self, sink: &mut impl FrameSink) -> Result<(), SinkClosed> {
        if self.roster.notes.is_empty() {
            return Ok(());
        }
        for note in std::mem::take(&mut self.roster.notes) {
            sink.append(note)?;
        }
        Ok(())
    }

    /// Looks at displaced files through their handles; finishes those that have been quiet for long enough.
    fn check_finishing(&mut self, now: Instant, sink: &mut impl FrameSink) -> Result<(), SinkClosed> {
        if self.roster.finishing.is_empty() || now < self.finishing_due {
            return Ok(());
        }
        self.finishing_due = now + FINISHING_EVERY;
        let mut finishing = std::mem::take(&mut self.roster.finishing);
        finishing.sort_unstable();
        finishing.dedup();
        for key in finishing {
            if let Some(file) = self.roster.files.get_mut(&key)
                && let Some(handle) = &file.handle
                && let Ok(stat) = identity::stat_handle(handle)
            {
                if stat.links == 0 {
                    file.place = Place::Deleted;
                }
                if file.observe(stat.stamp) {
                    self.roster.enqueue(key);
                }
            }
            let Some(file) = self.roster.files.get(&key) else { continue };
            let Some(quiet_since) = file.quiet_since else { continue };
            let is_quiet = now.saturating_duration_since(quiet_since) >= QUIET;
            let is_read = file.at_end && !file.queued;
            if is_read && is_quiet && !self.may_go_on(key, now) && self.read_rest(key, now, sink)? {
                self.roster.finish(key, &mut self.buffer, now);
            } else {
                self.roster.finishing.push(key);
            }
        }
        Ok(())
    }

    /// Turns what follows the last newline of a finished file into an event. Returns whether that was all.
    fn read_rest(
        &mut self,
        key: FileKey,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<bool, SinkClosed> {
        let Some(file) = self.roster.files.get(&key) else { return Ok(true) };
        if file.handle.is_none() {
            if !matches!(file.place, Place::Matched | Place::Renamed) {
                return Ok(true);
            }
            if file.trouble.is_some() || !self.open(key, now) {
                return Ok(false);
            }
        }
        let begins_before = self.roster.files.get(&key).is_some_and(|file| file.begins_in.is_some());
        if begins_before && self.read_joint(key, End::Finished, now, sink)? {
            return Ok(false);
        }
        self.read_chunk(key, End::Finished, now, sink)?;
        Ok(self.roster.files.get(&key).is_none_or(|file| file.at_end && !file.queued))
    }

    /// A file's turn in the queue.
    fn read(&mut self, key: FileKey, now: Instant, sink: &mut impl FrameSink) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        file.queued = false;
        if file.waits_for.is_some() {
            if file.handle.is_none() && self.roster.open < self.max_open {
                // It may be deleted before its turn comes.
                self.open(key, now);
            }
            return Ok(());
        }
        if let Some(trouble) = file.trouble.filter(|trouble| trouble.retry_at > now) {
            self.troubled.push(key);
            if trouble.failures > 0 {
                self.roster.release_successor(key);
            }
            return Ok(());
        }
        if file.detour.is_some() {
            return self.read_copy(key, now, sink);
        }
        if file.handle.is_none() && !self.open(key, now) {
            return Ok(());
        }
        match self.roster.judge(key, &mut self.buffer, now) {
            Verdict::Read => {}
            Verdict::Wait => {
                if let Some(file) = self.roster.files.get_mut(&key) {
                    // Its descriptor may be what its original has to wait for.
                    file.at_end = true;
                }
                self.postpone(key, now);
                return Ok(());
            }
            Verdict::Leave => {
                self.leave(key);
                return Ok(());
            }
        }
        // What is known to be a copy stands in the spool before what follows it.
        self.append_notes(sink)?;
        let begins_before = self.roster.files.get(&key).is_some_and(|file| file.begins_in.is_some());
        if begins_before && self.read_joint(key, End::Open, now, sink)? {
            return Ok(());
        }
        let skip_content = self.roster.files.get(&key).and_then(|file| file.skip_content);
        match skip_content {
            Some(reason) => self.skip(key, reason, now, sink),
            None => self.read_chunk(key, End::Open, now, sink),
        }
    }

    /// There is nothing to read in a file: whoever waits for it need not.
    fn leave(&mut self, key: FileKey) {
        if let Some(file) = self.roster.files.get_mut(&key) {
            file.at_end = true;
            if file.origin == Origin::Packed {
                self.roster.close(key);
            }
        }
        self.roster.release_successor(key);
    }

    /// Reads once and appends what came of it.
    fn read_chunk(
        &mut self,
        key: FileKey,
        end: End,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let Some(source) = self.roster.sources.get(file.source) else { return Ok(()) };
        if self.block.bytes().is_empty() {
            let buffer = std::mem::take(&mut self.block).into_buffer();
            self.block = EventBlock::reuse(if buffer.capacity() == 0 { sink.buffer() } else { buffer });
        }
        self.reads += 1;
        file.last_read = self.reads;
        file.turns = file.turns.saturating_add(1);
        let rule = Rule { assembler: &source.assembler, end };
        let before = file.progress;
        let is_first_sight = before.head.len == 0;
        let (progress, buffer, block) = (&mut file.progress, &mut self.buffer, &mut self.block);
        let copy = file.detour.as_mut().and_then(|detour| detour.copy());
        let is_copy = copy.is_some();
        let chunk = match (copy, &file.handle) {
            (Some((_, copy)), _) => progress.read(copy, buffer, rule, block),
            (None, Some(handle)) => progress.read(&mut &*handle, buffer, rule, block),
            (None, None) => return Ok(()),
        };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) if is_copy => {
                tracing::warn!(path = %file.path.display(), %error, "the copy of a file cannot be read");
                self.end_detour(key, false, now);
                return Ok(());
            }
            Err(error) => {
                self.fail(key, &error, now);
                return Ok(());
            }
        };
        file.trouble = None;
        if !is_copy && matches!(chunk, Chunk::Events { .. }) && file.comes_after.is_some() {
            let read = std::mem::replace(&mut file.progress, before);
            if self.roster.yield_to_older(key, now) {
                self.block = EventBlock::reuse(std::mem::take(&mut self.block).into_buffer());
                return Ok(());
            }
            let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
            file.progress = read;
        }
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let Some(source) = self.roster.sources.get(file.source) else { return Ok(()) };
        let (grew, waits, at_end) = match chunk {
            Chunk::Events { start, skips, waits, at_end } => {
                file.is_recorded = true;
                sink.append(FrameDraft {
                    checkpoint: file.checkpoint(&source.name),
                    start: FileOffset(start),
                    detected: clock::wall(),
                    events: std::mem::take(&mut self.block),
                    skips,
                    before: None,
                    forget: false,
                })?;
                (true, waits, at_end)
            }
            Chunk::Nothing { grew, waits, at_end } => {
                if at_end && (!file.is_recorded || is_first_sight && file.progress.head.len > 0) {
                    // Should it be rotated away while the agent is down, its identity is known: before anything of
                    // the next generation is.
                    file.is_recorded = true;
                    sink.append(note(file.checkpoint(&source.name), false))?;
                }
                (grew, waits, at_end)
            }
            Chunk::Truncated if is_copy => {
                self.end_detour(key, false, now);
                return Ok(());
            }
            Chunk::Truncated => {
                self.truncated(key);
                return Ok(());
            }
        };
        if is_copy {
            return match waits {
                _ if !at_end => {
                    self.roster.enqueue(key);
                    Ok(())
                }
                Waits::Group if end == End::Open => self.join_copy(key, now, sink),
                // Nothing will be added to the copy.
                Waits::Group | Waits::Newline if end == End::Open => {
                    self.read_chunk(key, End::Finished, now, sink)
                }
                _ => {
                    self.end_detour(key, true, now);
                    Ok(())
                }
            };
        }
        file.at_end = at_end;
        if at_end {
            // What it was seen to have is read.
            file.shrunk_from = 0;
        }
        if grew && (file.quiet_since.is_some() || file.place != Place::Matched) {
            // Its writer is still there.
            if file.quiet_since.replace(now).is_none() {
                self.roster.finishing.push(key);
            }
        }
        if at_end {
            self.expect_joint(key, waits);
            self.hold(key, waits, grew, now);
            self.roster.release_successor(key);
        } else {
            self.roster.enqueue(key);
        }
        Ok(())
    }

    /// Skips what was there before the source was first followed.
    fn skip(
        &mut self,
        key: FileKey,
        reason: SkipReason,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let (Some(source), Some(handle)) = (self.roster.sources.get(file.source), &file.handle) else {
            return Ok(());
        };
        if let Err(error) =
            file.progress.skip_to_end(&mut &*handle, &mut self.buffer, &source.assembler, source.max_line)
        {
            self.fail(key, &error, now);
            return Ok(());
        }
        file.skip_content = None;
        file.trouble = None;
        file.is_recorded = true;
        sink.append(skip_note(file.checkpoint(&source.name), FileOffset(0), reason))?;
        self.roster.enqueue(key);
        Ok(())
    }
}

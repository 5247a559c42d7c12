//! The work of the tailer, one turn at a time: notice changes, look for files, read.
//!
//! Invariants:
//! - A turn never waits for input; only the sink may make it wait.
//! - In a turn each file is read at most once, in the order in which files became ready, so a busy file cannot starve
//!   a quiet one.
//! - A file's state moves on only together with a frame that the sink took; when the sink is closed, everything that
//!   was not taken is still in its file.

mod held;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::TailOptions;
use super::assemble::{End, Waits};
use super::detour::{Search, Then};
use super::discover::Pattern;
use super::file::{Chunk, FileKey, Origin, Place, Progress, ReadBuffer, Rule, Trouble};
use super::identity;
use super::roster::copies::{self, Verdict};
use super::roster::{Roster, SAFETY_LOOK, note};
use super::watch::{Change, Watch};
use crate::clock;
use crate::config::SourceConfig;
use crate::event::{
    Checkpoint, EventBlock, FileOffset, FrameDraft, FrameSink, SinkClosed, SkipReason, Skips,
};

/// A renamed or deleted file is finished after it has not grown for this long: writers keep the old handle for a while
/// after a rotation. A rest without newline is an event then, and the handle is closed.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// How often files that were renamed or deleted are looked at through their handles.
const FINISHING_EVERY: Duration = Duration::from_millis(250);
/// How often copies are searched for again because names were moving.
const SEARCHES_MAX: u8 = 3;
/// Where more files have something to read than may be open, each is closed for another after so many reads: opening one
/// again costs a tenth of a read.
const TURNS_OPEN: u32 = 1;
/// Most reads in one turn, so that notifications are taken in between.
const READS_A_TURN: usize = 64;
/// First delay after a failed read or open; doubled up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
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
        Self {
            roster: Roster::new(configs, patterns, checkpoints, now),
            watch: Watch::new(options.polling),
            buffer: ReadBuffer::default(),
            block: EventBlock::default(),
            scratch: PathBuf::new(),
            max_open: options.max_open_files.max(1),
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
        if more_changes || !self.roster.ready.is_empty() {
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
            let goes_on = file.goes_on_in.is_some_and(|newer| self.roster.files.contains_key(&newer));
            let is_quiet = now.saturating_duration_since(quiet_since) >= QUIET && !goes_on;
            if file.at_end && is_quiet && !file.queued && self.read_rest(key, now, sink)? {
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

    /// Reads on in a copy of a file, or looks for one first.
    fn read_copy(&mut self, key: FileKey, now: Instant, sink: &mut impl FrameSink) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let Some(detour) = &mut file.detour else { return Ok(()) };
        match detour.step(&file.progress, &mut self.buffer) {
            Search::Seeking => {
                self.roster.enqueue(key);
                Ok(())
            }
            Search::Nothing => {
                let searches = detour.searches + 1;
                if detour.is_stale && searches <= SEARCHES_MAX {
                    let then = detour.then;
                    self.search_copy(key, then, searches);
                } else {
                    self.end_detour(key, false, now);
                }
                Ok(())
            }
            Search::Found => self.read_chunk(key, End::Open, now, sink),
        }
    }

    /// The way to a copy has come to an end: everything in it was read, or there is none.
    fn end_detour(&mut self, key: FileKey, is_read: bool, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let Some(mut detour) = file.detour.take() else { return };
        let (source, path, offset) = (file.source, Arc::clone(&file.path), file.progress.offset);
        if let Some((copy, _)) = detour.copy().filter(|_| is_read) {
            tracing::info!(
                path = %path.display(), copy = %copy.path.display(), offset,
                "what a file no longer had was read from a copy of it"
            );
            let copy = copy.clone();
            self.roster.consumed(source, &copy, &mut self.buffer, now);
        }
        for copy in &detour.shorter {
            self.roster.consumed(source, copy, &mut self.buffer, now);
        }
        let copy = detour.copy().map(|(copy, _)| copy.clone()).filter(|_| is_read);
        match detour.then {
            Then::StartOver => {
                self.start_over(key, is_read);
                if let Some(copy) = copy {
                    self.roster.find_copied_generations(key, &copy, &mut self.buffer, now);
                }
            }
            Then::Forget if is_read => self.roster.forget(key),
            Then::Forget => self.leave(key),
        }
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
        let is_first_sight = file.progress.head.len == 0;
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
        let offset = file.progress.offset;
        sink.append(FrameDraft {
            checkpoint: file.checkpoint(&source.name),
            start: FileOffset(0),
            detected: clock::wall(),
            events: EventBlock::default(),
            skips: Skips::of(reason, offset),
            before: None,
            forget: false,
        })?;
        self.roster.enqueue(key);
        Ok(())
    }

    /// A file no longer has what was before its offset. What came behind that is looked for in a copy.
    fn truncated(&mut self, key: FileKey) {
        let Some(file) = self.roster.files.get(&key) else { return };
        tracing::debug!(
            path = %file.path.display(), offset = file.progress.offset, head = ?file.progress.head,
            tail = ?file.progress.tail, size = file.stamp.size, "a file was truncated or replaced in place"
        );
        if !self.search_copy(key, Then::StartOver, 0) {
            self.start_over(key, false);
        }
    }

    /// Searches for copies of a file. Returns whether there may be one.
    fn search_copy(&mut self, key: FileKey, then: Then, searches: u8) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        let home = file.path.parent().map(Path::to_owned).unwrap_or_default();
        let near = copies::nearby(&home);
        let dirs: Vec<PathBuf> = std::iter::once(home).chain(near).collect();
        let detour = self.roster.detour(key, then, &dirs, &mut self.buffer);
        let Some(file) = self.roster.files.get_mut(&key) else { return false };
        let may_be = detour.is_some();
        if let Some(mut detour) = detour {
            detour.searches = searches;
            file.detour = Some(detour);
            file.at_end = false;
        }
        self.roster.enqueue(key);
        may_be
    }

    /// Begins a truncated file again. `is_read`: everything that it had before was read.
    fn start_over(&mut self, key: FileKey, is_read: bool) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let (path, offset, end) = (Arc::clone(&file.path), file.progress.offset, file.known_end());
        let (path, unread) = (path.display(), end.saturating_sub(offset));
        if is_read {
            tracing::info!(%path, offset, "a file was truncated, it is read from its start");
        } else if unread > 0 {
            tracing::error!(
                %path, offset, bytes = unread,
                "a file was truncated before it was read to its end, and there is no copy of it"
            );
            self.roster.note_loss(key, end, SkipReason::Truncated);
        } else {
            tracing::warn!(
                %path, offset,
                "a file was truncated, it is read from its start; what was written just before that may be lost"
            );
        }
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        file.progress = Progress::default();
        file.shrunk_from = 0;
        file.stamp.size = 0;
        file.at_end = false;
        self.roster.enqueue(key);
    }

    /// Opens a file and makes sure that it is the one that is followed. Returns whether it can be read now.
    fn open(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        if !matches!(file.place, Place::Matched | Place::Renamed) {
            // There is no name to open it by: nothing more can be read, and nobody needs to wait for it.
            if let Some(file) = self.roster.files.get_mut(&key) {
                file.at_end = true;
            }
            self.roster.release_successor(key);
            return false;
        }
        let path = Arc::clone(&file.path);
        let many = 1 + self.max_open / 8;
        if self.roster.open >= self.max_open
            && !self.roster.close_quiet(many)
            && !self.roster.close_busy(many, TURNS_OPEN)
        {
            if self.roster.is_any_busy() {
                // In the next round one of them has had its turns.
                self.roster.enqueue(key);
            } else {
                self.postpone(key, now);
            }
            return false;
        }
        let opened = identity::open(&path).and_then(|handle| Ok((identity::stat_handle(&handle)?, handle)));
        let (stat, handle) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.open_failed(key, &error, now);
                return false;
            }
        };
        let Some(file) = self.roster.files.get_mut(&key) else { return false };
        if !stat.is_regular() || !identity::same_identity(&stat.identity, &file.identity) {
            self.roster.displace(key, now);
            return false;
        }
        let head_agrees = match file.progress.head_agrees(&mut &handle, &mut self.buffer) {
            Ok(agrees) => agrees,
            Err(error) => {
                self.fail(key, &error, now);
                return false;
            }
        };
        file.handle = Some(handle);
        file.turns = 0;
        self.roster.open += 1;
        let is_alone = file.watch.is_none() && (stat.links > 1 || identity::is_symlink(&path));
        if is_alone {
            self.watch_alone(key);
        }
        if !head_agrees {
            self.truncated(key);
        }
        head_agrees
    }

    fn open_failed(&mut self, key: FileKey, error: &io::Error, now: Instant) {
        let errno = Errno::from_io_error(error);
        match errno {
            Some(Errno::NOENT | Errno::NOTDIR) => self.roster.displace(key, now),
            Some(Errno::MFILE | Errno::NFILE) => {
                self.roster.close_quiet(1 + self.max_open / 8);
                self.postpone(key, now);
            }
            _ => self.fail(key, error, now),
        }
    }

    /// There is no room for another open file at the moment.
    fn postpone(&mut self, key: FileKey, now: Instant) {
        if let Some(file) = self.roster.files.get_mut(&key) {
            file.trouble = Some(Trouble { retry_at: now + FINISHING_EVERY, failures: 0 });
            self.troubled.push(key);
        }
    }

    /// A file cannot be opened or read: it is tried again later, the others go on.
    fn fail(&mut self, key: FileKey, error: &io::Error, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let failures = file.trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
        if failures == 1 {
            tracing::warn!(
                path = %file.path.display(), offset = file.progress.offset, %error,
                "a file cannot be read, it is tried again"
            );
        }
        let delay = FIRST_RETRY.saturating_mul(1 << failures.min(7).saturating_sub(1)).min(MAX_RETRY);
        file.trouble = Some(Trouble { retry_at: now + delay, failures });
        file.at_end = false;
        self.troubled.push(key);
        self.roster.release_successor(key);
    }

    /// Watches a file by itself: it has names, or is written to, where no directory is watched.
    fn watch_alone(&mut self, key: FileKey) {
        if let Some(file) = self.roster.files.get_mut(&key)
            && file.watch.is_none()
        {
            file.watch = self.watch.cover_file(&file.path, key);
        }
    }
}

//! What waits in a file although it could be an event: an open multi-line event, or a last line without newline.
//!
//! Invariants:
//! - What waits stays in its file. A timer only says when to read it again, and with which knowledge.
//! - It becomes an event for its time only if the file has just the size that it had when it was last read.
//! - An event that was open when its file lost its name goes on in the file that took the name, if that begins with what
//!   goes on with it. Both checkpoints move with one frame, so it can be neither torn nor doubled.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::Follower;
use crate::clock;
use crate::event::{Before, EventBlock, FileOffset, FrameDraft, FrameSink, SinkClosed, Skips};
use crate::tail::assemble::{Assembler, End, Input, Waits};
use crate::tail::content::Content;
use crate::tail::detour::Then;
use crate::tail::file::{FileKey, Progress, READ_BYTES, ReadBuffer};

/// What is known of a file whose name another one took while an event was open at its end.
struct Joint {
    /// The bytes that wait in the file that had the name before.
    held: Vec<u8>,
    /// Those just before them.
    before: Vec<u8>,
    /// That file as read to its end.
    older: Progress,
    /// The beginning of the file that has the name.
    next: Vec<u8>,
}

impl Joint {
    /// Reads what waits behind the offset of a file, in itself or in a copy, and the beginning of the one that goes on with
    /// it. `None` where nothing waits, or an incomplete line: that ends with its file.
    ///
    /// The older file is read once and front to back: an archive would have to be unpacked again for what was passed over.
    fn read(
        older: &mut impl Content,
        progress: &Progress,
        mut newer: &OwnedFd,
        assembler: &Assembler,
        buffer: &mut ReadBuffer,
    ) -> Option<Self> {
        let (overlap, hold_max) = (usize::from(progress.tail.len), assembler.hold_max());
        let bytes = buffer.read(older, progress.tail_start(), overlap.saturating_add(hold_max)).ok()?;
        let (before, held) = bytes.split_at_checked(overlap)?;
        if assembler.last_line_start(held) != Some(held.len()) {
            return None;
        }
        let older = progress.advanced(before, held);
        let (before, held) = (before.to_vec(), held.to_vec());
        let next = buffer.read(&mut newer, 0, READ_BYTES.max(hold_max)).ok()?.to_vec();
        Some(Self { held, before, older, next })
    }
}

impl Follower {
    /// A read came to the end of a file, where something waits. `grew`: there is more of it than at the last read.
    pub(super) fn hold(&mut self, key: FileKey, waits: Waits, grew: bool, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        let Some(source) = self.roster.sources.get(file.source) else { return };
        if waits == Waits::Nothing {
            file.held_since = None;
            return;
        }
        if grew || file.held_since.is_none() {
            file.held_since = Some(now);
        }
        let since = file.held_since.unwrap_or(now);
        let due = next_end(&source.assembler, waits, now.saturating_duration_since(since));
        if let Some((after, _)) = due
            && !file.has_timer
        {
            file.has_timer = true;
            self.timers.insert((since + after, key));
            // Those of forgotten files may be far from their end.
            if self.timers.len() > self.roster.files.len() {
                let files = &self.roster.files;
                self.timers.retain(|(_, key)| files.contains_key(key));
            }
        }
    }

    /// When the next timer ends.
    pub(super) fn timer_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Reads what has waited for long enough.
    pub(super) fn check_timers(&mut self, now: Instant, sink: &mut impl FrameSink) -> Result<(), SinkClosed> {
        while let Some(timer) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&timer);
            self.timer_ended(timer.1, now, sink)?;
        }
        Ok(())
    }

    fn timer_ended(
        &mut self,
        key: FileKey,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        file.has_timer = false;
        let Some(since) = file.held_since else { return Ok(()) };
        let Some(source) = self.roster.sources.get(file.source) else { return Ok(()) };
        let quiet = now.saturating_duration_since(since);
        let end = match reached(&source.assembler, quiet) {
            // It grew meanwhile.
            None => return self.rearm(key, now),
            Some(end) => end,
        };
        if file.goes_on_in.is_some_and(|newer| self.is_joined(key, newer)) {
            // It is the other file's to wait.
            return Ok(());
        }
        if !self.has_kept_its_size(key, now) {
            if let Some(file) = self.roster.files.get_mut(&key) {
                // Its time begins again with the next read, which comes as soon as it can.
                file.held_since = None;
            }
            self.roster.enqueue(key);
            return Ok(());
        }
        if self.roster.files.get(&key).is_some_and(|file| file.begins_in.is_some()) {
            return self.read_joint(key, end, now, sink).map(|_| ());
        }
        self.read_chunk(key, end, now, sink)
    }

    /// Whether a file can be read and has just the size that it had when it was last read.
    fn has_kept_its_size(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        if file.detour.is_some() || file.handle.is_none() && !self.open(key, now) {
            return false;
        }
        self.roster.files.get(&key).is_some_and(|file| {
            let size = file.handle.as_ref().and_then(|handle| handle.size().ok());
            size == Some(file.progress.scanned)
        })
    }

    fn rearm(&mut self, key: FileKey, now: Instant) -> Result<(), SinkClosed> {
        self.hold(key, Waits::Group, false, now);
        Ok(())
    }

    /// A file that lost its name was read to its end, where an event is open: the file that has the name now may begin
    /// with what goes on with it.
    pub(super) fn expect_joint(&mut self, key: FileKey, waits: Waits) {
        let Some(file) = self.roster.files.get(&key) else { return };
        let (Some(newer), None, None, Waits::Group) =
            (file.successor, file.goes_on_in, file.begins_in, waits)
        else {
            return;
        };
        let is_unread = self.roster.files.get(&newer).is_some_and(|file| file.progress.offset == 0);
        if !is_unread || file.quiet_since.is_none() {
            return;
        }
        if let Some(file) = self.roster.files.get_mut(&key) {
            file.goes_on_in = Some(newer);
        }
        if let Some(file) = self.roster.files.get_mut(&newer) {
            file.begins_in = Some(key);
        }
    }

    /// Whether the last event of a file that is read to its end may go on in the file that took its name. Where that has
    /// not begun in time, nobody waits for it any longer.
    pub(super) fn may_go_on(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.roster.files.get(&key) else { return false };
        let Some(newer) = file.goes_on_in else { return false };
        let since = file.held_since;
        let timeout = self.assembler_of(key).and_then(Assembler::group_timeout).unwrap_or_default();
        let is_in_time = since.is_some_and(|since| now.saturating_duration_since(since) < timeout);
        if is_in_time || self.is_joined(key, newer) {
            return true;
        }
        self.end_joint(key, newer);
        false
    }

    /// Whether the event that is open at the end of `older` is known to go on in `newer`.
    fn is_joined(&mut self, older: FileKey, newer: FileKey) -> bool {
        let Some(joint) = self.joint(older, newer) else { return false };
        self.assembler_of(newer)
            .is_some_and(|assembler| assembler.goes_on(&joint.held, &joint.next) == Some(true))
    }

    /// Reads a file whose first event may begin in the one that had its name before. Returns whether that is still open:
    /// otherwise the file is to be read as any other.
    pub(super) fn read_joint(
        &mut self,
        key: FileKey,
        end: End,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<bool, SinkClosed> {
        let Some(older) = self.roster.files.get(&key).and_then(|file| file.begins_in) else {
            return Ok(false);
        };
        let Some(joint) = self.joint(older, key) else {
            return self.read_apart(older, key, now, sink);
        };
        let Some(assembler) = self.assembler_of(key) else { return Ok(false) };
        match assembler.goes_on(&joint.held, &joint.next) {
            None if end == End::Finished => {
                self.end_joint(older, key);
                Ok(false)
            }
            None => {
                self.mark_at_end(key, joint.next.len(), now);
                Ok(true)
            }
            Some(false) => self.read_apart(older, key, now, sink),
            Some(true) => self.append_joint(older, key, &joint, end, now, sink),
        }
    }

    /// Nothing that is open in `older` goes on in `newer`: it is complete, and comes first. `newer` is to be read as any other
    /// then.
    fn read_apart(
        &mut self,
        older: FileKey,
        newer: FileKey,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<bool, SinkClosed> {
        self.end_joint(older, newer);
        let Some(file) = self.roster.files.get(&older).filter(|file| file.detour.is_none()) else {
            return Ok(false);
        };
        let was_open = file.handle.is_some();
        if was_open || self.roster.reopen(older) {
            self.read_chunk(older, End::GroupQuiet, now, sink)?;
        }
        if !was_open {
            self.roster.close(older);
        }
        Ok(false)
    }

    /// Cuts what waits in the older file and what the newer begins with as one.
    fn append_joint(
        &mut self,
        older: FileKey,
        newer: FileKey,
        joint: &Joint,
        end: End,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<bool, SinkClosed> {
        let Some(assembler) = self.assembler_of(newer) else { return Ok(false) };
        let data = [joint.held.as_slice(), joint.next.as_slice()].concat();
        let end = if joint.next.len() < READ_BYTES { end } else { End::Open };
        let mut events = EventBlock::default();
        let cut = assembler.cut(Input { data: &data, before: &joint.before, end }, &mut events);
        let Some(used) = cut.used.checked_sub(joint.held.len()) else {
            self.mark_at_end(newer, joint.next.len(), now);
            self.hold(newer, Waits::Group, false, now);
            return Ok(true);
        };
        self.append_joined(older, newer, joint, (used, events, cut.skips), sink)?;
        self.end_joint(older, newer);
        self.roster.enqueue(newer);
        Ok(true)
    }

    /// Appends the events that begin in `older` and go on in `newer`, of which `used` bytes belong to them; where a copy was
    /// read, both are the same file.
    fn append_joined(
        &mut self,
        older: FileKey,
        newer: FileKey,
        joint: &Joint,
        (used, events, skips): (usize, EventBlock, Skips),
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let progress = Progress::default().advanced(b"", joint.next.get(..used).unwrap_or_default());
        let Some(name) = self.source_name(newer) else { return Ok(()) };
        let Some(file) = self.roster.files.get_mut(&older) else { return Ok(()) };
        let start = std::mem::replace(&mut file.progress, joint.older).offset;
        file.held_since = None;
        let before = Before { start: FileOffset(start), checkpoint: file.checkpoint(&name) };
        let Some(file) = self.roster.files.get_mut(&newer) else { return Ok(()) };
        file.progress = progress;
        file.is_recorded = true;
        file.held_since = None;
        sink.append(FrameDraft {
            checkpoint: file.checkpoint(&name),
            start: FileOffset(0),
            detected: clock::wall(),
            events,
            skips,
            before: Some(Box::new(before)),
            forget: false,
        })
    }

    /// Reads both ends; `None` where there is nothing any more that could go on.
    fn joint(&mut self, older: FileKey, newer: FileKey) -> Option<Joint> {
        let file = self.roster.files.get(&older)?;
        let assembler = &self.roster.sources.get(file.source)?.assembler;
        let (handle, progress) = (file.handle()?, file.progress);
        if !progress.tail_agrees(&mut &*handle, &mut self.buffer).ok()? {
            return None;
        }
        let newer = self.roster.files.get(&newer).filter(|file| file.progress.offset == 0)?.handle()?;
        Joint::read(&mut &*handle, &progress, &newer, assembler, &mut self.buffer)
    }

    /// The copy of a file was read to its end, where an event is open: the file, which was truncated, may begin with what
    /// goes on with it.
    pub(super) fn join_copy(
        &mut self,
        key: FileKey,
        now: Instant,
        sink: &mut impl FrameSink,
    ) -> Result<(), SinkClosed> {
        let Some(joint) = self.joint_with_copy(key) else {
            return self.read_chunk(key, End::Finished, now, sink);
        };
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let Some(source) = self.roster.sources.get(file.source) else { return Ok(()) };
        let Some(detour) = &mut file.detour else { return Ok(()) };
        let since = *detour.open_since.get_or_insert(now);
        let timeout = source.assembler.group_timeout().unwrap_or_default();
        let is_over = now.saturating_duration_since(since) >= timeout;
        let goes_on = source.assembler.goes_on(&joint.held, &joint.next);
        if goes_on == Some(false) || goes_on.is_none() && is_over {
            return self.read_chunk(key, End::Finished, now, sink);
        }
        let end = if is_over { End::GroupQuiet } else { End::Open };
        let mut events = EventBlock::default();
        let data = [joint.held.as_slice(), joint.next.as_slice()].concat();
        let cut = source.assembler.cut(Input { data: &data, before: &joint.before, end }, &mut events);
        let used = cut.used.checked_sub(joint.held.len()).filter(|_| goes_on == Some(true));
        let Some(used) = used else {
            self.postpone_copy(key, now);
            return Ok(());
        };
        self.append_joined(key, key, &joint, (used, events, cut.skips), sink)?;
        let Some(file) = self.roster.files.get_mut(&key) else { return Ok(()) };
        let progress = std::mem::replace(&mut file.progress, joint.older);
        self.end_detour(key, true, now);
        if let Some(file) = self.roster.files.get_mut(&key) {
            file.progress = progress;
        }
        Ok(())
    }

    /// What waits at the end of the copy of a file, and what the file begins with. `None` also where the file had more than
    /// its copy: what goes on there does not go on with this.
    fn joint_with_copy(&mut self, key: FileKey) -> Option<Joint> {
        let file = self.roster.files.get_mut(&key)?;
        let assembler = &self.roster.sources.get(file.source)?.assembler;
        let (progress, end) = (file.progress, file.known_end());
        let mut detour = file.detour.take();
        let joint = detour.as_mut().filter(|detour| detour.then == Then::StartOver).and_then(|detour| {
            let (_, copy) = detour.copy()?;
            Joint::read(copy, &progress, &*file.handle()?, assembler, &mut self.buffer)
        });
        file.detour = detour;
        joint.filter(|joint| joint.older.offset >= end)
    }

    fn end_joint(&mut self, older: FileKey, newer: FileKey) {
        if let Some(file) = self.roster.files.get_mut(&older) {
            file.goes_on_in = None;
        }
        if let Some(file) = self.roster.files.get_mut(&newer) {
            file.begins_in = None;
        }
    }

    fn mark_at_end(&mut self, key: FileKey, scanned: usize, now: Instant) {
        let Some(file) = self.roster.files.get_mut(&key) else { return };
        if file.progress.scanned != scanned as u64 {
            file.held_since = Some(now);
        }
        file.progress.scanned = scanned as u64;
        file.at_end = true;
    }

    fn assembler_of(&self, key: FileKey) -> Option<&Assembler> {
        let source = self.roster.files.get(&key)?.source;
        self.roster.sources.get(source).map(|source| &source.assembler)
    }

    fn source_name(&self, key: FileKey) -> Option<crate::event::SourceName> {
        let source = self.roster.files.get(&key)?.source;
        self.roster.sources.get(source).map(|source| source.name.clone())
    }
}

/// After which time of quiet something becomes an event next, and what is known then; `None` where nothing will.
fn next_end(assembler: &Assembler, waits: Waits, quiet: Duration) -> Option<(Duration, End)> {
    let group =
        assembler.group_timeout().filter(|_| waits == Waits::Group).map(|after| (after, End::GroupQuiet));
    let partial = assembler.partial_timeout().map(|after| (after, End::Quiet));
    group.into_iter().chain(partial).filter(|(after, _)| *after > quiet).min_by_key(|(after, _)| *after)
}

/// What is known after a time of quiet, if that is enough for anything.
fn reached(assembler: &Assembler, quiet: Duration) -> Option<End> {
    let is_over = |timeout: Option<Duration>| timeout.is_some_and(|timeout| quiet >= timeout);
    if is_over(assembler.partial_timeout()) {
        Some(End::Quiet)
    } else {
        is_over(assembler.group_timeout()).then_some(End::GroupQuiet)
    }
}

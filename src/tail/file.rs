//! One followed file: how far it has been read, and the next read.
//!
//! Invariants:
//! - The offset stands at the start of a line or of a piece of one; everything before it has become events or was
//!   skipped for a counted reason. Bytes after it are never kept in memory between reads.
//! - Every read begins with the bytes just before the offset and checks them against the tail witness, in the same
//!   system call that brings the new bytes. So no byte is ever read on from a file that was truncated and written
//!   anew, even if it is longer than before.
//! - One read gives at most one frame, and has one detection time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::assemble::{Assembler, End, Input, Waits};
use super::content::Content;
use super::detour::Detour;
use super::identity::{self, Stamp};
use crate::event::{
    Checkpoint, EventBlock, FileIdentity, FileOffset, SkipReason, Skips, SourceName, Witness,
};

/// How many new bytes one read asks for: large enough to make system calls cheap, small enough to stay in the
/// processor's cache on the way to the frame.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// A held-back rest longer than this is not read again until its newline is there; without this a long line that
/// grows byte by byte would cost the square of its length.
const PROBE_ABOVE: u64 = 4096;

const WITNESS_BYTES: usize = Witness::MAX_BYTES as usize;

/// Names a followed file of one source within the tailer; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey(pub u64);

/// The buffer all files are read into, one after the other.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    /// Reads up to `len` bytes at `from`, fewer only at the end of the file.
    pub(super) fn read(&mut self, content: &mut impl Content, from: u64, len: usize) -> io::Result<&[u8]> {
        if self.0.len() < len {
            self.0.resize(len.max(WITNESS_BYTES + READ_BYTES), 0);
        }
        let into = self.0.get_mut(..len).unwrap_or_default();
        let filled = content.read_at(into, from)?;
        Ok(into.get(..filled).unwrap_or_default())
    }

    /// Gives back what an over-long line needed.
    pub(super) fn shrink(&mut self) {
        if self.0.len() > WITNESS_BYTES + READ_BYTES {
            self.0 = Vec::new();
        }
    }
}

/// How a file's bytes become events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    /// What makes events of them.
    pub assembler: &'a Assembler,
    /// What is known about what follows the end of the file.
    pub end: End,
}

/// What one read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Bytes from this offset on became events or were skipped. What is behind them waits.
    Events { start: u64, skips: Skips, waits: Waits, at_end: bool },
    /// No complete event. `grew`: there is more of an incomplete one than at the last read.
    Nothing { grew: bool, waits: Waits, at_end: bool },
    /// The bytes before the offset are gone or are others: the file was truncated.
    Truncated,
}

/// How far a file has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything before is done with.
    pub offset: u64,
    /// From the offset to here there is no newline.
    pub scanned: u64,
    /// Witness of the first bytes: as many as there are before the offset, and at offset 0 as many as were seen.
    pub head: Witness,
    /// Witness of the bytes just before the offset.
    pub tail: Witness,
}

impl Progress {
    pub(super) fn remembered(checkpoint: &Checkpoint) -> Self {
        let offset = checkpoint.offset.0;
        Self { offset, scanned: offset, head: checkpoint.head, tail: checkpoint.tail }
    }

    /// Reads on, appending events to `events`, which must be empty.
    pub(super) fn read(
        &mut self,
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
        rule: Rule<'_>,
        events: &mut EventBlock,
    ) -> io::Result<Chunk> {
        let longest_wait = rule.assembler.hold_max();
        let mut want = READ_BYTES;
        if rule.end == End::Open
            && !rule.assembler.joins()
            && self.scanned.saturating_sub(self.offset) > PROBE_ABOVE
        {
            let overlap = rule.assembler.alignment() as u64 - 1;
            match self.probe(content, buffer, longest_wait, overlap)? {
                Probe::Wait { grew, at_end } => {
                    return Ok(Chunk::Nothing { grew, waits: Waits::Newline, at_end });
                }
                Probe::Read { bytes } => want = want.max(bytes),
            }
        }
        let start = self.offset;
        let before = usize::try_from(start).unwrap_or(usize::MAX).min(WITNESS_BYTES);
        let from = start.saturating_sub(before as u64);
        loop {
            let bytes = buffer.read(content, from, before + want)?;
            let Some((overlap, data)) = bytes.split_at_checked(before) else { return Ok(Chunk::Truncated) };
            if !agrees_at_end(self.tail, overlap) || start == 0 && !agrees_at_start(self.head, data) {
                return Ok(Chunk::Truncated);
            }
            let at_end = data.len() < want;
            let end = if at_end { rule.end } else { End::Open };
            let cut = rule.assembler.cut(Input { data, before: overlap, end }, events);
            let (used, waits) = (cut.used, cut.waits);
            if used == 0 && !at_end && want <= longest_wait {
                want = want.saturating_mul(2).min(longest_wait + 1);
                continue;
            }
            let end = start.saturating_add(data.len() as u64);
            let grew = end != self.scanned;
            self.scanned = end;
            if used == 0 {
                if start == 0 {
                    self.head = Witness::of(data);
                }
                return Ok(Chunk::Nothing { grew, waits, at_end });
            }
            self.offset = start.saturating_add(used as u64);
            let read = bytes.get(..before + used).unwrap_or_default();
            self.tail = Witness::of(read.get(read.len().saturating_sub(WITNESS_BYTES)..).unwrap_or_default());
            if from == 0 && (start == 0 || self.head.len < Witness::MAX_BYTES) {
                self.head = Witness::of(read);
            }
            return Ok(Chunk::Events { start, skips: cut.skips, waits, at_end });
        }
    }

    /// Looks for a newline in what was added to a long incomplete line, reading nothing twice.
    fn probe(
        &mut self,
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
        longest_wait: usize,
        overlap: u64,
    ) -> io::Result<Probe> {
        // Half of a newline may have been there.
        let from = self.scanned.saturating_sub(overlap).max(self.offset);
        let overlap = usize::try_from(self.scanned - from).unwrap_or(0);
        let added = buffer.read(content, from, overlap + READ_BYTES)?;
        let seen = added.get(overlap..).unwrap_or_default().len();
        if seen == 0 {
            if content.size()? >= self.scanned {
                return Ok(Probe::Wait { grew: false, at_end: true });
            }
            self.scanned = self.offset;
            return Ok(Probe::Read { bytes: 0 });
        }
        let newline = memchr::memchr(b'\n', added);
        let held = usize::try_from(from.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let known = held.saturating_add(newline.map_or(added.len(), |at| at + 1));
        if newline.is_some() || known > longest_wait {
            return Ok(Probe::Read { bytes: known.min(longest_wait + 1) });
        }
        self.scanned = self.scanned.saturating_add(seen as u64);
        Ok(Probe::Wait { grew: true, at_end: seen < READ_BYTES })
    }

    /// Moves to the start of the last, incomplete line, so that it is delivered whole once it is complete; to the end
    /// of the file where no newline is in the last `max_line` bytes.
    pub(super) fn skip_to_end(
        &mut self,
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
        assembler: &Assembler,
        max_line: usize,
    ) -> io::Result<()> {
        let unit = assembler.alignment() as u64;
        let size = content.size()?;
        let size = size - size % unit;
        let lowest = size.saturating_sub(max_line as u64);
        let lowest = lowest - lowest % unit;
        let mut end = size;
        let offset = loop {
            if end == 0 {
                break 0;
            }
            if end <= lowest {
                break size;
            }
            let len = usize::try_from(end.saturating_sub(lowest)).unwrap_or(usize::MAX).min(READ_BYTES);
            let from = end.saturating_sub(len as u64);
            if let Some(start) = assembler.last_line_start(buffer.read(content, from, len)?) {
                break from.saturating_add(start as u64);
            }
            end = from;
        };
        *self = Self::passed(content, buffer, offset)?;
        Ok(())
    }

    /// As after a read to `offset`.
    pub(super) fn passed(
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
        offset: u64,
    ) -> io::Result<Self> {
        let len = usize::try_from(offset).unwrap_or(usize::MAX).min(WITNESS_BYTES);
        let head = Witness::of(buffer.read(content, 0, len)?);
        let tail = Witness::of(buffer.read(content, offset.saturating_sub(len as u64), len)?);
        Ok(Self { offset, scanned: offset, head, tail })
    }

    /// As after a read of `held`, the bytes behind the offset; `before` are those that the tail witness covers.
    pub(super) fn advanced(&self, before: &[u8], held: &[u8]) -> Self {
        let read = [before, held].concat();
        let offset = self.offset.saturating_add(held.len() as u64);
        let is_whole = self.tail_start() == 0 && self.head.len < Witness::MAX_BYTES;
        let head = if is_whole { Witness::of(&read) } else { self.head };
        let tail = Witness::of(read.get(read.len().saturating_sub(WITNESS_BYTES)..).unwrap_or_default());
        Self { offset, scanned: offset, head, tail }
    }

    /// Whether the file still begins as it did.
    pub(super) fn head_agrees(
        &self,
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
    ) -> io::Result<bool> {
        let len = usize::from(self.head.len);
        Ok(len == 0 || Witness::of(buffer.read(content, 0, len)?) == self.head)
    }

    /// Where the bytes begin that the tail witness covers.
    pub(super) fn tail_start(&self) -> u64 {
        self.offset.saturating_sub(u64::from(self.tail.len))
    }

    /// Whether the file still has before the offset what it had there.
    pub(super) fn tail_agrees(
        &self,
        content: &mut impl Content,
        buffer: &mut ReadBuffer,
    ) -> io::Result<bool> {
        let len = usize::from(self.tail.len);
        Ok(len == 0 || Witness::of(buffer.read(content, self.tail_start(), len)?) == self.tail)
    }
}

enum Probe {
    Wait { grew: bool, at_end: bool },
    Read { bytes: usize },
}

/// Whether `bytes` begin with what the witness saw.
fn agrees_at_start(witness: Witness, bytes: &[u8]) -> bool {
    let len = usize::from(witness.len);
    len == 0 || bytes.get(..len).map(Witness::of) == Some(witness)
}

/// Whether `bytes` end with what the witness saw.
fn agrees_at_end(witness: Witness, bytes: &[u8]) -> bool {
    let len = usize::from(witness.len);
    len == 0 || bytes.len().checked_sub(len).and_then(|at| bytes.get(at..)).map(Witness::of) == Some(witness)
}

/// Where a followed file is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At its path, which belongs to the source.
    Matched,
    /// At its path, which does not (any more) belong to the source.
    Renamed,
    /// No longer at its path; not looked for yet.
    Displaced,
    /// Neither at its path nor under another name beside it.
    Missing,
    /// Its last name was deleted.
    Deleted,
}

/// Where the content of a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was not looked at yet.
    Unknown,
    /// Its writer's: it is read.
    Own,
    /// It is a copy of a followed file so far, made by a rotation that is about to truncate that.
    CopyOf(FileKey),
    /// It is compressed: not read as lines.
    Packed,
}

/// A failure that is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// When to try again.
    pub retry_at: Instant,
    /// How often it has failed in a row.
    pub failures: u32,
}

/// A followed file of one source. A few hundred bytes with its entries in the tables.
#[derive(Debug)]
pub(super) struct FollowedFile {
    pub source: usize,
    pub identity: FileIdentity,
    /// The last known path.
    pub path: Arc<Path>,
    pub place: Place,
    pub progress: Progress,
    /// The size and times at the last look.
    pub stamp: Stamp,
    /// Open while there is room, so that neither renaming nor deleting the file takes it away.
    pub handle: Option<OwnedFd>,
    /// The watch on the file itself, where one on its directory does not do.
    pub watch: Option<i32>,
    /// Its bytes so far are to be skipped, for this reason, and have not been yet.
    pub skip_content: Option<SkipReason>,
    /// What is known of where its content comes from.
    pub origin: Origin,
    /// Since when it has been a copy that did not grow.
    pub copied_since: Option<Instant>,
    /// Its rest is read from a copy.
    pub detour: Option<Box<Detour>>,
    /// The largest size at which it was seen before it was seen smaller: so much it had before it was truncated.
    pub shrunk_from: u64,
    /// The path in its checkpoints: that before it was displaced, until it is finished.
    pub named: Arc<Path>,
    /// The spool has a checkpoint of it.
    pub is_recorded: bool,
    /// It stands in the queue of files to read.
    pub queued: bool,
    /// The last read came to its end.
    pub at_end: bool,
    /// The older generation that has to be read to its end before.
    pub waits_for: Option<FileKey>,
    /// The older generation, whose writer may still add to it until then.
    pub comes_after: Option<Box<(FileKey, Instant)>>,
    /// The newer generation that waits for this one.
    pub successor: Option<FileKey>,
    /// The file that took its name, and that name.
    pub taken_over: Option<Box<(FileKey, Arc<Path>)>>,
    /// It was renamed or deleted and is finished once it has been quiet since then for long enough.
    pub quiet_since: Option<Instant>,
    /// How often it was searched for further away.
    pub searches: u8,
    /// Since when it has been [`Place::Missing`].
    pub missing_since: Option<Instant>,
    /// It cannot be opened or read at the moment.
    pub trouble: Option<Trouble>,
    /// Since when what is behind its offset has waited without growing, where that becomes an event after some time.
    pub held_since: Option<Instant>,
    /// A timer runs for that.
    pub has_timer: bool,
    /// The file that had its name before, and whose last event may go on in this one.
    pub begins_in: Option<FileKey>,
    /// The file that has its name now, in which its last event goes on.
    pub goes_on_in: Option<FileKey>,
    /// How often it was read since it was opened.
    pub turns: u32,
    /// When it was last read, in reads of the tailer.
    pub last_read: u64,
    /// The last look through its source in which it was seen.
    pub seen_in: u64,
}

impl FollowedFile {
    pub(super) fn new(source: usize, identity: FileIdentity, path: Arc<Path>, place: Place) -> Self {
        Self {
            source,
            identity,
            place,
            progress: Progress::default(),
            stamp: Stamp::default(),
            handle: None,
            watch: None,
            skip_content: None,
            origin: Origin::Unknown,
            copied_since: None,
            detour: None,
            shrunk_from: 0,
            named: Arc::clone(&path),
            path,
            is_recorded: false,
            queued: false,
            at_end: false,
            waits_for: None,
            comes_after: None,
            successor: None,
            taken_over: None,
            quiet_since: None,
            searches: 0,
            missing_since: None,
            trouble: None,
            held_since: None,
            has_timer: false,
            begins_in: None,
            goes_on_in: None,
            turns: 0,
            last_read: 0,
            seen_in: 0,
        }
    }

    /// The state to be recorded with the next frame.
    pub(super) fn checkpoint(&self, source: &SourceName) -> Checkpoint {
        Checkpoint {
            source: source.clone(),
            path: self.named.to_path_buf(),
            identity: self.identity,
            head: self.progress.head,
            tail: self.progress.tail,
            offset: FileOffset(self.progress.offset),
        }
    }

    /// Bytes known to be there that have not become events.
    pub(super) fn known_unread(&self) -> u64 {
        self.stamp.size.max(self.progress.scanned).saturating_sub(self.progress.offset)
    }

    /// Its handle, or, where it is closed for others, one for the moment.
    pub(super) fn handle(&self) -> Option<Handle<'_>> {
        if let Some(handle) = &self.handle {
            return Some(Handle::Kept(handle));
        }
        let handle = identity::open(&self.path).ok()?;
        let stat = identity::stat_handle(&handle).ok()?;
        let is_it = stat.is_regular() && identity::same_identity(&stat.identity, &self.identity);
        is_it.then_some(Handle::Opened(handle))
    }

    /// Whether it is open, and could be opened again by its path.
    pub(super) fn may_close(&self) -> bool {
        self.handle.is_some() && matches!(self.place, Place::Matched | Place::Renamed)
    }

    /// Takes over what the file system says of it now. Returns whether it was written to.
    pub(super) fn observe(&mut self, stamp: Stamp) -> bool {
        if self.stamp == stamp {
            return false;
        }
        if stamp.size < self.stamp.size {
            self.shrunk_from = self.shrunk_from.max(self.stamp.size);
        }
        self.stamp = stamp;
        true
    }

    /// Where its content is known to have ended before it was truncated. What was added after the last look is unknown.
    pub(super) fn known_end(&self) -> u64 {
        self.shrunk_from.max(self.progress.scanned).max(self.progress.offset)
    }
}

/// A handle to look at a file with.
#[derive(Debug)]
pub(super) enum Handle<'a> {
    /// The one that the file is read through.
    Kept(&'a OwnedFd),
    /// One for the moment.
    Opened(OwnedFd),
}

impl std::ops::Deref for Handle<'_> {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        match self {
            Self::Kept(handle) => handle,
            Self::Opened(handle) => handle,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::config::LineRules;

    fn events_from(start: u64, waits: Waits) -> Chunk {
        Chunk::Events { start, skips: Skips::default(), waits, at_end: true }
    }

    fn nothing(grew: bool, waits: Waits) -> Chunk {
        Chunk::Nothing { grew, waits, at_end: true }
    }

    struct Rig {
        file: File,
        handle: OwnedFd,
        progress: Progress,
        buffer: ReadBuffer,
        assembler: Assembler,
        lines: Vec<(Vec<u8>, bool)>,
    }

    impl Rig {
        fn new(max_line: usize) -> Self {
            let file = tempfile::tempfile().unwrap();
            let handle = OwnedFd::from(file.try_clone().unwrap());
            let (progress, buffer) = (Progress::default(), ReadBuffer::default());
            let assembler = Assembler::new(&LineRules { max_line_bytes: max_line, ..LineRules::default() });
            Self { file, handle, progress, buffer, assembler, lines: Vec::new() }
        }

        fn append(&self, bytes: impl AsRef<[u8]>) {
            self.file.write_all_at(bytes.as_ref(), self.file.metadata().unwrap().len()).unwrap();
        }

        fn step(&mut self, finished: bool) -> Chunk {
            let mut events = EventBlock::default();
            let end = if finished { End::Finished } else { End::Open };
            let rule = Rule { assembler: &self.assembler, end };
            let chunk = self.progress.read(&mut &self.handle, &mut self.buffer, rule, &mut events).unwrap();
            assert_eq!(matches!(chunk, Chunk::Events { .. }), !events.is_empty());
            self.lines.extend(events.events().map(|event| (event.line.to_vec(), event.continues)));
            chunk
        }

        fn read_on(&mut self) {
            loop {
                match self.step(false) {
                    Chunk::Events { at_end: false, .. } | Chunk::Nothing { at_end: false, .. } => {}
                    Chunk::Truncated => panic!("not truncated"),
                    _ => return,
                }
            }
        }

        fn texts(&self) -> Vec<&str> {
            self.lines.iter().map(|(line, _)| std::str::from_utf8(line).unwrap()).collect()
        }
    }

    #[test]
    fn complete_lines_come_out_and_the_rest_is_held_back_until_the_file_is_finished() {
        let mut rig = Rig::new(64);
        rig.append("one\ntwo\r\nthr");
        assert_eq!(rig.step(false), events_from(0, Waits::Newline));
        assert_eq!(rig.progress.offset, 9);
        assert_eq!(rig.step(false), nothing(false, Waits::Newline));
        rig.append("ee");
        assert_eq!(rig.step(false), nothing(true, Waits::Newline));
        assert_eq!(rig.step(true), events_from(9, Waits::Nothing));
        assert_eq!(rig.texts(), ["one", "two", "three"]);
        assert_eq!(rig.step(true), nothing(false, Waits::Nothing));
    }

    #[test]
    fn a_truncated_file_is_told_even_if_it_is_longer_than_before() {
        let mut rig = Rig::new(64);
        rig.append("one\ntwo\n");
        rig.read_on();
        rig.file.set_len(0).unwrap();
        assert_eq!(rig.step(false), Chunk::Truncated);
        rig.append("other\nlines\nand more\n");
        assert_eq!(rig.step(false), Chunk::Truncated);
    }

    #[test]
    fn witnesses_cover_as_much_as_there_is_up_to_their_limit() {
        let mut rig = Rig::new(64);
        let mut content = Vec::new();
        for number in 0..500 {
            let line = format!("line {number}\n");
            content.extend_from_slice(line.as_bytes());
            rig.append(line);
            rig.read_on();
            assert_eq!(rig.progress.head, Witness::of(&content));
            assert_eq!(rig.progress.tail, Witness::of(&content[content.len().saturating_sub(1024)..]));
        }
        assert!(rig.progress.head_agrees(&mut &rig.handle, &mut rig.buffer).unwrap());
        rig.file.write_all_at(b"x", 1000).unwrap();
        assert!(!rig.progress.head_agrees(&mut &rig.handle, &mut rig.buffer).unwrap());
    }

    #[test]
    fn a_progress_that_is_moved_on_is_as_one_that_was_read() {
        let content: Vec<u8> = (0..300).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        let mut rig = Rig::new(64);
        rig.append(&content);
        for (offset, end) in
            [(0_usize, 7_usize), (7, 500), (0, 1024), (700, 1500), (1024, 2000), (1500, 2500)]
        {
            let mut passed =
                |to| Progress::passed(&mut &rig.handle, &mut rig.buffer, u64::try_from(to).unwrap()).unwrap();
            let (before, after) = (passed(offset), passed(end));
            let overlap = &content[offset.saturating_sub(1024)..offset];
            assert_eq!(before.advanced(overlap, &content[offset..end]), after, "{offset} {end}");
        }
    }

    #[test]
    fn a_long_line_that_grows_slowly_is_one_event() {
        let mut rig = Rig::new(1 << 20);
        let mut expected = Vec::new();
        rig.append("before\n");
        for step in 0..300 {
            let bytes = vec![b'a' + u8::try_from(step % 26).unwrap(); 2_000];
            expected.extend_from_slice(&bytes);
            rig.append(bytes);
            rig.read_on();
            assert_eq!(rig.lines.len(), 1);
        }
        rig.append("\nafter\n");
        rig.read_on();
        assert_eq!(rig.lines[1], (expected, false));
        assert_eq!(rig.lines[2], (b"after".to_vec(), false));
    }

    #[test]
    fn an_endless_line_is_split_within_bounded_memory_and_its_neighbours_are_intact() {
        let mut rig = Rig::new(300_000);
        rig.append("before\n");
        rig.append(vec![b'x'; 3_000_000]);
        rig.read_on();
        assert_eq!(rig.lines.len(), 1 + 9, "a piece is certain once the line is longer");
        rig.append(vec![b'x'; 400_000]);
        rig.append("\nafter\n");
        rig.read_on();
        let pieces: Vec<(usize, bool)> = rig.lines.iter().map(|(line, more)| (line.len(), *more)).collect();
        let mut expected = vec![(6, false)];
        expected.extend([(300_000, true); 11]);
        expected.extend([(100_000, false), (5, false)]);
        assert_eq!(pieces, expected);
        assert!(rig.buffer.0.len() <= 2 * 300_002 + WITNESS_BYTES);
        rig.buffer.shrink();
        assert!(rig.buffer.0.is_empty());
    }

    #[test]
    fn a_shortened_rest_is_read_again() {
        let mut rig = Rig::new(1 << 20);
        rig.append("one\n");
        rig.append(vec![b'x'; 10_000]);
        rig.read_on();
        rig.file.set_len(4).unwrap();
        rig.append("two\n");
        rig.read_on();
        assert_eq!(rig.texts(), ["one", "two"]);
    }

    #[test]
    fn skipping_stops_at_the_start_of_an_incomplete_line() {
        for (content, max_line, offset) in [
            (String::new(), 64, 0),
            ("one\ntwo\n".into(), 64, 8),
            ("one\ntw".into(), 64, 4),
            ("o".into(), 64, 0),
            ("x".repeat(100), 64, 100),
            (format!("{}\n{}", "y".repeat(400_000), "x".repeat(300_000)), 1 << 20, 400_001),
        ] {
            let mut rig = Rig::new(max_line);
            rig.append(&content);
            rig.progress.skip_to_end(&mut &rig.handle, &mut rig.buffer, &rig.assembler, max_line).unwrap();
            assert_eq!(rig.progress.offset, offset);
            assert_eq!(
                rig.progress.head,
                Witness::of(&content.as_bytes()[..usize::try_from(offset).unwrap()])
            );
            rig.append("!\nnext\n");
            rig.read_on();
            assert_eq!(rig.texts().last(), Some(&"next"));
        }
    }

    #[test]
    fn an_idle_file_costs_a_few_hundred_bytes() {
        assert!(size_of::<FollowedFile>() <= 384, "{}", size_of::<FollowedFile>());
    }

    #[test]
    fn offsets_past_four_gigabytes_are_read() {
        let mut rig = Rig::new(64);
        for at in [(1_u64 << 31) - 3, (1 << 32) - 3] {
            rig.file.write_all_at(b"\nover the edge\n", at).unwrap();
            rig.progress = Progress { offset: at, scanned: at, ..Progress::default() };
            rig.read_on();
            assert_eq!(rig.texts().last(), Some(&"over the edge"));
            assert_eq!(rig.progress.offset, at + 15);
        }
    }
}

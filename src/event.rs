//! The words of the data path: what an event is, where it came from, and the numbers that name it.
//!
//! Invariants:
//! - A [`Position`] names one event in the spool's log; a [`Seq`] names one event of one source. Neither is reused
//!   under the same spool id.
//! - A [`Checkpoint`] is always the state *after* the frame that carries it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// This number moved on by `count`; saturates, as 2^64 is never reached.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// How far this number is past `earlier`; zero if it is not.
            #[must_use]
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The place of one event in the spool's log, over all sources. The first event has position 1.
    Position
}
number! {
    /// The number of one event within its source, from 1, without gaps.
    Seq
}
number! {
    /// A byte offset in a followed file.
    FileOffset
}
number! {
    /// The number of a segment, from 1, ascending.
    SegmentId
}

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after (or, negative, before) the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, as in `2024-01-15T10:30:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
            None => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

/// The name of a `[[sources]]` entry, shared by everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The longest accepted name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SourceName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What some bytes of a file hashed to when they were last seen: XXH3-64 over `len` bytes.
///
/// A length of zero witnesses nothing and agrees with every file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// How many bytes were hashed, at most [`Witness::MAX_BYTES`].
    pub len: u16,
    /// Their XXH3-64 hash with seed 0; 0 where `len` is 0.
    pub hash: u64,
}

impl Witness {
    /// The most bytes that a witness covers.
    pub const MAX_BYTES: u16 = 1024;

    /// The witness of `bytes`, which are cut to [`Witness::MAX_BYTES`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX).min(Self::MAX_BYTES);
        if len == 0 {
            return Self::default();
        }
        let seen = bytes.get(..usize::from(len)).unwrap_or(bytes);
        Self { len, hash: xxhash_rust::xxh3::xxh3_64(seen) }
    }
}

/// What the file system says a file is. Inodes are reused, so this never decides alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number (`st_ino`).
    pub ino: u64,
    /// Birth time in nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub birth_ns: u64,
}

/// How far one file of one source has been read: what a frame makes durable together with its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source that follows the file.
    pub source: SourceName,
    /// The path under which it was last seen; any bytes the file system allows.
    pub path: PathBuf,
    /// What the file system says it is.
    pub identity: FileIdentity,
    /// Witness of the first bytes of the file.
    pub head: Witness,
    /// Witness of the bytes just before `offset`.
    pub tail: Witness,
    /// Everything before this offset is in the spool or was skipped for a counted reason.
    pub offset: FileOffset,
}

impl Checkpoint {
    /// What tells this checkpoint from the others: one per source and file.
    #[must_use]
    pub fn key(&self) -> CheckpointKey {
        CheckpointKey { source: self.source.clone(), identity: self.identity }
    }

    /// The path for messages; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn display_path(&self) -> std::path::Display<'_> {
        Path::new(&self.path).display()
    }
}

/// The key of a [`Checkpoint`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointKey {
    /// The source that follows the file.
    pub source: SourceName,
    /// What the file system says the file is.
    pub identity: FileIdentity,
}

/// Why bytes of a file did not become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// `start_at = "end"`: the content was there before the file was first seen.
    StartAtEnd = 1,
    /// `ignore_older_secs`: the file had not been written to for too long when it was first seen.
    Older = 2,
    /// `exclude_lines`: the line matched.
    Excluded = 3,
    /// `include_lines`: the line did not match.
    NotIncluded = 4,
    /// The byte order mark at the beginning of the file.
    ByteOrderMark = 5,
    /// A run of NUL bytes, as a writer leaves that goes on at its old offset after a truncation.
    Nul = 6,
    /// The file is a copy of one whose lines were read already.
    Copy = 7,
    /// Lost: the file was truncated before the bytes could be read, and no copy of them was found.
    Truncated = 64,
    /// Lost: the file was deleted before the bytes could be read, and no copy of them was found.
    Deleted = 65,
    /// Lost: the frames that said what became of the bytes were damaged in the spool.
    Damaged = 66,
}

impl SkipReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::StartAtEnd,
        Self::Older,
        Self::Excluded,
        Self::NotIncluded,
        Self::ByteOrderMark,
        Self::Nul,
        Self::Copy,
        Self::Truncated,
        Self::Deleted,
        Self::Damaged,
    ];

    /// The reason with this number, as it stands in a frame.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Whether the bytes were to be delivered and are lost, instead of left out on purpose.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Truncated | Self::Deleted | Self::Damaged)
    }

    /// The name, as configuration and reports give it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartAtEnd => "start-at-end",
            Self::Older => "older",
            Self::Excluded => "excluded",
            Self::NotIncluded => "not-included",
            Self::ByteOrderMark => "byte-order-mark",
            Self::Nul => "nul",
            Self::Copy => "copy",
            Self::Truncated => "truncated",
            Self::Deleted => "deleted",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes that did not become events, and how many lines they were where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Bytes, line endings included.
    pub bytes: u64,
    /// Whole lines; 0 where they were not counted.
    pub lines: u64,
}

/// What did not become events, by reason. Empty for most frames, and then without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips(Vec<(SkipReason, Skipped)>);

impl Skips {
    /// `bytes` for one reason, lines not counted.
    #[must_use]
    pub fn of(reason: SkipReason, bytes: u64) -> Self {
        let mut skips = Self::default();
        skips.add(reason, bytes, 0);
        skips
    }

    /// Adds to what is there for `reason`.
    pub fn add(&mut self, reason: SkipReason, bytes: u64, lines: u64) {
        match self.0.binary_search_by_key(&reason, |(known, _)| *known) {
            Ok(at) => {
                if let Some((_, skipped)) = self.0.get_mut(at) {
                    skipped.bytes = skipped.bytes.saturating_add(bytes);
                    skipped.lines = skipped.lines.saturating_add(lines);
                }
            }
            Err(at) => self.0.insert(at, (reason, Skipped { bytes, lines })),
        }
    }

    /// Adds all that `other` has.
    pub fn merge(&mut self, other: &Self) {
        for (reason, skipped) in other.iter() {
            self.add(reason, skipped.bytes, skipped.lines);
        }
    }

    /// The reasons with what was skipped for each, ascending by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SkipReason, Skipped)> + '_ {
        self.0.iter().copied()
    }

    /// Bytes for all reasons.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, skipped)| sum.saturating_add(skipped.bytes))
    }

    /// Whether nothing was skipped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The events of one frame, laid out as they go to disk: for each event a little-endian `u32` whose low 28 bits are
/// the length and whose high 4 bits are flags, then the bytes of the line.
#[derive(Clone, Debug, Default)]
pub struct EventBlock {
    bytes: Vec<u8>,
    count: u32,
}

/// The bits of an event's length word that hold the length.
pub const EVENT_LEN_MASK: u32 = (1 << 28) - 1;
/// Set in an event's length word where the line goes on in the next event, or may go on: it was longer than
/// `max_line_bytes`, or did not have its newline within `partial_timeout_secs`.
pub const EVENT_CONTINUES: u32 = 1 << 28;
/// Set in an event's length word where the event has a time of its own: the first [`EVENT_TIME_BYTES`] of its bytes are
/// milliseconds since the Unix epoch, a little-endian `i64`.
pub const EVENT_TIMED: u32 = 1 << 29;
/// Bytes of an event's own time; they count in its length.
pub const EVENT_TIME_BYTES: usize = 8;

impl EventBlock {
    /// The longest event, in bytes.
    pub const MAX_EVENT_BYTES: usize = EVENT_LEN_MASK as usize;

    /// An empty block that writes into `buffer`, whose content is dropped and whose capacity is kept.
    #[must_use]
    pub fn reuse(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, count: 0 }
    }

    /// Appends an event whose time is that of its frame. `continues` says that its line goes on in the next event.
    ///
    /// Lines are split at `max_line_bytes`, far below [`EventBlock::MAX_EVENT_BYTES`]; what is past that is cut.
    #[inline]
    pub fn push(&mut self, line: &[u8], continues: bool) {
        self.push_timed(line, continues, None);
    }

    /// Appends an event that has a time of its own, if `time` says so.
    #[inline]
    pub fn push_timed(&mut self, line: &[u8], continues: bool, time: Option<Timestamp>) {
        let timed = if time.is_some() { EVENT_TIME_BYTES } else { 0 };
        let len = line.len().min(Self::MAX_EVENT_BYTES - timed);
        let line = line.get(..len).unwrap_or(line);
        let mut word = u32::try_from(len + timed).unwrap_or(EVENT_LEN_MASK);
        if continues {
            word |= EVENT_CONTINUES;
        }
        if let Some(time) = time {
            self.bytes.extend_from_slice(&(word | EVENT_TIMED).to_le_bytes());
            self.bytes.extend_from_slice(&time.millis().to_le_bytes());
        } else {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.bytes.extend_from_slice(line);
        self.count = self.count.saturating_add(1);
    }

    /// Where the block is now, for [`EventBlock::rewind`].
    pub(crate) const fn mark(&self) -> BlockMark {
        BlockMark { bytes: self.bytes.len(), count: self.count }
    }

    /// Takes back the events that were appended after `mark`, which is one of this block.
    pub(crate) fn rewind(&mut self, mark: BlockMark) {
        self.bytes.truncate(mark.bytes);
        self.count = self.count.min(mark.count);
    }

    /// The number of events.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is no event.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded events.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the buffer back for [`EventBlock::reuse`].
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// The events, first to last.
    #[must_use]
    pub fn events(&self) -> EventIter<'_> {
        EventIter::new(&self.bytes)
    }
}

/// A place between two events of an [`EventBlock`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockMark {
    bytes: usize,
    count: u32,
}

/// One event as it stands in a frame: a line without its line ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEvent<'a> {
    /// The bytes of the line, as they were in the file.
    pub line: &'a [u8],
    /// The line goes on, or may go on, in the next event of its file: see [`EVENT_CONTINUES`].
    pub continues: bool,
    /// The event's own time, where its line has one; otherwise its time is that of its frame.
    pub time: Option<Timestamp>,
}

/// Walks encoded events. Ends at the first event that does not fit, which a frame that passed its checksum never has.
#[derive(Clone, Debug)]
pub struct EventIter<'a> {
    rest: &'a [u8],
}

impl<'a> EventIter<'a> {
    /// Walks `bytes`, laid out as [`EventBlock`] says.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not walked yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for EventIter<'a> {
    type Item = LogEvent<'a>;

    #[inline]
    fn next(&mut self) -> Option<LogEvent<'a>> {
        let (word, rest) = self.rest.split_first_chunk::<4>()?;
        let word = u32::from_le_bytes(*word);
        let (line, rest) = rest.split_at_checked((word & EVENT_LEN_MASK) as usize)?;
        self.rest = rest;
        let continues = word & EVENT_CONTINUES != 0;
        if word & EVENT_TIMED == 0 {
            return Some(LogEvent { line, continues, time: None });
        }
        let (time, line) = line.split_first_chunk::<EVENT_TIME_BYTES>()?;
        Some(LogEvent { line, continues, time: Some(Timestamp(i64::from_le_bytes(*time))) })
    }
}

/// What a tailer hands to the spool in one append: events of one file and the checkpoint after them.
///
/// A draft without events moves the checkpoint alone (skipped bytes, a renamed file); one with `forget` drops it.
#[derive(Clone, Debug)]
pub struct FrameDraft {
    /// The state after the frame.
    pub checkpoint: Checkpoint,
    /// Where in the file the frame begins; with the checkpoint's offset the range of bytes it accounts for.
    pub start: FileOffset,
    /// When the lines were detected.
    pub detected: Timestamp,
    /// The events, possibly none.
    pub events: EventBlock,
    /// Which of the bytes from `start` on did not become events.
    pub skips: Skips,
    /// The first event begins in another file of the source, which had this one's name before: a multi-line event that was
    /// open when the file was rotated. The frame moves that file's checkpoint too.
    pub before: Option<Box<Before>>,
    /// The file is gone and finished: its checkpoint may be forgotten.
    pub forget: bool,
}

/// The beginning of a frame's first event, in the file that had the name before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Where in that file the event begins; with the checkpoint's offset the range of bytes it accounts for.
    pub start: FileOffset,
    /// The state of that file after the frame.
    pub checkpoint: Checkpoint,
}

/// Where tailers put what they read: the spool, or a recording in a test.
pub trait FrameSink {
    /// Takes a draft. Waits while there is no room, which is how a full spool pauses reading.
    ///
    /// # Errors
    /// [`SinkClosed`] once the agent is stopping; the draft was not taken, its lines stay in their file.
    fn append(&mut self, draft: FrameDraft) -> Result<(), SinkClosed>;

    /// A buffer for the next [`EventBlock`], empty, its capacity kept from an earlier frame where possible.
    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// The spool takes no more frames because the agent is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool is closed")]
pub struct SinkClosed;

//! The frame: what one append writes. `spool-format.md` has the layout byte by byte.
//!
//! Invariants:
//! - The header's CRC covers the header, the names and the records behind it, the payload's CRC the payload: a frame
//!   whose payload is damaged can still be stepped over, its events counted, and its file's bytes accounted for.
//! - A header that decodes is complete: every length in it was written by us, so a reader may trust it after the CRC
//!   and not before.
//! - Pure: slices in, values out.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::codec::{Covered, Cursor, Put as _, holds};
use super::entries::{
    CHECKPOINT_FIXED, CHECKPOINT_MAX, SKIP_LEN, put_checkpoint, put_skip, take_checkpoint, take_skip,
};
use crate::event::{
    Before, Checkpoint, FileIdentity, FileOffset, FrameDraft, Position, SegmentId, Seq, SkipReason, Skips,
    SourceName, Timestamp, Witness,
};

/// First bytes of every frame.
pub(super) const MAGIC: [u8; 4] = *b"LAFR";
/// Bytes of the header before the names.
pub(super) const HEADER_LEN: usize = 128;
/// The most bytes of records: one for each reason of skipping, and the beginning of the first event elsewhere.
pub(super) const EXTRA_MAX: usize = SkipReason::ALL.len() * (1 + SKIP_LEN) + 1 + 8 + CHECKPOINT_MAX;
/// Header, the longest names (255 bytes of source, 65,535 of path) and the most bytes of records.
pub(super) const HEADER_MAX: usize = HEADER_LEN + SourceName::MAX_BYTES + u16::MAX as usize + EXTRA_MAX;
/// The largest payload: eight times what a reader with the longest line allowed can produce.
pub(super) const PAYLOAD_MAX: u32 = 128 << 20;

const CRC_AT: usize = HEADER_LEN - 4;
const FLAG_FORGET: u8 = 1 << 2;
/// Codec bits and reserved bits: none is in use, so a frame that has one set is from a newer version.
const FLAGS_UNKNOWN: u8 = !FLAG_FORGET;
/// Begins a record of bytes that did not become events.
const TAG_SKIPPED: u8 = 1;
/// Begins the record of the file in which the first event begins.
const TAG_BEFORE: u8 = 2;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Events of one file, or its checkpoint alone.
    Events = 1,
    /// The state of the spool at the head of a segment.
    Snapshot = 2,
    /// One event that the server refused, with its answer.
    DeadLetter = 3,
}

/// A frame's header with the names and the records behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    /// The file is gone for good: its checkpoint is dropped with this frame.
    pub forget: bool,
    /// What most frames have not; never there and empty.
    pub records: Option<Box<Records>>,
    /// The segment that it was written to; a frame found elsewhere is a left-over of the file system.
    pub segment: SegmentId,
    /// How long the segment was when the frame's group was written: what is before that was synced before.
    pub group_at: u64,
    pub first_position: Position,
    pub first_seq: Seq,
    pub events: u32,
    pub detected: Timestamp,
    /// Where in the file the frame begins.
    pub start: FileOffset,
    /// The state after the frame.
    pub checkpoint: Checkpoint,
    pub payload_len: u32,
    pub payload_crc: u32,
}

/// What a frame says behind its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// Which of the bytes from `start` on are not events.
    pub skips: Skips,
    /// The beginning of the first event, where that is in another file.
    pub before: Option<Box<Before>>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("no frame begins here")]
    Magic,
    #[error("the frame header is cut short")]
    Short,
    #[error("the frame header fails its checksum")]
    HeaderChecksum,
    #[error("the frame belongs to another segment")]
    Segment,
    #[error("the frame header is not of this version")]
    Unknown,
}

impl FrameHeader {
    /// The header of a draft. `payload_crc` is that of the draft's events.
    pub(super) fn of_draft(
        draft: &FrameDraft,
        segment: SegmentId,
        first_position: Position,
        first_seq: Seq,
        payload_crc: u32,
    ) -> Self {
        Self {
            kind: FrameKind::Events,
            forget: draft.forget,
            records: Records { skips: draft.skips.clone(), before: draft.before.clone() }.boxed(),
            segment,
            group_at: 0,
            first_position,
            first_seq,
            events: draft.events.count(),
            detected: draft.detected,
            start: draft.start,
            checkpoint: draft.checkpoint.clone(),
            payload_len: u32::try_from(draft.events.bytes().len()).unwrap_or(u32::MAX),
            payload_crc,
        }
    }

    /// A header without a file, for frames of other kinds.
    pub(super) fn bare(
        kind: FrameKind,
        segment: SegmentId,
        first_position: Position,
        payload: &[u8],
    ) -> Self {
        Self {
            kind,
            forget: false,
            records: None,
            segment,
            group_at: 0,
            first_position,
            first_seq: Seq(0),
            events: 0,
            detected: Timestamp::default(),
            start: FileOffset(0),
            checkpoint: Checkpoint {
                source: SourceName::from(""),
                path: PathBuf::new(),
                identity: FileIdentity::default(),
                head: Witness::default(),
                tail: Witness::default(),
                offset: FileOffset(0),
            },
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32fast::hash(payload),
        }
    }

    /// The position after the last event.
    pub(crate) fn end_position(&self) -> Position {
        self.first_position.plus(u64::from(self.events))
    }

    /// Bytes of the header with its names and records.
    pub(super) fn encoded_len(&self) -> usize {
        let Checkpoint { source, path, .. } = &self.checkpoint;
        let records = self.records.as_ref().map_or(0, |records| records.encoded_len());
        HEADER_LEN + source.as_str().len() + path.as_os_str().len() + records
    }

    /// Appends the header, its names and its records to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let source = self.checkpoint.source.as_str().as_bytes();
        let source = source.get(..SourceName::MAX_BYTES).unwrap_or(source);
        let path = self.checkpoint.path.as_os_str().as_bytes();
        let path = path.get(..usize::from(u16::MAX)).unwrap_or(path);
        out.put(&MAGIC);
        out.put_u8(self.kind as u8);
        out.put_u8(if self.forget { FLAG_FORGET } else { 0 });
        out.put_u16(0);
        out.put_u16(u16::try_from(source.len()).unwrap_or(u16::MAX));
        out.put_u16(u16::try_from(path.len()).unwrap_or(u16::MAX));
        out.put_u32(self.payload_len);
        out.put_u32(self.events);
        out.put_u32(segment_tag(self.segment));
        out.put_u64(self.first_position.0);
        out.put_u64(self.first_seq.0);
        out.put_i64(self.detected.millis());
        out.put_u64(self.checkpoint.identity.dev);
        out.put_u64(self.checkpoint.identity.ino);
        out.put_u64(self.checkpoint.identity.birth_ns);
        out.put_u64(self.start.0);
        out.put_u64(self.checkpoint.offset.0);
        out.put_u64(self.checkpoint.head.hash);
        out.put_u64(self.checkpoint.tail.hash);
        out.put_u16(self.checkpoint.head.len);
        out.put_u16(self.checkpoint.tail.len);
        out.put_u32(self.payload_crc);
        out.put_u64(self.group_at);
        let extra_len_at = out.len();
        out.put(&[0; 8]);
        out.put(source);
        out.put(path);
        let records_at = out.len();
        if let Some(records) = &self.records {
            records.encode(out);
        }
        let extra_len = u32::try_from(out.len() - records_at).unwrap_or(u32::MAX);
        fill(out, extra_len_at, extra_len);
        let (crc_at, behind_at) = (extra_len_at + 4, extra_len_at + 8);
        let mut crc = crc32fast::Hasher::new();
        crc.update(out.get(start..crc_at).unwrap_or_default());
        crc.update(out.get(behind_at..).unwrap_or_default());
        fill(out, crc_at, crc.finalize());
    }

    /// Decodes the header that begins `bytes` and says how long it is with its names and records. With too few bytes
    /// for these the answer is [`FrameError::Short`].
    ///
    /// # Errors
    /// Why no header of `segment` begins here.
    pub(super) fn decode(bytes: &[u8], segment: SegmentId) -> Result<(Self, usize), FrameError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FrameError::Magic);
        }
        let (fixed, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(FrameError::Short)?;
        let mut cursor = Cursor::new(fixed);
        let fields = Fields::read(&mut cursor).ok_or(FrameError::Short)?;
        let source_len = usize::from(fields.source_len);
        let path_len = usize::from(fields.path_len);
        let extra_len = usize::try_from(fields.extra_len).unwrap_or(usize::MAX);
        if source_len > SourceName::MAX_BYTES || extra_len > EXTRA_MAX {
            return Err(FrameError::Unknown);
        }
        let behind = rest.get(..source_len + path_len + extra_len).ok_or(FrameError::Short)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(fixed.get(..CRC_AT).unwrap_or_default());
        crc.update(behind);
        if !holds(Covered::Header, crc.finalize(), fields.crc) {
            return Err(FrameError::HeaderChecksum);
        }
        if fields.segment != segment_tag(segment) {
            return Err(FrameError::Segment);
        }
        let (source, rest) = behind.split_at_checked(source_len).ok_or(FrameError::Short)?;
        let (path, records) = rest.split_at_checked(path_len).ok_or(FrameError::Short)?;
        let mut header = fields.resolve(source, path, segment).ok_or(FrameError::Unknown)?;
        header.records = Records::decode(records).ok_or(FrameError::Unknown)?.boxed();
        Ok((header, HEADER_LEN + behind.len()))
    }
}

impl Records {
    /// As a header has them.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (!self.skips.is_empty() || self.before.is_some()).then(|| Box::new(self))
    }

    fn encoded_len(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |before| {
            let Checkpoint { source, path, .. } = &before.checkpoint;
            1 + 8 + CHECKPOINT_FIXED + source.as_str().len() + path.as_os_str().len()
        });
        self.skips.iter().len() * (1 + SKIP_LEN) + before
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (reason, skipped) in self.skips.iter() {
            out.put_u8(TAG_SKIPPED);
            put_skip(out, reason, skipped);
        }
        if let Some(before) = &self.before {
            out.put_u8(TAG_BEFORE);
            out.put_u64(before.start.0);
            put_checkpoint(out, &before.checkpoint);
        }
    }

    /// `None` where a record is not of this version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        let mut cursor = Cursor::new(bytes);
        while !cursor.is_empty() {
            match cursor.u8()? {
                TAG_SKIPPED => take_skip(&mut cursor, &mut records.skips)?,
                TAG_BEFORE if records.before.is_none() => {
                    let start = FileOffset(cursor.u64()?);
                    let checkpoint = take_checkpoint(&mut cursor)?;
                    records.before = Some(Box::new(Before { start, checkpoint }));
                }
                _ => return None,
            }
        }
        Some(records)
    }
}

/// Writes a value over four bytes that were kept for it.
fn fill(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// The low half of a segment's number, as it stands in its frames.
fn segment_tag(segment: SegmentId) -> u32 {
    let [a, b, c, d, ..] = segment.0.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The fixed part of a header before its checksum is known to hold.
struct Fields {
    kind: u8,
    flags: u8,
    source_len: u16,
    path_len: u16,
    payload_len: u32,
    events: u32,
    segment: u32,
    first_position: u64,
    first_seq: u64,
    detected: i64,
    identity: FileIdentity,
    start: u64,
    end: u64,
    head: Witness,
    tail: Witness,
    payload_crc: u32,
    group_at: u64,
    extra_len: u32,
    crc: u32,
}

impl Fields {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.bytes(MAGIC.len())?;
        let kind = cursor.u8()?;
        let flags = cursor.u8()?;
        cursor.u16()?;
        let source_len = cursor.u16()?;
        let path_len = cursor.u16()?;
        let payload_len = cursor.u32()?;
        let events = cursor.u32()?;
        let segment = cursor.u32()?;
        let first_position = cursor.u64()?;
        let first_seq = cursor.u64()?;
        let detected = cursor.i64()?;
        let identity = FileIdentity { dev: cursor.u64()?, ino: cursor.u64()?, birth_ns: cursor.u64()? };
        let start = cursor.u64()?;
        let end = cursor.u64()?;
        let (head_hash, tail_hash) = (cursor.u64()?, cursor.u64()?);
        let (head_len, tail_len) = (cursor.u16()?, cursor.u16()?);
        let payload_crc = cursor.u32()?;
        let group_at = cursor.u64()?;
        let extra_len = cursor.u32()?;
        let crc = cursor.u32()?;
        Some(Self {
            kind,
            flags,
            source_len,
            path_len,
            payload_len,
            events,
            segment,
            first_position,
            first_seq,
            detected,
            identity,
            start,
            end,
            head: Witness { len: head_len, hash: head_hash },
            tail: Witness { len: tail_len, hash: tail_hash },
            payload_crc,
            group_at,
            extra_len,
            crc,
        })
    }

    fn resolve(self, source: &[u8], path: &[u8], segment: SegmentId) -> Option<FrameHeader> {
        let kind = match self.kind {
            1 => FrameKind::Events,
            2 => FrameKind::Snapshot,
            3 => FrameKind::DeadLetter,
            _ => return None,
        };
        if self.flags & FLAGS_UNKNOWN != 0 || self.payload_len > PAYLOAD_MAX {
            return None;
        }
        Some(FrameHeader {
            kind,
            forget: self.flags & FLAG_FORGET != 0,
            records: None,
            segment,
            group_at: self.group_at,
            first_position: Position(self.first_position),
            first_seq: Seq(self.first_seq),
            events: self.events,
            detected: Timestamp::from_millis(self.detected),
            start: FileOffset(self.start),
            checkpoint: Checkpoint {
                source: SourceName::from(std::str::from_utf8(source).ok()?),
                path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
                identity: self.identity,
                head: self.head,
                tail: self.tail,
                offset: FileOffset(self.end),
            },
            payload_len: self.payload_len,
            payload_crc: self.payload_crc,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::entries::tests::skips;

    fn witness() -> impl Strategy<Value = Witness> {
        (any::<u16>(), any::<u64>()).prop_map(|(len, hash)| Witness { len, hash })
    }

    pub(in crate::spool) fn checkpoint() -> impl Strategy<Value = Checkpoint> {
        (
            "[a-z]{1,20}",
            prop::collection::vec(1..=255_u8, 0..80),
            any::<(u64, u64, u64)>(),
            (witness(), witness()),
            any::<u64>(),
        )
            .prop_map(|(source, path, (dev, ino, birth_ns), (head, tail), offset)| Checkpoint {
                source: SourceName::from(source.as_str()),
                path: PathBuf::from(std::ffi::OsStr::from_bytes(&path)),
                identity: FileIdentity { dev, ino, birth_ns },
                head,
                tail,
                offset: FileOffset(offset),
            })
    }

    fn header() -> impl Strategy<Value = FrameHeader> {
        (
            checkpoint(),
            (any::<bool>(), skips(), prop::option::of((checkpoint(), any::<u64>()))),
            any::<(u64, u64, u64, u32)>(),
            0..PAYLOAD_MAX,
            any::<(u64, i64)>(),
        )
            .prop_map(
                |(
                    checkpoint,
                    (forget, skips, before),
                    (segment, position, seq, events),
                    len,
                    (start, time),
                )| {
                    let before = before
                        .map(|(checkpoint, start)| Box::new(Before { start: FileOffset(start), checkpoint }));
                    FrameHeader {
                        kind: FrameKind::Events,
                        forget,
                        records: Records { skips, before }.boxed(),
                        segment: SegmentId(segment),
                        group_at: start / 2,
                        first_position: Position(position),
                        first_seq: Seq(seq),
                        events,
                        detected: Timestamp::from_millis(time),
                        start: FileOffset(start),
                        checkpoint,
                        payload_len: len,
                        payload_crc: len.rotate_left(9),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_header_decodes_to_what_was_encoded(header in header(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let len = bytes.len();
            prop_assert_eq!(header.encoded_len(), len);
            bytes.extend(rest);
            let (decoded, decoded_len) = FrameHeader::decode(&bytes, header.segment).unwrap();
            prop_assert_eq!(decoded, header);
            prop_assert_eq!(decoded_len, len);
        }

        #[test]
        fn any_flipped_bit_of_a_header_is_noticed(header in header(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(FrameHeader::decode(&bytes, header.segment).is_err());
        }

        #[test]
        fn any_cut_of_a_header_is_noticed(header in header(), at in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            bytes.truncate(at.index(bytes.len()));
            prop_assert!(FrameHeader::decode(&bytes, header.segment).is_err());
        }

        #[test]
        fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..400), segment in any::<u64>()) {
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            prop_assert!(FrameHeader::decode(&framed, SegmentId(segment)).is_err());
            let _ = FrameHeader::decode(&bytes, SegmentId(segment));
        }
    }

    #[test]
    fn a_source_name_that_is_longer_than_any_is_not_valid() {
        let mut bytes = Vec::new();
        let mut header = FrameHeader::bare(FrameKind::Events, SegmentId(1), Position(1), b"");
        header.checkpoint.source = SourceName::from(&*"s".repeat(255));
        header.checkpoint.path = PathBuf::from("path");
        header.encode(&mut bytes);
        // A byte of the path becomes one of the source.
        bytes[8..12].copy_from_slice(&[0, 1, 3, 0]);
        crate::spool::fuzzing::seal_frame(&mut bytes);
        assert_eq!(FrameHeader::decode(&bytes, SegmentId(1)), Err(FrameError::Unknown));
    }

    /// A header whose records are these bytes.
    fn with_records(records: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameHeader::bare(FrameKind::Events, SegmentId(7), Position(1), b"").encode(&mut bytes);
        bytes[EXTRA_LEN_AT..CRC_AT].copy_from_slice(&u32::try_from(records.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(records);
        let crc = crc32fast::hash(&[&bytes[..CRC_AT], records].concat());
        bytes[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    const EXTRA_LEN_AT: usize = CRC_AT - 4;

    #[test]
    fn records_that_this_version_does_not_know_make_the_frame_one_of_a_newer() {
        let skip = [&[TAG_SKIPPED, SkipReason::Nul as u8][..], &[1; 16]].concat();
        let (header, _) = FrameHeader::decode(&with_records(&skip), SegmentId(7)).unwrap();
        assert_eq!(header.records.unwrap().skips.iter().len(), 1);
        let before = [&[TAG_BEFORE][..], &[0; 8], &[0; CHECKPOINT_FIXED]].concat();
        assert!(FrameHeader::decode(&with_records(&before), SegmentId(7)).is_ok());
        let unknown: [Vec<u8>; 6] = [
            vec![0],
            [&skip[..], &[3]].concat(),
            [&[TAG_SKIPPED, 8][..], &[1; 16]].concat(),
            skip[..skip.len() - 1].to_vec(),
            [&before[..], &before].concat(),
            vec![0; EXTRA_MAX + 1],
        ];
        for records in unknown {
            let decoded = FrameHeader::decode(&with_records(&records), SegmentId(7));
            assert_eq!(decoded, Err(FrameError::Unknown), "{:?}", records.get(..20));
        }
    }

    #[test]
    fn the_longest_header_has_its_place() {
        let longest = Checkpoint {
            source: SourceName::from("s".repeat(SourceName::MAX_BYTES).as_str()),
            path: PathBuf::from("p".repeat(u16::MAX.into())),
            ..FrameHeader::bare(FrameKind::Events, SegmentId(7), Position(1), b"").checkpoint
        };
        let mut header = FrameHeader::bare(FrameKind::Events, SegmentId(7), Position(1), b"");
        let mut records = Records::default();
        for reason in SkipReason::ALL {
            records.skips.add(reason, u64::MAX, 1);
        }
        records.before = Some(Box::new(Before { start: FileOffset(1), checkpoint: longest.clone() }));
        header.records = records.boxed();
        header.checkpoint = longest;
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_MAX);
        assert_eq!(FrameHeader::decode(&bytes, SegmentId(7)), Ok((header, HEADER_MAX)));
    }

    #[test]
    fn a_frame_of_another_segment_is_a_left_over() {
        let mut bytes = Vec::new();
        FrameHeader::bare(FrameKind::Snapshot, SegmentId(7), Position(1), b"x").encode(&mut bytes);
        assert_eq!(FrameHeader::decode(&bytes, SegmentId(8)), Err(FrameError::Segment));
    }
}

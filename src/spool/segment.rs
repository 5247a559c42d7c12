//! The segment: its file name, its header, and the snapshot that begins it.
//!
//! Invariants:
//! - A segment begins with a header and a snapshot frame that says all that is known at its first position, so that
//!   the spool can be rebuilt from its segments alone.
//! - Where two segments claim a position, the one with the higher number has it: a segment given up after a failed
//!   write may hold frames that were written again to its successor.
//! - Pure: slices in, values out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::codec::{Cursor, Put as _};
use super::entries::{
    put_account, put_bytes, put_file, put_loss, take_account, take_bytes, take_file, take_loss,
};
use super::files::{FileRecord, FileState, Losses, SourceBytes};
use crate::event::{CheckpointKey, Position, SegmentId, Seq, SourceName, Timestamp};

/// First bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"LAGSPOOL";
/// The version written, and the newest that is read.
pub(super) const VERSION: u32 = 1;
/// Bytes of the segment header.
pub(super) const HEADER_LEN: usize = 80;

/// 128 random bits. The lineage of a spool never changes; its id changes where a position might otherwise come to
/// name a second content.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId(pub [u8; 16]);

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub segment: SegmentId,
    /// Position of the first event that the segment may have.
    pub first_position: Position,
    /// The same for all segments of a spool: one of another spool is foreign.
    pub lineage: SpoolId,
    /// The id under which the segment's events are sent.
    pub spool_id: SpoolId,
    pub created: Timestamp,
    /// It was written with `sync = "os"`: a machine that went down may have lost frames that were sent.
    pub unsynced: bool,
}

/// Set in a segment's flags where it was written with `sync = "os"`.
const FLAG_UNSYNCED: u32 = 1;

/// Why bytes are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SegmentError {
    #[error("not a segment")]
    Magic,
    #[error("the segment header is cut short")]
    Short,
    #[error("the segment header fails its checksum")]
    Checksum,
    #[error("it is named as another segment than it is")]
    Misnamed,
    #[error("the segment has format version {0}, newer than {VERSION}, the newest that this log-agent reads")]
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put(&MAGIC);
        out.put_u32(VERSION);
        out.put_u32(u32::try_from(HEADER_LEN).unwrap_or(u32::MAX));
        out.put_u64(self.segment.0);
        out.put_u64(self.first_position.0);
        out.put(&self.lineage.0);
        out.put(&self.spool_id.0);
        out.put_i64(self.created.millis());
        out.put_u32(if self.unsynced { FLAG_UNSYNCED } else { 0 });
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.put_u32(crc);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(SegmentError::Magic);
        }
        let bytes = bytes.get(..HEADER_LEN).ok_or(SegmentError::Short)?;
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(SegmentError::Short)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Err(SegmentError::Checksum);
        }
        Self::fields(covered).ok_or(SegmentError::Short)?
    }

    fn fields(covered: &[u8]) -> Option<Result<Self, SegmentError>> {
        let mut cursor = Cursor::new(covered);
        cursor.bytes(MAGIC.len())?;
        let version = cursor.u32()?;
        if version != VERSION {
            return Some(Err(SegmentError::Newer(version)));
        }
        cursor.u32()?;
        Some(Ok(Self {
            segment: SegmentId(cursor.u64()?),
            first_position: Position(cursor.u64()?),
            lineage: SpoolId(cursor.array()?),
            spool_id: SpoolId(cursor.array()?),
            created: Timestamp::from_millis(cursor.i64()?),
            unsynced: cursor.u32()? & FLAG_UNSYNCED != 0,
        }))
    }
}

/// The file name of a segment: twenty digits, so that names sort as numbers do.
pub(super) fn file_name(segment: SegmentId) -> String {
    format!("{segment:0>20}.seg")
}

/// The segment that a file name stands for, if it is one.
pub(super) fn parse_file_name(name: &std::ffi::OsStr) -> Option<SegmentId> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok().map(SegmentId))?
}

/// What became of one source's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Events that the server has taken.
    pub acknowledged: u64,
    /// Events among the dead letters.
    pub dead: u64,
    /// Events dropped because the disk budget was used up and `on_full` said so.
    pub dropped: u64,
    /// Events whose bytes were damaged on disk.
    pub damaged: u64,
    /// Events spooled under earlier spool ids, whose sequence numbers ended with them.
    pub earlier: u64,
}

impl Account {
    /// Events that need nothing more, whatever became of them.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.acknowledged.saturating_add(self.dead).saturating_add(self.dropped).saturating_add(self.damaged)
    }
}

/// What a snapshot says of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceEntry {
    pub next_seq: Seq,
    pub account: Account,
    pub bytes: SourceBytes,
}

impl SourceEntry {
    /// Events that were ever spooled.
    pub(super) const fn total(&self) -> u64 {
        self.account.earlier.saturating_add(self.next_seq.0.saturating_sub(1))
    }
}

/// All that is known at the head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub lineage: SpoolId,
    pub spool_id: SpoolId,
    /// Position of the first event that the segment may have, as in its header.
    pub position: Position,
    /// As in the segment's header.
    pub unsynced: bool,
    /// Every event before this position is acknowledged, dead, dropped or damaged.
    pub frontier: Position,
    pub sources: BTreeMap<SourceName, SourceEntry>,
    pub files: BTreeMap<CheckpointKey, FileRecord>,
    pub losses: Losses,
}

impl Snapshot {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.sources.len() * 96 + self.files.len() * 192);
        out.put(&self.lineage.0);
        out.put(&self.spool_id.0);
        out.put_u64(self.position.0);
        out.put_u32(if self.unsynced { FLAG_UNSYNCED } else { 0 });
        out.put_u64(self.frontier.0);
        out.put_u32(u32::try_from(self.sources.len()).unwrap_or(u32::MAX));
        for (name, SourceEntry { next_seq, account, bytes }) in &self.sources {
            out.put_sized(name.as_str().as_bytes());
            out.put_u64(next_seq.0);
            put_account(&mut out, account);
            put_bytes(&mut out, bytes);
        }
        out.put_u32(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        for record in self.files.values() {
            put_file(&mut out, record);
        }
        out.put_u64(self.losses.total);
        out.put_u32(u32::try_from(self.losses.newest.len()).unwrap_or(u32::MAX));
        for loss in &self.losses.newest {
            put_loss(&mut out, loss);
        }
        out
    }

    /// `None` where the bytes are not a snapshot, which a payload that passed its checksum always is.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let lineage = SpoolId(cursor.array()?);
        let spool_id = SpoolId(cursor.array()?);
        let position = Position(cursor.u64()?);
        let unsynced = cursor.u32()? & FLAG_UNSYNCED != 0;
        let frontier = Position(cursor.u64()?);
        let mut sources = BTreeMap::new();
        for _ in 0..cursor.u32()? {
            let name = SourceName::from(cursor.text()?);
            let next_seq = Seq(cursor.u64()?);
            let account = take_account(&mut cursor)?;
            sources.insert(name, SourceEntry { next_seq, account, bytes: take_bytes(&mut cursor)? });
        }
        let mut files = BTreeMap::new();
        for _ in 0..cursor.u32()? {
            let record = take_file(&mut cursor)?;
            files.insert(record.checkpoint.key(), record);
        }
        let mut losses = Losses { total: cursor.u64()?, newest: VecDeque::new() };
        for _ in 0..cursor.u32()? {
            losses.newest.push_back(take_loss(&mut cursor)?);
        }
        cursor.is_empty().then_some(Self {
            lineage,
            spool_id,
            position,
            unsynced,
            frontier,
            sources,
            files,
            losses,
        })
    }

    /// What it says of the files.
    pub(super) fn state(&self) -> FileState {
        FileState {
            next_seqs: self.sources.iter().map(|(name, entry)| (name.clone(), entry.next_seq)).collect(),
            bytes: self.sources.iter().map(|(name, entry)| (name.clone(), entry.bytes.clone())).collect(),
            files: self.files.clone(),
            losses: self.losses.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::entries::tests::{bytes, file, loss};

    fn header() -> SegmentHeader {
        SegmentHeader {
            segment: SegmentId(3),
            first_position: Position(99),
            lineage: SpoolId([1; 16]),
            spool_id: SpoolId([2; 16]),
            created: Timestamp::from_millis(1_705_314_600_123),
            unsynced: true,
        }
    }

    #[test]
    fn a_segment_header_decodes_to_what_was_encoded_and_notices_every_flipped_bit() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentError::Newer(2)));
    }

    #[test]
    fn file_names_sort_and_parse() {
        assert_eq!(file_name(SegmentId(12)), "00000000000000000012.seg");
        assert_eq!(parse_file_name(file_name(SegmentId(u64::MAX)).as_ref()), Some(SegmentId(u64::MAX)));
        for other in ["12.seg", "00000000000000000012.seg.tmp", "+0000000000000000012.seg", "x"] {
            assert_eq!(parse_file_name(other.as_ref()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_decodes_to_what_was_encoded(
            files in prop::collection::vec(file(), 0..8),
            sources in prop::collection::btree_map(
                "[a-z]{1,9}", (any::<(u64, u64, u64, u64, u64, u64)>(), bytes()), 0..5,
            ),
            losses in (any::<u64>(), prop::collection::vec_deque(loss(), 0..4)),
            frontier in any::<u64>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let entry = |((seq, acknowledged, dead, dropped, damaged, earlier), bytes)| SourceEntry {
                next_seq: Seq(seq),
                account: Account { acknowledged, dead, dropped, damaged, earlier },
                bytes,
            };
            let snapshot = Snapshot {
                lineage: SpoolId([3; 16]),
                spool_id: SpoolId([4; 16]),
                position: Position(frontier / 2),
                unsynced: frontier % 2 == 1,
                frontier: Position(frontier),
                sources: sources
                    .into_iter()
                    .map(|(name, source)| (SourceName::from(name.as_str()), entry(source)))
                    .collect(),
                files: files.into_iter().map(|file| (file.checkpoint.key(), file)).collect(),
                losses: Losses { total: losses.0, newest: losses.1 },
            };
            let bytes = snapshot.encode();
            prop_assert_eq!(Snapshot::decode(&bytes), Some(snapshot));
            prop_assert_eq!(Snapshot::decode(&bytes[..cut.index(bytes.len())]), None);
        }

        #[test]
        fn no_bytes_panic_the_snapshot_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Snapshot::decode(&bytes);
        }
    }
}

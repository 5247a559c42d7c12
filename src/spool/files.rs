//! What the frames so far say of the files: how far each was read, and what became of its bytes.
//!
//! Invariants:
//! - Of each file's content: everything before the checkpoint's offset became events or was skipped for a reason, so
//!   `offset = spooled + skipped`. Of each source, over all files and all of their contents: `read = spooled + skipped`.
//!   `read` is summed from the ranges that frames account for, on its own, so that the two can disagree.
//! - Bytes between two frames of a file, about which no frame says anything, are counted as damaged: the frame that did
//!   was lost in the spool.
//! - Every loss is counted for ever, and the newest [`LOSSES_MAX`] are known with their place.
//! - A frame costs no allocation where its file is known and nothing was skipped.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use super::frame::{FrameHeader, FrameKind, Records};
use crate::event::{
    Checkpoint, CheckpointKey, FileIdentity, FileOffset, Seq, SkipReason, Skips, SourceName, Timestamp,
};

/// How many losses are kept with their place: far more than a person reads, and few enough for every snapshot.
pub(super) const LOSSES_MAX: usize = 256;

/// What became of the bytes of a file's present content, from its beginning to the checkpoint's offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileAccount {
    /// Bytes that became events, line endings included.
    pub spooled: u64,
    /// Bytes that did not.
    pub skips: Skips,
    /// When the last frame was read.
    pub read_at: Timestamp,
    /// How often the file was begun anew, as after a truncation. Earlier contents are in the source's account alone.
    pub restarts: u64,
}

/// A file of a source: its checkpoint with its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    pub checkpoint: Checkpoint,
    pub account: FileAccount,
}

impl FileRecord {
    /// Whether `offset = spooled + skipped`.
    pub(crate) fn is_balanced(&self) -> bool {
        self.checkpoint.offset.0 == self.account.spooled.saturating_add(self.account.skips.bytes())
    }
}

/// What became of the bytes of a source, over all of its files for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceBytes {
    /// Bytes that were accounted for, each time that they were read.
    pub read: u64,
    /// Of these, bytes that became events.
    pub spooled: u64,
    /// And bytes that did not.
    pub skips: Skips,
}

impl SourceBytes {
    /// Whether `read = spooled + skipped`.
    pub(crate) fn is_balanced(&self) -> bool {
        self.read == self.spooled.saturating_add(self.skips.bytes())
    }
}

/// Bytes of a file that were to be delivered and are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub source: SourceName,
    /// Where the file was last seen.
    pub path: PathBuf,
    pub identity: FileIdentity,
    /// The first byte of the range.
    pub start: FileOffset,
    /// The byte after the range.
    pub end: FileOffset,
    pub reason: SkipReason,
    /// When it was found out.
    pub at: Timestamp,
}

/// The losses of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// How many there were ever. They are numbered from 1.
    pub total: u64,
    /// The last of them, oldest first.
    pub newest: VecDeque<Loss>,
}

impl Losses {
    fn push(&mut self, loss: Loss) {
        if self.newest.len() >= LOSSES_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(loss);
        self.total = self.total.saturating_add(1);
    }

    /// The losses that are kept, with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, &Loss)> {
        (self.dropped().saturating_add(1)..).zip(&self.newest)
    }

    /// How many are no longer kept; the number of the newest of these.
    pub(super) fn dropped(&self) -> u64 {
        self.total.saturating_sub(self.newest.len() as u64)
    }
}

/// Everything that the frames so far have made known: what a snapshot says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileState {
    pub next_seqs: BTreeMap<SourceName, Seq>,
    pub files: BTreeMap<CheckpointKey, FileRecord>,
    pub bytes: BTreeMap<SourceName, SourceBytes>,
    pub losses: Losses,
}

impl FileState {
    /// Takes over what a frame says.
    pub(super) fn apply(&mut self, header: &FrameHeader) {
        if header.kind != FrameKind::Events {
            return;
        }
        let source = &header.checkpoint.source;
        let next = header.first_seq.plus(u64::from(header.events));
        match self.next_seqs.get_mut(source) {
            Some(seq) => *seq = next.max(*seq),
            None => {
                self.next_seqs.insert(source.clone(), next);
            }
        }
        let none = Records::default();
        let Records { skips, before } = header.records.as_deref().unwrap_or(&none);
        if let Some(before) = before {
            self.advance(&before.checkpoint, before.start, &Skips::default(), header.detected);
        }
        let key = header.checkpoint.key();
        if header.forget && header.start == header.checkpoint.offset && !self.files.contains_key(&key) {
            // The last word on a former identity of a file that has another one by now.
            return;
        }
        self.advance(&header.checkpoint, header.start, skips, header.detected);
        if header.forget {
            self.files.remove(&key);
        }
    }

    /// The checkpoints of all files.
    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.files.values().map(|record| &record.checkpoint)
    }

    /// Accounts for the bytes from `start` to the checkpoint's offset, of which `skips` did not become events.
    fn advance(&mut self, checkpoint: &Checkpoint, start: FileOffset, skips: &Skips, at: Timestamp) {
        let key = checkpoint.key();
        if !self.files.contains_key(&key) {
            self.enter(&key, checkpoint, start);
        }
        let Some(FileRecord { checkpoint: known, account }) = self.files.get_mut(&key) else { return };
        let bytes = self.bytes.entry(key.source).or_default();
        if start < known.offset {
            *account = FileAccount { restarts: account.restarts.saturating_add(1), ..FileAccount::default() };
            known.offset = FileOffset(0);
        }
        let gap = start.since(known.offset);
        if gap > 0 {
            account.skips.add(SkipReason::Damaged, gap, 0);
            bytes.skips.add(SkipReason::Damaged, gap, 0);
            bytes.read = bytes.read.saturating_add(gap);
            self.losses.push(loss(checkpoint, known.offset, start, SkipReason::Damaged, at));
        }
        for (reason, _) in skips.iter().filter(|(reason, _)| reason.is_loss()) {
            self.losses.push(loss(checkpoint, start, checkpoint.offset, reason, at));
        }
        let range = checkpoint.offset.since(start);
        let spooled = range.saturating_sub(skips.bytes());
        account.spooled = account.spooled.saturating_add(spooled);
        account.skips.merge(skips);
        account.read_at = at;
        bytes.read = bytes.read.saturating_add(range);
        bytes.spooled = bytes.spooled.saturating_add(spooled);
        bytes.skips.merge(skips);
        move_to(known, checkpoint);
    }

    /// Enters a file that is not known under this key: from its beginning, or where the frame goes on behind what is
    /// known of the same file under another identity, with that one's account.
    fn enter(&mut self, key: &CheckpointKey, checkpoint: &Checkpoint, start: FileOffset) {
        let begun = FileOffset(0);
        let known = self
            .files
            .iter()
            .filter(|_| start > begun)
            .find(|(other, record)| {
                other.source == key.source
                    && record.checkpoint.offset == start
                    && is_same_file(&other.identity, &key.identity)
            })
            .map(|(other, _)| other.clone());
        let record = match known.and_then(|known| self.files.remove(&known)) {
            Some(record) => record,
            None => FileRecord {
                checkpoint: Checkpoint { offset: begun, ..checkpoint.clone() },
                account: FileAccount::default(),
            },
        };
        self.files.insert(key.clone(), record);
    }
}

/// Whether two identities are of one file, although the file system may have come to say something else of it: the device
/// has another number after a reboot, or the birth time became known.
pub(crate) fn is_same_file(one: &FileIdentity, other: &FileIdentity) -> bool {
    let birth_unknown = one.birth_ns == 0 || other.birth_ns == 0;
    one.ino == other.ino
        && (one.birth_ns == other.birth_ns && !birth_unknown || one.dev == other.dev && birth_unknown)
}

/// Takes over a checkpoint, keeping the path's memory where it is the same.
fn move_to(known: &mut Checkpoint, to: &Checkpoint) {
    let Checkpoint { source: _, path, identity, head, tail, offset } = to;
    if known.path != *path {
        known.path.clone_from(path);
    }
    (known.identity, known.head, known.tail, known.offset) = (*identity, *head, *tail, *offset);
}

fn loss(
    checkpoint: &Checkpoint,
    start: FileOffset,
    end: FileOffset,
    reason: SkipReason,
    at: Timestamp,
) -> Loss {
    Loss {
        source: checkpoint.source.clone(),
        path: checkpoint.path.clone(),
        identity: checkpoint.identity,
        start,
        end,
        reason,
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Before, Position, SegmentId};

    const APP: FileIdentity = FileIdentity { dev: 1, ino: 2, birth_ns: 3 };

    fn frame(identity: FileIdentity, start: u64, end: u64) -> FrameHeader {
        let mut header = FrameHeader::bare(FrameKind::Events, SegmentId(1), Position(1), b"");
        header.checkpoint.source = SourceName::from("app");
        header.checkpoint.path = PathBuf::from(format!("/var/log/{}.log", identity.ino));
        header.checkpoint.identity = identity;
        (header.start, header.checkpoint.offset) = (FileOffset(start), FileOffset(end));
        header.detected = Timestamp::from_millis(i64::try_from(end).unwrap());
        header
    }

    fn skipping(reason: SkipReason, bytes: u64, header: FrameHeader) -> FrameHeader {
        let records = Records { skips: Skips::of(reason, bytes), before: None };
        FrameHeader { records: records.boxed(), ..header }
    }

    fn applied(headers: &[FrameHeader]) -> FileState {
        let mut state = FileState::default();
        for header in headers {
            state.apply(header);
            assert!(state.files.values().all(FileRecord::is_balanced), "{header:?} gives {state:?}");
            assert!(state.bytes.values().all(SourceBytes::is_balanced), "{header:?} gives {state:?}");
        }
        state
    }

    fn only(state: &FileState) -> &FileRecord {
        assert_eq!(state.files.len(), 1);
        state.files.values().next().unwrap()
    }

    fn app(state: &FileState) -> &SourceBytes {
        &state.bytes[&SourceName::from("app")]
    }

    #[test]
    fn what_was_not_skipped_was_spooled() {
        let state = applied(&[
            skipping(SkipReason::StartAtEnd, 40, frame(APP, 0, 40)),
            frame(APP, 40, 70),
            skipping(SkipReason::Excluded, 5, frame(APP, 70, 100)),
        ]);
        let FileRecord { checkpoint, account } = only(&state);
        assert_eq!((checkpoint.offset.0, account.spooled, account.skips.bytes()), (100, 55, 45));
        assert_eq!((account.read_at.millis(), account.restarts), (100, 0));
        assert_eq!((app(&state).read, app(&state).spooled), (100, 55));
        assert_eq!(state.losses, Losses::default());
    }

    #[test]
    fn a_file_that_is_begun_anew_has_a_new_account_and_its_source_the_same() {
        let state = applied(&[
            skipping(SkipReason::Nul, 10, frame(APP, 0, 100)),
            skipping(SkipReason::Truncated, 20, frame(APP, 100, 120)),
            frame(APP, 0, 30),
        ]);
        let account = &only(&state).account;
        assert_eq!((account.spooled, account.skips.bytes(), account.restarts), (30, 0, 1));
        assert_eq!((app(&state).read, app(&state).spooled, app(&state).skips.bytes()), (150, 120, 30));
        let losses: Vec<_> = state
            .losses
            .newest
            .iter()
            .map(|loss| (loss.start.0, loss.end.0, loss.reason, loss.at.millis()))
            .collect();
        assert_eq!(losses, [(100, 120, SkipReason::Truncated, 120)]);
    }

    #[test]
    fn bytes_of_which_no_frame_speaks_are_damaged_wherever_the_frame_was() {
        let damaged = |state: &FileState| -> Vec<_> {
            state.losses.newest.iter().map(|loss| (loss.start.0, loss.end.0)).collect()
        };
        let between = applied(&[frame(APP, 0, 10), frame(APP, 30, 40)]);
        assert_eq!(damaged(&between), [(10, 30)]);
        assert_eq!((app(&between).read, app(&between).skips.bytes()), (40, 20));
        let first = applied(&[frame(APP, 30, 40)]);
        assert_eq!(damaged(&first), [(0, 30)]);
        let first_after_a_truncation = applied(&[frame(APP, 0, 100), frame(APP, 30, 40)]);
        assert_eq!(damaged(&first_after_a_truncation), [(0, 30)]);
        assert_eq!(app(&first_after_a_truncation).read, 140);
    }

    #[test]
    fn the_account_of_a_forgotten_file_is_in_its_source() {
        let forget = FrameHeader { forget: true, ..frame(APP, 90, 90) };
        let lost = FrameHeader {
            forget: true,
            ..skipping(SkipReason::Deleted, 10, frame(FileIdentity { ino: 9, ..APP }, 0, 10))
        };
        let state = applied(&[frame(APP, 0, 90), forget, lost]);
        assert!(state.files.is_empty());
        assert_eq!((app(&state).read, app(&state).spooled, app(&state).skips.bytes()), (100, 90, 10));
        assert_eq!(state.losses.total, 1);
    }

    #[test]
    fn an_event_that_begins_in_another_file_accounts_for_both() {
        let rotated = FileIdentity { ino: 9, ..APP };
        let before = Before { start: FileOffset(50), checkpoint: frame(rotated, 50, 80).checkpoint };
        let records = Records { before: Some(Box::new(before)), ..Records::default() };
        let across = FrameHeader { records: records.boxed(), ..frame(APP, 0, 20) };
        let state = applied(&[frame(rotated, 0, 50), across]);
        let offsets: Vec<_> = state.checkpoints().map(|file| (file.identity.ino, file.offset.0)).collect();
        assert_eq!(offsets, [(2, 20), (9, 80)]);
        assert_eq!((app(&state).read, app(&state).spooled), (100, 100));
    }

    #[test]
    fn a_file_keeps_its_account_under_another_identity() {
        let renumbered = [
            (APP, FileIdentity { dev: 7, ..APP }),
            (FileIdentity { birth_ns: 0, ..APP }, APP),
            (APP, FileIdentity { birth_ns: 0, ..APP }),
        ];
        for (before, after) in renumbered {
            let first = skipping(SkipReason::Older, 15, frame(before, 0, 40));
            let forget = FrameHeader { forget: true, ..frame(before, 40, 40) };
            let state = applied(&[first, frame(after, 40, 40), forget.clone(), frame(after, 40, 50)]);
            assert_eq!(state.losses.total, 0, "{before:?} to {after:?}");
            let FileRecord { checkpoint, account } = only(&state);
            assert_eq!((checkpoint.identity, account.spooled, account.skips.bytes()), (after, 35, 15));
        }
        for other in [FileIdentity { birth_ns: 4, ..APP }, FileIdentity { ino: 3, ..APP }] {
            let state = applied(&[frame(APP, 0, 40), frame(other, 40, 50)]);
            assert_eq!((state.files.len(), state.losses.total), (2, 1), "{other:?} is another file");
        }
    }

    #[test]
    fn the_newest_losses_are_kept_and_all_are_counted() {
        let mut state = FileState::default();
        let count = LOSSES_MAX as u64 + 10;
        for number in 0..count {
            let range = frame(APP, number * 10, number * 10 + 10);
            state.apply(&skipping(SkipReason::Truncated, 10, range));
        }
        assert_eq!((state.losses.total, state.losses.newest.len()), (count, LOSSES_MAX));
        let (number, oldest) = state.losses.numbered().next().unwrap();
        assert_eq!((number, oldest.start.0), (11, 100));
        assert_eq!(app(&state).skips.bytes(), count * 10);
    }

    #[test]
    fn skips_that_are_larger_than_their_range_are_found_out() {
        let mut state = FileState::default();
        state.apply(&skipping(SkipReason::Nul, 11, frame(APP, 0, 10)));
        assert!(!only(&state).is_balanced() && !app(&state).is_balanced());
    }
}

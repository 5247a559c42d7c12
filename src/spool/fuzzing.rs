//! The spool's decoders as functions of bytes.

use super::codec::Cursor;
use super::dead_letter;
use super::disk::Disk;
use super::entries;
use super::files::FileState;
use super::frame::{self, FrameHeader, FrameKind, HEADER_LEN, HEADER_MAX};
use super::ledger;
use super::missing::{self, Places};
use super::reader::{self, Found};
use super::segment::{self, SegmentHeader, Snapshot};
use super::{Spool, SpoolOptions, adopt, inspect};
use crate::config::{OnFull, SyncMode};
use crate::event::{EventIter, Position, SegmentId, Skips};

/// The segment that all frames claim to be in.
pub(super) const SEGMENT: SegmentId = SegmentId(1);

/// A frame's header with what stands behind it.
pub(crate) fn frame(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    seal_frame(&mut sealed);
    for bytes in [bytes, &sealed] {
        let Ok((header, len)) = FrameHeader::decode(bytes, SEGMENT) else { continue };
        assert!(len <= bytes.len() && len <= HEADER_MAX, "a header of {len} bytes");
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(header.encoded_len(), again.len());
        assert_eq!(FrameHeader::decode(&again, SEGMENT), Ok((header, again.len())));
    }
}

/// Gives the frame that begins `bytes` the checksums that it should have.
pub(super) fn seal_frame(bytes: &mut [u8]) {
    let number = |at: usize| {
        let low = u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
        Some(usize::from(low))
    };
    let long = |at: usize| {
        let long = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        usize::try_from(long).ok()
    };
    let Some((names, payload_len, extra)) = (|| Some((number(8)? + number(10)?, long(12)?, long(120)?)))()
    else {
        return;
    };
    let payload_at = HEADER_LEN.saturating_add(names).saturating_add(extra);
    let payload_crc = bytes.get(payload_at..payload_at.saturating_add(payload_len)).map(crc32fast::hash);
    if let (Some(crc), Some(place)) = (payload_crc, bytes.get_mut(108..112)) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    let mut crc = crc32fast::Hasher::new();
    if let (Some(fixed), Some(behind)) = (bytes.get(..HEADER_LEN - 4), bytes.get(HEADER_LEN..payload_at)) {
        crc.update(fixed);
        crc.update(behind);
        if let Some(place) = bytes.get_mut(HEADER_LEN - 4..HEADER_LEN) {
            place.copy_from_slice(&crc.finalize().to_le_bytes());
        }
    }
}

/// A segment's header.
pub(crate) fn segment_header(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    seal_segment_header(&mut sealed);
    for bytes in [bytes, &sealed] {
        let Ok(header) = SegmentHeader::decode(bytes) else { continue };
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!((SegmentHeader::decode(&again), again.len()), (Ok(header), segment::HEADER_LEN));
    }
}

fn seal_segment_header(bytes: &mut [u8]) {
    let Some(head) = bytes.get_mut(..segment::HEADER_LEN) else { return };
    let Some((covered, crc)) = head.split_last_chunk_mut::<4>() else { return };
    *crc = crc32fast::hash(covered).to_le_bytes();
}

/// A whole segment with the right checksums.
fn sealed_segment(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    seal_segment_header(&mut sealed);
    // Not those within what was sealed before: a payload may hold anything.
    let mut at = segment::HEADER_LEN;
    while let Some(rest) = sealed.get_mut(at..) {
        let Some(found) = memchr::memmem::find(rest, &frame::MAGIC) else { break };
        let Some(begun) = rest.get_mut(found..) else { break };
        seal_frame(begun);
        let len = FrameHeader::decode(begun, SEGMENT).map_or(1, |(header, len)| {
            len.saturating_add(usize::try_from(header.payload_len).unwrap_or(usize::MAX))
        });
        at = at.saturating_add(found).saturating_add(len);
    }
    sealed
}

/// A segment as recovery walks it.
pub(crate) fn segment(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), sealed_segment(bytes)] {
        let Some(file) = crate::fuzzing::file_of(&bytes) else { return };
        walk(&file, bytes.len() as u64);
    }
}

fn walk(file: &std::fs::File, len: u64) {
    let Ok(_) = reader::snapshot(file, SEGMENT, len) else { return };
    let damage = adopt::damage_in_last_group(file, SEGMENT, len, Position(1));
    assert!(damage.is_ok_and(|at| at.is_none_or(|(at, _)| at < len)));
    let mut places = Places::new(Position(1));
    let mut files = FileState::default();
    let walked = missing::walk(file, SEGMENT, len, |header, snapshot, damaged| {
        if let Some(snapshot) = snapshot {
            files = snapshot.state();
            places.begin(&snapshot);
        }
        files.apply(header);
        places.frame(header, damaged);
    });
    assert!(walked.is_ok());
    places.reach(Position(u64::MAX));
    let mut at = segment::HEADER_LEN as u64;
    while at < len {
        let Ok(found) = reader::frame_at(file, SEGMENT, at, len) else { return };
        at = match found {
            Found::Frame(_, payload, end) => {
                let events = EventIter::new(&payload).map(|event| event.line.len()).sum::<usize>();
                assert!(events <= payload.len() && end <= len && end > at);
                end
            }
            Found::BadPayload(_, end) => {
                assert!(end <= len && end > at);
                end
            }
            Found::BadHeader => match reader::find_frame(file, SEGMENT, at + 1, len) {
                Ok(Some(next)) => {
                    assert!(next > at && next < len);
                    next
                }
                _ => len,
            },
        };
    }
}

/// What a segment says of the state at its beginning.
pub(crate) fn snapshot(bytes: &[u8]) {
    if let Some(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(Snapshot::decode(&snapshot.encode()), Some(snapshot));
    }
}

/// What frames, snapshots and the ledger share. The first byte says which of them.
pub(crate) fn entries(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut cursor = Cursor::new(bytes);
    let mut again = Vec::new();
    match kind % 6 {
        0 => {
            let Some(entry) = entries::take_checkpoint(&mut cursor) else { return };
            entries::put_checkpoint(&mut again, &entry);
            assert_eq!(entries::take_checkpoint(&mut Cursor::new(&again)), Some(entry));
        }
        1 => {
            let Some(entry) = entries::take_file(&mut cursor) else { return };
            let _ = entry.is_balanced();
            entries::put_file(&mut again, &entry);
            assert_eq!(entries::take_file(&mut Cursor::new(&again)), Some(entry));
        }
        2 => {
            let Some(entry) = entries::take_bytes(&mut cursor) else { return };
            let _ = entry.is_balanced();
            entries::put_bytes(&mut again, &entry);
            assert_eq!(entries::take_bytes(&mut Cursor::new(&again)), Some(entry));
        }
        3 => {
            let Some(entry) = entries::take_loss(&mut cursor) else { return };
            entries::put_loss(&mut again, &entry);
            assert_eq!(entries::take_loss(&mut Cursor::new(&again)), Some(entry));
        }
        4 => {
            let Some(entry) = entries::take_account(&mut cursor) else { return };
            entries::put_account(&mut again, &entry);
            assert_eq!(entries::take_account(&mut Cursor::new(&again)), Some(entry));
        }
        _ => {
            let mut skips = Skips::default();
            while entries::take_skip(&mut cursor, &mut skips).is_some() {}
            let _ = skips.bytes();
        }
    }
}

/// What a ledger holds: keys and values, each behind a byte and two bytes of length.
pub(crate) fn ledger(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut entries = Vec::new();
    while let Some(len) = cursor.u8() {
        let Some(key) = cursor.bytes(usize::from(len)) else { break };
        let Some(value) = cursor.sized() else { break };
        entries.push((key, value));
    }
    if let Some(books) = ledger::books_of(&entries) {
        assert!(books.frontier() <= books.cursor);
    }
}

/// A dead letter: its frame, and what that holds.
pub(crate) fn dead_letter(bytes: &[u8]) {
    let header = FrameHeader::bare(FrameKind::DeadLetter, SEGMENT, Position(1), bytes);
    if let Some(letter) = dead_letter::decode(&header, bytes) {
        assert!(letter.line.len() <= bytes.len());
        let again = dead_letter::encode(&letter);
        let back = dead_letter::decode(&header, &again);
        assert_eq!(back.map(|back| back.line), Some(letter.line));
    }
}

/// A spool whose only segment holds the bytes behind a segment's header: opened, read, and reported.
pub(crate) fn spool(bytes: &[u8]) {
    let Ok(root) = tempfile::tempdir() else { return };
    let disk = Disk::new(root.path());
    let mut segment = Vec::new();
    let id = super::SpoolId([7; 16]);
    SegmentHeader {
        segment: SEGMENT,
        first_position: Position(1),
        lineage: id,
        spool_id: id,
        created: crate::event::Timestamp::default(),
        unsynced: false,
    }
    .encode(&mut segment);
    segment.extend_from_slice(bytes);
    let written =
        disk.create_dirs().and_then(|()| std::fs::write(disk.segment(SEGMENT), sealed_segment(&segment)));
    if written.is_err() {
        return;
    }
    let options = SpoolOptions {
        dir: root.path().to_owned(),
        profile: Some(crate::payload::Profile::json("fuzzed")),
        segment_bytes: 64 << 10,
        sync: SyncMode::Os,
        max_spool_bytes: u64::MAX,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        channel_bound: 1,
    };
    let spool = Spool::open(&options);
    assert!(spool.is_ok(), "{spool:?}");
    if let Ok(spool) = spool {
        let mut cutter = spool.cutter();
        let mut next = cutter.reader.next_position();
        while let Ok(super::Step::Frame(_) | super::Step::Missing(_)) = cutter.reader.step() {
            assert!(cutter.reader.next_position() > next, "no step forward at {next}");
            next = cutter.reader.next_position();
        }
        spool.close();
    }
    let report = inspect::report(root.path());
    assert!(report.is_ok(), "{report:?}");
}

//! The worked example of `spool-format.md` against the code.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::frame::{FrameHeader, FrameKind};
use super::segment::{Account, SegmentHeader, Snapshot, SpoolId};
use crate::event::{
    Checkpoint, EventBlock, FileIdentity, FileOffset, FrameDraft, Position, SegmentId, Seq, SourceName,
    Timestamp, Witness,
};

const DOCUMENT: &str = include_str!("../../spool-format.md");

fn checkpoint(offset: u64, tail: &[u8]) -> Checkpoint {
    Checkpoint {
        source: SourceName::from("app"),
        path: PathBuf::from("/var/log/app.log"),
        identity: FileIdentity { dev: 0x801, ino: 131_072, birth_ns: 1_700_000_000_000_000_000 },
        head: Witness::of(b"started\n"),
        tail: Witness::of(tail),
        offset: FileOffset(offset),
    }
}

/// The segment of the example: a header, a snapshot, and a frame of two events.
fn example() -> Vec<u8> {
    let (lineage, spool_id) = (SpoolId([0x11; 16]), SpoolId([0x22; 16]));
    let (segment, position) = (SegmentId(3), Position(1001));
    let mut bytes = Vec::new();
    SegmentHeader {
        segment,
        first_position: position,
        lineage,
        spool_id,
        created: Timestamp::from_millis(1_705_314_600_123),
        unsynced: false,
    }
    .encode(&mut bytes);
    let account = Account { acknowledged: 900, dead: 2, ..Account::default() };
    let snapshot = Snapshot {
        lineage,
        spool_id,
        position,
        unsynced: false,
        frontier: Position(903),
        sources: [(SourceName::from("app"), (Seq(1001), account))].into(),
        checkpoints: [checkpoint(8, b"started\n")].map(|checkpoint| (checkpoint.key(), checkpoint)).into(),
    }
    .encode();
    FrameHeader::bare(FrameKind::Snapshot, segment, position, &snapshot).encode(&mut bytes);
    bytes.extend(snapshot);
    let mut events = EventBlock::default();
    events.push(b"ready", false);
    events.push(b"GET /", true);
    let draft = FrameDraft {
        checkpoint: checkpoint(19, b"ready\nGET /"),
        start: FileOffset(8),
        detected: Timestamp::from_millis(1_705_314_601_000),
        events,
        skipped: None,
        forget: false,
    };
    let crc = crc32fast::hash(draft.events.bytes());
    FrameHeader::of_draft(&draft, segment, position, Seq(1001), crc).encode(&mut bytes);
    bytes.extend(draft.events.bytes());
    bytes
}

/// As `hexdump -C` shows it, without folding.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        write!(text, "{:08x} ", row * 16).unwrap();
        for column in 0..16 {
            let gap = if column == 8 { "  " } else { " " };
            match bytes.get(column) {
                Some(byte) => write!(text, "{gap}{byte:02x}").unwrap(),
                None => write!(text, "{gap}  ").unwrap(),
            }
        }
        let shown: String = bytes
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        writeln!(text, "  |{shown}|").unwrap();
    }
    text
}

#[test]
fn the_example_of_the_document_is_what_the_code_writes() {
    let dump = dump(&example());
    assert!(DOCUMENT.contains(&dump), "spool-format.md does not show this example:\n{dump}");
}

#[test]
fn the_document_names_every_number_of_the_code() {
    for number in [
        format!("`{}`", super::segment::VERSION),
        format!("{} bytes", super::segment::HEADER_LEN),
        format!("{} bytes", super::frame::HEADER_LEN),
        format!("{}", super::frame::PAYLOAD_MAX),
        format!("{}", super::ledger::GROUP_MAX),
    ] {
        assert!(DOCUMENT.contains(&number), "spool-format.md does not name {number}");
    }
}

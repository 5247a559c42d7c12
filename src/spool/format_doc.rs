//! `spool-format.md` against the encoders, so that the document says what is written.
//!
//! Every layout table is read out of the document: its fields, one after the other, have to make up the bytes that the
//! encoder writes, at the offsets and with the sizes that the table gives. The hex dump of the worked example has to be
//! what the encoders write for the same values.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::dead_letter::{DeadLetter, DeadLetters};
use super::disk::{self, Disk};
use super::entries::{put_bytes, put_checkpoint, put_file, put_loss};
use super::files::{FileAccount, FileRecord, FileState, LOSSES_MAX, Loss, Losses, SourceBytes};
use super::frame::{self, FrameHeader, FrameKind, Records};
use super::ledger::{BatchRecord, Books, Group, Ledger, Location, Mark, Meta, SourceRecord};
use super::reader::{self, Found};
use super::segment::{self, Account, SegmentHeader, Snapshot, SourceEntry, SpoolId};
use crate::batch::{BatchId, Part};
use crate::config::SyncMode;
use crate::event::{
    Before, Checkpoint, EventBlock, FileIdentity, FileOffset, FrameDraft, LogEvent, Position, SegmentId, Seq,
    SkipReason, Skips, SourceName, Timestamp, Witness,
};

const DOCUMENT: &str = include_str!("../../spool-format.md");

/// A row of a layout table; no offset behind a field of variable size, no size for such a field.
#[derive(Debug)]
struct Row {
    offset: Option<usize>,
    size: Option<usize>,
    field: String,
}

/// The cells of the first table under a heading, without its head.
fn cells(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "the document has no {heading:?}");
    lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn layout(title: &str) -> Vec<Row> {
    let number = |cell: &str, variable: &str| (cell != variable).then(|| cell.parse().unwrap());
    let rows: Vec<_> = cells(&format!("### {title}"))
        .iter()
        .map(|row| Row {
            offset: number(&row[0], "–"),
            size: number(&row[1], "n"),
            field: row[2].trim_matches('`').to_owned(),
        })
        .collect();
    assert!(!rows.is_empty(), "{title} has no rows");
    rows
}

/// Checks that the table describes `encoded`, in which each field has the given bytes.
fn assert_layout(title: &str, fields: &[(&str, Vec<u8>)], encoded: &[u8]) {
    let mut values: BTreeMap<_, _> = fields.iter().cloned().collect();
    assert_eq!(values.len(), fields.len(), "{title}: a field is named twice");
    let (mut at, mut fixed) = (0, true);
    for Row { offset, size, field } in layout(title) {
        let value = values.remove(field.as_str());
        let value = value.unwrap_or_else(|| panic!("{title}: there is no {field}, or it is there twice"));
        assert_eq!(offset, fixed.then_some(at), "{title}: offset of {field}");
        if let Some(size) = size {
            assert_eq!(size, value.len(), "{title}: size of {field}");
        }
        fixed &= size.is_some();
        assert_eq!(encoded.get(at..at + value.len()), Some(&value[..]), "{title}: {field} at {at}");
        at += value.len();
    }
    assert_eq!(values.into_keys().collect::<Vec<_>>(), Vec::<&str>::new(), "{title}: fields without a row");
    assert_eq!(at, encoded.len(), "{title}: the sizes do not add up");
}

/// The bytes of a hex dump whose lines are an offset, bytes and an annotation behind `;`.
fn dumped(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in dump.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (data, _annotation) = line.split_once(';').unwrap_or((line, ""));
        let (offset, data) = data.split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(offset, 16).unwrap(), bytes.len(), "offset of {line:?}");
        bytes.extend(data.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

fn le<const N: usize>(bytes: [u8; N]) -> Vec<u8> {
    bytes.to_vec()
}

fn u16(value: u16) -> Vec<u8> {
    le(value.to_le_bytes())
}

fn u32(value: u32) -> Vec<u8> {
    le(value.to_le_bytes())
}

fn u64(value: u64) -> Vec<u8> {
    le(value.to_le_bytes())
}

fn counted(from: u8) -> SpoolId {
    SpoolId(std::array::from_fn(|at| from + u8::try_from(at).unwrap()))
}

/// A checkpoint whose fields all differ.
fn checkpoint() -> Checkpoint {
    Checkpoint {
        source: SourceName::from("web"),
        path: PathBuf::from("/var/log/web"),
        identity: FileIdentity { dev: 11, ino: 12, birth_ns: 13 },
        head: Witness { len: 14, hash: 15 },
        tail: Witness { len: 16, hash: 17 },
        offset: FileOffset(18),
    }
}

fn account() -> Account {
    Account { acknowledged: 31, dead: 32, dropped: 33, damaged: 34, earlier: 35 }
}

fn account_fields() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("acknowledged", u64(31)),
        ("dead", u64(32)),
        ("dropped", u64(33)),
        ("damaged", u64(34)),
        ("earlier", u64(35)),
    ]
}

fn skips() -> Skips {
    let mut skips = Skips::default();
    skips.add(SkipReason::Nul, 41, 42);
    skips.add(SkipReason::Truncated, 43, 44);
    skips
}

/// Both entries of [`skips`].
fn skip_entries() -> Vec<u8> {
    [vec![6], u64(41), u64(42), vec![64], u64(43), u64(44)].concat()
}

fn bytes() -> SourceBytes {
    SourceBytes { read: 45, spooled: 46, skips: skips() }
}

fn bytes_entry() -> Vec<u8> {
    let mut entry = Vec::new();
    put_bytes(&mut entry, &bytes());
    entry
}

fn file() -> FileRecord {
    let read_at = Timestamp::from_millis(-48);
    let account = FileAccount { spooled: 47, skips: skips(), read_at, restarts: 49 };
    FileRecord { checkpoint: checkpoint(), account }
}

fn file_entry() -> Vec<u8> {
    let mut entry = Vec::new();
    put_file(&mut entry, &file());
    entry
}

fn losses() -> Losses {
    let loss = Loss {
        source: SourceName::from("web"),
        path: PathBuf::from("/var/log/web"),
        identity: checkpoint().identity,
        start: FileOffset(61),
        end: FileOffset(62),
        reason: SkipReason::Deleted,
        at: Timestamp::from_millis(-63),
    };
    Losses { total: 64, newest: VecDeque::from([loss]) }
}

fn loss_entry() -> Vec<u8> {
    let mut entry = Vec::new();
    put_loss(&mut entry, &losses().newest[0]);
    entry
}

fn snapshot() -> Snapshot {
    Snapshot {
        lineage: counted(0x40),
        spool_id: counted(0x60),
        position: Position(51),
        unsynced: true,
        frontier: Position(52),
        sources: BTreeMap::from([(
            SourceName::from("web"),
            SourceEntry { next_seq: Seq(53), account: account(), bytes: bytes() },
        )]),
        files: BTreeMap::from([(checkpoint().key(), file())]),
        losses: losses(),
    }
}

fn checkpoint_entry() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_checkpoint(&mut bytes, &checkpoint());
    bytes
}

#[test]
fn the_segment_header_is_as_documented() {
    let header = SegmentHeader {
        segment: SegmentId(1),
        first_position: Position(2),
        lineage: counted(0x40),
        spool_id: counted(0x60),
        created: Timestamp::from_millis(-3),
        unsynced: true,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let crc = crc32fast::hash(&bytes[..76]);
    let fields = [
        ("magic", b"LAGSPOOL".to_vec()),
        ("version", u32(1)),
        ("header_len", u32(80)),
        ("segment", u64(1)),
        ("first_position", u64(2)),
        ("lineage", counted(0x40).0.to_vec()),
        ("spool_id", counted(0x60).0.to_vec()),
        ("created", le((-3_i64).to_le_bytes())),
        ("flags", u32(1)),
        ("crc", u32(crc)),
    ];
    assert_layout("Segment header", &fields, &bytes);
    let sizes = layout("Segment header").iter().map(|row| row.size.unwrap()).sum::<usize>();
    assert_eq!(sizes, segment::HEADER_LEN);
}

#[test]
fn the_frame_header_is_as_documented() {
    let header = FrameHeader {
        kind: FrameKind::Events,
        forget: true,
        records: Records {
            skips: skips(),
            before: Some(Box::new(Before { start: FileOffset(22), checkpoint: checkpoint() })),
        }
        .boxed(),
        segment: SegmentId(0x1_0000_0005),
        group_at: 6,
        first_position: Position(7),
        first_seq: Seq(8),
        events: 9,
        detected: Timestamp::from_millis(-10),
        start: FileOffset(19),
        checkpoint: checkpoint(),
        payload_len: 20,
        payload_crc: 21,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let (fixed, behind) = bytes.split_at(frame::HEADER_LEN);
    let (names, records) = behind.split_at("web/var/log/web".len());
    assert_eq!(names, b"web/var/log/web");
    let (skipped, before) = records.split_at(2 * 18);
    assert_eq!(skipped, [&[1], &skip_entries()[..17], &[1], &skip_entries()[17..]].concat());
    let (tag, before) = before.split_at(1);
    assert_eq!(tag, [2]);
    assert_layout("Before record", &[("start", u64(22)), ("checkpoint", checkpoint_entry())], before);
    let fields = [("reason", vec![6]), ("bytes", u64(41)), ("lines", u64(42))];
    assert_layout("Skip entry", &fields, &skip_entries()[..17]);
    let crc = crc32fast::hash(&[&fixed[..124], behind].concat());
    let fields = [
        ("magic", b"LAFR".to_vec()),
        ("kind", vec![1]),
        ("flags", vec![1 << 2]),
        ("reserved", u16(0)),
        ("source_len", u16(3)),
        ("path_len", u16(12)),
        ("payload_len", u32(20)),
        ("events", u32(9)),
        ("segment_tag", u32(5)),
        ("first_position", u64(7)),
        ("first_seq", u64(8)),
        ("detected", le((-10_i64).to_le_bytes())),
        ("dev", u64(11)),
        ("ino", u64(12)),
        ("birth_ns", u64(13)),
        ("start", u64(19)),
        ("end", u64(18)),
        ("head_hash", u64(15)),
        ("tail_hash", u64(17)),
        ("head_len", u16(14)),
        ("tail_len", u16(16)),
        ("payload_crc", u32(21)),
        ("group_at", u64(6)),
        ("extra_len", u32(u32::try_from(records.len()).unwrap())),
        ("crc", u32(crc)),
    ];
    assert_layout("Frame header", &fields, fixed);
    let sizes = layout("Frame header").iter().map(|row| row.size.unwrap()).sum::<usize>();
    assert_eq!(sizes, frame::HEADER_LEN);
}

#[test]
fn the_kinds_and_limits_are_as_documented() {
    let kinds: Vec<_> = cells("## 5. Frame").iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let coded = [
        (FrameKind::Events, "events"),
        (FrameKind::Snapshot, "snapshot"),
        (FrameKind::DeadLetter, "dead letter"),
    ];
    assert_eq!(kinds, coded.map(|(kind, name)| ((kind as u8).to_string(), name.to_owned())));
    let tags: Vec<_> = cells("### Records").iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(
        tags,
        [("1", "skipped"), ("2", "before")].map(|(tag, name)| (tag.to_owned(), name.to_owned()))
    );
    let reasons: Vec<_> = cells("### Reasons").iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let coded = SkipReason::ALL.map(|reason| ((reason as u8).to_string(), format!("`{reason}`")));
    assert_eq!(reasons, coded);
    assert!(SkipReason::ALL.into_iter().all(|reason| reason.is_loss() == (reason as u8 >= 64)));
    assert!(DOCUMENT.contains(&format!("number of loss entries, at most {LOSSES_MAX}")));
    for limit in [frame::PAYLOAD_MAX as usize, frame::EXTRA_MAX, frame::HEADER_MAX] {
        let digits = limit.to_string().into_bytes();
        let grouped: Vec<_> = digits.rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
        assert!(DOCUMENT.contains(&grouped.join(",")), "{limit} is not in the document");
    }
}

#[test]
fn an_event_is_as_documented() {
    let mut events = EventBlock::default();
    events.push_timed(b"a line", true, Some(Timestamp::from_millis(-5)));
    let fields = [
        ("length_word", u32(14 | 1 << 28 | 1 << 29)),
        ("time", le((-5_i64).to_le_bytes())),
        ("line", b"a line".to_vec()),
    ];
    assert_layout("Event", &fields, events.bytes());
}

#[test]
fn the_snapshot_is_as_documented() {
    let mut source = [u16(3), b"web".to_vec(), u64(53)].concat();
    source.extend(account_fields().into_iter().flat_map(|(_, value)| value));
    source.extend(bytes_entry());
    let mut fields = vec![("name_len", u16(3)), ("name", b"web".to_vec()), ("next_seq", u64(53))];
    fields.extend(account_fields());
    fields.push(("bytes", bytes_entry()));
    assert_layout("Source entry", &fields, &source);
    let fields = [
        ("lineage", counted(0x40).0.to_vec()),
        ("spool_id", counted(0x60).0.to_vec()),
        ("position", u64(51)),
        ("flags", u32(1)),
        ("frontier", u64(52)),
        ("source_count", u32(1)),
        ("sources", source),
        ("file_count", u32(1)),
        ("files", file_entry()),
        ("loss_total", u64(64)),
        ("loss_count", u32(1)),
        ("losses", loss_entry()),
    ];
    assert_layout("Snapshot payload", &fields, &snapshot().encode());
}

#[test]
fn the_accounts_of_bytes_are_as_documented() {
    let fields =
        [("read", u64(45)), ("spooled", u64(46)), ("skip_count", vec![2]), ("skips", skip_entries())];
    assert_layout("Bytes entry", &fields, &bytes_entry());
    let fields = [
        ("checkpoint", checkpoint_entry()),
        ("spooled", u64(47)),
        ("read_at", le((-48_i64).to_le_bytes())),
        ("restarts", u64(49)),
        ("skip_count", vec![2]),
        ("skips", skip_entries()),
    ];
    assert_layout("File entry", &fields, &file_entry());
    let fields = [
        ("source_len", u16(3)),
        ("source", b"web".to_vec()),
        ("path_len", u16(12)),
        ("path", b"/var/log/web".to_vec()),
        ("dev", u64(11)),
        ("ino", u64(12)),
        ("birth_ns", u64(13)),
        ("start", u64(61)),
        ("end", u64(62)),
        ("reason", vec![65]),
        ("at", le((-63_i64).to_le_bytes())),
    ];
    assert_layout("Loss entry", &fields, &loss_entry());
}

#[test]
fn a_checkpoint_is_as_documented() {
    let fields = [
        ("source_len", u16(3)),
        ("source", b"web".to_vec()),
        ("path_len", u16(12)),
        ("path", b"/var/log/web".to_vec()),
        ("dev", u64(11)),
        ("ino", u64(12)),
        ("birth_ns", u64(13)),
        ("head_len", u16(14)),
        ("head_hash", u64(15)),
        ("tail_len", u16(16)),
        ("tail_hash", u64(17)),
        ("offset", u64(18)),
    ];
    assert_layout("Checkpoint entry", &fields, &checkpoint_entry());
}

#[test]
fn a_dead_letter_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    disk.create_dirs().unwrap();
    let letter = DeadLetter {
        position: Position(1),
        source: SourceName::from("web"),
        seq: Seq(2),
        detected: Timestamp::from_millis(3),
        status: 422,
        response: "no".into(),
        line: b"a line".to_vec(),
    };
    DeadLetters::open(disk.clone()).unwrap().append(&letter).unwrap();
    let file = dir.path().join("dead-letters/00000000000000000001.seg");
    let bytes = std::fs::read(file).unwrap();
    let payload_at = frame::HEADER_LEN + "web".len();
    let mut header =
        FrameHeader::bare(FrameKind::DeadLetter, SegmentId(1), Position(1), &bytes[payload_at..]);
    (header.first_seq, header.events, header.detected) = (Seq(2), 1, Timestamp::from_millis(3));
    header.checkpoint.source = SourceName::from("web");
    assert_eq!(FrameHeader::decode(&bytes, SegmentId(1)), Ok((header, payload_at)));
    let fields = [
        ("status", u16(422)),
        ("response_len", u16(2)),
        ("response", b"no".to_vec()),
        ("line", b"a line".to_vec()),
    ];
    assert_layout("Dead-letter payload", &fields, &bytes[payload_at..]);
}

/// Every entry of a ledger that holds `books`, read by the database alone as another program would.
fn ledger_entries(books: &Books) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("ledger"), dir.path().join("copy"));
    let ledger = Ledger::create(&Disk::new(dir.path()), &path, SyncMode::Group, books).unwrap();
    disk::copy_dir(&path, &copy).unwrap();
    drop(ledger);
    let db = sled::Config::new().path(copy).use_compression(false).open().unwrap();
    db.iter()
        .map(|entry| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        })
        .collect()
}

fn books() -> Books {
    let meta = Meta { lineage: counted(0x40), spool_id: counted(0x60), unsynced_boot: counted(0x80).0 };
    let mut books = Books::new(meta, Position(71));
    let id = BatchId { first: Position(72), last: Position(73), part: Some(Part { from: 74, to: 75 }) };
    let at = Location { segment: SegmentId(76), offset: 77 };
    books.groups.insert(78, Group { profile: 79, batches: vec![BatchRecord { id, at }] });
    books.sources.insert(SourceName::from("web"), SourceRecord { cut: 80, account: account() });
    let labels = crate::config::Labels::from([("team".into(), "x".into())]);
    let profile = crate::payload::Profile {
        format: crate::config::Format::Loki,
        rekeyed: true,
        source_labels: [(SourceName::from("web"), labels)].into(),
        ..crate::payload::Profile::json("agent")
    };
    books.profiles.insert(79, profile);
    books.profiles.insert(80, crate::payload::Profile::json("agent"));
    books.mark = Mark {
        segment: SegmentId(81),
        position: Position(82),
        spool_id: counted(0xa0),
        state: FileState {
            next_seqs: BTreeMap::from([(SourceName::from("web"), Seq(83))]),
            files: BTreeMap::from([(checkpoint().key(), file())]),
            bytes: BTreeMap::from([(SourceName::from("web"), bytes())]),
            losses: losses(),
        },
    };
    books
}

#[test]
fn the_ledger_is_as_documented() {
    let entries = ledger_entries(&books());
    let documented: BTreeSet<_> = cells("## 8. Ledger")
        .iter()
        .map(|row| u8::from_str_radix(row[0].split('`').nth(1).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(entries.keys().map(|key| key[0]).collect::<BTreeSet<_>>(), documented);
    let value = |kind: u8, rest: &[u8]| &entries[&[&[kind][..], rest].concat()][..];

    let checkpoint_key: Vec<u8> = [11_u64, 12, 13].iter().flat_map(|part| part.to_be_bytes()).collect();
    let checkpoint_key = [&[0, 0], &checkpoint_key[..], b"web"].concat();
    assert_eq!(value(b'c', &checkpoint_key), file_entry());
    assert_eq!(value(b'b', b"\0\0web"), bytes_entry());
    assert_eq!(value(b'l', &[0, 0, 0, 0, 0, 0, 0, 0, 0, 64]), loss_entry());
    let profile = b"agent\0{\"format\":\"loki\",\"rekeyed\":true}";
    assert_eq!(value(b'p', &[0, 0, 0, 0, 0, 79]), profile);
    assert_eq!(value(b'p', b"\0\0\0\0\0\x4fweb"), b"{\"team\":\"x\"}");
    assert_eq!(value(b'p', &[0, 0, 0, 0, 0, 80]), b"agent");
    assert_eq!(value(b'q', b"\0\0web"), u64(83));
    let fields = [
        ("version", u32(1)),
        ("lineage", counted(0x40).0.to_vec()),
        ("spool_id", counted(0x60).0.to_vec()),
        ("unsynced_boot", counted(0x80).0.to_vec()),
    ];
    assert_layout("Meta", &fields, value(b'f', &[]));
    assert_eq!(value(b'n', &[]), u64(1));
    let fields = [("count", u64(7)), ("crc", u32(crc32fast::hash(&u64(7))))];
    assert_layout("Commits", &fields, &super::commits::encode(7));
    let fields = [("cursor", u64(71))];
    assert_layout("Cursor", &fields, value(b'r', &[0, 0]));
    let fields = [
        ("first", u64(72)),
        ("last", u64(73)),
        ("part_from", u32(74)),
        ("part_to", u32(75)),
        ("segment", u64(76)),
        ("offset", u64(77)),
    ];
    let group = value(b'g', &[0, 0, 0, 0, 0, 0, 0, 0, 0, 78]);
    assert_layout("Batch entry", &fields, &group[4..]);
    assert_layout("Group", &[("profile", u32(79)), ("batches", group[4..].to_vec())], group);
    let mut fields = vec![("cut", u64(80))];
    fields.extend(account_fields());
    assert_layout("Source record", &fields, value(b's', b"\0\0web"));
    let fields = [("segment", u64(81)), ("position", u64(82)), ("spool_id", counted(0xa0).0.to_vec())];
    assert_layout("Mark", &fields, value(b'm', &[]));
}

/// The state of the example's file when `offset` bytes of it were read.
fn example_checkpoint(offset: usize) -> Checkpoint {
    let file = b"started\n# mark\nconnection reset by peer\n";
    Checkpoint {
        source: SourceName::from("app"),
        path: PathBuf::from("/var/log/app.log"),
        identity: FileIdentity { dev: 2049, ino: 131_075, birth_ns: 1_705_310_000_123_456_789 },
        head: Witness::of(&file[..offset]),
        tail: Witness::of(&file[..offset]),
        offset: FileOffset(offset as u64),
    }
}

/// What is known of the file when the example's segment begins.
fn example_file() -> FileRecord {
    let read_at = Timestamp::from_millis(1_705_314_590_000);
    let account = FileAccount { spooled: 8, read_at, ..FileAccount::default() };
    FileRecord { checkpoint: example_checkpoint(8), account }
}

/// The segment of the worked example.
fn example() -> Vec<u8> {
    let (segment, position) = (SegmentId(2), Position(2));
    let (lineage, spool_id) = (counted(0x10), counted(0x20));
    let created = Timestamp::from_millis(1_705_314_600_123);
    let mut bytes = Vec::new();
    SegmentHeader { segment, first_position: position, lineage, spool_id, created, unsynced: false }
        .encode(&mut bytes);
    let entry = SourceEntry {
        next_seq: Seq(2),
        account: Account { acknowledged: 1, ..Account::default() },
        bytes: SourceBytes { read: 8, spooled: 8, skips: Skips::default() },
    };
    let before = example_file();
    let snapshot = Snapshot {
        lineage,
        spool_id,
        position,
        unsynced: false,
        frontier: position,
        sources: BTreeMap::from([(SourceName::from("app"), entry)]),
        files: BTreeMap::from([(before.checkpoint.key(), before)]),
        losses: Losses::default(),
    }
    .encode();
    FrameHeader::bare(FrameKind::Snapshot, segment, position, &snapshot).encode(&mut bytes);
    bytes.extend(snapshot);
    let mut events = EventBlock::default();
    events.push(b"connection reset", true);
    events.push(b" by peer", false);
    let mut skips = Skips::default();
    skips.add(SkipReason::Excluded, 7, 1);
    let draft = FrameDraft {
        checkpoint: example_checkpoint(40),
        start: FileOffset(8),
        detected: Timestamp::from_millis(1_705_314_600_125),
        events,
        skips,
        before: None,
        forget: false,
    };
    let payload_crc = crc32fast::hash(draft.events.bytes());
    FrameHeader::of_draft(&draft, segment, position, Seq(2), payload_crc).encode(&mut bytes);
    bytes.extend_from_slice(draft.events.bytes());
    bytes
}

fn documented_example() -> Vec<u8> {
    let (_, example) = DOCUMENT.split_once("```text\n").unwrap();
    let (dump, after) = example.split_once("```").unwrap();
    assert!(!after.contains("```"), "the example is the only block in the document");
    dumped(dump)
}

#[test]
fn the_worked_example_is_what_the_encoders_write() {
    let (documented, written) = (documented_example(), example());
    let differs = documented.iter().zip(&written).position(|(documented, written)| documented != written);
    if let Some(at) = differs {
        panic!("at {at:#06x} the document has {:02x?}, written is {:02x?}", documented[at], written[at]);
    }
    assert_eq!(documented.len(), written.len());
    assert!(DOCUMENT.contains(&format!("The file has {} bytes.", written.len())));
}

#[test]
fn the_worked_example_reads_as_the_document_says() {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("00000000000000000002.seg");
    let bytes = documented_example();
    std::fs::write(path, &bytes).unwrap();
    let (file, len) = (Disk::open(path).unwrap(), bytes.len() as u64);
    assert_eq!(SegmentHeader::decode(&bytes).unwrap().segment, SegmentId(2));
    let Found::Frame(header, _, events_at) = reader::frame_at(&file, SegmentId(2), 80, len).unwrap() else {
        panic!("no snapshot at offset 80");
    };
    assert_eq!(header.kind, FrameKind::Snapshot);
    let snapshot = reader::snapshot(&file, SegmentId(2), len).unwrap().unwrap();
    let mut state = snapshot.state();
    assert_eq!(state.files.values().collect::<Vec<_>>(), [&example_file()]);
    let Found::Frame(header, payload, end) = reader::frame_at(&file, SegmentId(2), events_at, len).unwrap()
    else {
        panic!("no frame behind the snapshot");
    };
    state.apply(&header);
    let file = &state.files[&example_checkpoint(40).key()];
    assert!(file.is_balanced() && state.bytes[&SourceName::from("app")].is_balanced());
    assert_eq!((file.account.spooled, file.account.skips.bytes()), (33, 7));
    assert_eq!((header.checkpoint, header.events, end), (example_checkpoint(40), 2, len));
    let events: Vec<_> = crate::event::EventIter::new(&payload).collect();
    let expected = [
        LogEvent { line: b"connection reset", continues: true, time: None },
        LogEvent { line: b" by peer", continues: false, time: None },
    ];
    assert_eq!(events, expected);
}

/// What the encoders write for the values of the document, by the fuzzing target that decodes it.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let example = example();
    let header = |at: usize| example[at..].to_vec();
    let mut checkpoint_entry = vec![0];
    put_checkpoint(&mut checkpoint_entry, &checkpoint());
    let ledger = ledger_entries(&books()).into_iter().flat_map(|(key, value)| {
        let mut entry = vec![u8::try_from(key.len()).unwrap()];
        entry.extend(key);
        entry.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        entry.extend(value);
        entry
    });
    let letter = DeadLetter {
        position: Position(1),
        source: SourceName::from("web"),
        seq: Seq(1),
        detected: Timestamp::from_millis(0),
        status: 422,
        response: "no".into(),
        line: b"a line".to_vec(),
    };
    vec![
        ("frame", header(0x50)),
        ("frame", header(0x1c2)),
        ("segment_header", example[..segment::HEADER_LEN].to_vec()),
        ("segment", example.clone()),
        ("spool", header(segment::HEADER_LEN)),
        ("snapshot", snapshot().encode()),
        ("entries", checkpoint_entry),
        ("entries", [vec![1], file_entry()].concat()),
        ("entries", [vec![2], bytes_entry()].concat()),
        ("entries", [vec![3], loss_entry()].concat()),
        ("ledger", ledger.collect()),
        ("dead_letter", super::dead_letter::encode(&letter)),
        ("payload", header(0x267)),
    ]
}

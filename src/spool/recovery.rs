//! Recovery: from whatever is on the disk to a spool that can go on.
//!
//! Invariants:
//! - The segments are the truth, the ledger is the index. A ledger that cannot be used is set aside and rebuilt; that
//!   costs resends and never an event.
//! - Nothing is deleted that was not understood: it goes to `quarantine/`.
//! - A torn tail, what a crash left of a commit that nobody saw, is cut; damage before intact frames is stepped over.
//! - Positions that may have been sent are never given again.
//! - The cost is that of the last segment, not of the backlog: of the others only the headers are read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Disk};
use super::frame::FrameKind;
use super::ledger::{Books, Ledger, LedgerError, Meta, SourceRecord};
use super::log::Extent;
use super::reader::{self, Found};
use super::segment::{self, SegmentError, SegmentHeader, Snapshot, SpoolId};
use super::writer::FileState;
use super::{SpoolError, SpoolOptions};
use crate::config::SyncMode;
use crate::event::{Position, SegmentId, Seq};

/// What recovery found.
pub(super) struct Recovered {
    pub ledger: Ledger,
    pub books: Books,
    pub segments: BTreeMap<SegmentId, Extent>,
    pub state: FileState,
    pub end: Position,
    pub next_segment: SegmentId,
}

/// A segment whose header was read.
struct Known {
    header: SegmentHeader,
    len: u64,
}

/// Recovers the spool on `disk`.
pub(super) fn recover(disk: &Disk, options: &SpoolOptions) -> Result<Recovered, SpoolError> {
    let (mut known, mut next_segment) = survey(disk)?;
    let opened = open_ledger(disk, options.sync, !known.is_empty())?;
    let lineage = match &opened {
        Some((_, books)) => Some(books.meta.lineage),
        None => known.values().next_back().map(|last| last.header.lineage),
    };
    if let Some(lineage) = lineage {
        set_foreign_aside(disk, &mut known, lineage)?;
    }
    let cursor = opened.as_ref().map(|(_, books)| books.cursor);
    let tail = read_tail(disk, &mut known, cursor)?;
    let (ledger, mut books) = match opened {
        Some(opened) => opened,
        None => rebuild(disk, options, &tail, &known)?,
    };
    let before = books.clone();
    let mut state = tail.state;
    adopt_mark(&mut state, &books, tail.snapshot.is_some());
    let mut segments = extents(&known, tail.end);
    let mut end = tail.end;
    forget_acknowledged(&mut books, tail.snapshot.as_ref(), &segments);
    let lost = books.cursor > end;
    if lost {
        tracing::error!(
            position = end.0,
            cursor = books.cursor.0,
            "the spool ends before what was already cut: events are missing"
        );
        end = books.cursor;
    }
    if lost || unsynced_crash(&books.meta) {
        books.meta.spool_id = random_id();
        for (name, next) in std::mem::take(&mut state.next_seqs) {
            let record = books.sources.entry(name).or_default();
            record.account.earlier += next.0.saturating_sub(1);
            record.cut = Seq(0);
        }
        tracing::warn!(spool = %books.meta.spool_id, "the spool takes a new id");
    }
    books.meta.unsynced_boot = match options.sync {
        SyncMode::Group => [0; 16],
        SyncMode::Os => boot_id(),
    };
    if let Some(last) = known.keys().next_back() {
        next_segment = next_segment.max(last.plus(1));
    }
    segments.retain(|id, extent| keep_or_unlink(disk, *id, extent, &books, *id == last_of(&known)));
    let ledger = if books == before && !ledger.has_outgrown() {
        ledger
    } else {
        // The books are small: what changed is written by writing all of it.
        ledger.replace(disk, &books)?
    };
    Ok(Recovered { ledger, books, segments, state, end, next_segment })
}

fn last_of(known: &BTreeMap<SegmentId, Known>) -> SegmentId {
    known.keys().next_back().copied().unwrap_or_default()
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    move |source| SpoolError::Io { path, source }
}

/// Reads the header of every segment. What is no segment of ours is set aside; a newer version stops everything.
fn survey(disk: &Disk) -> Result<(BTreeMap<SegmentId, Known>, SegmentId), SpoolError> {
    let dir = disk.segments();
    let mut known = BTreeMap::new();
    let mut next = SegmentId(1);
    for name in Disk::list(&dir).map_err(io_error(&dir))? {
        let path = dir.join(&name);
        let Some(id) = segment::parse_file_name(&name) else {
            tracing::warn!(path = %path.display(), "not a segment; ignored");
            continue;
        };
        next = next.max(id.plus(1));
        if path.metadata().is_ok_and(|meta| meta.len() == 0) {
            // Created and nothing more, when the agent or the machine went down.
            Disk::unlink(&path).map_err(io_error(&path))?;
            continue;
        }
        match read_header(&path, id).map_err(io_error(&path))? {
            Ok(segment) => {
                known.insert(id, segment);
            }
            Err(SegmentError::Newer(version)) => return Err(SpoolError::Newer { path, version }),
            Err(error) => {
                let to = disk.quarantine_path(&path).map_err(io_error(&path))?;
                tracing::error!(path = %path.display(), %error, to = %to.display(), "segment set aside");
            }
        }
    }
    Ok((known, next))
}

/// Reads a segment's header, or where that is damaged what the snapshot behind it says of it.
fn read_header(path: &Path, id: SegmentId) -> io::Result<Result<Known, SegmentError>> {
    let file = Disk::open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = [0; segment::HEADER_LEN];
    let read = disk::read_at(&file, &mut bytes, 0)?;
    let decoded = SegmentHeader::decode(bytes.get(..read).unwrap_or_default());
    let error = match decoded {
        Ok(header) if header.segment == id => return Ok(Ok(Known { header, len })),
        Ok(_) => return Ok(Err(SegmentError::Magic)),
        Err(error @ SegmentError::Newer(_)) => return Ok(Err(error)),
        Err(error) => error,
    };
    let found = reader::frame_at(&file, id, segment::HEADER_LEN as u64, len)?;
    if let Found::Frame(frame, payload, _) = found
        && let Some(snapshot) = Snapshot::decode(&payload)
    {
        tracing::warn!(path = %path.display(), %error, "segment header damaged; its snapshot stands in");
        let header = SegmentHeader {
            segment: id,
            first_position: frame.first_position,
            lineage: snapshot.lineage,
            spool_id: snapshot.spool_id,
            created: frame.detected,
        };
        return Ok(Ok(Known { header, len }));
    }
    Ok(Err(error))
}

fn set_foreign_aside(
    disk: &Disk,
    known: &mut BTreeMap<SegmentId, Known>,
    lineage: SpoolId,
) -> Result<(), SpoolError> {
    let foreign: Vec<_> =
        known.iter().filter(|(_, segment)| segment.header.lineage != lineage).map(|(id, _)| *id).collect();
    for id in foreign {
        let path = disk.segment(id);
        let to = disk.quarantine_path(&path).map_err(io_error(&path))?;
        tracing::error!(path = %path.display(), to = %to.display(), "segment of another spool set aside");
        known.remove(&id);
    }
    Ok(())
}

/// Opens the ledger. One that is broken, or empty beside segments, is set aside.
fn open_ledger(disk: &Disk, sync: SyncMode, segments: bool) -> Result<Option<(Ledger, Books)>, SpoolError> {
    let path = disk.ledger();
    Ledger::settle(disk).map_err(io_error(&path))?;
    if !path.exists() {
        if segments {
            tracing::warn!(path = %path.display(), "the ledger is missing; it is rebuilt from the segments");
        }
        return Ok(None);
    }
    let error = match Ledger::open(&path, sync).and_then(|ledger| Ok((ledger.read()?, ledger))) {
        Ok((Some(books), ledger)) => return Ok(Some((ledger, books))),
        Ok((None, _)) if !segments => None,
        Ok((None, _)) => Some("it is empty beside segments".to_owned()),
        Err(LedgerError::Newer { path, version }) => return Err(SpoolError::Newer { path, version }),
        Err(error) => Some(crate::error_chain(&error)),
    };
    let to = disk.quarantine_path(&path).map_err(io_error(&path))?;
    if let Some(error) = error {
        tracing::error!(error, to = %to.display(), "the ledger is set aside and rebuilt from the segments");
    }
    Ok(None)
}

/// What the end of the log says.
#[derive(Default)]
struct Tail {
    snapshot: Option<Snapshot>,
    state: FileState,
    end: Position,
}

/// Reads the last segment, cuts what is torn, and steps over what is damaged. Where its snapshot cannot be read, the
/// segments before it are read as well until one can.
fn read_tail(
    disk: &Disk,
    known: &mut BTreeMap<SegmentId, Known>,
    cursor: Option<Position>,
) -> Result<Tail, SpoolError> {
    let mut from = Vec::new();
    for id in known.keys().rev() {
        from.push(*id);
        let path = disk.segment(*id);
        let file = Disk::open(&path).map_err(io_error(&path))?;
        let len = file.metadata().map_err(io_error(&path))?.len();
        let found = reader::frame_at(&file, *id, segment::HEADER_LEN as u64, len).map_err(io_error(&path))?;
        if matches!(&found, Found::Frame(header, ..) if header.kind == FrameKind::Snapshot) {
            break;
        }
    }
    let last = last_of(known);
    let mut tail = Tail { end: Position(1), ..Tail::default() };
    for id in from.into_iter().rev() {
        let path = disk.segment(id);
        let Some(segment) = known.get_mut(&id) else { continue };
        tail.end = tail.end.max(segment.header.first_position);
        segment.len = read_segment(disk, id, segment.len, (id == last).then_some(cursor), &mut tail)
            .map_err(io_error(&path))?;
    }
    Ok(tail)
}

/// Adopts the frames of one segment and says how long it is then. `torn` is given for the last one, with the ledger's
/// cursor where that is known.
fn read_segment(
    disk: &Disk,
    id: SegmentId,
    len: u64,
    torn: Option<Option<Position>>,
    tail: &mut Tail,
) -> io::Result<u64> {
    let path = disk.segment(id);
    let file = Disk::open(&path)?;
    let mut at = segment::HEADER_LEN as u64;
    while at < len {
        match reader::frame_at(&file, id, at, len)? {
            Found::Frame(header, payload, end) => {
                if header.kind == FrameKind::Snapshot
                    && let Some(snapshot) = Snapshot::decode(&payload)
                {
                    tail.state.checkpoints = snapshot.checkpoints.clone();
                    tail.state.next_seqs =
                        snapshot.sources.iter().map(|(name, (seq, _))| (name.clone(), *seq)).collect();
                    tail.snapshot = Some(snapshot);
                }
                tail.state.apply(&header);
                tail.end = tail.end.max(header.end_position());
                at = end;
            }
            bad => {
                let (from, next) = match &bad {
                    Found::BadPayload(_, end) if *end < len => (at, *end),
                    _ => (at, reader::find_frame(&file, id, at + 1, len)?.unwrap_or(len)),
                };
                let seen = cursor_past(&bad, torn, tail.end);
                if next >= len && !seen && torn.is_some() {
                    tracing::info!(path = %path.display(), offset = at, bytes = len - at, "torn tail cut");
                    Disk::truncate(&path, at)?;
                    return Ok(at);
                }
                // Whoever reads the segment for delivery keeps the bytes; of the last one nobody may.
                if let Found::BadPayload(header, _) = &bad {
                    tail.state.apply(header);
                    tail.end = tail.end.max(header.end_position());
                }
                tracing::warn!(
                    segment = id.0,
                    offset = from,
                    bytes = next - from,
                    "damaged frame stepped over"
                );
                at = next;
            }
        }
    }
    Ok(len)
}

/// Whether the ledger knows of events at the damaged place, so that it cannot be the rest of a commit nobody saw.
fn cursor_past(bad: &Found, torn: Option<Option<Position>>, end: Position) -> bool {
    let first = match bad {
        Found::BadPayload(header, _) => header.first_position,
        _ => end,
    };
    torn.flatten().is_some_and(|cursor| cursor > first)
}

/// Makes books from the segments alone: the last snapshot says what was acknowledged then.
fn rebuild(
    disk: &Disk,
    options: &SpoolOptions,
    tail: &Tail,
    known: &BTreeMap<SegmentId, Known>,
) -> Result<(Ledger, Books), SpoolError> {
    let books = match (&tail.snapshot, known.values().next()) {
        (Some(snapshot), _) => {
            let meta =
                Meta { lineage: snapshot.lineage, spool_id: snapshot.spool_id, unsynced_boot: [0; 16] };
            let mut books = Books::new(meta, snapshot.frontier);
            for (name, (_, account)) in &snapshot.sources {
                // Where cutting goes on is not known by source: the aggregator sees it from the frames.
                books.sources.insert(name.clone(), SourceRecord { cut: Seq(0), account: *account });
            }
            books
        }
        (None, Some(first)) => {
            let meta = Meta {
                lineage: first.header.lineage,
                spool_id: known.values().next_back().unwrap_or(first).header.spool_id,
                unsynced_boot: [0; 16],
            };
            Books::new(meta, first.header.first_position)
        }
        (None, None) => {
            let id = random_id();
            Books::new(Meta { lineage: id, spool_id: id, unsynced_boot: [0; 16] }, Position(1))
        }
    };
    let ledger = Ledger::create(&disk.ledger(), options.sync, &books)?;
    Ok((ledger, books))
}

/// Where no snapshot could be read, the ledger's mark knows the files up to the end of an earlier segment.
fn adopt_mark(state: &mut FileState, books: &Books, snapshot: bool) {
    if snapshot {
        return;
    }
    for (key, checkpoint) in &books.mark.checkpoints {
        state.checkpoints.entry(key.clone()).or_insert_with(|| checkpoint.clone());
    }
    for (name, seq) in &books.mark.next_seqs {
        let next = state.next_seqs.entry(name.clone()).or_insert(*seq);
        *next = (*next).max(*seq);
    }
}

/// Takes out what an old copy of the ledger still has and a newer snapshot knows as acknowledged.
fn forget_acknowledged(
    books: &mut Books,
    snapshot: Option<&Snapshot>,
    segments: &BTreeMap<SegmentId, Extent>,
) {
    let Some(snapshot) = snapshot else { return };
    let first = segments.values().next().map_or(Position(1), |extent| extent.first);
    if snapshot.frontier <= books.frontier() {
        return;
    }
    tracing::warn!(
        frontier = snapshot.frontier.0,
        cursor = books.cursor.0,
        "the ledger is older than the segments; what they know as acknowledged is not sent again"
    );
    for group in books.groups.values_mut() {
        group.batches.retain(|record| record.id.last >= snapshot.frontier && record.id.first >= first);
    }
    books.groups.retain(|_, group| !group.batches.is_empty());
    books.cursor = books.cursor.max(snapshot.frontier);
    for (name, (_, account)) in &snapshot.sources {
        let record = books.sources.entry(name.clone()).or_default();
        record.account = *account;
        record.cut = Seq(0);
    }
}

fn extents(known: &BTreeMap<SegmentId, Known>, end: Position) -> BTreeMap<SegmentId, Extent> {
    let mut extents = BTreeMap::new();
    let mut after = end;
    for (id, segment) in known.iter().rev() {
        let first = segment.header.first_position;
        let extent = Extent {
            spool_id: segment.header.spool_id,
            first,
            end: after.max(first),
            len: segment.len,
            sealed: true,
        };
        // The next segment's first position takes over whatever this one holds past it.
        after = first.min(after);
        extents.insert(*id, extent);
    }
    extents
}

/// Unlinks a segment that holds nothing that is needed, also one that a power cut brought back.
fn keep_or_unlink(disk: &Disk, id: SegmentId, extent: &Extent, books: &Books, last: bool) -> bool {
    if last || extent.end > books.frontier() {
        return true;
    }
    match Disk::unlink(&disk.segment(id)) {
        Ok(()) => tracing::debug!(segment = id.0, "finished segment unlinked"),
        Err(error) => tracing::warn!(segment = id.0, %error, "finished segment cannot be unlinked"),
    }
    false
}

/// Whether events may have been sent that the machine lost when it went down.
fn unsynced_crash(meta: &Meta) -> bool {
    meta.unsynced_boot != [0; 16] && meta.unsynced_boot != boot_id()
}

/// The id of this boot of the machine, from the kernel; zero where it does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    let mut id = [0; 16];
    let mut digits = text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok());
    for byte in &mut id {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        *byte = high << 4 | low;
    }
    id
}

/// 128 random bits from the kernel.
fn random_id() -> SpoolId {
    let mut id = [0; 16];
    let got = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    if got != Ok(id.len()) {
        // Time and process make a collision of two spools unlikely where the kernel gives no randomness.
        let seed = (crate::clock::wall().millis(), std::process::id());
        id = xxhash_rust::xxh3::xxh3_128(format!("{seed:?}").as_bytes()).to_le_bytes();
    }
    SpoolId(id)
}

//! Recovery: from whatever is on the disk to a spool that can go on.
//!
//! Invariants:
//! - The segments are the truth, the ledger is the index. A ledger that cannot be used, or that is older than a
//!   snapshot, is set aside and rebuilt; that costs resends and never an event.
//! - Nothing is deleted that was not understood: it goes to `quarantine/`.
//! - No position and no sequence number that may have been sent is given again under the same id. Where the segments do
//!   not reach to what the ledger knows, numbering goes on behind it; where it cannot be told how far that is, the spool
//!   takes a new id.
//! - The cost is that of the newest segment, not of the backlog: of the others only the heads are read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::adopt::{Tail, read_tail};
use super::burials;
use super::dead_letter;
use super::disk::Disk;
use super::files::FileState;
use super::ledger::{Books, Ledger, LedgerError, Mark, Meta, SourceRecord};
use super::log::{Extent, Log};
use super::missing::{self, Places};
use super::reader::{self, FrameReader, Step};
use super::segment::{Account, SpoolId};
use super::survey::{Survey, io_error, survey};
use super::view::Shared;
use super::{Counts, SpoolError, SpoolOptions};
use crate::config::SyncMode;
use crate::event::{Position, SegmentId, Seq, SourceName};

#[cfg(test)]
thread_local! {
    /// Sources are numbered from 1 again: the mistake that a test of starts has to find.
    pub(super) static FORGETS_NUMBERS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What recovery found.
pub(super) struct Recovered {
    pub ledger: Ledger,
    pub books: Books,
    pub segments: BTreeMap<SegmentId, Extent>,
    pub state: FileState,
    pub end: Position,
    /// For each source the events that were ever spooled.
    pub totals: Counts,
    pub next_segment: SegmentId,
    /// The segments do not say all that is known: a new id, or what only the ledger knew. A new one is to say it before
    /// anything else can be lost.
    pub begin: bool,
}

/// Recovers the spool on `disk`.
///
/// # Errors
/// Where it was written by a newer version, or files cannot be read or written.
pub(super) fn recover(disk: &Disk, options: &SpoolOptions) -> Result<Recovered, SpoolError> {
    let mut survey = survey(disk)?;
    let mut opened = open_ledger(disk, options.sync, &survey)?;
    let lineage = opened.as_ref().map(|(_, books)| books.meta.lineage).or_else(|| survey.lineage());
    if let Some(lineage) = lineage {
        survey.settle(disk, lineage, opened.as_ref().map(|(_, books)| books.meta.spool_id))?;
    }
    let mut tail = read_tail(disk, &mut survey, opened.as_ref().map(|(_, books)| books))?;
    if let Some((ledger, books)) = opened.take_if(|(_, books)| is_outdated(books, &tail)) {
        tracing::error!(
            cursor = books.cursor.0,
            "the ledger is older than the segments; it is set aside and rebuilt from them"
        );
        drop(ledger);
        disk.quarantine_path(&disk.ledger()).map_err(io_error(&disk.ledger()))?;
    }
    let rebuilt = opened.is_none();
    dead_letter::cut_torn(disk).map_err(io_error(&disk.dead_letters()))?;
    let (ledger, mut books) = match opened {
        Some((ledger, books)) => (Some(ledger), books),
        None => (None, rebuild(disk, &tail, &survey)?),
    };
    let before = books.clone();
    if !rebuilt {
        let log = Arc::new(Log::new(disk.clone(), survey.extents(tail.end), tail.end));
        burials::finish(&log, &mut books).map_err(io_error(&disk.dead_letters()))?;
    }
    make_durable(disk, &survey, &books.meta, options.sync)?;

    let end = adopt_mark(&mut tail, &books);
    tail.places.reach(end);
    tail.places.observe_books(&books, end);
    let newest_unsynced = survey.newest().is_some_and(|(_, known)| known.header.unsynced);
    let new_id = !tail.places.is_certain()
        || unsynced_crash(&books.meta)
        || tail.places.spool_id().is_some_and(|spool_id| spool_id != books.meta.spool_id)
        || rebuilt && (tail.torn || newest_unsynced);
    // A rebuilt ledger does not know what of the newest segment was sent, so that one must not be cut any more.
    let begin = new_id
        || end > tail.end
        || books.mark.position > tail.end
        || tail.places.is_damaged()
        || rebuilt && !survey.is_empty();
    let mut state = tail.files;
    state.next_seqs = number(&mut books, &tail.places, new_id);
    #[cfg(test)]
    if FORGETS_NUMBERS.get() {
        state.next_seqs.clear();
    }
    if begin {
        // A mark of what is gone would pass for one of what comes in its place.
        books.mark = Mark {
            segment: survey.newest().map_or(books.mark.segment, |(id, _)| id.max(books.mark.segment)),
            position: end,
            spool_id: books.meta.spool_id,
            state: state.clone(),
        };
    }
    books.meta.unsynced_boot = match options.sync {
        SyncMode::Group => [0; 16],
        SyncMode::Os => boot_id(),
    };
    let newest = survey.newest().map_or(books.mark.segment, |(id, _)| id.max(books.mark.segment));
    let mut segments = survey.extents(tail.end);
    segments.retain(|id, extent| *id == newest || keep_or_unlink(disk, *id, extent, &books));
    let ledger = match ledger {
        Some(ledger) if books == before && !ledger.has_outgrown() => ledger,
        // The books are small: what changed is written by writing all of it.
        ledger => {
            drop(ledger);
            Ledger::write_anew(disk, options.sync, &books)?
        }
    };
    Ok(Recovered {
        ledger,
        books,
        segments,
        state,
        end,
        totals: tail.places.into_totals(),
        next_segment: newest.plus(1),
        begin,
    })
}

/// Opens the ledger. One that is broken, empty beside segments, or of another spool, is set aside.
fn open_ledger(disk: &Disk, sync: SyncMode, survey: &Survey) -> Result<Option<(Ledger, Books)>, SpoolError> {
    let path = disk.ledger();
    Ledger::settle(disk).map_err(io_error(&path))?;
    if !path.exists() {
        if !survey.is_empty() {
            tracing::warn!(path = %path.display(), "the ledger is missing; it is rebuilt from the segments");
        }
        return Ok(None);
    }
    let error = match Ledger::open(disk, &path, sync).and_then(|ledger| Ok((ledger.read()?, ledger))) {
        Ok((Some(books), _)) if !survey.is_empty() && !survey.has(books.meta.lineage) => {
            Some("it belongs to another spool".to_owned())
        }
        Ok((Some(books), ledger)) => return Ok(Some((ledger, books))),
        Ok((None, _)) if survey.is_empty() => None,
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

/// Whether a snapshot knows more as settled than the ledger: an old copy of it was put back.
fn is_outdated(books: &Books, tail: &Tail) -> bool {
    tail.snapshot.as_ref().is_some_and(|snapshot| snapshot.frontier > books.frontier())
}

/// What is adopted is sent, so it has to be as durable as what is published: a kill may have come before its sync, and
/// `sync = "os"` may have been in force.
fn make_durable(disk: &Disk, survey: &Survey, meta: &Meta, sync: SyncMode) -> Result<(), SpoolError> {
    if sync == SyncMode::Os {
        return Ok(());
    }
    let all = meta.unsynced_boot != [0; 16];
    let newest = survey.newest().map(|(id, _)| id);
    let ids = survey.known.keys().filter(|id| all || Some(**id) == newest);
    disk.sync_segments(ids).map_err(io_error(&disk.segments()))
}

/// Takes over what the ledger's mark knows of the files where the segments end before it, and says where numbering goes
/// on.
///
/// What is gone is read again from the files as far as it was not cut, and its numbers, which nobody was sent, are given
/// again. Only where no snapshot is left would that be whole files: there the mark holds, and what is gone counts as
/// damaged.
fn adopt_mark(tail: &mut Tail, books: &Books) -> Position {
    let mark = &books.mark;
    let end = tail.end.max(books.cursor);
    if mark.position > tail.end {
        tracing::error!(
            position = tail.end.0,
            mark = mark.position.0,
            cursor = books.cursor.0,
            "the spool ends before what was written: events are gone"
        );
        if books.frontier() >= mark.position || tail.snapshot.is_none() {
            tail.files.clone_from(&mark.state);
            return end.max(mark.position);
        }
    }
    end
}

/// Says with which number each source goes on: behind its events so far, or with 1 under a new id.
fn number(books: &mut Books, places: &Places, new_id: bool) -> BTreeMap<SourceName, Seq> {
    let mut next_seqs = BTreeMap::new();
    for (name, total) in places.totals() {
        let account = &mut books.sources.entry(name.clone()).or_default().account;
        account.earlier = account.earlier.max(if new_id { *total } else { places.earlier(name) });
        if !new_id {
            next_seqs.insert(name.clone(), Seq(total.saturating_sub(account.earlier).saturating_add(1)));
        }
    }
    if new_id {
        books.meta.spool_id = random_id();
        tracing::warn!(spool = %books.meta.spool_id, "the spool takes a new id");
    }
    next_seqs
}

/// Makes books from the segments alone: the newest snapshot says what was settled then, and what is no longer there
/// was.
fn rebuild(disk: &Disk, tail: &Tail, survey: &Survey) -> Result<Books, SpoolError> {
    let Some((_, newest)) = survey.newest() else {
        let id = random_id();
        return Ok(Books::new(Meta { lineage: id, spool_id: id, unsynced_boot: [0; 16] }, Position(1)));
    };
    let meta =
        Meta { lineage: newest.header.lineage, spool_id: newest.header.spool_id, unsynced_boot: [0; 16] };
    let first = survey.known.values().next().map_or(Position(1), |known| known.header.first_position);
    let frontier = tail.snapshot.as_ref().map_or(first, |snapshot| snapshot.frontier);
    let cursor = frontier.max(first).min(tail.end);
    let mut books = Books::new(meta, cursor);
    let there = standing_at(disk, survey, tail, cursor).map_err(io_error(&disk.segments()))?;
    let mut accounts: BTreeMap<SourceName, Account> = tail
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.sources)
        .map(|(name, entry)| (name.clone(), entry.account))
        .collect();
    let mut dead: BTreeMap<SourceName, u64> = BTreeMap::new();
    let mut later: BTreeMap<SourceName, u64> = BTreeMap::new();
    let letters = dead_letter::read_all(disk).map_err(io_error(&disk.dead_letters()))?;
    let mut again = BTreeSet::new();
    for letter in letters.into_values() {
        let counts = if letter.position < cursor {
            &mut dead
        } else {
            again.insert(letter.position);
            &mut later
        };
        *counts.entry(letter.source).or_default() += 1;
    }
    // What is sent again is decided anew. Before the ledger is there: a crash in between rebuilds it once more.
    dead_letter::remove(disk, &again).map_err(io_error(&disk.dead_letters()))?;
    for (name, total) in there {
        let known = accounts.remove(&name).unwrap_or_default();
        let mut left = total;
        let mut take = |events: u64| {
            let taken = events.min(left);
            left -= taken;
            taken
        };
        let account = Account {
            // Those that were requeued or deleted since stay dead; those behind the cursor are sent again.
            dead: take(
                known
                    .dead
                    .saturating_sub(later.get(&name).copied().unwrap_or(0))
                    .max(dead.get(&name).copied().unwrap_or(0)),
            ),
            dropped: take(known.dropped),
            damaged: take(known.damaged),
            acknowledged: 0,
            earlier: tail.places.earlier(&name),
        };
        books
            .sources
            .insert(name, SourceRecord { cut: total, account: Account { acknowledged: left, ..account } });
    }
    Ok(books)
}

/// Counts the events of each source before `position`: from the newest snapshot before it on, or where none can be read
/// from the end backwards.
fn standing_at(disk: &Disk, survey: &Survey, tail: &Tail, position: Position) -> io::Result<Counts> {
    let log = Arc::new(Log::new(disk.clone(), survey.extents(tail.end), tail.end));
    let shared = Shared::new(&Books::new(Meta::default(), position), tail.places.totals().clone());
    for (id, extent) in log.segments().into_iter().rev().skip_while(|(_, extent)| extent.first > position) {
        let file = Disk::open(&disk.segment(id))?;
        let Some(snapshot) = reader::snapshot(&file, id, extent.len)? else { continue };
        let mut standing: Counts =
            snapshot.sources.into_iter().map(|(name, entry)| (name, entry.total())).collect();
        for (name, events) in events_between(&log, &shared, extent.first, position)? {
            *standing.entry(name).or_default() += events;
        }
        return Ok(standing);
    }
    let mut standing = tail.places.totals().clone();
    for (name, events) in events_between(&log, &shared, position, tail.end)? {
        let total = standing.entry(name).or_default();
        *total = total.saturating_sub(events);
    }
    Ok(standing)
}

/// Counts the events of each source from `first` to before `end`, readable or not.
fn events_between(log: &Arc<Log>, shared: &Shared, first: Position, end: Position) -> io::Result<Counts> {
    let mut all = Counts::new();
    let mut reader = FrameReader::new(log.clone(), first, None, false);
    while reader.next_position() < end {
        let at = reader.next_position();
        let counts = match reader.step()? {
            Step::Frame(frame) => {
                let events = frame.header.end_position().min(end).since(frame.header.first_position.max(at));
                Counts::from([(frame.header.checkpoint.source, events)])
            }
            Step::Missing(gap) => missing::owners(log, shared, gap.first, gap.end.min(end))?,
            Step::CaughtUp => break,
        };
        for (name, events) in counts {
            *all.entry(name).or_default() += events;
        }
    }
    Ok(all)
}

/// Unlinks a segment that holds nothing that is needed, also one that a power cut brought back.
fn keep_or_unlink(disk: &Disk, id: SegmentId, extent: &Extent, books: &Books) -> bool {
    if extent.end > books.frontier() {
        return true;
    }
    match disk.unlink(&disk.segment(id)) {
        Ok(()) => tracing::debug!(segment = id.0, "settled segment unlinked"),
        Err(error) => tracing::warn!(segment = id.0, %error, "settled segment cannot be unlinked"),
    }
    false
}

/// Whether events may have been sent that the machine lost when it went down.
fn unsynced_crash(meta: &Meta) -> bool {
    meta.unsynced_boot != [0; 16] && meta.unsynced_boot != boot_id()
}

/// The id of this boot of the machine, from the kernel; zero where it does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
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

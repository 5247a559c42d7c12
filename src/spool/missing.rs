//! Whose the events were that cannot be read.
//!
//! A frame says its source, so a damaged header leaves positions without an owner. The numbers around them say it: where
//! the events of a source go on at a higher number than they left off, those between are missing. Numbers are totals
//! here, over all spool ids, so that they go on where sequence numbers begin again.
//!
//! Invariants:
//! - The answer for a range is the sum of the answers for its parts, whoever asks and in whatever pieces: batches that
//!   are damaged, the aggregator, and what is dropped each count their own part of a damaged place.
//! - It never names more events than positions are missing.

use std::collections::BTreeMap;
use std::io;

use super::disk::Disk;
use super::frame::{FrameHeader, FrameKind};
use super::keeper::Counts;
use super::ledger::{Books, SourceRecord};
use super::log::{Extent, Log};
use super::reader::{self, Place};
use super::segment::{self, Snapshot, SpoolId};
use super::view::Shared;
use crate::event::{Position, SegmentId, SourceName};

/// Events of each source among the positions from `first` to before `end`, none of which can be read.
///
/// Reads the segment that the positions are in and the beginning of the next one; others only where a snapshot is
/// damaged as well.
///
/// # Errors
/// Where a segment cannot be opened or read.
pub(super) fn owners(log: &Log, shared: &Shared, first: Position, end: Position) -> io::Result<Counts> {
    // Before the segments, so that these have all that is counted here.
    let spooled = shared.spooled().clone();
    let segments = log.segments();
    let mut walked = Vec::new();
    let mut places = None;
    for (id, extent) in segments.iter().rev().skip_while(|(_, extent)| extent.first > first) {
        walked.push((*id, *extent));
        let file = Disk::open(&log.disk.segment(*id))?;
        if extent.first == Position(1) || reader::snapshot(&file, *id, extent.len)?.is_some() {
            places = Some(Places::new(extent.first));
            break;
        }
    }
    let mut places = places.unwrap_or_else(|| Places::before_the_oldest(shared));
    for (id, extent) in walked.iter().rev() {
        places.segment(log, *id, *extent)?;
    }
    let after = walked.first().map_or(SegmentId(0), |(id, _)| id.plus(1));
    let mut successors = segments.range(after..).peekable();
    let (cursor, sources) = {
        let view = shared.view();
        (view.cursor, view.sources.clone())
    };
    if cursor <= successors.peek().map_or(end, |(_, extent)| extent.first) {
        // What is cut is not theirs whose events come behind the cursor.
        places.reach(cursor);
        places.observe_cut(&sources);
        places.close(cursor);
    }
    for (id, extent) in successors {
        places.reach(extent.first);
        let file = Disk::open(&log.disk.segment(*id))?;
        if let Some(snapshot) = reader::snapshot(&file, *id, extent.len)? {
            places.observe_snapshot(&snapshot);
            return Ok(places.within(first, end));
        }
        places.segment(log, *id, *extent)?;
    }
    places.reach(end);
    for (name, total) in &spooled {
        places.observe(name, *total);
    }
    Ok(places.within(first, end))
}

/// Gives an owner to `events` damaged events of cut batches of which nothing around them says whose they were: a source
/// that has events which are neither settled nor in `counted`.
pub(super) fn fill_up(shared: &Shared, damaged: &mut Counts, events: u64, counted: &Counts) {
    let view = shared.view();
    let mut left = events;
    for (name, SourceRecord { cut, account }) in &view.sources {
        let elsewhere = [counted, &*damaged].iter().filter_map(|counts| counts.get(name)).sum::<u64>();
        let open = cut.saturating_sub(account.settled()).saturating_sub(elsewhere);
        let taken = open.min(left);
        if taken > 0 {
            *damaged.entry(name.clone()).or_default() += taken;
            left -= taken;
        }
    }
}

/// Shows every frame of a segment whose header can be read: the header, the snapshot if it is one, and whether its
/// payload is damaged.
pub(super) fn walk(
    file: &std::fs::File,
    id: SegmentId,
    len: u64,
    mut show: impl FnMut(&FrameHeader, Option<Snapshot>, bool),
) -> io::Result<()> {
    reader::places(file, id, segment::HEADER_LEN as u64, len, |_, _, place| {
        match place {
            Place::Frame(header, payload) => {
                let is_snapshot = header.kind == FrameKind::Snapshot;
                show(header, is_snapshot.then(|| Snapshot::decode(payload)).flatten(), false);
            }
            Place::Damage(Some(header)) => show(header, None, true),
            Place::Damage(None) => {}
        }
        Ok(())
    })
}

/// Places where positions are missing, and what is known of their owners.
#[derive(Debug)]
pub(super) struct Places {
    /// The position that the next frame should have.
    next: Position,
    spool_id: Option<SpoolId>,
    /// For each source the events that were spooled up to here.
    totals: Counts,
    /// For each source the events that were spooled under earlier ids.
    earlier: Counts,
    /// Whether a source that is not in `totals` has had no event before.
    complete: bool,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    first: Position,
    end: Position,
    /// How many of the missing events are whose, in the order in which that became known.
    owners: Vec<(SourceName, u64)>,
    /// No more owners are looked for.
    closed: bool,
}

impl Hole {
    fn unowned(&self) -> u64 {
        if self.closed {
            return 0;
        }
        let owned = self.owners.iter().map(|(_, events)| *events).fold(0, u64::saturating_add);
        self.end.since(self.first).saturating_sub(owned)
    }
}

impl Places {
    pub(super) fn new(next: Position) -> Self {
        Self {
            next,
            spool_id: None,
            totals: Counts::new(),
            earlier: Counts::new(),
            complete: next == Position(1),
            holes: Vec::new(),
        }
    }

    /// Where the oldest segments are gone: what was settled of each source is what came before.
    fn before_the_oldest(shared: &Shared) -> Self {
        let view = shared.view();
        let mut places = Self { complete: true, ..Self::new(view.frontier) };
        for (name, SourceRecord { account, .. }) in &view.sources {
            places.totals.insert(name.clone(), account.settled());
        }
        places
    }

    /// Walks one segment and notes what is missing in it.
    fn segment(&mut self, log: &Log, id: SegmentId, extent: Extent) -> io::Result<()> {
        self.enter(extent.spool_id, extent.first);
        let file = Disk::open(&log.disk.segment(id))?;
        walk(&file, id, extent.len, |header, snapshot, damaged| {
            if let Some(snapshot) = snapshot {
                self.begin(&snapshot);
            }
            // What a successor took over is not this segment's.
            if header.first_position < extent.end {
                self.frame(header, damaged);
            }
        })?;
        self.reach(extent.end);
        Ok(())
    }

    /// Goes on with a segment whose events have `spool_id`.
    pub(super) fn enter(&mut self, spool_id: SpoolId, first: Position) {
        if self.spool_id.is_some_and(|before| before != spool_id) {
            // Numbers begin again under a new id.
            self.earlier.clone_from(&self.totals);
        }
        self.spool_id = Some(spool_id);
        self.reach(first);
    }

    /// Takes over what a snapshot at the head of a segment knows.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        self.observe_snapshot(snapshot);
        self.earlier =
            snapshot.sources.iter().map(|(name, entry)| (name.clone(), entry.account.earlier)).collect();
        self.complete = true;
    }

    /// Takes over what a frame's header says; `damaged` where its payload cannot be read.
    pub(super) fn frame(&mut self, header: &FrameHeader, damaged: bool) {
        if header.kind != FrameKind::Events {
            return;
        }
        self.reach(header.first_position);
        let source = &header.checkpoint.source;
        let before = self.earlier(source).saturating_add(header.first_seq.0.saturating_sub(1));
        self.observe(source, before);
        let events = u64::from(header.events);
        let total = self.totals.entry(source.clone()).or_default();
        *total = (*total).max(before.saturating_add(events));
        if damaged && events > 0 {
            let owners = vec![(source.clone(), events)];
            self.holes.push(Hole {
                first: header.first_position,
                end: header.end_position(),
                owners,
                closed: true,
            });
        }
        self.next = self.next.max(header.end_position());
    }

    /// Notes that nothing was found before `position`.
    pub(super) fn reach(&mut self, position: Position) {
        if position > self.next {
            self.holes.push(Hole { first: self.next, end: position, owners: Vec::new(), closed: false });
            self.next = position;
        }
    }

    /// Notes that `total` events of `source` were spooled up to here.
    fn observe(&mut self, source: &SourceName, total: u64) {
        let known = match self.totals.get(source) {
            Some(known) => *known,
            None if self.complete => 0,
            None => total,
        };
        let mut jump = total.saturating_sub(known);
        for hole in &mut self.holes {
            let events = jump.min(hole.unowned());
            if events > 0 {
                hole.owners.push((source.clone(), events));
                jump -= events;
            }
        }
        self.totals.insert(source.clone(), known.max(total));
    }

    fn observe_snapshot(&mut self, snapshot: &Snapshot) {
        for (name, entry) in &snapshot.sources {
            self.observe(name, entry.total());
        }
    }

    /// Takes over what was cut.
    fn observe_cut(&mut self, sources: &BTreeMap<SourceName, SourceRecord>) {
        for (name, record) in sources {
            self.observe(name, record.cut);
        }
    }

    /// Looks for no more owners of what is missing before `cursor`.
    fn close(&mut self, cursor: Position) {
        self.holes.iter_mut().filter(|hole| hole.end <= cursor).for_each(|hole| hole.closed = true);
    }

    /// Takes over what the ledger knows of what is before `end`: what was cut, and what the mark says.
    pub(super) fn observe_books(&mut self, books: &Books, end: Position) {
        self.observe_cut(&books.sources);
        if books.mark.spool_id == books.meta.spool_id && books.mark.position <= end {
            for (name, seq) in &books.mark.state.next_seqs {
                let earlier = books.sources.get(name).map_or(0, |record| record.account.earlier);
                self.observe(name, earlier.saturating_add(seq.0.saturating_sub(1)));
            }
        }
    }

    /// Whether there are missing positions.
    pub(super) fn is_damaged(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Whether the numbers of all sources are known: nothing is missing without an owner, and what came before was seen.
    pub(super) fn is_certain(&self) -> bool {
        self.complete && self.holes.iter().all(|hole| hole.unowned() == 0)
    }

    /// The id of the newest events.
    pub(super) const fn spool_id(&self) -> Option<SpoolId> {
        self.spool_id
    }

    /// For each source the events that were ever spooled, as far as they are known.
    pub(super) const fn totals(&self) -> &Counts {
        &self.totals
    }

    /// The same, when nothing else is asked any more.
    pub(super) fn into_totals(self) -> Counts {
        self.totals
    }

    /// The events of `source` under earlier ids.
    pub(super) fn earlier(&self, source: &SourceName) -> u64 {
        self.earlier.get(source).copied().unwrap_or(0)
    }

    /// The missing events of each source from `first` to before `end`. Owners stand in a hole one after the other.
    fn within(&self, first: Position, end: Position) -> Counts {
        let mut counts = Counts::new();
        for hole in &self.holes {
            let mut at = hole.first;
            for (source, events) in &hole.owners {
                let (from, to) = (at.max(first), at.plus(*events).min(end));
                at = at.plus(*events);
                if to > from {
                    *counts.entry(source.clone()).or_default() += to.since(from);
                }
            }
        }
        counts
    }
}

//! Whose the events were that cannot be read.
//!
//! A frame says its source, so a damaged header leaves positions without an owner. The sequence numbers around them
//! say it: where the frames of a source go on at a higher number than they left off, the numbers between are missing.
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
use super::log::{Extent, Log};
use super::reader::{self, Found};
use super::segment::{self, Snapshot, SpoolId};
use super::view::Shared;
use crate::event::{Position, SegmentId, Seq, SourceName};

/// Events of each source among the positions from `first` to before `end`, none of which can be read.
///
/// Reads the segment that the positions are in and the beginning of the next one.
///
/// # Errors
/// Where a segment cannot be opened or read.
pub(super) fn owners(log: &Log, shared: &Shared, first: Position, end: Position) -> io::Result<Counts> {
    let segments = log.segments();
    let home = segments.iter().rev().find(|(_, extent)| extent.first <= first);
    let mut places = match home {
        Some((id, extent)) => walk(log, *id, *extent)?,
        None => Places::after_what_was_settled(shared),
    };
    let successor = match home {
        Some((id, _)) => segments.range(id.plus(1)..).next(),
        None => segments.iter().next(),
    };
    match successor {
        Some((id, extent)) => {
            places.reach(extent.first);
            if Some(extent.spool_id) == places.spool_id {
                places.observe_snapshot(log, *id, *extent)?;
            }
        }
        None => {
            places.reach(end);
            places.observe_ledger(shared);
        }
    }
    Ok(places.within(first, end))
}

/// Walks one segment and notes what is missing in it.
fn walk(log: &Log, id: SegmentId, extent: Extent) -> io::Result<Places> {
    let file = Disk::open(&log.disk.segment(id))?;
    let mut places = Places::new(extent.first, Some(extent.spool_id));
    let mut at = segment::HEADER_LEN as u64;
    while at < extent.len {
        match reader::frame_at(&file, id, at, extent.len)? {
            Found::Frame(header, payload, next) => {
                if header.kind == FrameKind::Snapshot
                    && let Some(snapshot) = Snapshot::decode(&payload)
                {
                    places.begin(&snapshot);
                }
                if header.first_position < extent.end {
                    places.frame(&header, false);
                }
                at = next;
            }
            Found::BadPayload(header, next) => {
                if header.first_position < extent.end {
                    places.frame(&header, true);
                }
                at = next;
            }
            Found::BadHeader => at = reader::find_frame(&file, id, at + 1, extent.len)?.unwrap_or(extent.len),
        }
    }
    places.reach(extent.end);
    Ok(places)
}

/// Places where positions are missing, and what is known of their owners.
#[derive(Debug)]
pub(super) struct Places {
    /// The position that the next frame should have.
    next: Position,
    spool_id: Option<SpoolId>,
    /// For each source the sequence number that its next frame should have.
    known: BTreeMap<SourceName, Seq>,
    /// Whether a source that is not in `known` has had no event before.
    complete: bool,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    first: Position,
    end: Position,
    /// How many of the missing events are whose, in the order in which that became known.
    owners: Vec<(SourceName, u64)>,
}

impl Hole {
    fn unowned(&self) -> u64 {
        let owned = self.owners.iter().map(|(_, events)| *events).fold(0, u64::saturating_add);
        self.end.since(self.first).saturating_sub(owned)
    }
}

impl Places {
    pub(super) const fn new(next: Position, spool_id: Option<SpoolId>) -> Self {
        Self { next, spool_id, known: BTreeMap::new(), complete: false, holes: Vec::new() }
    }

    /// Where the oldest segments are gone: what was settled of each source is what came before.
    fn after_what_was_settled(shared: &Shared) -> Self {
        let view = shared.view();
        let mut places = Self::new(view.frontier, Some(view.cut_id));
        places.complete = true;
        for (name, record) in &view.sources {
            places.known.insert(
                name.clone(),
                Seq(record.account.settled().saturating_sub(record.account.earlier).saturating_add(1)),
            );
        }
        places
    }

    /// Takes over what a snapshot at the head of a segment knows.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        for (name, (seq, _)) in &snapshot.sources {
            self.observe(name, *seq);
        }
        self.complete = true;
    }

    /// Takes over what a frame's header says; `damaged` where its payload cannot be read.
    pub(super) fn frame(&mut self, header: &FrameHeader, damaged: bool) {
        if header.kind != FrameKind::Events {
            return;
        }
        self.reach(header.first_position);
        let source = &header.checkpoint.source;
        self.observe(source, header.first_seq);
        self.known.insert(source.clone(), header.first_seq.plus(u64::from(header.events)));
        if damaged && header.events > 0 {
            self.holes.push(Hole {
                first: header.first_position,
                end: header.end_position(),
                owners: vec![(source.clone(), u64::from(header.events))],
            });
        }
        self.next = self.next.max(header.end_position());
    }

    /// Notes that nothing was found before `position`.
    pub(super) fn reach(&mut self, position: Position) {
        if position > self.next {
            self.holes.push(Hole { first: self.next, end: position, owners: Vec::new() });
            self.next = position;
        }
    }

    /// Notes that the next event of `source` after what was seen has number `seq`.
    pub(super) fn observe(&mut self, source: &SourceName, seq: Seq) {
        let known = match self.known.get(source) {
            Some(known) => *known,
            None if self.complete => Seq(1),
            None => seq,
        };
        let mut jump = seq.since(known);
        for hole in &mut self.holes {
            let events = jump.min(hole.unowned());
            if events > 0 {
                hole.owners.push((source.clone(), events));
                jump -= events;
            }
        }
        self.known.insert(source.clone(), known.max(seq));
    }

    fn observe_snapshot(&mut self, log: &Log, id: SegmentId, extent: Extent) -> io::Result<()> {
        let file = Disk::open(&log.disk.segment(id))?;
        if let Some(snapshot) = reader::snapshot(&file, id, extent.len)? {
            for (name, (seq, _)) in &snapshot.sources {
                self.observe(name, *seq);
            }
        }
        Ok(())
    }

    fn observe_ledger(&mut self, shared: &Shared) {
        let view = shared.view();
        if Some(view.cut_id) == self.spool_id {
            for (name, record) in view.sources.iter().filter(|(_, record)| record.cut.0 > 0) {
                self.observe(name, record.cut);
            }
        }
    }

    /// Whether there are missing positions whose owner is not known.
    pub(super) fn unresolved(&self) -> bool {
        self.holes.iter().any(|hole| hole.unowned() > 0)
    }

    /// For each source the number after its last event, as far as it is known.
    pub(super) fn into_known(self) -> BTreeMap<SourceName, Seq> {
        self.known
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

//! Segments: headers, snapshots, frames, positions and numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::super::list::is_outstanding;
use super::super::look::Look;
use super::super::walk::{Damaged, Directory};
use super::super::{Progress, ToolError};
use super::{Checked, Finding, Kind};
use crate::event::{EventIter, Position, SegmentId, Seq, SourceName};
use crate::spool::disk::Disk;
use crate::spool::frame::{FrameHeader, FrameKind};
use crate::spool::log::Extent;
use crate::spool::reader::{self, Place, places};
use crate::spool::segment::{self, Snapshot, SpoolId};

const KEEPS: &str = "keeps the bytes in quarantine/";
const KEEPS_AND_COUNTS: &str = "keeps the bytes in quarantine/ and counts the events as damaged";

/// Checks every segment, oldest first.
pub(super) fn check(look: &Look, checked: &mut Checked, progress: Progress<'_>) -> Result<(), ToolError> {
    let segments = look.log.segments();
    let total = segments.values().map(|extent| extent.len).fold(0, u64::saturating_add);
    let frontier = newest_frontier(look).map_err(|source| super::unreadable(look, source))?;
    let mut check = Check {
        look,
        checked,
        frontier,
        next: look.first(),
        spool_id: None,
        numbers: None,
        unowned: 0,
        pending: Vec::new(),
    };
    let mut done = 0;
    for (id, extent) in &segments {
        let successor = segments.range(id.plus(1)..).next().map(|(id, _)| *id);
        match check.segment(*id, extent, successor, &|bytes| progress(done + bytes, total)) {
            // It was settled and unlinked meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && look.agent.is_some() => {
                check.next = extent.end;
                check.numbers = None;
                check.pending.clear();
            }
            result => result.map_err(|source| super::unreadable(look, source))?,
        }
        done += extent.len;
        progress(done, total);
    }
    Ok(())
}

/// Every event before this is settled, by the newest snapshot that can be read.
fn newest_frontier(look: &Look) -> io::Result<Position> {
    for (id, extent) in look.log.segments().iter().rev() {
        let file = match Disk::open(&look.disk.segment(*id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && look.agent.is_some() => continue,
            file => file?,
        };
        if let Some(snapshot) = reader::snapshot(&file, *id, extent.len)? {
            return Ok(snapshot.frontier);
        }
    }
    Ok(Position(1))
}

struct Check<'a> {
    look: &'a Look,
    checked: &'a mut Checked,
    frontier: Position,
    /// The position that the next frame should have.
    next: Position,
    spool_id: Option<SpoolId>,
    /// The next number of each source, once they are known.
    numbers: Option<BTreeMap<SourceName, Seq>>,
    /// Missing positions since then, whose owners show in numbers that are passed over.
    unowned: u64,
    /// Damaged places that may have held the next positions.
    pending: Vec<Damaged>,
}

impl Check<'_> {
    fn segment(
        &mut self,
        id: SegmentId,
        extent: &Extent,
        successor: Option<SegmentId>,
        progress: &dyn Fn(u64),
    ) -> io::Result<()> {
        let file = Disk::open(&self.look.disk.segment(id))?;
        self.checked.read.segments += 1;
        self.checked.read.bytes += extent.len;
        if self.spool_id.replace(extent.spool_id).is_some_and(|before| before != extent.spool_id) {
            self.numbers = None;
        }
        self.frames(&file, id, extent, progress)?;
        if extent.end > self.next {
            let (first, end) = (self.next, extent.end);
            let what = match successor.filter(|successor| successor.0 > id.0 + 1) {
                Some(successor) if successor.0 == id.0 + 2 => format!("segment {} is not there", id.0 + 1),
                Some(successor) => {
                    format!("segments {} to {} are not there", id.0 + 1, successor.0 - 1)
                }
                None => "the frames at its end are not there".to_owned(),
            };
            self.gap(id, first, end, &what);
        }
        self.flush();
        Ok(())
    }

    fn frames(
        &mut self,
        file: &File,
        id: SegmentId,
        extent: &Extent,
        progress: &dyn Fn(u64),
    ) -> io::Result<()> {
        let head = segment::HEADER_LEN as u64;
        places(file, id, head, extent.len, |from, to, place| {
            progress(to);
            let damaged = Damaged { directory: Directory::Segments, segment: id, from, to };
            match place {
                Place::Frame(header, payload) if header.kind == FrameKind::Snapshot && from == head => {
                    self.checked.read.frames += 1;
                    match Snapshot::decode(payload) {
                        Some(snapshot) => self.snapshot(&damaged, &snapshot, extent),
                        None => self.snapshot_wrong(&damaged, "it cannot be decoded"),
                    }
                }
                Place::Frame(header, payload) if header.kind == FrameKind::Events => {
                    self.checked.read.frames += 1;
                    // What a successor took over is not this segment's.
                    if header.first_position < extent.end || header.events == 0 {
                        self.events(&damaged, header, payload);
                    }
                }
                Place::Frame(header, _) => {
                    let what = format!("a frame of kind {} stands where none belongs", header.kind as u8);
                    self.finding(Kind::Content, &damaged, None, what, "it is passed over", KEEPS);
                }
                Place::Damage(Some(header)) if header.kind == FrameKind::Events => {
                    self.lost(&damaged, header, extent);
                }
                Place::Damage(_) if from == head => self.snapshot_wrong(&damaged, "it fails its checksum"),
                Place::Damage(_) => self.pending.push(damaged),
            }
            Ok(())
        })
    }

    /// Compares a snapshot with its segment's header and the frames in front of it.
    fn snapshot(&mut self, at: &Damaged, snapshot: &Snapshot, extent: &Extent) {
        if snapshot.position != extent.first || snapshot.spool_id != extent.spool_id {
            self.snapshot_wrong(at, "it says another position or spool id than the header of its segment");
            return;
        }
        let numbers: BTreeMap<_, _> =
            snapshot.sources.iter().map(|(name, entry)| (name.clone(), entry.next_seq)).collect();
        if let Some(known) = &self.numbers {
            let none = Seq(1);
            let jumps: Vec<_> = numbers
                .iter()
                .map(|(name, seq)| (name.clone(), *known.get(name).unwrap_or(&none), *seq))
                .filter(|(_, known, seq)| known != seq)
                .collect();
            for (name, known, seq) in jumps {
                self.jump(at, &name, known, seq);
            }
        }
        self.numbers = Some(numbers);
        self.unowned = 0;
    }

    fn snapshot_wrong(&mut self, at: &Damaged, what: &str) {
        let means = "nothing is lost, the ledger and the snapshots around it say what it said";
        self.finding(Kind::Snapshot, at, None, what.to_owned(), means, KEEPS);
        // The frames in front of it say no more what the numbers are behind it if the id changed.
        self.unowned = u64::MAX;
    }

    fn events(&mut self, at: &Damaged, header: &FrameHeader, payload: &[u8]) {
        let events = u64::from(header.events);
        let mut left = EventIter::new(payload);
        let held = left.by_ref().count() as u64;
        if held != events || !left.rest().is_empty() {
            let what = format!("the frame says {events} events and holds {held}");
            let means = "its checksum holds, so it was written like that";
            self.finding(Kind::Content, at, None, what, means, "cannot mend it");
        }
        self.checked.read.events += events;
        self.advance(at, header);
    }

    /// A frame whose header alone can be read.
    fn lost(&mut self, at: &Damaged, header: &FrameHeader, extent: &Extent) {
        let (first, end) = (header.first_position, header.end_position().min(extent.end));
        if first >= end {
            let what = "its payload fails its checksum".to_owned();
            self.finding(Kind::FramePayload, at, None, what, "it has no events of its own", KEEPS);
            return;
        }
        self.advance(at, header);
        let what = format!(
            "it fails its checksum, with {} events of {}, {} to {}",
            header.events,
            header.checkpoint.source,
            header.first_seq,
            Seq(header.first_seq.0 + u64::from(header.events) - 1),
        );
        self.lose(Kind::FramePayload, at, (first, end), what);
    }

    /// Goes on behind a frame whose header can be read.
    fn advance(&mut self, at: &Damaged, header: &FrameHeader) {
        if header.first_position > self.next {
            self.gap(at.segment, self.next, header.first_position, "no frame has them");
        } else if header.first_position < self.next && header.events > 0 {
            let what = format!("the frame begins at {}, not at {}", header.first_position, self.next);
            self.finding(Kind::Numbers, at, None, what, "positions are there twice", "cannot mend it");
        }
        self.flush();
        self.next = self.next.max(header.end_position());
        let source = &header.checkpoint.source;
        let Some(numbers) = &self.numbers else { return };
        let known = numbers.get(source).copied().unwrap_or(Seq(1));
        if known != header.first_seq {
            self.jump(at, source, known, header.first_seq);
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.insert(source.clone(), header.first_seq.plus(u64::from(header.events)));
        }
    }

    /// A source's numbers go on elsewhere than they left off: right where as many positions are missing.
    fn jump(&mut self, at: &Damaged, source: &SourceName, known: Seq, seq: Seq) {
        let passed = seq.since(known);
        if seq > known && passed <= self.unowned {
            self.unowned -= passed;
            return;
        }
        if self.unowned == u64::MAX {
            return;
        }
        let what = format!("the events of {source} go on with {seq} instead of {known}");
        let means = "a server that counts them sees a gap, or numbers twice";
        self.finding(Kind::Numbers, at, None, what, means, "cannot mend it");
    }

    /// Positions that no header has: those of the damaged bytes before, or else of what is gone.
    fn gap(&mut self, segment: SegmentId, first: Position, end: Position, what: &str) {
        self.next = end;
        self.unowned = self.unowned.saturating_add(end.since(first));
        if self.pending.is_empty() {
            let is_settled = self.is_settled(first, end);
            if !is_settled {
                self.checked.lost.push((first, end));
                self.checked.findings.push(Finding {
                    kind: Kind::MissingPositions,
                    segment: Some(segment.0),
                    bytes: None,
                    positions: Some([first.0, end.0 - 1]),
                    what: what.to_owned(),
                    means: "these events cannot be delivered",
                    repair: "counts them as damaged",
                });
            }
            return;
        }
        let at = self.pending.remove(0);
        self.lose(Kind::FrameHeader, &at, (first, end), "no frame can be read there".to_owned());
    }

    /// Damaged places that held no position.
    fn flush(&mut self) {
        for at in std::mem::take(&mut self.pending) {
            let what = "no frame can be read there".to_owned();
            self.finding(Kind::FrameHeader, &at, None, what, "it held no events", KEEPS);
        }
    }

    fn lose(&mut self, kind: Kind, at: &Damaged, (first, end): (Position, Position), what: String) {
        let positions = Some((first, end));
        if self.is_settled(first, end) {
            let means = "they were settled before, so nothing is lost";
            self.finding(kind, at, positions, what, means, KEEPS);
        } else {
            self.checked.lost.push((first, end));
            let means = "these events cannot be delivered";
            self.finding(kind, at, positions, what, means, KEEPS_AND_COUNTS);
        }
    }

    fn finding(
        &mut self,
        kind: Kind,
        at: &Damaged,
        positions: Option<(Position, Position)>,
        what: String,
        means: &'static str,
        repair: &'static str,
    ) {
        let is_kept = self.look.disk.has_quarantined(&at.quarantine_name());
        let is_settled = positions.is_none_or(|(first, end)| self.is_settled(first, end));
        if is_kept && is_settled {
            self.checked.read.dealt_with += 1;
            return;
        }
        if !is_kept && repair.starts_with(KEEPS) {
            self.checked.damaged.push(at.clone());
        }
        self.checked.findings.push(Finding {
            kind,
            segment: Some(at.segment.0),
            bytes: Some([at.from, at.to]),
            positions: positions.map(|(first, end)| [first.0, end.0 - 1]),
            what,
            means,
            repair,
        });
    }

    /// Whether nothing of these positions is to be delivered any more.
    fn is_settled(&self, first: Position, end: Position) -> bool {
        match self.look.books() {
            Some(books) => !is_outstanding(books, first, end),
            None => end <= self.frontier,
        }
    }
}

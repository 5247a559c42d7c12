//! The writer: group commit of frames into segments.
//!
//! Invariants:
//! - Order of a commit: write the frames, fdatasync the segment (and its directory where it is new), publish. A frame
//!   that is not published was never seen by anyone but its tailer.
//! - Positions and sequence numbers are given once, in the order of the queue; a frame that has to be written again
//!   keeps them.
//! - After a failed sync the segment is never written again: the kernel may have dropped the pages and would say
//!   nothing at the next sync. What it should have held goes to a new segment, whose first position takes the
//!   positions over.
//! - An idle writer touches nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budget, Room};
use super::disk::Disk;
use super::files::FileState;
use super::frame::{FrameHeader, FrameKind};
use super::keeper::KeeperHandle;
use super::ledger::Mark;
use super::log::{self, Extent, Log};
use super::queue::{Queue, Queued};
use super::segment::{SegmentHeader, Snapshot, SourceEntry, SpoolId};
use super::view::Shared;
use crate::config::SyncMode;
use crate::event::{EventBlock, Position, SegmentId, Seq, SourceName};
use crate::telemetry::Repeats;

/// How often trouble that lasts, or comes back, is said again.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The writer's thread.
pub(super) struct Writer {
    pub log: Arc<Log>,
    pub queue: Arc<Queue>,
    pub shared: Arc<Shared>,
    pub keeper: KeeperHandle,
    pub budget: Budget,
    pub lineage: SpoolId,
    pub spool_id: SpoolId,
    pub segment_bytes: u64,
    pub sync: SyncMode,
    /// What is committed.
    pub committed: FileState,
    pub next_segment: SegmentId,
    pub active: Option<Active>,
    /// Where the next frame begins.
    pub next_position: Position,
    /// The next sequence number of each source, over what is queued as well.
    pub next_seqs: HashMap<SourceName, Seq>,
    pub trouble: Trouble,
}

/// The segment that is being written.
pub(super) struct Active {
    id: SegmentId,
    file: File,
    first: Position,
    /// Header and snapshot, until they are written together with the first frames.
    preamble: Vec<u8>,
    /// Committed bytes.
    len: u64,
    /// Bytes of header and snapshot, which do not count towards the size at which a segment is sealed.
    preamble_len: u64,
}

/// A frame with its place in the log.
struct Placed {
    header: FrameHeader,
    events: EventBlock,
}

/// Why frames could not be committed.
#[derive(Debug)]
enum Fault {
    /// The segment could not be created or written.
    Write(io::Error),
    /// The segment could not be synced.
    Sync(io::Error),
}

/// What is going wrong at the moment. Said once and again every [`SAY_EVERY`] while it lasts; its end is said where it
/// was said itself, so that a disk at its limit makes no flood of messages.
#[derive(Debug)]
pub(super) struct Trouble {
    said: Repeats,
    since: Option<Instant>,
}

/// The agent stops before the frames could be committed; their lines stay in their files.
struct Abandoned;

impl Writer {
    /// Commits what is queued until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(drafts) = self.queue.take() {
            let mut placed = self.place(drafts);
            if self.commit(&placed).is_err() {
                break;
            }
            self.queue.recycle(placed.drain(..).map(|frame| frame.events.into_buffer()));
        }
        // The ledger's mark knows all files then, whatever becomes of the segment.
        self.seal();
        // What is queued now was not committed: its lines are still in their files.
        self.queue.close();
        self.log.close();
    }

    /// Gives positions and sequence numbers.
    fn place(&mut self, drafts: VecDeque<Queued>) -> Vec<Placed> {
        let place = |Queued { draft, payload_crc }| {
            let seq = self.next_seqs.entry(draft.checkpoint.source.clone()).or_insert(Seq(1));
            let header = FrameHeader::of_draft(&draft, SegmentId(0), self.next_position, *seq, payload_crc);
            *seq = seq.plus(u64::from(header.events));
            self.next_position = header.end_position();
            Placed { header, events: draft.events }
        };
        drafts.into_iter().map(place).collect()
    }

    fn commit(&mut self, frames: &[Placed]) -> Result<(), Abandoned> {
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let bytes = frame_bytes(first);
            let written = match self.make_room(bytes) {
                Room::Granted => self.write_some(rest),
                Room::Full { why } => {
                    self.trouble.report(&why);
                    self.make_way(first.header.first_position);
                    self.wait()?;
                    continue;
                }
            };
            match written {
                Ok(count) => {
                    self.trouble.over();
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(fault) => {
                    self.recover_from(fault);
                    self.make_way(first.header.first_position);
                    self.wait()?;
                }
            }
        }
        Ok(())
    }

    /// Begins a segment of which only the head is written, if the disk allows.
    pub(super) fn begin_segment(&mut self) {
        let written =
            self.create(self.next_position).and_then(|active| match self.write(&active, &[], &[], &[]) {
                Ok(bytes) => Ok((active, bytes)),
                Err(fault) => {
                    self.give_back(active, &fault);
                    Err(fault)
                }
            });
        match written {
            Ok((mut active, bytes)) => {
                active.len = bytes;
                active.preamble = Vec::new();
                self.publish(active, &[], false);
            }
            Err(fault) => self.recover_from(fault),
        }
    }

    /// Ends the segment that is written where nothing can be added to it, so that it can be deleted once all of it is
    /// settled. The newest segment is never deleted, so where that is the one in the way it gets a successor.
    fn make_way(&mut self, next: Position) {
        self.seal();
        let Some((id, extent)) = self.log.newest() else { return };
        let settled = self.shared.view().frontier >= extent.end;
        if extent.end > extent.first && (settled || self.budget.drops_oldest()) {
            // A whole segment is about to be freed: that is what the reserve is for.
            self.log.disk.give_up_reserve();
            let placed = std::mem::replace(&mut self.next_position, next);
            self.begin_segment();
            self.next_position = placed;
            self.keeper.tidy();
            tracing::debug!(segment = id.0, "segment ended early to be deleted");
        }
    }

    fn make_room(&mut self, bytes: u64) -> Room {
        let room = self.budget.ask(&self.log, self.is_settled(), bytes);
        if matches!(room, Room::Full { .. }) && self.budget.drops_oldest() && self.keeper.drop_oldest() {
            return self.budget.ask(&self.log, self.is_settled(), bytes);
        }
        room
    }

    /// Whether nothing that was committed is waited for.
    fn is_settled(&self) -> bool {
        self.shared.view().frontier >= self.log.end()
    }

    fn wait(&self) -> Result<(), Abandoned> {
        if self.queue.is_closed() {
            return Err(Abandoned);
        }
        self.log.wait_freed(crate::clock::now() + log::RETRY_EVERY);
        if self.queue.is_closed() { Err(Abandoned) } else { Ok(()) }
    }

    /// Commits as many frames as the segment takes, at least one, and says how many.
    fn write_some(&mut self, frames: &[Placed]) -> Result<usize, Fault> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.create(frames.first().map_or(self.next_position, |f| f.header.first_position))?,
        };
        let mut room = self.segment_bytes.saturating_sub(active.len.saturating_sub(active.preamble_len));
        let mut count = 0;
        let mut headers = Vec::with_capacity(256);
        let mut ends = Vec::new();
        for frame in frames {
            let bytes = frame_bytes(frame);
            if count > 0 && bytes > room {
                break;
            }
            room = room.saturating_sub(bytes);
            let place = FrameHeader { segment: active.id, group_at: active.len, ..frame.header.clone() };
            place.encode(&mut headers);
            ends.push(headers.len());
            count += 1;
        }
        let frames = frames.get(..count).unwrap_or_default();
        let written = self.write(&active, &headers, &ends, frames);
        match written {
            Ok(bytes) => {
                active.len += bytes;
                active.preamble = Vec::new();
                self.publish(active, frames, room == 0);
                Ok(count)
            }
            Err(fault) => {
                self.give_back(active, &fault);
                Err(fault)
            }
        }
    }

    /// Writes and syncs; says how many bytes.
    fn write(
        &self,
        active: &Active,
        headers: &[u8],
        ends: &[usize],
        frames: &[Placed],
    ) -> Result<u64, Fault> {
        let mut slices = Vec::with_capacity(1 + 2 * frames.len());
        slices.push(IoSlice::new(&active.preamble));
        let mut start = 0;
        for (end, frame) in ends.iter().zip(frames) {
            slices.push(IoSlice::new(headers.get(start..*end).unwrap_or_default()));
            slices.push(IoSlice::new(frame.events.bytes()));
            start = *end;
        }
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        self.log.disk.write(&active.file, &mut slices).map_err(Fault::Write)?;
        if self.sync == SyncMode::Group {
            self.log.disk.sync_data(&active.file).map_err(Fault::Sync)?;
            if !active.preamble.is_empty() {
                self.log.disk.sync_dir(&self.log.disk.segments()).map_err(Fault::Sync)?;
            }
        }
        Ok(bytes)
    }

    fn publish(&mut self, active: Active, frames: &[Placed], full: bool) {
        for frame in frames {
            self.committed.apply(&frame.header);
        }
        self.count(frames);
        let end = frames.last().map_or(active.first, |frame| frame.header.end_position());
        let extent =
            Extent { spool_id: self.spool_id, first: active.first, end, len: active.len, sealed: false };
        self.log.publish(active.id, extent);
        self.active = Some(active);
        if full {
            self.seal();
        }
    }

    /// Counts the events of frames that are about to be shown.
    fn count(&self, frames: &[Placed]) {
        let mut spooled = self.shared.spooled();
        for header in frames.iter().map(|frame| &frame.header).filter(|header| header.events > 0) {
            let events = u64::from(header.events);
            match spooled.get_mut(&header.checkpoint.source) {
                Some(total) => *total += events,
                None => drop(spooled.insert(header.checkpoint.source.clone(), events)),
            }
        }
    }

    /// Ends the active segment: the next frame goes to a new one.
    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        self.end_extent(active.id);
    }

    fn end_extent(&self, id: SegmentId) {
        let Some(extent) = self.log.extent(id) else { return };
        self.log.publish(id, Extent { sealed: true, ..extent });
        // The mark says how far files were read. It must not outlive the lines that it passes over, so with
        // `sync = "os"` it waits for a sync of its own.
        if self.sync == SyncMode::Os
            && let Err(error) = self.log.disk.sync_segments(std::iter::once(&id))
        {
            tracing::warn!(segment = id.0, %error, "a sealed segment cannot be synced");
            return;
        }
        self.keeper.mark(Mark {
            segment: id,
            position: extent.end,
            spool_id: extent.spool_id,
            state: self.committed.clone(),
        });
    }

    fn create(&mut self, first: Position) -> Result<Active, Fault> {
        let id = self.next_segment;
        // The number is used up even where creating fails: what may be left under it is never written again.
        self.next_segment = id.plus(1);
        let file = self.log.disk.create_new(&self.log.disk.segment(id)).map_err(Fault::Write)?;
        let mut preamble = Vec::new();
        SegmentHeader {
            segment: id,
            first_position: first,
            lineage: self.lineage,
            spool_id: self.spool_id,
            created: crate::clock::wall(),
            unsynced: self.sync == SyncMode::Os,
        }
        .encode(&mut preamble);
        let snapshot = self.snapshot(first).encode();
        FrameHeader::bare(FrameKind::Snapshot, id, first, &snapshot).encode(&mut preamble);
        preamble.extend_from_slice(&snapshot);
        let preamble_len = preamble.len() as u64;
        tracing::debug!(segment = id.0, position = first.0, "segment begun");
        Ok(Active { id, file, first, preamble, len: 0, preamble_len })
    }

    fn snapshot(&self, position: Position) -> Snapshot {
        let view = self.shared.view();
        let FileState { next_seqs, files, bytes, losses } = &self.committed;
        let mut sources: BTreeMap<SourceName, SourceEntry> = BTreeMap::new();
        for name in view.sources.keys().chain(next_seqs.keys()).chain(bytes.keys()) {
            sources.entry(name.clone()).or_insert_with(|| SourceEntry {
                next_seq: next_seqs.get(name).copied().unwrap_or(Seq(1)),
                account: view.sources.get(name).map(|record| record.account).unwrap_or_default(),
                bytes: bytes.get(name).cloned().unwrap_or_default(),
            });
        }
        Snapshot {
            lineage: self.lineage,
            spool_id: self.spool_id,
            position,
            unsynced: self.sync == SyncMode::Os,
            frontier: view.frontier,
            sources,
            files: files.clone(),
            losses: losses.clone(),
        }
    }

    /// Decides what becomes of a segment after a fault: written again after a failed write that could be undone,
    /// never again after a failed sync.
    fn give_back(&mut self, active: Active, fault: &Fault) {
        if active.len == 0 {
            // Nothing in it was ever committed. Where it cannot be unlinked, recovery finds its frames taken over by
            // the next segment.
            let _ = self.log.disk.unlink(&self.log.disk.segment(active.id));
            return;
        }
        // After a failed sync as well, so that a later start does not take for durable what is only in memory.
        let undone = undo(&self.log.disk, &active.file, active.len).is_ok();
        if undone && matches!(fault, Fault::Write(_)) {
            self.active = Some(active);
        } else {
            self.end_extent(active.id);
        }
    }

    fn recover_from(&mut self, fault: Fault) {
        let (what, error) = match fault {
            Fault::Write(error) => ("the spool cannot be written", error),
            Fault::Sync(error) => ("the spool cannot be synced; its segment is given up", error),
        };
        self.trouble.report(&format!("{what}: {error}"));
    }
}

/// Cuts a file back to what is committed and sets the place of the next write there.
fn undo(disk: &Disk, file: &File, len: u64) -> io::Result<()> {
    use std::io::Seek as _;
    disk.set_len(file, len)?;
    let mut file = file;
    file.seek(io::SeekFrom::Start(len)).map(|_| ())
}

fn frame_bytes(frame: &Placed) -> u64 {
    (frame.header.encoded_len() + frame.events.bytes().len()) as u64
}

impl Default for Trouble {
    fn default() -> Self {
        Self { said: Repeats::new(SAY_EVERY), since: None }
    }
}

impl Trouble {
    /// Notes what is wrong.
    fn report(&mut self, what: &str) {
        if let Some(more) = self.said.seen() {
            self.since.get_or_insert_with(crate::clock::now);
            tracing::warn!(error = what, more, "reading pauses; the log files keep what is new");
        }
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(seconds = since.elapsed().as_secs(), "reading goes on");
        }
    }
}

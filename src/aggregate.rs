//! The aggregator: cuts the log into batches, by events, bytes or time, and encodes them.
//!
//! Invariants:
//! - A batch leaves here only after its boundaries are durable in the ledger.
//! - A batch is a run of positions without a gap and of one spool id. What cannot be read is counted with the cut that
//!   passes over it.
//! - Nothing is read twice: the frames that a batch was cut from are held until it is encoded. That is bounded by
//!   `GROUP_BYTES` for the group being cut and as much for the one whose cut is on its way to the disk, and encoded
//!   payloads by `READY_BYTES`. While the server is down this is all that is held.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::batch::{BatchContent, BatchId, FrameSlice, Payload};
use crate::clock;
use crate::config::Global;
use crate::event::{EventIter, Position, SourceName};
use crate::payload::Encoder;
use crate::retry::Ready;
use crate::spool::{
    BatchRecord, Closed, Counts, Cut, CutOutcome, Cutter, Frame, GROUP_MAX, Missing, Pending, SpoolId, Step,
};

/// A group is cut once its batches hold so many bytes of lines: enough to hide the ledger's sync behind the encoding.
const GROUP_BYTES: u64 = 1 << 20;
/// Encoded payloads that wait for a sender or are on their first send, in bytes.
const READY_BYTES: u32 = 5 << 20;
/// The most sources in a batch: the header with a range for each stays far below the 8 KiB that servers take.
const SOURCES_MAX: usize = 100;
/// How long the aggregator waits before it reads again after the disk refused.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events.
    pub events: u32,
    /// Most bytes of lines, in a batch of more than one event.
    pub bytes: u64,
    /// The longest an event waits for its batch to fill.
    pub interval: Duration,
}

impl From<&Global> for Limits {
    fn from(global: &Global) -> Self {
        Self { events: global.max_batch_size, bytes: global.max_batch_bytes, interval: global.interval }
    }
}

/// The aggregator's thread.
pub(crate) struct Aggregator {
    cutter: Cutter,
    limits: Limits,
    ready: mpsc::Sender<Ready>,
    room: Arc<Semaphore>,
    encoder: Encoder,
    filling: Option<Filling>,
    group: Group,
    on_its_way: Option<OnItsWay>,
    /// The first position that is not taken up.
    next: Position,
    /// The id of what was taken up last.
    spool_id: Option<SpoolId>,
    /// Where the wait for room in memory runs.
    runtime: Handle,
}

/// A batch that is not full.
struct Filling {
    record: BatchRecord,
    spool_id: SpoolId,
    content: BatchContent,
    events: u32,
    bytes: u64,
    /// When it is cut although it is not full.
    due: Instant,
}

impl Filling {
    fn has_no_place_for(&self, source: &SourceName) -> bool {
        self.content.sources.len() >= SOURCES_MAX
            && self.content.sources.iter().all(|run| run.source != *source)
    }
}

/// Batches that are full and not cut.
struct Group {
    /// Where it begins.
    from: Position,
    /// The position after what is full or missing.
    cursor: Position,
    batches: Vec<Filling>,
    bytes: u64,
    /// Events of each source in the batches.
    events: Counts,
    /// Events that cannot be read.
    damaged: Counts,
}

impl Group {
    fn new(from: Position) -> Self {
        Self {
            from,
            cursor: from,
            batches: Vec::new(),
            bytes: 0,
            events: Counts::new(),
            damaged: Counts::new(),
        }
    }
}

/// A group whose cut is on its way to the disk.
struct OnItsWay {
    batches: Vec<Filling>,
    pending: Pending,
}

/// Why the aggregator ends.
enum End {
    /// Delivery or the spool is gone: the agent stops.
    Stopped,
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Stopped
    }
}

impl Aggregator {
    pub(crate) fn new(cutter: Cutter, limits: Limits, ready: mpsc::Sender<Ready>, runtime: Handle) -> Self {
        let next = cutter.reader.next_position();
        Self {
            encoder: Encoder::new(&cutter.profile),
            limits,
            ready,
            room: Arc::new(Semaphore::new(READY_BYTES as usize)),
            filling: None,
            group: Group::new(next),
            on_its_way: None,
            next,
            spool_id: None,
            cutter,
            runtime,
        }
    }

    /// Whether payloads are to say where each of their events ends.
    pub(crate) fn marking_ends(mut self, wanted: bool) -> Self {
        self.encoder = self.encoder.marking_ends(wanted);
        self
    }

    /// Cuts until the log is closed or delivery is gone.
    pub(crate) fn run(mut self) {
        while let Ok(caught_up) = self.turn() {
            if !caught_up || self.on_its_way.is_some() {
                continue;
            }
            let until = self.filling.as_ref().map(|filling| filling.due);
            if !self.cutter.wait(until) && self.cutter.is_closed() {
                return;
            }
        }
    }

    /// Fills a group, hands it to the ledger, and hands over the one before. Says whether everything committed was read.
    fn turn(&mut self) -> Result<bool, End> {
        let caught_up = self.fill()?;
        let now = clock::now();
        if caught_up && self.filling.as_ref().is_some_and(|filling| filling.due <= now) {
            self.finish();
        }
        let after = self.submit()?;
        if let Some(before) = std::mem::replace(&mut self.on_its_way, after) {
            self.send(before)?;
        }
        Ok(caught_up)
    }

    /// Cuts everything that is committed; what is not full waits for `interval` as ever.
    #[cfg(test)]
    pub(crate) fn catch_up(&mut self) {
        while let Ok(caught_up) = self.turn() {
            if caught_up && self.on_its_way.is_none() && !self.cutter.wait(Some(clock::now())) {
                return;
            }
        }
    }

    /// Reads until the group is full or everything committed was read; says whether it was.
    fn fill(&mut self) -> Result<bool, End> {
        while self.group.batches.len() < GROUP_MAX && self.group.bytes < GROUP_BYTES {
            match self.cutter.reader.step() {
                Ok(Step::Frame(frame)) => self.absorb(&frame),
                Ok(Step::Missing(missing)) => self.pass_over(&missing),
                Ok(Step::CaughtUp) => return Ok(true),
                Err(error) => {
                    self.cutter.say_unreadable(&error);
                    if self.cutter.pause(RETRY_EVERY) {
                        return Err(End::Stopped);
                    }
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Counts what cannot be read and goes on behind it.
    fn pass_over(&mut self, missing: &Missing) {
        self.finish();
        let owners = self.cutter.owners(missing.first.max(self.next), missing.end);
        for (source, events) in &owners {
            tracing::error!(source = source.as_str(), events, "events damaged in the spool");
            *self.group.damaged.entry(source.clone()).or_default() += events;
        }
        self.next = self.next.max(missing.end);
        self.group.cursor = self.next;
    }

    /// Adds a frame's events to the batch that is filled, finishing as many batches as they fill.
    fn absorb(&mut self, frame: &Frame) {
        if self.spool_id != Some(frame.spool_id) {
            self.finish();
            self.spool_id = Some(frame.spool_id);
        }
        // Where a restart resumes in the middle of a frame, its first events were cut before.
        let skip = self.next.since(frame.header.first_position);
        self.next = frame.header.end_position();
        let source = &frame.header.checkpoint.source;
        if self.filling.as_ref().is_some_and(|filling| filling.has_no_place_for(source)) {
            self.finish();
        }
        self.spread(frame, skip);
    }

    fn spread(&mut self, frame: &Frame, skip: u64) {
        let payload = &frame.payload;
        let path: Arc<Path> = frame.header.checkpoint.path.as_path().into();
        let total = payload.len();
        let mut left = EventIter::new(payload);
        let mut done = 0_u64;
        while done < skip && left.next().is_some() {
            done += 1;
        }
        let events = u64::from(frame.header.events);
        while done < events {
            let start = total - left.rest().len();
            let (room_events, room_bytes) = self.room();
            let whole_bytes = (left.rest().len() as u64).saturating_sub(4 * (events - done));
            let (count, bytes) = if events - done <= u64::from(room_events) && whole_bytes <= room_bytes {
                left = EventIter::new(&[]);
                (events - done, whole_bytes)
            } else {
                take_events(&mut left, room_events, room_bytes, self.filling.is_none())
            };
            if count == 0 {
                if self.filling.is_none() {
                    return;
                }
                self.finish();
                continue;
            }
            let end = total - left.rest().len();
            let slice = FrameSlice {
                payload: payload.clone(),
                range: start..end,
                detected: frame.header.detected,
                path: path.clone(),
            };
            self.add(frame, done, count, bytes, slice);
            done += count;
        }
    }

    /// How many events and bytes the batch that is filled still takes.
    fn room(&self) -> (u32, u64) {
        match &self.filling {
            None => (self.limits.events, self.limits.bytes),
            Some(filling) => (
                self.limits.events.saturating_sub(filling.events),
                self.limits.bytes.saturating_sub(filling.bytes),
            ),
        }
    }

    fn add(&mut self, frame: &Frame, skip: u64, count: u64, bytes: u64, slice: FrameSlice) {
        let first = frame.header.first_position.plus(skip);
        let last = Position(first.0 + count - 1);
        let due = self.limits.interval;
        let filling = self.filling.get_or_insert_with(|| Filling {
            record: BatchRecord { id: BatchId { first, last, part: None }, at: frame.at },
            spool_id: frame.spool_id,
            content: BatchContent::default(),
            events: 0,
            bytes: 0,
            due: clock::now() + due,
        });
        filling.record.id.last = last;
        filling.bytes += bytes;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        filling.events = filling.events.saturating_add(count);
        let seq = frame.header.first_seq.plus(skip);
        filling.content.push(&frame.header.checkpoint.source, seq, count, slice);
        if filling.events >= self.limits.events || filling.bytes >= self.limits.bytes {
            self.finish();
        }
    }

    /// Ends the batch that is filled.
    fn finish(&mut self) {
        let Some(filling) = self.filling.take() else { return };
        let group = &mut self.group;
        for run in &filling.content.sources {
            *group.events.entry(run.source.clone()).or_default() += u64::from(run.events);
        }
        group.cursor = filling.record.id.last.plus(1);
        group.bytes += filling.bytes;
        group.batches.push(filling);
    }

    /// Hands the finished batches to the ledger.
    fn submit(&mut self) -> Result<Option<OnItsWay>, End> {
        if self.group.cursor == self.group.from {
            return Ok(None);
        }
        let next = Group::new(self.group.cursor);
        let group = std::mem::replace(&mut self.group, next);
        let cut = Cut {
            from: group.from,
            batches: group.batches.iter().map(|batch| batch.record).collect(),
            cursor: group.cursor,
            events: group.events,
            damaged: group.damaged,
        };
        let pending = self.cutter.keeper.cut(cut)?;
        Ok(Some(OnItsWay { batches: group.batches, pending }))
    }

    /// Waits until the cut is durable, then encodes and hands over its batches.
    fn send(&mut self, OnItsWay { batches, pending }: OnItsWay) -> Result<(), End> {
        match pending.wait()? {
            CutOutcome::Durable => batches.into_iter().try_for_each(|batch| self.hand_over(batch)),
            CutOutcome::Moved(position) => {
                self.cutter.move_to(position);
                self.filling = None;
                self.group = Group::new(position);
                self.next = position;
                Ok(())
            }
        }
    }

    fn hand_over(&mut self, batch: Filling) -> Result<(), End> {
        let estimate = batch.bytes.saturating_add(self.encoder.event_overhead() * u64::from(batch.events));
        let room = self.take_room(estimate)?;
        let payload = encode(&self.encoder, batch.record.id, batch.spool_id, &batch.content);
        drop(batch);
        self.ready.blocking_send(Ready { payload, room: Box::new(room) }).map_err(|_| End::Stopped)
    }

    /// Waits for room in memory; a payload larger than all of it takes all of it.
    fn take_room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, End> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, READY_BYTES);
        let room = self.room.clone();
        if let Ok(permit) = room.clone().try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        let acquire = async {
            tokio::select! {
                permit = room.acquire_many_owned(permits) => permit.ok(),
                () = self.ready.closed() => None,
            }
        };
        self.runtime.block_on(acquire).ok_or(End::Stopped)
    }
}

/// Takes events while they fit, and at least one where the batch is empty. Says how many and their bytes.
fn take_events(left: &mut EventIter<'_>, events: u32, bytes: u64, empty: bool) -> (u64, u64) {
    let (mut count, mut taken) = (0, 0);
    while count < u64::from(events) {
        let mut ahead = left.clone();
        let Some(event) = ahead.next() else { break };
        let len = event.line.len() as u64;
        if taken + len > bytes && !(empty && count == 0) {
            break;
        }
        *left = ahead;
        count += 1;
        taken += len;
    }
    (count, taken)
}

/// Encodes a batch.
pub(crate) fn encode(
    encoder: &Encoder,
    batch: BatchId,
    spool_id: SpoolId,
    content: &BatchContent,
) -> Payload {
    let mut body = Vec::new();
    let ends = encoder.encode(&spool_id.to_string(), content, &mut body);
    Payload {
        batch,
        key: format!("{spool_id}-{batch}{}", encoder.key_suffix()).into(),
        agent: Arc::clone(encoder.agent_name()),
        sources: content.ranges(),
        content_type: encoder.content_type(),
        body: Bytes::from(body),
        ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FrameSink as _;
    use crate::spool::tests::{append, committed, draft, options};
    use crate::spool::{Spool, inspect};

    /// A spool and an aggregator that is run by hand.
    struct Rig {
        root: tempfile::TempDir,
        spool: Spool,
        aggregator: Aggregator,
        ready: mpsc::Receiver<Ready>,
        runtime: tokio::runtime::Runtime,
    }

    impl Rig {
        fn new(limits: Limits) -> Self {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(&options(root.path())).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (sender, ready) = mpsc::channel(1000);
            let aggregator = Aggregator::new(spool.cutter(), limits, sender, runtime.handle().clone());
            Self { root, spool, aggregator, ready, runtime }
        }

        fn restart(self, limits: Limits) -> Self {
            self.restart_after(limits, |_| {})
        }

        fn restart_after(self, limits: Limits, change: impl FnOnce(&std::path::Path)) -> Self {
            let Self { root, spool, aggregator, ready, runtime } = self;
            drop((aggregator, ready));
            spool.close();
            change(root.path());
            let spool = Spool::open(&options(root.path())).unwrap();
            let (sender, ready) = mpsc::channel(1000);
            let aggregator = Aggregator::new(spool.cutter(), limits, sender, runtime.handle().clone());
            Self { root, spool, aggregator, ready, runtime }
        }

        /// The batches that are handed over now, with the ranges of their sources.
        fn batches(&mut self) -> Vec<(String, String)> {
            self.aggregator.catch_up();
            let mut batches = Vec::new();
            while let Ok(Ready { payload, .. }) = self.ready.try_recv() {
                batches.push((payload.batch.to_string(), payload.seq_header()));
            }
            batches
        }
    }

    fn limits(events: u32, bytes: u64, interval: Duration) -> Limits {
        Limits { events, bytes, interval }
    }

    fn of(batches: &[(&str, &str)]) -> Vec<(String, String)> {
        batches.iter().map(|(batch, seqs)| ((*batch).to_owned(), (*seqs).to_owned())).collect()
    }

    const NEVER: Duration = Duration::from_secs(1000);

    #[test]
    fn a_batch_is_full_by_events_or_by_bytes_and_otherwise_waits_for_the_interval() {
        let mut rig = Rig::new(limits(4, 1000, NEVER));
        append(&rig.spool, "app", 0, 6);
        append(&rig.spool, "web", 0, 3);
        committed(&rig.spool, 10);
        assert_eq!(rig.batches(), of(&[("1-4", "1-4"), ("5-8", "5-6, 1-2")]), "the last event waits");
        // Lines of 11 bytes: a batch takes as many as fit.
        let mut rig = Rig::new(limits(100, 25, NEVER));
        append(&rig.spool, "app", 0, 5);
        committed(&rig.spool, 6);
        assert_eq!(rig.batches(), of(&[("1-2", "1-2"), ("3-4", "3-4")]));
        // One that is larger than the limit goes alone.
        let mut rig = Rig::new(limits(100, 5, Duration::ZERO));
        append(&rig.spool, "app", 0, 2);
        committed(&rig.spool, 3);
        assert_eq!(rig.batches(), of(&[("1-1", "1-1"), ("2-2", "2-2")]));
        let mut rig = Rig::new(limits(100, 1000, Duration::ZERO));
        append(&rig.spool, "app", 0, 2);
        committed(&rig.spool, 3);
        assert_eq!(rig.batches(), of(&[("1-2", "1-2")]), "the interval is over");
    }

    #[test]
    fn after_a_restart_cutting_goes_on_within_a_frame_and_what_was_not_cut_is_cut_now() {
        let mut rig = Rig::new(limits(4, 1000, NEVER));
        append(&rig.spool, "app", 0, 6);
        committed(&rig.spool, 7);
        assert_eq!(rig.batches(), of(&[("1-4", "1-4")]));
        let mut rig = rig.restart(limits(3, 1000, NEVER));
        append(&rig.spool, "app", 6, 2);
        committed(&rig.spool, 9);
        assert_eq!(rig.batches(), of(&[("5-7", "5-7")]));
    }

    #[test]
    fn frames_without_events_cut_nothing_and_hold_nothing_up() {
        let mut rig = Rig::new(limits(4, 1000, Duration::ZERO));
        rig.spool.appender().append(draft("app", 0, &[])).unwrap();
        append(&rig.spool, "app", 0, 1);
        rig.spool.appender().append(draft("web", 0, &[])).unwrap();
        append(&rig.spool, "app", 1, 1);
        committed(&rig.spool, 3);
        assert_eq!(rig.batches(), of(&[("1-2", "1-2")]));
        assert_eq!(rig.batches(), []);
    }

    #[test]
    fn a_batch_ends_where_events_are_damaged_and_they_are_counted_once() {
        let mut rig = Rig::new(limits(100, 10_000, Duration::ZERO));
        for (frame, (source, from)) in (1..).zip([("app", 0), ("web", 0), ("app", 3), ("app", 6)]) {
            append(&rig.spool, source, from, 3);
            committed(&rig.spool, frame * 3 + 1);
        }
        let path = rig.root.path().join("segments/00000000000000000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        // The header of the only frame of `web`.
        let at = bytes.windows(19).position(|window| window == b"web/var/log/web.log").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(rig.batches(), of(&[("1-3", "1-3"), ("7-12", "4-9")]));
        let mut rig = rig.restart(limits(100, 10_000, Duration::ZERO));
        assert_eq!(rig.batches(), []);
        let Rig { root, spool, aggregator, .. } = rig;
        drop(aggregator);
        spool.close();
        let report = inspect::report(root.path()).unwrap();
        assert!(report.balanced, "{report:#?}");
        assert_eq!(report.sources.iter().map(|source| source.damaged).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(report.backlog.events, 9);
    }

    #[test]
    fn a_batch_never_spans_two_spool_ids_nor_more_sources_than_a_header_takes() {
        let mut rig = Rig::new(limits(1000, 10_000, Duration::ZERO));
        let sources = SOURCES_MAX + 1;
        for source in 0..sources {
            append(&rig.spool, &source.to_string(), 0, 1);
        }
        committed(&rig.spool, sources as u64 + 1);
        let batches: Vec<_> = rig.batches().into_iter().map(|(batch, _)| batch).collect();
        assert_eq!(batches, ["1-100", "101-101"]);
        append(&rig.spool, "old", 0, 2);
        committed(&rig.spool, sources as u64 + 3);
        let before = rig.spool.id();
        // Without its ledger, and with a torn end, the spool cannot know what was sent.
        let mut rig = rig.restart_after(limits(1000, 10_000, Duration::ZERO), |dir| {
            std::fs::remove_dir_all(dir.join("ledger")).unwrap();
            let mut options = std::fs::File::options();
            let path = dir.join("segments/00000000000000000001.seg");
            std::io::Write::write_all(&mut options.append(true).open(path).unwrap(), b"torn").unwrap();
        });
        assert_ne!(rig.spool.id(), before);
        append(&rig.spool, "old", 2, 2);
        committed(&rig.spool, sources as u64 + 5);
        let batches = rig.batches();
        assert_eq!(batches[1..], of(&[("101-103", "1-1, 1-2"), ("104-105", "1-2")]));
        assert_eq!(batches[0].0, "1-100");
    }

    #[test]
    fn what_is_dropped_under_the_aggregator_is_not_cut_and_what_follows_is() {
        let root = tempfile::tempdir().unwrap();
        let one_frame = crate::spool::SpoolOptions { segment_bytes: 1, ..options(root.path()) };
        let spool = Spool::open(&one_frame).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sender, ready) = mpsc::channel(1000);
        let aggregator = Aggregator::new(
            spool.cutter(),
            limits(4, 1000, Duration::ZERO),
            sender,
            runtime.handle().clone(),
        );
        let mut rig = Rig { root, spool, aggregator, ready, runtime };
        for step in 0..4 {
            append(&rig.spool, "app", step * 6, 6);
            committed(&rig.spool, step * 6 + 7);
        }
        // It has read everything and cut nothing when the two oldest segments go.
        assert!(matches!(rig.aggregator.fill(), Ok(true)));
        let keeper = rig.aggregator.cutter.keeper.clone();
        assert!(keeper.drop_oldest() && keeper.drop_oldest());
        assert_eq!(rig.batches(), of(&[("13-16", "13-16"), ("17-20", "17-20"), ("21-24", "21-24")]));
        rig.spool.close();
        assert!(inspect::report(rig.root.path()).unwrap().balanced);
    }
}

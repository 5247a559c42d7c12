//! Delivery against an outbox in memory and a server that answers as told, under paused time: hours pass at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use proptest::prelude::{Just, ProptestConfig, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;
use tokio::sync::Notify;

use super::*;
use crate::batch::SourceRange;
use crate::event::{Position, Seq, SourceName};
use crate::send::{Outcome, Strategy};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Events in each batch that [`World::cut`] makes.
const EVENTS: u64 = 8;

/// What the server does with a request: how long it takes and what it answers.
type Answer = Box<dyn Fn(&Request) -> (Duration, Outcome) + Send + Sync>;

/// One request as the server saw it.
#[derive(Clone, Debug)]
struct Request {
    at: Duration,
    batch: BatchId,
    events: Vec<u64>,
}

/// The spool and the server in one, and what they saw.
struct World {
    start: Instant,
    answer: Answer,
    state: Mutex<Seen>,
    done: Notify,
}

#[derive(Default)]
struct Seen {
    /// Batches in the ledger.
    live: BTreeSet<BatchId>,
    /// Batches that cannot be loaded, and what takes their place.
    damaged: BTreeMap<BatchId, Vec<BatchId>>,
    closed: bool,
    requests: Vec<Request>,
    acknowledged: Vec<u64>,
    dead: BTreeMap<u64, u16>,
    in_flight: usize,
    most_in_flight: usize,
    /// The most in flight, by the second in which they were.
    most_by_second: BTreeMap<u64, usize>,
    next_position: u64,
}

impl World {
    fn new(answer: impl Fn(&Request) -> (Duration, Outcome) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            start: clock::timer_now(),
            answer: Box::new(answer),
            state: Mutex::new(Seen { next_position: 1, ..Seen::default() }),
            done: Notify::new(),
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        clock::timer_now() - self.start
    }

    /// Cuts `count` batches of [`EVENTS`] events each.
    fn cut(&self, count: usize) -> Vec<BatchId> {
        let mut seen = self.seen();
        let cut = |_| {
            let first = Position(seen.next_position);
            seen.next_position += EVENTS;
            let batch = BatchId { first, last: first.plus(EVENTS - 1), part: None };
            seen.live.insert(batch);
            batch
        };
        (0..count).map(cut).collect()
    }

    /// Delivers `recovered` and `ready` until every event is acknowledged or dead, or `limit` has passed.
    async fn deliver(
        self: &Arc<Self>,
        policy: Policy,
        recovered: Vec<BatchId>,
        ready: Vec<BatchId>,
        limit: Duration,
    ) -> Arc<DeliveryCounters> {
        let (sender, receiver) = mpsc::channel(4);
        let rooms = Arc::new(AtomicUsize::new(0));
        let world = Arc::clone(self);
        let in_room = Arc::clone(&rooms);
        let feeder = tokio::spawn(async move {
            for batch in ready {
                let room = Box::new(Room::enter(&in_room));
                let payload = payload_of(batch);
                if sender.send(Ready { payload, room }).await.is_err() {
                    return;
                }
            }
            // The aggregator stays for as long as the agent runs.
            sender.closed().await;
        });
        let delivery = self.delivery(policy);
        let counters = delivery.counters();
        let stop = async { _ = tokio::time::timeout(limit, world.done.notified()).await };
        delivery.run(recovered, receiver, stop).await.unwrap();
        feeder.await.unwrap();
        assert_eq!(rooms.load(SeqCst), 0, "every room was given back");
        counters
    }

    fn delivery(self: &Arc<Self>, policy: Policy) -> Delivery {
        let mut delivery = Delivery::new(Arc::clone(self) as _, Arc::clone(self) as _, policy);
        delivery.jitter = Jitter::seeded(1);
        delivery
    }

    /// The times at which `batch` was sent.
    fn sends_of(&self, batch: BatchId) -> Vec<Duration> {
        self.seen()
            .requests
            .iter()
            .filter(|request| request.batch == batch)
            .map(|request| request.at)
            .collect()
    }

    fn assert_all_acknowledged_once(&self) {
        let seen = self.seen();
        let mut acknowledged = seen.acknowledged.clone();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, (1..seen.next_position).collect::<Vec<_>>());
        assert!(seen.live.is_empty() && seen.dead.is_empty());
    }

    fn finish(&self, seen: &Seen) {
        if seen.live.is_empty() {
            self.done.notify_one();
        }
    }
}

/// Counts itself while it lives.
struct Room(Arc<AtomicUsize>);

impl Room {
    fn enter(rooms: &Arc<AtomicUsize>) -> Self {
        rooms.fetch_add(1, SeqCst);
        Self(Arc::clone(rooms))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The events of a batch, by position.
fn events_of(batch: BatchId) -> Vec<u64> {
    let part = batch.part.map_or((0, batch.events()), |part| (part.from.into(), part.to.into()));
    (batch.first.0 + part.0..batch.first.0 + part.1).collect()
}

fn payload_of(batch: BatchId) -> Payload {
    let events = events_of(batch);
    let range = SourceRange {
        source: SourceName::from("app"),
        first: Seq(*events.first().unwrap()),
        last: Seq(*events.last().unwrap()),
    };
    Payload {
        batch,
        key: Arc::from(batch.to_string()),
        agent: Arc::from("agent"),
        sources: vec![range],
        content_type: "text/plain",
        ends: Vec::new(),
        body: Bytes::from(format!("{events:?}")),
    }
}

impl Outbox for World {
    fn load(&self, batch: BatchId) -> Result<Payload, OutboxError> {
        let mut seen = self.seen();
        if seen.closed {
            return Err(OutboxError::Closed);
        }
        assert!(seen.live.contains(&batch), "{batch} is not in the ledger");
        if let Some(replacements) = seen.damaged.remove(&batch) {
            seen.live.remove(&batch);
            seen.live.extend(&replacements);
            self.finish(&seen);
            return Err(OutboxError::Replaced(replacements));
        }
        Ok(payload_of(batch))
    }

    fn acknowledge(&self, payload: &Payload) {
        let mut seen = self.seen();
        assert!(seen.live.remove(&payload.batch), "{} acknowledged twice", payload.batch);
        seen.acknowledged.extend(events_of(payload.batch));
        self.finish(&seen);
    }

    fn bisect(&self, batch: BatchId) -> Result<[BatchId; 2], OutboxError> {
        let mut seen = self.seen();
        assert!(seen.live.remove(&batch), "{batch} is not in the ledger");
        let halves = batch.halves().unwrap();
        seen.live.extend(halves);
        Ok(halves)
    }

    fn bury(&self, payload: &Payload, status: u16, _response: &str) -> Result<(), OutboxError> {
        let mut seen = self.seen();
        assert!(seen.live.remove(&payload.batch), "{} is not in the ledger", payload.batch);
        let events = events_of(payload.batch);
        assert_eq!(events.len(), 1, "only a single event is buried");
        assert_eq!(seen.dead.insert(events[0], status), None);
        self.finish(&seen);
        Ok(())
    }
}

impl Strategy for World {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let events = events_of(payload.batch);
            let request = Request { at: self.elapsed(), batch: payload.batch, events };
            let (takes, outcome) = {
                let mut seen = self.seen();
                seen.in_flight += 1;
                seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
                let now_in_flight = seen.in_flight;
                let most = seen.most_by_second.entry(request.at.as_secs()).or_default();
                *most = (*most).max(now_in_flight);
                seen.requests.push(request.clone());
                (self.answer)(&request)
            };
            tokio::time::sleep(takes).await;
            self.seen().in_flight -= 1;
            outcome
        })
    }
}

fn policy(max_send_task: usize) -> Policy {
    Policy {
        max_send_task,
        retry_count: 3,
        backoff: Backoff::new(100 * MS, Backoff::CAP, JITTER).unwrap(),
        shutdown: 5 * SECOND,
    }
}

fn retry() -> Outcome {
    Outcome::Retry { after: None, reason: "503".into() }
}

fn fault() -> Outcome {
    Outcome::EndpointFault { reason: "401".into() }
}

fn rejected() -> Outcome {
    Outcome::Rejected { status: 400, response: "no".into() }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn every_batch_is_acknowledged_once_within_the_bound_of_requests() {
    let world = World::new(|_| (10 * MS, Outcome::Acknowledged));
    let (recovered, ready) = (world.cut(40), world.cut(200));
    let counters = world.deliver(policy(3), recovered.clone(), ready, HOUR).await;
    world.assert_all_acknowledged_once();
    assert!(world.seen().most_in_flight <= 6);
    let requests = world.seen().requests.clone();
    let first_ready = requests.iter().position(|request| request.batch > recovered[39]).unwrap();
    // The last three may still be on their way from the disk when the first new one goes.
    assert!(first_ready >= 37, "what was there before the restart goes first, not {first_ready} of it");
    let snapshot = counters.snapshot();
    assert_eq!((snapshot.acknowledged_batches, snapshot.acknowledged_events), (240, 240 * EVENTS));
    assert_eq!((snapshot.retries, snapshot.waiting, snapshot.dead), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn with_one_task_no_batch_overtakes_another() {
    let failures = AtomicUsize::new(0);
    let world = World::new(move |request| {
        // Every third request fails, and one event of every fifth batch is refused.
        let outcome = match failures.fetch_add(1, SeqCst) % 3 {
            0 => retry(),
            _ if request.events.contains(&37) => rejected(),
            _ => Outcome::Acknowledged,
        };
        (10 * MS, outcome)
    });
    let (recovered, ready) = (world.cut(10), world.cut(50));
    world.deliver(policy(1), recovered, ready, HOUR).await;
    let seen = world.seen();
    assert_eq!(seen.most_in_flight, 1);
    assert_eq!(seen.dead.keys().collect::<Vec<_>>(), [&37]);
    let expected: Vec<u64> = (1..seen.next_position).filter(|event| *event != 37).collect();
    assert_eq!(seen.acknowledged, expected, "in order");
    assert!(seen.requests.windows(2).all(|pair| pair[0].events[0] <= pair[1].events[0]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_keeps_failing_is_parked_and_never_given_up_while_others_go_on() {
    let world = World::new(|request| {
        let bad = request.events.contains(&1) && request.at < HOUR;
        (SECOND / 10, if bad { retry() } else { Outcome::Acknowledged })
    });
    // Enough others to keep two tasks busy for a quarter of an hour.
    let ready = world.cut(20_000);
    let bad = ready[0];
    world.deliver(policy(2), vec![], ready, 2 * HOUR).await;
    world.assert_all_acknowledged_once();
    let sends = world.sends_of(bad);
    let gaps: Vec<Duration> = sends.windows(2).map(|pair| pair[1] - pair[0] - SECOND / 10).collect();
    for (gap, most) in gaps.iter().zip([100, 200, 400]) {
        assert!((MS * most / 2..=MS * most + 2 * MS).contains(gap), "{gap:?} of at most {most} ms");
    }
    let parked_while_others_flow = gaps.iter().skip(3).take(20);
    for gap in parked_while_others_flow {
        assert!((15 * SECOND..=31 * SECOND).contains(gap), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hours_of_an_outage_cost_one_request_a_cadence_however_large_the_backlog() {
    const OUTAGE: Duration = Duration::from_secs(6 * 3600);
    let world = World::new(|request| (MS, if request.at < OUTAGE { retry() } else { Outcome::Acknowledged }));
    let (recovered, ready) = (world.cut(6000), world.cut(100));
    world.deliver(policy(5), recovered, ready, 2 * OUTAGE).await;
    world.assert_all_acknowledged_once();
    let seen = world.seen();
    let requests = seen.requests.iter().filter(|request| request.at < OUTAGE).count() as u64;
    let slowest = OUTAGE.as_secs() / 30;
    assert!((slowest..2 * slowest + 20).contains(&requests), "{requests} requests");
    let settled = seen.most_by_second.range(5..OUTAGE.as_secs()).map(|(_, most)| *most).max();
    assert_eq!(settled, Some(1), "one probe at a time");
    let noticed = seen.requests.iter().find(|request| request.at >= OUTAGE).unwrap().at;
    assert!(noticed - OUTAGE <= 31 * SECOND, "{noticed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_outage_left_waiting_goes_out_as_soon_as_it_is_over() {
    let world = World::new(|request| (MS, if request.at < HOUR { retry() } else { Outcome::Acknowledged }));
    let ready = world.cut(50);
    world.deliver(policy(5), vec![], ready, 2 * HOUR).await;
    world.assert_all_acknowledged_once();
    let seen = world.seen();
    let first = seen.requests.iter().find(|request| request.at >= HOUR).unwrap().at;
    let last = seen.requests.last().unwrap().at;
    assert!(last - first < SECOND, "from {first:?} to {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_gets_one_then_two_then_four_requests_at_a_time() {
    let up = 100 * SECOND;
    let world = World::new(
        move |request| {
            if request.at < up { (MS, retry()) } else { (SECOND, Outcome::Acknowledged) }
        },
    );
    let ready = world.cut(300);
    world.deliver(policy(8), vec![], ready, HOUR).await;
    world.assert_all_acknowledged_once();
    let seen = world.seen();
    let back = seen.requests.iter().find(|request| request.at >= up).unwrap().at;
    let in_flight_at = |time: Duration| {
        let busy =
            |request: &&Request| request.at >= back && request.at <= time && time < request.at + SECOND;
        seen.requests.iter().filter(busy).count()
    };
    let course: Vec<usize> = (0..4).map(|second| in_flight_at(back + second * SECOND + SECOND / 2)).collect();
    // The probe allows one, its success two, and the success of each of those doubles that.
    assert_eq!(course, [1, 1, 2, 8]);
}

#[tokio::test(start_paused = true)]
async fn bisecting_buries_the_event_at_fault_and_delivers_its_neighbours() {
    let bad = [13, 14, 29];
    let world = World::new(move |request| {
        let refused = request.events.iter().any(|event| bad.contains(event));
        (MS, if refused { rejected() } else { Outcome::Acknowledged })
    });
    let ready = world.cut(10);
    let counters = world.deliver(policy(4), vec![], ready, HOUR).await;
    let seen = world.seen();
    assert_eq!(seen.dead, bad.map(|event| (event, 400)).into());
    let acknowledged: BTreeSet<u64> = seen.acknowledged.iter().copied().collect();
    let expected: BTreeSet<u64> = (1..=80).filter(|event| !bad.contains(event)).collect();
    assert_eq!((seen.acknowledged.len(), acknowledged), (expected.len(), expected));
    assert_eq!(counters.snapshot().dead, 3);
    assert!(seen.requests.len() < 40, "{} requests", seen.requests.len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_is_left_alone_for_that_long() {
    let world = World::new(|request| {
        let busy = Outcome::Retry { after: Some(40 * SECOND), reason: "429".into() };
        (MS, if request.at < SECOND { busy } else { Outcome::Acknowledged })
    });
    let ready = world.cut(100);
    world.deliver(policy(2), vec![], ready, HOUR).await;
    world.assert_all_acknowledged_once();
    let seen = world.seen();
    let second_wave = seen.requests.iter().find(|request| request.at >= SECOND).unwrap();
    assert!(second_wave.at >= 40 * SECOND, "{:?}", second_wave.at);
    assert!(seen.requests.iter().filter(|request| request.at < SECOND).count() <= 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_fault_loses_nothing_keeps_quiet_and_heals_by_itself() {
    let world = World::new(|request| (MS, if request.at < HOUR { fault() } else { Outcome::Acknowledged }));
    let ready = world.cut(100);
    world.deliver(policy(2), vec![], ready, 2 * HOUR).await;
    world.assert_all_acknowledged_once();
    let seen = world.seen();
    let during = seen.requests.iter().filter(|request| request.at < HOUR).count();
    assert!((120..260).contains(&during), "{during} requests in an hour");
    let noticed = seen.requests.iter().find(|request| request.at >= HOUR).unwrap().at;
    assert!(noticed - HOUR <= 31 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_batch_that_a_filter_refuses_does_not_hold_up_the_others() {
    for poison in [retry(), fault()] {
        let outcome = poison.clone();
        let world = World::new(move |request| {
            (MS, if request.events.contains(&1) { outcome.clone() } else { Outcome::Acknowledged })
        });
        // The bad one first and alone, until the breaker has opened for it; then others, far apart.
        let recovered = world.cut(1);
        let (sender, receiver) = mpsc::channel(1);
        let stopped = Arc::new(Notify::new());
        let running = tokio::spawn({
            let (delivery, stopped) = (world.delivery(policy(2)), Arc::clone(&stopped));
            async move { delivery.run(recovered, receiver, async move { stopped.notified().await }).await }
        });
        let mut waits = Vec::new();
        for batch in world.cut(50) {
            tokio::time::sleep(60 * SECOND).await;
            let given = world.elapsed();
            let ready = Ready { payload: payload_of(batch), room: Box::new(()) };
            sender.send(ready).await.ok().unwrap();
            while world.seen().live.contains(&batch) {
                tokio::time::sleep(10 * MS).await;
            }
            waits.push(world.elapsed() - given);
        }
        stopped.notify_one();
        running.await.unwrap().unwrap();
        assert!(waits.iter().all(|wait| *wait <= 61 * SECOND), "{poison:?}: {waits:?}");
        let prompt = waits.iter().filter(|wait| **wait < SECOND).count();
        assert!(prompt >= 45, "{poison:?}: {waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_replaced_by_what_is_left_of_it() {
    let world = World::new(|_| (MS, Outcome::Acknowledged));
    let recovered = world.cut(3);
    let whole = recovered[1];
    let rest =
        [BatchId { last: whole.first.plus(2), ..whole }, BatchId { first: whole.first.plus(5), ..whole }];
    world.seen().damaged.insert(whole, rest.to_vec());
    world.seen().damaged.insert(recovered[2], vec![]);
    world.deliver(policy(1), recovered, vec![], HOUR).await;
    let seen = world.seen();
    assert!(seen.live.is_empty());
    assert_eq!(seen.acknowledged, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_spool_ends_delivery_with_an_error() {
    let world = World::new(|_| (MS, Outcome::Acknowledged));
    let recovered = world.cut(3);
    world.seen().closed = true;
    let (_sender, receiver) = mpsc::channel(1);
    let result = world.delivery(policy(2)).run(recovered, receiver, std::future::pending()).await;
    assert!(matches!(result, Err(DeliveryError::Outbox(OutboxError::Closed))));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_requests_in_flight_finish_and_starts_no_other() {
    let world = World::new(|_| (3 * SECOND, Outcome::Acknowledged));
    let ready = world.cut(100);
    world.deliver(policy(4), vec![], ready, SECOND).await;
    assert_eq!(world.elapsed(), 3 * SECOND);
    let seen = world.seen();
    assert_eq!((seen.requests.len(), seen.acknowledged.len() as u64), (4, 4 * EVENTS));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_server_that_hangs() {
    let world = World::new(|_| (HOUR, Outcome::Acknowledged));
    let ready = world.cut(100);
    world.deliver(policy(4), vec![], ready, SECOND).await;
    assert_eq!(world.elapsed(), 6 * SECOND, "a second until the stop, five of grace");
}

#[tokio::test(start_paused = true)]
async fn first_sends_pause_while_as_many_batches_wait_as_may() {
    let world = World::new(|_| (MS, Outcome::Acknowledged));
    let mut delivery = world.delivery(policy(2));
    let now = clock::timer_now();
    let due = now + SECOND;
    for batch in world.cut(WAITING_MAX) {
        delivery.waiting.push(Waiting { batch, attempts: 1, due });
    }
    let Plan::Wait { until, first } = delivery.plan(now, true) else { panic!("nothing is due") };
    assert_eq!((until, first), (Some(due), None));
    delivery.waiting.pop();
    let Plan::Wait { first, .. } = delivery.plan(now, true) else { panic!("nothing is due") };
    assert_eq!(first, Some(Admitted { probe: false }));
}

#[tokio::test(start_paused = true)]
async fn an_idle_delivery_sets_no_timer() {
    let world = World::new(|_| (MS, Outcome::Acknowledged));
    let mut delivery = world.delivery(policy(2));
    let Plan::Wait { until, first } = delivery.plan(clock::timer_now(), false) else {
        panic!("nothing to send")
    };
    assert_eq!((until, first), (None, Some(Admitted { probe: false })));
}

fn any_outcome() -> impl Generator<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Acknowledged),
        3 => Just(retry()),
        1 => (0..100_u64).prop_map(|seconds| Outcome::Retry {
            after: Some(Duration::from_secs(seconds)),
            reason: "429".into()
        }),
        1 => Just(fault()),
        2 => Just(rejected()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_server_answers_every_event_is_acknowledged_or_dead_exactly_once(
        outcomes in proptest::collection::vec((any_outcome(), 0..5_000_u64), 0..200),
        (recovered, ready) in (0..8_usize, 0..12_usize),
        max_send_task in 1..5_usize,
        retry_count in 0..5_u32,
        damaged in proptest::collection::vec(0..8_usize, 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = Mutex::new(outcomes.into_iter());
            let world = World::new(move |_| match script.lock().unwrap().next() {
                Some((outcome, millis)) => (Duration::from_millis(millis), outcome),
                None => (MS, Outcome::Acknowledged),
            });
            let (recovered, ready) = (world.cut(recovered), world.cut(ready));
            let mut gone = 0;
            let picked: BTreeSet<usize> = damaged.into_iter().collect();
            for whole in picked.iter().filter_map(|index| recovered.get(*index)) {
                let rest = BatchId { first: whole.first.plus(2), ..*whole };
                gone += 2;
                world.seen().damaged.insert(*whole, vec![rest]);
            }
            let expected = world.seen().next_position - 1 - gone;
            if expected > 0 {
                let policy = Policy { retry_count, ..policy(max_send_task) };
                world.deliver(policy, recovered, ready, 1000 * HOUR).await;
            }
            let seen = world.seen();
            assert!(seen.live.is_empty(), "left behind: {:?}", seen.live);
            let mut ends: Vec<u64> = seen.acknowledged.iter().chain(seen.dead.keys()).copied().collect();
            ends.sort_unstable();
            ends.dedup();
            let all = seen.acknowledged.len() + seen.dead.len();
            assert_eq!((ends.len(), all as u64), (all, expected));
            let most = if max_send_task == 1 { 1 } else { 2 * max_send_task };
            assert!(seen.most_in_flight <= most);
            if max_send_task == 1 {
                assert!(seen.acknowledged.is_sorted(), "in order: {:?}", seen.acknowledged);
            }
        });
    }
}

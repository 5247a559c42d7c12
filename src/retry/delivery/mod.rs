//! The delivery loop: one task that decides what is sent when, and as many sends as the configuration allows.
//!
//! Invariants:
//! - All state belongs to the task that runs [`Delivery::run`]; sends only report their end to it. There is no lock,
//!   and nothing it decides spans an `.await`.
//! - At most `max_send_task` first sends and `max_send_task` replays are in flight. With `max_send_task = 1` there is
//!   one request at a time in all, and none while an older batch is neither acknowledged nor dead.
//! - First sends wait while a batch from before the restart was not tried yet, and while [`WAITING_MAX`] batches wait.
//! - When nothing waits and nothing is in flight, no timer runs.

mod attempt;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;

use self::attempt::{Done, End, Job, Ways};
use super::backoff::{Backoff, BackoffError, Jitter};
use super::breaker::{Admission, Blame, Breaker, Failure};
use super::counters::DeliveryCounters;
use super::notices::Notices;
use super::waiting::{Order, Waiting, WaitingQueue};
use super::{Outbox, OutboxError};
use crate::batch::{BatchId, Payload};
use crate::clock;
use crate::config::Global;
use crate::send::Strategy;

/// First sends pause while so many batches wait for a replay. A waiting batch takes about 100 bytes here.
pub const WAITING_MAX: usize = 4096;
/// The most failures in a row before the circuit breaker opens.
const OPEN_AFTER_MAX: u32 = 5;
/// How much of a delay jitter may take away.
const JITTER: f64 = 0.5;

/// A batch that was just cut and encoded, for its first send.
pub struct Ready {
    /// The batch.
    pub payload: Payload,
    /// The room that the payload takes in memory, given back by dropping it when the first send is over.
    pub room: Box<dyn Send>,
}

/// The numbers that delivery goes by.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Most first sends, and most replays, in flight; at least 1. With 1, batches go strictly in order.
    pub max_send_task: usize,
    /// Quick retries before a batch is parked.
    pub retry_count: u32,
    /// The delays between attempts.
    pub backoff: Backoff,
    /// How long requests in flight may finish on a stop.
    pub shutdown: Duration,
}

impl Policy {
    /// The policy of a configuration. A `retry_delay` above the cap is its own cap.
    ///
    /// # Errors
    /// [`BackoffError`] where `retry_delay` is zero.
    pub fn new(global: &Global) -> Result<Self, BackoffError> {
        Ok(Self {
            max_send_task: global.max_send_task.max(1),
            retry_count: global.retry_count,
            backoff: Backoff::new(global.retry_delay, Backoff::CAP.max(global.retry_delay), JITTER)?,
            shutdown: global.shutdown,
        })
    }

    /// So many failures in a row open the breaker: a batch alone opens it when it is out of quick retries, so that
    /// from then on the endpoint is probed at delays that go on growing.
    fn open_after(&self) -> u32 {
        self.retry_count.saturating_add(1).min(OPEN_AFTER_MAX)
    }

    fn order(&self) -> Order {
        if self.max_send_task == 1 { Order::Strict } else { Order::Due }
    }

    /// Most requests in flight.
    fn limit(&self) -> usize {
        match self.order() {
            Order::Strict => 1,
            Order::Due => self.max_send_task.saturating_mul(2),
        }
    }
}

/// Why delivery ended before it was told to. What was not acknowledged is in the spool.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The spool failed.
    #[error("delivery stopped")]
    Outbox(#[from] OutboxError),
    /// A call into the spool ended in a panic, or the runtime is going down.
    #[error("delivery stopped: a call into the spool broke off")]
    Broken(#[from] JoinError),
}

/// Brings batches to the server, again and again until it has them.
pub struct Delivery {
    ways: Arc<Ways>,
    policy: Policy,
    breaker: Breaker,
    jitter: Jitter,
    waiting: WaitingQueue,
    notices: Notices,
    suspects: Suspects,
    /// First sends in flight.
    firsts: usize,
    /// Replays in flight.
    replays: usize,
    /// The aggregator may still give batches.
    ready_open: bool,
    /// Whether the next probe is a first send where there is the choice. Taking turns keeps a batch that fails for a
    /// reason of its own from being every probe.
    first_probes: bool,
}

/// What to do next.
enum Plan {
    Replay(Waiting, Admitted),
    Wait {
        /// Plan again then at the latest.
        until: Option<Instant>,
        /// A first send may start meanwhile.
        first: Option<Admitted>,
    },
}

/// Whose failures there were since the endpoint last answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspects {
    Nobody,
    /// One batch alone, which may be what is wrong: a first send need not wait for it.
    Batch(BatchId),
    /// Several batches failed, or the server asked for time: it is the endpoint.
    Endpoint,
}

/// Leave to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Admitted {
    probe: bool,
}

impl Delivery {
    /// Delivery from `outbox` by `strategy`. Does nothing until it runs.
    #[must_use]
    pub fn new(outbox: Arc<dyn Outbox>, strategy: Arc<dyn Strategy>, policy: Policy) -> Self {
        let counters = Arc::new(DeliveryCounters::default());
        Self {
            ways: Arc::new(Ways { outbox, strategy, counters }),
            breaker: Breaker::new(policy.open_after(), policy.limit(), policy.backoff),
            jitter: Jitter::from_entropy(),
            waiting: WaitingQueue::new(policy.order(), policy.retry_count),
            notices: Notices::default(),
            suspects: Suspects::Nobody,
            policy,
            firsts: 0,
            replays: 0,
            ready_open: true,
            first_probes: false,
        }
    }

    /// What it counts; valid while it runs and after.
    #[must_use]
    pub fn counters(&self) -> Arc<DeliveryCounters> {
        Arc::clone(&self.ways.counters)
    }

    /// Delivers until `stop` resolves, then lets requests in flight finish for as long as the policy says.
    ///
    /// `recovered` are the batches that were cut before a restart and not acknowledged: they are sent before what comes
    /// from `ready`, oldest first.
    ///
    /// # Errors
    /// [`DeliveryError`] where the spool failed. Nothing is lost by it: what was not acknowledged is sent again after
    /// the next start.
    pub async fn run(
        mut self,
        recovered: Vec<BatchId>,
        mut ready: mpsc::Receiver<Ready>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DeliveryError> {
        let mut sends = FuturesUnordered::new();
        let mut stop = pin!(stop);
        let now = clock::timer_now();
        let mut timer = pin!(tokio::time::sleep_until(now));
        self.wait_untried(recovered, now);
        loop {
            let (until, first) = loop {
                match self.plan(clock::timer_now(), !ready.is_empty()) {
                    Plan::Replay(waiting, admitted) => sends.push(self.start(Job::Replay(waiting), admitted)),
                    Plan::Wait { until, first } => break (until, first),
                }
            };
            self.show_gauges();
            if let Some(until) = until.filter(|until| *until != timer.deadline()) {
                timer.as_mut().reset(until);
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(done) = sends.next() => self.settle(done?),
                () = &mut timer, if until.is_some() => {}
                taken = ready.recv(), if first.is_some() => match (taken, first) {
                    (Some(ready), Some(admitted)) => sends.push(self.start(Job::First(ready), admitted)),
                    _ => self.ready_open = false,
                },
            }
        }
        // What was not started goes back to the spool by being forgotten here.
        drop(ready);
        let deadline = clock::timer_now() + self.policy.shutdown;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, sends.next()).await {
            self.settle(done?);
            self.show_gauges();
        }
        drop(sends);
        // Whether the transport ends in order changes nothing for what was sent.
        let _ = tokio::time::timeout_at(deadline, self.ways.strategy.close()).await;
        Ok(())
    }

    /// What to send now, or what to wait for. `ready` says that a batch for a first send is there.
    fn plan(&mut self, now: Instant, ready: bool) -> Plan {
        let probe = match self.breaker.admit(now, self.in_flight()) {
            Admission::Send => false,
            Admission::Probe => true,
            Admission::At(until) => {
                let unproven = matches!(self.suspects, Suspects::Batch(_)) && self.may_start_first();
                return Plan::Wait {
                    until: Some(until),
                    first: unproven.then_some(Admitted { probe: true }),
                };
            }
            Admission::AfterOutcome => return Plan::Wait { until: None, first: None },
        };
        let admitted = Admitted { probe };
        let first = self.may_start_first().then_some(admitted);
        let next_due = self.waiting.next_due().filter(|_| self.may_start_replay());
        let replay_now = match next_due {
            // A probe asks how the endpoint is, so it waits for nothing else.
            Some(_) if probe => !(self.first_probes && ready && first.is_some()),
            Some(due) => due <= now,
            None => false,
        };
        if replay_now && let Some(waiting) = self.waiting.pop() {
            return Plan::Replay(waiting, admitted);
        }
        Plan::Wait { until: next_due.filter(|_| !probe), first }
    }

    fn in_flight(&self) -> usize {
        self.firsts + self.replays
    }

    fn may_start_first(&self) -> bool {
        let alone = self.in_flight() == 0 && self.waiting.len() == 0;
        self.ready_open
            && self.firsts < self.policy.max_send_task
            && self.waiting.untried() == 0
            && self.waiting.len() + self.in_flight() < WAITING_MAX
            && (self.policy.order() == Order::Due || alone)
    }

    fn may_start_replay(&self) -> bool {
        self.replays < self.policy.max_send_task
            && (self.policy.order() == Order::Due || self.in_flight() == 0)
    }

    /// Counts a send in and returns it.
    fn start(
        &mut self,
        job: Job,
        admitted: Admitted,
    ) -> impl Future<Output = Result<Done, DeliveryError>> + use<> {
        let first = matches!(job, Job::First(_));
        if first {
            self.firsts += 1;
        } else {
            self.replays += 1;
        }
        if admitted.probe {
            self.breaker.probe_started();
            self.first_probes = !first;
        }
        Arc::clone(&self.ways).attempt(job, admitted.probe)
    }

    /// Takes the end of a send into account.
    fn settle(&mut self, done: Done) {
        let Done { batch, attempts, first, probe, end } = done;
        if first {
            self.firsts -= 1;
        } else {
            self.replays -= 1;
        }
        let now = clock::timer_now();
        match end {
            End::Acknowledged => self.answered(now),
            End::Halved(halves) => {
                self.answered(now);
                self.wait_untried(halves.into(), now);
            }
            End::Buried { event, status } => {
                self.answered(now);
                let event = event.as_ref().map(|(source, seq)| (source, *seq));
                self.notices.buried(batch, event, status, now);
            }
            End::Damaged(replacements) => {
                if probe {
                    self.breaker.probe_withdrawn();
                }
                self.wait_untried(replacements, now);
            }
            End::Failed { after, fault, reason } => {
                let failure = Failure { after, fault, probe };
                let blame = self.breaker.failed(failure, now, self.jitter.draw());
                self.suspects = match self.suspects {
                    Suspects::Nobody if after.is_none() => Suspects::Batch(batch),
                    Suspects::Batch(known) if known == batch && after.is_none() => self.suspects,
                    _ => Suspects::Endpoint,
                };
                self.wait_failed(batch, attempts, fault, blame, &reason, now);
            }
        }
    }

    /// Queues a batch that failed.
    ///
    /// A failure that is put down to the endpoint brings the batch no nearer to being parked, so that what an outage
    /// left waiting goes out as soon as it is over: the breaker alone holds it back.
    fn wait_failed(
        &mut self,
        batch: BatchId,
        attempts: u32,
        fault: bool,
        blame: Blame,
        reason: &str,
        now: Instant,
    ) {
        let attempts = if blame == Blame::Batch { attempts.saturating_add(1) } else { attempts.max(1) };
        let parked = attempts > self.policy.retry_count;
        let slow = blame == Blame::Batch && (parked || fault);
        let random = self.jitter.draw();
        let backoff = &self.policy.backoff;
        let delay = if slow { backoff.slow(random) } else { backoff.delay(attempts, random) };
        let waiting = Waiting { batch, attempts, due: now + delay };
        self.notices.failed(&waiting, reason, fault, self.breaker.is_open(), now);
        if parked && blame == Blame::Batch {
            self.notices.parked(&waiting, now);
        }
        self.waiting.push(waiting);
    }

    fn answered(&mut self, now: Instant) {
        self.suspects = Suspects::Nobody;
        self.breaker.answered();
        self.notices.answered(now);
    }

    /// Queues batches that were not sent yet under their ids; they are due now.
    fn wait_untried(&mut self, batches: Vec<BatchId>, now: Instant) {
        for batch in batches {
            self.waiting.push(Waiting { batch, attempts: 0, due: now });
        }
    }

    fn show_gauges(&self) {
        let (waiting, parked) = (self.waiting.len(), self.waiting.parked());
        self.ways.counters.set_gauges(self.in_flight(), waiting, parked, self.breaker.is_open());
    }
}

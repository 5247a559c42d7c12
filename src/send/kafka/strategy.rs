//! One session for all batches: made when there is none, given up when it let one down.

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::message::{Message, Messages};
use super::options::KafkaOptions;
use super::outcome::{self, Tally};
use super::probe::Look;
use super::session::{Pending, Session};
use super::settings;
use crate::batch::Payload;
use crate::config::{Global, Secret};
use crate::event::SourceName;
use crate::send::client::Redactor;
use crate::send::parts::Per;
use crate::send::{Outcome, Probe, SendError, Strategy};

/// How long a message waits before it asks for room in the queue again.
const ROOM_EVERY: Duration = Duration::from_millis(10);
/// After so many messages others get a turn on the thread.
const YIELD_EVERY: usize = 256;
/// So many batches are sent alone after a set of messages was too large, if none of them is: that they were too large
/// together then is what it was.
const ALONE_FOR: u32 = 64;
/// The most topics that are remembered to have been at fault: one beyond costs duplicates and nothing else.
const SUSPECTS_MAX: usize = 1024;
/// What is left in the queue at the end belongs to nobody: it gets this long to leave in order.
const FAREWELL: Duration = Duration::from_secs(1);

/// Makes the strategy.
pub(super) fn new(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    Ok(Arc::new(KafkaStrategy::new(global)?))
}

/// Sends batches as messages to Kafka.
#[derive(Debug)]
pub struct KafkaStrategy {
    config: ClientConfig,
    options: KafkaOptions,
    agent: String,
    /// The scheme of its address, for messages.
    scheme: String,
    headers: Vec<(String, Secret)>,
    redactor: Arc<Redactor>,
    timeout: Duration,
    /// The session that new batches are sent with.
    current: Mutex<Option<Arc<Session>>>,
    /// Sends share it, until brokers find a set of messages too large: then they take turns, as it may have been made
    /// of several batches.
    turns: RwLock<()>,
    /// How many batches are still sent alone.
    alone: AtomicU32,
    /// Topics that were at fault: what goes there goes first, so that the rest of a batch is not sent again and again.
    suspects: std::sync::Mutex<BTreeSet<String>>,
}

/// The right to send: together with others, or alone.
enum Turn<'a> {
    Shared { _turn: RwLockReadGuard<'a, ()> },
    Alone { _turn: RwLockWriteGuard<'a, ()> },
}

impl KafkaStrategy {
    /// A strategy that sends to the brokers that `global` names. Opens no connection.
    ///
    /// # Errors
    /// [`SendError`] where the library refuses its settings.
    pub fn new(global: &Global) -> Result<Self, SendError> {
        let refused = |reason| SendError::Library { library: "Kafka", reason };
        let options: &KafkaOptions =
            global.options.of().ok_or_else(|| refused("there is no [global.kafka]".to_owned()))?;
        let config = settings::client(global, options).map_err(refused)?;
        let redactor = Arc::new(Redactor::new(global, None));
        // What its settings mean together, the library says when it makes a producer of them.
        Session::check(&settings::unconnected(&config), Arc::clone(&redactor)).map_err(refused)?;
        Ok(Self {
            config,
            options: options.clone(),
            agent: global.agent_name.clone(),
            scheme: global.end_point.0.scheme().to_owned(),
            headers: global.headers.clone(),
            redactor,
            timeout: global.timeout,
            current: Mutex::default(),
            turns: RwLock::default(),
            alone: AtomicU32::new(0),
            suspects: std::sync::Mutex::default(),
        })
    }

    async fn send_once(&self, payload: &Payload) -> Outcome {
        let turn = self.turn().await;
        let mut used = None;
        let delivery = tokio::time::timeout(self.timeout, self.deliver(payload, &turn, &mut used));
        let outcome = match delivery.await {
            Ok(outcome) => outcome,
            Err(_elapsed) => self.silence(used.as_deref()),
        };
        if let (Some(session), Outcome::Retry { .. } | Outcome::EndpointFault { .. }) = (&used, &outcome) {
            session.retire();
            // Where somebody has it, a new one is made this moment.
            if let Ok(mut current) = self.current.try_lock() {
                current.take_if(|session| !session.serves());
            }
        }
        outcome.cleaned(&self.redactor)
    }

    async fn turn(&self) -> Turn<'_> {
        if self.alone.load(Ordering::Relaxed) > 0 {
            Turn::Alone { _turn: self.turns.write().await }
        } else {
            Turn::Shared { _turn: self.turns.read().await }
        }
    }

    /// Sends the messages of `payload` and waits for the reports of all. `used` is the session that has them.
    async fn deliver(&self, payload: &Payload, turn: &Turn<'_>, used: &mut Option<Arc<Session>>) -> Outcome {
        let messages = match Messages::of(payload, &self.options) {
            Ok(messages) => messages,
            Err(error) => {
                return Outcome::EndpointFault { reason: format!("{error} in [global.kafka]") };
            }
        };
        let session = match self.session().await {
            Ok(session) => used.insert(session),
            Err(reason) => return Outcome::EndpointFault { reason },
        };
        let alone = matches!(turn, Turn::Alone { .. });
        while alone && !session.is_idle() {
            tokio::time::sleep(ROOM_EVERY).await;
        }
        let suspects = self.suspects().clone();
        for suspected in [true, false] {
            let of_this_turn = |message: &Message<'_>| suspects.contains(&*message.topic) == suspected;
            let tally = match self.produce(session, &messages, of_this_turn).await {
                Ok(tally) => tally,
                Err((code, topic)) => return self.refused(session, code, &topic),
            };
            if tally.too_large.is_some() {
                self.alone.store(if alone { 0 } else { ALONE_FOR }, Ordering::Relaxed);
            }
            self.suspect(tally.topic.as_deref());
            let outcome = outcome::of(tally, alone, || self.silence(Some(session)));
            match (outcome, session.fatal()) {
                (Outcome::Acknowledged, _) => {}
                (_, Some((code, reason))) => return outcome::of_fatal(code, &reason),
                (outcome, None) => return outcome,
            }
        }
        if alone {
            // Only one at a time gets here.
            let left = self.alone.load(Ordering::Relaxed);
            self.alone.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        // The batch may be without a suspect, but where it had one, that has shown itself innocent.
        self.suspects().retain(|topic| !messages.topics().any(|of_batch| of_batch == topic));
        Outcome::Acknowledged
    }

    /// Hands the messages that are `wanted` to the library and waits for the reports of all; what is wrong with
    /// the first that it does not take, and where that was to go.
    async fn produce(
        &self,
        session: &Session,
        messages: &Messages<'_>,
        wanted: impl Fn(&Message<'_>) -> bool,
    ) -> Result<Tally, (Code, Arc<str>)> {
        let pending = Arc::new(Pending::default());
        let mut sent = 0;
        for message in messages.iter().filter(|message| wanted(message)) {
            loop {
                let headers = messages.headers(&message, &self.headers);
                match session.produce(&message, headers, &pending) {
                    Ok(()) => break,
                    Err(Code::QueueFull) => tokio::time::sleep(ROOM_EVERY).await,
                    Err(code) => return Err((code, message.topic)),
                }
            }
            sent += 1;
            if sent % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(pending.all(sent).await)
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a topic that was at fault.
    fn suspect(&self, topic: Option<&str>) {
        let mut suspects = self.suspects();
        if let Some(topic) = topic
            && suspects.len() < SUSPECTS_MAX
        {
            suspects.insert(topic.to_owned());
        }
    }

    /// The outcome of a batch one of whose messages the library does not take. Those before it are on their way, and are
    /// known by their headers when they come again.
    fn refused(&self, session: &Session, code: Code, topic: &str) -> Outcome {
        if let Some((code, reason)) = session.fatal() {
            return outcome::of_fatal(code, &reason);
        }
        let mut tally = Tally::default();
        tally.fail(code, topic);
        self.suspect(tally.topic.as_deref());
        // The library looks at the message alone.
        outcome::of(tally, true, || self.silence(Some(session)))
    }

    /// The outcome of a batch whose time was over before all its messages were delivered.
    fn silence(&self, session: Option<&Session>) -> Outcome {
        session.map(Session::trouble).unwrap_or_default().outcome(self.timeout)
    }

    /// The session that there is, or a new one; why there is none.
    async fn session(&self) -> Result<Arc<Session>, String> {
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| session.serves()) {
            return Ok(Arc::clone(session));
        }
        let (config, redactor) = (self.config.clone(), Arc::clone(&self.redactor));
        // It reads certificates and starts threads.
        let started = tokio::task::spawn_blocking(move || Session::start(&config, redactor)).await;
        let session = Arc::new(started.map_err(|error| error.to_string())??);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// A look at the topics that the events of `sources` go to.
    fn look(&self, sources: &[SourceName]) -> Look {
        let topic = |source: &SourceName| self.options.topic.fill_topic(&self.agent, Some(source.as_str()));
        let topics: BTreeSet<String> = sources.iter().map(topic).collect();
        Look {
            config: self.config.clone(),
            redactor: Arc::clone(&self.redactor),
            topics: topics.into_iter().collect(),
            timeout: self.timeout,
        }
    }

    /// What is found at one broker.
    async fn probe_one(&self, look: Look, broker: String) -> Result<String, String> {
        let found = tokio::task::spawn_blocking(move || look.at(&broker)).await;
        match found {
            Ok(Ok(found)) => Ok(self.redactor.clean(found)),
            Ok(Err(outcome)) => Err(outcome.cleaned(&self.redactor).into_reason()),
            Err(error) => Err(format!("what the broker says cannot be read: {error}")),
        }
    }
}

impl Strategy for KafkaStrategy {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_once(payload))
    }

    fn probe<'a>(&'a self, sources: &'a [SourceName]) -> BoxFuture<'a, Vec<Probe>> {
        Box::pin(async {
            let look = self.look(sources);
            let mut probes = Vec::new();
            for broker in look.brokers() {
                let end_point = format!("{}://{broker}", self.scheme);
                let found = self.probe_one(look.clone(), broker).await;
                probes.push(Probe { end_point, found });
            }
            probes
        })
    }

    fn takes_apart(&self) -> bool {
        self.options.per != Per::Batch
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let current = self.current.lock().await.take();
            // Where a send still holds it, it ends with that.
            if let Some(session) = current.and_then(Arc::into_inner) {
                let _ = tokio::task::spawn_blocking(move || session.close(FAREWELL)).await;
            }
        })
    }
}

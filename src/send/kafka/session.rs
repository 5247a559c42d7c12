//! One producer, and the thread that hears of its deliveries.
//!
//! The thread has the last handle, as ending a producer takes time that no task has.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use super::message::Message;
use super::outcome::{Tally, Trouble};
use crate::send::client::Redactor;

/// How long the thread listens before it looks whether it is still wanted. What comes is heard at once; but at the end of
/// each such time the library's binding spins for up to a millisecond, which would be seen if it were often.
const LISTEN: Duration = Duration::from_secs(1);

/// A batch whose messages are on their way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    tally: Mutex<Tally>,
    reported: Notify,
}

impl Pending {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, error: Option<(Code, &str)>) {
        self.tally().add(error);
        self.reported.notify_one();
    }

    /// What was reported, once `sent` messages were.
    pub(super) async fn all(&self, sent: usize) -> Tally {
        loop {
            // A report between the look and the wait leaves a permit.
            let tally = self.tally().clone();
            if tally.reported >= sent {
                return tally;
            }
            self.reported.notified().await;
        }
    }
}

/// What the library tells.
struct Events {
    trouble: Mutex<Trouble>,
    redactor: Arc<Redactor>,
}

impl Events {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Events {
    /// What goes wrong comes as an error or with a batch, too, and is told in our own words.
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
            let said = self.redactor.clean(message.to_owned());
            tracing::debug!(target: "librdkafka", facility, said, "the library speaks");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble().add(code_of(&error), reason);
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = Arc<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Arc<Pending>) {
        match result {
            Ok(_) => {
                *self.trouble() = Trouble::default();
                pending.report(None);
            }
            Err((error, message)) => {
                pending.report(Some((code_of(error), message.topic())));
            }
        }
    }
}

type Producer = BaseProducer<Events>;

/// A producer that lives as long as this does, and then until its thread has ended it.
pub(super) struct Session {
    /// None once the thread has it.
    producer: Option<Arc<Producer>>,
    /// Ends the thread.
    end: Sender<End>,
    /// Whether batches may be sent with it.
    serves: AtomicBool,
}

/// What the thread is told in the end.
struct End {
    /// The handle that was beside its own, so that it has the last.
    _producer: Arc<Producer>,
    /// Who waits until the producer is gone.
    gone: Option<Sender<()>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("serves", &self.serves).finish_non_exhaustive()
    }
}

impl Session {
    /// Makes a producer. It connects by itself, where `config` says to whom.
    ///
    /// # Errors
    /// In one line, why there is none.
    pub(super) fn start(config: &ClientConfig, redactor: Arc<Redactor>) -> Result<Self, String> {
        let producer = Arc::new(make(config, redactor)?);
        let (end, asked_to_end) = channel();
        let listener = Arc::clone(&producer);
        std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || listen(listener, &asked_to_end))
            .map_err(|error| format!("a thread cannot be started: {error}"))?;
        Ok(Self { producer: Some(producer), end, serves: AtomicBool::new(true) })
    }

    /// Whether a producer can be made of `config`; it is ended at once.
    ///
    /// # Errors
    /// In one line, why none can.
    pub(super) fn check(config: &ClientConfig, redactor: Arc<Redactor>) -> Result<(), String> {
        make(config, redactor).map(drop)
    }

    /// Hands a message to the library, which copies it. Its delivery is reported to `pending`.
    ///
    /// # Errors
    /// The library's code, where it does not take it; [`Code::QueueFull`] where it may soon.
    pub(super) fn produce(
        &self,
        message: &Message<'_>,
        headers: OwnedHeaders,
        pending: &Arc<Pending>,
    ) -> Result<(), Code> {
        let Some(producer) = &self.producer else { return Err(Code::DestroyBroker) };
        let mut record = BaseRecord::with_opaque_to(&message.topic, Arc::clone(pending))
            .payload(&*message.value)
            .headers(headers);
        if let Some(key) = &message.key {
            record = record.key(&**key);
        }
        producer.send(record).map_err(|(error, _)| code_of(&error))
    }

    /// What a broker says of `topic` and of its cluster. Blocks, for at most `within`.
    ///
    /// # Errors
    /// The library's code, where none answers.
    pub(super) fn metadata(&self, topic: &str, within: Duration) -> Result<Metadata, Code> {
        let Some(producer) = &self.producer else { return Err(Code::DestroyBroker) };
        producer.client().fetch_metadata(Some(topic), within).map_err(|error| code_of(&error))
    }

    /// Asks the broker that leads a partition how far it reaches, which changes nothing. Blocks, for at most `within`.
    ///
    /// # Errors
    /// The library's code, where it does not answer.
    pub(super) fn ask(&self, topic: &str, partition: i32, within: Duration) -> Result<(), Code> {
        let Some(producer) = &self.producer else { return Err(Code::DestroyBroker) };
        let reach = producer.client().fetch_watermarks(topic, partition, within);
        reach.map(drop).map_err(|error| code_of(&error))
    }

    /// Whether nothing is queued or on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.producer.as_ref().is_none_or(|producer| producer.in_flight_count() == 0)
    }

    /// Why the producer can never deliver anything again, if so.
    pub(super) fn fatal(&self) -> Option<(Code, String)> {
        self.producer.as_ref().and_then(|producer| producer.client().fatal_error())
    }

    /// What has gone wrong since something was delivered.
    pub(super) fn trouble(&self) -> Trouble {
        let of = |producer: &Arc<Producer>| producer.context().trouble().clone();
        self.producer.as_ref().map(of).unwrap_or_default()
    }

    /// Whether batches may be sent with it.
    pub(super) fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Lets no other batch be sent with it.
    pub(super) fn retire(&self) {
        self.serves.store(false, Ordering::Relaxed);
    }

    /// Waits until all that is queued was delivered or given up on, for at most `within`, and until the producer is gone.
    pub(super) fn close(mut self, within: Duration) {
        if let Some(producer) = &self.producer {
            // What is left then belongs to batches that are sent again.
            let _ = producer.flush(within);
        }
        let (gone, waited) = channel();
        self.end(Some(gone));
        let _ = waited.recv_timeout(LISTEN + within);
    }

    fn end(&mut self, gone: Option<Sender<()>>) {
        if let Some(producer) = self.producer.take() {
            // Nobody waits for what is still queued, and it is not to be sent beside what is sent again.
            producer.purge(PurgeConfig::default().queue().inflight());
            // The thread is there: it ends only when it is told to.
            let _ = self.end.send(End { _producer: producer, gone });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end(None);
    }
}

fn code_of(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

/// Makes a producer.
fn make(config: &ClientConfig, redactor: Arc<Redactor>) -> Result<Producer, String> {
    let events = Events { trouble: Mutex::default(), redactor: Arc::clone(&redactor) };
    let told = |error: KafkaError| redactor.clean(super::outcome::one_line(&error.to_string()));
    config.create_with_context(events).map_err(told)
}

/// Hears of deliveries until it is told to end, and ends the producer.
fn listen(producer: Arc<Producer>, told: &Receiver<End>) {
    loop {
        producer.poll(LISTEN);
        match told.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
            Ok(End { _producer: other, gone }) => {
                drop(other);
                drop(producer);
                if let Some(gone) = gone {
                    // Who waited may have given up.
                    let _ = gone.send(());
                }
                return;
            }
        }
    }
}

//! A batch on its way through a broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::connection::{Live, Shared};
use super::messages::{self, Message};
use super::template::{Syntax, Template};
use crate::batch::Payload;
use crate::clock;
use crate::config::Global;
use crate::event::SourceName;
use crate::send::client::Redactor;
use crate::send::parts::Per;
use crate::send::{Outcome, Probe, Strategy};

/// The most messages of a batch that wait for their confirmation at a time.
#[cfg(any(feature = "nats", feature = "mqtt"))]
pub(in crate::send) const WINDOW: usize = 256;

/// A protocol: connects, publishes, and says what came of it.
pub(in crate::send) trait Broker: Send + Sync + 'static {
    /// An open connection.
    type Connection: Live + Send + Sync + 'static;

    /// How addresses are written.
    const SYNTAX: Syntax;

    /// Connects once.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Outcome>> + Send;

    /// Publishes the messages of the batch `key` in their order, each with its address, and waits until all are confirmed
    /// or one has failed.
    fn publish(
        &self,
        connection: &Self::Connection,
        key: &str,
        messages: Vec<(String, Message)>,
    ) -> impl Future<Output = Outcome> + Send;

    /// Connects once, for a look, and so that an agent which runs on the same configuration keeps its connection.
    fn connect_to_look(&self) -> impl Future<Output = Result<Self::Connection, Outcome>> + Send {
        self.connect()
    }

    /// Says in one line what is at the other end of a connection, and whether it takes messages at `addresses`, as far as
    /// the protocol tells without a message. Publishes nothing and makes nothing.
    fn look(
        &self,
        connection: &Self::Connection,
        addresses: &[String],
    ) -> impl Future<Output = Result<String, Outcome>> + Send;

    /// Learns that nothing new goes to a connection, although it did not end by itself.
    fn retire(&self, _: &Self::Connection) {}

    /// Ends a connection in order.
    fn close(&self, connection: Arc<Self::Connection>) -> impl Future<Output = ()> + Send;
}

/// Sends batches as messages of a broker.
pub(in crate::send) struct Publisher<B: Broker> {
    broker: B,
    shared: Shared<B::Connection>,
    redactor: Redactor,
    /// For messages, without secrets.
    end_point: String,
    timeout: Duration,
    /// The name that batches are cut under now, for where a probe looks.
    agent: String,
    per: Per,
    address: Template,
}

impl<B: Broker> Publisher<B> {
    /// A strategy that publishes at `address` by `broker`.
    pub(in crate::send) fn new(
        broker: B,
        global: &Global,
        per: Per,
        address: Template,
        redactor: Redactor,
    ) -> Self {
        Self {
            broker,
            shared: Shared::default(),
            redactor,
            end_point: global.end_point.to_string(),
            timeout: global.timeout,
            agent: global.agent_name.clone(),
            per,
            address,
        }
    }

    async fn send_once(&self, payload: &Payload) -> Outcome {
        let mut used = None;
        let outcome = match tokio::time::timeout(self.timeout, self.deliver(payload, &mut used)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                // What is still to be confirmed to others on this connection is waited for; nothing new goes there.
                if let Some(connection) = &used {
                    self.shared.retire(connection);
                    self.broker.retire(connection);
                }
                let what = if used.is_some() { "confirmation" } else { "connection" };
                Outcome::Retry {
                    after: None,
                    reason: format!("no {what} within {} s", self.timeout.as_secs_f64()),
                }
            }
        };
        outcome.cleaned(&self.redactor)
    }

    /// Publishes the messages of `payload`. The first that fails speaks for the batch, which is then sent again as a whole:
    /// those that were confirmed are known by their identifiers.
    async fn deliver(&self, payload: &Payload, used: &mut Option<Arc<B::Connection>>) -> Outcome {
        let messages = match messages::of(payload, self.per) {
            Ok(messages) => messages,
            Err(error) => return Outcome::EndpointFault { reason: error.to_string() },
        };
        let connection = match self.shared.find(self.broker.connect()).await {
            Ok(connection) => used.insert(connection),
            Err(failure) => return failure,
        };
        let addressed = messages.into_iter().map(|message| {
            (self.address.fill(&B::SYNTAX, &payload.agent, message.source.as_deref()), message)
        });
        let outcome = self.broker.publish(connection, &payload.key, addressed.collect()).await;
        if outcome != Outcome::Acknowledged && !connection.is_live() {
            self.shared.retire(connection);
        }
        outcome
    }

    /// What is found by a connection of its own. The time for the farewell is what is left of that for the look.
    async fn look(&self, sources: &[SourceName]) -> Result<String, Outcome> {
        let until = clock::timer_now() + self.timeout;
        let no = |what: &str| Outcome::Retry {
            after: None,
            reason: format!("no {what} within {} s", self.timeout.as_secs_f64()),
        };
        let connection = match tokio::time::timeout_at(until, self.broker.connect_to_look()).await {
            Ok(connection) => Arc::new(connection?),
            Err(_elapsed) => return Err(no("connection")),
        };
        let addresses = self.addresses(sources);
        let look = self.broker.look(&connection, &addresses);
        let found = match tokio::time::timeout_at(until, look).await {
            Ok(found) => found,
            Err(_elapsed) => return Err(no("answer")),
        };
        let _ = tokio::time::timeout_at(until, self.broker.close(connection)).await;
        found
    }

    /// Where the events of `sources` go, each address once.
    fn addresses(&self, sources: &[SourceName]) -> Vec<String> {
        let mut addresses = Vec::new();
        for source in sources {
            let address = self.address.fill(&B::SYNTAX, &self.agent, Some(source.as_str()));
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// What becomes of a batch whose messages are published one after the other, `window` of them unconfirmed at most. The
/// first that fails speaks for all.
#[cfg(any(feature = "nats", feature = "mqtt"))]
pub(in crate::send) async fn in_order<F: Future<Output = Outcome>>(
    publications: impl Iterator<Item = F>,
    window: usize,
) -> Outcome {
    use futures_util::StreamExt as _;
    let mut confirmed = std::pin::pin!(futures_util::stream::iter(publications).buffered(window));
    while let Some(outcome) = confirmed.next().await {
        if outcome != Outcome::Acknowledged {
            return outcome;
        }
    }
    Outcome::Acknowledged
}

impl<B: Broker> Strategy for Publisher<B> {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_once(payload))
    }

    fn probe<'a>(&'a self, sources: &'a [SourceName]) -> BoxFuture<'a, Vec<Probe>> {
        Box::pin(async {
            let found = self.look(sources).await;
            let found = match found {
                Ok(found) => Ok(self.redactor.clean(found)),
                Err(outcome) => Err(outcome.cleaned(&self.redactor).into_reason()),
            };
            vec![Probe { end_point: self.end_point.clone(), found }]
        })
    }

    fn takes_apart(&self) -> bool {
        self.per != Per::Batch
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(connection) = self.shared.take() {
                // A broker that does not answer the farewell is left without.
                let _ = tokio::time::timeout(self.timeout, self.broker.close(connection)).await;
            }
        })
    }
}

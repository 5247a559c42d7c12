//! A connection to a broker, and a batch on one of its channels.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, ConnectionProperties, Event, ExchangeKind};
use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};

use super::{AmqpOptions, SYNTAX, outcome};
use crate::config::{Auth, Global};
use crate::send::client::Redactor;
use crate::send::parts::{KEY_HEADER, SEQ_HEADER, SOURCE_HEADER};
use crate::send::queue::{self, Broker, Live, Message, Publisher, Syntax};
use crate::send::{Outcome, SendError, Strategy, listed, with_tls};

/// Sides that hear nothing of each other for twice this long, in seconds, give the connection up.
const HEARTBEAT_SECS: u16 = 30;
/// The most channels of a connection: batches beyond wait for one.
const CHANNELS_MAX: usize = 128;
/// A message survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Makes the strategy.
pub(super) fn new(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    let not_set = || SendError::Options { table: "[global.amqp]", what: "is not set" };
    let options = global.options.of::<AmqpOptions>().ok_or_else(not_set)?;
    let exchange = ShortString::try_new(options.exchange.as_str()).map_err(|_| SendError::Options {
        table: "[global.amqp]",
        what: "has an exchange that is too long",
    })?;
    let broker = Amqp {
        uri: uri(global)?,
        tls: queue::tls::client_config(&global.tls)?,
        name: global.agent_name.clone(),
        exchange,
    };
    let redactor = Redactor::with(global, []);
    Ok(Arc::new(Publisher::new(broker, global, options.per, options.routing_key.clone(), redactor)))
}

/// Where to connect, and as whom.
fn uri(global: &Global) -> Result<AMQPUri, SendError> {
    let mut uri: AMQPUri = global.end_point.0.as_str().parse().map_err(|_| SendError::Options {
        table: "[global]",
        what: "has an end_point that is no address of a broker",
    })?;
    // Nobody means the virtual host without a name.
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    if let Some(Auth::Basic { user, password }) = &global.auth {
        user.clone_into(&mut uri.authority.userinfo.username);
        password.reveal().clone_into(&mut uri.authority.userinfo.password);
    }
    Ok(uri)
}

/// A broker and how it is spoken to.
struct Amqp {
    uri: AMQPUri,
    tls: Arc<ClientConfig>,
    name: String,
    exchange: ShortString,
}

/// An open connection.
pub(super) struct Connection {
    connection: lapin::Connection,
    state: watch::Receiver<State>,
    /// Channels that no batch uses, each of them with nothing unconfirmed.
    idle: Mutex<Vec<Channel>>,
    /// The right to use a channel.
    turns: Semaphore,
}

/// What the broker said of the connection as a whole.
#[derive(Clone, Debug, Default)]
struct State {
    /// Why it takes nothing, while it does not.
    blocked: Option<String>,
}

impl Live for Connection {
    fn is_live(&self) -> bool {
        self.connection.status().connected()
    }
}

impl Connection {
    /// A channel on which messages are confirmed.
    async fn channel(&self) -> Result<Channel, lapin::Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Takes back a channel on which everything was confirmed.
    fn give_back(&self, channel: Channel) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }
}

impl Broker for Amqp {
    type Connection = Connection;

    const SYNTAX: Syntax = SYNTAX;

    async fn connect(&self) -> Result<Connection, Outcome> {
        let runtime = lapin::runtime::default_runtime().map_err(|error| outcome::of_error(&error))?;
        let tls = RustlsConnector::from(Arc::clone(&self.tls));
        let stream = async move |uri: AMQPUri, runtime: async_rs::TokioRuntime| {
            let host = uri.authority.host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let addresses = runtime.to_socket_addrs((host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            Ok(match uri.scheme {
                AMQPScheme::AMQP => stream,
                AMQPScheme::AMQPS => stream.into_rustls(&tls, &host).await?,
            })
        };
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connection = lapin::Connection::connector(self.uri.clone(), runtime, stream, properties)
            .await
            .map_err(|error| outcome::of_error(&error))?;
        let (says, state) = watch::channel(State::default());
        let mut events = connection.events_listener();
        tokio::spawn(async move {
            // Ends with the connection, or when nobody asks any more.
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        None => return,
                        Some(Event::ConnectionBlocked(reason)) => {
                            says.send_modify(|state| state.blocked = Some(reason));
                        }
                        Some(Event::ConnectionUnblocked) => says.send_modify(|state| state.blocked = None),
                        Some(_) => {}
                    },
                    () = says.closed() => return,
                }
            }
        });
        Ok(Connection { connection, state, idle: Mutex::default(), turns: Semaphore::new(CHANNELS_MAX) })
    }

    async fn publish(&self, connection: &Connection, key: &str, messages: Vec<(String, Message)>) -> Outcome {
        let Ok(_turn) = connection.turns.acquire().await else {
            return Outcome::Retry { after: None, reason: "the connection was given up".to_owned() };
        };
        let mut state = connection.state.clone();
        tokio::select! {
            biased;
            blocked = blocked(&mut state) => blocked,
            outcome = self.publish_all(connection, key, messages) => outcome,
        }
    }

    async fn look(&self, connection: &Connection, addresses: &[String]) -> Result<String, Outcome> {
        let failed = |error| outcome::of_error(&error);
        let channel = connection.connection.create_channel().await.map_err(failed)?;
        let addressed = listed(addresses.iter().map(String::as_str));
        let there = if self.exchange.as_str().is_empty() {
            for queue in addresses {
                self.find_queue(&channel, queue).await?;
            }
            format!("the queue {addressed} is there")
        } else {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            // Which kind it is, nobody asks who only looks.
            let (exchange, kind) = (self.exchange.clone(), ExchangeKind::Direct);
            let found = channel.exchange_declare(exchange, kind, options, FieldTable::default());
            found.await.map_err(failed)?;
            format!(
                "the exchange {} is there; whether a queue takes {addressed} from it, only a message shows",
                self.exchange.as_str()
            )
        };
        let tls = with_tls(matches!(self.uri.scheme, AMQPScheme::AMQPS));
        Ok(format!("AMQP 0-9-1, {tls}, the virtual host {}; {there}", self.uri.vhost))
    }

    async fn close(&self, connection: Arc<Connection>) {
        if let Ok(text) = ShortString::try_new("bye") {
            // One that has ended already needs no farewell.
            let _ = connection.connection.close(200, text).await;
        }
    }
}

impl Amqp {
    /// Whether there is a queue of this name, as the exchange without a name takes messages to.
    async fn find_queue(&self, channel: &Channel, name: &str) -> Result<(), Outcome> {
        let queue = ShortString::try_new(name).map_err(|_| too_long())?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(queue, options, FieldTable::default()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(outcome::of_queue(&error)),
        }
    }

    async fn publish_all(
        &self,
        connection: &Connection,
        key: &str,
        messages: Vec<(String, Message)>,
    ) -> Outcome {
        let channel = match connection.channel().await {
            Ok(channel) => channel,
            Err(error) => return outcome::of_error(&error),
        };
        let mut confirmations = Vec::with_capacity(messages.len());
        let mut worst = Outcome::Acknowledged;
        for (address, message) in messages {
            let Ok(routing_key) = ShortString::try_new(address) else { return too_long() };
            let Some(properties) = properties(key, &message) else {
                return Outcome::EndpointFault {
                    reason: "an identifier is longer than 255 bytes".to_owned(),
                };
            };
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let exchange = self.exchange.clone();
            match channel.basic_publish(exchange, routing_key, options, &message.body, properties).await {
                Ok(confirmation) => confirmations.push(confirmation),
                Err(error) => {
                    worst = outcome::of_error(&error);
                    break;
                }
            }
        }
        // All of them, as a return may come with the confirmation of another message; and of a channel that was closed, the
        // first says why.
        for confirmation in confirmations {
            if let Some(outcome) = outcome::of_confirmation(confirmation.await)
                && outcome::outweighs(&outcome, &worst)
            {
                worst = outcome;
            }
        }
        if worst == Outcome::Acknowledged {
            connection.give_back(channel);
        }
        worst
    }
}

fn too_long() -> Outcome {
    let reason = "a routing key is longer than 255 bytes: check routing_key in [global.amqp]".to_owned();
    Outcome::EndpointFault { reason }
}

/// What travels beside the content; `None` where a part is longer than the protocol lets it be.
fn properties(key: &str, message: &Message) -> Option<BasicProperties> {
    let mut headers = FieldTable::default();
    let mut insert = |name: &str, value: &str| {
        let name = ShortString::try_new(name).ok()?;
        headers.insert(name, AMQPValue::LongString(value.into()));
        Some(())
    };
    insert(KEY_HEADER, key)?;
    insert(SEQ_HEADER, &message.seq)?;
    if let Some(source) = &message.source {
        insert(SOURCE_HEADER, source)?;
    }
    let short = |text: &str| ShortString::try_new(text).ok();
    Some(
        BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(short(message.content_type)?)
            .with_app_id(short("log-agent")?)
            .with_message_id(short(&message.id)?)
            .with_headers(headers),
    )
}

/// Waits until the broker says that it takes nothing.
async fn blocked(state: &mut watch::Receiver<State>) -> Outcome {
    let reason = match state.wait_for(|state| state.blocked.is_some()).await {
        Ok(state) => state.blocked.clone(),
        // Nobody will say so any more; the connection's end shows otherwise.
        Err(_) => None,
    };
    match reason {
        Some(reason) => outcome::blocked(&reason),
        None => std::future::pending().await,
    }
}

//! A connection to a broker, and a publication on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::{TlsConfiguration, Transport, v5};
use rustls::ClientConfig;
use tokio::sync::RwLock;

use super::outcome::End;
use super::session::{self, Happening, UNSENT_MAX, Waiting, Welcome, Wire};
use super::{MqttOptions, SYNTAX, Version};
use crate::config::{Auth, Global};
use crate::send::client::Redactor;
use crate::send::parts::{KEY_HEADER, SEQ_HEADER, SOURCE_HEADER};
use crate::send::queue::{self, Broker, Live, Message, Publisher, Syntax};
use crate::send::{Outcome, SendError, Strategy, listed, with_tls};

/// The broker is asked for a sign of life when nothing was sent for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The most messages that wait for their acknowledgement; a broker may want fewer.
const UNANSWERED_MAX: u16 = 256;
/// The longest packet of the protocol.
const PACKET_BYTES_MAX: usize = 268_435_455;
/// The longest packet that a broker sends to a client that subscribes to nothing.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What a client identifier ends with where it is not a batch that asks for the connection: brokers end the older of two
/// connections with the same one, which may be that of a running agent.
const LOOKING: &str = "-check";
/// Carries a message's identifier.
const ID_PROPERTY: &str = "Log-Agent-Id";
/// The content is UTF-8 text.
const TEXT: u8 = 1;

/// Makes the strategy.
pub(super) fn new(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    let not_set = || SendError::Options { table: "[global.mqtt]", what: "is not set" };
    let options = global.options.of::<MqttOptions>().ok_or_else(not_set)?;
    let url = &global.end_point.0;
    let is_secure = global.end_point.is_secure(global.send_type);
    let no_host = || SendError::Options { table: "[global]", what: "has an end_point without a host" };
    let broker = Mqtt {
        host: url.host_str().ok_or_else(no_host)?.to_owned(),
        port: url.port().unwrap_or(if is_secure { 8883 } else { 1883 }),
        tls: if is_secure { Some(queue::tls::client_config(&global.tls)?) } else { None },
        credentials: match &global.auth {
            Some(Auth::Basic { user, password }) => Some((user.clone(), password.reveal().to_owned())),
            _ => None,
        },
        client_id: options.client_id.clone().unwrap_or_else(|| format!("log-agent-{}", global.agent_name)),
        version: options.version,
        timeout: global.timeout,
        turns: RwLock::default(),
        alone: AtomicBool::new(false),
    };
    let redactor = Redactor::with(global, []);
    Ok(Arc::new(Publisher::new(broker, global, options.per, options.topic.clone(), redactor)))
}

/// A broker and how it is spoken to.
struct Mqtt {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    credentials: Option<(String, String)>,
    client_id: String,
    version: Version,
    timeout: Duration,
    /// Batches share it, until the broker finds one message of several too long: then they take turns.
    turns: RwLock<()>,
    alone: AtomicBool,
}

/// Hands messages to the client library, of either version.
enum Client {
    Five(v5::AsyncClient),
    Three(rumqttc::AsyncClient),
}

/// An open connection; its task ends with it.
pub(super) struct Connection {
    client: Client,
    waiting: Arc<Waiting>,
    welcome: Welcome,
}

impl Live for Connection {
    fn is_live(&self) -> bool {
        self.waiting.is_live()
    }
}

impl Connection {
    /// The longest packet that the broker takes.
    fn packet_bytes_max(&self) -> usize {
        let max = self.welcome.packet_bytes_max.and_then(|max| usize::try_from(max).ok());
        max.unwrap_or(PACKET_BYTES_MAX)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.waiting.leave.notify_one();
    }
}

impl Mqtt {
    fn transport(&self) -> Transport {
        match &self.tls {
            Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))),
            None => Transport::Tcp,
        }
    }

    fn wire(&self, client_id: &str) -> (Client, Wire) {
        // The library counts in whole seconds; whoever waits has a clock of its own.
        let connect_secs = self.timeout.as_secs().saturating_add(1);
        match self.version {
            Version::Five => {
                let mut options = v5::MqttOptions::new(client_id, &self.host, self.port);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_clean_start(true)
                    .set_connection_timeout(connect_secs)
                    .set_outgoing_inflight_upper_limit(UNANSWERED_MAX)
                    .set_transport(self.transport());
                if let Some((user, password)) = &self.credentials {
                    options.set_credentials(user, password);
                }
                let (client, wire) = v5::AsyncClient::new(options, UNSENT_MAX);
                (Client::Five(client), Wire::Five(Box::new(wire)))
            }
            Version::Three => {
                let mut options = rumqttc::MqttOptions::new(client_id, &self.host, self.port);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_clean_session(true)
                    .set_inflight(UNANSWERED_MAX)
                    .set_max_packet_size(ANSWER_BYTES_MAX, PACKET_BYTES_MAX)
                    .set_transport(self.transport());
                if let Some((user, password)) = &self.credentials {
                    options.set_credentials(user, password);
                }
                let (client, mut wire) = rumqttc::AsyncClient::new(options, UNSENT_MAX);
                let mut network = wire.network_options();
                network.set_connection_timeout(connect_secs);
                wire.set_network_options(network);
                (Client::Three(client), Wire::Three(Box::new(wire)))
            }
        }
    }

    async fn connect_as(&self, client_id: &str) -> Result<Connection, Outcome> {
        let (client, mut wire) = self.wire(client_id);
        let welcome = loop {
            match wire.next().await {
                Ok(Happening::Connected(welcome)) => break welcome,
                Ok(_) => {}
                Err(End::Of(outcome)) => return Err(outcome),
                Err(End::TooBig(reason)) => return Err(Outcome::EndpointFault { reason }),
            }
        };
        let waiting = Arc::new(Waiting::new());
        tokio::spawn(session::run(wire, Arc::clone(&waiting)));
        Ok(Connection { client, waiting, welcome })
    }

    /// The client identifier of a look.
    fn looking_id(&self) -> String {
        format!("{}{LOOKING}", self.client_id)
    }
}

impl Broker for Mqtt {
    type Connection = Connection;

    const SYNTAX: Syntax = SYNTAX;

    async fn connect(&self) -> Result<Connection, Outcome> {
        self.connect_as(&self.client_id).await
    }

    async fn connect_to_look(&self) -> Result<Connection, Outcome> {
        let id = self.looking_id();
        self.connect_as(&id).await.map_err(|outcome| match outcome {
            // The identifier may be what it refused.
            Outcome::EndpointFault { reason } => {
                Outcome::EndpointFault { reason: format!("{reason}; it was asked as the client {id}") }
            }
            other => other,
        })
    }

    async fn look(&self, connection: &Connection, addresses: &[String]) -> Result<String, Outcome> {
        if connection.welcome.quality_max == Some(0) {
            let reason =
                "the broker takes messages of quality 0 alone, which nobody acknowledges: check end_point";
            return Err(Outcome::EndpointFault { reason: reason.to_owned() });
        }
        let version = match self.version {
            Version::Five => "5",
            Version::Three => "3.1.1",
        };
        Ok(format!(
            "MQTT {version}, {}, answered Success to the client {}, takes packets of up to {} bytes; whether it lets the \
             agent publish to {}, only a message shows",
            with_tls(self.tls.is_some()),
            self.looking_id(),
            connection.packet_bytes_max(),
            listed(addresses.iter().map(String::as_str)),
        ))
    }

    async fn publish(&self, connection: &Connection, key: &str, messages: Vec<(String, Message)>) -> Outcome {
        let publications =
            messages.into_iter().map(|(topic, message)| publish_one(connection, key, topic, message));
        let outcome = if self.alone.load(Ordering::Relaxed) {
            let _turn = self.turns.write().await;
            queue::in_order(publications, 1).await
        } else {
            let _turn = self.turns.read().await;
            queue::in_order(publications, queue::WINDOW).await
        };
        if matches!(outcome, Outcome::Rejected { .. }) {
            self.alone.store(false, Ordering::Relaxed);
        } else if connection.waiting.some_too_big.swap(false, Ordering::Relaxed) {
            self.alone.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn retire(&self, connection: &Connection) {
        connection.waiting.leave.notify_one();
    }

    async fn close(&self, connection: Arc<Connection>) {
        let asked = match &connection.client {
            Client::Five(client) => client.disconnect().await.is_ok(),
            Client::Three(client) => client.disconnect().await.is_ok(),
        };
        if asked {
            // Closed once the task has ended.
            let _ = connection.waiting.places.acquire_many(u32::MAX >> 1).await;
        }
    }
}

async fn publish_one(connection: &Connection, key: &str, topic: String, message: Message) -> Outcome {
    let Connection { client, waiting, .. } = connection;
    let packet_bytes_max = connection.packet_bytes_max();
    let properties = properties(key, &message);
    let bytes = packet_bytes(&topic, &message.body, matches!(client, Client::Five(_)).then_some(&properties));
    if bytes > packet_bytes_max {
        let response =
            format!("a packet of {bytes} bytes is longer than the {packet_bytes_max} that the broker takes");
        return Outcome::Rejected { status: 413, response };
    }
    // Given back when the message has left the client library's queue.
    match waiting.places.acquire().await {
        Ok(place) => place.forget(),
        Err(_closed) => {
            let reason = "the connection ended before the message was sent".to_owned();
            return Outcome::Retry { after: None, reason };
        }
    }
    let enqueued = waiting.enqueue(|| match client {
        Client::Five(client) => {
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            client.try_publish_with_properties(topic, qos, false, message.body, properties).is_ok()
        }
        Client::Three(client) => {
            client.try_publish(topic, rumqttc::QoS::AtLeastOnce, false, message.body).is_ok()
        }
    });
    match enqueued {
        Err(outcome) => outcome,
        Ok(answer) => answer.await.unwrap_or_else(|_| Outcome::Retry {
            after: None,
            reason: "the connection was given up".to_owned(),
        }),
    }
}

/// What travels beside the content.
fn properties(key: &str, message: &Message) -> PublishProperties {
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut user_properties = vec![
        property(ID_PROPERTY, &message.id),
        property(KEY_HEADER, key),
        property(SEQ_HEADER, &message.seq),
    ];
    if let Some(source) = &message.source {
        user_properties.push(property(SOURCE_HEADER, source));
    }
    PublishProperties {
        payload_format_indicator: is_text(message.content_type).then_some(TEXT),
        content_type: Some(message.content_type.to_owned()),
        user_properties,
        ..PublishProperties::default()
    }
}

/// Whether a content of this type is UTF-8 always: JSON is, whatever is in the lines, but lines as they are may not be.
fn is_text(content_type: &str) -> bool {
    content_type.ends_with("json")
}

/// How long a PUBLISH packet is (MQTT 5.0, section 3.3; without properties, as in 3.1.1).
fn packet_bytes(topic: &str, body: &Bytes, properties: Option<&PublishProperties>) -> usize {
    let varint = |number: usize| match number {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    };
    let properties = properties.map_or(0, |properties| {
        let of_user: usize =
            properties.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
        let content_type = properties.content_type.as_ref().map_or(0, |text| 3 + text.len());
        let format = properties.payload_format_indicator.map_or(0, |_| 2);
        let length = of_user + content_type + format;
        varint(length) + length
    });
    let rest = 2 + topic.len() + 2 + properties + body.len();
    1 + varint(rest) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_packet_is_the_length_of_what_the_library_writes() {
        use rumqttc::v5::mqttbytes::v5::Publish;
        for body_bytes in [0, 1, 100, 20_000, 3_000_000] {
            let message = Message {
                id: "00112233445566778899aabbccddeeff-1-64".into(),
                seq: "1-50, 1-14".into(),
                source: Some("app".into()),
                content_type: "application/json",
                body: Bytes::from("x".repeat(body_bytes)),
            };
            let properties = properties("key", &message);
            let counted = packet_bytes("logs/a", &message.body, Some(&properties));
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            let mut publish = Publish::new("logs/a", qos, message.body.clone(), Some(properties));
            publish.pkid = 7;
            let mut written = bytes::BytesMut::new();
            assert_eq!(publish.write(&mut written).unwrap(), counted);
            assert_eq!(written.len(), counted);
        }
    }
}

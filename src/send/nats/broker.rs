//! A connection to a NATS server, and a publication on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{
    AuthError, Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind,
    ServerAddr, ServerError,
};
use rustls::ClientConfig;
use tokio::sync::watch;

use super::credentials::Credentials;
use super::{NatsOptions, SYNTAX, answer};
use crate::config::Global;
use crate::send::client::{Redactor, fault};
use crate::send::parts::{KEY_HEADER, SEQ_HEADER, SOURCE_HEADER, TYPE_HEADER};
use crate::send::queue::{self, Broker, Live, Message, Publisher, Syntax};
use crate::send::{Outcome, SendError, Strategy, listed, with_tls};

/// Asked for the streams that take a subject.
const STREAM_NAMES: &str = "$JS.API.STREAM.NAMES";
/// The server is asked for a sign of life this often; after two without an answer the connection is given up.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Makes the strategy.
pub(super) fn new(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    let not_set = || SendError::Options { table: "[global.nats]", what: "is not set" };
    let options = global.options.of::<NatsOptions>().ok_or_else(not_set)?;
    let credentials = Credentials::of(global, options).ok_or(SendError::Options {
        table: "[global.nats]",
        what: "names a file that has no credentials, or no seed of a key",
    })?;
    let redactor = Redactor::with(global, credentials.secrets());
    let address = ServerAddr::from_url(global.end_point.0.clone()).map_err(|_| SendError::Options {
        table: "[global]",
        what: "has an end_point that is no NATS server",
    })?;
    let broker = Nats {
        address,
        secure: global.end_point.is_secure(global.send_type),
        tls: queue::tls::client_config(&global.tls)?,
        credentials,
        name: global.agent_name.clone(),
        stream: options.stream.clone(),
        timeout: global.timeout,
    };
    Ok(Arc::new(Publisher::new(broker, global, options.per, options.subject.clone(), redactor)))
}

/// A NATS server and how it is spoken to.
struct Nats {
    address: ServerAddr,
    secure: bool,
    tls: Arc<ClientConfig>,
    credentials: Credentials,
    name: String,
    stream: Option<String>,
    timeout: Duration,
}

/// An open connection.
pub(super) struct Connection {
    client: Client,
    state: watch::Receiver<State>,
}

/// What the server said of the connection as a whole.
#[derive(Clone, Debug, Default)]
struct State {
    ended: bool,
    /// What it said last of something that it does not allow; it does not say of which message.
    violation: Option<Arc<str>>,
}

impl Live for Connection {
    fn is_live(&self) -> bool {
        !self.state.borrow().ended
    }
}

impl Nats {
    fn options(&self) -> (ConnectOptions, watch::Receiver<State>) {
        let (says, state) = watch::channel(State::default());
        let connected = Arc::new(AtomicBool::new(false));
        let credentials = self.credentials.clone();
        let options = ConnectOptions::with_auth_callback(move |nonce| {
            // The second time is the library's own attempt to take up a connection that was lost.
            let again = connected.swap(true, Ordering::Relaxed);
            let shown = if again { Err(AuthError::new("not again")) } else { credentials.show(&nonce) };
            async move { shown }
        })
        .max_reconnects(1)
        .ignore_discovered_servers()
        .connection_timeout(self.timeout)
        .request_timeout(None)
        .ping_interval(PING_EVERY)
        .name(&self.name)
        .require_tls(self.secure)
        .tls_client_config(ClientConfig::clone(&self.tls))
        .event_callback(move |event| {
            says.send_modify(|state| match event {
                Event::Disconnected | Event::Closed | Event::LameDuckMode => state.ended = true,
                Event::ServerError(ServerError::Other(text)) if text.contains("ermissions Violation") => {
                    state.violation = Some(text.into());
                }
                _ => {}
            });
            std::future::ready(())
        });
        (options, state)
    }

    fn headers(&self, key: &str, message: &Message) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", message.id.as_str());
        headers.insert(KEY_HEADER, key);
        headers.insert(SEQ_HEADER, message.seq.as_str());
        headers.insert(TYPE_HEADER, message.content_type);
        if let Some(source) = &message.source {
            headers.insert(SOURCE_HEADER, source.as_str());
        }
        if let Some(stream) = &self.stream {
            headers.insert("Nats-Expected-Stream", stream.as_str());
        }
        headers
    }
}

impl Broker for Nats {
    type Connection = Connection;

    const SYNTAX: Syntax = SYNTAX;

    async fn connect(&self) -> Result<Connection, Outcome> {
        let (options, state) = self.options();
        match options.connect(self.address.clone()).await {
            Ok(client) => Ok(Connection { client, state }),
            Err(error) => Err(match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    let reason = "the server refused the agent's credentials: check [global.auth], or credentials_file and \
                                  nkey_file in [global.nats]";
                    Outcome::EndpointFault { reason: reason.to_owned() }
                }
                ConnectErrorKind::TimedOut => {
                    let reason = format!("no connection within {} s", self.timeout.as_secs_f64());
                    Outcome::Retry { after: None, reason }
                }
                _ => fault::of_connecting(&error),
            }),
        }
    }

    async fn publish(&self, connection: &Connection, key: &str, messages: Vec<(String, Message)>) -> Outcome {
        let publish = |(address, message)| self.publish_one(connection, key, address, message);
        queue::in_order(messages.into_iter().map(publish), queue::WINDOW).await
    }

    async fn look(&self, connection: &Connection, addresses: &[String]) -> Result<String, Outcome> {
        let server = connection.client.server_info();
        let tls = with_tls(self.secure || server.tls_required);
        let version = fault::said(&server.version);
        let mut subjects_of: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for subject in addresses {
            let Some(stream) = self.stream_of(connection, subject).await? else {
                let addresses = listed(addresses.iter().map(String::as_str));
                return Ok(format!(
                    "nats-server {version}, {tls}; which stream takes {addresses} it does not let this agent ask"
                ));
            };
            subjects_of.entry(stream).or_default().push(subject);
        }
        let mut found = format!("nats-server {version}, {tls}");
        for (stream, subjects) in subjects_of {
            let (stream, subjects) = (fault::said(&stream), listed(subjects));
            found.push_str(&format!("; the stream {stream} takes {subjects}"));
        }
        Ok(found)
    }

    async fn close(&self, connection: Arc<Connection>) {
        let mut state = connection.state.clone();
        if connection.client.drain().await.is_ok() {
            // A sender that is gone means the same.
            let _ = state.wait_for(|state| state.ended).await;
        }
    }
}

impl Nats {
    /// The stream that takes `subject`; `None` where the server does not let the agent ask.
    async fn stream_of(&self, connection: &Connection, subject: &str) -> Result<Option<String>, Outcome> {
        let mut state = connection.state.clone();
        let question = serde_json::json!({ "subject": subject }).to_string();
        let request = Request::new().payload(question.into());
        tokio::select! {
            biased;
            answer = connection.client.send_request(STREAM_NAMES, request) => match answer {
                Ok(answer) => {
                    answer::stream_of(&answer.payload, subject, self.stream.as_deref()).map(Some)
                }
                Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(answer::no_jetstream()),
                Err(error) => Err(fault::of_connecting(&error)),
            },
            violation = violation(&mut state) => match violation {
                Some(_) => Ok(None),
                None => Err(gone()),
            },
        }
    }

    async fn publish_one(
        &self,
        connection: &Connection,
        key: &str,
        address: String,
        message: Message,
    ) -> Outcome {
        let Connection { client, state } = connection;
        let mut state = state.clone();
        let headers = self.headers(key, &message);
        let room = client.max_payload();
        let bytes = message.body.len();
        let request = Request::new().payload(message.body).headers(headers);
        tokio::select! {
            biased;
            answer = client.send_request(address.clone(), request) => match answer {
                Ok(answer) => answer::outcome_of(&answer.payload, &address),
                Err(error) => match error.kind() {
                    RequestErrorKind::NoResponders => answer::no_stream(&address),
                    RequestErrorKind::MaxPayloadExceeded => Outcome::Rejected {
                        status: 413,
                        response: format!(
                            "{bytes} bytes and their headers are more than the {room} of the server's max_payload"
                        ),
                    },
                    RequestErrorKind::InvalidSubject => Outcome::EndpointFault {
                        reason: format!("{address:?} is no subject: check subject in [global.nats]"),
                    },
                    RequestErrorKind::TimedOut | RequestErrorKind::Other => fault::of_connecting(&error),
                },
            },
            ended = ended(&mut state) => ended,
        }
    }
}

/// Waits until the server says something that ends what is unconfirmed.
async fn ended(state: &mut watch::Receiver<State>) -> Outcome {
    match violation(state).await {
        Some(violation) => {
            let said = fault::said(&violation);
            let reason = format!("the server does not allow it ({said}): check what it allows this agent");
            Outcome::EndpointFault { reason }
        }
        None => gone(),
    }
}

/// Waits until the server says that it does not allow something, or the connection has ended.
async fn violation(state: &mut watch::Receiver<State>) -> Option<Arc<str>> {
    while !state.borrow_and_update().ended {
        if state.changed().await.is_err() {
            break;
        }
        let State { ended, violation } = state.borrow_and_update().clone();
        if let (false, Some(violation)) = (ended, violation) {
            return Some(violation);
        }
    }
    None
}

fn gone() -> Outcome {
    Outcome::Retry { after: None, reason: "the connection ended before the stream answered".to_owned() }
}

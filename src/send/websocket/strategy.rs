//! One connection for all batches: made when there is none, given up when it no longer serves.

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::frame;
use super::handshake::Handshake;
use super::outcome::{self, Meaning};
use super::session::{Keepalive, Reply, Session};
use crate::batch::Payload;
use crate::config::Global;
use crate::event::SourceName;
use crate::send::client::Redactor;
use crate::send::{Outcome, Probe, SendError, Strategy};

/// The subprotocol that is offered: the version of what `docs/strategies.md` describes.
pub const PROTOCOL: &str = "log-agent.v1";

/// The server is asked for a sign of life when nothing came for so long: well within the minute after which proxies
/// commonly give up on a connection that is idle.
const PING_AFTER: Duration = Duration::from_secs(30);

/// Makes the strategy.
pub(super) fn new(global: &Global) -> Result<Arc<dyn Strategy>, SendError> {
    Ok(Arc::new(WebSocketStrategy::new(global)?))
}

/// Sends batches as frames of a WebSocket.
#[derive(Debug)]
pub struct WebSocketStrategy {
    /// For messages, without secrets.
    end_point: String,
    handshake: Handshake,
    redactor: Redactor,
    timeout: Duration,
    ping_after: Duration,
    /// The connection that new batches go to.
    current: Mutex<Option<Arc<Session>>>,
    /// Held while a connection is made, so that there is one attempt at a time; why the last one failed.
    connecting: tokio::sync::Mutex<Option<Outcome>>,
    /// How many attempts failed.
    failures: AtomicU64,
    /// Sends share it, until the server finds one message of several too big: then they take turns.
    turns: RwLock<()>,
    alone: AtomicBool,
}

/// The right to send: together with others, or alone.
enum Turn<'a> {
    Shared { _turn: RwLockReadGuard<'a, ()> },
    Alone { _turn: RwLockWriteGuard<'a, ()> },
}

impl WebSocketStrategy {
    /// A strategy that sends to `end_point` as `global` says. Opens no connection.
    ///
    /// # Errors
    /// [`SendError`] where a configured certificate, key or header cannot be used.
    pub fn new(global: &Global) -> Result<Self, SendError> {
        let handshake = Handshake::new(global)?;
        let redactor = handshake.redactor(global);
        Ok(Self {
            end_point: global.end_point.to_string(),
            handshake,
            redactor,
            timeout: global.timeout,
            ping_after: PING_AFTER,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            turns: RwLock::default(),
            alone: AtomicBool::new(false),
        })
    }

    async fn send_once(&self, payload: &Payload) -> Outcome {
        let _turn = self.turn().await;
        let mut used = None;
        match tokio::time::timeout(self.timeout, self.deliver(payload, &mut used)).await {
            Ok(outcome) => outcome.cleaned(&self.redactor),
            Err(_elapsed) => {
                // What the server still has to say about others on this connection is waited for; nothing new goes
                // there.
                self.retire(used.as_ref());
                let reason = format!("no answer within {} s", self.timeout.as_secs_f64());
                Outcome::Retry { after: None, reason }
            }
        }
    }

    async fn turn(&self) -> Turn<'_> {
        if self.alone.load(Ordering::Relaxed) {
            Turn::Alone { _turn: self.turns.write().await }
        } else {
            Turn::Shared { _turn: self.turns.read().await }
        }
    }

    /// Sends `payload` over the connection that there is, or a new one, and waits for what becomes of it. `used` is the
    /// connection that has it.
    async fn deliver(&self, payload: &Payload, used: &mut Option<Arc<Session>>) -> Outcome {
        let Some(frame) = frame::Frame::of(payload) else {
            let reason = "the batch's payload cannot be written as a frame".to_owned();
            return Outcome::EndpointFault { reason };
        };
        loop {
            let (session, fresh) = match self.session().await {
                Ok(found) => found,
                Err(failure) => return failure,
            };
            match used.insert(session).send(&frame).await {
                Some(reply) => return self.outcome_of(reply),
                None if fresh => {
                    let reason = "the connection ended before the batch was sent".to_owned();
                    return Outcome::Retry { after: None, reason };
                }
                // It ended while it was idle, which servers may do, and nothing of the batch had left.
                None => {}
            }
        }
    }

    fn outcome_of(&self, reply: Reply) -> Outcome {
        let meaning = match reply {
            Reply::Answered(answer) => outcome::of_answer(answer),
            Reply::Ended { end, alone } => outcome::of_end(&end, alone),
        };
        match meaning {
            Meaning::Known(outcome) => outcome,
            Meaning::TooBig(outcome) => {
                self.alone.store(false, Ordering::Relaxed);
                outcome
            }
            Meaning::SomeTooBig(outcome) => {
                self.alone.store(true, Ordering::Relaxed);
                outcome
            }
        }
    }

    /// A connection, and whether it was made while this call waited for one.
    async fn session(&self) -> Result<(Arc<Session>, bool), Outcome> {
        if let Some(session) = self.usable() {
            return Ok((session, false));
        }
        let failures = self.failures.load(Ordering::Relaxed);
        let mut last_failure = self.connecting.lock().await;
        if let Some(session) = self.usable() {
            return Ok((session, true));
        }
        if self.failures.load(Ordering::Relaxed) != failures
            && let Some(failure) = &*last_failure
        {
            // An attempt that ended meanwhile speaks for all that waited for it.
            return Err(failure.clone());
        }
        match self.handshake.connect(&self.redactor).await {
            Ok(socket) => {
                let keepalive = Keepalive { ping_after: self.ping_after, pong_within: self.timeout };
                let session = Arc::new(Session::start(socket, keepalive));
                *self.current() = Some(Arc::clone(&session));
                Ok((session, true))
            }
            Err(failure) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *last_failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that there is, where it takes batches.
    fn usable(&self) -> Option<Arc<Session>> {
        self.current().as_ref().filter(|session| session.is_open()).cloned()
    }

    /// Lets no batch go to `session` any more. It is closed once nobody waits for an answer on it.
    fn retire(&self, session: Option<&Arc<Session>>) {
        let mut current = self.current();
        if let (Some(one), Some(other)) = (&*current, session)
            && Arc::ptr_eq(one, other)
        {
            *current = None;
        }
    }
}

impl Strategy for WebSocketStrategy {
    fn send<'a>(&'a self, payload: &'a Payload) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_once(payload))
    }

    /// Makes a connection of its own and ends it: the handshake is all that is asked.
    fn probe<'a>(&'a self, _: &'a [SourceName]) -> BoxFuture<'a, Vec<Probe>> {
        Box::pin(async {
            let connect = self.handshake.connect(&self.redactor);
            let found = match tokio::time::timeout(self.timeout, connect).await {
                Ok(Ok(socket)) => {
                    drop(socket);
                    Ok(format!("takes the handshake of {PROTOCOL}"))
                }
                Ok(Err(failure)) => Err(self.redactor.clean(failure.into_reason())),
                Err(_elapsed) => Err(format!("no answer within {} s", self.timeout.as_secs_f64())),
            };
            vec![Probe { end_point: self.end_point.clone(), found }]
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let current = self.current().take();
            // Where a send still holds it, it ends with that.
            if let Some(session) = current.and_then(Arc::into_inner) {
                session.close().await;
            }
        })
    }
}

//! One connection from its handshake to its end: a task that writes frames, reads answers and asks for signs of life.
//!
//! Invariants:
//! - A batch is waited for from before its first byte is written until its answer comes or the connection ends, and it
//!   is told of one of the two. One that was not begun to be written is told nothing: it never left.
//! - Reading never waits for writing, so a server that answers before it reads on is no deadlock.
//! - The task ends when nobody holds the session any more, however slow the server is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::answer::{self, Answer};
use super::frame::Frame;
use super::handshake::Socket;
use super::outcome::End;
use crate::clock;

/// How long the server may take to close in turn, or to say why it has broken off.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

type Sink = SplitSink<Socket, Message>;
type Stream = SplitStream<Socket>;

/// What became of a batch whose frame was begun to be written.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// The server answered.
    Answered(Answer),
    /// The connection ended first; `alone` where no other batch was on it, unanswered.
    Ended { end: End, alone: bool },
}

/// A batch on its way to the task.
struct Order {
    key: Arc<str>,
    text: Utf8Bytes,
    reply: oneshot::Sender<Reply>,
}

/// When the server is asked for a sign of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// A ping is sent when nothing came for so long.
    pub(super) ping_after: Duration,
    /// A server that answers none within this is gone.
    pub(super) pong_within: Duration,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    orders: mpsc::Sender<Order>,
    /// Dropped with the session, which is how the task knows.
    held: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

impl Session {
    /// Takes over `socket`.
    pub(super) fn start(socket: Socket, keepalive: Keepalive) -> Self {
        // The frame that is written and one that waits; all others wait as payloads.
        let (orders, queue) = mpsc::channel(1);
        let (held, left) = oneshot::channel();
        let task = tokio::spawn(run(socket, queue, left, keepalive));
        Self { orders, held, task }
    }

    /// Whether it takes batches.
    pub(super) fn is_open(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Sends a frame and waits for what becomes of it; `None` where nothing of it was sent.
    pub(super) async fn send(&self, frame: &Frame<'_>) -> Option<Reply> {
        let room = self.orders.reserve().await.ok()?;
        let (reply, replied) = oneshot::channel();
        room.send(Order { key: Arc::clone(frame.key()), text: frame.text(), reply });
        replied.await.ok()
    }

    /// Closes the connection in order, within [`CLOSE_TIME_MAX`].
    pub(super) async fn close(self) {
        let Self { orders, held, task } = self;
        drop((orders, held));
        // That the task panicked changes nothing for who is done with it.
        let _ = task.await;
    }
}

/// What reading and writing share.
#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Batches whose frames were begun to be written and are not answered.
    unanswered: HashMap<Arc<str>, oneshot::Sender<Reply>>,
    /// When something came last.
    heard: Instant,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an answer to the batch that it is about. One to a batch that nobody waits for changes nothing.
    fn settle(&self, key: &str, answer: Answer) {
        match self.state().unanswered.remove(key) {
            // Who gave up on it meanwhile has taken it for unanswered.
            Some(reply) => drop(reply.send(Reply::Answered(answer))),
            None => tracing::debug!("the server answered a batch that is not in flight"),
        }
    }

    /// Tells all who wait that no answer will come.
    fn end(&self, end: &End) {
        let unanswered = std::mem::take(&mut self.state().unanswered);
        let alone = unanswered.len() == 1;
        for reply in unanswered.into_values() {
            let _ = reply.send(Reply::Ended { end: end.clone(), alone });
        }
    }
}

async fn run(
    socket: Socket,
    orders: mpsc::Receiver<Order>,
    left: oneshot::Receiver<Infallible>,
    keepalive: Keepalive,
) {
    let (mut sink, mut stream) = socket.split();
    let state = State { unanswered: HashMap::new(), heard: clock::timer_now() };
    let shared = Shared(Mutex::new(state));
    let end = {
        let mut reading = pin!(read(&mut stream, &shared));
        tokio::select! {
            biased;
            end = &mut reading => end,
            // It can only be dropped.
            _ = left => End::Left,
            end = write(&mut sink, orders, &shared, keepalive) => last_word(reading, end).await,
        }
    };
    tracing::debug!(end = ?end, "connection ended");
    shared.end(&end);
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, close(&mut sink, &mut stream, &end)).await;
}

/// Reads answers until the connection ends.
async fn read(stream: &mut Stream, shared: &Shared) -> End {
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return end_of(error),
            None => return End::Closed { code: None, reason: String::new() },
        };
        shared.state().heard = clock::timer_now();
        match message {
            Message::Text(text) => match answer::parse(&text) {
                Ok((key, answer)) => shared.settle(&key, answer),
                Err(error) => return End::NoAnswer(error),
            },
            Message::Close(frame) => {
                let code = frame.as_ref().map(|frame| u16::from(frame.code));
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return End::Closed { code, reason };
            }
            Message::Binary(_) => return End::Malformed("it is a binary frame".to_owned()),
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// Writes frames, and pings when the server is quiet, until that fails.
async fn write(
    sink: &mut Sink,
    mut orders: mpsc::Receiver<Order>,
    shared: &Shared,
    keepalive: Keepalive,
) -> End {
    let Keepalive { ping_after, pong_within } = keepalive;
    let mut pinged: Option<Instant> = None;
    loop {
        let heard = shared.state().heard;
        let asked = pinged.filter(|pinged| *pinged >= heard);
        let due = asked.map_or(heard + ping_after, |asked| asked + pong_within);
        let sent = tokio::select! {
            Some(order) = orders.recv() => send(sink, order, shared).await,
            () = tokio::time::sleep_until(due) => {
                if shared.state().heard > heard {
                    continue;
                }
                if asked.is_some() {
                    return End::Silent(pong_within);
                }
                pinged = Some(clock::timer_now());
                sink.send(Message::Ping(Bytes::new())).await
            }
        };
        if let Err(error) = sent {
            return end_of(error);
        }
    }
}

/// Writes a frame whose batch is waited for from now on.
async fn send(sink: &mut Sink, order: Order, shared: &Shared) -> Result<(), Error> {
    let Order { key, text, reply } = order;
    if reply.is_closed() {
        // Whoever sent it has given up on it.
        return Ok(());
    }
    shared.state().unanswered.insert(key, reply);
    sink.send(Message::Text(text)).await
}

/// Why writing failed: what the server said last, if it did, and else `end`.
async fn last_word(reading: impl Future<Output = End>, end: End) -> End {
    match tokio::time::timeout(CLOSE_TIME_MAX, reading).await {
        Ok(said @ End::Closed { .. }) => said,
        _ => end,
    }
}

/// Says goodbye, and reads on up to the server's own.
async fn close(sink: &mut Sink, stream: &mut Stream, end: &End) {
    let code = match end {
        End::Left => CloseCode::Normal,
        End::NoAnswer(_) | End::Malformed(_) => CloseCode::Protocol,
        End::Closed { .. } => {
            // Flushes the answer to the server's own.
            let _ = sink.close().await;
            return;
        }
        End::Broken(_) | End::Silent(_) => return,
    };
    let frame = CloseFrame { code, reason: Utf8Bytes::default() };
    if sink.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = stream.next().await {}
    }
}

/// What an error of the connection says of its end.
fn end_of(error: Error) -> End {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => End::Closed { code: None, reason: String::new() },
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            End::Malformed(format!("it is longer than {max_size} bytes"))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            End::Broken("it was closed without a word".to_owned())
        }
        Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_) => End::Malformed(error.to_string()),
        _ => End::Broken(crate::error_chain(&error)),
    }
}

//! The task that owns a connection, and what waits for its acknowledgements.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::{Event, Outgoing, Packet, v5};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::outcome::{self, End};
use crate::send::Outcome;

/// Messages that were handed to the client library and not yet written, at most: its queue has as many places.
pub(super) const UNSENT_MAX: usize = 64;

/// The client library's event loop, of either version.
pub(super) enum Wire {
    Five(Box<v5::EventLoop>),
    Three(Box<rumqttc::EventLoop>),
}

/// What a broker says of itself when it takes a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Welcome {
    /// The longest packet that it takes, where there is a limit.
    pub(super) packet_bytes_max: Option<u32>,
    /// The highest quality that it takes, where there is one that it does not.
    pub(super) quality_max: Option<u8>,
}

/// What happened on the wire.
pub(super) enum Happening {
    /// The broker took the connection.
    Connected(Welcome),
    /// The oldest message that was not yet sent has left, with this packet identifier.
    Sent(u16),
    /// The broker acknowledged a packet.
    Answered(u16, Outcome),
    /// The farewell has left.
    Gone,
    /// Something else.
    Other,
}

impl Wire {
    /// The next thing that happens. Must not be asked again after an end.
    pub(super) async fn next(&mut self) -> Result<Happening, End> {
        use v5::mqttbytes::v5::Packet as Packet5;
        match self {
            Self::Five(wire) => match wire.poll().await.map_err(|error| outcome::of_end(&error))? {
                v5::Event::Incoming(Packet5::ConnAck(ack)) => {
                    let welcome = ack.properties.map_or_else(Welcome::default, |properties| Welcome {
                        packet_bytes_max: properties.max_packet_size,
                        quality_max: properties.max_qos,
                    });
                    Ok(Happening::Connected(welcome))
                }
                v5::Event::Incoming(Packet5::PubAck(ack)) => {
                    Ok(Happening::Answered(ack.pkid, outcome::of_ack(ack.reason)))
                }
                v5::Event::Outgoing(outgoing) => Ok(of_outgoing(&outgoing)),
                v5::Event::Incoming(_) => Ok(Happening::Other),
            },
            Self::Three(wire) => match wire.poll().await.map_err(|error| outcome::of_end_3(&error))? {
                Event::Incoming(Packet::ConnAck(_)) => Ok(Happening::Connected(Welcome::default())),
                Event::Incoming(Packet::PubAck(ack)) => {
                    Ok(Happening::Answered(ack.pkid, Outcome::Acknowledged))
                }
                Event::Outgoing(outgoing) => Ok(of_outgoing(&outgoing)),
                Event::Incoming(_) => Ok(Happening::Other),
            },
        }
    }
}

const fn of_outgoing(outgoing: &Outgoing) -> Happening {
    match outgoing {
        Outgoing::Publish(id) => Happening::Sent(*id),
        Outgoing::Disconnect => Happening::Gone,
        _ => Happening::Other,
    }
}

/// What waits on a connection.
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    /// Places in the client library's queue.
    pub(super) places: Semaphore,
    /// Ends the task.
    pub(super) leave: Notify,
    /// One of several messages was longer than the broker takes, and which one shows when they are sent one by one.
    pub(super) some_too_big: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// Why nothing waits any more.
    ended: Option<Outcome>,
    /// Messages in the client library's queue, oldest first.
    unsent: VecDeque<oneshot::Sender<Outcome>>,
    /// Messages on the wire by packet identifier, oldest first.
    unanswered: VecDeque<(u16, oneshot::Sender<Outcome>)>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            places: Semaphore::new(UNSENT_MAX),
            leave: Notify::new(),
            some_too_big: AtomicBool::new(false),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.inner().ended.is_none()
    }

    /// Hands a message to the client library by `queue`, which says whether it was taken, and waits in its place.
    pub(super) fn enqueue(
        &self,
        queue: impl FnOnce() -> bool,
    ) -> Result<oneshot::Receiver<Outcome>, Outcome> {
        let mut inner = self.inner();
        if let Some(ended) = &inner.ended {
            return Err(ended.clone());
        }
        // Under the lock, so that the order here is the order there.
        if !queue() {
            self.places.add_permits(1);
            let reason = "the client's queue does not take the message".to_owned();
            return Err(Outcome::Retry { after: None, reason });
        }
        let (reply, answer) = oneshot::channel();
        inner.unsent.push_back(reply);
        Ok(answer)
    }

    /// Takes note of what happened.
    fn note(&self, happening: Happening) {
        let mut inner = self.inner();
        match happening {
            Happening::Sent(id) => {
                if let Some(reply) = inner.unsent.pop_front() {
                    inner.unanswered.push_back((id, reply));
                    self.places.add_permits(1);
                }
            }
            Happening::Answered(id, outcome) => {
                let at = inner.unanswered.iter().position(|(sent, _)| *sent == id);
                if let Some((_, reply)) = at.and_then(|at| inner.unanswered.remove(at)) {
                    // Nobody waits for it any more where its batch had no time left.
                    let _ = reply.send(outcome);
                }
            }
            Happening::Connected(_) | Happening::Gone | Happening::Other => {}
        }
    }

    /// Tells everyone who waits that the connection ended.
    fn end(&self, end: &End) {
        let mut inner = self.inner();
        let on_wire = std::mem::take(&mut inner.unanswered).into_iter().map(|(_, reply)| reply);
        let replies: Vec<_> = on_wire.chain(std::mem::take(&mut inner.unsent)).collect();
        let retry =
            |said: &str| Outcome::Retry { after: None, reason: format!("the connection ended: {said}") };
        let outcome = match end {
            End::Of(outcome) => outcome.clone(),
            End::TooBig(said) if replies.len() == 1 => {
                Outcome::Rejected { status: 413, response: said.clone() }
            }
            End::TooBig(said) => {
                self.some_too_big.store(true, Ordering::Relaxed);
                retry(said)
            }
        };
        inner.ended = Some(match end {
            End::Of(outcome) => outcome.clone(),
            End::TooBig(said) => retry(said),
        });
        for reply in replies {
            let _ = reply.send(outcome.clone());
        }
        // Whoever waits for a place finds out.
        self.places.close();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what waits, however the task ends.
struct Ends(Arc<Waiting>);

impl Drop for Ends {
    fn drop(&mut self) {
        if self.0.is_live() {
            let reason = "the connection was given up".to_owned();
            self.0.end(&End::Of(Outcome::Retry { after: None, reason }));
        }
    }
}

/// Drives `wire` until it ends or is left.
pub(super) async fn run(mut wire: Wire, waiting: Arc<Waiting>) {
    let ends = Ends(Arc::clone(&waiting));
    loop {
        let happening = tokio::select! {
            biased;
            () = waiting.leave.notified() => break,
            happening = wire.next() => happening,
        };
        match happening {
            Ok(Happening::Gone) => break,
            Ok(happening) => waiting.note(happening),
            Err(end) => {
                waiting.end(&end);
                break;
            }
        }
    }
    drop(ends);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(id: u16) -> Happening {
        Happening::Answered(id, Outcome::Acknowledged)
    }

    #[tokio::test]
    async fn an_answer_goes_to_the_message_with_its_identifier() {
        let waiting = Waiting::new();
        let [mut one, mut two] = [(); 2].map(|()| waiting.enqueue(|| true).unwrap());
        waiting.note(acknowledged(1));
        assert!(one.try_recv().is_err(), "it was not even sent");
        waiting.note(Happening::Sent(1));
        waiting.note(Happening::Sent(2));
        waiting.note(acknowledged(2));
        waiting.note(acknowledged(3));
        assert!(one.try_recv().is_err());
        assert_eq!(two.try_recv(), Ok(Outcome::Acknowledged));
        waiting.note(acknowledged(1));
        assert_eq!(one.try_recv(), Ok(Outcome::Acknowledged));
        assert!(waiting.enqueue(|| false).is_err());
    }

    #[tokio::test]
    async fn a_message_that_was_too_big_is_refused_once_it_is_known_which_one() {
        let too_big = End::TooBig("too big".into());
        let waiting = Waiting::new();
        let mut answers = [(); 3].map(|()| waiting.enqueue(|| true).unwrap());
        for id in 1..=2 {
            waiting.note(Happening::Sent(id));
        }
        waiting.note(acknowledged(1));
        waiting.end(&too_big);
        assert_eq!(answers[0].try_recv(), Ok(Outcome::Acknowledged));
        for answer in &mut answers[1..] {
            assert!(matches!(answer.try_recv(), Ok(Outcome::Retry { .. })));
        }
        assert!(waiting.some_too_big.load(Ordering::Relaxed) && !waiting.is_live());
        assert!(matches!(waiting.enqueue(|| panic!("it has ended")), Err(Outcome::Retry { .. })));
        assert!(waiting.places.acquire().await.is_err());

        let waiting = Waiting::new();
        let mut answer = waiting.enqueue(|| true).unwrap();
        waiting.end(&too_big);
        assert!(matches!(answer.try_recv(), Ok(Outcome::Rejected { status: 413, .. })));
        assert!(!waiting.some_too_big.load(Ordering::Relaxed));
    }
}

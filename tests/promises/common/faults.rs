//! A server that breaks things on purpose. It stands between agent and collector, or alone, and remembers every request.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Message, read_message};
use super::{Collector, PATIENCE, ServerTls, free_port, wait_for};

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: it is forwarded and answered with the collector's answer. A proxy without a collector answers 200.
    Pass,
    /// It is answered with a status and not forwarded.
    Status(u16),
    /// The same, with a `Retry-After` header of this value.
    StatusRetryAfter(u16, String),
    /// The same, with a body.
    StatusBody(u16, String),
    /// The same, with a `Location` header.
    Redirect(u16, String),
    /// The connection is reset, and nothing was forwarded.
    Reset,
    /// It is forwarded, and the connection is reset before the answer: stored, and the acknowledgement lost.
    LoseReply,
    /// It is forwarded, and the connection ends in the middle of the answer.
    CutReply,
    /// It is not forwarded, and there is no answer until [`FaultProxy::release`].
    Hang,
    /// It is forwarded, and there is no answer until [`FaultProxy::release`].
    HangAfterForward,
    /// It is forwarded, and the answer comes after [`FaultProxy::release`].
    Hold,
    /// It is forwarded, and the answer comes one byte a second.
    Trickle,
    /// It is forwarded and answered, and then the connection is closed without a word.
    CloseAfter,
    /// The answer is no HTTP.
    Garbage,
}

impl Fault {
    /// 503, as of a server that is overloaded.
    pub const UNAVAILABLE: Self = Self::Status(503);
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had come whole.
    pub at: Instant,
    /// Which connection it came on, from 0.
    pub connection: u64,
    pub message: Message,
    /// The body as it came, shared between the clones of a request.
    pub body: Arc<Vec<u8>>,
    /// What was done to it.
    pub fault: Fault,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    /// The value of `Idempotency-Key`.
    pub fn key(&self) -> &str {
        self.header("idempotency-key").unwrap_or_default()
    }

    /// The value of `Log-Agent-Seq`.
    pub fn seq(&self) -> &str {
        self.header("log-agent-seq").unwrap_or_default()
    }

    /// The payload, without any content coding.
    pub fn text(&self) -> String {
        let mut decoded = Vec::new();
        match self.header("content-encoding") {
            Some("gzip") => _ = flate2::read::GzDecoder::new(&**self.body).read_to_end(&mut decoded).unwrap(),
            Some("zstd") => decoded = zstd::stream::decode_all(&**self.body).unwrap(),
            _ => decoded.clone_from(&self.body),
        }
        String::from_utf8(decoded).unwrap()
    }
}

type Script = Box<dyn FnMut(&Received) -> Fault + Send>;
type HandshakeScript = Box<dyn FnMut(&Message) -> Fault + Send>;

struct State {
    next: VecDeque<Fault>,
    script: Script,
    refused: Vec<(String, Fault)>,
    handshakes: HandshakeScript,
    requests: Vec<Received>,
    keep_requests: bool,
    connections: HashMap<u64, TcpStream>,
}

pub(super) struct Shared {
    upstream: Option<SocketAddr>,
    tls: Option<ServerTls>,
    state: Mutex<State>,
    /// Counts calls of [`FaultProxy::release`]; those that hang wait for the next.
    released: Mutex<u64>,
    release: Condvar,
    closing: AtomicBool,
    request_count: AtomicU64,
    connection_count: AtomicU64,
}

/// The proxy. Its port stays the same while it does not listen.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// A proxy in front of a collector, which may be killed and come back.
    pub fn before(collector: &Collector) -> Self {
        Self::start(Some(collector.address()), None)
    }

    /// The same, speaking TLS to the agent.
    pub fn before_with_tls(collector: &Collector, tls: ServerTls) -> Self {
        Self::start(Some(collector.address()), Some(tls))
    }

    /// A proxy in front of any server.
    pub fn before_server(address: SocketAddr) -> Self {
        Self::start(Some(address), None)
    }

    /// A server of its own, which answers 200 where it is not told otherwise.
    pub fn alone() -> Self {
        Self::start(None, None)
    }

    fn start(upstream: Option<SocketAddr>, tls: Option<ServerTls>) -> Self {
        let state = State {
            next: VecDeque::new(),
            script: Box::new(|_| Fault::Pass),
            refused: Vec::new(),
            handshakes: Box::new(|_| Fault::Pass),
            requests: Vec::new(),
            keep_requests: true,
            connections: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            upstream,
            tls,
            state: Mutex::new(state),
            released: Mutex::new(0),
            release: Condvar::new(),
            closing: AtomicBool::new(false),
            request_count: AtomicU64::new(0),
            connection_count: AtomicU64::new(0),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut proxy = Self { address, shared, accepting: None };
        proxy.listen_again();
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the agent sends to.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }

    /// Where the agent sends frames to.
    pub fn socket_url(&self) -> String {
        self.url().replacen("http", "ws", 1)
    }

    /// What happens to the next request that nothing was said about.
    pub fn next(&self, fault: Fault) {
        self.next_n(1, fault);
    }

    /// What happens to the next `count` requests that nothing was said about.
    pub fn next_n(&self, count: usize, fault: Fault) {
        self.shared.state().next.extend(std::iter::repeat_n(fault, count));
    }

    /// What happens to every request that [`FaultProxy::next`] says nothing about.
    pub fn always(&self, fault: Fault) {
        self.script(move |_| fault.clone());
    }

    /// What happens to every request that [`FaultProxy::next`] says nothing about, asked anew for each.
    pub fn script(&self, script: impl FnMut(&Received) -> Fault + Send + 'static) {
        self.shared.state().script = Box::new(script);
    }

    /// What happens to every handshake of a WebSocket, of which nothing else is asked.
    pub fn script_handshakes(&self, script: impl FnMut(&Message) -> Fault + Send + 'static) {
        self.shared.state().handshakes = Box::new(script);
    }

    /// What happens to every request with an event that contains `marker`, whatever else is said.
    pub fn refuse_marked(&self, marker: &str, fault: Fault) {
        self.shared.state().refused.push((marker.to_owned(), fault));
    }

    /// Everything goes through again: nothing is left of the script, and requests that hang go on.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.next.clear();
        state.refused.clear();
        state.script = Box::new(|_| Fault::Pass);
        state.handshakes = Box::new(|_| Fault::Pass);
        drop(state);
        self.release();
    }

    /// Lets requests that hang now go on: their connections are closed without an answer.
    pub fn release(&self) {
        *self.shared.released.lock().unwrap() += 1;
        self.shared.release.notify_all();
    }

    /// Closes the port and every connection: connecting is refused.
    pub fn refuse_connections(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.closing.store(true, Ordering::SeqCst);
        // The listener waits for a connection; this is one.
        let _ = TcpStream::connect(self.address);
        accepting.join().unwrap();
        self.release();
        for connection in self.shared.state().connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens, on the port that it had.
    pub fn listen_again(&mut self) {
        assert!(self.accepting.is_none(), "the proxy listens already");
        let mut listener = None;
        wait_for(PATIENCE, "the proxy gets its port", || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        self.shared.closing.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Every request that came whole, in that order.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.state().requests.clone()
    }

    /// How many requests came whole; also where they are not kept.
    pub fn request_count(&self) -> u64 {
        self.shared.request_count.load(Ordering::SeqCst)
    }

    /// How many connections there were.
    pub fn connection_count(&self) -> u64 {
        self.shared.connection_count.load(Ordering::SeqCst)
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// Keeps no requests from now on, for tests with more of them than memory should hold.
    pub fn keep_no_requests(&self) {
        let mut state = self.shared.state();
        state.keep_requests = false;
        state.requests.clear();
    }

    /// Waits until `count` requests came whole.
    #[track_caller]
    pub fn await_requests(&self, count: u64) {
        wait_for(PATIENCE, &format!("{count} requests"), || self.request_count() >= count);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.refuse_connections();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.connection_count.fetch_add(1, Ordering::SeqCst);
        let Ok(raw) = stream.try_clone() else { continue };
        shared.state().connections.insert(number, raw);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // An error here is the other side's going away, which is what tests make happen.
            let _ = match shared.tls.clone() {
                None => stream.try_clone().and_then(|raw| shared.serve(number, stream, &raw)),
                Some(tls) => rustls::ServerConnection::new(tls).map_err(io::Error::other).and_then(|tls| {
                    let raw = stream.try_clone()?;
                    shared.serve(number, rustls::StreamOwned::new(tls, stream), &raw)
                }),
            };
            // The last handle: what is said with it, an orderly end or a reset, was set before.
            drop(shared.state().connections.remove(&number));
        });
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves one connection until it ends, or a fault ends it.
    fn serve<S: Read + Write>(&self, connection: u64, stream: S, raw: &TcpStream) -> io::Result<()> {
        raw.set_nodelay(true)?;
        let mut client = BufReader::with_capacity(64 << 10, stream);
        let mut upstream = None;
        let go_on = |client: &mut BufReader<S>| client.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        while let Some(request) = read_message(&mut client, go_on)? {
            #[cfg(feature = "websocket")]
            if super::socket::is_handshake(&request) {
                return super::socket::serve(self, connection, client, raw, &request);
            }
            let released = self.released();
            let fault = self.note(connection, &request);
            let client = client.get_mut();
            match fault {
                Fault::Status(status) => say(client, status, &[], "")?,
                Fault::StatusRetryAfter(status, after) => {
                    say(client, status, &[("Retry-After", &after)], "")?
                }
                Fault::StatusBody(status, body) => say(client, status, &[], &body)?,
                Fault::Redirect(status, to) => say(client, status, &[("Location", &to)], "")?,
                Fault::Garbage => {
                    client.write_all(b"what?\n\n")?;
                    return Ok(());
                }
                Fault::Reset => return reset(raw),
                Fault::Hang => {
                    self.hang(released);
                    return Ok(());
                }
                Fault::Pass
                | Fault::LoseReply
                | Fault::CutReply
                | Fault::HangAfterForward
                | Fault::Hold
                | Fault::Trickle
                | Fault::CloseAfter => {
                    // Where the collector is down, the agent sees what it would see without a proxy.
                    let Ok(reply) = self.forward(&mut upstream, &request) else { return reset(raw) };
                    let reply = reply.encode();
                    match fault {
                        Fault::LoseReply => return reset(raw),
                        Fault::CutReply => {
                            client.write_all(&reply[..reply.len() / 2])?;
                            return Ok(());
                        }
                        Fault::HangAfterForward => {
                            self.hang(released);
                            return Ok(());
                        }
                        Fault::Hold => {
                            self.hang(released);
                            client.write_all(&reply)?;
                        }
                        Fault::Trickle => self.trickle(client, &reply, released)?,
                        _ => client.write_all(&reply)?,
                    }
                    if fault == Fault::CloseAfter {
                        client.flush()?;
                        return Ok(());
                    }
                }
            }
            client.flush()?;
        }
        Ok(())
    }

    /// Where requests are forwarded to.
    pub(super) fn upstream(&self) -> Option<SocketAddr> {
        self.upstream
    }

    /// How often those that hang were let go.
    pub(super) fn released(&self) -> u64 {
        *self.released.lock().unwrap()
    }

    /// Decides what happens to a handshake.
    pub(super) fn note_handshake(&self, request: &Message) -> Fault {
        (self.state().handshakes)(request)
    }

    /// Decides what happens to a request, and remembers it.
    pub(super) fn note(&self, connection: u64, request: &Message) -> Fault {
        let mut message = request.clone();
        let body = Arc::new(std::mem::take(&mut message.body));
        let at = Instant::now();
        let mut received = Received { at, connection, message, body, fault: Fault::Pass };
        let mut state = self.state();
        let refused = if state.refused.is_empty() {
            None
        } else {
            let text = received.text();
            state.refused.iter().find(|(marker, _)| text.contains(marker)).map(|(_, fault)| fault.clone())
        };
        let fault = match refused {
            Some(fault) => fault,
            None => match state.next.pop_front() {
                Some(fault) => fault,
                None => (state.script)(&received),
            },
        };
        received.fault = fault.clone();
        if state.keep_requests {
            state.requests.push(received);
        }
        drop(state);
        self.request_count.fetch_add(1, Ordering::SeqCst);
        fault
    }

    /// Sends a request on, over the connection of the request before where it is still good.
    fn forward(&self, upstream: &mut Option<BufReader<TcpStream>>, request: &Message) -> io::Result<Message> {
        let Some(address) = self.upstream else {
            return Ok(Message { start_line: "HTTP/1.1 200 OK".into(), ..Message::default() });
        };
        let bytes = request.encode();
        let ask = |connection: &mut BufReader<TcpStream>| -> io::Result<Message> {
            connection.get_mut().write_all(&bytes)?;
            read_message(connection, |_| Ok(()))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        if let Some(mut connection) = upstream.take()
            && let Ok(reply) = ask(&mut connection)
        {
            *upstream = Some(connection);
            return Ok(reply);
        }
        let mut connection = BufReader::new(TcpStream::connect(address)?);
        let reply = ask(&mut connection)?;
        *upstream = Some(connection);
        Ok(reply)
    }

    pub(super) fn hang(&self, released: u64) {
        let now = self.released.lock().unwrap();
        drop(self.release.wait_while(now, |now| *now == released).unwrap());
    }

    pub(super) fn trickle(&self, client: &mut impl Write, reply: &[u8], released: u64) -> io::Result<()> {
        for byte in reply {
            client.write_all(&[*byte])?;
            client.flush()?;
            let now = self.released.lock().unwrap();
            let second = Duration::from_secs(1);
            let (now, _) = self.release.wait_timeout_while(now, second, |now| *now == released).unwrap();
            if *now != released {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}

/// Answers without having asked anybody.
pub(super) fn say(
    client: &mut impl Write,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<()> {
    let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let start_line = format!("HTTP/1.1 {status} Fault");
    client.write_all(&Message { start_line, headers, body: body.as_bytes().to_vec() }.encode())
}

/// Ends a connection with a reset instead of an orderly close.
pub(super) fn reset(raw: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO))?;
    Ok(())
}

/// Each fault is what it says: seen from the sender, and in what reaches the collector.
#[test]
fn every_fault_is_what_it_says() {
    use super::{Scene, Shipment, spool_id};

    let scene = Scene::new("every_fault_is_what_it_says");
    let mut collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    let address = proxy.address();
    let mut seq = 0;
    let mut send = |fault: Fault| {
        seq += 1;
        proxy.next(fault);
        let answer = Shipment::new(&spool_id(1)).with("app", seq..=seq).post(address);
        (answer, collector.stored_count())
    };
    let kind = |answer: io::Result<super::Answer>| answer.unwrap_err().kind();

    let (answer, stored) = send(Fault::Pass);
    assert_eq!((answer.unwrap().text().as_str(), stored), ("{\"stored\":1,\"duplicates\":0}\n", 1));
    let (answer, stored) = send(Fault::StatusRetryAfter(429, "7".into()));
    let answer = answer.unwrap();
    assert_eq!((answer.status, stored), (429, 1));
    assert!(answer.headers.contains(&("Retry-After".into(), "7".into())));
    let (answer, stored) = send(Fault::StatusBody(400, "no".into()));
    assert_eq!((answer.unwrap().text().as_str(), stored), ("no", 1));
    let (answer, stored) = send(Fault::Reset);
    assert_eq!((kind(answer), stored), (io::ErrorKind::ConnectionReset, 1));
    let (answer, stored) = send(Fault::LoseReply);
    assert_eq!((kind(answer), stored), (io::ErrorKind::ConnectionReset, 2));
    let (answer, stored) = send(Fault::CutReply);
    assert_eq!((kind(answer), stored), (io::ErrorKind::UnexpectedEof, 3));
    let (answer, stored) = send(Fault::CloseAfter);
    assert_eq!((answer.unwrap().status, stored), (200, 4));
    let (answer, stored) = send(Fault::Garbage);
    assert!(answer.is_err());
    assert_eq!(stored, 4);

    let hanging = Shipment::new(&spool_id(1)).with("app", 100..=100);
    for (fault, stored) in [(Fault::Hang, 4), (Fault::HangAfterForward, 5), (Fault::Trickle, 5)] {
        proxy.next(fault);
        let before = proxy.request_count();
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| hanging.post(address));
            proxy.await_requests(before + 1);
            wait_for(PATIENCE, "it is forwarded, if it is", || collector.stored_count() == stored);
            proxy.release();
            assert!(answer.join().unwrap().is_err());
        });
    }

    proxy.refuse_marked(" app 00000200 ", Fault::Status(422));
    let marked = Shipment::new(&spool_id(1)).with("app", 199..=201).encoded("zstd");
    assert_eq!(marked.post(address).unwrap().status, 422);
    assert_eq!(proxy.requests().last().unwrap().seq(), "199-201");
    proxy.heal();
    proxy.refuse_connections();
    assert_eq!(kind(marked.post(address)), io::ErrorKind::ConnectionRefused);
    proxy.listen_again();
    collector.kill();
    assert_eq!(kind(marked.post(address)), io::ErrorKind::ConnectionReset, "no collector, no answer");
    collector.restart();
    assert_eq!(marked.post(address).unwrap().status, 200);
    super::assert_resends_identical(&proxy.requests()[11..]);
}

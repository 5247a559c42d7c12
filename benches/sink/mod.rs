//! A server that takes whatever is sent and counts it, for as little processor time as that can cost: so that a
//! benchmark of the agent measures the agent.
//!
//! One thread a connection, blocking reads into one buffer, no copy of anything. It understands `POST` requests with a
//! `Content-Length`, one after the other on a connection, and answers each with 200 once its body has come. Events are
//! counted in the bodies themselves, so that the count is independent of what the sender claims; in compressed bodies
//! none are found.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem::Finder;

/// Size of a connection's buffer, in bytes; a request's head has to fit.
const BUFFER_BYTES: usize = 256 << 10;
/// What every event of a payload begins with, and nothing else has: a quote within a line is escaped.
const EVENT: &[u8; 8] = b"{\"data\":";
/// The bytes of [`EVENT`] that may be in an earlier read.
const CARRY: usize = EVENT.len() - 1;
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What has come so far, over all connections. A request's numbers are added before it is answered.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    body_bytes: AtomicU64,
    events: AtomicU64,
}

impl Counts {
    /// Requests.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Bytes of request bodies, as they came.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Acquire)
    }

    /// Events in uncompressed bodies.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }
}

/// A running sink. Its threads end with the process.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // An error is the sender's end.
                    let _ = Connection::new(stream).and_then(|mut connection| connection.serve(&counts));
                });
            }
        })?;
        Ok(Self { address, counts })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where an agent sends to.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What has come so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not used yet.
    filled: std::ops::Range<usize>,
    counter: EventCounter,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], filled: 0..0, counter: EventCounter::new() })
    }

    fn serve(&mut self, counts: &Counts) -> io::Result<()> {
        while let Some(body_len) = self.read_head()? {
            let events = self.read_body(body_len)?;
            counts.body_bytes.fetch_add(body_len, Ordering::Release);
            counts.events.fetch_add(events, Ordering::Release);
            // Last, so that whoever has waited for a number of requests sees all of what came with them.
            counts.requests.fetch_add(1, Ordering::Release);
            self.stream.write_all(REPLY)?;
        }
        Ok(())
    }

    /// Uses up the next request's head and says how long its body is; none where the connection ends before it.
    fn read_head(&mut self) -> io::Result<Option<u64>> {
        loop {
            let head = &self.buffer[self.filled.clone()];
            if let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") {
                let body_len = content_length(&head[..end])?;
                self.filled.start += end + 4;
                return Ok(Some(body_len));
            }
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            if self.filled.end == self.buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the head is too long"));
            }
            match self.stream.read(&mut self.buffer[self.filled.end..])? {
                0 => return Ok(None),
                read => self.filled.end += read,
            }
        }
    }

    /// Uses up a body of `len` bytes and says how many events it has.
    fn read_body(&mut self, len: u64) -> io::Result<u64> {
        self.counter.begin();
        let mut missing = usize::try_from(len).map_err(io::Error::other)?;
        let there = self.filled.len().min(missing);
        let start = self.filled.start;
        self.counter.add(&self.buffer[start..start + there]);
        self.filled.start += there;
        missing -= there;
        while missing > 0 {
            let room = missing.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..room])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.counter.add(&self.buffer[..read]);
            missing -= read;
            self.filled = 0..0;
        }
        Ok(self.counter.events)
    }
}

/// Counts [`EVENT`] in a body that comes in pieces.
struct EventCounter {
    finder: Finder<'static>,
    events: u64,
    /// The last bytes of the body so far, at most [`CARRY`].
    carry: [u8; CARRY],
    carried: usize,
}

impl EventCounter {
    fn new() -> Self {
        Self { finder: Finder::new(EVENT), events: 0, carry: [0; CARRY], carried: 0 }
    }

    fn begin(&mut self) {
        self.events = 0;
        self.carried = 0;
    }

    fn add(&mut self, piece: &[u8]) {
        // What lies across the seam is found in the few bytes on both sides of it, where nothing else has room.
        let mut seam = [0; 2 * CARRY];
        let after = piece.len().min(CARRY);
        seam[..self.carried].copy_from_slice(&self.carry[..self.carried]);
        seam[self.carried..self.carried + after].copy_from_slice(&piece[..after]);
        let seam_len = self.carried + after;
        self.events += u64::from(self.finder.find(&seam[..seam_len]).is_some());
        self.events += self.finder.find_iter(piece).count() as u64;

        if piece.len() >= CARRY {
            self.carry.copy_from_slice(&piece[piece.len() - CARRY..]);
            self.carried = CARRY;
        } else {
            let kept = seam_len.min(CARRY);
            self.carry[..kept].copy_from_slice(&seam[seam_len - kept..seam_len]);
            self.carried = kept;
        }
    }
}

fn content_length(head: &[u8]) -> io::Result<u64> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(&line[colon + 1..]).map_err(io::Error::other)?;
            return value.trim().parse().map_err(|_| wrong("Content-Length is not a number"));
        }
    }
    Err(wrong("the sink takes only requests with a Content-Length"))
}

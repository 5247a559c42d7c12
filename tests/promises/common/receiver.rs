//! A server of a test's own: what it answers is a closure, which keeps what came.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{Message, read_message};

/// What is done with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// The connection ends without an answer: what was stored is stored, and the other side does not know.
    Nothing,
}

type Serve = dyn FnMut(&Message) -> Reply + Send;

/// A server on the loopback, which ends when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Receiver {
    /// Starts one that gives each request to `serve`, one at a time.
    pub fn start(serve: impl FnMut(&Message) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let (serve, done): (Arc<Mutex<Serve>>, _) = (Arc::new(Mutex::new(serve)), Arc::clone(&closed));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
                // Ends with its connection, which ends with the agent.
                std::thread::spawn(move || answer(&stream, &serve));
            }
        });
        Self { address, closed }
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

fn answer(stream: &TcpStream, serve: &Mutex<Serve>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = read_message(&mut reader, |_| Ok(())) {
        let reply = (*serve.lock().unwrap())(&request);
        let Reply::Answer(status, body) = reply else { return };
        let answer = Message {
            start_line: format!("HTTP/1.1 {status} said"),
            headers: vec![("content-type".into(), "application/json".into())],
            body: body.into_bytes(),
        };
        let mut writer = stream;
        if writer.write_all(&answer.encode()).is_err() {
            return;
        }
    }
}

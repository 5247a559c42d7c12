//! The fault server's WebSocket side: the same faults, done to frames.
//!
//! A frame is remembered as if it were a request: with its key and its ranges as the headers that they are on HTTP, and
//! its text as the body. Faults that refuse with a status are nacks with it; those that hang leave one frame unanswered
//! and take the next.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, WebSocket};

use super::faults::{Fault, Shared, reset, say};
use super::http::Message;

/// Whether a request asks for a WebSocket.
pub(super) fn is_handshake(request: &Message) -> bool {
    request.header("upgrade").is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
}

/// Answers a handshake and serves the frames after it.
pub(super) fn serve<S: Read + Write>(
    proxy: &Shared,
    connection: u64,
    mut client: BufReader<S>,
    raw: &TcpStream,
    handshake: &Message,
) -> io::Result<()> {
    match proxy.note_handshake(handshake) {
        Fault::Pass => {}
        Fault::Status(status) => return say(client.get_mut(), status, &[], ""),
        Fault::Redirect(status, to) => return say(client.get_mut(), status, &[("Location", &to)], ""),
        Fault::Reset => return reset(raw),
        fault => panic!("{fault:?} is nothing that can be done to a handshake"),
    }
    let accept = derive_accept_key(handshake.header("sec-websocket-key").unwrap().as_bytes());
    let protocol = handshake.header("sec-websocket-protocol").unwrap();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    client.get_mut().write_all(head.as_bytes())?;
    client.get_mut().flush()?;
    let read_ahead = client.buffer().to_vec();
    client.consume(read_ahead.len());
    let socket = WebSocket::from_partially_read(client.into_inner(), read_ahead, Role::Server, None);
    Frames { proxy, connection, raw, socket, upstream: None }.serve()
}

struct Frames<'a, S> {
    proxy: &'a Shared,
    connection: u64,
    raw: &'a TcpStream,
    socket: WebSocket<S>,
    upstream: Option<WebSocket<TcpStream>>,
}

impl<S: Read + Write> Frames<'_, S> {
    fn serve(mut self) -> io::Result<()> {
        while let Ok(message) = self.socket.read() {
            let tungstenite::Message::Text(text) = message else { continue };
            let released = self.proxy.released();
            let (request, key) = as_request(&text);
            let refusal = |status: u16| json!({"nack": key, "status": status});
            match self.proxy.note(self.connection, &request) {
                Fault::Status(status) => self.say(&refusal(status).to_string())?,
                Fault::StatusRetryAfter(status, after) => {
                    let mut refusal = refusal(status);
                    refusal["retryAfter"] = after.parse().unwrap();
                    self.say(&refusal.to_string())?;
                }
                Fault::StatusBody(status, body) => {
                    let mut refusal = refusal(status);
                    refusal["reason"] = body.into();
                    self.say(&refusal.to_string())?;
                }
                Fault::Redirect(status, to) => {
                    let mut refusal = refusal(status);
                    refusal["location"] = to.into();
                    self.say(&refusal.to_string())?;
                }
                Fault::Garbage => self.say("what?")?,
                Fault::Reset => return reset(self.raw),
                Fault::Hang => {}
                fault => {
                    // Where the collector is down, the agent sees what it would see without a proxy.
                    let Ok(answer) = self.forward(&text) else { return reset(self.raw) };
                    if !self.answer(&fault, &answer, released)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes the collector's answer on as `fault` says; whether the connection goes on.
    fn answer(&mut self, fault: &Fault, answer: &str, released: u64) -> io::Result<bool> {
        match fault {
            Fault::LoseReply => {
                reset(self.raw)?;
                return Ok(false);
            }
            Fault::CutReply => {
                let bytes = frame_bytes(answer);
                self.socket.get_mut().write_all(&bytes[..bytes.len() / 2])?;
                self.socket.get_mut().flush()?;
                return Ok(false);
            }
            Fault::HangAfterForward => return Ok(true),
            Fault::Hold => {
                self.proxy.hang(released);
                self.say(answer)?;
            }
            Fault::Trickle => self.proxy.trickle(self.socket.get_mut(), &frame_bytes(answer), released)?,
            _ => self.say(answer)?,
        }
        if *fault == Fault::CloseAfter {
            let _ = self.socket.close(None);
            let _ = self.socket.flush();
            return Ok(false);
        }
        Ok(true)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.socket.send(tungstenite::Message::text(text)).map_err(io::Error::other)
    }

    /// Sends a frame on, over the connection of the frame before where it is still good.
    fn forward(&mut self, text: &str) -> Result<String, Box<dyn std::error::Error>> {
        let Some(address) = self.proxy.upstream() else {
            let key = as_request(text).1;
            return Ok(json!({ "ack": key }).to_string());
        };
        let ask = |socket: &mut WebSocket<TcpStream>| -> Result<String, tungstenite::Error> {
            socket.send(tungstenite::Message::text(text))?;
            loop {
                if let tungstenite::Message::Text(answer) = socket.read()? {
                    return Ok(answer.to_string());
                }
            }
        };
        if let Some(mut socket) = self.upstream.take()
            && let Ok(answer) = ask(&mut socket)
        {
            self.upstream = Some(socket);
            return Ok(answer);
        }
        let stream = TcpStream::connect(address)?;
        let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let answer = ask(&mut socket)?;
        self.upstream = Some(socket);
        Ok(answer)
    }
}

/// A frame as the request that it would be on HTTP, and its key.
fn as_request(text: &str) -> (Message, String) {
    let frame: Value = serde_json::from_str(text).expect("a frame is JSON");
    let member = |name: &str| frame[name].as_str().expect("a frame has key and seq").to_owned();
    let key = member("key");
    let headers = vec![
        ("idempotency-key".to_owned(), format!("\"{key}\"")),
        ("log-agent-seq".to_owned(), member("seq")),
    ];
    let start_line = "FRAME / WebSocket".to_owned();
    (Message { start_line, headers, body: text.as_bytes().to_vec() }, key)
}

/// A text frame of a server as it is on the wire.
fn frame_bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len) if len < 126 => bytes.push(len),
        _ => {
            bytes.push(126);
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Each fault is what it says: seen from the sender, and in what reaches the collector.
#[test]
fn every_fault_of_a_frame_is_what_it_says() {
    use super::{Collector, FaultProxy, Scene, Shipment, spool_id};

    let scene = Scene::new("every_fault_of_a_frame_is_what_it_says");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let connect = || {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        let mut request =
            tungstenite::client::IntoClientRequest::into_client_request(proxy.socket_url()).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "log-agent.v1".parse().unwrap());
        tungstenite::client(request, stream).unwrap().0
    };
    let mut seq = 0;
    let mut frame = || {
        seq += 1;
        let shipment = Shipment::new(&spool_id(1)).with("app", seq..=seq);
        let (key, range) = (shipment.key_header(), shipment.seq_header());
        (format!("{{\"key\":{key},\"seq\":\"{range}\",{}", &shipment.json()[1..]), key.replace('"', ""))
    };
    let mut send = |socket: &mut WebSocket<TcpStream>, fault: Fault| {
        proxy.next(fault);
        let (text, key) = frame();
        socket.send(tungstenite::Message::text(text)).unwrap();
        key
    };
    let answer = |socket: &mut WebSocket<TcpStream>| -> Value {
        serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap_or(Value::Null)
    };

    let mut socket = connect();
    let key = send(&mut socket, Fault::Pass);
    assert_eq!(answer(&mut socket)["ack"], *key);
    let key = send(&mut socket, Fault::StatusBody(422, "no".into()));
    assert_eq!(answer(&mut socket), json!({"nack": key, "status": 422, "reason": "no"}));
    let key = send(&mut socket, Fault::StatusRetryAfter(503, "1.5".into()));
    assert_eq!(answer(&mut socket), json!({"nack": key, "status": 503, "retryAfter": 1.5}));
    send(&mut socket, Fault::Garbage);
    assert_eq!(answer(&mut socket), Value::Null);
    assert_eq!(collector.stored_count(), 1);
    // One is left unanswered, forwarded or not, and the next is not.
    send(&mut socket, Fault::Hang);
    send(&mut socket, Fault::HangAfterForward);
    let key = send(&mut socket, Fault::CloseAfter);
    assert_eq!(answer(&mut socket)["ack"], *key);
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))));
    assert_eq!(collector.stored_count(), 3);
    for (fault, stored) in [(Fault::Reset, 3), (Fault::LoseReply, 4), (Fault::CutReply, 5)] {
        let mut socket = connect();
        send(&mut socket, fault);
        assert!(socket.read().is_err());
        assert_eq!(collector.stored_count(), stored);
    }
    assert_eq!(proxy.request_count(), 10);
    proxy.script_handshakes(|_| Fault::Status(401));
    let refused = tungstenite::client(proxy.socket_url(), TcpStream::connect(proxy.address()).unwrap());
    assert!(refused.unwrap_err().to_string().contains("401"));
}

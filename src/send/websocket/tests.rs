//! The WebSocket strategy against a server on the loopback that does what each test says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::super::{STRATEGY, answer};
use super::*;
use crate::batch::{BatchId, Payload};
use crate::config::{Auth, Global, Secret, SendType, Tls};
use crate::event::Position;
use crate::send::fixtures::{self, Authority, payload, reason};
use crate::send::{Outcome, Strategy as _};

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The server's side of a connection.
struct Peer(WebSocketStream<Box<dyn Io>>);

impl Peer {
    /// The next batch; `None` where the connection ends first.
    async fn batch(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                _ => return None,
            }
        }
    }

    /// The key of the next batch.
    async fn key(&mut self) -> Option<String> {
        Some(self.batch().await?["key"].as_str().unwrap().to_owned())
    }

    async fn say(&mut self, text: impl Into<String>) {
        let text: String = text.into();
        let _ = self.0.send(Message::Text(text.into())).await;
    }

    async fn ack(&mut self, key: &str) {
        self.say(json!({ "ack": key }).to_string()).await;
    }

    /// Acknowledges whatever comes, up to the end.
    async fn ack_all(&mut self) {
        while let Some(key) = self.key().await {
            self.ack(&key).await;
        }
    }

    async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let _ = self.0.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

struct Server {
    address: SocketAddr,
    /// The requests of the handshakes.
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Serves each connection as `serve` says; it is given the connection's number, from 0.
    async fn start<F>(serve: impl Fn(usize, Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(None, Some(PROTOCOL), serve).await
    }

    async fn start_with<F>(
        tls: Option<TlsAcceptor>,
        protocol: Option<&'static str>,
        serve: impl Fn(usize, Peer) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let server = Self { address, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        let serve = Arc::new(serve);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, tls, serve) = (Arc::clone(&requests), tls.clone(), Arc::clone(&serve));
                let number = connections.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let Some(stream) = secured(stream, tls).await else { return };
                    #[allow(clippy::result_large_err, reason = "the library's own type")]
                    let note = |request: &Request, mut response: Response| {
                        requests.lock().unwrap().push(request.clone());
                        if let Some(protocol) = protocol {
                            let name = "sec-websocket-protocol";
                            response.headers_mut().insert(name, protocol.parse().unwrap());
                        }
                        Ok(response)
                    };
                    let Ok(socket) = accept_hdr_async(stream, note).await else { return };
                    serve(number, Peer(socket)).await;
                });
            }
        });
        server
    }

    /// A server whose handshakes go well and whose batches are answered with this text.
    async fn saying(text: &'static str) -> Self {
        Self::start(move |_, mut peer| async move {
            while let Some(key) = peer.key().await {
                peer.say(text.replace("KEY", &key)).await;
            }
        })
        .await
    }

    fn url(&self) -> String {
        format!("ws://{}/logs?token=query-key", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn secured(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Io>> {
    match tls {
        None => Some(Box::new(stream)),
        Some(tls) => match tls.accept(stream).into_fallible().await {
            Ok(stream) => Some(Box::new(stream)),
            // The alert is on its way: what comes in is read, so that no reset overtakes it.
            Err((_, mut stream)) => {
                stream.shutdown().await.ok();
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
                None
            }
        },
    }
}

/// A server of plain HTTP that answers every request with this.
async fn answering(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
                let _ = key.expect("the handshake has a key");
                stream.write_all(answer.as_bytes()).await.ok();
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            });
        }
    });
    format!("ws://{address}/logs?token=query-key")
}

fn global(url: &str) -> Global {
    Global { send_type: SendType(STRATEGY.transport), ..fixtures::global(url) }
}

fn strategy(server: &Server) -> WebSocketStrategy {
    WebSocketStrategy::new(&global(&server.url())).unwrap()
}

/// A strategy whose patience is short; what is to take longer than that must never end by itself.
fn hasty(server: &Server) -> WebSocketStrategy {
    let timeout = Duration::from_millis(300);
    WebSocketStrategy::new(&Global { timeout, ..global(&server.url()) }).unwrap()
}

/// One of several batches.
fn numbered(number: u64) -> Payload {
    let batch = BatchId { first: Position(number), last: Position(number), part: None };
    Payload { batch, key: Arc::from(format!("spool-{number}-{number}")), ..payload() }
}

async fn send_once(global: &Global) -> Outcome {
    WebSocketStrategy::new(global).unwrap().send(&payload()).await
}

fn assert_retry(outcome: &Outcome, says: &str) {
    assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{outcome:?}");
    assert!(reason(outcome).contains(says), "{outcome:?} does not say {says:?}");
}

fn assert_fault(outcome: &Outcome, says: &str) {
    assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
    assert!(reason(outcome).contains(says), "{outcome:?} does not say {says:?}");
}

#[tokio::test]
async fn a_batch_is_one_frame_and_the_handshake_carries_who_sends_it() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&got);
    let server = Server::start(move |_, mut peer| {
        let keep = Arc::clone(&keep);
        async move {
            while let Some(batch) = peer.batch().await {
                peer.ack(batch["key"].as_str().unwrap()).await;
                keep.lock().unwrap().push(batch);
            }
        }
    })
    .await;
    let strategy = strategy(&server);
    for _ in 0..3 {
        assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    }
    strategy.close().await;
    assert_eq!(server.connections(), 1);
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 3);
    for frame in &*got {
        assert_eq!(frame["key"], "00112233445566778899aabbccddeeff-1-64");
        assert_eq!(frame["seq"], "1001-1050, 77-90");
        assert_eq!(frame["agentName"], "x".repeat(40_000));
        assert_eq!(frame.as_object().unwrap().len(), 3);
    }
    let requests = server.requests.lock().unwrap();
    let header = |name: &str| requests[0].headers()[name].to_str().unwrap().to_owned();
    assert_eq!(requests[0].uri(), "/logs?token=query-key");
    assert_eq!(header("sec-websocket-protocol"), PROTOCOL);
    assert_eq!(header("authorization"), "Bearer bearer-token");
    assert_eq!(header("x-api-key"), "header-key");
    assert_eq!(header("user-agent"), concat!("log-agent/", env!("CARGO_PKG_VERSION")));
    assert!(!requests[0].headers().contains_key("sec-websocket-extensions"));
}

#[tokio::test]
async fn answers_come_in_any_order_and_each_reaches_its_batch() {
    let server = Server::start(|_, mut peer| async move {
        let mut keys = Vec::new();
        for _ in 0..4 {
            keys.extend(peer.key().await);
        }
        // What nobody asked about is passed over.
        peer.ack("spool-99-99").await;
        peer.say(json!({"nack": keys[3], "status": 503, "retryAfter": 2, "reason": "busy"}).to_string())
            .await;
        peer.ack(&keys[2]).await;
        peer.say(json!({"nack": keys[1], "status": 422, "reason": "no"}).to_string()).await;
        peer.ack(&keys[0]).await;
        peer.ack_all().await;
    })
    .await;
    let strategy = strategy(&server);
    let payloads = [numbered(1), numbered(2), numbered(3), numbered(4)];
    // Joined futures are begun in their order, and the frames of a connection keep it.
    let outcomes =
        futures_util::future::join_all(payloads.iter().map(|payload| strategy.send(payload))).await;
    let [first, second, third, fourth] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((first, third), (&Outcome::Acknowledged, &Outcome::Acknowledged));
    assert_eq!(*second, Outcome::Rejected { status: 422, response: "no".into() });
    let Outcome::Retry { after, .. } = fourth else { panic!("{fourth:?}") };
    assert_eq!(*after, Some(Duration::from_secs(2)));
    assert!(reason(fourth).ends_with("503: busy"));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_batch_that_is_not_answered_in_time_is_a_retry_on_a_new_connection() {
    let server = Server::start(|number, mut peer| async move {
        if number > 0 {
            return peer.ack_all().await;
        }
        peer.key().await.unwrap();
        assert_eq!(peer.key().await, None, "nothing new goes to a connection that was given up on");
    })
    .await;
    let strategy = hasty(&server);
    assert_retry(&strategy.send(&payload()).await, "no answer within 0.3 s");
    let patient = WebSocketStrategy { timeout: Duration::from_secs(60), ..strategy };
    assert_eq!(patient.send(&payload()).await, Outcome::Acknowledged);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn what_is_still_unanswered_on_a_connection_that_was_given_up_on_is_waited_for() {
    let (came, go_on, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let notify = (Arc::clone(&came), Arc::clone(&go_on), Arc::clone(&ended));
    let server = Server::start(move |number, mut peer| {
        let (came, go_on, ended) = notify.clone();
        async move {
            if number > 0 {
                return peer.ack_all().await;
            }
            let key = peer.key().await.unwrap();
            came.notify_one();
            go_on.notified().await;
            peer.ack(&key).await;
            assert_eq!(peer.key().await, None);
            ended.notify_one();
        }
    })
    .await;
    let strategy = Arc::new(strategy(&server));
    let first = tokio::spawn({
        let strategy = Arc::clone(&strategy);
        async move { strategy.send(&numbered(1)).await }
    });
    came.notified().await;
    strategy.retire(strategy.usable().as_ref());
    assert_eq!(strategy.send(&numbered(2)).await, Outcome::Acknowledged);
    assert_eq!(server.connections(), 2);
    go_on.notify_one();
    assert_eq!(first.await.unwrap(), Outcome::Acknowledged);
    ended.notified().await;
}

#[tokio::test]
async fn what_is_no_answer_ends_the_connection_and_is_a_retry() {
    let long = format!(r#"{{"ack":"KEY","x":"{}"}}"#, "y".repeat(answer::ANSWER_BYTES_MAX));
    let cases: [(&'static str, &str); 5] = [
        ("so what", "what the server sent is no answer"),
        (r#"{"ok":true}"#, "exactly one of \"ack\" and \"nack\""),
        (r#"{"ack":"KEY","status":500}"#, "contradicts"),
        (r#"{"nack":"KEY","status":201}"#, "contradicts"),
        (Box::leak(long.into_boxed_str()), "longer than 65536 bytes"),
    ];
    for (text, says) in cases {
        let server = Server::saying(text).await;
        let strategy = strategy(&server);
        for connections in 1..3 {
            assert_retry(&strategy.send(&payload()).await, says);
            assert_eq!(server.connections(), connections, "the next one goes to a new connection");
        }
    }
}

#[tokio::test]
async fn an_end_before_the_answer_is_a_retry_or_says_who_must_act() {
    let closes = |code: u16| {
        Server::start(move |_, mut peer| async move {
            peer.key().await;
            peer.close(code, "because of bearer-token").await;
        })
    };
    for code in [1000, 1001, 1011, 1012, 4000] {
        let outcome = strategy(&closes(code).await).send(&payload()).await;
        assert_retry(&outcome, &format!("with code {code} (because of (secret))"));
    }
    for code in [1003, 1008, 3000] {
        let outcome = strategy(&closes(code).await).send(&payload()).await;
        assert_fault(&outcome, &format!("with code {code} (because of (secret)): "));
    }
    let drops = Server::start(|_, mut peer| async move {
        peer.key().await;
    })
    .await;
    let outcome = strategy(&drops).send(&payload()).await;
    assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{outcome:?}");
    let binary = Server::start(|_, mut peer| async move {
        peer.key().await;
        peer.0.send(Message::Binary(vec![1].into())).await.unwrap();
        while peer.key().await.is_some() {}
    })
    .await;
    assert_retry(&strategy(&binary).send(&payload()).await, "binary frame");
}

#[tokio::test]
async fn a_connection_that_ends_while_it_is_idle_costs_no_batch_an_attempt() {
    let server = Server::start(|_, mut peer| async move {
        let key = peer.key().await.unwrap();
        peer.ack(&key).await;
        peer.close(1001, "restarting").await;
    })
    .await;
    let strategy = strategy(&server);
    for sent in 1..5 {
        assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
        assert_eq!(server.connections(), sent);
        // The end has been noticed; one that is on its way is a retry.
        while strategy.usable().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn of_several_batches_the_one_that_is_too_big_is_found_and_the_others_are_taken() {
    const TOO_BIG: &str = "spool-3-3";
    let server = Server::start(|_, mut peer| async move {
        // Reads ahead, so that several are unanswered when one is found too big.
        let mut keys = Vec::new();
        while let Ok(Some(key)) = tokio::time::timeout(Duration::from_millis(200), peer.key()).await {
            if key == TOO_BIG {
                return peer.close(1009, "over the limit").await;
            }
            keys.push(key);
        }
        for key in &keys {
            peer.ack(key).await;
        }
        while let Some(key) = peer.key().await {
            if key == TOO_BIG {
                return peer.close(1009, "over the limit").await;
            }
            peer.ack(&key).await;
        }
    })
    .await;
    let strategy = strategy(&server);
    let mut waiting: Vec<Payload> = (1..=4).map(numbered).collect();
    let mut rejected = Vec::new();
    for _ in 0..3 {
        let sends = waiting.iter().map(|payload| strategy.send(payload));
        let outcomes = futures_util::future::join_all(sends).await;
        let sent = std::mem::take(&mut waiting);
        for (payload, outcome) in sent.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Acknowledged => {}
                Outcome::Retry { .. } => waiting.push(payload),
                Outcome::Rejected { status, response } => {
                    assert_eq!(status, 413);
                    assert!(response.contains("1009 (over the limit)"), "{response}");
                    rejected.push(payload.key.to_string());
                }
                Outcome::EndpointFault { reason } => panic!("{reason}"),
            }
        }
    }
    assert!(waiting.is_empty(), "{waiting:?}");
    assert_eq!(rejected, [TOO_BIG]);
    assert!(!strategy.alone.load(SeqCst), "they are sent together again");
}

#[tokio::test]
async fn a_server_that_answers_before_it_reads_on_is_no_deadlock() {
    const BATCHES: u64 = 200;
    let server = Server::start(|_, mut peer| async move {
        while let Some(key) = peer.key().await {
            // As long as an answer may be, and far more of them than a socket buffers.
            peer.say(json!({"ack": key, "x": "y".repeat(60_000)}).to_string()).await;
        }
    })
    .await;
    let strategy = strategy(&server);
    let payloads: Vec<Payload> = (0..BATCHES).map(numbered).collect();
    let outcomes =
        futures_util::future::join_all(payloads.iter().map(|payload| strategy.send(payload))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acknowledged));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_read_cannot_hold_a_batch_or_the_end() {
    let server = Server::start(|_, peer| async move {
        let _held = peer;
        std::future::pending::<()>().await;
    })
    .await;
    let strategy = hasty(&server);
    let huge = Payload { body: format!("{{\"x\":\"{}\"}}", "y".repeat(32 << 20)).into(), ..payload() };
    assert_retry(&strategy.send(&huge).await, "no answer within");
    strategy.close().await;
}

#[tokio::test]
async fn handshakes_that_are_refused_have_the_outcome_of_the_table() {
    for status in [200, 201, 302, 400, 401, 403, 404, 405, 408, 413, 422, 425, 426, 429, 500, 501, 502, 503] {
        let answer = format!("HTTP/1.1 {status} x\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno");
        let outcome = send_once(&global(&answering(answer).await)).await;
        match status {
            408 | 425 | 429 | 500.. => {
                let Outcome::Retry { after, .. } = &outcome else { panic!("{status}: {outcome:?}") };
                assert_eq!(*after, Some(Duration::from_secs(7)));
            }
            _ => assert_fault(&outcome, "check "),
        }
        assert!(reason(&outcome).contains(&status.to_string()), "{outcome:?}");
    }
    let moved = "HTTP/1.1 307 x\r\nLocation: wss://user:secret-password@other/in?token=query-key\r\n\r\n";
    assert_fault(&send_once(&global(&answering(moved.into()).await)).await, "points to wss://other/in: ");
}

#[tokio::test]
async fn a_switch_to_something_else_than_was_offered_is_the_endpoints_fault() {
    let switching = |more: &str| {
        answering(format!(
            "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{more}\r\n"
        ))
    };
    // The right answer to the key of the standard's example, and to no other.
    assert_fault(&send_once(&global(&switching("").await)).await, "not that of a WebSocket");
    let other =
        Server::start_with(None, Some("log-agent.v2"), |_, mut peer| async move { peer.ack_all().await })
            .await;
    assert_fault(&strategy(&other).send(&payload()).await, "another subprotocol");
}

#[tokio::test]
async fn a_server_that_names_no_subprotocol_is_taken_to_speak_the_one_that_was_offered() {
    let server = Server::start_with(None, None, |_, mut peer| async move { peer.ack_all().await }).await;
    assert_eq!(strategy(&server).send(&payload()).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn a_failed_attempt_speaks_for_all_that_waited_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, SeqCst);
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok();
            stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n").await.ok();
        }
    });
    let strategy = WebSocketStrategy::new(&global(&format!("ws://{address}/"))).unwrap();
    let payloads: Vec<Payload> = (0..10).map(numbered).collect();
    let outcomes =
        futures_util::future::join_all(payloads.iter().map(|payload| strategy.send(payload))).await;
    for outcome in &outcomes {
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    }
    assert_eq!(attempts.load(SeqCst), 1);
}

#[tokio::test]
async fn closing_says_goodbye() {
    let closed = Arc::new(Mutex::new(None));
    let note = Arc::clone(&closed);
    let server = Server::start(move |_, mut peer| {
        let note = Arc::clone(&note);
        async move {
            let key = peer.key().await.unwrap();
            peer.ack(&key).await;
            if let Some(Ok(Message::Close(frame))) = peer.0.next().await {
                *note.lock().unwrap() = frame.map(|frame| u16::from(frame.code));
            }
            // The library's own goodbye.
            let _ = peer.0.flush().await;
        }
    })
    .await;
    let strategy = strategy(&server);
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    strategy.close().await;
    assert_eq!(*closed.lock().unwrap(), Some(1000), "the server had it before closing was over");
}

fn over_tls(server: &Server, authority: &Authority) -> Global {
    let url = format!("wss://localhost:{}/logs?token=query-key", server.address.port());
    let tls = Tls { ca_pem: Some(authority.pem()), client_identity_pem: None };
    Global { tls, ..global(&url) }
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_work_as_with_http() {
    let (own, other, clients) = (Authority::new(), Authority::new(), Authority::new());
    let serve = |_: usize, mut peer: Peer| async move { peer.ack_all().await };
    let acceptor = own.acceptor(Authority::for_name("localhost"), None);
    let server = Server::start_with(Some(acceptor), None, serve).await;
    assert_eq!(send_once(&over_tls(&server, &own)).await, Outcome::Acknowledged);
    assert_fault(&send_once(&over_tls(&server, &other)).await, "check ca_file");
    assert_eq!(server.requests.lock().unwrap().len(), 1, "nothing was sent to a server that is not trusted");

    let acceptor = own.acceptor(Authority::for_name("localhost"), Some(&clients));
    let server = Server::start_with(Some(acceptor), None, serve).await;
    assert_fault(&send_once(&over_tls(&server, &own)).await, "set client_cert_file");
    let (identity, ..) = clients.issue(Authority::for_name("agent"));
    let mut shown = over_tls(&server, &own);
    shown.tls.client_identity_pem = Some(identity);
    assert_eq!(send_once(&shown).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn secrets_are_sent_and_never_shown() {
    let auth = Auth::Basic { user: "Aladdin".into(), password: Secret::new("open sesame".into()) };
    let server = Server::saying(r#"{"nack":"KEY","status":400,"reason":"open sesame, header-key"}"#).await;
    let global = Global { auth: Some(auth), ..global(&server.url()) };
    let strategy = WebSocketStrategy::new(&global).unwrap();
    let response = "(secret), (secret)".to_owned();
    assert_eq!(strategy.send(&payload()).await, Outcome::Rejected { status: 400, response });
    // The example of RFC 7617.
    let sent = server.requests.lock().unwrap()[0].headers()["authorization"].clone();
    assert_eq!(sent, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let shown = format!("{strategy:?}");
    for secret in ["QWxhZGRpbjpvcGVuIHNlc2FtZQ", "open sesame", "header-key"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_asked_for_signs_of_life_and_one_without_is_left() {
    let pings = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pings);
    let server = Server::start(move |number, mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            let key = peer.key().await.unwrap();
            peer.ack(&key).await;
            if number > 0 {
                return peer.ack_all().await;
            }
            // Answers a few pings, then reads no more.
            for _ in 0..3 {
                let Some(Ok(Message::Ping(_))) = peer.0.next().await else { return };
                counter.fetch_add(1, SeqCst);
                peer.0.flush().await.unwrap();
            }
            std::future::pending::<()>().await;
        }
    })
    .await;
    let timeout = Duration::from_secs(2);
    let strategy = WebSocketStrategy::new(&Global { timeout, ..global(&server.url()) }).unwrap();
    let strategy = WebSocketStrategy { ping_after: Duration::from_millis(10), ..strategy };
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    while strategy.usable().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(pings.load(SeqCst), 3, "a connection that shows signs of life is kept");
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    assert_eq!(server.connections(), 2);
}

//! The HTTP strategy against a server of plain sockets on the loopback, which can misbehave in every way.

mod answers;
mod http2;

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rcgen::CertificateParams;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::clock;
use crate::config::{Auth, ClientIdentity, Secret, Tls};
use crate::send::fixtures::{Authority, global, payload, reason};

/// What the server does after it has read a request.
#[derive(Clone)]
enum Reply {
    /// Writes this and waits for the next request on the connection.
    Write(String),
    /// Writes this, then resets the connection.
    WriteThenReset(String),
    /// Writes this byte by byte, with this time between two bytes.
    Dribble(String, Duration),
    /// Never answers.
    Hang,
}

/// One request as it came over the wire.
#[derive(Clone, Debug)]
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|line| line.split_once(':').is_some_and(|(this, _)| this.eq_ignore_ascii_case(name)))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(reply: Reply) -> Self {
        Self::start_with(reply, None).await
    }

    async fn answering(status_and_headers: &str, body: &str) -> Self {
        Self::start(Reply::Write(answer(status_and_headers, body))).await
    }

    async fn start_with(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (log, counter) = (Arc::clone(&received), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, SeqCst);
                let (log, reply, tls) = (Arc::clone(&log), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    // A closed socket with a linger time of zero is a reset.
                    let reset = matches!(reply, Reply::WriteThenReset(_));
                    if reset {
                        stream.set_zero_linger().unwrap();
                    }
                    match tls {
                        None => serve(stream, &reply, &log).await,
                        Some(tls) => match tls.accept(stream).into_fallible().await {
                            Ok(stream) => serve(stream, &reply, &log).await,
                            // The alert is on its way: what comes in is read, so that no reset overtakes it.
                            Err((_, mut stream)) => {
                                stream.shutdown().await.ok();
                                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
                            }
                        },
                    }
                });
            }
        });
        Self { address, received, connections }
    }

    fn url(&self) -> String {
        format!("http://{}/logs?token=query-key", self.address)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn answer(status_and_headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status_and_headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reply: &Reply, log: &Mutex<Vec<Received>>) {
    while let Some(request) = read_request(&mut stream).await {
        log.lock().unwrap().push(request);
        match reply {
            Reply::Write(text) => stream.write_all(text.as_bytes()).await.unwrap_or_default(),
            Reply::WriteThenReset(text) => {
                stream.write_all(text.as_bytes()).await.unwrap_or_default();
                stream.flush().await.unwrap_or_default();
                return;
            }
            Reply::Dribble(text, pause) => {
                for byte in text.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    stream.flush().await.unwrap_or_default();
                    tokio::time::sleep(*pause).await;
                }
            }
            Reply::Hang => std::future::pending().await,
        }
        stream.flush().await.unwrap_or_default();
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let request = Received { head, body: bytes.split_off(head_end) };
    let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = request.body;
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { body, ..request })
}

async fn send(global: &Global) -> Outcome {
    HttpStrategy::new(global).unwrap().send(&payload()).await
}

#[tokio::test]
async fn a_request_carries_the_body_and_all_its_headers() {
    let server = Server::answering("200 OK", "").await;
    assert_eq!(send(&global(&server.url())).await, Outcome::Acknowledged);
    let request = &server.received()[0];
    assert!(request.head.starts_with("POST /logs?token=query-key HTTP/1.1\r\n"), "{}", request.head);
    let expected = [
        ("content-type", "application/json"),
        ("log-agent-seq", "1001-1050, 77-90"),
        ("idempotency-key", "\"00112233445566778899aabbccddeeff-1-64\""),
        ("user-agent", concat!("log-agent/", env!("CARGO_PKG_VERSION"))),
        ("x-api-key", "header-key"),
        ("authorization", "Bearer bearer-token"),
    ];
    for (name, value) in expected {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.body, payload().body);
}

#[tokio::test]
async fn basic_credentials_are_sent_as_the_standard_says() {
    let server = Server::answering("204 No Content", "").await;
    let auth = Auth::Basic { user: "Aladdin".into(), password: Secret::new("open sesame".into()) };
    let global = Global { auth: Some(auth), ..global(&server.url()) };
    assert_eq!(send(&global).await, Outcome::Acknowledged);
    // The example of RFC 7617.
    assert_eq!(server.received()[0].header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn compressed_bodies_decode_to_the_same_bytes_and_are_coded_alike_each_time() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let server = Server::answering("200 OK", "").await;
        let strategy = HttpStrategy::new(&Global { compression, ..global(&server.url()) }).unwrap();
        for body in [payload().body, Bytes::from_static(b"{\"short\":1}")] {
            let payload = Payload { body: body.clone(), ..payload() };
            assert_eq!(strategy.send(&payload).await, Outcome::Acknowledged);
            assert_eq!(strategy.send(&payload).await, Outcome::Acknowledged);
            let received = server.received();
            let [.., first, second] = received.as_slice() else { panic!("two requests") };
            assert_eq!(first.body, second.body);
            let mut decoded = Vec::new();
            match first.header("content-encoding").unwrap() {
                "gzip" => {
                    flate2::read::GzDecoder::new(&first.body[..]).read_to_end(&mut decoded).unwrap();
                }
                "zstd" => decoded = zstd::stream::decode_all(&first.body[..]).unwrap(),
                other => panic!("{other}"),
            }
            assert_eq!(decoded, body);
        }
    }
}

#[tokio::test]
async fn each_status_has_the_outcome_of_the_table() {
    for status in 200..600_u16 {
        // Without a body by definition; a length would be wrong there.
        let text = if status == 204 || status == 304 {
            format!("HTTP/1.1 {status} x\r\n\r\n")
        } else {
            answer(&format!("{status} x"), "why")
        };
        let server = Server::start(Reply::Write(text)).await;
        let outcome = send(&global(&server.url())).await;
        match status {
            200..=299 => assert_eq!(outcome, Outcome::Acknowledged, "{status}"),
            400 | 413 | 422 => {
                assert_eq!(outcome, Outcome::Rejected { status, response: "why".into() });
            }
            408 | 425 | 429 | 500..=599 => {
                assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{status}: {outcome:?}");
                assert!(reason(&outcome).contains(&status.to_string()));
            }
            _ => {
                assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{status}: {outcome:?}");
                let (what, look_at) = reason(&outcome).split_once(": ").unwrap();
                assert!(what.contains(&status.to_string()) && !look_at.is_empty(), "{outcome:?}");
            }
        }
        assert_eq!(server.received().len(), 1, "{status}: one call is one request");
    }
}

#[tokio::test]
async fn retry_after_is_understood_in_seconds_and_as_a_date() {
    let in_an_hour = clock::wall().millis() + 1_800_000;
    let date = chrono::DateTime::from_timestamp_millis(in_an_hour).unwrap();
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (value, low, high) in [("17", 17, 17), (date.as_str(), 1700, 1800), ("999999", 3600, 3600)] {
        let server = Server::answering(&format!("503 Busy\r\nRetry-After: {value}"), "").await;
        let outcome = send(&global(&server.url())).await;
        let Outcome::Retry { after: Some(after), .. } = outcome else { panic!("{outcome:?}") };
        assert!((low..=high).contains(&after.as_secs()), "{value}: {after:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_told_without_its_query() {
    let server =
        Server::answering("307 Moved\r\nLocation: https://user:secret-password@other/in?token=query-key", "")
            .await;
    let outcome = send(&global(&server.url())).await;
    assert!(matches!(outcome, Outcome::EndpointFault { .. }));
    assert!(reason(&outcome).contains("points to https://other/in: "), "{outcome:?}");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_retry_that_names_the_cause() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = send(&global(&format!("http://{free}/?token=query-key"))).await;
    assert!(matches!(outcome, Outcome::Retry { after: None, .. }));
    assert!(reason(&outcome).contains("Connection refused"), "{outcome:?}");
}

#[tokio::test]
async fn a_reset_before_the_answer_is_a_retry_and_one_after_it_changes_nothing() {
    let cases = [
        (String::new(), false),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this".to_owned(), true),
    ];
    for (text, acknowledged) in cases {
        let server = Server::start(Reply::WriteThenReset(text.clone())).await;
        let mut outcome = send(&global(&server.url())).await;
        // A reset takes with it what the kernel had not handed over yet: the answer may be gone, too.
        for _ in 0..50 {
            if acknowledged && outcome != Outcome::Acknowledged {
                outcome = send(&global(&server.url())).await;
            }
        }
        if acknowledged {
            assert_eq!(outcome, Outcome::Acknowledged, "{text:?}");
        } else {
            assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{text:?}: {outcome:?}");
            reason(&outcome);
        }
    }
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_take_an_acknowledgement_back() {
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(20));
    let server = Server::start(Reply::Dribble(text.clone(), Duration::from_millis(5))).await;
    let quick = Global { timeout: Duration::from_millis(1500), ..global(&server.url()) };
    assert_eq!(send(&quick).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn a_server_that_hangs_or_answers_a_byte_a_second_runs_into_the_timeout() {
    let slow = Reply::Dribble(answer("200 OK", ""), Duration::from_secs(1));
    for reply in [Reply::Hang, slow] {
        let server = Server::start(reply).await;
        let hasty = Global { timeout: Duration::from_millis(300), ..global(&server.url()) };
        let outcome = send(&hasty).await;
        assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{outcome:?}");
        assert!(reason(&outcome).starts_with("no answer within 0.3 s"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_huge_answer_is_kept_to_its_beginning_and_read_within_a_bound() {
    let huge = "y".repeat(8 << 20);
    let server = Server::answering("400 Bad Request", &huge).await;
    let outcome = send(&global(&server.url())).await;
    assert_eq!(outcome, Outcome::Rejected { status: 400, response: "y".repeat(RESPONSE_KEPT_BYTES) });
    let server = Server::answering("200 OK", &huge).await;
    assert_eq!(send(&global(&server.url())).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn a_secret_that_the_server_repeats_is_not_kept() {
    let server = Server::answering("400 Bad Request", "bad token bearer-token, key header-key").await;
    let outcome = send(&global(&server.url())).await;
    let response = "bad token (secret), key (secret)".into();
    assert_eq!(outcome, Outcome::Rejected { status: 400, response });
    let strategy = HttpStrategy::new(&global(&server.url())).unwrap();
    let shown = format!("{strategy:?}");
    assert!(!shown.contains("bearer-token") && !shown.contains("header-key"), "{shown}");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::answering("200 OK", "thank you").await;
    let strategy = HttpStrategy::new(&global(&server.url())).unwrap();
    for _ in 0..20 {
        assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    }
    assert_eq!((server.received().len(), server.connections.load(SeqCst)), (20, 1));
}

#[test]
fn a_header_that_cannot_be_sent_is_named_without_its_value() {
    let bad_value =
        Global { headers: vec![("X-Key".into(), Secret::new("two\nlines".into()))], ..global("http://h/") };
    let bad_token =
        Global { auth: Some(Auth::Bearer(Secret::new("two\nlines".into()))), ..global("http://h/") };
    for (global, name) in [(bad_value, "X-Key"), (bad_token, "authorization")] {
        let error = HttpStrategy::new(&global).unwrap_err();
        assert!(error.to_string().contains(name) && !format!("{error:?}").contains("lines"), "{error:?}");
    }
}

/// A server with a certificate of `authority`, which asks for one of `clients` where given.
async fn server_of(authority: &Authority, params: CertificateParams, clients: Option<&Authority>) -> Server {
    let acceptor = authority.acceptor(params, clients);
    Server::start_with(Reply::Write(answer("200 OK", "")), Some(acceptor)).await
}

fn over_tls(server: &Server, ca: Option<&Authority>, identity: Option<ClientIdentity>) -> Global {
    let url = format!("https://localhost:{}/logs?token=query-key", server.address.port());
    let tls = Tls { ca_pem: ca.map(Authority::pem), client_identity_pem: identity };
    Global { tls, ..global(&url) }
}

fn assert_fault(outcome: &Outcome, hint: &str) {
    assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
    assert!(reason(outcome).contains(hint), "{outcome:?}");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_configured_and_only_then() {
    let (own, other) = (Authority::new(), Authority::new());
    let server = server_of(&own, Authority::for_name("localhost"), None).await;
    assert_eq!(send(&over_tls(&server, Some(&own), None)).await, Outcome::Acknowledged);
    assert_eq!(server.received().len(), 1);
    let wrong = send(&over_tls(&server, Some(&other), None)).await;
    assert_fault(&wrong, "check ca_file");
    assert_eq!(server.received().len(), 1, "nothing was sent to a server that is not trusted");
}

#[tokio::test]
async fn the_authorities_of_the_system_do_not_vouch_for_a_private_one() {
    let own = Authority::new();
    let server = server_of(&own, Authority::for_name("localhost"), None).await;
    match HttpStrategy::new(&over_tls(&server, None, None)) {
        Ok(strategy) => assert_fault(&strategy.send(&payload()).await, "certificate"),
        // A machine without any trusted certificate.
        Err(error) => assert!(matches!(error, SendError::Client(_)), "{error:?}"),
    }
    assert_eq!(server.received().len(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_out_of_date_is_refused_with_what_to_look_at() {
    let own = Authority::new();
    let other_name = server_of(&own, Authority::for_name("other.example"), None).await;
    assert_fault(&send(&over_tls(&other_name, Some(&own), None)).await, "check the host in end_point");
    let mut params = Authority::for_name("localhost");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = server_of(&own, params, None).await;
    assert_fault(&send(&over_tls(&expired, Some(&own), None)).await, "has expired");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (own, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let server = server_of(&own, Authority::for_name("localhost"), Some(&clients)).await;
    let (identity, ..) = clients.issue(Authority::for_name("agent"));
    assert_eq!(send(&over_tls(&server, Some(&own), Some(identity))).await, Outcome::Acknowledged);
    let missing = send(&over_tls(&server, Some(&own), None)).await;
    assert_fault(&missing, "set client_cert_file");
    let (stranger, ..) = strangers.issue(Authority::for_name("agent"));
    assert_fault(&send(&over_tls(&server, Some(&own), Some(stranger))).await, "check client_cert_file");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn https_to_a_port_that_speaks_plain_http_is_told_as_such() {
    let server = Server::answering("200 OK", "").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(answer("400 Bad Request", "").as_bytes()).await.ok();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
        }
    });
    let plain = Server { address: SocketAddr::from(([127, 0, 0, 1], port)), ..server };
    let own = Authority::new();
    assert_fault(&send(&over_tls(&plain, Some(&own), None)).await, "check scheme and port");
}

#[test]
fn tls_files_that_are_none_are_named() {
    let with = |tls| HttpStrategy::new(&Global { tls, ..global("https://localhost/") }).unwrap_err();
    let no_ca = with(Tls { ca_pem: Some(b"not PEM".to_vec()), client_identity_pem: None });
    assert!(no_ca.to_string().contains("ca_file"), "{no_ca}");
    let own = Authority::new();
    let identity = ClientIdentity { cert_pem: own.pem(), key_pem: b"no key".to_vec() };
    let no_key = with(Tls { ca_pem: None, client_identity_pem: Some(identity) });
    assert!(no_key.to_string().contains("client_key_file"), "{no_key}");
}

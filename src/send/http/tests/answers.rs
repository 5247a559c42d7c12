//! Answers that say what became of each event, several end points, proxies, and being asked without sending.

use super::*;
use crate::batch::BatchId;
use crate::config::{Format, Proxy};
use crate::event::Position;

/// A batch of two events.
fn two() -> Payload {
    let batch = BatchId { first: Position(1), last: Position(2), part: None };
    Payload { batch, ..payload() }
}

async fn send_two(format: Format, url: &str) -> Outcome {
    HttpStrategy::new(&Global { format, ..global(url) }).unwrap().send(&two()).await
}

const TAKEN: &str = r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#;

#[tokio::test]
async fn a_bulk_that_was_taken_in_part_is_not_acknowledged() {
    let server = Server::answering("200 OK", TAKEN).await;
    assert_eq!(send_two(Format::Elasticsearch, &server.url()).await, Outcome::Acknowledged);
    let item =
        |status| format!(r#"{{"create":{{"status":{status},"error":{{"reason":"got header-key"}}}}}}"#);
    let body = format!(r#"{{"errors":true,"items":[{},{}]}}"#, item(201), item(400));
    let server = Server::answering("200 OK", &body).await;
    let response = r#"{"reason":"got (secret)"}"#.to_owned();
    let refused = Outcome::Rejected { status: 400, response };
    assert_eq!(send_two(Format::Elasticsearch, &server.url()).await, refused);
    for (status, retry) in [(429, true), (503, true), (404, false)] {
        let body = format!(r#"{{"errors":true,"items":[{},{}]}}"#, item(400), item(status));
        let server = Server::answering("200 OK", &body).await;
        let outcome = send_two(Format::Elasticsearch, &server.url()).await;
        assert_eq!(matches!(outcome, Outcome::Retry { .. }), retry, "{outcome:?}");
        assert!(reason(&outcome).contains(&status.to_string()), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_nothing_where_the_body_says_it_and_nothing_is_lost_where_the_status_does()
 {
    let broken = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TAKEN}", TAKEN.len() + 1);
    for format in Format::ALL {
        let server = Server::start(Reply::WriteThenReset(broken.clone())).await;
        let outcome = send_two(format, &server.url()).await;
        match format {
            Format::Elasticsearch | Format::OtlpJson | Format::OtlpProtobuf => {
                assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{format:?}: {outcome:?}");
            }
            _ => assert_eq!(outcome, Outcome::Acknowledged, "{format:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let server = Server::answering("200 OK", &" ".repeat(100_000)).await;
    for format in [Format::OtlpJson, Format::Elasticsearch] {
        let outcome = send_two(format, &server.url()).await;
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
        assert!(reason(&outcome).contains("longer than"), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_is_not_taken_names_the_format() {
    let server = Server::answering("415 Unsupported Media Type", "").await;
    let outcome = send_two(Format::Loki, &server.url()).await;
    assert!(reason(&outcome).contains("check end_point and format"), "{outcome:?}");
}

/// An address that refuses connections.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

#[tokio::test]
async fn after_as_many_failures_as_open_the_breaker_the_next_end_point_gets_the_same_bytes_and_stays() {
    let (first, second) = (nobody().await, Server::answering("200 OK", "").await);
    let fail_over = vec![EndPoint(second.url().parse().unwrap())];
    let global = Global { retry_count: 1, fail_over, ..global(&first) };
    let strategy = HttpStrategy::new(&global).unwrap();
    for _ in 0..2 {
        let outcome = strategy.send(&payload()).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
        assert!(reason(&outcome).starts_with(&first), "{outcome:?}");
    }
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    let received = second.received();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.body, payload().body);
        assert_eq!(request.header("idempotency-key"), Some(payload().key_header().as_str()));
        assert_eq!(request.header("authorization"), Some("Bearer bearer-token"));
    }
}

#[tokio::test]
async fn an_end_point_that_asks_for_time_is_not_left() {
    let (first, second) = (
        Server::answering("429 Too Many Requests\r\nRetry-After: 1", "").await,
        Server::answering("200 OK", "").await,
    );
    let fail_over = vec![EndPoint(second.url().parse().unwrap())];
    let strategy = HttpStrategy::new(&Global { retry_count: 0, fail_over, ..global(&first.url()) }).unwrap();
    for _ in 0..4 {
        assert!(matches!(strategy.send(&payload()).await, Outcome::Retry { after: Some(_), .. }));
    }
    assert_eq!((first.received().len(), second.received().len()), (4, 0));
}

#[tokio::test]
async fn every_end_point_is_asked_without_a_batch_and_what_is_wrong_is_said() {
    for (status, says) in [
        ("200 OK", Ok("answered 200 OK to OPTIONS")),
        ("204 No Content", Ok("answered 204 No Content")),
        ("405 Method Not Allowed", Ok("answered 405 Method Not Allowed")),
        ("501 Not Implemented", Ok("501 Not Implemented")),
        ("404 Not Found", Ok("the path is wrong")),
        ("401 Unauthorized", Err("[global.auth]")),
        ("407 Proxy Authentication Required", Err("[global.proxy]")),
        ("503 Service Unavailable", Err("503 Service Unavailable")),
        ("302 Found\r\nLocation: /elsewhere", Err("redirects are not followed")),
    ] {
        let server = Server::answering(status, "").await;
        let fail_over = vec![EndPoint(nobody().await.parse().unwrap())];
        let global = Global { fail_over, ..global(&server.url()) };
        let probes = HttpStrategy::new(&global).unwrap().probe(&[]).await;
        let [first, second] = probes.as_slice() else { panic!("{probes:?}") };
        match (&first.found, says) {
            (Ok(found), Ok(says)) | (Err(found), Err(says)) => {
                assert!(found.contains(says), "{status}: {found}");
            }
            other => panic!("{status}: {other:?}"),
        }
        assert!(second.found.as_ref().is_err_and(|found| found.contains("refused")), "{second:?}");
        let text = format!("{probes:?}");
        assert!(!text.contains("query-key") && !text.contains("bearer-token"), "{text}");
        let received = server.received();
        assert!(received.len() == 1 && received[0].body.is_empty());
        assert!(
            received[0].head.starts_with("OPTIONS /logs?token=query-key HTTP/1.1\r\n"),
            "{}",
            received[0].head
        );
        assert_eq!(received[0].header("authorization"), Some("Bearer bearer-token"));
    }
}

fn through(server: &Server, except: &[&str]) -> Proxy {
    Proxy::Through {
        url: format!("http://{}/", server.address).parse().unwrap(),
        credentials: Some(("Aladdin".into(), Secret::new("open sesame".into()))),
        except: except.iter().map(|host| (*host).to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_proxy_gets_the_requests_and_its_credentials_but_for_what_is_excepted() {
    let (proxy, server) = (Server::answering("200 OK", "").await, Server::answering("200 OK", "").await);
    let url = "http://logs.example.invalid/in";
    let global = Global { proxy: through(&proxy, &["other.invalid"]), ..global(url) };
    assert_eq!(send(&global).await, Outcome::Acknowledged);
    let request = &proxy.received()[0];
    assert!(request.head.starts_with("POST http://logs.example.invalid/in HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("proxy-authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    assert_eq!(request.body, payload().body);

    let global = Global {
        end_point: EndPoint(server.url().parse().unwrap()),
        proxy: through(&proxy, &["127.0.0.0/8"]),
        ..global
    };
    assert_eq!(send(&global).await, Outcome::Acknowledged);
    assert_eq!((proxy.received().len(), server.received().len()), (1, 1));
    assert_eq!(server.received()[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_proxy_that_asks_for_credentials_is_a_fault_to_be_mended_and_shows_none() {
    let proxy = Server::answering("407 Proxy Authentication Required", "").await;
    for url in ["http://logs.example.invalid/", "https://logs.example.invalid/"] {
        let global = Global { proxy: through(&proxy, &[]), ..global(url) };
        let outcome = send(&global).await;
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
        let reason = reason(&outcome);
        assert!(reason.contains("user and password in [global.proxy]"), "{reason}");
        assert!(!reason.contains("open sesame") && !reason.contains("QWxhZGRpbj"), "{reason}");
        assert!(!format!("{global:?}").contains("open sesame"));
    }
    assert!(proxy.received()[1].head.starts_with("CONNECT logs.example.invalid:443 HTTP/1.1\r\n"));
}

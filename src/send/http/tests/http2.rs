//! HTTP/2: spoken where it is offered, and a connection that died without a word is found dead.

use super::*;
use crate::send::fixtures::payload;

/// A server of HTTP/2 alone. Each connection answers `answers` requests and falls silent then, its socket open.
async fn start(answers: usize) -> (Global, Arc<AtomicUsize>) {
    let authority = Authority::new();
    let tls = authority.acceptor_offering(&[b"h2"], Authority::for_name("localhost"), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/logs", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, SeqCst);
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut answered = 0;
                // Driving the connection is what answers pings: without it nothing is.
                while answered < answers
                    && let Some(Ok((mut request, mut respond))) = connection.accept().await
                {
                    answered += 1;
                    tokio::spawn(async move {
                        let mut length = 0;
                        while let Some(Ok(data)) = request.body_mut().data().await {
                            length += data.len();
                            let _ = request.body_mut().flow_control().release_capacity(data.len());
                        }
                        assert_eq!(request.headers()["idempotency-key"], payload().key_header());
                        assert_eq!(length, payload().body.len());
                        respond.send_response(axum::http::Response::new(()), true).unwrap();
                    });
                }
                if answered < answers {
                    return;
                }
                // What was answered last goes out, and then there is silence.
                let _ = tokio::time::timeout(Duration::from_millis(100), connection.accept()).await;
                std::future::pending::<()>().await;
            });
        }
    });
    let tls = Tls { ca_pem: Some(authority.pem()), ..Tls::default() };
    (Global { tls, timeout: Duration::from_millis(500), ..global(&url) }, connections)
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered_on_one_connection() {
    let (global, connections) = start(usize::MAX).await;
    let strategy = HttpStrategy::new(&Global { timeout: Duration::from_secs(10), ..global }).unwrap();
    let payload = payload();
    // The first makes the connection.
    assert_eq!(strategy.send(&payload).await, Outcome::Acknowledged);
    let outcomes = futures_util::future::join_all((0..20).map(|_| strategy.send(&payload))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acknowledged), "{outcomes:?}");
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_replaced() {
    let (global, connections) = start(1).await;
    let strategy = HttpStrategy::new(&global).unwrap();
    assert_eq!(strategy.send(&payload()).await, Outcome::Acknowledged);
    let deadline = clock::timer_now() + Duration::from_secs(60);
    loop {
        let outcome = strategy.send(&payload()).await;
        if outcome == Outcome::Acknowledged {
            break;
        }
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
        assert!(clock::timer_now() < deadline, "batches go on waiting on a dead connection");
    }
    assert_eq!(connections.load(SeqCst), 2);
}

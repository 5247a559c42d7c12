//! Against brokers of the library's own mock cluster, which listen on real ports, and against servers that are none.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};
use rdkafka::{Offset, TopicPartitionList};

use super::super::options::{Codec, Mechanism};
use super::super::template::Template;
use super::*;
use crate::batch::{BatchId, SourceRange};
use crate::config::{Auth, EndPoint, Options, SendType, Tls};
use crate::event::{Position, Seq, SourceName};
use crate::send::fixtures::{self, Authority, reason};

const TOPIC: &str = "logs";
const SPOOL: &str = "00112233445566778899aabbccddeeff";

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// One broker, with the topic in one partition, so that there is one order.
fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    cluster
}

fn options(properties: &[(&str, &str)]) -> KafkaOptions {
    KafkaOptions {
        topic: Template::parse_topic(TOPIC).unwrap(),
        key: Template::parse("{agent}/{source}").ok(),
        per: Per::Event,
        brokers: Vec::new(),
        codec: Codec::None,
        mechanism: Mechanism::Plain,
        properties: properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    }
}

/// Long enough for the library to look around every second.
const TIMEOUT: Duration = Duration::from_secs(6);

fn global(url: &str, options: KafkaOptions, timeout: Duration) -> Global {
    Global {
        end_point: EndPoint(url.parse().unwrap()),
        send_type: SendType(super::super::STRATEGY.transport),
        headers: Vec::new(),
        auth: None,
        timeout,
        options: Options::new(options),
        ..fixtures::global("http://localhost")
    }
}

fn to(cluster: &Cluster, properties: &[(&str, &str)], timeout: Duration) -> KafkaStrategy {
    let url = format!("kafka://{}", cluster.bootstrap_servers());
    KafkaStrategy::new(&global(&url, options(properties), timeout)).unwrap()
}

/// A batch of `events` events of the source `app`, the first of which has the number `first`.
fn batch(first: u64, events: u64, line: &str) -> Payload {
    let log = format!("{{\"data\":\"{line}\",\"timestamp\":\"t\"}}");
    let logs = vec![log; usize::try_from(events).unwrap()].join(",");
    let last = first + events - 1;
    Payload {
        batch: BatchId { first: Position(first), last: Position(last), part: None },
        key: Arc::from(format!("{SPOOL}-{first}-{last}")),
        agent: Arc::from("agent"),
        sources: vec![SourceRange { source: SourceName::from("app"), first: Seq(first), last: Seq(last) }],
        content_type: "application/json",
        ends: Vec::new(),
        body: Bytes::from(format!(
            "{{\"agentName\":\"agent\",\"sources\":[{{\"sourceName\":\"app\",\"logs\":[{logs}]}}]}}"
        )),
    }
}

/// The first `count` messages of the topic: key, sequence number, key of the batch.
fn stored(cluster: &Cluster, count: usize) -> Vec<(String, String, String)> {
    stored_in(cluster, TOPIC, count)
}

fn stored_in(cluster: &Cluster, topic: &str, count: usize) -> Vec<(String, String, String)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "test");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let mut stored = Vec::new();
    while stored.len() < count {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else {
            panic!("{} of {count}", stored.len())
        };
        let message = message.unwrap();
        let headers = message.headers().unwrap();
        let header = |name| text(headers.iter().find(|header| header.key == name).unwrap().value);
        assert_eq!(header("Log-Agent-Spool"), SPOOL);
        stored.push((text(message.key()), header("Log-Agent-Seq"), header("Log-Agent-Key")));
    }
    stored
}

fn seqs(cluster: &Cluster, count: usize) -> Vec<u64> {
    stored(cluster, count).into_iter().map(|(_, seq, _)| seq.parse().unwrap()).collect()
}

async fn sent(strategy: &KafkaStrategy, payload: &Payload) -> Outcome {
    // Far above what a call may take.
    tokio::time::timeout(Duration::from_secs(60), strategy.send(payload)).await.expect("the call ended")
}

fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { after: None, .. })
}

#[tokio::test]
async fn every_event_is_a_message_under_the_key_of_its_source_in_order() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], TIMEOUT);
    assert_eq!(sent(&strategy, &batch(1, 3, "x")).await, Outcome::Acknowledged);
    assert_eq!(sent(&strategy, &batch(4, 1, "x")).await, Outcome::Acknowledged);
    let of = |seq: &str, positions| ("agent/app".into(), seq.into(), format!("{SPOOL}-{positions}"));
    assert_eq!(stored(&cluster, 4), [of("1", "1-3"), of("2", "1-3"), of("3", "1-3"), of("4", "4-4")]);
    strategy.close().await;
    assert!(strategy.current.lock().await.is_none());
}

#[tokio::test]
async fn errors_of_a_broker_that_pass_are_gone_within_the_call() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], TIMEOUT);
    cluster.request_errors(
        Api::Produce,
        &[
            Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            Error::RD_KAFKA_RESP_ERR__TRANSPORT,
        ],
    );
    assert_eq!(sent(&strategy, &batch(1, 20, "x")).await, Outcome::Acknowledged);
    assert_eq!(seqs(&cluster, 20), (1..=20).collect::<Vec<_>>(), "once each, and in order");
}

#[tokio::test]
async fn a_broker_that_is_down_is_a_retry_and_its_return_is_found() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], Duration::from_secs(2));
    cluster.broker_down(1).unwrap();
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(is_retry(&outcome) && reason(&outcome).starts_with("no delivery within 2 s: "), "{outcome:?}");
    cluster.broker_up(1).unwrap();
    let mut outcome = sent(&strategy, &batch(1, 2, "x")).await;
    for _ in 0..10 {
        if outcome == Outcome::Acknowledged {
            return;
        }
        outcome = sent(&strategy, &batch(1, 2, "x")).await;
    }
    panic!("{outcome:?}");
}

#[tokio::test]
async fn nobody_at_the_port_and_a_server_that_says_nothing_are_retries_within_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |listener: &TcpListener| format!("kafka://{}", listener.local_addr().unwrap());
    let timeout = Duration::from_secs(1);
    let strategy = KafkaStrategy::new(&global(&url(&silent), options(&[]), timeout)).unwrap();
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(is_retry(&outcome) && reason(&outcome).starts_with("no delivery within 1 s"), "{outcome:?}");
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        url(&listener)
    };
    let strategy = KafkaStrategy::new(&global(&gone, options(&[]), timeout)).unwrap();
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(is_retry(&outcome) && reason(&outcome).contains("refused"), "{outcome:?}");
}

#[tokio::test]
async fn a_topic_that_is_missing_or_forbidden_is_a_fault_until_it_is_there() {
    let cluster = cluster();
    for (error, hint) in [
        (Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "create the topic"),
        (Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "what the brokers allow"),
    ] {
        let strategy = to(&cluster, &[], TIMEOUT);
        cluster.topic_error(TOPIC, error).unwrap();
        let outcome = sent(&strategy, &batch(1, 2, "x")).await;
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
        assert!(reason(&outcome).contains(hint), "{outcome:?}");
        cluster.topic_error(TOPIC, Error::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        assert_eq!(sent(&strategy, &batch(1, 2, "x")).await, Outcome::Acknowledged);
    }
}

/// A batch with an event of `app` and one of `other`.
fn mixed(number: u64) -> Payload {
    let log = "[{\"data\":\"x\",\"timestamp\":\"t\"}]";
    let range =
        |source| SourceRange { source: SourceName::from(source), first: Seq(number), last: Seq(number) };
    Payload {
        sources: vec![range("app"), range("other")],
        body: Bytes::from(format!(
            "{{\"agentName\":\"agent\",\"sources\":[{{\"sourceName\":\"app\",\"logs\":{log}}},\
             {{\"sourceName\":\"other\",\"logs\":{log}}}]}}"
        )),
        ..batch(number, 1, "x")
    }
}

#[tokio::test]
async fn while_one_topic_is_missing_what_goes_to_the_others_is_not_sent_again_and_again() {
    let cluster = cluster();
    cluster.create_topic("app", 1, 1).unwrap();
    cluster.topic_error("other", Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let mut options = options(&[]);
    options.topic = Template::parse_topic("{source}").unwrap();
    let url = format!("kafka://{}", cluster.bootstrap_servers());
    let strategy = KafkaStrategy::new(&global(&url, options, TIMEOUT)).unwrap();
    for _ in 0..3 {
        let outcome = sent(&strategy, &mixed(1)).await;
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
        assert!(reason(&outcome).contains("the topic other"), "{outcome:?}");
    }
    cluster.topic_error("other", Error::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    assert_eq!(sent(&strategy, &mixed(1)).await, Outcome::Acknowledged);
    assert!(strategy.suspects().is_empty());
    assert_eq!(sent(&strategy, &batch(2, 1, "x")).await, Outcome::Acknowledged);
    let found = stored_in(&cluster, "app", 3);
    let seqs: Vec<_> = found.iter().map(|(_, seq, _)| seq.as_str()).collect();
    assert_eq!(seqs, ["1", "1", "2"], "once before the fault was known, and once after it");
}

#[tokio::test]
async fn a_message_that_the_library_finds_too_large_is_refused_at_once() {
    let cluster = cluster();
    let strategy = to(&cluster, &[("message.max.bytes", "2000")], TIMEOUT);
    let outcome = sent(&strategy, &batch(1, 1, &"x".repeat(3000))).await;
    assert!(matches!(outcome, Outcome::Rejected { status: 413, .. }), "{outcome:?}");
    // Together the others may be as large as they are.
    assert_eq!(sent(&strategy, &batch(2, 50, &"x".repeat(1000))).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn what_a_broker_finds_too_large_is_refused_once_nothing_else_can_be_meant() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], TIMEOUT);
    let too_large = [Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
    cluster.request_errors(Api::Produce, &too_large);
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(is_retry(&outcome) && reason(&outcome).ends_with("it is sent alone"), "{outcome:?}");
    cluster.request_errors(Api::Produce, &too_large);
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(matches!(outcome, Outcome::Rejected { status: 413, .. }), "{outcome:?}");
    assert_eq!(strategy.alone.load(Ordering::Relaxed), 0, "others need not wait for each other any more");
    let (one, two) = (batch(1, 1, "x"), batch(2, 1, "x"));
    let both = tokio::join!(sent(&strategy, &one), sent(&strategy, &two));
    assert_eq!(both, (Outcome::Acknowledged, Outcome::Acknowledged));
    // Where it was nobody's fault, they do not wait for each other for ever.
    cluster.request_errors(Api::Produce, &too_large);
    assert!(is_retry(&sent(&strategy, &batch(3, 1, "x")).await));
    for _ in 0..ALONE_FOR {
        assert!(strategy.alone.load(Ordering::Relaxed) > 0);
        assert_eq!(sent(&strategy, &batch(3, 1, "x")).await, Outcome::Acknowledged);
    }
    assert_eq!(strategy.alone.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_producer_that_cannot_go_on_is_followed_by_another() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], TIMEOUT);
    cluster.request_errors(Api::InitProducerId, &[Error::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED]);
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
    assert!(reason(&outcome).contains("idempotently"), "{outcome:?}");
    assert_eq!(sent(&strategy, &batch(1, 2, "x")).await, Outcome::Acknowledged);
    // An order that a broker does not see the way the library does is its end, too.
    cluster.request_errors(Api::Produce, &[Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let outcome = sent(&strategy, &batch(3, 2, "x")).await;
    assert!(is_retry(&outcome) && reason(&outcome).contains("cannot go on"), "{outcome:?}");
    assert_eq!(sent(&strategy, &batch(3, 2, "x")).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn what_finds_no_room_in_the_librarys_queue_waits_for_it() {
    let cluster = cluster();
    let strategy = to(&cluster, &[("queue.buffering.max.messages", "7")], TIMEOUT);
    assert_eq!(sent(&strategy, &batch(1, 100, "x")).await, Outcome::Acknowledged);
    assert_eq!(seqs(&cluster, 100), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_nothing_that_a_later_one_would_wait_for() {
    let cluster = cluster();
    let strategy = to(&cluster, &[], TIMEOUT);
    assert_eq!(sent(&strategy, &batch(1, 1, "x")).await, Outcome::Acknowledged);
    cluster.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
    let payload = batch(2, 10, "x");
    tokio::select! {
        biased;
        outcome = strategy.send(&payload) => panic!("{outcome:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(sent(&strategy, &batch(12, 1, "x")).await, Outcome::Acknowledged);
    strategy.close().await;
}

#[test]
fn settings_that_contradict_each_other_are_refused_when_it_is_made() {
    let contradiction = options(&[("linger.ms", "60000")]);
    let error = KafkaStrategy::new(&global("kafka://localhost", contradiction, TIMEOUT)).unwrap_err();
    assert!(error.to_string().contains("linger.ms"), "{error}");
    let many = options(&[("max.in.flight.requests.per.connection", "6")]);
    assert!(KafkaStrategy::new(&global("kafka://localhost", many, TIMEOUT)).is_err());
}

#[test]
fn an_end_point_that_is_more_or_less_than_a_broker_is_refused_when_it_is_made() {
    for (url, says) in [
        ("kafka://localhost:9092/logs", "the topic goes under [global.kafka]"),
        ("kafka://localhost?x=secret-query", "the topic goes under [global.kafka]"),
        ("kafka://one,two:9092", "more of them go under [global.kafka]"),
    ] {
        let error = KafkaStrategy::new(&global(url, options(&[]), TIMEOUT)).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("secret-query"), "{error}");
    }
    for url in ["kafka://localhost", "kafka://[::1]:9092/", "kafkas://kafka-1.example:9093"] {
        KafkaStrategy::new(&global(url, options(&[]), TIMEOUT)).unwrap();
    }
}

/// A TLS server that takes connections, of anybody or of `clients`, and says nothing else; whether each handshake went well.
async fn tls_server(
    authority: &Authority,
    name: &str,
    clients: Option<&Authority>,
) -> (u16, tokio::sync::mpsc::UnboundedReceiver<bool>) {
    let mut params = Authority::for_name(name);
    // OpenSSL takes a certificate for its own issuer where both have one name.
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let acceptor = authority.acceptor(params, clients);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shaken, handshakes) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await;
                let _ = shaken.send(stream.is_ok());
                if stream.is_ok() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, handshakes)
}

#[tokio::test]
async fn a_broker_that_asks_for_a_certificate_is_shown_it() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let (port, mut handshakes) = tls_server(&ours, "localhost", Some(&clients)).await;
    let secure = |client_identity_pem| {
        let url = format!("kafkas://localhost:{port}");
        let mut global = global(&url, options(&[]), Duration::from_secs(3));
        global.tls = Tls { ca_pem: Some(ours.pem()), client_identity_pem };
        KafkaStrategy::new(&global).unwrap()
    };
    let outcome = sent(&secure(None), &batch(1, 1, "x")).await;
    assert!(matches!(outcome, Outcome::EndpointFault { .. } | Outcome::Retry { .. }), "{outcome:?}");
    assert_eq!(handshakes.recv().await, Some(false));
    let mut params = Authority::for_name("agent");
    params.distinguished_name.push(rcgen::DnType::CommonName, "agent");
    let (identity, ..) = clients.issue(params);
    let strategy = secure(Some(identity));
    let payload = batch(1, 1, "x");
    tokio::select! {
        outcome = strategy.send(&payload) => panic!("{outcome:?}"),
        () = async { while handshakes.recv().await != Some(true) {} } => {}
    }
}

#[tokio::test]
async fn a_broker_that_cannot_show_who_it_is_gets_nothing_and_is_a_fault() {
    let (ours, other) = (Authority::new(), Authority::new());
    let secure = |port: u16, ca: &Authority| {
        let mut global = global(&format!("kafkas://localhost:{port}"), options(&[]), Duration::from_secs(3));
        global.tls = Tls { ca_pem: Some(ca.pem()), client_identity_pem: None };
        global.auth =
            Some(Auth::Basic { user: "agent".into(), password: Secret::new("secret-password".into()) });
        global
    };
    let of_localhost = tls_server(&ours, "localhost", None).await.0;
    let of_another = tls_server(&ours, "elsewhere.example", None).await.0;
    for global in [secure(of_localhost, &other), secure(of_another, &ours)] {
        let strategy = KafkaStrategy::new(&global).unwrap();
        let outcome = sent(&strategy, &batch(1, 2, "x")).await;
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
        assert!(reason(&outcome).contains("[global.tls]"), "{outcome:?}");
    }
    // One that can is spoken to, and says nothing.
    let strategy = KafkaStrategy::new(&secure(of_localhost, &ours)).unwrap();
    let outcome = sent(&strategy, &batch(1, 2, "x")).await;
    assert!(is_retry(&outcome), "{outcome:?}");
    let shown = format!("{strategy:?}");
    assert!(!shown.contains("secret-password"), "{shown}");
}

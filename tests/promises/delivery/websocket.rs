//! The same promises over WebSockets, and the same bytes under the same keys.

mod independent;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use serde_json::Value;

use super::refusals::{ANSWER, MARKER, dead_letters, stored_lines, without_marked, write_some_marked};
use super::{by_key, quick, survives};
use crate::common::{
    Agent, Authority, Collector, ConfigBuilder, Fault, FaultProxy, PATIENCE, Received, Scene, Writer,
    assert_accounts_agree, assert_batches_keep_their_boundaries, assert_delivered_exactly_once,
    assert_resends_identical, await_delivery, wait_for,
};

/// A configuration with one source that sends frames.
fn framed<'a>(scene: &'a Scene, url: String) -> ConfigBuilder<'a> {
    quick(scene, url).global("send_type", "WEBSOCKET")
}

#[test]
fn every_line_arrives_once_over_one_connection_that_ends_in_order() {
    let scene = Scene::new("every_line_arrives_once_over_one_connection_that_ends_in_order");
    let collector = Collector::start(&scene);
    framed(&scene, collector.socket_url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(1000);
    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);
    writer.append(5);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_accounts_agree(&[&writer], &collector);
    let stats = collector.stats();
    assert!(stats.requests >= 101 && stats.bytes_received > 1000 * 20, "{stats:?}");
    assert_eq!((stats.refused, stats.failed, stats.duplicates_suppressed), (0, 0, 0));
}

#[test]
fn batches_in_flight_share_one_connection() {
    const TASKS: usize = 8;
    let scene = Scene::new("batches_in_flight_share_one_connection");
    let proxy = FaultProxy::alone();
    framed(&scene, proxy.socket_url())
        .global("max_send_task", TASKS as i64)
        .global("timeout_secs", 60)
        .write();
    proxy.always(Fault::Hang);
    Writer::new(&scene, "app", "logs/app.log").append(1000);
    let agent = Agent::start(&scene);
    // They are all unanswered, and no more come however long one waits: that there are more shows the bound.
    proxy.await_requests(TASKS as u64);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!((proxy.request_count(), proxy.connection_count()), (TASKS as u64, 1));
}

/// The same batch, over the other transport: one spool, one key, and the frame's text is the body with two members more.
#[test]
fn a_frame_is_the_body_of_the_request_with_the_values_of_its_headers() {
    let scene = Scene::new("a_frame_is_the_body_of_the_request_with_the_values_of_its_headers");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let config = quick(&scene, proxy.url()).source("other", "logs/other.log");
    let frames = config.clone().end_point(proxy.socket_url()).global("send_type", "WEBSOCKET");
    frames.global("timeout_secs", 60).write();
    let mut app = Writer::new(&scene, "app", "logs/app.log");
    let mut other = Writer::new(&scene, "other", "logs/other.log");
    app.append(35);
    other.append(12);
    proxy.always(Fault::HangAfterForward);
    let agent = Agent::start(&scene);
    proxy.await_requests(5);
    agent.kill();

    proxy.heal();
    config.write();
    let agent = Agent::start(&scene);
    await_delivery(&[&app, &other], &collector);
    wait_for(PATIENCE, "every batch came as a request", || {
        let requests = proxy.requests();
        by_key(&requests).values().all(|sent| sent.iter().any(|request| !is_frame(request)))
    });
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&app, &other], &collector);
    let requests = proxy.requests();
    assert_batches_keep_their_boundaries(&requests);
    let mut compared = 0;
    for (key, sent) in by_key(&requests) {
        let Some(frame) = sent.iter().find(|request| is_frame(request)) else { continue };
        let request = sent.iter().find(|request| !is_frame(request)).unwrap();
        assert_eq!(frame.seq(), request.seq());
        let members = format!("{{\"key\":{key},\"seq\":\"{}\",{}", request.seq(), &request.text()[1..]);
        assert_eq!(frame.text(), members);
        compared += 1;
    }
    assert_eq!(compared, 5);
}

fn is_frame(request: &Received) -> bool {
    request.message.word(0) == "FRAME"
}

#[test]
fn refusals_resets_closes_and_garbage_are_tried_again_until_every_line_is_stored_once() {
    let scene =
        Scene::new("refusals_resets_closes_and_garbage_are_tried_again_until_every_line_is_stored_once");
    let collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    let mut faults: Vec<Fault> = [408, 429, 503].into_iter().map(Fault::Status).collect();
    faults.push(Fault::StatusRetryAfter(503, "0.01".into()));
    faults.extend([Fault::Reset, Fault::Garbage, Fault::LoseReply, Fault::CutReply, Fault::CloseAfter]);
    let config = framed(&scene, proxy.socket_url());
    survives(&scene, &mut proxy, &collector, &faults, config);
}

#[test]
fn a_server_that_never_answers_is_given_up_on_and_tried_again_on_a_new_connection() {
    let scene = Scene::new("a_server_that_never_answers_is_given_up_on_and_tried_again_on_a_new_connection");
    let collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    let config = framed(&scene, proxy.socket_url());
    survives(&scene, &mut proxy, &collector, &[Fault::Hang, Fault::HangAfterForward, Fault::Trickle], config);
    let requests = proxy.requests();
    for sent in by_key(&requests).into_values().filter(|sent| sent.len() > 1) {
        let connections: BTreeSet<u64> = sent.iter().map(|request| request.connection).collect();
        assert_eq!(connections.len(), sent.len(), "a batch was sent twice on one connection");
    }
}

#[test]
fn an_acknowledgement_that_is_lost_leads_to_the_same_frame_under_the_same_key() {
    for fault in [Fault::LoseReply, Fault::CutReply, Fault::HangAfterForward] {
        let scene = Scene::new("an_acknowledgement_that_is_lost_leads_to_the_same_frame_under_the_same_key");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        // One at a time, so that what is lost is this batch's answer and no other's.
        framed(&scene, proxy.socket_url()).global("max_send_task", 1).write();
        proxy.next_n(3, fault);
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(100);
        let agent = Agent::start(&scene);
        await_delivery(&[&writer], &collector);
        assert_eq!(agent.stop(), Some(0));
        assert_delivered_exactly_once(&[&writer], &collector);
        let requests = proxy.requests();
        assert_resends_identical(&requests);
        assert_eq!(requests[0].key(), requests[3].key());
        assert_eq!(collector.stats().duplicates_suppressed, 30, "the batch came three times more");
    }
}

#[test]
fn an_event_that_is_refused_with_a_status_becomes_a_dead_letter_and_all_others_are_delivered() {
    for status in [400, 413, 422] {
        let scene = Scene::new(
            "an_event_that_is_refused_with_a_status_becomes_a_dead_letter_and_all_others_are_delivered",
        );
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        framed(&scene, proxy.socket_url()).write();
        proxy.refuse_marked(MARKER, Fault::StatusBody(status, ANSWER.into()));
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        write_some_marked(&mut writer);
        let agent = Agent::start(&scene);
        collector.await_stored(55);
        wait_for(PATIENCE, "five dead letters", || dead_letters(&scene).matches(MARKER).count() == 5);
        agent.await_said(&format!("status={status}"));
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(stored_lines(&collector), without_marked(&writer));
        assert_resends_identical(&proxy.requests());
        let letters = dead_letters(&scene);
        assert_eq!(letters.matches(ANSWER).count(), 5, "the server's reason is kept with each");
    }
}

/// The collector closes a connection on which a frame is too big, and cannot say which batch it was.
#[test]
fn an_event_that_is_too_big_for_the_server_is_found_among_those_in_flight() {
    let scene = Scene::new("an_event_that_is_too_big_for_the_server_is_found_among_those_in_flight");
    let collector = Collector::start_at(&scene, &scene.path("out.jsonl"), &["--max-body-bytes", "20000"]);
    framed(&scene, collector.socket_url()).global("timeout_secs", 60).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    for number in 0..60 {
        if [5, 37].contains(&number) {
            writer.append_line(&format!("{MARKER} {}", "x".repeat(30_000)));
        } else {
            writer.append(1);
        }
    }
    let agent = Agent::start(&scene);
    collector.await_stored(58);
    wait_for(PATIENCE, "two dead letters", || dead_letters(&scene).matches(MARKER).count() == 2);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(stored_lines(&collector), without_marked(&writer));
    assert!(dead_letters(&scene).contains("1009"));
}

/// The operator's fault, until a reload mends it: nothing is lost, and it is said.
fn kept_until_reload(name: &str, broken: &Fault, says: &str) {
    let scene = Scene::new(name);
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let fault = broken.clone();
    proxy.script_handshakes(move |request| {
        let is_mended = request.word(1) == "/" && request.header("authorization") == Some("Bearer right");
        if is_mended { Fault::Pass } else { fault.clone() }
    });
    let config = framed(&scene, format!("{}wrong", proxy.socket_url())).table("auth", "type", "bearer");
    config.clone().table("auth", "token", "wrong").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said(says);
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    assert_eq!(proxy.request_count(), 0, "a batch went out without a handshake");

    config.end_point(proxy.socket_url()).table("auth", "token", "right").write();
    agent.signal(Signal::HUP);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
}

#[test]
fn a_handshake_that_is_refused_keeps_everything_and_says_what_to_check() {
    let elsewhere = FaultProxy::alone();
    let cases = [
        (Fault::Status(401), "check [global.auth]"),
        (Fault::Status(403), "check [global.auth]"),
        (Fault::Status(404), "check the path in end_point"),
        (Fault::Status(200), "check end_point and send_type"),
        (Fault::Status(400), "check end_point and send_type"),
        (Fault::Redirect(307, elsewhere.socket_url()), "redirects are not followed, check end_point"),
    ];
    for (fault, says) in cases {
        kept_until_reload(
            "a_handshake_that_is_refused_keeps_everything_and_says_what_to_check",
            &fault,
            says,
        );
    }
    assert_eq!(elsewhere.connection_count(), 0, "the lines went where they were not meant to go");
}

#[test]
fn tls_with_a_private_authority_delivers_and_a_client_certificate_is_shown() {
    let scene = Scene::new("tls_with_a_private_authority_delivers_and_a_client_certificate_is_shown");
    let collector = Collector::start(&scene);
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let proxy = FaultProxy::before_with_tls(&collector, servers.server_for(&["127.0.0.1"], &clients));
    assert!(proxy.socket_url().starts_with("wss://"));
    let ca_file = servers.write_certificate(&scene, "ca.pem");
    let (certificate, key) = clients.write_client(&scene, "agent");
    let config = framed(&scene, proxy.socket_url()).table("tls", "ca_file", ca_file.to_str().unwrap());
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("set client_cert_file and client_key_file");
    assert_eq!(proxy.request_count(), 0);

    proxy.next_n(2, Fault::LoseReply);
    config
        .table("tls", "client_cert_file", certificate.to_str().unwrap())
        .table("tls", "client_key_file", key.to_str().unwrap())
        .write();
    agent.signal(Signal::HUP);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
}

#[test]
fn a_server_of_an_unknown_authority_gets_nothing() {
    let scene = Scene::new("a_server_of_an_unknown_authority_gets_nothing");
    let collector = Collector::start(&scene);
    let (own, another) = (Authority::new("private"), Authority::new("another"));
    let proxy = FaultProxy::before_with_tls(&collector, own.server(&["127.0.0.1"]));
    let ca_file = another.write_certificate(&scene, "ca.pem");
    framed(&scene, proxy.socket_url()).table("tls", "ca_file", ca_file.to_str().unwrap()).write();
    Writer::new(&scene, "app", "logs/app.log").append(50);
    let agent = Agent::start(&scene);
    agent.await_said(
        "the server's certificate is not from a trusted authority: check ca_file in [global.tls]",
    );
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(proxy.request_count(), 0, "lines were sent to a server that is not trusted");
}

#[test]
fn secrets_are_sent_with_the_handshake_and_never_shown() {
    const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,tungstenite=trace,\
                              tokio_tungstenite=trace,sled=trace";
    const TOKEN: &str = "s3cret-t0ken-4711";
    const HEADER: &str = "tenant-key-0815";
    let scene = Scene::new("secrets_are_sent_with_the_handshake_and_never_shown");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    framed(&scene, proxy.socket_url())
        .table("headers", "X-Tenant", HEADER)
        .table("auth", "type", "bearer")
        .table("auth", "token", TOKEN)
        .write();
    let (shown, seen) = std::sync::mpsc::channel();
    proxy.script_handshakes(move |request| {
        let header = |name: &str| request.header(name).map(str::to_owned);
        shown.send((header("authorization"), header("x-tenant"))).unwrap();
        Fault::Pass
    });
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    proxy.next(Fault::StatusBody(503, format!("no entry for {TOKEN} {HEADER}")));
    proxy.next(Fault::LoseReply);
    let agent = Agent::start_with(&scene, |command| _ = command.env("RUST_LOG", EVERYTHING));
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    let messages = std::fs::read_to_string(Agent::stderr_path(&scene)).unwrap();
    assert!(messages.contains("TRACE"), "it was not asked for everything it would say");
    // The library repeats at this level what a server says; that is the server's own word, and asked for by name.
    let own = messages.lines().filter(|line| !line.contains(" tungstenite::"));
    for line in own {
        assert!(!line.contains(TOKEN) && !line.contains(HEADER), "a secret was shown: {line}");
    }
    drop(proxy);
    let expected = (Some(format!("Bearer {TOKEN}")), Some(HEADER.to_owned()));
    let seen: Vec<_> = seen.iter().collect();
    assert!(seen.len() >= 2 && seen.iter().all(|found| *found == expected), "{seen:?}");
}

/// Frames that no agent sends, on a connection of one's own.
#[test]
fn the_collector_refuses_what_is_no_batch_and_goes_on() {
    use tokio_tungstenite::tungstenite::{Message, client};

    let scene = Scene::new("the_collector_refuses_what_is_no_batch_and_goes_on");
    let mut collector = Collector::start(&scene);
    let connect = || {
        let stream = std::net::TcpStream::connect(collector.address()).unwrap();
        client(format!("ws://{}/any/path", collector.address()), stream).unwrap().0
    };
    let mut socket = connect();
    let mut ask = |frame: Value| -> Value {
        socket.send(Message::text(frame.to_string())).unwrap();
        serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
    };
    let log = serde_json::json!({"data": "x", "timestamp": "2024-01-15T10:30:00.123Z"});
    let frame = |key: &str, seq: &str| {
        let source = serde_json::json!({"sourceName": "app", "logs": [log]});
        serde_json::json!({"key": key, "seq": seq, "agentName": "agent1", "sources": [source]})
    };
    let key = format!("{}-1-1", crate::common::spool_id(1));
    assert_eq!(ask(frame(&key, "1-1")), serde_json::json!({"ack": key, "stored": 1, "duplicates": 0}));
    assert_eq!(ask(frame(&key, "1-1")), serde_json::json!({"ack": key, "stored": 0, "duplicates": 1}));
    for (frame, reason) in [
        (frame("1-1", "1-1"), "member key"),
        (frame(&key, "0-1"), "member seq"),
        (frame(&key, "1-2"), "announces 2 events"),
    ] {
        let answer = ask(frame.clone());
        assert_eq!((&answer["nack"], answer["status"].as_u64()), (&frame["key"], Some(400)));
        assert!(answer["reason"].as_str().unwrap().contains(reason), "{answer}");
    }
    let closes: BTreeMap<u16, Message> = [
        (1007, Message::text("{\"no\":\"key\"}")),
        (1003, Message::binary(vec![1, 2])),
        (1009, Message::text("x".repeat(33 << 20))),
    ]
    .into();
    for (code, message) in closes {
        let mut socket = connect();
        // Where the server closes before it has read everything, writing may fail.
        let _ = socket.send(message);
        match socket.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), code),
            other => panic!("{code}: {other:?}"),
        }
    }
    let stats = collector.stats();
    assert_eq!((stats.requests, stats.refused, stats.duplicates_suppressed), (6, 4, 1));
    assert_eq!(stats.store.events_stored, 1);

    // A connection that stays open does not keep the collector from stopping, and is told.
    let mut socket = connect();
    assert_eq!(collector.stop(), Some(0));
    match socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("{other:?}"),
    }
}

//! Exactly the file's lines come out at the other end, in the documented form.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::quick;
use crate::common::{
    Agent, Collector, FaultProxy, Received, Scene, Writer, assert_accounts_agree,
    assert_delivered_exactly_once, await_delivery, wait_for,
};

/// The lines of each source, by sequence number, as the requests' headers and bodies say.
fn lines_by_seq(requests: &[Received]) -> BTreeMap<String, BTreeMap<u64, String>> {
    let mut lines: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for request in requests {
        let body: Value = serde_json::from_str(&request.text()).unwrap();
        let sources = body["sources"].as_array().unwrap();
        let ranges: Vec<&str> = request.seq().split(", ").collect();
        assert_eq!(sources.len(), ranges.len(), "one range for each source");
        for (source, range) in sources.iter().zip(ranges) {
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let logs = source["logs"].as_array().unwrap();
            assert_eq!(logs.len() as u64, last - first + 1, "as many events as numbers");
            let of_source = lines.entry(source["sourceName"].as_str().unwrap().to_owned()).or_default();
            for (seq, log) in (first..).zip(logs) {
                of_source.insert(seq, log["data"].as_str().unwrap().to_owned());
            }
        }
    }
    lines
}

/// Lets the agent send `content` and returns the lines that arrived.
fn arrives(scene: &Scene, content: &[u8], events: usize) -> Vec<String> {
    let proxy = FaultProxy::alone();
    quick(scene, proxy.url()).with("max_line_bytes", 1000).write();
    fs::write(scene.path("logs/app.log"), content).unwrap();
    let agent = Agent::start(scene);
    let arrived = || lines_by_seq(&proxy.requests()).remove("app").unwrap_or_default();
    wait_for(crate::common::PATIENCE, &format!("{events} events"), || arrived().len() >= events);
    assert_eq!(agent.stop(), Some(0));
    let arrived = arrived();
    assert_eq!(arrived.keys().copied().collect::<Vec<_>>(), (1..=events as u64).collect::<Vec<_>>());
    arrived.into_values().collect()
}

#[test]
fn exactly_the_files_lines_arrive_whatever_bytes_they_have() {
    let scene = Scene::new("exactly_the_files_lines_arrive_whatever_bytes_they_have");
    let controls: Vec<u8> = (0..0x20).filter(|byte| *byte != b'\n').collect();
    let long = "0123456789".repeat(250);
    let lines: [(&[u8], &[&str]); 16] = [
        (b"plain", &["plain"]),
        (b"", &[""]),
        (b"\r", &[""]),
        (b"windows\r", &["windows"]),
        (b"two\r\r", &["two\r"]),
        (b"a\rb", &["a\rb"]),
        (b" \t spaces \t ", &[" \t spaces \t "]),
        (&controls, &[std::str::from_utf8(&controls).unwrap()]),
        (b"\x7f\"\\/{}[]:,'<>&", &["\u{7f}\"\\/{}[]:,'<>&"]),
        (
            "é 日本語 \u{1f600} \u{2028} \u{feff} \u{fffd}".as_bytes(),
            &["é 日本語 \u{1f600} \u{2028} \u{feff} \u{fffd}"],
        ),
        (b"latin1 \xe9t\xe9", &["latin1 \u{fffd}t\u{fffd}"]),
        (b"\xff\xfe\x00U\x00", &["\u{fffd}\u{fffd}\0U\0"]),
        (b"cut \xf0\x9f\x98", &["cut \u{fffd}"]),
        (b"surrogate \xed\xa0\x80", &["surrogate \u{fffd}\u{fffd}\u{fffd}"]),
        (long.as_bytes(), &[&long[..1000], &long[1000..2000], &long[2000..]]),
        (b"last", &["last"]),
    ];
    let mut content = Vec::new();
    for (line, _) in lines {
        content.extend_from_slice(line);
        content.push(b'\n');
    }
    content.extend_from_slice(b"no newline yet");
    let expected: Vec<&str> = lines.iter().flat_map(|(_, events)| events.iter().copied()).collect();
    assert_eq!(arrives(&scene, &content, expected.len()), expected);
}

#[test]
fn a_character_of_a_split_line_stays_whole() {
    let scene = Scene::new("a_character_of_a_split_line_stays_whole");
    let line = "é".repeat(1501);
    let pieces = arrives(&scene, format!("x{line}\n").as_bytes(), 4);
    assert_eq!(pieces.concat(), format!("x{line}"));
    assert!(pieces.iter().all(|piece| piece.len() <= 1000));
}

#[test]
fn the_request_is_the_documented_one() {
    let scene = Scene::new("the_request_is_the_documented_one");
    let proxy = FaultProxy::alone();
    quick(&scene, format!("{}in?tenant=7", proxy.url()))
        .global("interval_secs", 1)
        .global("max_batch_size", 5)
        .source("other", "logs/other.log")
        .write();
    fs::write(scene.path("logs/app.log"), "one\ntwo\n").unwrap();
    fs::write(scene.path("logs/other.log"), "three\nfour\nfive\n").unwrap();
    let agent = Agent::start(&scene);
    proxy.await_requests(1);
    assert_eq!(agent.stop(), Some(0));

    let request = &proxy.requests()[0];
    assert_eq!(request.message.start_line, "POST /in?tenant=7 HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("content-encoding"), None);
    let key = request.key().strip_prefix('"').and_then(|key| key.strip_suffix('"')).expect("a quoted string");
    let (spool, positions) = key.split_once('-').unwrap();
    assert_eq!(spool.len(), 32);
    assert!(spool.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{spool}");
    assert_eq!(positions, "1-5");

    let mut body: Value = serde_json::from_str(&request.text()).unwrap();
    for log in
        body["sources"].as_array_mut().unwrap().iter_mut().flat_map(|s| s["logs"].as_array_mut().unwrap())
    {
        let timestamp = log["timestamp"].as_str().unwrap().to_owned();
        let shape: String = timestamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{timestamp}");
        log["timestamp"] = Value::Null;
    }
    let logs = |lines: &[&str]| -> Vec<Value> {
        lines.iter().map(|line| serde_json::json!({"data": line, "timestamp": null})).collect()
    };
    let app = serde_json::json!({"sourceName": "app", "logs": logs(&["one", "two"])});
    let other = serde_json::json!({"sourceName": "other", "logs": logs(&["three", "four", "five"])});
    let (first, sources) = if body["sources"][0]["sourceName"] == "app" {
        ("1-2, 1-3", [app, other])
    } else {
        ("1-3, 1-2", [other, app])
    };
    assert_eq!(request.seq(), first, "one range for each source, in their order");
    assert_eq!(body, serde_json::json!({"agentName": "agent1", "sources": sources}));
}

#[test]
fn compressed_bodies_arrive_and_are_smaller() {
    for (compression, coding) in [("gzip", Some("gzip")), ("zstd", Some("zstd")), ("none", None)] {
        let scene = Scene::new("compressed_bodies_arrive_and_are_smaller");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        // The larger batches are coded on another thread than the smaller ones.
        let config =
            quick(&scene, proxy.url()).global("compression", compression).global("max_batch_size", 400);
        config.write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(1000);
        let agent = Agent::start(&scene);
        await_delivery(&[&writer], &collector);
        writer.append(3);
        await_delivery(&[&writer], &collector);
        assert_eq!(agent.stop(), Some(0));
        assert_delivered_exactly_once(&[&writer], &collector);
        assert_accounts_agree(&[&writer], &collector);
        let requests = proxy.requests();
        assert!(requests.iter().all(|request| request.header("content-encoding") == coding));
        let sent: usize = requests.iter().map(|request| request.body.len()).sum();
        let plain: usize = requests.iter().map(|request| request.text().len()).sum();
        assert!(coding.is_none() || sent < plain / 2, "{compression}: {sent} of {plain} bytes");
    }
}

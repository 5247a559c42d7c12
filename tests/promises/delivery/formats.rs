//! The other formats, against servers that keep to the published protocols: every line arrives once, what is refused
//! is a dead letter, and what is lost on the way back is sent again.

mod elasticsearch;
mod loki;
mod otlp;
mod real;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use super::quick;
use super::refusals::dead_letters;
use crate::common::{Agent, FaultProxy, Message, PATIENCE, Receiver, Reply, Scene, spool_status, wait_for};

/// What a server of a test has stored, shared with the test.
type Shelf<T> = Arc<Mutex<T>>;

/// Lines that formats trip over, none of them the same as another.
fn lines(count: usize) -> Vec<String> {
    let odd =
        ["\"quoted\" \\ {}", "tab\there", "\u{2028}\u{2029}\u{feff}", "\\ud800 \\n", "😀 öü", "'; --", ""];
    (0..count).map(|number| format!("{number:04} {}", odd[number % odd.len()])).collect()
}

fn write(scene: &Scene, lines: &[String]) {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    std::fs::write(scene.path("logs/app.log"), text).unwrap();
}

/// What the spool says of the source `app`, once nothing waits any more and the agent has ended.
fn account(scene: &Scene) -> (u64, u64) {
    let status = spool_status(scene);
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
    let app = &status["sources"][0];
    (app["acknowledged"].as_u64().unwrap(), app["dead"].as_u64().unwrap())
}

/// Waits until so many dead letters have `text` in them.
#[track_caller]
fn await_dead(scene: &Scene, text: &str, count: usize) {
    wait_for(PATIENCE, &format!("{count} dead letters with {text:?}"), || {
        dead_letters(scene).matches(text).count() == count
    });
}

#[test]
fn what_is_cut_and_not_delivered_goes_out_in_the_new_format_when_it_is_changed() {
    let scene = Scene::new("what_is_cut_and_not_delivered_goes_out_in_the_new_format_when_it_is_changed");
    let proxy = FaultProxy::alone();
    proxy.always(crate::common::Fault::UNAVAILABLE);
    quick(&scene, proxy.url()).write();
    write(&scene, &lines(35));
    let agent = Agent::start(&scene);
    proxy.await_requests(3);

    let got: Shelf<BTreeMap<u64, String>> = Shelf::default();
    let shelf = Arc::clone(&got);
    let receiver = Receiver::start(move |request| {
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        for line in request.body.split_inclusive(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(line).expect("each line is an object");
            assert_eq!(event["labels"]["team"], "payments");
            let data = event["data"].as_str().unwrap().to_owned();
            shelf.lock().unwrap().insert(event["seq"].as_u64().unwrap(), data);
        }
        Reply::Answer(204, String::new())
    });
    let mut labels = toml::Table::new();
    labels.insert("team".into(), "payments".into());
    quick(&scene, receiver.url("/in")).global("format", "ndjson").with("labels", labels).write();
    agent.signal(Signal::HUP);
    wait_for(PATIENCE, "every line has come", || got.lock().unwrap().len() == 35);
    agent.await_said("cut under another format");
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(got.lock().unwrap().values().cloned().collect::<Vec<_>>(), lines(35));
    assert_eq!(account(&scene), (35, 0));
}

#[test]
fn raw_bodies_are_the_lines_byte_for_byte() {
    let scene = Scene::new("raw_bodies_are_the_lines_byte_for_byte");
    let got: Shelf<Vec<u8>> = Shelf::default();
    let shelf = Arc::clone(&got);
    let receiver = Receiver::start(move |request| {
        assert_eq!(request.header("content-type"), Some("text/plain"));
        shelf.lock().unwrap().extend_from_slice(&request.body);
        Reply::Answer(200, String::new())
    });
    let config = quick(&scene, receiver.url("/")).global("format", "raw").global("max_send_task", 1);
    config.write();
    let bytes = b"plain\n\xFF\xFE\x00 odd\n\n\xED\xA0\x80\nlast\n";
    std::fs::write(scene.path("logs/app.log"), bytes).unwrap();
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "every byte has come", || got.lock().unwrap().len() >= bytes.len());
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(got.lock().unwrap().as_slice(), bytes);
}

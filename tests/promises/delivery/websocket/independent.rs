//! A server that shares no code with the agent: Python and its `websockets` package, from the protocol's description.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{dead_letters, framed};
use crate::common::{Agent, PATIENCE, Process, Scene, Writer, skip, wait_for};

const SERVER: &str = include_str!("independent.py");

/// An interpreter that has the package.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut command = Command::new(python);
        let command = command.args(["-c", "import websockets"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn a_server_written_from_the_description_gets_every_line_once() {
    const TEST: &str = "a_server_written_from_the_description_gets_every_line_once";
    let Some(python) = python() else { return skip(TEST, "python3 has no package websockets") };
    let scene = Scene::new(TEST);
    let out = scene.path("out.jsonl");
    let mut command = Command::new(python);
    command.args(["-c", SERVER]).arg(&out).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Process::start("server", command, &scene.path("server.stderr"));
    let mut port = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut port).unwrap();
    assert!(!port.is_empty(), "the server does not listen; it said: {}", server.messages());

    // Its frames have at most 64 KiB: some batches are too big for it, and so is one event.
    framed(&scene, format!("ws://127.0.0.1:{}/logs", port.trim()))
        .global("max_batch_size", 1000)
        .table("auth", "type", "bearer")
        .table("auth", "token", "independent")
        .write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(1000);
    writer.append_line(&"z".repeat(80_000));
    writer.append(999);
    let agent = Agent::start(&scene);
    let stored = || -> BTreeMap<u64, String> {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        let mut lines = BTreeMap::new();
        for line in text[..whole].lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let line = event["data"].as_str().unwrap().to_owned();
            assert!(lines.insert(event["seq"].as_u64().unwrap(), line).is_none(), "stored twice: {event}");
        }
        lines
    };
    wait_for(PATIENCE, "every line but one is stored", || stored().len() >= 1999);
    wait_for(PATIENCE, "the one that is too big is a dead letter", || {
        dead_letters(&scene).contains("zzzzzzzz")
    });
    assert_eq!(agent.stop(), Some(0));
    let expected = (1..).zip(writer.lines()).filter(|(_, line)| line.len() < 80_000);
    assert_eq!(stored(), expected.map(|(seq, line)| (seq, line.clone())).collect());
    assert_eq!(server.stop(), Some(0), "{}", server.messages());
}

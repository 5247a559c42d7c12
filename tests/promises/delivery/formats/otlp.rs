//! A receiver in Python that decodes with the published schema.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::common::{Process, skip};

const RECEIVER: &str = include_str!("otlp.py");

/// An interpreter that has the package of the published schema.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut command = Command::new(python);
        let import = "import opentelemetry.proto.collector.logs.v1.logs_service_pb2";
        let command = command.args(["-c", import]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// Delivers to the receiver, which refuses the lines that say so and loses some answers.
fn receives(test: &str, format: &str) {
    let Some(python) = python() else { return skip(test, "python3 has no package opentelemetry-proto") };
    let scene = Scene::new(test);
    let out = scene.path("out.jsonl");
    let mut command = Command::new(python);
    command.args(["-c", RECEIVER]).arg(&out).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Process::start("receiver", command, &scene.path("receiver.stderr"));
    let mut port = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut port).unwrap();
    assert!(!port.is_empty(), "the receiver does not listen; it said: {}", server.messages());

    let config = quick(&scene, format!("http://127.0.0.1:{}/v1/logs", port.trim()))
        .global("format", format)
        .global("compression", "gzip")
        .global("max_batch_size", 30)
        .global("timeout_secs", 10)
        .table("labels", "deployment.environment.name", "test");
    config.write();
    let mut all = lines(150);
    all[20].push_str("REFUSED");
    all[99].push_str("REFUSED");
    write(&scene, &all);
    let agent = Agent::start(&scene);
    let records = || -> BTreeMap<u64, Value> {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        let mut records = BTreeMap::new();
        for line in text[..whole].split_terminator('\n') {
            let record: Value = serde_json::from_str(line).unwrap();
            let seq = record["uid"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
            let before = records.insert(seq, record.clone());
            assert!(before.is_none_or(|before| before == record), "a uid names one record: {record}");
        }
        records
    };
    wait_for(PATIENCE, "every record but two is there", || records().len() >= 148);
    await_dead(&scene, "rejected: I do not like", 2);
    wait_for(PATIENCE, "two dead letters are said", || agent.said().contains("moved to the dead letters"));
    assert_eq!(agent.stop(), Some(0));
    let path = scene.path("logs/app.log");
    for (seq, line) in (1_u64..).zip(&all).filter(|(_, line)| !line.contains("REFUSED")) {
        let record = &records()[&seq];
        assert_eq!(record["body"], *line);
        assert_eq!((&record["service"], &record["agent"]), (&"app".into(), &"agent1".into()));
        assert_eq!((&record["path"], &record["label"]), (&path.to_str().unwrap().into(), &"test".into()));
        let (time, observed) = (record["time"].as_u64().unwrap(), record["observed"].as_u64().unwrap());
        assert!(time > 1_700_000_000_000_000_000 && time == observed);
    }
    assert_eq!(records().len(), 148);
    assert_eq!(server.stop(), Some(0), "{}", server.messages());
}

#[test]
fn a_receiver_with_the_published_schema_reads_every_record_in_protobuf() {
    receives("a_receiver_with_the_published_schema_reads_every_record_in_protobuf", "otlp-protobuf");
}

#[test]
fn a_receiver_with_the_published_schema_reads_every_record_in_json() {
    receives("a_receiver_with_the_published_schema_reads_every_record_in_json", "otlp-json");
}

//! The tools that only look.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::process::Command;

use super::*;
use crate::common::{has_program, skip};

#[test]
fn a_healthy_spool_is_verified_listed_and_shown_without_a_change() {
    let backlog = Backlog::of("a_healthy_spool_is_verified_listed_and_shown_without_a_change");
    let before = content(&backlog.scene.spool_dir());
    let verified = assert_clean(&backlog.scene);
    assert_eq!(verified["findings"], Value::Array(Vec::new()));
    let segments = backlog.segments();
    assert!(segments.len() > 3, "the test wants several segments: {segments:#?}");
    assert_eq!(verified["read"]["segments"], segments.len());

    let waiting: u64 = segments.iter().map(|row| row["waiting"].as_u64().unwrap()).sum();
    assert_eq!(waiting, 2 * Backlog::WAITING as u64);
    let last = segments.iter().rev().find_map(|row| row["last"].as_u64()).unwrap();
    assert_eq!(last, backlog.written());

    let batches = ok(&backlog.scene, &["list", "--batches", "--json"]).lines();
    let (mut next, mut cut) = (batches[0]["first"].as_u64().unwrap(), 0);
    for batch in &batches {
        assert_eq!(batch["first"], next, "batches follow each other: {batch:#}");
        next = batch["last"].as_u64().unwrap() + 1;
        cut += batch["events"].as_u64().unwrap();
    }
    assert!(cut > 0 && cut <= waiting);

    let key = batches[0]["batch"].as_str().unwrap();
    let batch = ok(&backlog.scene, &["show", key, "--json"]).json();
    assert_eq!(batch["outstanding"], true);
    assert_eq!(batch["events"].as_array().unwrap().len() as u64, batches[0]["events"].as_u64().unwrap());
    let sent_under = format!("\"{}\"", batches[0]["idempotency_key"].as_str().unwrap());
    assert_eq!(ok(&backlog.scene, &["show", &sent_under, "--json"]).json(), batch);

    let event = ok(&backlog.scene, &["show", "web:2500", "--json"]).json();
    assert_eq!(event["data"], backlog.web.lines()[2499]);
    assert_eq!(event["path"], backlog.web.path().to_str().unwrap());
    let position = format!("@{}", event["position"]);
    assert_eq!(ok(&backlog.scene, &["show", &position, "--json"]).json(), event);
    let first = ok(&backlog.scene, &["show", &format!("@{}", batches[0]["first"]), "--json"]).json();
    assert_eq!((&first["state"], &first["batch"]), (&"outstanding".into(), &key.into()));
    let told = spool(&backlog.scene, &["show", "web:999999"]);
    assert!(told.code == Some(1) && told.errors.contains("999999"), "{told:?}");
    assert_eq!(content(&backlog.scene.spool_dir()), before, "looking changes nothing");
}

#[test]
fn an_export_has_every_event_in_order_and_ends_where_it_is_told() {
    let backlog = Backlog::of("an_export_has_every_event_in_order_and_ends_where_it_is_told");
    let all = ok(&backlog.scene, &["export"]).lines();
    let mut lines: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for (at, event) in all.iter().enumerate() {
        assert_eq!(event["position"], all[0]["position"].as_u64().unwrap() + at as u64);
        let of_source = lines.entry(event["source"].as_str().unwrap()).or_default();
        of_source.push((event["seq"].as_u64().unwrap(), event["data"].as_str().unwrap()));
    }
    for writer in [&backlog.app, &backlog.web] {
        let exported = &lines[writer.source()];
        assert!(exported.len() >= Backlog::WAITING);
        for (seq, line) in exported {
            assert_eq!(*line, writer.lines()[*seq as usize - 1]);
        }
    }
    let some = ok(&backlog.scene, &["export", "--from", "4000", "--to", "4009"]).lines();
    let positions: Vec<_> = some.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (4000..=4009).collect::<Vec<_>>());
    let from = some[5]["time"].as_str().unwrap();
    let later = ok(&backlog.scene, &["export", "--from", from]).lines();
    assert!(later.iter().all(|event| event["time"].as_str().unwrap() >= from));
    assert!(later.iter().any(|event| event["position"] == some[5]["position"]));

    let out = backlog.scene.path("events.ndjson");
    let told = ok(&backlog.scene, &["export", "--out", out.to_str().unwrap()]);
    assert_eq!(told.out, "");
    assert_eq!(fs::read_to_string(&out).unwrap(), ok(&backlog.scene, &["export"]).out);
    let again = spool(&backlog.scene, &["export", "--out", out.to_str().unwrap()]);
    assert_eq!(again.code, Some(1), "nothing is written over: {again:?}");
}

#[test]
fn the_tools_look_beside_a_running_agent_and_change_nothing_there() {
    let (backlog, agent) =
        Backlog::with_agent("the_tools_look_beside_a_running_agent_and_change_nothing_there");
    let verified = assert_clean(&backlog.scene);
    assert_eq!(verified["agent"]["pid"], agent.pid());
    let listing = ok(&backlog.scene, &["list", "--json"]).json();
    assert_eq!(listing["agent"]["pid"], agent.pid());
    let last = listing["segments"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["active"], &last["waiting"]), (&true.into(), &Value::Null));
    assert_eq!(ok(&backlog.scene, &["show", "app:2000", "--json"]).json()["state"], "unknown");
    let exported = ok(&backlog.scene, &["export"]).lines();
    assert_eq!(exported.last().unwrap()["position"], backlog.written());
    assert_eq!(ok(&backlog.scene, &["dead-letters", "list", "--json"]).json(), Value::Array(Vec::new()));

    for refused in [
        &["list", "--batches"][..],
        &["repair"],
        &["purge", "--all", "--yes"],
        &["dead-letters", "requeue", "--all"],
        &["dead-letters", "purge", "--all", "--yes"],
    ] {
        let told = spool(&backlog.scene, refused);
        let holder = format!("held by process {}", agent.pid());
        assert!(told.code == Some(1) && told.errors.contains(&holder), "{refused:?}: {told:?}");
    }
    assert_eq!(agent.stop(), Some(0));
    assert_clean(&backlog.scene);
}

#[test]
fn without_a_spool_every_tool_says_so_and_makes_none() {
    let scene = Scene::new("without_a_spool_every_tool_says_so_and_makes_none");
    for tool in [
        &["verify"][..],
        &["list"],
        &["show", "@1"],
        &["export"],
        &["repair"],
        &["purge", "--all", "--yes"],
        &["dead-letters", "list"],
        &["dead-letters", "requeue", "--all"],
    ] {
        let told = spool(&scene, tool);
        assert!(told.code == Some(1) && told.errors.contains("there is no spool in"), "{tool:?}: {told:?}");
        assert!(!scene.spool_dir().exists(), "{tool:?}");
    }
}

/// The reader that was written from the document alone, on the spool of a scene.
pub(super) fn python(scene: &Scene, arguments: &[&str]) -> String {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spool_reader.py");
    let output = Command::new("python3").arg(reader).args(arguments).arg(scene.spool_dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_python_agrees(scene: &Scene) {
    let (ours, theirs) = (spool(scene, &["export"]).out, python(scene, &[]));
    assert!(!ours.is_empty());
    let differs = ours.lines().zip(theirs.lines()).find(|(one, other)| one != other);
    assert!(ours == theirs, "{} and {} lines; {differs:?}", ours.lines().count(), theirs.lines().count());
}

#[test]
fn a_reader_in_python_that_knows_only_the_document_reads_the_same() {
    let test = "a_reader_in_python_that_knows_only_the_document_reads_the_same";
    if !has_program("python3") {
        return skip(test, "there is no python3");
    }
    let mut backlog = Backlog::of(test);
    // Times of their own, lines that go on, bytes that are no text, lines that are left out, multi-line events across a
    // rotation, and a path that is no text.
    let scene = &backlog.scene;
    scene
        .config()
        .end_point(backlog.collector.url())
        .global("segment_bytes", "64 KiB")
        .global("interval_secs", 0.02)
        .source("app", "logs/app.log")
        .source("web", "logs/web.log")
        .source("pods", "logs/pods/*.log")
        .with("format", "cri")
        .source("long", "logs/long.log")
        .with("max_line_bytes", 64)
        .with("exclude_lines", vec!["^DEBUG".to_owned()])
        .source("odd", "logs/odd/*")
        .source("java", "logs/java.log")
        .within("multiline", "preset", "java")
        .write();
    fs::create_dir_all(scene.path("logs/pods")).unwrap();
    fs::create_dir_all(scene.path("logs/odd")).unwrap();
    let write = |path: &Path, bytes: &[u8]| {
        File::options().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    };
    for number in 0..50 {
        let line = format!("2024-01-15T10:30:{:02}.123456789Z stdout F pod line {number}\n", number % 60);
        write(&scene.path("logs/pods/one.log"), line.as_bytes());
    }
    write(&scene.path("logs/pods/one.log"), b"1969-07-20T20:17:40.5Z stderr F before the epoch\n");
    write(&scene.path("logs/long.log"), format!("DEBUG no\n{}\nDEBUG no\n", "é7".repeat(100)).as_bytes());
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff.log");
    write(
        &scene.path("logs/odd").join(name),
        b"\xff\xfe\n\xe2\x82\n\"\\\x01\x1f\x7f\t\n\xed\xa0\x80\xf0\x9f\x98\n\n",
    );
    write(&scene.path("logs/java.log"), b"java.lang.Error: one\n\tat a.b(C.java:1)\nnext\n");
    let agent = Agent::start(scene);
    agent.await_started();
    wait_for(PATIENCE, "everything is read", || {
        let text = spool(scene, &["export"]).out;
        ["before the epoch", "\"source\":\"long\"", "\"source\":\"odd\"", "java.lang.Error"]
            .iter()
            .all(|awaited| text.contains(awaited))
    });
    assert_eq!(agent.stop(), Some(0));
    let exported = ok(scene, &["export"]).out;
    for wanted in ["\"continues\":true", "data_base64", "path_base64", "2024-01-15T10:30:07.123Z"] {
        assert!(exported.contains(wanted), "{wanted} does not occur");
    }
    assert!(!exported.contains("DEBUG"), "what is left out is in no event");
    assert_python_agrees(scene);

    // Damage is stepped over by the same rules.
    let numbers: Vec<u64> = backlog.segments().iter().map(|row| row["number"].as_u64().unwrap()).collect();
    for (number, at) in [(numbers[0], 40), (numbers[1], 30_000), (numbers[2], 100)] {
        let mut bytes = fs::read(backlog.segment(number)).unwrap();
        bytes[at] ^= 0x10;
        fs::write(backlog.segment(number), bytes).unwrap();
    }
    fs::remove_file(backlog.segment(numbers[3])).unwrap();
    assert_eq!(spool(&backlog.scene, &["export"]).code, Some(2));
    assert_python_agrees(&backlog.scene);
    backlog.collector.restart();
}

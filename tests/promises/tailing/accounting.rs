//! What became of every byte of the files, and what an operator is told of it.

use serde_json::Value;

use super::*;
use crate::common::{log_agent, spool_status};

/// What `log-agent spool ...` printed as JSON, and its exit code. It changes nothing, so it may run beside the agent.
fn ask(stage: &Stage, arguments: &[&str], path: Option<&str>) -> (Value, Option<i32>) {
    let mut command = log_agent();
    command.arg("spool").args(arguments).args(path.map(|path| stage.scene.path(path)));
    command.arg("--json").arg("--spool-dir").arg(stage.scene.spool_dir());
    let output = command.arg("--config").arg(stage.scene.config_path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&told).unwrap_or_else(|error| {
        panic!("{error}: {told}{}", String::from_utf8_lossy(&output.stderr));
    });
    (report, output.status.code())
}

/// May the file be deleted?
#[track_caller]
fn file(stage: &Stage, path: &str) -> (Value, bool) {
    let (report, code) = ask(stage, &["file"], Some(path));
    let may_be_deleted = report["may_be_deleted"].as_bool().unwrap();
    assert_eq!(code, Some(if may_be_deleted { 0 } else { 2 }), "{report:#}");
    (report, may_be_deleted)
}

/// The entry of a file in the list of `spool status --files`.
#[track_caller]
fn listed(stage: &Stage, path: &str) -> Value {
    let (status, code) = ask(stage, &["status", "--files"], None);
    assert_eq!(code, Some(0), "{status:#}");
    let path = stage.scene.path(path);
    let list = status["files"]["list"].as_array().unwrap();
    list.iter().find(|file| file["path"] == path.to_str().unwrap()).cloned().unwrap_or_default()
}

/// What `spool status` says of a source's bytes, having found that they balance.
#[track_caller]
fn bytes(stage: &Stage, source: &str) -> Value {
    let status = spool_status(&stage.scene);
    let sources = status["sources"].as_array().unwrap();
    let bytes = sources.iter().find(|status| status["source"] == source).map(|status| &status["bytes"]);
    let bytes = bytes.unwrap_or_else(|| panic!("no {source} in {status:#}"));
    let skipped = bytes["skipped"].as_object().unwrap();
    let skipped: u64 = skipped.values().map(|skipped| skipped["bytes"].as_u64().unwrap()).sum();
    let spooled = bytes["spooled"].as_u64().unwrap();
    assert_eq!(bytes["read"].as_u64().unwrap(), spooled + skipped, "{bytes:#}");
    bytes.clone()
}

#[test]
fn what_was_there_before_the_start_at_the_end_is_counted() {
    let mut stage = Stage::new("what_was_there_before_the_start_at_the_end_is_counted");
    stage.append("logs/app.log", "twelve bytes\nand seven\n");
    stage.config().source("app", "logs/app.log").with("start_at", "end").write();
    stage.start();
    stage.settle();
    stage.append("logs/app.log", "new\n");
    stage.expect(&["new"]);
    assert!(file(&stage, "logs/app.log").1, "what was skipped for a reason is no reason to keep it");
    stage.stop();
    let bytes = bytes(&stage, "app");
    assert_eq!((&bytes["read"], &bytes["spooled"]), (&27.into(), &4.into()));
    assert_eq!(bytes["skipped"]["start-at-end"]["bytes"], 23);
}

#[test]
fn a_file_may_be_deleted_when_it_is_read_to_its_end_and_not_before() {
    let mut stage = Stage::new("a_file_may_be_deleted_when_it_is_read_to_its_end_and_not_before");
    stage.append("logs/app.log", "one\ntwo\n");
    stage.append("elsewhere.log", "one\ntwo\n");
    stage = stage.follow("logs/app.log*");
    stage.expect(&["one", "two"]);
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(may_be_deleted, "{report:#}");
    assert_eq!(report["agent"]["pid"], stage.agent().pid());
    assert_eq!(file(&stage, "elsewhere.log").0["sources"], Value::Array(Vec::new()));

    // Under its next name, and with the agent stopped.
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log", "three\n");
    stage.expect(&["one", "two", "three"]);
    assert!(file(&stage, "logs/app.log.1").1);
    stage.stop();
    let (report, may_be_deleted) = file(&stage, "logs/app.log.1");
    assert!(may_be_deleted && report["agent"].is_null(), "{report:#}");
    assert!(file(&stage, "logs/app.log").1);
    stage.append("logs/app.log", "four\nfive");
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(!may_be_deleted, "nobody has read it");
    assert_eq!(report["sources"][0]["state"], "unread");
    assert_eq!(report["sources"][0]["unread_bytes"], 9);
    // One that the spool never saw, and the configuration says is followed.
    stage.append("logs/app.log.2", "zero\n");
    assert_eq!(file(&stage, "logs/app.log.2").0["sources"][0]["state"], "unknown");

    // What was deleted on that advice was delivered, and is not missed.
    stage.remove("logs/app.log.1");
    stage.remove("logs/app.log.2");
    stage.start();
    stage.expect(&["one", "two", "three", "four"]);
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(!may_be_deleted, "{report:#}");
    assert_eq!(report["sources"][0]["state"], "incomplete-line");
    assert_eq!(report["sources"][0]["unread_bytes"], 4);
    stage.append("logs/app.log", "\n");
    stage.expect(&["one", "two", "three", "four", "five"]);
    assert!(file(&stage, "logs/app.log").1);
}

#[test]
fn a_file_that_was_truncated_is_not_taken_for_what_was_read_of_it() {
    let mut stage = Stage::new("a_file_that_was_truncated_is_not_taken_for_what_was_read_of_it");
    stage = stage.follow("logs/app.log");
    stage.append("logs/app.log", "one\ntwo\n");
    stage.expect(&["one", "two"]);
    stage.stop();
    stage.handle("logs/app.log").set_len(0).unwrap();
    stage.append("logs/app.log", "six\nten\n");
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(!may_be_deleted, "it has the length of what was read, and other content");
    assert_eq!(report["sources"][0]["state"], "replaced");
    stage.start();
    stage.expect(&["one", "two", "six", "ten"]);
    assert!(file(&stage, "logs/app.log").1);
    stage.stop();
    assert_eq!(bytes(&stage, "app")["read"], 16);
}

#[test]
fn the_list_of_files_shows_where_they_are_and_how_far_behind() {
    let mut stage = Stage::new("the_list_of_files_shows_where_they_are_and_how_far_behind");
    stage = stage.follow("logs/*.log");
    for name in ["kept", "moved", "deleted"] {
        stage.append(format!("logs/{name}.log"), "one\n");
    }
    stage.expect_groups(&[&["one", "one", "one"]]);
    let kept = listed(&stage, "logs/kept.log");
    assert_eq!(
        (&kept["state"], &kept["offset"], &kept["lag_bytes"]),
        (&"current".into(), &4.into(), &0.into())
    );
    assert_eq!(kept["lag_secs"], 0);

    // Its server may be away: that holds nothing up. Without the agent the files are what is behind.
    stage.collector.kill();
    stage.append("logs/kept.log", "two\n");
    wait_for(PATIENCE, "the line is spooled while nobody takes it", || {
        listed(&stage, "logs/kept.log")["offset"] == 8
    });
    stage.remove("logs/deleted.log");
    wait_for(PATIENCE, "the deleted file shows as held, or is let go of", || {
        matches!(listed(&stage, "logs/deleted.log")["state"].as_str(), Some("deleted-held-open") | None)
    });
    stage.kill();
    stage.append("logs/kept.log", "three\nfour\n");
    stage.rename("logs/moved.log", "logs/moved.log.1");
    stage.append("logs/moved.log", "another\n");
    let kept = listed(&stage, "logs/kept.log");
    assert_eq!(
        (&kept["state"], &kept["size"], &kept["lag_bytes"]),
        (&"current".into(), &19.into(), &11.into())
    );
    assert!(kept["lag_secs"].is_u64());
    let moved = listed(&stage, "logs/moved.log");
    assert_eq!((&moved["state"], &moved["lag_bytes"]), (&"renamed".into(), &0.into()));
    assert_eq!(moved["found_at"], stage.scene.path("logs/moved.log.1").to_str().unwrap());
    assert!(matches!(listed(&stage, "logs/deleted.log")["state"].as_str(), Some("gone") | None));

    stage.collector.restart();
    stage.start();
    stage.expect_groups(&[&["one", "one", "one"], &["two", "three", "four"], &["another"]]);
    assert_eq!(listed(&stage, "logs/kept.log")["lag_bytes"], 0);
}

#[test]
fn the_lag_of_a_full_spool_shows() {
    let mut stage = Stage::new("the_lag_of_a_full_spool_shows");
    stage
        .config()
        .global("segment_bytes", "64 KiB")
        .global("max_spool_bytes", "1 MiB")
        .global("max_batch_size", 5000)
        .source("app", "logs/app.log")
        .write();
    stage.collector.kill();
    stage.start();
    stage.agent().await_started();
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    wait_for(PATIENCE, "what there is room for is read", || {
        let listed = listed(&stage, "logs/app.log");
        listed["offset"].as_u64().is_some_and(|offset| offset > 0) && listed["lag_bytes"] == 0
    });
    writer.append(40_000);
    stage.agent().await_said("reading pauses");
    let behind = listed(&stage, "logs/app.log");
    assert!(behind["lag_bytes"].as_u64().unwrap() > 0, "{behind:#}");
    assert_eq!(
        behind["lag_bytes"].as_u64().unwrap() + behind["offset"].as_u64().unwrap(),
        std::fs::metadata(writer.path()).unwrap().len()
    );
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(!may_be_deleted, "{report:#}");
    stage.collector.restart();
    stage.expect_written(&[&writer]);
    let (report, may_be_deleted) = file(&stage, "logs/app.log");
    assert!(may_be_deleted, "{report:#}");
}

#[test]
fn the_bytes_balance_after_every_kill() {
    let mut stage = Stage::new("the_bytes_balance_after_every_kill");
    stage.config().global("segment_bytes", "64 KiB").source("app", "logs/app.log").write();
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for _ in 0..6 {
        stage.start();
        stage.agent().await_started();
        writer.append(500);
        stage.settle();
        // In the middle of what comes next.
        writer.append(500);
        stage.kill();
        bytes(&stage, "app");
        writer.rotate();
    }
    writer.append(1);
    stage.start();
    stage.expect_written(&[&writer]);
    stage.stop();
    let written: u64 = writer.lines().iter().map(|line| line.len() as u64 + 1).sum();
    let bytes = bytes(&stage, "app");
    assert_eq!((&bytes["read"], &bytes["spooled"]), (&written.into(), &written.into()));
}

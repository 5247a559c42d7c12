//! What a source leaves out, hides, or does not wait for.

use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn lines_are_included_by_pattern() {
    let mut stage = Stage::new("lines_are_included_by_pattern");
    stage
        .config()
        .source("app", "logs/app.log")
        .with("include_lines", vec!["ERROR|WARN", "^audit: "])
        .write();
    stage.start();
    stage.append("logs/app.log", "INFO a\nERROR b\n\naudit: c\nan audit: d\nWARN e\n");
    stage.expect(&["ERROR b", "audit: c", "WARN e"]);
    // Where nothing is kept, reading goes on all the same.
    stage.append("logs/app.log", text(&numbered("INFO", 0..10_000)));
    stage.settle();
    stage.kill();
    stage.append("logs/app.log", "ERROR f\n");
    stage.start();
    stage.expect(&["ERROR b", "audit: c", "WARN e", "ERROR f"]);
}

#[test]
fn lines_are_excluded_by_pattern_also_where_they_are_included() {
    let mut stage = Stage::new("lines_are_excluded_by_pattern_also_where_they_are_included");
    stage
        .config()
        .source("app", "logs/app.log")
        .with("include_lines", vec!["ERROR"])
        .with("exclude_lines", vec!["healthz", "^$"])
        .source("all", "logs/app.log")
        .with("exclude_lines", vec!["^$"])
        .write();
    stage.start();
    stage.append("logs/app.log", b"ERROR a\nERROR GET /healthz\n\nINFO b\nERROR \xff\n");
    stage.expect(&["ERROR a", "ERROR \u{fffd}"]);
    stage.expect_of("all", &["ERROR a", "ERROR GET /healthz", "INFO b", "ERROR \u{fffd}"]);
}

#[test]
fn patterns_judge_whole_events() {
    let mut stage = Stage::new("patterns_judge_whole_events");
    stage
        .config()
        .source("app", "logs/app.log")
        .within("multiline", "continue_pattern", r"^\s")
        .within("multiline", "timeout_ms", 600_000)
        .with("exclude_lines", vec!["noise"])
        .write();
    stage.start();
    stage.append("logs/app.log", "a\n b\nc\n noise\n d\ne\n f\nend\n");
    stage.expect(&["a\n b", "e\n f"]);
}

#[test]
fn redacted_text_reaches_neither_disk_nor_server() {
    let mut stage = Stage::new("redacted_text_reaches_neither_disk_nor_server");
    stage
        .config()
        .source("app", "logs/app.log")
        .redact(r"(?i)(password|token)=\S+", "$1=[hidden]")
        .redact(r"\b\d{4}-\d{4}-\d{4}-(\d{4})\b", "****-${1}")
        .redact("nothing at all", "")
        .write();
    stage.start();
    // With nobody listening it stays in the spool.
    stage.collector.kill();
    stage.append("logs/app.log", "login Password=tops3cret token=s3same\n1234-5678-9012-3456 paid\nplain\n");
    wait_for(PATIENCE, "the lines are in the spool", || spool_holds(&stage, b"plain"));
    for secret in ["tops3cret", "s3same", "5678"] {
        assert!(!spool_holds(&stage, secret.as_bytes()), "{secret} is on disk");
    }
    stage.collector.restart();
    stage.expect(&["login Password=[hidden] token=[hidden]", "****-3456 paid", "plain"]);
    for said in [stage.messages(), fs::read_to_string(stage.collector.out()).unwrap()] {
        assert!(!said.contains("tops3cret"), "{said}");
    }
}

/// Whether some file of the spool has these bytes.
fn spool_holds(stage: &Stage, bytes: &[u8]) -> bool {
    let mut dirs = vec![stage.scene.spool_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if fs::read(entry.path())
                .is_ok_and(|content| memchr::memmem::find(&content, bytes).is_some())
            {
                return true;
            }
        }
    }
    false
}

#[test]
fn partial_timeout_delivers_a_last_line_marked() {
    let mut stage = Stage::new("partial_timeout_delivers_a_last_line_marked");
    stage.config().source("app", "logs/app.log").with("partial_timeout_secs", 0.2).write();
    stage.start();
    stage.append("logs/app.log", "whole\nprompt> ");
    stage.expect(&["whole", "prompt> "]);
    // Its rest, and one that is nothing but the newline.
    stage.append("logs/app.log", "answer\nprompt> ");
    stage.expect(&["whole", "prompt> ", "answer", "prompt> "]);
    stage.kill();
    stage.start();
    stage.settle();
    stage.append("logs/app.log", "\nlast\n");
    stage.expect(&["whole", "prompt> ", "answer", "prompt> ", "last"]);
    let marks: Vec<bool> = stage.stored_events("app").iter().map(|event| event.continues).collect();
    assert_eq!(marks, [false, true, false, true, false]);
}

#[test]
fn last_line_waits_where_no_timeout_is_set() {
    let mut stage = Stage::new("last_line_waits_where_no_timeout_is_set");
    stage
        .config()
        .source("app", "logs/app.log")
        .source("hasty", "logs/app.log")
        .with("partial_timeout_secs", 0.05)
        .write();
    stage.start();
    stage.append("logs/app.log", "half");
    stage.expect_of("hasty", &["half"]);
    stage.expect::<&str>(&[]);
    stage.append("logs/app.log", " and half\n");
    stage.expect(&["half and half"]);
    stage.expect_of("hasty", &["half", " and half"]);
}

#[test]
fn ignore_older_secs_skips_what_was_not_written_to_for_long() {
    let mut stage = Stage::new("ignore_older_secs_skips_what_was_not_written_to_for_long");
    stage.config().source("app", "logs/*.log").with("ignore_older_secs", 3600).write();
    stage.append("logs/old.log", "old 1\nold 2, begun ");
    stage.append("logs/new.log", "new 1\n");
    let age = |stage: &Stage, path: &str, hours: u32| {
        let then = SystemTime::now() - Duration::from_secs(3600) * hours;
        File::options().append(true).open(stage.scene.path(path)).unwrap().set_modified(then).unwrap();
    };
    age(&stage, "logs/old.log", 2);
    stage.start();
    stage.expect(&["new 1"]);
    // It is written to after all: from there on it is followed.
    stage.append("logs/old.log", "and completed\nold 3\n");
    stage.expect_groups(&[&["new 1"], &["old 2, begun and completed", "old 3"]]);
    // One that comes with an old time, as from an archive.
    stage.append("aside/late.log", "late 1\n");
    age(&stage, "aside/late.log", 2);
    stage.rename("aside/late.log", "logs/late.log");
    stage.expect_groups(&[&["new 1"], &["old 2, begun and completed", "old 3"]]);
    // What is known is read on, however old it is.
    stage.stop();
    stage.append("logs/new.log", "new 2\n");
    age(&stage, "logs/new.log", 5);
    stage.start();
    stage.expect_groups(&[&["new 1", "new 2"], &["old 2, begun and completed", "old 3"]]);
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_opened() {
    let stage = Stage::new("options_that_cannot_be_are_refused_before_anything_is_opened");
    type Change = for<'a> fn(ConfigBuilder<'a>) -> ConfigBuilder<'a>;
    let changes: [(&str, Change); 8] = [
        ("include_lines", |config| config.with("include_lines", vec!["("])),
        ("exclude_lines", |config| config.with("exclude_lines", "not a list")),
        ("encoding", |config| config.with("encoding", "utf-7")),
        ("format", |config| config.with("format", "xml")),
        ("exclude", |config| config.with("exclude", vec!["logs/[a"])),
        ("preset", |config| config.within("multiline", "preset", "cobol")),
        ("start_pattern", |config| {
            config.within("multiline", "start_pattern", "a").within("multiline", "preset", "java")
        }),
        ("pattern", |config| config.redact("[", "x")),
    ];
    for (key, change) in changes {
        change(stage.config().source("app", "logs/app.log")).write();
        let mut command: Command = crate::common::log_agent();
        command
            .arg("--config")
            .arg(stage.scene.config_path())
            .arg("--spool-dir")
            .arg(stage.scene.spool_dir());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{key}: {said}");
        assert!(said.contains(key) && said.contains("log-agent.config:"), "{key}: {said}");
        assert!(!stage.scene.spool_dir().exists(), "{key}");
    }
}

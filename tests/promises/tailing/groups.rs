//! Several lines that are one event.
//!
//! Where a test closes a group by the line after it, the timeout is longer than any test takes, so that nothing depends
//! on how fast the machine is.

use super::*;

/// Longer than a test takes, in milliseconds.
const NEVER_MS: i64 = 600_000;
/// What an event of [`START`] begins with.
const START: &str = r"^\d{4}-\d{2}-\d{2} ";

/// A stage that follows `logs/app.log*` with groups that begin with a date, and never time out.
fn dated(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    dated_config(&stage).write();
    stage.start();
    stage
}

fn dated_config(stage: &Stage) -> ConfigBuilder<'_> {
    stage.config().source("app", "logs/app.log").within("multiline", "start_pattern", START).within(
        "multiline",
        "timeout_ms",
        NEVER_MS,
    )
}

const JAVA: &str = "\
Exception in thread \"main\" java.lang.IllegalStateException: cannot open
\tat com.example.Store.open(Store.java:41)
\tat com.example.Main.main(Main.java:9)
Caused by: java.io.IOException: no such file
\tat java.base/java.io.FileInputStream.open0(Native Method)
\t... 2 more
\tSuppressed: java.lang.RuntimeException: while closing
\t\tat com.example.Store.close(Store.java:77)";

const PYTHON: &str = "\
Traceback (most recent call last):
  File \"/srv/app.py\", line 3, in load
    return table[key]
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/srv/app.py\", line 9, in <module>
    load()
ValueError: no key";

const GO: &str = "\
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.read(...)
\t/srv/main.go:12
main.main()
\t/srv/main.go:20 +0x1d
exit status 2";

const RUBY: &str = "\
app.rb:2:in `load': no table (RuntimeError)
\tfrom app.rb:6:in `run'
\tfrom app.rb:9:in `<main>'";

#[test]
fn stack_trace_is_one_event() {
    let mut stage = Stage::new("stack_trace_is_one_event");
    let presets = [("java", JAVA), ("python", PYTHON), ("go", GO), ("ruby", RUBY)];
    let mut config = stage.config();
    for (preset, _) in presets {
        config = config
            .source(preset, &format!("logs/{preset}.log"))
            .within("multiline", "preset", preset)
            .within("multiline", "timeout_ms", NEVER_MS);
    }
    config.write();
    stage.start();
    for (preset, trace) in presets {
        let path = format!("logs/{preset}.log");
        stage.append(&path, "before\n");
        for line in trace.lines() {
            stage.append(&path, format!("{line}\n"));
            stage.settle();
        }
        stage.append(&path, format!("between\n{trace}\nafter\nlast\n"));
        // A plain line may be the head of a trace, so the last one may still wait.
        let expected = ["before", trace, "between", trace, "after"];
        wait_for(PATIENCE, "the traces are stored", || stage.stored(preset).len() >= expected.len());
        stage.settle();
        let stored = stage.stored(preset);
        assert_eq!(stored[..expected.len()], expected, "{preset}");
        assert!(stored[expected.len()..].iter().all(|line| line == "last"), "{preset}: {stored:#?}");
    }
}

#[test]
fn group_is_told_by_how_it_goes_on() {
    let mut stage = Stage::new("group_is_told_by_how_it_goes_on");
    stage
        .config()
        .source("app", "logs/app.log")
        .within("multiline", "continue_pattern", r"^\s")
        .within("multiline", "timeout_ms", NEVER_MS)
        .write();
    stage.start();
    stage.append("logs/app.log", "  of nothing\none\n two\n\tthree\r\nfour\n\n five\nsix\n");
    stage.expect(&["  of nothing", "one\n two\n\tthree", "four", "\n five"]);
}

#[test]
fn group_is_complete_once_its_file_is_quiet() {
    let mut stage = Stage::new("group_is_complete_once_its_file_is_quiet");
    stage
        .config()
        .source("app", "logs/app.log")
        .within("multiline", "start_pattern", START)
        .within("multiline", "timeout_ms", 200)
        .write();
    stage.start();
    stage.append("logs/app.log", "2024-01-15 a\n  b\n  c\nwithout a new");
    stage.expect(&["2024-01-15 a\n  b\n  c"]);
    stage.append("logs/app.log", "line\n2024-01-15 d\n");
    stage.expect(&["2024-01-15 a\n  b\n  c", "without a newline", "2024-01-15 d"]);
}

#[test]
fn group_over_max_lines() {
    let mut stage = Stage::new("group_over_max_lines");
    let config = dated_config(&stage).within("multiline", "max_lines", 3);
    config.write();
    stage.start();
    stage.append("logs/app.log", "2024-01-15 0\n1\n2\n3\n4\n5\n6\n7\n2024-01-15 8\n9\n2024-01-15 10\n");
    stage.expect(&["2024-01-15 0\n1\n2", "3\n4\n5", "6\n7", "2024-01-15 8\n9"]);
}

#[test]
fn group_over_max_bytes_loses_nothing() {
    let mut stage = Stage::new("group_over_max_bytes_loses_nothing");
    let config = dated_config(&stage).within("multiline", "max_bytes", 1024);
    config.write();
    stage.start();
    let lines: Vec<String> = (0..100).map(|number| format!("{number:03} {}", "x".repeat(60))).collect();
    stage.append("logs/app.log", format!("2024-01-15 0\n{}2024-01-15 1\n2024-01-15 2\n", text(&lines)));
    wait_for(PATIENCE, "the next event is stored", || {
        stage.stored("app").last().is_some_and(|event| event == "2024-01-15 1")
    });
    stage.settle();
    let stored = stage.stored("app");
    assert!(stored.len() > 3 && stored.iter().all(|event| event.len() <= 1024), "{stored:#?}");
    assert_eq!(stored.join("\n"), format!("2024-01-15 0\n{}2024-01-15 1", text(&lines)));
}

#[test]
fn trace_split_by_rotation() {
    let mut stage = dated("trace_split_by_rotation");
    let mut expected: Vec<String> = Vec::new();
    let (one, other) = JAVA.split_at(JAVA.find("Caused").unwrap());
    for round in 0..3 {
        stage.append("logs/app.log", format!("2024-01-15 {round} before\n2024-01-15 {round}\n{one}"));
        stage.settle();
        let rotated = format!("logs/app.log.{}", 3 - round);
        match round {
            0 => stage.rename("logs/app.log", &rotated),
            1 => {
                stage.kill();
                stage.rename("logs/app.log", &rotated);
            }
            _ => {
                fs::copy(stage.scene.path("logs/app.log"), stage.scene.path(&rotated)).unwrap();
                stage.handle("logs/app.log").set_len(0).unwrap();
            }
        }
        stage.append("logs/app.log", format!("{other}\n2024-01-15 {round} after\n"));
        if round == 1 {
            stage.start();
        }
        expected.extend([format!("2024-01-15 {round} before"), format!("2024-01-15 {round}\n{JAVA}")]);
        stage.expect(&expected);
        // Completed by the next round's first line.
        expected.push(format!("2024-01-15 {round} after"));
    }
}

#[test]
fn group_at_the_end_of_a_rotated_file_is_complete_where_the_next_begins_anew() {
    const NAME: &str = "group_at_the_end_of_a_rotated_file_is_complete_where_the_next_begins_anew";
    let mut stage = dated(NAME);
    stage.append("logs/app.log", "2024-01-15 a\n  b\n");
    stage.settle();
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log", "2024-01-15 c\n");
    stage.expect(&["2024-01-15 a\n  b"]);
    stage.append("logs/app.log", "2024-01-15 d\n");
    stage.expect(&["2024-01-15 a\n  b", "2024-01-15 c"]);
}

#[test]
fn group_at_the_end_of_a_deleted_file_is_an_event() {
    let mut stage = dated("group_at_the_end_of_a_deleted_file_is_an_event");
    stage.append("logs/app.log", "2024-01-15 a\n  b\nrest");
    stage.settle();
    stage.remove("logs/app.log");
    stage.expect(&["2024-01-15 a\n  b\nrest"]);
}

#[test]
fn open_group_at_stop_and_kill() {
    let mut stage = dated("open_group_at_stop_and_kill");
    stage.append("logs/app.log", "2024-01-15 a\n  b\n");
    stage.settle();
    stage.stop();
    stage.append("logs/app.log", "  c\n");
    stage.start();
    stage.expect::<&str>(&[]);
    stage.append("logs/app.log", "  d\n");
    stage.settle();
    stage.kill();
    stage.start();
    stage.append("logs/app.log", "  e\n2024-01-15 f\n");
    stage.expect(&["2024-01-15 a\n  b\n  c\n  d\n  e"]);
    // Nor does a reload close it.
    let before = stage.messages().matches("configuration reloaded").count();
    dated_config(&stage).with("delay_ms", 70).write();
    stage.agent().signal(Signal::HUP);
    wait_for(PATIENCE, "the configuration is reloaded", || {
        stage.messages().matches("configuration reloaded").count() > before
    });
    stage.append("logs/app.log", "  g\n2024-01-15 h\n");
    stage.expect(&["2024-01-15 a\n  b\n  c\n  d\n  e", "2024-01-15 f\n  g"]);
}

#[test]
fn groups_of_interleaved_files_do_not_mix() {
    let mut stage = Stage::new("groups_of_interleaved_files_do_not_mix");
    let config = dated_config(&stage).with("log_path", stage.scene.path("logs/*.log").to_str().unwrap());
    config.write();
    stage.start();
    let groups = ["a", "b", "c"].map(|file| {
        (0..20).map(|event| format!("2024-01-15 {file} {event}\n  one\n  two")).collect::<Vec<_>>()
    });
    for event in 0..20 {
        for line in 0..3 {
            for (file, events) in ["a", "b", "c"].iter().zip(&groups) {
                let line = events[event].lines().nth(line).unwrap();
                stage.append(format!("logs/{file}.log"), format!("{line}\n"));
            }
        }
    }
    let complete: Vec<&[String]> = groups.iter().map(|events| &events[..19]).collect();
    stage.expect_groups(&complete);
}

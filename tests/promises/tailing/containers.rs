//! Lines that a container's runtime wrapped.

use super::*;

fn in_format(name: &str, format: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.config().source("app", "logs/app.log*").with("format", format).write();
    stage.start();
    stage
}

/// Lines and times of what is stored.
fn timed(stage: &Stage) -> Vec<(String, String)> {
    stage.stored_events("app").into_iter().map(|event| (event.data, event.timestamp)).collect()
}

fn docker(log: &str, stream: &str, second: u32) -> String {
    let time = format!("2024-01-15T10:30:{second:02}.123456789Z");
    format!("{}\n", serde_json::json!({ "log": log, "stream": stream, "time": time }))
}

#[test]
fn docker_json_unescaped() {
    let mut stage = in_format("docker_json_unescaped", "docker-json");
    let lines = ["plain", "\"quoted\" \\ \t \u{1b}[0m", "caf\u{e9} \u{1f600}", ""];
    let records: String =
        lines.iter().zip(0..).map(|(line, second)| docker(&format!("{line}\n"), "stdout", second)).collect();
    // What the driver escapes although JSON does not ask for it.
    stage.append("logs/app.log", records.replace("caf\u{e9}", "caf\\u00e9").replace("[0m", "\\u005b0m"));
    stage.append("logs/app.log", docker("crlf\r\n", "stderr", 4));
    stage.append(
        "logs/app.log",
        "{\"attrs\":{\"tag\":\"x\"},\"time\":\"2024-01-15T12:30:05.9999+02:00\",\"log\":\"more keys\\n\",\"stream\":\"stdout\"}\n",
    );
    stage.expect(&[lines[0], lines[1], lines[2], lines[3], "crlf", "more keys"]);
    let times: Vec<String> = timed(&stage).into_iter().map(|(_, time)| time).collect();
    let expected: Vec<String> = (0..5)
        .map(|second| format!("2024-01-15T10:30:{second:02}.123Z"))
        .chain(["2024-01-15T10:30:05.999Z".to_owned()])
        .collect();
    assert_eq!(times, expected);
}

#[test]
fn docker_json_partial_records_joined() {
    let mut stage = in_format("docker_json_partial_records_joined", "docker-json");
    let (one, two) = ("1".repeat(16 << 10), "2".repeat(16 << 10));
    stage.append("logs/app.log", docker(&one, "stdout", 1));
    stage.settle();
    stage.kill();
    stage.start();
    stage.append("logs/app.log", docker(&two, "stdout", 2));
    stage.append("logs/app.log", docker("end\n", "stdout", 3));
    stage.append("logs/app.log", docker("next\n", "stdout", 4));
    let expected = [
        (format!("{one}{two}end"), "2024-01-15T10:30:01.123Z".to_owned()),
        ("next".to_owned(), "2024-01-15T10:30:04.123Z".to_owned()),
    ];
    stage.expect(&[&expected[0].0, &expected[1].0]);
    assert_eq!(timed(&stage), expected);
}

#[test]
fn cri_partial_lines_joined() {
    let mut stage = in_format("cri_partial_lines_joined", "cri");
    let cri = |second: u32, rest: &str| format!("2024-01-15T10:30:{second:02}.123456789Z {rest}\n");
    stage.append("logs/app.log", cri(0, "stdout F whole line"));
    stage.append("logs/app.log", cri(1, "stdout P one "));
    stage.expect(&["whole line"]);
    stage.append("logs/app.log", cri(2, "stdout P two "));
    stage.settle();
    stage.kill();
    stage.append("logs/app.log", cri(3, "stdout F three"));
    stage.start();
    stage.append("logs/app.log", cri(4, "stderr F "));
    stage.append("logs/app.log", cri(5, "stderr P "));
    stage.append("logs/app.log", cri(6, "stderr F  indented"));
    stage.expect(&["whole line", "one two three", "", " indented"]);
    let times: Vec<String> = timed(&stage).into_iter().map(|(_, time)| time).collect();
    let expected: Vec<String> =
        [0, 1, 4, 5].map(|second| format!("2024-01-15T10:30:{second:02}.123Z")).to_vec();
    assert_eq!(times, expected);
}

#[test]
fn cri_partial_lines_of_two_streams_do_not_mix() {
    let mut stage = in_format("cri_partial_lines_of_two_streams_do_not_mix", "cri");
    let records =
        ["stdout P out 1, ", "stderr P err 1, ", "stderr F err 2", "stdout P out 2, ", "stderr F err 3"];
    for (second, record) in records.iter().enumerate() {
        stage.append("logs/app.log", format!("2024-01-15T10:30:{second:02}Z {record}\n"));
        stage.settle();
    }
    stage.append("logs/app.log", "2024-01-15T10:30:09Z stdout F out 3\n");
    stage.expect_groups(&[&["out 1, out 2, out 3"], &["err 1, err 2", "err 3"]]);
}

#[test]
fn what_no_runtime_wrote_is_delivered_as_it_is() {
    let odd =
        ["not a record", "{\"log\":", "{}", "2024-01-15T10:30:00Z", "2024-01-15T10:30:00Z stdout X y", ""];
    for format in ["docker-json", "cri"] {
        let mut stage = in_format("what_no_runtime_wrote_is_delivered_as_it_is", format);
        stage.append("logs/app.log", format!("{}\n", odd.join("\n")));
        stage.expect(&odd);
    }
}

#[test]
fn partial_record_of_a_finished_file_is_an_event() {
    let mut stage = in_format("partial_record_of_a_finished_file_is_an_event", "cri");
    stage.append("logs/app.log", "2024-01-15T10:30:00Z stdout P never completed\n");
    stage.expect::<&str>(&[]);
    stage.remove("logs/app.log");
    stage.expect(&["never completed"]);
}

#[test]
fn trace_in_a_container_is_one_event() {
    let mut stage = Stage::new("trace_in_a_container_is_one_event");
    stage
        .config()
        .source("app", "logs/app.log")
        .with("format", "cri")
        .within("multiline", "continue_pattern", r"^\s")
        .within("multiline", "timeout_ms", 600_000)
        .write();
    stage.start();
    let records = ["F head", "P   half ", "F and half", "F   last", "F next"];
    for (second, record) in records.iter().enumerate() {
        stage.append("logs/app.log", format!("2024-01-15T10:30:{second:02}.5Z stdout {record}\n"));
    }
    stage.expect(&["head\n  half and half\n  last"]);
    assert_eq!(timed(&stage)[0].1, "2024-01-15T10:30:00.500Z");
}

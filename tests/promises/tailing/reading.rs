//! From bytes in files to lines in the collector.

use super::*;

#[test]
fn interleaved_files_keep_their_own_order() {
    let mut stage = Stage::new("interleaved_files_keep_their_own_order").follow("logs/*.log");
    let mut writers =
        [Writer::new(&stage.scene, "app", "logs/a.log"), Writer::new(&stage.scene, "app", "logs/b.log")];
    for round in 0..200 {
        for writer in &mut writers {
            writer.append(1 + round % 3);
        }
    }
    stage.expect_written(&[&writers[0], &writers[1]]);
}

#[test]
fn blank_lines_are_events() {
    let mut stage = Stage::new("blank_lines_are_events").follow("logs/app.log");
    stage.append("logs/app.log", "\n\na\n\n\nb\n\n");
    stage.expect(&["", "", "a", "", "", "b", ""]);
}

#[test]
fn crlf_and_lf_mix() {
    let mut stage = Stage::new("crlf_and_lf_mix").follow("logs/app.log");
    stage.append("logs/app.log", "a\r\nb\nc\r\n\r\n\nd\re\n\r\r\n");
    stage.expect(&["a", "b", "c", "", "", "d\re", "\r"]);
}

#[test]
fn line_written_in_two_writes_is_one_event() {
    let mut stage = Stage::new("line_written_in_two_writes_is_one_event").follow("logs/app.log");
    let cuts: [(&[u8], &[u8], &str); 5] = [
        (b"one ", b"line\n", "one line"),
        (b"inside \xe2\x82", b"\xac of utf-8\n", "inside \u{20ac} of utf-8"),
        (b"inside crlf\r", b"\n", "inside crlf"),
        (b"before lf", b"\n", "before lf"),
        (b"\r", b"no line ending\n", "\rno line ending"),
    ];
    let mut expected = Vec::new();
    for (first, second, whole) in cuts {
        stage.append("logs/app.log", first);
        stage.expect(&expected);
        stage.append("logs/app.log", second);
        expected.push(whole);
        stage.expect(&expected);
    }
}

#[test]
fn last_line_without_newline_is_held_back_then_completed() {
    let mut stage = Stage::new("last_line_without_newline_is_held_back_then_completed");
    stage.append("logs/app.log", "first\nsec");
    stage = stage.follow("logs/app.log");
    stage.expect(&["first"]);
    stage.append("logs/app.log", "o");
    stage.expect(&["first"]);
    // It is held back in its file, so a restart forgets nothing of it.
    stage.kill();
    stage.start();
    stage.append("logs/app.log", "nd\nthird");
    stage.expect(&["first", "second"]);
    stage.append("logs/app.log", "\n");
    stage.expect(&["first", "second", "third"]);
}

#[test]
fn last_line_without_newline_of_a_finished_file_is_an_event() {
    let mut stage =
        Stage::new("last_line_without_newline_of_a_finished_file_is_an_event").follow("logs/*.log");
    for name in ["renamed", "moved", "deleted"] {
        stage.append(format!("logs/{name}.log"), format!("{name} 1\n{name} rest"));
    }
    stage.append("logs/stays.log", "stays 1\nstays rest");
    fs::create_dir(stage.scene.path("old")).unwrap();
    stage.settle();
    stage.rename("logs/renamed.log", "logs/renamed.log.1");
    stage.append("logs/renamed.log", "renamed 2\n");
    stage.rename("logs/moved.log", "old/moved.log");
    stage.remove("logs/deleted.log");
    stage.expect_groups(&[
        &["renamed 1", "renamed rest"],
        &["renamed 2"],
        &["moved 1", "moved rest"],
        &["deleted 1", "deleted rest"],
        &["stays 1"],
    ]);
}

#[test]
fn overlong_line_is_split_and_neighbours_are_intact() {
    const LINE_BYTES: usize = 24 << 20;
    const MAX_LINE_BYTES: usize = 256 << 10;
    let mut stage = Stage::new("overlong_line_is_split_and_neighbours_are_intact");
    let max_line_bytes = i64::try_from(MAX_LINE_BYTES).unwrap();
    stage.config().source("app", "logs/app.log").with("max_line_bytes", max_line_bytes).write();
    stage.start();
    let line = "0123456789 caf\u{e9} ".repeat(LINE_BYTES / 17);
    stage.append("logs/app.log", "before\n");
    stage.settle();
    let memory_kb = stage.memory_kb("VmHWM");
    let (one, other) = line.as_bytes().split_at(LINE_BYTES / 3);
    stage.append("logs/app.log", one);
    stage.settle();
    stage.append("logs/app.log", other);
    stage.append("logs/app.log", "\nafter\nend");
    let pieces = line.len().div_ceil(MAX_LINE_BYTES);
    wait_for(PATIENCE, "the line is stored", || stage.stored("app").len() >= 2 + pieces);
    stage.settle();
    let stored = stage.stored("app");
    let Some(([first, last], pieces)) = stored.split_first().and_then(|(first, rest)| {
        let (last, pieces) = rest.split_last()?;
        Some(([first, last], pieces))
    }) else {
        panic!("too few events");
    };
    assert_eq!((first.as_str(), last.as_str()), ("before", "after"));
    assert!(pieces.concat() == line, "not the line that was written");
    assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE_BYTES));
    let grown_kb = stage.memory_kb("VmHWM") - memory_kb;
    assert!(
        grown_kb < LINE_BYTES as u64 / 1024,
        "memory grew by {grown_kb} kB with a line of {LINE_BYTES} bytes"
    );
}

#[test]
fn invalid_utf8_is_replaced_not_dropped() {
    let mut stage = Stage::new("invalid_utf8_is_replaced_not_dropped").follow("logs/app.log");
    stage.append("logs/app.log", b"a\xffb\n\xc3\n\xed\xa0\x80 surrogate\nnul \0 and \x1b\n\xef\xbf\xbd\n");
    stage.expect(&[
        "a\u{fffd}b",
        "\u{fffd}",
        "\u{fffd}\u{fffd}\u{fffd} surrogate",
        "nul \0 and \u{1b}",
        "\u{fffd}",
    ]);
}

#[test]
fn many_small_files_at_start() {
    let mut stage = Stage::new("many_small_files_at_start");
    let lines = numbered("file", 0..2000);
    for (number, line) in lines.iter().enumerate() {
        stage.append(format!("logs/{:02}/{number:04}.log", number % 20), format!("{line}\n"));
    }
    stage = stage.follow("logs/*/*.log");
    let groups: Vec<&[String]> = lines.chunks(1).collect();
    stage.expect_groups(&groups);
}

#[test]
fn hard_links_to_one_file_are_one_file() {
    let mut stage = Stage::new("hard_links_to_one_file_are_one_file").follow("logs/**/*.log");
    stage.append("logs/a.log", "1\n");
    stage.settle();
    fs::create_dir(stage.scene.path("logs/deep")).unwrap();
    for link in ["logs/b.log", "logs/deep/c.log"] {
        fs::hard_link(stage.scene.path("logs/a.log"), stage.scene.path(link)).unwrap();
    }
    std::os::unix::fs::symlink(stage.scene.path("logs/a.log"), stage.scene.path("logs/link.log")).unwrap();
    for (path, line) in [("a.log", "2\n"), ("b.log", "3\n"), ("deep/c.log", "4\n"), ("link.log", "5\n")] {
        stage.append(Path::new("logs").join(path), line);
    }
    stage.expect(&["1", "2", "3", "4", "5"]);
    // Losing the name under which it is read takes nothing away.
    stage.remove("logs/a.log");
    stage.append("logs/deep/c.log", "6\n");
    stage.expect(&["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn same_file_in_two_sources_is_delivered_for_both() {
    let mut stage = Stage::new("same_file_in_two_sources_is_delivered_for_both");
    stage.config().source("app", "logs/app.log").source("all", "logs/*.log").write();
    stage.start();
    stage.append("logs/app.log", "1\n");
    stage.expect(&["1"]);
    stage.expect_of("all", &["1"]);
    stage.rename("logs/app.log", "logs/old.log");
    stage.append("logs/old.log", "2\n");
    stage.append("logs/app.log", "3\n");
    stage.expect(&["1", "2", "3"]);
    let stored = stage.stored("all");
    assert_eq!(stored.len(), 3, "{stored:?}");
}

#[test]
fn new_file_in_a_new_directory_matched_by_a_glob() {
    let mut stage = Stage::new("new_file_in_a_new_directory_matched_by_a_glob");
    stage
        .config()
        .source("app", "logs/*/app.log")
        .source("deep", "deep/**/*.log")
        .source("later", "not/there/yet/*.log")
        .write();
    stage.start();
    stage.settle();
    let lines = numbered("line", 0..10);
    for (number, line) in lines.iter().enumerate() {
        stage.append(format!("logs/{number}/app.log"), format!("{line}\n"));
        stage.append(format!("logs/{number}/other.log"), "other\n");
        stage.append(format!("deep/{number}/{number}/x.log"), format!("{line}\n"));
    }
    stage.append("not/there/yet/a.log", "later\n");
    let groups: Vec<&[String]> = lines.chunks(1).collect();
    stage.expect_groups(&groups);
    wait_for(PATIENCE, "the deep files are stored", || stage.stored("deep").len() >= lines.len());
    stage.expect_of("later", &["later"]);
    let mut deep = stage.stored("deep");
    deep.sort_unstable();
    assert_eq!(deep, lines);
}

#[test]
fn start_at_end_skips_existing_content_but_not_files_that_appear_later() {
    let mut stage = Stage::new("start_at_end_skips_existing_content_but_not_files_that_appear_later");
    stage.append("logs/a.log", "a skipped\na 1, begun before");
    stage.config().source("app", "logs/*.log").with("start_at", "end").write();
    stage.start();
    stage.settle();
    stage.append("logs/a.log", " and completed\na 2\n");
    stage.append("logs/b.log", "b 1\nb 2\n");
    let a = ["a 1, begun before and completed", "a 2"];
    stage.expect_groups(&[&a, &["b 1", "b 2"]]);
    // It is about the first start alone.
    stage.stop();
    stage.append("logs/a.log", "a 3\n");
    stage.append("logs/c.log", "c 1\n");
    stage.start();
    stage.expect_groups(&[&[a[0], a[1], "a 3"], &["b 1", "b 2"], &["c 1"]]);
}

#[test]
fn busy_file_does_not_starve_a_quiet_one() {
    let mut stage = Stage::new("busy_file_does_not_starve_a_quiet_one");
    let busy: Vec<String> = (0..12_000).map(|number| format!("busy {number} {}", "x".repeat(1000))).collect();
    stage.append("logs/a-busy.log", text(&busy));
    stage.append("logs/z-quiet.log", "quiet\n");
    stage = stage.follow("logs/*.log");
    wait_for(PATIENCE, "all lines are stored", || stage.stored("app").len() > busy.len());
    let stored = stage.stored("app");
    let before = stored.iter().position(|line| line == "quiet").unwrap();
    assert!(before < busy.len() / 4, "the quiet file had to wait for {before} lines of the busy one");
    assert!(stored.iter().filter(|line| *line != "quiet").eq(&busy));
    stage.stop();
}

//! Files that are not plain UTF-8, and what stands before and between the lines.

use super::*;

/// Characters whose UTF-16 bytes hold a line feed where none is: U+0A05 before a character with a zero low byte has one
/// between two characters, U+0A0A has two in itself, U+010A has one in its low byte.
const NO_LINE_FEEDS: &str = "\u{a05}\u{100}\u{a0a}\u{10a}a\u{10a}";

fn utf16_le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf16_be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A stage that follows `logs/app.log` in this encoding.
fn in_encoding(name: &str, encoding: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.config().source("app", "logs/app.log").with("encoding", encoding).write();
    stage.start();
    stage
}

#[test]
fn bom_is_removed_once() {
    let mut stage = Stage::new("bom_is_removed_once").follow("logs/app.log");
    // Byte by byte, so that it is not taken for the beginning of a line before it is whole.
    for byte in [b"\xef", b"\xbb", b"\xbf"] {
        stage.append("logs/app.log", byte);
        stage.settle();
    }
    stage.append("logs/app.log", "1\n\u{feff}2\n");
    stage.expect(&["1", "\u{feff}2"]);
    stage.kill();
    stage.append("logs/app.log", "\u{feff}3\n");
    stage.start();
    stage.expect(&["1", "\u{feff}2", "\u{feff}3"]);
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log", "\u{feff}4\n");
    stage.expect(&["1", "\u{feff}2", "\u{feff}3", "4"]);
    stage.handle("logs/app.log").set_len(0).unwrap();
    stage.append("logs/app.log", "\u{feff}\n\u{feff}\n");
    stage.expect(&["1", "\u{feff}2", "\u{feff}3", "4", "", "\u{feff}"]);
}

#[test]
fn what_only_begins_like_a_bom_is_content() {
    let mut stage = Stage::new("what_only_begins_like_a_bom_is_content").follow("logs/*.log");
    stage.append("logs/a.log", b"\xef\xbba\n");
    stage.append("logs/b.log", b"\xefb\n");
    stage.append("logs/c.log", b"\xff\xfec\n");
    stage.expect_groups(&[&["\u{fffd}a"], &["\u{fffd}b"], &["\u{fffd}\u{fffd}c"]]);
}

#[test]
fn utf16_file_with_bom() {
    let mut stage = in_encoding("utf16_file_with_bom", "utf-16le");
    let mut expected = Vec::new();
    let lines = ["one", "", "caf\u{e9} \u{65e5}\u{672c}\u{8a9e}", "\u{1f600}", NO_LINE_FEEDS, "last"];
    stage.append("logs/app.log", b"\xff\xfe");
    stage.settle();
    for (number, line) in lines.iter().enumerate() {
        let ending = if number % 2 == 0 { "\n" } else { "\r\n" };
        let bytes = utf16_le(&format!("{line}{ending}"));
        // In two writes, the cut within a unit where there is one.
        let (one, other) = bytes.split_at((bytes.len() / 2) | 1);
        stage.append("logs/app.log", one);
        stage.expect(&expected);
        stage.append("logs/app.log", other);
        expected.push(*line);
        stage.expect(&expected);
    }
    stage.kill();
    stage.append("logs/app.log", utf16_le("after a restart\n"));
    stage.start();
    expected.push("after a restart");
    stage.expect(&expected);
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log", utf16_le("\u{feff}after a rotation\n"));
    expected.push("after a rotation");
    stage.expect(&expected);
}

#[test]
fn utf16_file_of_the_other_endianness() {
    let mut stage = in_encoding("utf16_file_of_the_other_endianness", "utf-16be");
    stage.append("logs/app.log", utf16_be(&format!("\u{feff}one\r\n{NO_LINE_FEEDS}\n\u{1f600}\n\n")));
    stage.expect(&["one", NO_LINE_FEEDS, "\u{1f600}", ""]);
    // A lone surrogate.
    stage.append("logs/app.log", b"\xd8\x00\0a\0\n");
    stage.append("logs/app.log", utf16_be("no BOM\n"));
    stage.expect(&["one", NO_LINE_FEEDS, "\u{1f600}", "", "\u{fffd}a", "no BOM"]);
}

#[test]
fn overlong_line_of_utf16_is_split_between_characters() {
    const NAME: &str = "overlong_line_of_utf16_is_split_between_characters";
    let mut stage = Stage::new(NAME);
    stage
        .config()
        .source("app", "logs/app.log")
        .with("encoding", "utf-16le")
        .with("max_line_bytes", 34)
        .write();
    stage.start();
    let line = format!("a{}", "\u{1f600}\u{a0a}\u{10a}".repeat(100));
    stage.append("logs/app.log", utf16_le(&format!("before\n{line}\nafter\n")));
    wait_for(PATIENCE, "the last line is stored", || {
        stage.stored("app").last().is_some_and(|line| line == "after")
    });
    stage.settle();
    let stored = stage.stored_events("app");
    let (first, pieces) = (&stored[0], &stored[1..stored.len() - 1]);
    assert_eq!(first.data, "before");
    assert_eq!(pieces.iter().map(|piece| piece.data.as_str()).collect::<String>(), line);
    assert!(pieces.iter().all(|piece| utf16_le(&piece.data).len() <= 34), "{pieces:#?}");
    let marks: Vec<bool> = pieces.iter().map(|piece| piece.continues).collect();
    assert!(
        marks.iter().rev().skip(1).all(|continues| *continues) && marks.last() == Some(&false),
        "{marks:?}"
    );
}

#[test]
fn latin1_file() {
    // As everyone who says latin1 means it: with the characters of Windows-1252 where ISO 8859-1 has none.
    let mut stage = in_encoding("latin1_file", "latin1");
    stage.append("logs/app.log", b"caf\xe9 \xdf\r\n\x80 5\n\xef\xbb\xbf\n");
    stage.expect(&["caf\u{e9} \u{df}", "\u{20ac} 5", "\u{ef}\u{bb}\u{bf}"]);
}

#[test]
fn shift_jis_file() {
    let mut stage = in_encoding("shift_jis_file", "shift_jis");
    // The second byte of the last character is a backslash; the last line ends in the middle of a character.
    stage.append("logs/app.log", b"\x93\xfa\x96\x7b\x8c\xea\n\x83\x5c\nhalf \x93\nnext\n");
    stage.expect(&["\u{65e5}\u{672c}\u{8a9e}", "\u{30bd}", "half \u{fffd}", "next"]);
}

#[test]
fn gb18030_line_in_two_writes_is_one_event() {
    let mut stage = in_encoding("gb18030_line_in_two_writes_is_one_event", "gb18030");
    // U+1F600 has four bytes.
    stage.append("logs/app.log", b"\xd6\xd0\xce\xc4 \x94\x39");
    stage.expect::<&str>(&[]);
    stage.append("logs/app.log", b"\xfc\x36\n");
    stage.expect(&["\u{4e2d}\u{6587} \u{1f600}"]);
}

#[test]
fn nul_runs_are_not_lines() {
    let mut stage = Stage::new("nul_runs_are_not_lines").follow("logs/app.log");
    // Not opened to append: after a truncation it goes on at its old offset, and leaves a hole before it.
    let path = stage.scene.path("logs/app.log");
    let mut file = File::options().create(true).write(true).truncate(false).open(&path).unwrap();
    let mut expected = Vec::new();
    for round in 0..4 {
        let lines = numbered(&format!("round {round} line"), 0..200 * (round + 1));
        let (one, other) = lines.split_at(100);
        file.write_all(text(one).as_bytes()).unwrap();
        stage.settle();
        file.write_all(text(other).as_bytes()).unwrap();
        expected.extend(lines);
        stage.expect(&expected);
        file.set_len(0).unwrap();
        if round == 2 {
            stage.kill();
            stage.start();
        }
    }
    // Within a line they are content.
    file.write_all(b"a\0\0b\0\n").unwrap();
    expected.push("a\0\0b\0".to_owned());
    stage.expect(&expected);
}

#[test]
fn long_hole_passes_through_without_being_held() {
    const HOLE_BYTES: u64 = 96 << 20;
    let mut stage = Stage::new("long_hole_passes_through_without_being_held").follow("logs/app.log");
    stage.append("logs/app.log", "before\n");
    stage.expect(&["before"]);
    let memory_kb = stage.memory_kb("VmHWM");
    stage.handle("logs/app.log").set_len(HOLE_BYTES).unwrap();
    stage.append("logs/app.log", "after\n");
    stage.expect(&["before", "after"]);
    let grown_kb = stage.memory_kb("VmHWM") - memory_kb;
    assert!(grown_kb < HOLE_BYTES / 1024 / 4, "memory grew by {grown_kb} kB");
}

//! Files that are renamed, truncated, deleted and replaced while they are followed.

use std::time::Duration;

use super::*;

#[test]
fn rename_and_create() {
    let mut stage = Stage::new("rename_and_create").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    writer.append(100);
    writer.rotate();
    writer.append(100);
    stage.expect_written(&[&writer]);
}

#[test]
fn rename_and_create_ten_times_a_second_under_load() {
    const ROTATIONS: usize = 40;
    let mut stage = Stage::new("rename_and_create_ten_times_a_second_under_load").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    // What was rotated away before the agent first looked was never followed.
    stage.settle();
    for _ in 0..ROTATIONS {
        for _ in 0..20 {
            writer.append(10);
            // The pace of the writer; nothing waits for the agent.
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.rotate();
    }
    writer.append(10);
    stage.expect_written(&[&writer]);
}

#[test]
fn rename_then_late_writes_to_the_old_file() {
    let mut stage = Stage::new("rename_then_late_writes_to_the_old_file").follow("logs/app.log");
    let mut old = stage.handle("logs/app.log");
    let late = numbered("old", 0..21);
    let new = numbered("new", 0..21);
    writeln!(old, "{}", late[0]).unwrap();
    stage.settle();
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log", format!("{}\n", new[0]));
    for (late, new) in late.iter().zip(&new).skip(1) {
        writeln!(old, "{late}").unwrap();
        stage.append("logs/app.log", format!("{new}\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.expect_groups(&[&late, &new]);
}

#[test]
fn two_rotations_while_reading_is_blocked() {
    let mut stage = Stage::new("two_rotations_while_reading_is_blocked");
    stage
        .config()
        .global("max_spool_bytes", "1 MiB")
        .global("segment_bytes", "64 KiB")
        .source("app", "logs/app.log")
        .write();
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    stage.start();
    stage.settle();
    stage.collector.kill();
    writer.append(30_000);
    wait_for(PATIENCE, "reading pauses", || stage.messages().contains("reading pauses"));
    writer.append(1000);
    writer.rotate();
    writer.append(1000);
    writer.rotate();
    writer.append(1000);
    stage.collector.restart();
    stage.expect_written(&[&writer]);
    assert!(stage.messages().contains("reading goes on"));
}

#[test]
fn rotated_name_inside_the_glob_is_not_read_again() {
    let mut stage = Stage::new("rotated_name_inside_the_glob_is_not_read_again").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for _ in 0..5 {
        writer.append(20);
        stage.settle();
        writer.rotate();
        writer.append(20);
    }
    stage.expect_written(&[&writer]);
    // Nor after a restart, when the names are all that has changed.
    stage.stop();
    writer.rotate();
    writer.append(20);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn truncate_to_zero_and_write() {
    let mut stage = Stage::new("truncate_to_zero_and_write").follow("logs/app.log");
    let file = stage.handle("logs/app.log");
    let mut expected = Vec::new();
    for round in 0..5 {
        file.set_len(0).unwrap();
        let lines = numbered(&format!("round {round} line"), 0..10 - round);
        stage.append("logs/app.log", text(&lines));
        expected.extend(lines);
        stage.expect(&expected);
    }
}

#[test]
fn truncate_and_write_more_than_before() {
    let mut stage = Stage::new("truncate_and_write_more_than_before").follow("logs/app.log");
    let file = stage.handle("logs/app.log");
    let mut expected = Vec::new();
    for round in 0..5 {
        let lines = numbered(&format!("round {round} line"), 0..100 * (round + 1));
        // The head stays the same, and the size only ever grows, as far as a look can tell.
        let whole = format!("head of every file\n{}", text(&lines));
        file.set_len(0).unwrap();
        stage.append("logs/app.log", whole);
        expected.push("head of every file".to_owned());
        expected.extend(lines);
        stage.expect(&expected);
    }
}

#[test]
fn copytruncate_delivers_each_line_once() {
    let mut stage = Stage::new("copytruncate_delivers_each_line_once").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for _ in 0..5 {
        writer.append(200);
        stage.settle();
        writer.copytruncate();
    }
    writer.append(200);
    stage.expect_written(&[&writer]);
}

#[test]
fn delete_and_recreate_same_name() {
    // The file system of temporary files gives a freed inode to the next file.
    let mut stage = Stage::new("delete_and_recreate_same_name").follow("logs/app.log");
    recreate(&mut stage, "logs/app.log");
}

#[test]
fn delete_and_recreate_same_name_on_tmpfs() {
    let Ok(dir) = tempfile::Builder::new().prefix("log-agent-test-").tempdir_in("/dev/shm") else {
        return skip("delete_and_recreate_same_name_on_tmpfs", "/dev/shm cannot be written to");
    };
    let path = dir.path().join("app.log");
    let mut stage = Stage::new("delete_and_recreate_same_name_on_tmpfs").follow(path.to_str().unwrap());
    recreate(&mut stage, path.to_str().unwrap());
}

/// Deletes a file and creates it again, with content that differs late, early, in length or not at all.
fn recreate(stage: &mut Stage, path: &str) {
    let long = "the same beginning ".repeat(100);
    let contents = [
        format!("{long}\n1\n"),
        format!("{long}\n2\n"),
        format!("{long}\n2\n"),
        format!("other\n{long}\n2\n"),
        "short\n".to_owned(),
        "short\n".to_owned(),
        format!("short\n{long}\n{long}\n"),
    ];
    let mut expected: Vec<String> = Vec::new();
    for content in contents {
        let _ = fs::remove_file(stage.scene.path(path));
        stage.append(path, &content);
        expected.extend(content.lines().map(str::to_owned));
        stage.expect(&expected);
    }
}

#[test]
fn deleted_file_is_read_to_its_end_and_released() {
    let mut stage = Stage::new("deleted_file_is_read_to_its_end_and_released").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(10);
    stage.settle();
    assert!(stage.descriptors().iter().any(|path| path.ends_with("/logs/app.log")));
    writer.append(2000);
    stage.remove("logs/app.log");
    // Its writer does not know yet.
    writer.append(2000);
    stage.expect_written(&[&writer]);
    wait_for(PATIENCE, "the deleted file is released", || {
        !stage.descriptors().iter().any(|path| path.contains("app.log"))
    });
}

#[test]
fn symlink_to_a_new_target() {
    let mut stage = Stage::new("symlink_to_a_new_target").follow("logs/current");
    stage.append("elsewhere/1.log", "1 a\n");
    stage.append("elsewhere/2.log", "2 a\n");
    let link = |stage: &Stage, target: &str| {
        let (target, link) = (stage.scene.path(target), stage.scene.path("logs/new-link"));
        std::os::unix::fs::symlink(target, &link).unwrap();
        fs::rename(link, stage.scene.path("logs/current")).unwrap();
    };
    link(&stage, "elsewhere/1.log");
    stage.expect(&["1 a"]);
    stage.append("elsewhere/1.log", "1 b\n");
    stage.expect(&["1 a", "1 b"]);
    link(&stage, "elsewhere/2.log");
    stage.append("elsewhere/2.log", "2 b\n");
    stage.expect(&["1 a", "1 b", "2 a", "2 b"]);
    // Its writer comes later to where the link is than the link itself.
    stage.append("elsewhere/1.log", "1 c\n");
    stage.append("elsewhere/2.log", "2 c\n");
    stage.expect_groups(&[&["1 a", "1 b", "1 c"], &["2 a", "2 b", "2 c"]]);
}

//! Names that are no text, and names that lead to the same file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// Follows files of these names through rounds of appending and restarting.
fn follow_named(stage: &mut Stage, names: &[&[u8]]) {
    let paths: Vec<PathBuf> =
        names.iter().map(|name| Path::new("logs").join(OsString::from_vec(name.to_vec()))).collect();
    let lines: Vec<Vec<String>> =
        (0..names.len()).map(|number| numbered(&format!("file {number} line"), 0..4)).collect();
    for round in 0..4 {
        for (path, lines) in paths.iter().zip(&lines) {
            stage.append(path, format!("{}\n", lines[round]));
        }
        let groups: Vec<&[String]> = lines.iter().map(|lines| &lines[..=round]).collect();
        stage.expect_groups(&groups);
        if round == 2 {
            // Rotated while nobody looks, so that the name has to be remembered.
            stage.stop();
            for path in &paths {
                let mut rotated = stage.scene.path(path).into_os_string();
                rotated.push(".1");
                fs::rename(stage.scene.path(path), rotated).unwrap();
            }
        } else {
            stage.kill();
        }
        stage.start();
    }
    stage.settle();
}

#[test]
fn file_name_not_utf8() {
    let mut stage = Stage::new("file_name_not_utf8").follow("logs/*.log");
    follow_named(&mut stage, &[b"caf\xe9.log", b"\xff\xfe\x80.log", b" \t*[x]'\"\\.log"]);
}

#[test]
fn file_name_with_newline() {
    let mut stage = Stage::new("file_name_with_newline").follow("logs/*.log");
    follow_named(&mut stage, &[b"two\nlines.log", b"\n.log", b"ends with\r\n.log"]);
    let said = stage.messages();
    let is_message = |line: &str| line.starts_with("20") && line.contains(" log_agent");
    assert!(said.lines().all(is_message), "a name breaks a message: {said}");
}

#[test]
fn overlapping_globs_of_one_source_read_a_file_once() {
    let mut stage = Stage::new("overlapping_globs_of_one_source_read_a_file_once");
    stage.append("logs/app.log", "app 1\n");
    stage.append("logs/deep/deep/app.log", "deep 1\n");
    let config = stage.config().source("app", "logs/**/**/{*.log,app*,{a,d}*.*}");
    config.write();
    stage.start();
    stage.append("logs/app.log", "app 2\n");
    stage.append("logs/deep/deep/app.log", "deep 2\n");
    stage.append("logs/app-2", "other 1\n");
    stage.expect_groups(&[&["app 1", "app 2"], &["deep 1", "deep 2"], &["other 1"]]);
    stage.stop();
    stage.append("logs/app.log", "app 3\n");
    stage.start();
    stage.expect_groups(&[&["app 1", "app 2", "app 3"], &["deep 1", "deep 2"], &["other 1"]]);
}

#[test]
fn exclude_wins_over_include() {
    let mut stage = Stage::new("exclude_wins_over_include");
    stage
        .config()
        .source("app", "logs/**/*.log*")
        .with("exclude", vec!["logs/**/*.gz", "logs/debug*.log", "logs/private/**/*", "logs/./*.1"])
        .write();
    stage.append("logs/app.log", "app 1\n");
    stage.append("logs/debug-app.log", "excluded\n");
    stage.start();
    stage.append("logs/private/app.log", "excluded\n");
    stage.append("logs/private/deep/app.log", "excluded\n");
    stage.append("logs/public/debug.log", "public 1\n");
    stage.append("logs/app.log.2.gz", "excluded\n");
    stage.expect_groups(&[&["app 1"], &["public 1"]]);
    // What is followed is read to its end under an excluded name as well.
    stage.freeze();
    stage.append("logs/app.log", "app 2\n");
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log.1", "app 3\n");
    stage.append("logs/app.log", "app 4\n");
    stage.thaw();
    let app = ["app 1", "app 2", "app 3", "app 4"];
    stage.expect_groups(&[&app, &["public 1"]]);
    // Also where the rename was not seen.
    stage.stop();
    stage.append("logs/app.log", "app 5\n");
    stage.remove("logs/app.log.1");
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.start();
    stage.expect_groups(&[&[app[0], app[1], app[2], app[3], "app 5"], &["public 1"]]);
    // And an excluded file that gets a name that is not is a new one.
    stage.rename("logs/private/app.log", "logs/shown.log");
    stage.expect_groups(&[&[app[0], app[1], app[2], app[3], "app 5"], &["public 1"], &["excluded"]]);
}

#[test]
fn symlink_removed() {
    let mut stage = Stage::new("symlink_removed").follow("logs/current");
    let (target, link) = (stage.scene.path("elsewhere/1.log"), stage.scene.path("logs/current"));
    stage.append("elsewhere/1.log", "1\n");
    symlink(&target, &link).unwrap();
    stage.expect(&["1"]);
    stage.remove("logs/current");
    // Its writer does not know of the link.
    stage.append("elsewhere/1.log", "2\n");
    stage.expect(&["1", "2"]);
    // It comes back, and nothing is read again.
    symlink(&target, &link).unwrap();
    stage.append("elsewhere/1.log", "3\n");
    stage.expect(&["1", "2", "3"]);
    // Both are gone, and so is the descriptor.
    stage.append("elsewhere/1.log", "4\n");
    stage.remove("logs/current");
    stage.remove("elsewhere/1.log");
    stage.expect(&["1", "2", "3", "4"]);
    wait_for(PATIENCE, "the file is released", || {
        !stage.descriptors().iter().any(|path| path.contains("elsewhere/1.log"))
    });
}

#[test]
fn symlink_loop() {
    let mut stage = Stage::new("symlink_loop");
    stage.append("logs/deep/app.log", "1\n");
    symlink(stage.scene.path("logs"), stage.scene.path("logs/deep/up")).unwrap();
    symlink("self", stage.scene.path("logs/self")).unwrap();
    symlink("pong.log", stage.scene.path("logs/ping.log")).unwrap();
    symlink("ping.log", stage.scene.path("logs/pong.log")).unwrap();
    stage
        .config()
        .source("app", "logs/**/*.log")
        .source("one", "logs/*/*/*/*.log")
        .source("self", "logs/self/*.log")
        .write();
    stage.start();
    stage.append("logs/deep/app.log", "2\n");
    stage.expect(&["1", "2"]);
    // `logs/deep/up/deep/app.log`, which a pattern that spells out its directories leads to.
    stage.expect_of("one", &["1", "2"]);
    stage.stop();
    stage.append("logs/deep/app.log", "3\n");
    stage.start();
    stage.expect(&["1", "2", "3"]);
    stage.expect_of("one", &["1", "2", "3"]);
}

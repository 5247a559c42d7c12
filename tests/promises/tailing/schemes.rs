//! How files are named when they are rotated away, and where they go.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng as _;

use super::*;
use crate::common::{Fault, FaultProxy, Load, Rhythm};

#[test]
fn numbered_scheme_three_generations() {
    let mut stage = Stage::new("numbered_scheme_three_generations").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(50);
    for round in 0..8 {
        writer.append(50);
        stage.expect_written(&[&writer]);
        match round {
            3 | 6 => stage.kill(),
            4 => stage.stop(),
            _ => {}
        }
        writer.append(50);
        // The oldest goes, and its inode to the next file.
        let _ = fs::remove_file(writer.rotated(3));
        for number in [2, 1] {
            let _ = fs::rename(writer.rotated(number), writer.rotated(number + 1));
        }
        let youngest = writer.rotated(1);
        writer.rotate_to(&youngest);
        writer.append(50);
        if stage.agent.is_none() {
            stage.start();
        }
    }
    stage.expect_written(&[&writer]);
}

#[test]
fn dated_scheme() {
    let mut stage = Stage::new("dated_scheme").follow("logs/*.log");
    let mut app = Writer::new(&stage.scene, "app", "logs/app.log");
    let mut web = Writer::new(&stage.scene, "app", "logs/web.log");
    app.append(50);
    web.append(50);
    stage.settle();
    for day in 1..=6 {
        app.append(50);
        web.append(50);
        let down = day % 3 == 0;
        if down {
            stage.kill();
            app.append(50);
            web.append(50);
        }
        // The one leaves the glob, the other stays in it.
        app.rotate_to(&stage.scene.path(format!("logs/app.log-2024010{day}")));
        web.rotate_to(&stage.scene.path(format!("logs/web-2024-01-0{day}.log")));
        app.append(50);
        web.append(50);
        if down {
            stage.start();
        }
        stage.expect_written(&[&app, &web]);
    }
}

#[test]
fn writer_begins_a_file_a_day() {
    let mut stage = Stage::new("writer_begins_a_file_a_day").follow("logs/app-*.log");
    let mut days: Vec<Writer> = Vec::new();
    for day in 1..=5 {
        if day == 4 {
            stage.stop();
        }
        days.push(Writer::new(&stage.scene, "app", &format!("logs/app-2024-01-0{day}.log")));
        for writer in days.iter_mut().rev().take(2) {
            // Yesterday's gets its last lines today.
            writer.append(30);
        }
        if day == 4 {
            stage.start();
        }
    }
    let days: Vec<&Writer> = days.iter().collect();
    stage.expect_written(&days);
}

#[test]
fn cyclic_names() {
    let mut stage = Stage::new("cyclic_names").follow("logs/*.log");
    let names = ["a", "b", "c"];
    let mut lines: Vec<Vec<String>> = vec![Vec::new(); 3];
    for round in 0..9 {
        for (file, lines) in lines.iter_mut().enumerate() {
            // File 0 begins as a, and each round is called by the next name.
            let name = names[(file + round) % 3];
            let new = numbered(&format!("file {file} line"), 10 * round..10 * (round + 1));
            stage.append(format!("logs/{name}.log"), text(&new));
            lines.extend(new);
        }
        if round % 2 == 0 {
            stage.settle();
        }
        let down = round % 4 == 3;
        if down {
            stage.kill();
        }
        stage.rename("logs/c.log", "logs/spare");
        stage.rename("logs/b.log", "logs/c.log");
        stage.rename("logs/a.log", "logs/b.log");
        stage.rename("logs/spare", "logs/a.log");
        if down {
            stage.start();
        }
        let groups: Vec<&[String]> = lines.iter().map(Vec::as_slice).collect();
        stage.expect_groups(&groups);
    }
}

#[test]
fn rename_out_of_the_directory() {
    let mut stage = Stage::new("rename_out_of_the_directory").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for number in 0..4 {
        writer.append(100);
        stage.settle();
        stage.freeze();
        writer.append(1000);
        let to = stage.scene.path(format!("archive/of/{number}.log"));
        writer.move_to(&to);
        // Its writer keeps it for a while.
        writer.append(1000);
        stage.thaw();
        stage.expect_written(&[&writer]);
        writer.append(10);
        stage.expect_written(&[&writer]);
        writer.reopen();
        writer.append(100);
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn file_made_some_time_after_the_rename_does_not_wait_until_the_old_one_is_finished() {
    const NAME: &str = "file_made_some_time_after_the_rename_does_not_wait_until_the_old_one_is_finished";
    let mut stage = Stage::new(NAME).follow("logs/app.log");
    stage.append("logs/app.log", "1\n");
    stage.expect(&["1"]);
    stage.rename("logs/app.log", "logs/app.log.1");
    stage.append("logs/app.log.1", "2\n");
    stage.expect(&["1", "2"]);
    // The old one has been read to its end and may be written to for some seconds more; that is its own affair.
    stage.append("logs/app.log", "3\n");
    stage.settle();
    // One may be in the same turn, after the mark.
    stage.settle();
    assert_eq!(stage.stored("app"), ["1", "2", "3"]);
}

/// Rotates to `to` while no agent runs, several times.
fn follow_moves_while_down(name: &str, to: impl Fn(&Stage, u32) -> PathBuf) {
    let mut stage = Stage::new(name).follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    for number in 0..3 {
        if number % 2 == 0 {
            stage.kill()
        } else {
            stage.stop()
        }
        writer.append(100);
        writer.rotate_to(&to(&stage, number));
        writer.append(100);
        stage.start();
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn moved_while_down() {
    follow_moves_while_down("moved_while_down", |stage, number| {
        stage.scene.path(format!("logs/old/app.log.{number}"))
    });
}

#[test]
fn moved_to_a_directory_beside_while_down() {
    follow_moves_while_down("moved_to_a_directory_beside_while_down", |stage, number| {
        stage.scene.path(format!("archive/app.log-2024010{number}"))
    });
}

#[test]
fn moved_and_compressed_while_down() {
    let mut stage = Stage::new("moved_and_compressed_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.kill();
    writer.append(100);
    let to = stage.scene.path("logs/old/app.log.1");
    writer.rotate_to(&to);
    compress(&to);
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn killed_during_rotation_with_a_slow_server() {
    const LIVES: u32 = 24;
    let mut stage = Stage::new("killed_during_rotation_with_a_slow_server");
    let proxy = FaultProxy::before(&stage.collector);
    // The pace of the server; nothing waits for the agent.
    proxy.script(|_| {
        std::thread::sleep(Duration::from_millis(40));
        Fault::Pass
    });
    let config = stage.config().end_point(proxy.url()).global("max_batch_size", 50);
    config.source("app", "logs/app.log").write();
    let writer = Writer::new(&stage.scene, "app", "logs/app.log");
    let mut rng = stage.scene.rng("kills");
    let load = Load::start(&stage.scene, writer, Rhythm::BRISK.up_to(20_000));
    stage.start();
    wait_for(PATIENCE, "the file has been seen", || !stage.stored("app").is_empty());
    for _ in 0..LIVES {
        let written = load.written();
        load.rotate();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        stage.kill();
        // Each generation has lines, and a life that sees it.
        wait_for(PATIENCE, "the writer has rotated and goes on", || load.written() > written + 24);
        stage.start();
        stage.agent().await_started();
        stage.agent().await_said("following");
    }
    let writer = load.stop();
    proxy.heal();
    stage.expect_written(&[&writer]);
}

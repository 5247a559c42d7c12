//! Long files, long lines, many files, and the limits of the system.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::*;
use crate::common::Clock;

#[test]
fn line_longer_than_every_buffer() {
    const LINE_BYTES: usize = 10 << 20;
    let mut stage = Stage::new("line_longer_than_every_buffer");
    stage
        .config()
        .global("max_batch_bytes", "64 KiB")
        .source("app", "logs/app.log")
        .with("max_line_bytes", "16 MiB")
        .write();
    stage.start();
    let line = "caf\u{e9} 0123456789 ".repeat(LINE_BYTES / 17);
    stage.append("logs/app.log", "before\n");
    // In pieces that are no divisor of anything.
    for piece in line.as_bytes().chunks(1_234_567) {
        stage.append("logs/app.log", piece);
        stage.settle();
    }
    stage.expect(&["before"]);
    stage.kill();
    stage.append("logs/app.log", "\nafter\n");
    stage.start();
    stage.expect(&["before", &line, "after"]);
    // And in one.
    stage.append("logs/app.log", format!("{line}\n"));
    stage.expect(&["before", &line, "after", &line]);
}

#[test]
fn two_gib_boundary() {
    let mut stage = Stage::new("two_gib_boundary");
    stage.config().source("app", "logs/*.log").with("start_at", "end").write();
    let boundaries = [("two", 1_u64 << 31), ("four", 1 << 32)];
    let path = |stage: &Stage, name: &str| stage.scene.path(format!("logs/{name}.log"));
    let mut groups: Vec<Vec<String>> = Vec::new();
    // The hole takes no space, and what is before the end when it is first seen is skipped.
    for (name, boundary) in boundaries {
        stage.append(format!("logs/{name}.log"), "");
        let file = File::options().write(true).open(path(&stage, name)).unwrap();
        file.write_all_at(b"skipped\n", boundary - 28).unwrap();
        groups.push(Vec::new());
    }
    stage.start();
    stage.settle();
    for life in 0..3 {
        for ((name, _), lines) in boundaries.iter().zip(&mut groups) {
            // The first line crosses the boundary, beginning 20 bytes before it.
            let new = numbered(&format!("{name}, past the boundary, line"), 10 * life..10 * (life + 1));
            stage.append(format!("logs/{name}.log"), text(&new));
            lines.extend(new);
        }
        let shown: Vec<&[String]> = groups.iter().map(Vec::as_slice).collect();
        stage.expect_groups(&shown);
        if life % 2 == 0 {
            stage.kill()
        } else {
            stage.stop()
        }
        if life == 1 {
            for (name, _) in boundaries {
                stage.rename(&format!("logs/{name}.log"), &format!("logs/{name}-1.log"));
            }
            for ((name, _), lines) in boundaries.iter().zip(&mut groups) {
                stage.append(format!("logs/{name}-1.log"), format!("{name} renamed\n"));
                lines.push(format!("{name} renamed"));
            }
        }
        stage.start();
    }
    // A hole after the boundary is no line.
    let (name, _) = boundaries[1];
    let end = fs::metadata(path(&stage, "four-1")).unwrap().len();
    stage.handle("logs/four-1.log").set_len(end + (24 << 20)).unwrap();
    stage.append("logs/four-1.log", format!("{name} after the hole\n"));
    groups[1].push(format!("{name} after the hole"));
    let shown: Vec<&[String]> = groups.iter().map(Vec::as_slice).collect();
    stage.expect_groups(&shown);
}

#[test]
fn file_grows_past_the_head_hash_length() {
    let mut stage = Stage::new("file_grows_past_the_head_hash_length").follow("logs/*.log");
    let mut writers = ["logs/a.log", "logs/b.log"].map(|path| Writer::new(&stage.scene, "app", path));
    // Past 1 KiB in steps of some lines, with every way in which the agent may come back to the file.
    for step in 0..12 {
        for writer in &mut writers {
            writer.append_line(&"x".repeat(30 + step));
            writer.append_partial();
        }
        stage.settle();
        match step % 4 {
            0 => stage.stop(),
            1 => stage.kill(),
            _ => {}
        }
        for writer in &mut writers {
            writer.finish_line();
            writer.append_line(&"y".repeat(97));
        }
        if stage.agent.is_none() {
            stage.start();
        }
        stage.expect_written(&[&writers[0], &writers[1]]);
    }
    assert!(fs::metadata(writers[0].path()).unwrap().len() > 2048);
}

#[test]
fn notification_limit_reached() {
    const NAME: &str = "notification_limit_reached";
    // In a user namespace of its own the agent can be given few watches.
    const LIMIT: &str = "echo 4 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let limit = ["--user", "--map-root-user", "sh", "-c", LIMIT];
    let mut stage = Stage::new(NAME);
    let can_limit =
        Command::new("unshare").args(limit).arg("true").output().is_ok_and(|output| output.status.success());
    if !can_limit {
        return skip(NAME, "no user namespaces, so watches cannot be limited");
    }
    stage.config().source("app", "logs/*/*.log").write();
    let mut writers: Vec<Writer> =
        (0..8).map(|number| Writer::new(&stage.scene, "app", &format!("logs/{number}/app.log"))).collect();
    writers.iter_mut().for_each(|writer| writer.append(20));
    stage.start_with(|command| through(command, "unshare", limit));
    // What is rotated away before anybody saw it was not followed.
    stage.expect_written(&writers.iter().collect::<Vec<_>>());
    for round in 0..4 {
        for writer in &mut writers {
            writer.append(20);
        }
        if round == 1 {
            // In a directory that nothing watches.
            writers.push(Writer::new(&stage.scene, "app", "logs/new/app.log"));
        }
        // With one round unread, and one read.
        if round % 2 == 1 {
            stage.expect_written(&writers.iter().collect::<Vec<_>>());
        }
        for writer in &mut writers {
            writer.append(20);
            writer.rotate();
            writer.append(20);
        }
        stage.expect_written(&writers.iter().collect::<Vec<_>>());
    }
    let said = stage.messages();
    assert!(said.contains("the limit of watches is reached"), "{said}");
}

#[test]
fn notification_queue_overflow() {
    const NAME: &str = "notification_queue_overflow";
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let Some(limit) = limit.trim().parse::<usize>().ok().filter(|limit| *limit <= 100_000) else {
        return skip(NAME, "too many events fit into the queue of notifications");
    };
    let mut stage = Stage::new(NAME).follow("logs/**/*.log");
    let mut writers =
        ["logs/a.log", "logs/b.log", "logs/c.log"].map(|path| Writer::new(&stage.scene, "app", path));
    writers.iter_mut().for_each(|writer| writer.append(10));
    stage.settle();
    stage.freeze();
    let fill = |stage: &Stage| {
        // Each of another file than the one before, so that none is merged with it.
        let files = [0, 1].map(|number| stage.handle(format!("logs/noise-{number}.log")));
        for number in 0..=limit {
            (&files[number % 2]).write_all(b"\n").unwrap();
        }
    };
    fill(&stage);
    // Nothing of this is in the queue.
    writers[0].append(10);
    writers[1].append(10);
    writers[1].rotate();
    writers[1].append(10);
    fs::create_dir(stage.scene.path("logs/new")).unwrap();
    let mut new = Writer::new(&stage.scene, "app", "logs/new/d.log");
    new.append(10);
    writers[2].append(10);
    fs::remove_file(writers[2].path()).unwrap();
    writers[2].reopen();
    writers[2].append(10);
    stage.thaw();
    let blank = limit + 1;
    let written: u64 = writers.iter().chain([&new]).map(Writer::count).sum();
    let awaited = written + blank as u64;
    wait_for(PATIENCE, "everything is stored", || stage.stored("app").len() as u64 >= awaited);
    stage.settle();
    let stored = stage.stored_events("app");
    assert_eq!(stored.iter().filter(|event| event.data.is_empty()).count(), blank);
    for writer in writers.iter().chain([&new]) {
        let prefix = format!("{} ", writer.name());
        let of_writer: Vec<&str> =
            stored.iter().map(|event| event.data.as_str()).filter(|line| line.starts_with(&prefix)).collect();
        assert_eq!(of_writer, writer.lines(), "{}", writer.name());
    }
    assert_eq!(stored.len() as u64, awaited);
    // What notification has to say is heard again.
    stage.append("logs/new/e.log", "heard\n");
    wait_for(PATIENCE, "a new file is read", || {
        stage.stored("app").last().is_some_and(|line| line == "heard")
    });
}

#[test]
fn max_open_files_with_fair_turns() {
    const FILES: usize = 48;
    const OPEN_MAX: usize = 16;
    let mut stage = Stage::new("max_open_files_with_fair_turns");
    // Each takes several reads, so that all of them are in line at the same time.
    let lines: Vec<Vec<String>> = (0..FILES)
        .map(|file| (0..600).map(|line| format!("{file:02} {line} {}", "x".repeat(1000))).collect())
        .collect();
    for (file, lines) in lines.iter().enumerate() {
        stage.append(format!("logs/{file:02}.log"), text(lines));
    }
    let config = stage.config().global("max_open_files", OPEN_MAX as i64);
    config.source("app", "logs/*.log").write();
    stage.start();
    let total: usize = lines.iter().map(Vec::len).sum();
    wait_for(PATIENCE, "all lines are stored", || {
        let open = stage.descriptors().iter().filter(|path| path.contains("/logs/")).count();
        // The directories are watched, not open.
        assert!(open <= OPEN_MAX, "{open} files are open");
        stage.collector.stored_count() >= total as u64
    });
    stage.settle();
    let stored = stage.stored("app");
    for (file, lines) in lines.iter().enumerate() {
        let prefix = format!("{file:02} ");
        assert!(stored.iter().filter(|line| line.starts_with(&prefix)).eq(lines), "file {file}");
        let first = stored.iter().position(|line| line.starts_with(&prefix)).unwrap();
        assert!(first < total * 2 / 3, "file {file} had to wait for {first} of {total} lines");
    }
    // The files that are closed are heard as well.
    let mut groups = lines;
    for (file, lines) in groups.iter_mut().enumerate() {
        stage.append(format!("logs/{file:02}.log"), format!("{file:02} more\n"));
        lines.push(format!("{file:02} more"));
    }
    let total = total + FILES;
    wait_for(PATIENCE, "the last lines are stored", || stage.collector.stored_count() >= total as u64);
    stage.settle();
    let stored = stage.stored("app");
    assert_eq!(stored.len(), total);
    let mut last: Vec<&String> = stored[total - FILES..].iter().collect();
    last.sort_unstable();
    assert!(last.into_iter().eq(groups.iter().filter_map(|lines| lines.last())));
}

#[test]
fn state_of_vanished_files_is_forgotten_after_a_documented_time() {
    const NAME: &str = "state_of_vanished_files_is_forgotten_after_a_documented_time";
    let mut stage = Stage::new(NAME);
    let Some(clock) = Clock::new(&stage.scene) else {
        return skip(NAME, "no C compiler, so the agent's clock cannot be made to leap");
    };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    // A leap is not to be taken for a request that hangs.
    let config = stage.config().global("timeout_secs", 1_000_000).source("app", "logs/*.log");
    config.write();
    for name in ["early", "late"] {
        stage.append(format!("logs/{name}.log"), format!("{name} 1\n"));
    }
    stage.start();
    stage.expect_groups(&[&["early 1"], &["late 1"]]);
    stage.stop();
    // Where nobody looks for them.
    fs::create_dir_all(stage.scene.path("far/away/from/here")).unwrap();
    for name in ["early", "late"] {
        stage.rename(&format!("logs/{name}.log"), &format!("far/away/from/here/{name}"));
    }
    stage.start_with(|command| clock.give(command));
    wait_for(PATIENCE, "both are missed", || {
        stage.messages().matches("a followed file is not there any more").count() == 2
    });
    // Just before the hour it is remembered how far they were read. Each leap makes the next look due.
    for ahead in [30, 58] {
        clock.set_ahead(minutes(ahead));
        stage.settle();
    }
    stage.append("far/away/from/here/early", "early 2\n");
    stage.rename("far/away/from/here/early", "logs/early.log");
    stage.expect_groups(&[&["early 1", "early 2"], &["late 1"]]);
    // After it, the one that is still away is a new file.
    for ahead in [61, 62, 63] {
        clock.set_ahead(minutes(ahead));
        stage.settle();
    }
    stage.rename("far/away/from/here/late", "logs/late.log");
    wait_for(PATIENCE, "the file is read again", || stage.stored("app").len() >= 4);
    stage.settle();
    assert_eq!(stage.stored("app")[2..], ["early 2", "late 1"]);
    assert_eq!(stage.stored("app").len(), 4);
}

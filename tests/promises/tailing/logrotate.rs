//! The program that rotates almost everyone's files.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

/// Lets logrotate rotate the logs of a stage with these directives. Says whether it can.
struct Logrotate {
    directives: &'static str,
}

impl Logrotate {
    fn new(test: &str, directives: &'static str) -> Option<Self> {
        // It is where only root looks.
        let is_there = has_program("logrotate") || Path::new("/usr/sbin/logrotate").exists();
        if !is_there {
            skip(test, "logrotate is not installed");
        }
        is_there.then_some(Self { directives })
    }

    #[track_caller]
    fn rotate(&self, stage: &Stage) {
        let (config, state) = (stage.scene.path("logrotate.conf"), stage.scene.path("logrotate.state"));
        let logs = stage.scene.path("logs/*.log");
        let text = format!("\"{}\" {{\n  rotate 20\n  {}\n}}\n", logs.display(), self.directives);
        fs::write(&config, text).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("logrotate");
        command.env("PATH", path).arg("--force").arg("--state").arg(state).arg(config);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "logrotate: {said}");
    }
}

/// Writes, and rotates, while the agent runs, stands still and is down.
fn follow_through(stage: &mut Stage, logrotate: &Logrotate, after: impl Fn(&mut Writer)) {
    let mut writers = ["logs/app.log", "logs/web.log"].map(|path| Writer::new(&stage.scene, "app", path));
    for writer in &mut writers {
        writer.append(50);
    }
    stage.settle();
    for round in 0..6 {
        match round % 3 {
            0 => stage.settle(),
            1 => stage.freeze(),
            _ => stage.kill(),
        }
        for writer in &mut writers {
            writer.append(200);
        }
        logrotate.rotate(stage);
        for writer in &mut writers {
            after(writer);
            writer.append(100);
        }
        match round % 3 {
            0 => {}
            1 => stage.thaw(),
            _ => stage.start(),
        }
        stage.expect_written(&[&writers[0], &writers[1]]);
    }
    // The rotation happened.
    assert!(fs::read_dir(stage.scene.path("logs")).unwrap().count() >= 14);
    stage.stop();
    stage.start();
    stage.expect_written(&[&writers[0], &writers[1]]);
}

#[test]
fn real_logrotate_create() {
    const NAME: &str = "real_logrotate_create";
    let Some(logrotate) = Logrotate::new(NAME, "create") else { return };
    let mut stage = Stage::new(NAME).follow("logs/*.log");
    follow_through(&mut stage, &logrotate, |writer| {
        // Its writer is told a little later.
        writer.append(20);
        writer.reopen();
    });
}

#[test]
fn real_logrotate_copytruncate() {
    const NAME: &str = "real_logrotate_copytruncate";
    let Some(logrotate) = Logrotate::new(NAME, "copytruncate") else { return };
    let mut stage = Stage::new(NAME).follow("logs/*.log");
    follow_through(&mut stage, &logrotate, |_| {});
}

#[test]
fn real_logrotate_copytruncate_with_the_copies_inside_the_glob() {
    const NAME: &str = "real_logrotate_copytruncate_with_the_copies_inside_the_glob";
    let Some(logrotate) = Logrotate::new(NAME, "copytruncate") else { return };
    let mut stage = Stage::new(NAME).follow("logs/*.log*");
    follow_through(&mut stage, &logrotate, |_| {});
}

#[test]
fn real_logrotate_dateext_compress_delaycompress() {
    const NAME: &str = "real_logrotate_dateext_compress_delaycompress";
    const DIRECTIVES: &str = "dateext\n  dateformat -%Y%m%d-%s\n  compress\n  delaycompress\n  create";
    let Some(logrotate) = Logrotate::new(NAME, DIRECTIVES) else { return };
    let mut stage = Stage::new(NAME).follow("logs/*.log");
    dated(&mut stage, &logrotate);
}

#[test]
fn real_logrotate_dateext_compress() {
    const NAME: &str = "real_logrotate_dateext_compress";
    const DIRECTIVES: &str = "dateext\n  dateformat -%Y%m%d-%s\n  compress\n  create";
    let Some(logrotate) = Logrotate::new(NAME, DIRECTIVES) else { return };
    let mut stage = Stage::new(NAME).follow("logs/*.log*");
    dated(&mut stage, &logrotate);
}

/// [`follow_through`] with names that have the second in them, so that there is one rotation a second.
fn dated(stage: &mut Stage, logrotate: &Logrotate) {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    follow_through(stage, logrotate, |writer| {
        writer.reopen();
        let rotated = second();
        wait_for(PATIENCE, "the next rotation has another name", || second() > rotated);
    });
}

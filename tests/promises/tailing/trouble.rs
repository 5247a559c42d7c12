//! Files and systems that make it hard.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown, symlink};

use super::*;

/// The user that has no rights of its own.
const NOBODY: u32 = 65534;

#[test]
fn two_files_with_the_same_first_kilobytes() {
    let mut stage = Stage::new("two_files_with_the_same_first_kilobytes").follow("logs/*.log");
    let head = format!("head {}", "0123456789abcdef".repeat(512));
    for name in ["a", "b"] {
        stage.append(format!("logs/{name}.log"), format!("{name} {head}\n").split_off(2));
    }
    stage.append("logs/a.log", "a 1\n");
    stage.append("logs/b.log", "b 1\n");
    let (a, b, heads): (&[&str], &[&str], &[&str]) = (&["a 1"], &["b 1"], &[&head, &head]);
    stage.expect_groups(&[a, b, heads]);
    stage.kill();
    stage.append("logs/a.log", "a 2\n");
    stage.append("logs/b.log", "b 2\n");
    stage.start();
    stage.expect_groups(&[&["a 1", "a 2"], &["b 1", "b 2"], heads]);
}

#[test]
fn unreadable_file_becomes_readable() {
    const NAME: &str = "unreadable_file_becomes_readable";
    let mut stage = Stage::new(NAME);
    if !is_root() {
        return skip(NAME, "only root can start the agent as a user without rights");
    }
    let binary = crate::common::log_agent();
    let may_run = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary.get_program())
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !may_run {
        return skip(NAME, "setpriv is not there, or another user cannot run the binary");
    }
    stage.append("logs/closed.log", "closed 1\n");
    stage.append("logs/open.log", "open 1\n");
    stage.append("dark/dark.log", "dark 1\n");
    let mode = |stage: &Stage, path: &str, mode: u32| {
        fs::set_permissions(stage.scene.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&stage, "logs/closed.log", 0o000);
    mode(&stage, "dark", 0o000);
    chown(stage.scene.path("."), Some(NOBODY), Some(NOBODY)).unwrap();
    stage.config().source("app", "logs/*.log").source("dark", "dark/*.log").write();
    stage.start_with(|command| {
        through(command, "setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups"]);
    });
    stage.expect(&["open 1"]);
    stage.append("logs/open.log", "open 2\n");
    stage.expect(&["open 1", "open 2"]);
    let said = stage.messages();
    assert_eq!(said.matches("closed.log").count(), 1, "{said}");
    assert!(said.contains("dark"), "{said}");
    mode(&stage, "logs/closed.log", 0o644);
    mode(&stage, "dark", 0o755);
    stage.expect(&["open 1", "open 2", "closed 1"]);
    stage.expect_of("dark", &["dark 1"]);
}

#[test]
fn missing_file_is_reported_once_then_followed_when_it_appears() {
    let mut stage = Stage::new("missing_file_is_reported_once_then_followed_when_it_appears");
    stage.config().source("app", "logs/app.log").source("far", "not/there/far.log").write();
    stage.start();
    stage.settle();
    // Things happen beside it.
    for number in 0..20 {
        stage.append(format!("logs/other-{number}.log"), "other\n");
        stage.settle();
    }
    let said = stage.messages();
    for path in ["logs/app.log", "not/there/far.log"] {
        let path = stage.scene.path(path);
        let reports: Vec<&str> = said.lines().filter(|line| line.contains(path.to_str().unwrap())).collect();
        assert_eq!(reports.len(), 1, "{reports:#?}");
    }
    stage.append("logs/app.log", "1\n");
    stage.append("not/there/far.log", "1\n");
    stage.expect(&["1"]);
    stage.expect_of("far", &["1"]);
}

#[test]
fn polling_only() {
    const NAME: &str = "polling_only";
    // In a user namespace of its own the agent can be denied notification.
    const DENY: &str = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let mut stage = Stage::new(NAME);
    let deny = ["--user", "--map-root-user", "sh", "-c", DENY];
    let can_deny =
        Command::new("unshare").args(deny).arg("true").output().is_ok_and(|output| output.status.success());
    if !can_deny {
        return skip(NAME, "no user namespaces, so notification cannot be taken away");
    }
    stage.config().source("app", "logs/app.log").source("glob", "globs/*/*.log").write();
    stage.start_with(|command| through(command, "unshare", deny));
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    let mut glob = Writer::new(&stage.scene, "glob", "globs/a/1.log");
    writer.append(10);
    stage.expect_written(&[&writer, &glob]);
    assert!(stage.messages().contains("files are polled"), "{}", stage.messages());
    for _ in 0..3 {
        writer.append(50);
        writer.rotate();
        writer.append(50);
        glob.append(50);
        stage.expect_written(&[&writer, &glob]);
    }
    writer.copytruncate();
    writer.append(200);
    stage.remove("globs/a/1.log");
    glob.append(50);
    stage.expect_written(&[&writer, &glob]);
}

#[test]
fn fifo_socket_device_and_directory_are_refused() {
    let mut stage = Stage::new("fifo_socket_device_and_directory_are_refused");
    let path = |name: &str| stage.scene.path("logs").join(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(path("socket.log")).unwrap();
    symlink("/dev/zero", path("device.log")).unwrap();
    fs::create_dir(path("directory.log")).unwrap();
    symlink("loop.log", path("loop.log")).unwrap();
    assert!(fs::metadata(path("device.log")).unwrap().file_type().is_char_device());
    let mut config = stage.config().source("app", "logs/*.log");
    let names = ["fifo", "socket", "device", "directory", "loop"];
    for name in names {
        config = config.source(name, &format!("logs/{name}.log"));
    }
    config.write();
    stage.append("logs/app.log", "1\n");
    stage.start();
    stage.expect(&["1"]);
    let said = stage.messages();
    for name in names {
        let of_source = said.lines().filter(|line| line.contains(&format!("source={name} "))).count();
        assert_eq!(of_source, 1, "{name}: {said}");
    }
    // One that gives way to a file is followed.
    fs::remove_dir(stage.scene.path("logs/directory.log")).unwrap();
    stage.append("logs/directory.log", "2\n");
    stage.expect(&["1", "2"]);
    stage.expect_of("directory", &["2"]);
}

#[test]
fn descriptor_limit_below_number_of_files() {
    const FILES: usize = 300;
    let mut stage = Stage::new("descriptor_limit_below_number_of_files");
    let lines: Vec<Vec<String>> =
        (0..FILES).map(|number| numbered(&format!("file {number} line"), 0..3)).collect();
    let append = |stage: &Stage, round: usize| {
        for (number, lines) in lines.iter().enumerate() {
            stage.append(format!("logs/{number}.log"), format!("{}\n", lines[round]));
        }
    };
    append(&stage, 0);
    stage.config().source("app", "logs/*.log*").write();
    stage.start_with(|command| through(command, "sh", ["-c", "ulimit -n 64; exec \"$0\" \"$@\""]));
    for round in 0..3 {
        if round > 0 {
            append(&stage, round);
        }
        if round == 1 {
            // Most of them are closed when they lose their names for a moment.
            for number in 0..FILES {
                stage.rename(&format!("logs/{number}.log"), &format!("logs/{number}.log.1"));
                stage.rename(&format!("logs/{number}.log.1"), &format!("logs/{number}.log"));
            }
        }
        let groups: Vec<&[String]> = lines.iter().map(|lines| &lines[..=round]).collect();
        stage.expect_groups(&groups);
    }
    assert!(stage.descriptors().len() <= 64);
}

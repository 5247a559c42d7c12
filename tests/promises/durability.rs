//! What is durable when: the order of writes, syncs and sends, what a power cut takes, and who may read the spool.

mod order;
mod poison;
mod power;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::common::{Agent, Collector, Fault, FaultProxy, Scene, Writer, await_delivery};

/// Every file and directory in and below `dir`, with its mode.
fn modes(dir: &Path) -> Vec<(PathBuf, bool, u32)> {
    let mut modes = vec![(dir.to_owned(), true, fs::metadata(dir).unwrap().permissions().mode() & 0o7777)];
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            modes.extend(self::modes(&entry.path()));
        } else {
            modes.push((entry.path(), false, meta.permissions().mode() & 0o7777));
        }
    }
    modes
}

#[test]
fn only_its_owner_may_read_the_spool() {
    let scene = Scene::new("only_its_owner_may_read_the_spool");
    let proxy = FaultProxy::alone();
    proxy.refuse_marked("SECRET", Fault::Status(400));
    scene
        .config()
        .end_point(proxy.url())
        .global("segment_bytes", 64 << 10)
        .source("app", "logs/app.log")
        .write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    (0..20).for_each(|_| writer.append(100));
    writer.append_line("SECRET");
    let agent = Agent::start_with(&scene, |command| {
        // Whoever starts it may let files be readable and writable by all.
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "umask 000 && exec \"$@\"", "sh"]).arg(program).args(arguments);
        shell.env("RUST_LOG", "info");
        *command = shell;
    });
    agent.await_said("moved to the dead letters");
    assert_eq!(agent.stop(), Some(0));
    let modes = modes(&scene.spool_dir());
    assert!(modes.len() > 8, "{modes:?}");
    for (path, is_dir, mode) in modes {
        let expected = if is_dir { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn sync_os_warns_at_start_and_group_does_not() {
    for (sync, warns) in [("os", true), ("group", false)] {
        let scene = Scene::new("sync_os_warns_at_start_and_group_does_not");
        let collector = Collector::start(&scene);
        scene.config().end_point(collector.url()).global("sync", sync).source("app", "logs/app.log").write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(3);
        let agent = Agent::start(&scene);
        await_delivery(&[&writer], &collector);
        let warned = agent
            .said()
            .lines()
            .any(|line| line.contains("WARN") && line.contains("survives a killed process, not a power cut"));
        assert_eq!(warned, warns, "{}", agent.said());
        assert_eq!(agent.stop(), Some(0));
    }
}

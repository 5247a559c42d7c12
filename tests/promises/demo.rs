//! The demo tells the truth in half a minute and leaves nothing behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::{PATIENCE, Process, Scene, log_agent, wait_for};

/// A demo with short scenes, whose temporary directory is made in the scene's `tmp`.
fn demo(scene: &Scene) -> (Process, PathBuf) {
    let tmp = scene.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let mut command: Command = log_agent();
    command.args(["demo", "--rate", "500", "--scene", "1"]).env("TMPDIR", &tmp).env_remove("RUST_LOG");
    // A proxy of the machine has nothing to do with it.
    command.env("http_proxy", "http://127.0.0.1:1");
    command.stdout(Stdio::from(File::create(scene.path("demo.stdout")).unwrap()));
    (Process::start("demo", command, &scene.path("demo.stderr")), tmp)
}

fn shown(scene: &Scene) -> String {
    fs::read_to_string(scene.path("demo.stdout")).unwrap()
}

/// Processes with something of `dir` on their command line.
fn processes_in(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let command_lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    });
    command_lines.filter(|line| line.contains(dir)).collect()
}

#[test]
fn the_demo_ends_with_a_clean_balance_and_leaves_nothing_behind() {
    let scene = Scene::new("the_demo_ends_with_a_clean_balance_and_leaves_nothing_behind");
    let (mut demo, tmp) = demo(&scene);
    let mut status = None;
    // Half a minute on an idle machine; the tests' own deadline would be short on a loaded one.
    wait_for(PATIENCE * 4, "the demo ends", || {
        status = demo.child().try_wait().unwrap();
        status.is_some()
    });
    let shown = shown(&scene);
    assert_eq!(status.unwrap().code(), Some(0), "{shown}");
    let figure = |name: &str| -> u64 {
        let line = shown.lines().find_map(|line| line.trim_start().strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {shown}"));
        line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
    };
    // The balance is at the end; the live figures before it begin with the time.
    assert!(figure("written") > 1000, "{shown}");
    assert_eq!(figure("delivered"), figure("written"), "{shown}");
    assert_eq!((figure("lost"), figure("duplicates stored")), (0, 0), "{shown}");
    for step in ["the collector is gone", "rotated", "the agent was killed with SIGKILL", "both are back"] {
        assert!(shown.contains(step), "no {step:?} in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "control sequences where there is no terminal");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "something was left behind");
    assert_eq!(processes_in(&tmp), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let scene = Scene::new("a_demo_that_is_interrupted_leaves_nothing_behind");
    for signal in [Signal::INT, Signal::TERM] {
        let _ = fs::remove_dir(scene.path("tmp"));
        let (mut demo, tmp) = demo(&scene);
        wait_for(PATIENCE, "agent and collector run", || {
            processes_in(&tmp).len() >= 2 && shown(&scene).contains("the agent follows")
        });
        demo.signal(signal);
        assert_eq!(demo.wait().code(), Some(1));
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "something was left behind");
        assert_eq!(processes_in(&tmp), Vec::<String>::new());
    }
}

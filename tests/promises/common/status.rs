//! What a spool says of itself while no agent runs on it.

use std::process::Command;

use serde_json::Value;

use super::{Scene, Writer, log_agent};

/// `log-agent spool status`; panics where it finds that its books do not balance.
#[track_caller]
pub fn spool_status(scene: &Scene) -> Value {
    spool_status_with(scene, |_| {})
}

/// The same, after `change` has seen its command line.
#[track_caller]
pub fn spool_status_with(scene: &Scene, change: impl FnOnce(&mut Command)) -> Value {
    let mut command = log_agent();
    command.args(["spool", "status", "--json", "--spool-dir"]).arg(scene.spool_dir());
    change(&mut command);
    let output = command.output().unwrap();
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "the spool's books do not balance: {told}{errors}");
    serde_json::from_str(&told).unwrap()
}

/// Asserts that nothing is left to deliver and that every line of the writers was acknowledged, by the spool's own
/// account.
#[track_caller]
pub fn assert_all_is_acknowledged(status: &Value, writers: &[&Writer]) {
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
    assert_eq!(status["batches"], 0, "{status:#}");
    for source in status["sources"].as_array().unwrap() {
        let name = source["source"].as_str().unwrap();
        let of_source = writers.iter().filter(|writer| writer.source() == name);
        assert_eq!(source["acknowledged"], of_source.map(|writer| writer.count()).sum::<u64>(), "{status:#}");
        assert_eq!(source["spooled"], source["acknowledged"], "{status:#}");
    }
}

//! The agent as a child process.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::{PATIENCE, Process, Scene, log_agent, wait_for};

/// A running agent. It is killed when it is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// Where its own messages begin, after those of the agents before it.
    messages_from: usize,
}

impl Agent {
    /// Starts an agent with the scene's configuration and spool.
    pub fn start(scene: &Scene) -> Self {
        Self::start_with(scene, |_| {})
    }

    /// The same, after `change` has seen its command line and environment.
    pub fn start_with(scene: &Scene, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = log_agent();
        command
            .arg("--config")
            .arg(scene.config_path())
            .arg("--spool-dir")
            .arg(scene.spool_dir())
            .current_dir(scene.path("."));
        change(&mut command);
        let stderr = Self::stderr_path(scene);
        let before = std::fs::metadata(&stderr).map_or(0, |meta| meta.len());
        let messages_from = usize::try_from(before).unwrap();
        Self { process: Process::start("agent", command, &stderr), messages_from }
    }

    /// Where every agent of the scene writes its messages.
    pub fn stderr_path(scene: &Scene) -> PathBuf {
        scene.path("agent.stderr")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// SIGKILL; returns once it is gone.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit code, or none where a signal ended it.
    pub fn stop(mut self) -> Option<i32> {
        self.process.stop()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it ends by itself; the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.process.wait().code()
    }

    /// What the scene's agents wrote to standard error so far.
    pub fn messages(&self) -> String {
        self.process.messages()
    }

    /// What this one wrote to standard error so far.
    pub fn said(&self) -> String {
        let all = self.messages();
        all.get(self.messages_from..).unwrap_or_default().to_owned()
    }

    /// Waits until it said this.
    #[track_caller]
    pub fn await_said(&self, what: &str) {
        let awaited = format!("the agent says {what:?}");
        wait_for(PATIENCE, &awaited, || self.said().contains(what));
    }

    /// Waits until it has opened its spool and follows its files.
    #[track_caller]
    pub fn await_started(&self) {
        self.await_said(Self::STARTED);
    }

    /// What an agent says once it has opened its spool.
    pub const STARTED: &str = " started agent=";
}

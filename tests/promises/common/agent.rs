//! The agent as a child process.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::{Process, Scene, log_agent};

/// A running agent. It is killed when it is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
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
        Self { process: Process::start("agent", command, &Self::stderr_path(scene)) }
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
}

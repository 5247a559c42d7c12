//! A child process that does not outlive its test, and whose messages are shown when the test fails.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, wait_for};

/// How much of a process's messages is shown when its test fails, in bytes from the end.
const SHOWN_BYTES: usize = 8 << 10;

/// The real binary, with nothing yet on its command line.
pub fn log_agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_log-agent"));
    command.env("RUST_LOG", "info").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    // A proxy of the machine is none of the tests'.
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    what: &'static str,
    child: Child,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; what it writes to standard error is appended to `stderr`.
    pub fn start(what: &'static str, mut command: Command, stderr: &Path) -> Self {
        let file = File::options().create(true).append(true).open(stderr).unwrap();
        let child =
            command.stderr(file).spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self { what, child, stderr: stderr.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM and waits for the end. The exit code, or none where a signal ended it.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait().code()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let what = format!("{} ends", self.what);
        wait_for(PATIENCE, &what, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert!(!status.core_dumped(), "{} dumped core", self.what);
        status
    }

    /// What it, and those before it with the same file, wrote to standard error.
    pub fn messages(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let messages = self.messages();
            let mut from = messages.len().saturating_sub(SHOWN_BYTES);
            while !messages.is_char_boundary(from) {
                from += 1;
            }
            eprintln!("--- {} {} said:\n{}---", self.what, self.child.id(), &messages[from..]);
        }
    }
}

//! The demo's child processes: the collector and the agent, of the same binary.
//!
//! Invariant: a child does not outlive the value that stands for it, whatever ends the demo, short of a SIGKILL.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// How long a child may take to stop, or to get the port that it had.
const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// A running child, in a process group of its own: Ctrl-C reaches the demo alone, which then ends its children.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    fn spawn(mut command: Command, messages: &Path) -> io::Result<Self> {
        let messages = File::options().create(true).append(true).open(messages)?;
        let child = command.stdin(Stdio::null()).stderr(messages).process_group(0).spawn()?;
        Ok(Self { child })
    }

    /// SIGKILL; returns once it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM; waits until it is gone. Where that takes too long it is killed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop(mut self) -> io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let begun = clock::now();
        while clock::now().saturating_duration_since(begun) < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where things are in the demo's directory, and which binary is run.
#[derive(Debug)]
pub struct Stage {
    binary: PathBuf,
    dir: PathBuf,
}

impl Stage {
    /// A stage in `dir`.
    ///
    /// # Errors
    /// Where this process cannot say which binary it is.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { binary: std::env::current_exe()?, dir: dir.to_owned() })
    }

    /// The collector's file.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.dir.join("received.jsonl")
    }

    /// The file that is followed.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("demo.log")
    }

    /// The agent's spool.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// What the children say.
    #[must_use]
    pub fn messages(&self) -> PathBuf {
        self.dir.join("messages")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("log-agent.config")
    }

    /// Starts the collector; with an address, on the one that it had. Returns it with the URL that it listens on.
    ///
    /// # Errors
    /// Where it does not listen: what the system says, or that it ended.
    pub async fn start_collector(&self, listen: Option<&str>) -> io::Result<(Running, String)> {
        let begun = clock::now();
        loop {
            let mut command = Command::new(&self.binary);
            command.args(["collect", "--listen", listen.unwrap_or("127.0.0.1:0"), "--out"]).arg(self.out());
            command.stdout(Stdio::piped());
            let mut running = Running::spawn(command, &self.messages())?;
            let mut line = String::new();
            if let Some(stdout) = running.child.stdout.take() {
                // It says where it listens at once, or ends.
                BufReader::new(stdout).read_line(&mut line)?;
            }
            if let Some(url) = line.trim_end().strip_prefix("listening on ") {
                return Ok((running, url.to_owned()));
            }
            drop(running);
            // The port may be taken for a moment by a connection of somebody else's.
            if clock::now().saturating_duration_since(begun) > PATIENCE {
                return Err(io::Error::other("the collector does not start"));
            }
            tokio::time::sleep(POLL * 10).await;
        }
    }

    /// Writes the agent's configuration.
    ///
    /// # Errors
    /// What the system says; also where the directory's name is not text.
    pub fn configure(&self, url: &str) -> io::Result<()> {
        let log = self.log();
        let log =
            log.to_str().ok_or_else(|| io::Error::other("the temporary directory's name is not UTF-8"))?;
        let text = |value: &str| toml::Value::from(value).to_string();
        let config = format!(
            "[global]\nagent_name = \"demo\"\nend_point = {}\nsend_type = \"HTTP\"\nmax_batch_size = 1000\n\
             interval_secs = 0.5\n\n[global.proxy]\nurl = \"none\"\n\n[[sources]]\nname = \"demo\"\nlog_path = {}\n",
            text(url),
            text(log)
        );
        std::fs::write(self.config(), config)
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// What the system says.
    pub fn start_agent(&self) -> io::Result<Running> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config()).arg("--spool-dir").arg(self.spool());
        command.stdout(Stdio::null()).current_dir(&self.dir);
        Running::spawn(command, &self.messages())
    }
}

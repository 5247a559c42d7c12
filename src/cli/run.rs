//! `log-agent` without a subcommand: the agent itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent;
use crate::config::Config;
use crate::send;

/// Runs the agent until SIGTERM or SIGINT; SIGHUP reads the configuration again.
pub fn run(cli: &super::Cli) -> anyhow::Result<ExitCode> {
    // The ledger's files are made by sled, which leaves their mode to this.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let load = || Config::load(&cli.config, cli.spool_dir.as_deref(), &send::transports());
    let mut config = load()?;
    let runtime = agent::runtime()?;
    let mut signals = {
        let _in_runtime = runtime.enter();
        Signals::new().context("signals cannot be received")?
    };
    loop {
        let mut next = None;
        agent::run(&config, &runtime, async { next = signals.reason_to_end(load).await })?;
        match next {
            Some(reloaded) => config = reloaded,
            None => return Ok(ExitCode::SUCCESS),
        }
        tracing::info!("configuration reloaded");
    }
}

/// The signals that end or reload the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the agent is to end; with a configuration, until it is to go on with that one. A configuration
    /// that is wrong changes nothing.
    async fn reason_to_end<E: std::error::Error>(
        &mut self,
        load: impl Fn() -> Result<Config, E>,
    ) -> Option<Config> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => match load() {
                    Ok(config) => return Some(config),
                    Err(error) => tracing::error!(
                        error = crate::error_chain(&error),
                        "the configuration is wrong and was not reloaded; the agent goes on as it was"
                    ),
                },
            }
        }
        tokio::spawn(exit_at_once());
        None
    }
}

/// Signals that come so soon after the first are the same one: `timeout` and service managers send it to the process
/// and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// A second signal means now: what is spooled is durable at any moment.
async fn exit_at_once() {
    tokio::time::sleep(SAME_SIGNAL).await;
    let Ok(mut again) = Signals::new() else { return };
    tokio::select! {
        _ = again.terminate.recv() => {}
        _ = again.interrupt.recv() => {}
    }
    tracing::warn!("second signal: exiting at once");
    std::process::exit(i32::from(super::EXIT_RUNTIME));
}

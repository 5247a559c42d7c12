//! `log-agent demo`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::EXIT_RUNTIME;
use crate::demo::{self, Options};
use crate::spool::inspect;

/// Arguments of `log-agent demo`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Shows the agent surviving a kill, an outage and a rotation, and counts every line.\n\n\
                  In a temporary directory it starts a collector, an agent and a writer, takes the collector down, \
                  rotates the file, kills the agent with SIGKILL, brings everything back, and compares what arrived \
                  with what was written, line by line. It takes about half a minute and leaves nothing behind. The \
                  exit code is 1 if a line is lost or stored twice.",
    after_long_help = "Examples:\n  \
                  log-agent demo\n  \
                  log-agent demo --rate 100000\n  \
                  log-agent demo > demo.txt    plain lines where there is no terminal"
)]
pub struct Args {
    /// Lines written a second.
    #[arg(long, value_name = "LINES", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(50..=1_000_000))]
    rate: u64,
    /// Seconds between one thing that happens and the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    scene: u64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = Options { rate: args.rate, scene: Duration::from_secs(args.scene) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let caught = |kind| signal(kind).context("cannot catch signals");
        let mut interrupt = caught(SignalKind::interrupt())?;
        let mut terminate = caught(SignalKind::terminate())?;
        let mut hang_up = caught(SignalKind::hangup())?;
        // Whatever comes first: the story's future is dropped, and takes children and directory with it.
        tokio::select! {
            balance = demo::run(options, |spool| inspect::spooled(spool).ok()) => {
                Ok(if balance?.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) })
            }
            _ = interrupt.recv() => anyhow::bail!("interrupted; nothing was left behind"),
            _ = terminate.recv() => anyhow::bail!("terminated; nothing was left behind"),
            _ = hang_up.recv() => anyhow::bail!("the terminal is gone; nothing was left behind"),
        }
    })
}

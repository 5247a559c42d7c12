//! The demo: a collector, an agent and a writer, and everything that may happen to them, in half a minute.
//!
//! Invariants:
//! - The balance is taken from the collector's file, line by line, never from a counter.
//! - Whatever ends the demo, its children end first and its directory is removed.

mod balance;
mod children;
mod lines;
mod screen;

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

pub use balance::Balance;
use balance::LineCount;
use children::{Running, Stage};
use lines::Writer;
use screen::{Figures, Screen, megabytes};

use crate::clock;

/// How often the figures are taken.
const TICK: Duration = Duration::from_millis(100);
/// How long delivery may take once everything is up again, before the demo gives up.
const CATCH_UP_MAX: Duration = Duration::from_secs(90);
/// How much of what the children said is shown when the demo fails, in bytes.
const MESSAGES_SHOWN: usize = 4096;

/// What the demo is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lines a second.
    pub rate: u64,
    /// How long each scene of the story is, before the next thing happens.
    pub scene: Duration,
}

/// Why the demo could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something that it needs does not work.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A child ended that nobody ended.
    #[error("the {who} ended by itself: {status}; it said:\n{messages}")]
    Ended {
        /// Which.
        who: &'static str,
        /// How.
        status: ExitStatus,
        /// The end of what the children said.
        messages: String,
    },
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Io { action, source }
}

/// Runs the demo and shows it on standard output. `spooled` says how many events a spool has ever taken, where it can.
/// Dropping the future ends the children and removes the directory.
///
/// # Errors
/// [`DemoError`]; a balance that is not clean is none.
pub async fn run(options: Options, spooled: fn(&Path) -> Option<u64>) -> Result<Balance, DemoError> {
    let dir = tempfile::Builder::new().prefix("log-agent-demo-").tempdir();
    let dir = dir.map_err(failed("make a temporary directory"))?;
    let stage = Stage::new(dir.path()).map_err(failed("find this program"))?;
    let mut story = Story::begin(&stage, options, spooled).await?;
    let balance = story.tell().await?;
    drop(story);
    // Before the end is reported, so that a directory that cannot be removed is not kept quiet about.
    dir.close().map_err(failed("remove the temporary directory"))?;
    Ok(balance)
}

/// The demo as it goes on. Fields are dropped in this order: the children first.
struct Story<'a> {
    agent: Option<Running>,
    collector: Option<Running>,
    writer: Writer,
    stage: &'a Stage,
    options: Options,
    /// Where the collector listens, as `127.0.0.1:4711`.
    listen: String,
    spooled: fn(&Path) -> Option<u64>,
    screen: Screen,
    stored: LineCount,
    speed: Speed,
}

impl<'a> Story<'a> {
    async fn begin(
        stage: &'a Stage,
        options: Options,
        spooled: fn(&Path) -> Option<u64>,
    ) -> Result<Self, DemoError> {
        let screen = Screen::new();
        let (collector, url) = stage.start_collector(None).await.map_err(failed("start the collector"))?;
        stage.configure(&url).map_err(failed("write the configuration"))?;
        screen.step(&format!("the collector listens on {url}"));
        let writer = Writer::start(&stage.log(), options.rate).map_err(failed("start the writer"))?;
        screen.step(&format!("a writer appends {} lines a second to demo.log", options.rate));
        let agent = stage.start_agent().map_err(failed("start the agent"))?;
        screen.step("the agent follows demo.log and sends to the collector");
        let listen = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stored = LineCount::new(stage.out());
        let (agent, collector) = (Some(agent), Some(collector));
        let speed = Speed::default();
        Ok(Self { agent, collector, writer, stage, options, listen, spooled, screen, stored, speed })
    }

    async fn tell(&mut self) -> Result<Balance, DemoError> {
        self.watch().await?;

        self.kill_collector()?;
        self.screen.step("the collector is gone: what is written stays in the spool");
        self.watch().await?;

        self.rotate().await?;
        self.screen.step("demo.log was rotated: renamed to demo.log.1, and begun anew");
        self.watch().await?;

        self.kill_agent()?;
        self.screen.step("the agent was killed with SIGKILL, and the writer goes on");
        self.rotate().await?;
        self.screen.step("demo.log was rotated again, with nobody looking");
        self.watch().await?;

        self.start_agent()?;
        self.screen.step("the agent is back: it finds its place in both files");
        self.watch().await?;

        self.start_collector().await?;
        self.screen.step("the collector is back: the backlog is sent");
        self.watch().await?;

        self.kill_collector()?;
        self.kill_agent()?;
        self.screen.step("both were killed with SIGKILL in the middle of it");
        self.start_collector().await?;
        self.start_agent()?;
        self.screen.step("both are back: batches without an answer are sent again, under their old keys");
        self.watch().await?;

        self.writer.stop().map_err(failed("write demo.log"))?;
        self.screen.step("the writer has stopped: what is left is delivered");
        let balance = self.await_delivery().await?;
        self.stop_children().await?;
        self.screen.finish(&sheet(&balance, self.writer.bytes()));
        Ok(balance)
    }

    /// Lets a scene pass and shows how it goes.
    async fn watch(&mut self) -> Result<(), DemoError> {
        let begun = clock::now();
        while clock::now().saturating_duration_since(begun) < self.options.scene {
            self.tick().await?;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), DemoError> {
        tokio::time::sleep(TICK).await;
        for (who, child) in [("agent", &mut self.agent), ("collector", &mut self.collector)] {
            let Some(running) = child else { continue };
            if let Some(status) = running.ended().map_err(failed("look after a child"))? {
                let messages = messages(self.stage);
                return Err(DemoError::Ended { who, status, messages });
            }
        }
        let (written, bytes) = (self.writer.lines(), self.writer.bytes());
        let delivered = self.stored.refresh().min(written);
        let line_bytes = bytes.checked_div(written).unwrap_or(0);
        let figures = Figures {
            written,
            spooled: (self.spooled)(&self.stage.spool()),
            delivered,
            bytes_per_second: self.speed.of(delivered.saturating_mul(line_bytes)),
        };
        self.screen.show(&figures);
        Ok(())
    }

    /// Waits until every line is stored. Gives up after [`CATCH_UP_MAX`], and the balance says what is missing.
    async fn await_delivery(&mut self) -> Result<Balance, DemoError> {
        let written = self.writer.lines();
        let begun = clock::now();
        self.stored.restart();
        loop {
            self.tick().await?;
            let late = clock::now().saturating_duration_since(begun) > CATCH_UP_MAX;
            if self.stored.refresh() >= written || late {
                let balance = Balance::of(&self.stage.out(), written).map_err(failed("read what arrived"))?;
                if balance.lost() == 0 || late {
                    return Ok(balance);
                }
                // There are as many lines and some are missing: others are there too often, which more time may not
                // change, but the count began before a cut at a start of the collector it would.
                self.stored.restart();
            }
        }
    }

    async fn rotate(&self) -> Result<(), DemoError> {
        self.writer.rotate();
        while self.writer.is_rotating() && !self.writer.has_failed() {
            tokio::time::sleep(TICK / 10).await;
        }
        Ok(())
    }

    fn kill_agent(&mut self) -> Result<(), DemoError> {
        self.agent.take().map_or(Ok(()), Running::kill).map_err(failed("kill the agent"))
    }

    fn kill_collector(&mut self) -> Result<(), DemoError> {
        self.collector.take().map_or(Ok(()), Running::kill).map_err(failed("kill the collector"))
    }

    fn start_agent(&mut self) -> Result<(), DemoError> {
        self.agent = Some(self.stage.start_agent().map_err(failed("start the agent"))?);
        Ok(())
    }

    async fn start_collector(&mut self) -> Result<(), DemoError> {
        let started = self.stage.start_collector(Some(&self.listen)).await;
        let (collector, _) = started.map_err(failed("start the collector"))?;
        self.collector = Some(collector);
        Ok(())
    }

    async fn stop_children(&mut self) -> Result<(), DemoError> {
        for (who, child) in [("agent", self.agent.take()), ("collector", self.collector.take())] {
            let Some(child) = child else { continue };
            let status = child.stop().await.map_err(failed("stop a child"))?;
            if !status.success() {
                return Err(DemoError::Ended { who, status, messages: messages(self.stage) });
            }
        }
        Ok(())
    }
}

/// Bytes a second over the last second or so.
#[derive(Debug, Default)]
struct Speed {
    /// Bytes at each of the last ticks.
    recent: std::collections::VecDeque<(std::time::Instant, u64)>,
}

impl Speed {
    const TICKS: usize = 12;

    /// Takes note of how many bytes there are now.
    fn of(&mut self, bytes: u64) -> u64 {
        let now = clock::now();
        self.recent.push_back((now, bytes));
        if self.recent.len() > Self::TICKS {
            self.recent.pop_front();
        }
        let (since, before) = self.recent.front().copied().unwrap_or((now, bytes));
        let millis = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

/// The end of what the children said.
fn messages(stage: &Stage) -> String {
    let bytes = std::fs::read(stage.messages()).unwrap_or_default();
    let from = bytes.len().saturating_sub(MESSAGES_SHOWN);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).trim_end().to_owned()
}

fn sheet(balance: &Balance, bytes: u64) -> String {
    use indicatif::HumanCount;

    let row = |name: &str, count: u64| format!("  {name:<20}{:>12}", HumanCount(count).to_string());
    let mut rows = vec![
        String::new(),
        format!("{} lines  {:.1} MB", row("written", balance.written), megabytes(bytes)),
        format!("{} lines", row("delivered", balance.delivered)),
        row("lost", balance.lost()),
        row("duplicates stored", balance.duplicates),
    ];
    if balance.altered > 0 {
        rows.push(row("not as written", balance.altered));
    }
    rows.push(String::new());
    let verdict = if balance.is_clean() {
        "Every line that was written was stored exactly once."
    } else {
        "The balance is NOT clean."
    };
    rows.push(verdict.to_owned());
    rows.join("\n")
}

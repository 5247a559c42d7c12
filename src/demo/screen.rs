//! What the demo shows: on a terminal a live line under the steps, elsewhere plain lines.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::clock;

/// How often a plain line is written where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// The live numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Lines in the log file.
    pub written: u64,
    /// Lines that the spool has taken, where that can be said.
    pub spooled: Option<u64>,
    /// Lines that the collector has stored.
    pub delivered: u64,
    /// Bytes of log text that were delivered a second, lately.
    pub bytes_per_second: u64,
}

impl Figures {
    fn text(&self) -> String {
        let spooled = self.spooled.map_or_else(|| "?".to_owned(), |spooled| HumanCount(spooled).to_string());
        format!(
            "written {:>9}  spooled {spooled:>9}  delivered {:>9}  backlog {:>9}  {:>6.1} MB/s",
            HumanCount(self.written).to_string(),
            HumanCount(self.delivered).to_string(),
            HumanCount(self.written.saturating_sub(self.delivered)).to_string(),
            megabytes(self.bytes_per_second),
        )
    }
}

/// Bytes as megabytes, for a person.
#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    // Exact up to 2^53 bytes, and only shown.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// The screen, or whatever standard output is.
#[derive(Debug)]
pub struct Screen {
    /// The live line; none where there is no terminal.
    bar: Option<ProgressBar>,
    begun: Instant,
    last_plain: Option<Instant>,
}

impl Screen {
    /// Looks at what standard output is.
    #[must_use]
    pub fn new() -> Self {
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, begun: clock::now(), last_plain: None }
    }

    /// Tells what happens now.
    pub fn step(&self, what: &str) {
        let line = format!("{:>5.1} s  {what}", self.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(&line),
        }
    }

    /// Shows the figures.
    pub fn show(&mut self, figures: &Figures) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(figures.text());
                bar.tick();
            }
            None => {
                let now = clock::now();
                let due = |last: Instant| now.saturating_duration_since(last) >= PLAIN_INTERVAL;
                if self.last_plain.is_none_or(due) {
                    self.last_plain = Some(now);
                    say(&format!("{:>5.1} s    {}", self.elapsed().as_secs_f64(), figures.text()));
                }
            }
        }
    }

    /// Takes the live line away and writes what stays.
    pub fn finish(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(text);
    }

    fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.begun)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line. That nobody reads it is no reason to leave the demo in the middle.
fn say(line: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

//! The lines of the demo: each follows from its number, so that what arrives can be checked to the last byte.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;

/// Writes per second; each has as many lines as the rate asks for.
const WRITES_PER_SECOND: u64 = 50;
const PREFIX: &str = "demo ";

/// Appends line `number` to `line`, without a line ending.
pub fn write(line: &mut String, number: u64) {
    const VERBS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];
    // A multiplication by a large odd number spreads neighbours, so that lines differ in length and content.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let pick = |bits: u32, below: u64| (spread >> bits) % below;
    let verb = usize::try_from(pick(60, 4)).ok().and_then(|index| VERBS.get(index)).unwrap_or(&"GET");
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "{PREFIX}{number:08} {verb} /orders/{:06}?page={} status={} took={}us trace={spread:016x} agent=\"demo/1.0 (ünïcode)\"",
        pick(8, 1_000_000),
        pick(20, 100),
        200 + pick(30, 5) * 100,
        pick(12, 100_000),
    );
    for word in 0..pick(40, 6) {
        let _ = write!(line, " k{word}=v{}", pick(44, 9999));
    }
}

/// The number that a line says it has.
#[must_use]
pub fn number_of(line: &str) -> Option<u64> {
    line.strip_prefix(PREFIX)?.get(..8)?.parse().ok()
}

/// A thread that writes lines at a steady rate until it is stopped.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    lines: AtomicU64,
    bytes: AtomicU64,
    rotate: AtomicBool,
    stop: AtomicBool,
}

impl Writer {
    /// Begins to write `rate` lines a second to `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(path: &Path, rate: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            lines: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rotate: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let file = append_to(path)?;
        let thread = std::thread::Builder::new().name("demo-writer".into());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(file, rate)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Lines that were written.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::Acquire)
    }

    /// Bytes that were written, line endings included.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Has the file renamed and a new one begun, before the next write.
    pub fn rotate(&self) {
        self.shared.rotate.store(true, Ordering::Release);
    }

    /// Whether a rotation that was asked for is still to be done.
    pub fn is_rotating(&self) -> bool {
        self.shared.rotate.load(Ordering::Acquire)
    }

    /// Whether it has ended by itself, which is a failure.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops writing.
    ///
    /// # Errors
    /// What kept it from writing, if something did.
    pub fn stop(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the writer panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Shared {
    fn run(&self, mut file: File, rate: u64) -> io::Result<()> {
        let begun = clock::now();
        let (mut text, mut line) = (String::new(), String::new());
        let mut rotations: u32 = 0;
        for turn in 1_u64.. {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            if self.rotate.load(Ordering::Acquire) {
                rotations += 1;
                let mut rotated = self.path.clone().into_os_string();
                rotated.push(format!(".{rotations}"));
                fs::rename(&self.path, rotated)?;
                file = append_to(&self.path)?;
                self.rotate.store(false, Ordering::Release);
            }
            let first = self.lines.load(Ordering::Acquire);
            let next = (rate.saturating_mul(turn) / WRITES_PER_SECOND).max(first);
            text.clear();
            for number in first..next {
                line.clear();
                write(&mut line, number);
                text.push_str(&line);
                text.push('\n');
            }
            file.write_all(text.as_bytes())?;
            self.bytes.fetch_add(text.len() as u64, Ordering::AcqRel);
            self.lines.store(next, Ordering::Release);
            let due = Duration::from_millis(turn.saturating_mul(1000 / WRITES_PER_SECOND));
            std::thread::sleep(due.saturating_sub(clock::now().saturating_duration_since(begun)));
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_its_number_and_follows_from_it() {
        for number in [0, 1, 99_999_999, 12_345] {
            let mut line = String::new();
            write(&mut line, number);
            assert_eq!(number_of(&line), Some(number));
            assert!(line.len() > 80 && !line.contains('\n'), "{line}");
        }
        assert_eq!(number_of("demo x"), None);
        assert_eq!(number_of(""), None);
    }
}

//! The balance: what was written against what the collector's file holds, line by line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::lines;

/// The longest line of the out file that is looked at, in bytes; the demo's are a tenth of it.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What became of the lines that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Lines that were written.
    pub written: u64,
    /// Of these, lines that are stored, as they were written.
    pub delivered: u64,
    /// Lines that are stored although they were stored already.
    pub duplicates: u64,
    /// Stored lines that nobody wrote like that.
    pub altered: u64,
}

impl Balance {
    /// Lines that were written and are not stored.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.written.saturating_sub(self.delivered)
    }

    /// Whether every line is stored once, and nothing else.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost() == 0 && self.duplicates == 0 && self.altered == 0
    }

    /// Goes through the collector's file `out`, for the lines 0 to `written`.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(out: &Path, written: u64) -> io::Result<Self> {
        let mut balance = Self { written, ..Self::default() };
        let mut seen = vec![false; usize::try_from(written).map_err(io::Error::other)?];
        let mut reader = BufReader::with_capacity(1 << 18, File::open(out)?);
        let (mut line, mut expected) = (Vec::new(), String::new());
        loop {
            line.clear();
            if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(balance);
            }
            let data = serde_json::from_slice::<StoredEvent>(&line).ok().map(|event| event.data);
            let number = data.as_deref().and_then(lines::number_of);
            let slot = number.and_then(|number| seen.get_mut(usize::try_from(number).ok()?));
            match (data, number, slot) {
                (Some(data), Some(number), Some(slot)) => {
                    expected.clear();
                    lines::write(&mut expected, number);
                    if data != expected {
                        balance.altered += 1;
                    } else if std::mem::replace(slot, true) {
                        balance.duplicates += 1;
                    } else {
                        balance.delivered += 1;
                    }
                }
                _ => balance.altered += 1,
            }
        }
    }
}

#[derive(Deserialize)]
struct StoredEvent {
    data: String,
}

/// Counts the lines of a growing file, looking at each byte once. The collector cuts off what it had not acknowledged
/// when it was killed, so the count may be a little above the truth until [`LineCount::restart`].
#[derive(Debug)]
pub struct LineCount {
    path: PathBuf,
    bytes: u64,
    lines: u64,
}

impl LineCount {
    /// Counts from the beginning of `path`, which need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, bytes: 0, lines: 0 }
    }

    /// Begins again.
    pub const fn restart(&mut self) {
        self.bytes = 0;
        self.lines = 0;
    }

    /// The lines that there are now.
    pub fn refresh(&mut self) -> u64 {
        // A file that cannot be read for the moment has as many lines as before.
        let _ = self.read_on();
        self.lines
    }

    fn read_on(&mut self) -> io::Result<()> {
        use std::io::{Seek as _, SeekFrom};

        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.bytes {
            self.restart();
        }
        file.seek(SeekFrom::Start(self.bytes))?;
        let mut chunk = vec![0; 1 << 18];
        loop {
            let read = file.read(&mut chunk)?;
            let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { return Ok(()) };
            self.bytes += read.len() as u64;
            self.lines += memchr::memchr_iter(b'\n', read).count() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(numbers: &[u64]) -> String {
        let event = |number: &u64| {
            let mut data = String::new();
            lines::write(&mut data, *number);
            serde_json::json!({"agent": "demo", "source": "demo", "seq": 1, "data": data}).to_string() + "\n"
        };
        numbers.iter().map(event).collect()
    }

    fn balance(text: &str, written: u64) -> Balance {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Balance::of(file.path(), written).unwrap()
    }

    #[test]
    fn each_line_once_in_any_order_is_clean() {
        let found = balance(&stored(&[2, 0, 1]), 3);
        assert!(found.is_clean());
        assert_eq!(found.delivered, 3);
    }

    #[test]
    fn what_is_lost_stored_twice_or_altered_is_found() {
        assert_eq!(balance(&stored(&[0, 2]), 3).lost(), 1);
        assert_eq!(balance(&stored(&[0, 1, 1]), 2).duplicates, 1);
        assert_eq!(balance(&stored(&[0, 1, 2]), 2).altered, 1, "a line that was never written");
        let altered = balance(&stored(&[0, 1]).replacen("00000001", "00000001x", 1), 2);
        assert_eq!((altered.altered, altered.lost()), (1, 1));
        assert_eq!(balance("{\"torn", 0).altered, 1);
        for text in [stored(&[0, 2]), stored(&[0, 1, 1]), "x\n".to_owned()] {
            assert!(!balance(&text, 3).is_clean());
        }
    }
}

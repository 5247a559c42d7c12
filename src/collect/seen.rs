//! Which events are stored: in memory as ranges, on disk as an append-only index of checked records.
//!
//! Invariants:
//! - One record is one commit: the length of the out file after it, and every range that it added. A commit is in
//!   the index whole or not at all, because a record counts only with its line feed and its checksum.
//! - A record is written after the lines it speaks of are durable, so no record promises a line that is not there.
//! - Only the last record can be torn: a commit begins after the one before it is durable. A damaged record with a
//!   good one behind it is damage that a crash cannot cause, and is reported instead of repaired.
//!
//! The file is text. The first line names the format; every other line is the CRC32 of what follows the space, as
//! eight hexadecimal digits, a space, and a JSON object:
//!
//! ```text
//! log-agent-seen 1
//! 9ae0daaf {"out":4711,"seen":[["0123456789abcdef0123456789abcdef","app",1,50]]}
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ranges::{Run, SeqRanges};
use super::request::SpoolId;

/// The first line of an index.
pub(super) const FORMAT_LINE: &[u8] = b"log-agent-seen 1\n";
/// The longest record that is read. The longest that is written has a range for each of 64 requests' sources.
const RECORD_BYTES_MAX: u64 = 2 << 30;
/// Ranges in one record of a rewritten index.
const RANGES_PER_RECORD: usize = 1000;

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else, or of a newer version.
    #[error("{} is not an index that this version can read; it was left as it is", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A record in the middle is damaged.
    #[error(
        "{} is damaged at byte {offset}, before records that are not: restore it from a copy, or begin a new --out",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
    },
}

/// One commit, as it stands in the index.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Length of the out file after the commit.
    pub out: u64,
    /// Spool, source, first and last sequence number of each range that was added.
    #[serde(borrow)]
    pub seen: Vec<SeenRange<'a>>,
}

/// A range in a [`Record`]: spool, source, first and last sequence number.
pub type SeenRange<'a> = (Cow<'a, str>, Cow<'a, str>, u64, u64);

impl Record<'_> {
    fn encode(&self, into: &mut Vec<u8>) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        write!(into, "{:08x} ", crc32fast::hash(&json))?;
        into.extend_from_slice(&json);
        into.push(b'\n');
        Ok(())
    }

    fn decode(line: &[u8]) -> Option<Record<'_>> {
        let (crc, rest) = line.strip_suffix(b"\n")?.split_at_checked(8)?;
        let json = rest.strip_prefix(b" ")?;
        let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
        if crc32fast::hash(json) != crc {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// Which events are stored.
#[derive(Debug, Default)]
pub struct Seen {
    spools: BTreeMap<SpoolId, BTreeMap<Box<str>, SeqRanges>>,
    range_count: usize,
    event_count: u64,
}

impl Seen {
    /// Adds a range and returns those parts of it that are new.
    pub fn insert(&mut self, spool: SpoolId, source: &str, run: Run) -> Vec<Run> {
        let sources = self.spools.entry(spool).or_default();
        let fresh = match sources.get_mut(source) {
            Some(ranges) => {
                let before = ranges.range_count();
                let fresh = ranges.insert(run);
                self.range_count = self.range_count.saturating_sub(before) + ranges.range_count();
                fresh
            }
            None => {
                let ranges = sources.entry(source.into()).or_default();
                let fresh = ranges.insert(run);
                self.range_count += 1;
                fresh
            }
        };
        let events = fresh.iter().map(|run| run.count()).fold(0, u64::saturating_add);
        // An index may say more than any collector can have stored.
        self.event_count = self.event_count.saturating_add(events);
        fresh
    }

    /// Takes back what [`Seen::insert`] said was new, after a commit that failed.
    pub fn remove(&mut self, spool: SpoolId, source: &str, fresh: Run) {
        let Some(sources) = self.spools.get_mut(&spool) else { return };
        let Some(ranges) = sources.get_mut(source) else { return };
        let before = ranges.range_count();
        ranges.remove(fresh);
        self.range_count = self.range_count.saturating_sub(before) + ranges.range_count();
        self.event_count = self.event_count.saturating_sub(fresh.count());
        if ranges.range_count() == 0 {
            sources.remove(source);
        }
        if sources.is_empty() {
            self.spools.remove(&spool);
        }
    }

    /// How many ranges there are over all sources; what this costs in memory.
    #[must_use]
    pub const fn range_count(&self) -> usize {
        self.range_count
    }

    /// How many events are stored.
    #[must_use]
    pub const fn event_count(&self) -> u64 {
        self.event_count
    }

    /// Every source of every spool with its ranges, in order.
    pub fn sources(&self) -> impl Iterator<Item = (SpoolId, &str, &SeqRanges)> {
        self.spools
            .iter()
            .flat_map(|(spool, sources)| sources.iter().map(|(name, ranges)| (*spool, &**name, ranges)))
    }
}

/// The index file.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file: File,
    /// Length up to which the file is known to hold whole records.
    len: u64,
    /// Length when it was last rewritten.
    compact_len: u64,
    /// The rename that put the file in place may not be durable. Until it is, a power cut could bring the file before
    /// it back, which does not know what was appended since; so nothing is appended.
    rename_unsynced: bool,
}

/// What an index said when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// Which events are stored.
    pub seen: Seen,
    /// The length of the out file after the last commit.
    pub out_len: u64,
}

impl Index {
    /// Opens the index at `path`, creating an empty one where there is none, and rewrites it to one range a range.
    /// A torn last record is dropped: its commit was never acknowledged.
    ///
    /// # Errors
    /// [`SeenError`] where the file cannot be read or written, is no index, or is damaged in the middle.
    pub fn open(path: &Path) -> Result<(Self, Loaded), SeenError> {
        let loaded = match File::open(path) {
            Ok(file) => load(path, file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Loaded { seen: Seen::default(), out_len: 0 }
            }
            Err(source) => return Err(SeenError::Io { action: "open", path: path.to_owned(), source }),
        };
        let (file, len) = rewrite(path, &loaded.seen, loaded.out_len)?;
        sync_directory(path).map_err(|source| SeenError::Io {
            action: "sync the directory of",
            path: path.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        Ok((Self { path, file, len, compact_len: len, rename_unsynced: false }, loaded))
    }

    /// Appends the record of a commit, durably. After an error the file may hold a part of it or all of it, until
    /// [`Index::roll_back`] succeeds.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        if self.rename_unsynced {
            sync_directory(&self.path)?;
            self.rename_unsynced = false;
        }
        let mut encoded = Vec::with_capacity(128);
        record.encode(&mut encoded)?;
        self.file.write_all_at(&encoded, self.len)?;
        self.file.sync_data()?;
        self.len += encoded.len() as u64;
        Ok(())
    }

    /// Takes back, durably, whatever a failed [`Index::append`] left.
    ///
    /// # Errors
    /// What the system says.
    pub fn roll_back(&self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }

    /// Whether the file is mostly records of ranges that have grown together since.
    #[must_use]
    pub const fn wants_rewrite(&self) -> bool {
        const SLACK_BYTES: u64 = 16 << 20;
        self.len > self.compact_len.saturating_mul(2).saturating_add(SLACK_BYTES)
    }

    /// Replaces the file by a smaller one that says the same.
    ///
    /// # Errors
    /// [`SeenError::Io`]; the old file stays in use, unless only the rename may not be durable: then the new one is
    /// in use, and [`Index::append`] sees to it.
    pub fn rewrite(&mut self, seen: &Seen, out_len: u64) -> Result<(), SeenError> {
        // Whatever happens, the next try is another slack away.
        self.compact_len = self.len;
        let (file, len) = rewrite(&self.path, seen, out_len)?;
        self.file = file;
        self.len = len;
        self.compact_len = len;
        self.rename_unsynced = true;
        sync_directory(&self.path).map_err(|source| SeenError::Io {
            action: "sync the directory of",
            path: self.path.clone(),
            source,
        })?;
        self.rename_unsynced = false;
        Ok(())
    }
}

pub(super) fn load(path: &Path, file: File) -> Result<Loaded, SeenError> {
    let io_error = |source| SeenError::Io { action: "read", path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    reader.by_ref().take(64).read_until(b'\n', &mut line).map_err(io_error)?;
    if line != FORMAT_LINE {
        // The file comes into being by a rename, whole: another first line is another file or another version.
        return Err(SeenError::Format { path: path.to_owned() });
    }

    let mut loaded = Loaded { seen: Seen::default(), out_len: 0 };
    let mut offset = line.len() as u64;
    let mut damaged_at = None;
    loop {
        line.clear();
        let read = reader.by_ref().take(RECORD_BYTES_MAX).read_until(b'\n', &mut line).map_err(io_error)?;
        if read == 0 {
            return Ok(loaded);
        }
        match (Record::decode(&line), damaged_at) {
            (Some(_), Some(offset)) => return Err(SeenError::Damaged { path: path.to_owned(), offset }),
            (Some(record), None) => {
                adopt(&mut loaded, &record).ok_or(SeenError::Damaged { path: path.to_owned(), offset })?;
            }
            (None, Some(_)) => {}
            (None, None) => damaged_at = Some(offset),
        }
        offset += read as u64;
    }
}

/// Takes a record in; `None` where it says what no collector writes.
fn adopt(loaded: &mut Loaded, record: &Record<'_>) -> Option<()> {
    for (spool, source, first, last) in &record.seen {
        let spool = SpoolId::parse(spool)?;
        if *first == 0 || last < first || *last > super::ranges::SEQ_MAX {
            return None;
        }
        loaded.seen.insert(spool, source, Run { first: *first, last: *last });
    }
    loaded.out_len = record.out;
    Some(())
}

/// Writes a whole index beside `path`, durably, and renames it there. Returns the open file and its length. The rename
/// is durable once the directory is synced.
fn rewrite(path: &Path, seen: &Seen, out_len: u64) -> Result<(File, u64), SeenError> {
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let new_path = PathBuf::from(new_path);
    write_whole(&new_path, path, seen, out_len).map_err(|source| {
        // What is left is of no use; that it may stay does no harm, the next rewrite begins it anew.
        let _ = std::fs::remove_file(&new_path);
        SeenError::Io { action: "write", path: new_path.clone(), source }
    })
}

fn write_whole(new_path: &Path, path: &Path, seen: &Seen, out_len: u64) -> io::Result<(File, u64)> {
    let ranges: Vec<SeenRange<'_>> = seen
        .sources()
        .flat_map(|(spool, source, ranges)| {
            ranges
                .iter()
                .map(move |run| (Cow::Owned(spool.to_string()), Cow::Borrowed(source), run.first, run.last))
        })
        .collect();
    let mut encoded = FORMAT_LINE.to_vec();
    for chunk in ranges.chunks(RANGES_PER_RECORD) {
        Record { out: out_len, seen: chunk.to_vec() }.encode(&mut encoded)?;
    }
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(new_path)?;
    file.write_all(&encoded)?;
    file.sync_all()?;
    std::fs::rename(new_path, path)?;
    Ok((file, encoded.len() as u64))
}

/// Makes the directory entry of `path` durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

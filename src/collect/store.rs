//! The out file and its index: what makes an event stored once.
//!
//! Invariants:
//! - Up to [`Store::out_len`] the out file holds whole lines, each of an event that the index knows, each once. What
//!   is behind it belongs to a commit that was not acknowledged, and is cut off before anything else is written.
//! - A commit is acknowledged after its lines *and* its record are durable.
//!
//! The order of a commit, and why a crash between any two steps is safe:
//!
//! 1. The new lines are written behind `out_len`. *Crash:* the index does not know them, so the next start cuts them
//!    off. They were not acknowledged, so their sender still has them and sends them again.
//! 2. The out file is fdatasync'ed. *Crash:* as before.
//! 3. One record with the new ranges and the new length is appended to the index. *Crash:* the record is either torn
//!    and dropped, and all is as before, or whole, and then the lines it speaks of are durable by step 2.
//! 4. The index is fdatasync'ed. *Crash:* the events are stored; a sender that did not hear of it sends them again and
//!    they are recognised.
//! 5. The requests are answered.
//!
//! Where a step fails instead (disk full, input/output error), the index is cut back first and the out file second,
//! each durably: in the other order a power cut in between could leave a record of lines that are gone. Until both
//! have worked nothing is stored, and every request is answered with an error. A failed fdatasync is therefore never
//! trusted to have kept anything: all that it covered is cut off, and written anew when it is sent again.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ranges::Run;
use super::request::{Batch, SpoolId};
use super::seen::{self, Index, Record, Seen, SeenError};

/// The most ranges that are remembered over all sources, about 64 bytes each. In order a source needs one; only a
/// sender that leaves gaps for ever could reach this, and it is refused then.
pub const RANGES_MAX: usize = 1_000_000;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The out file cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another collector writes to the same file.
    #[error("{} is in use by another collector", path.display())]
    Locked {
        /// The out file.
        path: PathBuf,
    },
    /// The out file has content that no index speaks of.
    #[error(
        "{} has content, and no index {} beside it: it was not written by a collector, and would be overwritten",
        path.display(), index.display()
    )]
    Foreign {
        /// The out file.
        path: PathBuf,
        /// Where its index would be.
        index: PathBuf,
    },
    /// Lines that were acknowledged are missing.
    #[error(
        "{} does not hold the {expected} bytes of whole lines that {} says were stored: it was cut or replaced; \
         restore it, or begin a new --out",
        path.display(), index.display()
    )]
    Missing {
        /// The out file.
        path: PathBuf,
        /// Its index.
        index: PathBuf,
        /// What the index says.
        expected: u64,
    },
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] SeenError),
}

/// Why a batch was not stored. It may be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk did not take it.
    #[error("not stored: {0}")]
    Disk(String),
    /// Too many gaps in the sequence numbers.
    #[error("not stored: the sequence numbers have more than {RANGES_MAX} gaps")]
    TooManyRanges,
}

/// What became of the events of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Events that were new.
    pub stored: u64,
    /// Events that were there already.
    pub duplicates: u64,
}

/// The out file with its index.
#[derive(Debug)]
pub struct Store {
    out: File,
    out_len: u64,
    index: Index,
    seen: Seen,
    /// A commit failed and could not be taken back yet.
    broken: bool,
}

/// A range that a commit adds, for its record and for taking it back.
struct Addition<'a> {
    spool: SpoolId,
    source: &'a str,
    run: Run,
}

impl Store {
    /// Opens the out file at `path` with its index `<path>.seen`, both created where they are not there, and takes
    /// the lock that keeps other collectors away.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed in files that are not a collector's.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io_error = |action| move |source| StoreError::Io { action, path: path.to_owned(), source };
        let out = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io_error("open"))?;
        match out.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io_error("lock")(source)),
        }
        let index_path = index_path(path);
        let found_len = out.metadata().map_err(io_error("look at"))?.len();
        let has_index = index_path.try_exists().map_err(io_error("look beside"))?;
        if found_len > 0 && !has_index {
            return Err(StoreError::Foreign { path: path.to_owned(), index: index_path });
        }
        seen::sync_directory(path).map_err(io_error("sync the directory of"))?;
        let (index, loaded) = Index::open(&index_path)?;
        if !ends_a_line(&out, loaded.out_len, found_len).map_err(io_error("read"))? {
            let expected = loaded.out_len;
            return Err(StoreError::Missing { path: path.to_owned(), index: index_path, expected });
        }
        if found_len > loaded.out_len {
            tracing::info!(
                path = %path.display(), bytes = found_len - loaded.out_len,
                "cut off lines that were never acknowledged"
            );
            out.set_len(loaded.out_len).map_err(io_error("truncate"))?;
            out.sync_all().map_err(io_error("sync"))?;
        }
        Ok(Self { out, out_len: loaded.out_len, index, seen: loaded.seen, broken: false })
    }

    /// Stores what is new in `batches`, in one commit, durably. Each gets its own answer.
    pub fn commit(&mut self, batches: &[Batch]) -> Vec<Result<Stored, CommitError>> {
        if self.broken
            && let Err(error) = self.roll_back()
        {
            return batches.iter().map(|_| Err(CommitError::Disk(error.to_string()))).collect();
        }
        let mut additions = Vec::new();
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut answers: Vec<_> =
            batches.iter().map(|batch| self.claim(batch, &mut additions, &mut pieces)).collect();
        if additions.is_empty() {
            // Nothing new: what there is was made durable by an earlier commit.
            return answers;
        }
        match self.write(&additions, &pieces) {
            Ok(()) => self.rewrite_index(),
            Err(error) => {
                tracing::warn!(%error, "a commit failed");
                for added in &additions {
                    self.seen.remove(added.spool, added.source, added.run);
                }
                self.broken = true;
                if let Err(error) = self.roll_back() {
                    tracing::warn!(%error, "a failed commit could not be taken back yet");
                }
                for answer in &mut answers {
                    *answer = Err(CommitError::Disk(error.to_string()));
                }
            }
        }
        answers
    }

    /// Which events are stored.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Length of the out file up to the last acknowledged line.
    #[must_use]
    pub const fn out_len(&self) -> u64 {
        self.out_len
    }

    /// Notes the events of `batch` as seen, and where the lines of the new ones stand.
    fn claim<'a>(
        &mut self,
        batch: &'a Batch,
        additions: &mut Vec<Addition<'a>>,
        pieces: &mut Vec<&'a [u8]>,
    ) -> Result<Stored, CommitError> {
        // Each range of the request adds at most one range to the set.
        if self.seen.range_count().saturating_add(batch.sources.len()) > RANGES_MAX {
            return Err(CommitError::TooManyRanges);
        }
        let mut stored = Stored::default();
        let mut whole = Some(0..0);
        for source in &batch.sources {
            let fresh = self.seen.insert(source.spool, &source.name, source.run);
            let new: u64 = fresh.iter().map(|run| run.count()).sum();
            stored.stored += new;
            stored.duplicates += source.run.count().saturating_sub(new);
            for run in fresh {
                let span = source.span(run);
                // Runs that follow each other in the batch are written as one piece.
                whole = match whole {
                    Some(before) if before.end == span.start => Some(before.start..span.end),
                    before => {
                        pieces.extend(before.and_then(|before| batch.lines.get(before)));
                        Some(span)
                    }
                };
                additions.push(Addition { spool: source.spool, source: &source.name, run });
            }
        }
        pieces.extend(whole.and_then(|span| batch.lines.get(span)));
        Ok(stored)
    }

    /// Steps 1 to 4 of the order above.
    fn write(&mut self, additions: &[Addition<'_>], pieces: &[&[u8]]) -> io::Result<()> {
        let mut out_len = self.out_len;
        for piece in pieces {
            self.out.write_all_at(piece, out_len)?;
            out_len += piece.len() as u64;
        }
        self.out.sync_data()?;
        let range = |added: &Addition<'_>| {
            (
                Cow::Owned(added.spool.to_string()),
                Cow::Owned(added.source.to_owned()),
                added.run.first,
                added.run.last,
            )
        };
        self.index.append(&Record { out: out_len, seen: additions.iter().map(range).collect() })?;
        self.out_len = out_len;
        Ok(())
    }

    /// Takes back what a failed commit left: the index first, for the reason given above.
    fn roll_back(&mut self) -> io::Result<()> {
        self.index.roll_back()?;
        self.out.set_len(self.out_len)?;
        self.out.sync_all()?;
        self.broken = false;
        Ok(())
    }

    fn rewrite_index(&mut self) {
        if self.index.wants_rewrite()
            && let Err(error) = self.index.rewrite(&self.seen, self.out_len)
        {
            tracing::warn!(%error, "the index could not be made smaller; it stays as it is");
        }
    }
}

/// The index of the out file at `out`.
#[must_use]
pub fn index_path(out: &Path) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".seen");
    PathBuf::from(path)
}

/// Whether the first `len` bytes of a file of `found_len` bytes are there and end with a line feed.
fn ends_a_line(file: &File, len: u64, found_len: u64) -> io::Result<bool> {
    let Some(last) = len.checked_sub(1) else { return Ok(true) };
    if found_len < len {
        return Ok(false);
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::request::Identity;
    use super::*;

    const SPOOL: &str = "0123456789abcdef0123456789abcdef";

    /// A batch with the events `first..=last` of each source, each with a line that says which it is.
    fn batch(runs: &[(&str, u64, u64)]) -> Batch {
        let seq: Vec<String> = runs.iter().map(|(_, first, last)| format!("{first}-{last}")).collect();
        let identity = Identity::parse(&format!("\"{SPOOL}-1-2\""), &seq.join(",")).unwrap();
        let sources: Vec<String> = runs
            .iter()
            .map(|(name, first, last)| {
                let logs: Vec<String> = (*first..=*last)
                    .map(|seq| format!(r#"{{"data":"{name} {seq}","timestamp":"t"}}"#))
                    .collect();
                format!(r#"{{"sourceName":"{name}","logs":[{}]}}"#, logs.join(","))
            })
            .collect();
        let body = format!(r#"{{"agentName":"a","sources":[{}]}}"#, sources.join(","));
        Batch::parse(&identity, body.as_bytes(), 1 << 20).unwrap()
    }

    fn commit(store: &mut Store, runs: &[(&str, u64, u64)]) -> Stored {
        store.commit(&[batch(runs)]).remove(0).unwrap()
    }

    /// The events in an out file, in order of their lines; panics on a line that is not whole.
    fn events(out: &Path) -> Vec<(String, u64)> {
        let text = fs::read_to_string(out).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                (line["source"].as_str().unwrap().to_owned(), line["seq"].as_u64().unwrap())
            })
            .collect()
    }

    fn run(source: &str, first: u64, last: u64) -> Vec<(String, u64)> {
        (first..=last).map(|seq| (source.to_owned(), seq)).collect()
    }

    #[test]
    fn only_new_events_are_written_however_batches_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut store = Store::open(&out).unwrap();
        assert_eq!(commit(&mut store, &[("a", 4, 6), ("b", 1, 2)]), Stored { stored: 5, duplicates: 0 });
        assert_eq!(commit(&mut store, &[("a", 1, 9)]), Stored { stored: 6, duplicates: 3 });
        assert_eq!(commit(&mut store, &[("b", 2, 3), ("a", 9, 10)]), Stored { stored: 2, duplicates: 2 });
        // One source twice in one batch, overlapping.
        assert_eq!(commit(&mut store, &[("c", 1, 3), ("c", 2, 4)]), Stored { stored: 4, duplicates: 2 });
        drop(store);
        let mut expected = run("a", 4, 6);
        for (source, first, last) in
            [("b", 1, 2), ("a", 1, 3), ("a", 7, 9), ("b", 3, 3), ("a", 10, 10), ("c", 1, 4)]
        {
            expected.extend(run(source, first, last));
        }
        assert_eq!(events(&out), expected);
        let store = Store::open(&out).unwrap();
        assert_eq!(store.seen().event_count(), expected.len() as u64);
        assert_eq!(store.seen().range_count(), 3);
    }

    /// Every state that a crash during a commit can leave: lines without a record, cut anywhere; all lines with a
    /// record that is cut anywhere.
    #[test]
    fn a_crash_at_any_byte_of_a_commit_leaves_each_event_once() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let index = index_path(&out);
        let mut store = Store::open(&out).unwrap();
        commit(&mut store, &[("a", 1, 3)]);
        let (out_before, index_before) = (fs::read(&out).unwrap(), fs::read(&index).unwrap());
        commit(&mut store, &[("a", 3, 5), ("b", 1, 1)]);
        drop(store);
        let (out_after, index_after) = (fs::read(&out).unwrap(), fs::read(&index).unwrap());
        assert!(out_after.starts_with(&out_before) && index_after.starts_with(&index_before));

        let lines_cut = (out_before.len()..=out_after.len()).map(|len| (len, index_before.len()));
        let record_cut = (index_before.len()..=index_after.len()).map(|len| (out_after.len(), len));
        for (out_len, index_len) in lines_cut.chain(record_cut) {
            for zero_filled in [false, true] {
                let mut out_bytes = out_after[..out_len].to_vec();
                let mut index_bytes = index_after[..index_len].to_vec();
                if zero_filled {
                    // A file system may give a file its length before its content.
                    out_bytes.resize(out_after.len(), 0);
                    index_bytes.resize(index_after.len(), 0);
                }
                fs::write(&out, out_bytes).unwrap();
                fs::write(&index, index_bytes).unwrap();
                let mut store = Store::open(&out).unwrap();
                let whole = index_len == index_after.len();
                assert_eq!(store.seen().event_count(), if whole { 6 } else { 3 }, "{out_len} {index_len}");
                assert_eq!(events(&out).len() as u64, store.seen().event_count());
                commit(&mut store, &[("a", 1, 5), ("b", 1, 1)]);
                drop(store);
                let mut found = events(&out);
                found.sort();
                let mut expected = run("a", 1, 5);
                expected.extend(run("b", 1, 1));
                assert_eq!(found, expected, "after a crash with {out_len} and {index_len} bytes");
            }
        }
    }

    #[test]
    fn a_second_collector_on_the_same_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let store = Store::open(&out).unwrap();
        assert!(matches!(Store::open(&out), Err(StoreError::Locked { .. })));
        drop(store);
        Store::open(&out).unwrap();
    }

    #[test]
    fn files_that_are_not_the_collectors_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::write(&out, "precious\n").unwrap();
        assert!(matches!(Store::open(&out), Err(StoreError::Foreign { .. })));
        assert_eq!(fs::read(&out).unwrap(), b"precious\n");
        fs::write(index_path(&out), "log-agent-seen 2\n").unwrap();
        assert!(matches!(Store::open(&out), Err(StoreError::Index(SeenError::Format { .. }))));
        assert_eq!(fs::read(index_path(&out)).unwrap(), b"log-agent-seen 2\n");
    }

    #[test]
    fn an_out_file_that_lost_acknowledged_lines_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut store = Store::open(&out).unwrap();
        commit(&mut store, &[("a", 1, 3)]);
        drop(store);
        let whole = fs::read(&out).unwrap();
        for found in [&b""[..], &whole[..whole.len() - 1], &vec![b'x'; whole.len() + 9]] {
            fs::write(&out, found).unwrap();
            assert!(matches!(Store::open(&out), Err(StoreError::Missing { .. })));
            assert_eq!(fs::read(&out).unwrap(), found);
        }
    }

    #[test]
    fn a_damaged_record_before_good_ones_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut store = Store::open(&out).unwrap();
        commit(&mut store, &[("a", 1, 3)]);
        let damaged_from = fs::read(index_path(&out)).unwrap().len() - 5;
        commit(&mut store, &[("a", 4, 5)]);
        drop(store);
        let mut index = fs::read(index_path(&out)).unwrap();
        index[damaged_from] ^= 1;
        fs::write(index_path(&out), &index).unwrap();
        assert!(matches!(Store::open(&out), Err(StoreError::Index(SeenError::Damaged { .. }))));
        assert_eq!(fs::read(index_path(&out)).unwrap(), index);
    }

    #[test]
    fn a_failed_commit_is_taken_back_and_may_be_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut store = Store::open(&out).unwrap();
        commit(&mut store, &[("a", 1, 3)]);
        // A file that is not open for writing stands in for a disk that takes nothing.
        let writable = std::mem::replace(&mut store.out, File::open(&out).unwrap());
        assert!(store.commit(&[batch(&[("a", 2, 6)])]).remove(0).is_err());
        assert_eq!(store.seen().event_count(), 3);
        assert!(store.broken, "the out file could not be cut back either");
        // Nothing is stored, not even what would need no write, before the failure is taken back.
        assert!(store.commit(&[batch(&[("a", 1, 1)])]).remove(0).is_err());
        store.out = writable;
        assert_eq!(commit(&mut store, &[("a", 2, 6)]), Stored { stored: 3, duplicates: 2 });
        assert_eq!(events(&out), run("a", 1, 6));
    }

    #[test]
    fn an_index_is_made_small_again_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut store = Store::open(&out).unwrap();
        for seq in 1..=200 {
            commit(&mut store, &[("a", seq, seq)]);
        }
        let long = fs::metadata(index_path(&out)).unwrap().len();
        store.index.rewrite(&store.seen, store.out_len).unwrap();
        let short = fs::metadata(index_path(&out)).unwrap().len();
        assert!(short * 20 < long, "{short} of {long} bytes");
        commit(&mut store, &[("a", 150, 250)]);
        drop(store);
        assert_eq!(events(&out), run("a", 1, 250));
        let mut store = Store::open(&out).unwrap();
        assert_eq!(commit(&mut store, &[("a", 1, 251)]), Stored { stored: 1, duplicates: 250 });
    }
}

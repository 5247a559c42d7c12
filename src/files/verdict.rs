//! One file: what the spool knows of it, and whether it may be deleted.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use serde::Serialize;

use super::Identity;
use crate::event::{SkipReason, Skipped, SourceName, Witness};
use crate::spool::{Agent, FileRecord, Known, SpoolError, is_same_file, known_files};
use crate::tail::stat_path;

/// How much of the unread rest is looked through at a time.
const WINDOW: usize = 64 << 10;

/// What a spool knows of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileReport {
    /// As it was asked for; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What the file system says it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Its size.
    pub size: u64,
    /// The agent that runs on the spool.
    pub agent: Option<Agent>,
    /// Every byte of it is in the spool or was skipped for a counted reason, durably, for every source that follows it.
    pub may_be_deleted: bool,
    /// What is known for each source.
    pub sources: Vec<FileVerdict>,
}

/// What is known of a file for one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileVerdict {
    /// The source that follows it.
    pub source: String,
    /// Whether it is read to its end, and why not.
    #[serde(flatten)]
    pub answer: Answer,
    /// How far it was read.
    pub offset: u64,
    /// Bytes before the offset that became events, line endings included.
    pub spooled: u64,
    /// Bytes before the offset that did not.
    pub skipped: std::collections::BTreeMap<SkipReason, Skipped>,
}

/// Whether a file is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It is.
    Read,
    /// Lines of it are not read.
    Unread {
        /// Bytes behind the offset.
        unread_bytes: u64,
    },
    /// All whole lines are read; a line without its newline waits behind them.
    IncompleteLine {
        /// Bytes behind the offset.
        unread_bytes: u64,
    },
    /// What was read is no longer what is in it: it was truncated or written anew.
    Replaced {
        /// Bytes of the file.
        unread_bytes: u64,
    },
    /// The spool does not know it, and the configuration says that the source follows it.
    Unknown,
    /// The account of its bytes does not balance.
    Unbalanced,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExamineError {
    /// The spool cannot be asked.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The file cannot be looked at or read.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// There is something else.
    #[error("{0} is not a regular file")]
    Kind(String),
}

/// Says what the spool in `dir` knows of the file at `path`, which `followers` follow as well.
///
/// # Errors
/// Where there is no spool, or it or the file cannot be read.
pub(crate) fn examine(dir: &Path, path: &Path, followers: &[SourceName]) -> Result<FileReport, ExamineError> {
    let shown = path.display().to_string();
    // Known before it is looked at: what is added in between is unread.
    let Known { agent, files } = known_files(dir)?;
    let io = |source| ExamineError::File { path: shown.clone(), source };
    let stat = stat_path(path).map_err(io)?;
    if !stat.is_regular() {
        return Err(ExamineError::Kind(shown));
    }
    let content = Content::open(path, stat.identity.ino).map_err(io)?;
    let mut sources = Vec::new();
    for record in files.iter().filter(|file| is_same_file(&file.checkpoint.identity, &stat.identity)) {
        sources.push(FileVerdict::of(record, content.answer(record).map_err(io)?));
    }
    for name in followers {
        if !sources.iter().any(|verdict| verdict.source == name.as_str()) {
            sources.push(FileVerdict::unknown(name));
        }
    }
    Ok(FileReport {
        path: shown,
        identity: stat.identity.into(),
        size: content.size,
        agent,
        may_be_deleted: !sources.is_empty() && sources.iter().all(|source| source.answer == Answer::Read),
        sources,
    })
}

impl FileVerdict {
    fn of(record: &FileRecord, answer: Answer) -> Self {
        Self {
            source: record.checkpoint.source.to_string(),
            answer,
            offset: record.checkpoint.offset.0,
            spooled: record.account.spooled,
            skipped: record.account.skips.iter().collect(),
        }
    }

    fn unknown(name: &SourceName) -> Self {
        Self {
            source: name.to_string(),
            answer: Answer::Unknown,
            offset: 0,
            spooled: 0,
            skipped: std::collections::BTreeMap::new(),
        }
    }
}

/// The file as it is now.
struct Content {
    file: File,
    size: u64,
}

impl Content {
    /// Opens the file at `path`, which is the one with this inode number.
    fn open(path: &Path, ino: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.ino() != ino {
            return Err(io::Error::other("another file has come to its place; ask again"));
        }
        Ok(Self { file, size: meta.len() })
    }

    fn answer(&self, record: &FileRecord) -> io::Result<Answer> {
        let FileRecord { checkpoint, .. } = record;
        let offset = checkpoint.offset.0;
        let before = offset.saturating_sub(u64::from(checkpoint.tail.len));
        let Some(unread_bytes) = self.size.checked_sub(offset) else {
            return Ok(Answer::Replaced { unread_bytes: self.size });
        };
        if !self.agrees(0, checkpoint.head)? || !self.agrees(before, checkpoint.tail)? {
            return Ok(Answer::Replaced { unread_bytes: self.size });
        }
        if !record.is_balanced() {
            return Ok(Answer::Unbalanced);
        }
        Ok(match unread_bytes {
            0 => Answer::Read,
            _ if self.has_newline(offset)? => Answer::Unread { unread_bytes },
            _ => Answer::IncompleteLine { unread_bytes },
        })
    }

    /// Whether the bytes at `at` are those that the witness saw.
    fn agrees(&self, at: u64, witness: Witness) -> io::Result<bool> {
        let mut bytes = vec![0; usize::from(witness.len)];
        let read = self.read_at(&mut bytes, at)?;
        Ok(read == bytes.len() && Witness::of(&bytes) == witness)
    }

    fn has_newline(&self, from: u64) -> io::Result<bool> {
        let mut window = vec![0; WINDOW];
        let mut at = from;
        loop {
            let read = self.read_at(&mut window, at)?;
            if memchr::memchr(b'\n', window.get(..read).unwrap_or_default()).is_some() {
                return Ok(true);
            }
            if read < window.len() {
                return Ok(false);
            }
            at = at.saturating_add(read as u64);
        }
    }

    /// Reads until `buffer` is full or the file ends.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::event::{Checkpoint, EventBlock, FileOffset, FrameDraft, FrameSink as _, Skips};
    use crate::spool::Spool;
    use crate::spool::tests::{committed, options};

    /// A file and the spool of an agent that follows it.
    pub(in crate::files) struct Followed {
        root: tempfile::TempDir,
    }

    impl Followed {
        pub(in crate::files) fn with(content: &[u8]) -> Self {
            let followed = Self { root: tempfile::tempdir().unwrap() };
            std::fs::write(followed.path(), content).unwrap();
            followed
        }

        pub(in crate::files) fn path(&self) -> PathBuf {
            self.root.path().join("app.log")
        }

        pub(in crate::files) fn spool(&self) -> PathBuf {
            self.root.path().join("spool")
        }

        /// What is known of the file when `offset` bytes of it are read.
        fn draft(&self, source: &str, offset: usize) -> FrameDraft {
            let content = std::fs::read(self.path()).unwrap();
            let head = &content[..offset.min(1024)];
            let tail = &content[offset.saturating_sub(1024)..offset];
            let mut events = EventBlock::default();
            events.push(b"a line", false);
            FrameDraft {
                checkpoint: Checkpoint {
                    source: SourceName::from(source),
                    path: self.path(),
                    identity: stat_path(&self.path()).unwrap().identity,
                    head: Witness::of(head),
                    tail: Witness::of(tail),
                    offset: FileOffset(offset as u64),
                },
                start: FileOffset(0),
                detected: crate::event::Timestamp::from_millis(1_700_000_000_000),
                events,
                skips: Skips::default(),
                before: None,
                forget: false,
            }
        }

        fn examine(&self) -> FileReport {
            examine(&self.spool(), &self.path(), &[]).unwrap()
        }

        #[track_caller]
        fn assert_answer(&self, answer: Answer) {
            let report = self.examine();
            assert_eq!(report.sources.iter().map(|source| source.answer).collect::<Vec<_>>(), [answer]);
            assert_eq!(report.may_be_deleted, answer == Answer::Read);
        }
    }

    /// A spool in which the file is read to an offset.
    pub(in crate::files) struct Spooled(Spool);

    impl Spooled {
        /// Leaves the spool open, as an agent that runs has it.
        pub(in crate::files) fn keep_open(self) -> Spool {
            self.0
        }
    }

    pub(in crate::files) fn spooled(followed: &Followed, offset: usize) -> Spooled {
        let spool = Spool::open(&options(&followed.spool())).unwrap();
        spool.appender().append(followed.draft("app", offset)).unwrap();
        committed(&spool, 2);
        Spooled(spool)
    }

    #[test]
    fn a_file_may_be_deleted_when_it_is_read_to_its_end_with_and_without_an_agent() {
        let followed = Followed::with(b"one\ntwo\n");
        let open = spooled(&followed, 8).keep_open();
        followed.assert_answer(Answer::Read);
        assert!(followed.examine().agent.is_some());
        open.close();
        followed.assert_answer(Answer::Read);
        assert_eq!(followed.examine().agent, None);
        // Under whatever name.
        let renamed = followed.path().with_extension("old");
        std::fs::rename(followed.path(), &renamed).unwrap();
        assert!(examine(&followed.spool(), &renamed, &[]).unwrap().may_be_deleted);
        std::fs::write(followed.path(), "one\ntwo\n").unwrap();
        assert_eq!(followed.examine().sources, [], "the name is no identity");
    }

    #[test]
    fn what_is_not_read_is_in_the_way() {
        let followed = Followed::with(b"one\ntwo\nthree");
        let _open = spooled(&followed, 4).keep_open();
        followed.assert_answer(Answer::Unread { unread_bytes: 9 });
    }

    #[test]
    fn a_line_without_its_newline_is_in_the_way() {
        let followed = Followed::with(&[&b"one\n"[..], &[b'x'; 100_000]].concat());
        let _open = spooled(&followed, 4).keep_open();
        followed.assert_answer(Answer::IncompleteLine { unread_bytes: 100_000 });
        let file = std::fs::File::options().append(true).open(followed.path()).unwrap();
        std::io::Write::write_all(&mut &file, b"\n").unwrap();
        followed.assert_answer(Answer::Unread { unread_bytes: 100_001 });
    }

    #[test]
    fn content_that_was_never_read_is_in_the_way() {
        let followed = Followed::with(b"one\ntwo\n");
        drop(spooled(&followed, 8));
        // The same file with as many bytes, and others.
        std::fs::write(followed.path(), b"one\nnew\n").unwrap();
        followed.assert_answer(Answer::Replaced { unread_bytes: 8 });
        std::fs::write(followed.path(), b"").unwrap();
        followed.assert_answer(Answer::Replaced { unread_bytes: 0 });
    }

    #[test]
    fn every_source_that_follows_it_has_to_have_read_it() {
        let followed = Followed::with(b"one\ntwo\n");
        let open = spooled(&followed, 8).keep_open();
        let web = SourceName::from("web");
        let report = examine(&followed.spool(), &followed.path(), &[web]).unwrap();
        let answers: Vec<_> = report.sources.iter().map(|source| source.answer).collect();
        assert_eq!((answers, report.may_be_deleted), (vec![Answer::Read, Answer::Unknown], false));
        open.appender().append(followed.draft("web", 4)).unwrap();
        committed(&open, 3);
        let report = followed.examine();
        assert_eq!(report.sources[1].answer, Answer::Unread { unread_bytes: 4 });
        assert!(!report.may_be_deleted);
    }

    #[test]
    fn without_a_spool_or_a_file_there_is_no_answer() {
        let followed = Followed::with(b"one\n");
        let error = examine(&followed.spool(), &followed.path(), &[]).unwrap_err();
        assert!(matches!(error, ExamineError::Spool(SpoolError::Missing { .. })), "{error}");
        drop(spooled(&followed, 4));
        let directory = examine(&followed.spool(), followed.root.path(), &[]).unwrap_err();
        assert!(matches!(directory, ExamineError::Kind(_)), "{directory}");
        std::fs::remove_file(followed.path()).unwrap();
        let gone = examine(&followed.spool(), &followed.path(), &[]).unwrap_err();
        assert!(matches!(gone, ExamineError::File { .. }), "{gone}");
    }
}

//! The ledger: the index over the segments, in a sled database. The only file that names sled.
//!
//! Invariants:
//! - One owner: whoever holds the [`Ledger`] is the only thread that uses the database.
//! - A commit is one `apply_batch` over one tree, a `flush`, and an fsync of the database's file through a handle of
//!   our own: sled's flush alone ends in `sync_file_range`, which makes neither the file's size nor the disk's cache
//!   durable.
//! - A commit that is gone is noticed: commits are counted in the database and beside it, see [`super::commits`].
//! - Values stay small (below 8 KiB): larger ones go to blob files, which sled never syncs.
//! - The ledger is never trusted against the segments and never deleted: one that does not open, or that is empty
//!   beside segments, is set aside and rebuilt.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::codec::{Cursor, Put as _};
use super::commits::Commits;
use super::disk::Disk;
use super::entries::{
    put_account, put_bytes, put_file, put_loss, take_account, take_bytes, take_file, take_loss,
};
use super::files::FileState;
use super::ledger_watch::Watch;
use super::segment::{Account, SpoolId};
use super::storage;
use crate::batch::{BatchId, Part};
use crate::config::SyncMode;
use crate::event::{CheckpointKey, Position, SegmentId, Seq, SourceName};
use crate::payload::Profile;

/// How long sled may take to open before the ledger counts as broken. It takes milliseconds; but a disk may stall for long,
/// and a ledger that is rebuilt because of that costs duplicates.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is said meanwhile that it is still waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// Page cache of sled; the ledger is small however large the backlog is.
const CACHE_BYTES: u64 = 2 << 20;
/// A ledger whose file is larger than this is written anew; what it holds is a few megabytes at most.
const OUTGROWN_BYTES: u64 = 64 << 20;
/// How long a lock may linger after its database was dropped.
const LOCK_LINGERS: Duration = Duration::from_secs(5);
/// The ledger's layout.
const VERSION: u32 = 1;
/// The destination that keys carry. There is one; the place is kept for several.
const DESTINATION: u16 = 0;
/// The most batches in one group, so that a group's value stays below 8 KiB.
pub(crate) const GROUP_MAX: usize = 128;

const KEY_META: &[u8] = b"f";
const KEY_CURSOR: u8 = b'r';
const KEY_GROUP: u8 = b'g';
const KEY_SOURCE: u8 = b's';
const KEY_PROFILE: u8 = b'p';
const KEY_MARK: &[u8] = b"m";
const KEY_NEXT_SEQ: u8 = b'q';
const KEY_FILE: u8 = b'c';
const KEY_BYTES: u8 = b'b';
const KEY_LOSS: u8 = b'l';
const KEY_COMMITS: &[u8] = b"n";

/// Where a frame stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    pub segment: SegmentId,
    pub offset: u64,
}

/// A batch that was cut and is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchRecord {
    pub id: BatchId,
    /// The frame with its first event.
    pub at: Location,
}

/// Batches that were cut in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The profile under which their payloads are encoded.
    pub profile: u32,
    pub batches: Vec<BatchRecord>,
}

/// What the ledger knows of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceRecord {
    /// Its events before the cursor, under all spool ids.
    pub cut: u64,
    pub account: Account,
}

/// What identifies the spool, and how it was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub lineage: SpoolId,
    pub spool_id: SpoolId,
    /// The boot of the machine during which the spool was last open, where it may hold events that were sent and are
    /// not synced (`sync = "os"`); zero otherwise.
    pub unsynced_boot: [u8; 16],
}

/// The state of all files at the end of a sealed segment: the second witness beside the next segment's snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The sealed segment.
    pub segment: SegmentId,
    /// The position after it.
    pub position: Position,
    /// The id of its events, which the sequence numbers go with.
    pub spool_id: SpoolId,
    pub state: FileState,
}

/// All that a ledger holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Books {
    pub meta: Meta,
    /// The first position that is not cut into a batch.
    pub cursor: Position,
    /// Groups by the number they were filed under.
    pub groups: BTreeMap<u64, Group>,
    pub sources: BTreeMap<SourceName, SourceRecord>,
    /// What payloads are encoded under beside their content.
    pub profiles: BTreeMap<u32, Profile>,
    pub mark: Mark,
}

impl Books {
    pub(super) fn new(meta: Meta, cursor: Position) -> Self {
        Self {
            meta,
            cursor,
            groups: BTreeMap::new(),
            sources: BTreeMap::new(),
            profiles: BTreeMap::new(),
            mark: Mark::default(),
        }
    }

    /// Every event before this position is acknowledged, dead, dropped or damaged.
    pub(super) fn frontier(&self) -> Position {
        self.batches().map(|record| record.id.first).min().unwrap_or(self.cursor).min(self.cursor)
    }

    /// The batches that are not acknowledged, oldest group first.
    pub(super) fn batches(&self) -> impl Iterator<Item = &BatchRecord> {
        self.groups.values().flat_map(|group| &group.batches)
    }
}

/// What one commit changes. Applied to [`Books`] by the caller, to the disk by [`Ledger::commit`].
#[derive(Debug, Default)]
pub(super) struct Changes {
    batch: sled::Batch,
    any: bool,
}

impl Changes {
    pub(super) const fn is_empty(&self) -> bool {
        !self.any
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.any = true;
        self.batch.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        self.any = true;
        self.batch.remove(key);
    }

    pub(super) fn meta(&mut self, meta: &Meta) {
        let mut value = Vec::with_capacity(52);
        value.put_u32(VERSION);
        value.put(&meta.lineage.0);
        value.put(&meta.spool_id.0);
        value.put(&meta.unsynced_boot);
        self.insert(KEY_META, value);
    }

    pub(super) fn cursor(&mut self, cursor: Position) {
        self.insert(&key(KEY_CURSOR, &[]), cursor.0.to_le_bytes().to_vec());
    }

    /// Files the group, or removes it where it is empty.
    pub(super) fn group(&mut self, number: u64, group: &Group) {
        let key = key(KEY_GROUP, &number.to_be_bytes());
        if group.batches.is_empty() {
            return self.remove(&key);
        }
        let mut value = Vec::with_capacity(4 + group.batches.len() * 40);
        value.put_u32(group.profile);
        for record in &group.batches {
            let part = record.id.part.unwrap_or(Part { from: 0, to: 0 });
            value.put_u64(record.id.first.0);
            value.put_u64(record.id.last.0);
            value.put_u32(part.from);
            value.put_u32(part.to);
            value.put_u64(record.at.segment.0);
            value.put_u64(record.at.offset);
        }
        self.insert(&key, value);
    }

    pub(super) fn source(&mut self, name: &SourceName, record: &SourceRecord) {
        let mut value = Vec::with_capacity(40);
        value.put_u64(record.cut);
        put_account(&mut value, &record.account);
        self.insert(&key(KEY_SOURCE, name.as_str().as_bytes()), value);
    }

    pub(super) fn profile(&mut self, number: u32, profile: &Profile) {
        let number = number.to_be_bytes();
        self.insert(&key(KEY_PROFILE, &number), profile.entry());
        for (source, entry) in profile.source_entries() {
            self.insert(&key(KEY_PROFILE, &[&number[..], source.as_str().as_bytes()].concat()), entry);
        }
    }

    /// Takes a profile out, with what sources have of their own in it.
    pub(super) fn forget_profile(&mut self, number: u32, profile: &Profile) {
        let number = number.to_be_bytes();
        self.remove(&key(KEY_PROFILE, &number));
        for (source, _) in profile.source_entries() {
            self.remove(&key(KEY_PROFILE, &[&number[..], source.as_str().as_bytes()].concat()));
        }
    }

    /// Records the mark; of what it knows only what differs from `before`.
    pub(super) fn mark(&mut self, mark: &Mark, before: &Mark) {
        let mut value = Vec::with_capacity(32);
        value.put_u64(mark.segment.0);
        value.put_u64(mark.position.0);
        value.put(&mark.spool_id.0);
        self.insert(KEY_MARK, value);
        let (now, then) = (&mark.state, &before.state);
        for (name, seq) in &now.next_seqs {
            if then.next_seqs.get(name) != Some(seq) {
                self.insert(&key(KEY_NEXT_SEQ, name.as_str().as_bytes()), seq.0.to_le_bytes().to_vec());
            }
        }
        for name in then.next_seqs.keys().filter(|name| !now.next_seqs.contains_key(name)) {
            self.remove(&key(KEY_NEXT_SEQ, name.as_str().as_bytes()));
        }
        self.files(now, then);
        self.losses(now, then);
    }

    /// The files of a mark, and the bytes of its sources.
    fn files(&mut self, now: &FileState, then: &FileState) {
        for (id, record) in now.files.iter().filter(|(id, record)| then.files.get(id) != Some(record)) {
            let mut value = Vec::with_capacity(192);
            put_file(&mut value, record);
            self.insert(&file_key(id), value);
        }
        for id in then.files.keys().filter(|id| !now.files.contains_key(id)) {
            self.remove(&file_key(id));
        }
        for (name, bytes) in now.bytes.iter().filter(|(name, bytes)| then.bytes.get(name) != Some(bytes)) {
            let mut value = Vec::with_capacity(64);
            put_bytes(&mut value, bytes);
            self.insert(&key(KEY_BYTES, name.as_str().as_bytes()), value);
        }
        for name in then.bytes.keys().filter(|name| !now.bytes.contains_key(name)) {
            self.remove(&key(KEY_BYTES, name.as_str().as_bytes()));
        }
    }

    /// The losses of a mark. A number may name another loss than before where what the segments held is gone.
    fn losses(&mut self, now: &FileState, then: &FileState) {
        let before: BTreeMap<_, _> = then.losses.numbered().collect();
        let mut kept = BTreeSet::new();
        for (number, loss) in now.losses.numbered() {
            kept.insert(number);
            if before.get(&number) != Some(&loss) {
                let mut value = Vec::with_capacity(160);
                put_loss(&mut value, loss);
                self.insert(&key(KEY_LOSS, &number.to_be_bytes()), value);
            }
        }
        for number in before.keys().filter(|number| !kept.contains(number)) {
            self.remove(&key(KEY_LOSS, &number.to_be_bytes()));
        }
    }

    fn everything(books: &Books) -> Self {
        let mut changes = Self::default();
        changes.meta(&books.meta);
        changes.cursor(books.cursor);
        for (number, group) in &books.groups {
            changes.group(*number, group);
        }
        for (name, record) in &books.sources {
            changes.source(name, record);
        }
        for (number, profile) in &books.profiles {
            changes.profile(*number, profile);
        }
        changes.mark(&books.mark, &Mark::default());
        changes
    }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + rest.len());
    key.push(kind);
    key.extend_from_slice(&DESTINATION.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

fn file_key(id: &CheckpointKey) -> Vec<u8> {
    let mut rest = Vec::with_capacity(24 + id.source.as_str().len());
    rest.extend_from_slice(&id.identity.dev.to_be_bytes());
    rest.extend_from_slice(&id.identity.ino.to_be_bytes());
    rest.extend_from_slice(&id.identity.birth_ns.to_be_bytes());
    rest.extend_from_slice(id.source.as_str().as_bytes());
    key(KEY_FILE, &rest)
}

/// What went wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// sled refused, or its files could not be synced.
    #[error("the ledger {path} failed")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// What sled said.
        #[source]
        source: sled::Error,
    },
    /// A file operation failed.
    #[error("the ledger {path} failed")]
    Io {
        /// Its directory or file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// sled panicked while it opened the files.
    #[error("the ledger {path} is broken: opening it panicked")]
    Panicked {
        /// Its directory.
        path: PathBuf,
    },
    /// sled did not come back from opening.
    #[error("the ledger {path} did not open within {} s", OPEN_DEADLINE.as_secs())]
    Deadline {
        /// Its directory.
        path: PathBuf,
    },
    /// It opened and an entry is not what it should be.
    #[error("the ledger {path} holds an entry that cannot be read")]
    Entry {
        /// Its directory.
        path: PathBuf,
    },
    /// It opened as it was some commits before: the end of its log is damaged.
    #[error("the ledger {path} has {there} commits of {committed}: the end of its log is damaged")]
    Shortened {
        /// Its directory.
        path: PathBuf,
        /// Commits that it has.
        there: u64,
        /// Commits that it had.
        committed: u64,
    },
    /// Its format is newer than this program.
    #[error(
        "the ledger {path} has version {version}, newer than {VERSION}, the newest that this log-agent reads"
    )]
    Newer {
        /// Its directory.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// An open ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    db: sled::Db,
    /// A handle of our own on sled's file, for the fsync that its flush leaves out.
    file: File,
    disk: Disk,
    path: PathBuf,
    sync: SyncMode,
    commits: Commits,
    /// Commits that the database has.
    count: Cell<u64>,
    /// After the database, whose last handle it has.
    watch: Watch,
}

impl Drop for Ledger {
    /// Writes what sled would write when its last handle goes, where nobody could look after it.
    fn drop(&mut self) {
        // One that fails is written anew, or rebuilt at the next start.
        let _ = self.watch.over(|| self.db.flush());
    }
}

impl Ledger {
    /// Opens the ledger in `path`, creating an empty one where there is none.
    ///
    /// # Errors
    /// Where sled fails, panics, or does not come back in time.
    pub(super) fn open(disk: &Disk, path: &Path, sync: SyncMode) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { path: path.to_owned(), source };
        // What a killed process left may be in memory alone, and sled builds on it.
        sync_files(disk, path).map_err(io)?;
        let db = open_with_deadline(path)?;
        let commits = Commits::open(disk, path).map_err(io)?;
        let count = db
            .get(KEY_COMMITS)
            .map_err(|source| LedgerError::Database { path: path.to_owned(), source })?
            .and_then(|count| Cursor::new(&count).u64());
        sync_files(disk, path).map_err(io)?;
        disk.sync_dir(path).map_err(io)?;
        if let Some(parent) = path.parent() {
            disk.sync_dir(parent).map_err(io)?;
        }
        let file = Disk::open(&path.join("db")).map_err(io)?;
        let watch = Watch::new(db.clone(), |db: &sled::Db| drop(db.flush())).map_err(io)?;
        let count = Cell::new(count.unwrap_or(0));
        Ok(Self { db, file, disk: disk.clone(), path: path.to_owned(), sync, commits, count, watch })
    }

    /// Creates a ledger that holds `books`, where none is.
    ///
    /// # Errors
    /// Where it cannot be opened or written.
    pub(super) fn create(
        disk: &Disk,
        path: &Path,
        sync: SyncMode,
        books: &Books,
    ) -> Result<Self, LedgerError> {
        let ledger = Self::open(disk, path, sync)?;
        ledger.commit(Changes::everything(books))?;
        Ok(ledger)
    }

    /// Whether the files are far larger than what they hold, as sled's become under inserts and removals.
    pub(super) fn has_outgrown(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.len() > OUTGROWN_BYTES)
    }

    /// Puts a ledger that holds `books` in the place of the one on the disk, which nobody has open. A crash in between
    /// leaves one of the two whole: see [`Ledger::settle`].
    ///
    /// # Errors
    /// Where it cannot be written, or the files not be moved.
    pub(super) fn write_anew(disk: &Disk, sync: SyncMode, books: &Books) -> Result<Self, LedgerError> {
        let path = disk.ledger();
        let io = |source| LedgerError::Io { path: path.clone(), source };
        let (new, old) = (path.with_extension("new"), path.with_extension("old"));
        disk.remove_dir(&new).map_err(io)?;
        drop(Self::create(disk, &new, sync, books)?);
        if path.exists() {
            disk.remove_dir(&old).map_err(io)?;
            disk.rename(&path, &old).map_err(io)?;
        }
        disk.rename(&new, &path).map_err(io)?;
        disk.sync_dir(disk.root()).map_err(io)?;
        let ledger = Self::open(disk, &path, sync)?;
        // What is left of the old one is removed at the next start.
        let _ = disk.remove_dir(&old);
        Ok(ledger)
    }

    /// Finishes or undoes a replacement that a crash cut short.
    pub(super) fn settle(disk: &Disk) -> io::Result<()> {
        let path = disk.ledger();
        let (new, old) = (path.with_extension("new"), path.with_extension("old"));
        if old.exists() && !path.exists() {
            disk.rename(&old, &path)?;
        }
        disk.remove_dir(&old)?;
        disk.remove_dir(&new)?;
        disk.sync_dir(disk.root())
    }

    /// Makes `changes` durable, all of them or none.
    ///
    /// # Errors
    /// Where sled or the fsync fails; what of it is durable is then not known.
    pub(super) fn commit(&self, mut changes: Changes) -> Result<(), LedgerError> {
        let count = self.count.get().saturating_add(1);
        changes.insert(KEY_COMMITS, count.to_le_bytes().to_vec());
        let database = |source| LedgerError::Database { path: self.path.clone(), source };
        if !storage::step("commit", &self.path) {
            return Ok(());
        }
        let write = || {
            self.db.apply_batch(changes.batch)?;
            let _ = storage::step("flush", &self.path);
            self.db.flush()
        };
        self.watch.over(write).map_err(database)?;
        if self.sync == SyncMode::Group {
            self.disk
                .sync_all(&self.file)
                .map_err(|source| LedgerError::Io { path: self.path.join("db"), source })?;
            // Where nothing is synced, the machine may lose commits without any damage.
            self.commits.record(count);
        }
        self.count.set(count);
        Ok(())
    }

    /// Reads everything; `None` from an empty ledger.
    ///
    /// # Errors
    /// Where sled fails, commits are gone, or an entry cannot be read.
    pub(super) fn read(&self) -> Result<Option<Books>, LedgerError> {
        let broken = || LedgerError::Entry { path: self.path.clone() };
        let database = |source| LedgerError::Database { path: self.path.clone(), source };
        // Before anything else: what a newer version wrote need not make sense here.
        let meta = self.db.get(KEY_META).map_err(database)?;
        let version = meta.and_then(|meta| Cursor::new(&meta).u32());
        if let Some(version) = version.filter(|version| *version > VERSION) {
            return Err(LedgerError::Newer { path: self.path.clone(), version });
        }
        let (there, committed) = (self.count.get(), self.commits.recorded());
        if there < committed {
            return Err(LedgerError::Shortened { path: self.path.clone(), there, committed });
        }
        let mut loaded = Loaded::default();
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(database)?;
            loaded.entry(&key, &value).ok_or_else(broken)?;
        }
        if loaded.empty {
            return Ok(None);
        }
        loaded.into_books().map(Some).ok_or_else(broken)
    }
}

/// Makes durable what is in the files of a directory, where it exists.
fn sync_files(disk: &Disk, dir: &Path) -> io::Result<()> {
    for name in Disk::list(dir)? {
        let path = dir.join(name);
        if path.is_file() {
            disk.sync_all(&Disk::open(&path)?)?;
        }
    }
    Ok(())
}

/// Opens the database, waiting for the lock of one in this process that was dropped just before. Nobody else can hold
/// it: the spool's own lock is held.
fn open_unlocked(dir: &Path) -> sled::Result<sled::Db> {
    let deadline = crate::clock::now() + LOCK_LINGERS;
    loop {
        let opened = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .use_compression(false)
            .open();
        match opened {
            Err(sled::Error::Io(error))
                if error.to_string().contains("lock") && crate::clock::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn open_with_deadline(path: &Path) -> Result<sled::Db, LedgerError> {
    let (sender, receiver) = mpsc::channel();
    let dir = path.to_owned();
    // A thread of its own, since an open that hangs cannot be interrupted: it is left behind.
    std::thread::Builder::new()
        .name("ledger-open".into())
        .spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| open_unlocked(&dir)));
            // The receiver is gone only where the deadline has passed.
            let _ = sender.send(opened);
        })
        .map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
    let mut waited = Duration::ZERO;
    while waited < OPEN_DEADLINE {
        match receiver.recv_timeout(OPEN_PATIENCE) {
            Ok(Ok(Ok(db))) => return Ok(db),
            Ok(Ok(Err(source))) => return Err(LedgerError::Database { path: path.to_owned(), source }),
            Ok(Err(_panic)) => return Err(LedgerError::Panicked { path: path.to_owned() }),
            Err(_) => {
                waited += OPEN_PATIENCE;
                tracing::warn!(path = %path.display(), seconds = waited.as_secs(), "the ledger is still being opened");
            }
        }
    }
    Err(LedgerError::Deadline { path: path.to_owned() })
}

/// What a ledger with these keys and values holds, for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn books_of(entries: &[(&[u8], &[u8])]) -> Option<Books> {
    let mut loaded = Loaded::default();
    entries.iter().try_for_each(|(key, value)| loaded.entry(key, value))?;
    let books = loaded.into_books()?;
    // What was read can be written.
    let _ = Changes::everything(&books);
    Some(books)
}

/// Collects entries until all are there.
struct Loaded {
    empty: bool,
    meta: Option<Meta>,
    cursor: Option<Position>,
    books: Books,
}

impl Default for Loaded {
    fn default() -> Self {
        Self { empty: true, meta: None, cursor: None, books: Books::new(Meta::default(), Position(0)) }
    }
}

impl Loaded {
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.empty = false;
        let mut cursor = Cursor::new(value);
        let mut id = Cursor::new(key);
        match id.u8()? {
            b'f' => {
                cursor.u32()?;
                self.meta = Some(Meta {
                    lineage: SpoolId(cursor.array()?),
                    spool_id: SpoolId(cursor.array()?),
                    unsynced_boot: cursor.array()?,
                });
            }
            b'n' => {
                cursor.u64()?;
            }
            b'm' => {
                self.books.mark.segment = SegmentId(cursor.u64()?);
                self.books.mark.position = Position(cursor.u64()?);
                self.books.mark.spool_id = SpoolId(cursor.array()?);
            }
            KEY_NEXT_SEQ => {
                id.u16()?;
                let name = SourceName::from(std::str::from_utf8(id.rest()).ok()?);
                self.books.mark.state.next_seqs.insert(name, Seq(cursor.u64()?));
            }
            KEY_CURSOR => self.cursor = Some(Position(cursor.u64()?)),
            KEY_GROUP => {
                id.u16()?;
                let number = u64::from_be_bytes(id.array()?);
                self.books.groups.insert(number, take_group(&mut cursor)?);
            }
            KEY_SOURCE => {
                id.u16()?;
                let name = SourceName::from(std::str::from_utf8(id.rest()).ok()?);
                let record = SourceRecord { cut: cursor.u64()?, account: take_account(&mut cursor)? };
                self.books.sources.insert(name, record);
            }
            KEY_PROFILE => {
                id.u16()?;
                let number = u32::from_be_bytes(id.array()?);
                let source = std::str::from_utf8(id.rest()).ok()?;
                if source.is_empty() {
                    self.books.profiles.insert(number, Profile::from_entry(value)?);
                } else {
                    // Keys come in their order: what sources have of their own comes behind the profile.
                    let profile = self.books.profiles.get_mut(&number)?;
                    profile.add_source_entry(SourceName::from(source), value)?;
                }
            }
            KEY_FILE => {
                let record = take_file(&mut cursor)?;
                self.books.mark.state.files.insert(record.checkpoint.key(), record);
            }
            KEY_BYTES => {
                id.u16()?;
                let name = SourceName::from(std::str::from_utf8(id.rest()).ok()?);
                self.books.mark.state.bytes.insert(name, take_bytes(&mut cursor)?);
            }
            KEY_LOSS => {
                id.u16()?;
                // Keys come in the order of their numbers.
                let losses = &mut self.books.mark.state.losses;
                losses.total = u64::from_be_bytes(id.array()?);
                losses.newest.push_back(take_loss(&mut cursor)?);
            }
            _ => return None,
        }
        Some(())
    }

    fn into_books(self) -> Option<Books> {
        Some(Books { meta: self.meta?, cursor: self.cursor?, ..self.books })
    }
}

fn take_group(cursor: &mut Cursor<'_>) -> Option<Group> {
    let profile = cursor.u32()?;
    let mut batches = Vec::new();
    while !cursor.is_empty() {
        let (first, last) = (Position(cursor.u64()?), Position(cursor.u64()?));
        let (from, to) = (cursor.u32()?, cursor.u32()?);
        let part = (to > from).then_some(Part { from, to });
        let at = Location { segment: SegmentId(cursor.u64()?), offset: cursor.u64()? };
        batches.push(BatchRecord { id: BatchId { first, last, part }, at });
    }
    Some(Group { profile, batches })
}

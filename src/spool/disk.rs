//! The directory of a spool: what stands where in it, and what is done to its files in more than one step.
//!
//! What changes it goes through the seam, [`Storage`]; what only reads it is here and in the readers.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::storage::{Os, Storage};
use crate::event::SegmentId;
use crate::spool::segment;

/// Copies of damaged places are kept up to this size, all together: a disk that damages everything is not to be filled.
const QUARANTINED_BYTES_MAX: u64 = 256 << 20;

/// The directory of one spool.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
    storage: Arc<dyn Storage>,
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self::on(Arc::new(Os), root)
    }

    pub(super) fn on(storage: Arc<dyn Storage>, root: &Path) -> Self {
        Self { root: root.to_owned(), storage }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    pub(super) fn dead_letters(&self) -> PathBuf {
        self.root.join("dead-letters")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(super) fn segment(&self, id: SegmentId) -> PathBuf {
        self.segments().join(segment::file_name(id))
    }

    /// Creates what is missing of the spool's directories, durably.
    pub(super) fn create_dirs(&self) -> io::Result<()> {
        if self.root.exists() && !self.root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !self.root.is_dir() {
            self.storage.create_dir(&self.root)?;
            if let Some(parent) = self.root.canonicalize()?.parent() {
                self.sync_dir(parent)?;
            }
        }
        for dir in [self.segments(), self.dead_letters(), self.quarantine()] {
            if !dir.is_dir() {
                self.storage.create_dir(&dir)?;
            }
        }
        self.sync_dir(&self.root)
    }

    /// Creates a file that must not exist yet, for writing and reading.
    pub(super) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.storage.create(path)
    }

    /// Writes all of `slices` at the file's position.
    pub(super) fn write(&self, file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.storage.write(file, slices)
    }

    /// Makes a spool in the empty directory `to` of which everything may be changed without a change to this one: what
    /// is written at an opening is copied, the rest linked to.
    pub(super) fn clone_to(&self, to: &Path) -> io::Result<()> {
        let to = Self::new(to);
        to.create_dirs()?;
        let mut segments: Vec<_> =
            Self::list(&self.segments())?.iter().filter_map(|name| segment::parse_file_name(name)).collect();
        segments.sort_unstable();
        for (age, id) in segments.into_iter().rev().enumerate() {
            let (from, to) = (self.segment(id), to.segment(id));
            // Only the newest that is one is cut; a file in its place may hide it. `truncate` follows no link.
            if age < 2 {
                fs::copy(from, to)?;
            } else {
                std::os::unix::fs::symlink(from.canonicalize()?, to)?;
            }
        }
        for dir in [self.ledger(), self.ledger().with_extension("old")] {
            copy_dir(&dir, &to.root.join(dir.file_name().unwrap_or_default()))?;
        }
        for name in Self::list(&self.dead_letters())? {
            let from = self.dead_letters().join(&name).canonicalize()?;
            std::os::unix::fs::symlink(from, to.dead_letters().join(&name))?;
        }
        Ok(())
    }

    /// Opens or creates a file for writing and reading, keeping its content.
    pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    pub(super) fn open(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Writes over bytes that are there.
    pub(super) fn overwrite(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.storage.overwrite(file, bytes, at)
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.storage.sync_dir(path)
    }

    pub(super) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.storage.sync_data(file)
    }

    pub(super) fn sync_all(&self, file: &File) -> io::Result<()> {
        self.storage.sync_all(file)
    }

    pub(super) fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.storage.set_len(file, len)
    }

    /// Makes segments and their names durable.
    pub(super) fn sync_segments<'a>(&self, ids: impl Iterator<Item = &'a SegmentId>) -> io::Result<()> {
        for id in ids {
            self.sync_all(&Self::open(&self.segment(*id))?)?;
        }
        self.sync_dir(&self.segments())
    }

    /// Cuts a file of the spool to `len` bytes, durably.
    pub(super) fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = Self::open_to_mend(path)?;
        self.set_len(&file, len)?;
        self.sync_all(&file)
    }

    /// Writes over the beginning of a file of the spool, durably.
    pub(super) fn mend_head(&self, path: &Path, head: &[u8]) -> io::Result<()> {
        let file = Self::open_to_mend(path)?;
        self.overwrite(&file, head, 0)?;
        self.sync_all(&file)
    }

    /// Follows no link: see [`Disk::clone_to`].
    fn open_to_mend(path: &Path) -> io::Result<File> {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new().write(true).custom_flags(no_follow).open(path)
    }

    pub(super) fn unlink(&self, path: &Path) -> io::Result<()> {
        self.storage.unlink(path)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    /// Removes a directory of the spool with all in it; nothing where it does not exist.
    pub(super) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.storage.remove_dir(path)
    }

    /// The names in a directory of the spool; none where it does not exist.
    pub(super) fn list(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Bytes of all files in and below `dir`; what vanishes meanwhile does not count.
    pub(super) fn usage(dir: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => Self::usage(&entry.path()),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            })
            .fold(0, u64::saturating_add)
    }

    /// Bytes that an unprivileged process may still write to the spool's file system.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes sure that `len` bytes stand ready for `path`, so that giving them up frees them.
    pub(super) fn keep_reserve(&self, len: u64) -> io::Result<()> {
        let file = Self::open_or_create(&self.reserve())?;
        if file.metadata()?.len() < len {
            self.storage.allocate(&file, len)?;
        }
        Ok(())
    }

    /// Bytes that stand ready.
    pub(super) fn reserved(&self) -> u64 {
        self.reserve().metadata().map_or(0, |meta| meta.len())
    }

    pub(super) fn give_up_reserve(&self) {
        // Where there is none there is nothing to give up.
        let _ = self.unlink(&self.reserve());
    }

    /// Keeps bytes that could not be understood in `quarantine/NAME`. The name says where they stood, so that a place
    /// that is met again is kept once: `None` then.
    pub(super) fn quarantine_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        if Self::usage(&self.quarantine()).saturating_add(bytes.len() as u64) > QUARANTINED_BYTES_MAX {
            return Err(io::Error::other(format!("quarantine holds {QUARANTINED_BYTES_MAX} bytes already")));
        }
        let path = self.quarantine().join(name);
        let file = match self.create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept = self.write(&file, &mut [IoSlice::new(bytes)]).and_then(|()| self.sync_all(&file));
        if let Err(error) = kept {
            // Half of it would pass for all of it the next time.
            let _ = self.unlink(&path);
            return Err(error);
        }
        self.sync_dir(&self.quarantine())?;
        Ok(Some(path))
    }

    /// Whether there is `quarantine/NAME`.
    pub(super) fn has_quarantined(&self, name: &str) -> bool {
        self.quarantine().join(name).is_file()
    }

    /// Puts `bytes` in the place of a file of the spool, durably: a crash leaves the one or the other whole.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        // Left by a crash.
        let _ = self.unlink(&new);
        let file = self.create_new(&new)?;
        self.write(&file, &mut [IoSlice::new(bytes)])?;
        self.sync_all(&file)?;
        self.rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    /// Moves a file or directory of the spool to `quarantine/`, never over another.
    pub(super) fn quarantine_path(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        for number in 0..u32::MAX {
            let to = self.quarantine().join(numbered(&name, number));
            if !to.exists() {
                self.rename(path, &to)?;
                self.sync_dir(&self.quarantine())?;
                if let Some(parent) = path.parent() {
                    self.sync_dir(parent)?;
                }
                return Ok(to);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Copies a directory with its files and directories; nothing where it does not exist.
pub(super) fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for name in Disk::list(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_dir(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

fn numbered(name: &str, number: u32) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
}

/// Reads at `offset` until `buffer` is full or the file ends; says how much was read.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether the file holds nothing but zeros from `offset` on.
pub(super) fn is_zero(file: &File, offset: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = offset;
    loop {
        let read = read_at(file, &mut buffer, at)?;
        let seen = buffer.get(..read).unwrap_or_default();
        if seen.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < buffer.len() {
            return Ok(true);
        }
        at = at.saturating_add(read as u64);
    }
}

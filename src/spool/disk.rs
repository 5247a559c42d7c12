//! The storage seam: the only file that opens, syncs, renames or unlinks files of the spool.
//!
//! Invariants:
//! - Directories are 0700, files 0600: log lines may hold what others must not read.
//! - A created, renamed or unlinked name is durable only after [`Disk::sync_dir`] of its directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::event::SegmentId;
use crate::spool::segment;

/// Copies of damaged places are kept up to this size, all together: a disk that damages everything is not to be filled.
const QUARANTINED_BYTES_MAX: u64 = 256 << 20;

/// The directory of one spool.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
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
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        if self.root.exists() && !self.root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !self.root.is_dir() {
            builder.create(&self.root)?;
            if let Some(parent) = self.root.canonicalize()?.parent() {
                Self::sync_dir(parent)?;
            }
        }
        for dir in [self.segments(), self.dead_letters(), self.quarantine()] {
            builder.create(&dir)?;
        }
        Self::sync_dir(&self.root)
    }

    /// Creates a file that must not exist yet, for writing and reading.
    pub(super) fn create_new(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
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

    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub(super) fn sync_data(file: &File) -> io::Result<()> {
        #[cfg(test)]
        faults::strike(faults::Call::Sync, file)?;
        file.sync_data()
    }

    pub(super) fn sync_all(file: &File) -> io::Result<()> {
        #[cfg(test)]
        faults::strike(faults::Call::Sync, file)?;
        file.sync_all()
    }

    pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Makes segments and their names durable.
    pub(super) fn sync_segments<'a>(&self, ids: impl Iterator<Item = &'a SegmentId>) -> io::Result<()> {
        for id in ids {
            Self::sync_all(&Self::open(&self.segment(*id))?)?;
        }
        Self::sync_dir(&self.segments())
    }

    /// Cuts a file of the spool to `len` bytes, durably.
    pub(super) fn truncate(path: &Path, len: u64) -> io::Result<()> {
        let file = Self::open_to_mend(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    /// Writes over the beginning of a file of the spool, durably.
    pub(super) fn mend_head(path: &Path, head: &[u8]) -> io::Result<()> {
        let file = Self::open_to_mend(path)?;
        file.write_all_at(head, 0)?;
        file.sync_all()
    }

    /// Follows no link: see [`Disk::clone_to`].
    fn open_to_mend(path: &Path) -> io::Result<File> {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new().write(true).custom_flags(no_follow).open(path)
    }

    pub(super) fn unlink(path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a directory of the spool with all in it; nothing where it does not exist.
    pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
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
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)?;
        }
        Ok(())
    }

    /// Bytes that stand ready.
    pub(super) fn reserved(&self) -> u64 {
        self.reserve().metadata().map_or(0, |meta| meta.len())
    }

    pub(super) fn give_up_reserve(&self) {
        // Where there is none there is nothing to give up.
        let _ = fs::remove_file(self.reserve());
    }

    /// Keeps bytes that could not be understood in `quarantine/NAME`. The name says where they stood, so that a place
    /// that is met again is kept once: `None` then.
    pub(super) fn quarantine_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        if Self::usage(&self.quarantine()).saturating_add(bytes.len() as u64) > QUARANTINED_BYTES_MAX {
            return Err(io::Error::other(format!("quarantine holds {QUARANTINED_BYTES_MAX} bytes already")));
        }
        let path = self.quarantine().join(name);
        let mut file = match Self::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = kept {
            // Half of it would pass for all of it the next time.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Self::sync_dir(&self.quarantine())?;
        Ok(Some(path))
    }

    /// Whether there is `quarantine/NAME`.
    pub(super) fn has_quarantined(&self, name: &str) -> bool {
        self.quarantine().join(name).is_file()
    }

    /// Puts `bytes` in the place of a file of the spool, durably: a crash leaves the one or the other whole.
    pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        // Left by a crash.
        let _ = fs::remove_file(&new);
        let mut file = Self::create_new(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), Self::sync_dir)
    }

    /// Moves a file or directory of the spool to `quarantine/`, never over another.
    pub(super) fn quarantine_path(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        for number in 0..u32::MAX {
            let to = self.quarantine().join(numbered(&name, number));
            if !to.exists() {
                fs::rename(path, &to)?;
                Self::sync_dir(&self.quarantine())?;
                if let Some(parent) = path.parent() {
                    Self::sync_dir(parent)?;
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

/// The most slices that one system call takes (`IOV_MAX` on Linux).
const SLICES_MAX: usize = 1024;

/// Writes all of `slices` at the file's position, with as few system calls as the kernel allows.
pub(super) fn write_all(mut file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut rest = slices;
    IoSlice::advance_slices(&mut rest, 0);
    #[cfg(test)]
    if let Err(error) = faults::strike(faults::Call::Write, file) {
        // What a full disk leaves: some of it.
        let some = rest.first().map(|slice| slice.get(..slice.len() / 2).unwrap_or_default());
        file.write_all(some.unwrap_or_default())?;
        return Err(error);
    }
    while !rest.is_empty() {
        let now = rest.len().min(SLICES_MAX);
        match file.write_vectored(rest.get(..now).unwrap_or_default()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Failures of the disk that tests ask for, by the path of the file that is touched.
#[cfg(test)]
pub(super) mod faults {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::spool) enum Call {
        Write,
        Sync,
    }

    struct Fault {
        under: PathBuf,
        call: Call,
        times: u32,
    }

    static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

    /// Lets the next `times` calls fail that touch a file under `under`.
    pub(in crate::spool) fn fail(under: &Path, call: Call, times: u32) {
        let under = under.canonicalize().unwrap();
        let mut faults = FAULTS.lock().unwrap();
        faults.retain(|fault| fault.under != under || fault.call != call);
        faults.push(Fault { under, call, times });
    }

    /// How many of the failures that were asked for are still to come.
    pub(in crate::spool) fn left(under: &Path, call: Call) -> u32 {
        let under = under.canonicalize().unwrap();
        let faults = FAULTS.lock().unwrap();
        faults
            .iter()
            .filter(|fault| fault.under == under && fault.call == call)
            .map(|fault| fault.times)
            .sum()
    }

    pub(super) fn strike(call: Call, file: &File) -> io::Result<()> {
        let mut faults = FAULTS.lock().unwrap();
        if faults.iter().all(|fault| fault.times == 0) {
            return Ok(());
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let fault = faults.iter_mut().find(|f| f.call == call && f.times > 0 && path.starts_with(&f.under));
        match fault {
            Some(fault) => {
                fault.times -= 1;
                Err(io::Error::from_raw_os_error(if call == Call::Write { 28 } else { 5 }))
            }
            None => Ok(()),
        }
    }
}

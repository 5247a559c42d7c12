//! The storage seam: every change that the spool makes to the disk, and every sync of one, goes through [`Storage`].
//!
//! In production the operating system is behind it ([`Os`]), in tests a disk whose power can be cut before every step
//! (`sim`). What is only read needs no seam: that happens through plain files.
//!
//! Invariants that whoever calls relies on, and no more than these:
//! - Bytes and a file's length are durable after [`Storage::sync_data`] of the file. Until then any part of them may be,
//!   in any order.
//! - A name that was created, renamed or unlinked is durable after [`Storage::sync_dir`] of its directory. Until then a
//!   power cut takes back the newest such changes of a directory, as many as it likes. A rename is done or not.
//!
//! sled writes the ledger's files by itself. They are made durable through here like all others. The lock, the reserve and
//! the file that counts commits are created beside it: nothing depends on their names.

#[cfg(debug_assertions)]
mod kill;
#[cfg(test)]
pub(super) mod sim;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The most slices that one system call takes (`IOV_MAX` on Linux).
const SLICES_MAX: usize = 1024;

/// What changes a disk.
pub(super) trait Storage: fmt::Debug + Send + Sync {
    /// Creates a directory, and those that lead to it, where they do not exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist yet, for writing and reading.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `slices` at the file's position.
    fn write(&self, file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Writes over bytes that are there.
    fn overwrite(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts a file, or extends it with zeros.
    fn set_len(&self, file: &File, len: u64) -> io::Result<()>;

    /// Makes sure that a file's first `len` bytes have their room on the disk. Not part of what survives a power cut.
    fn allocate(&self, file: &File, len: u64) -> io::Result<()>;

    /// Makes a file's bytes and its length durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;

    /// Makes all of a file durable.
    fn sync_all(&self, file: &File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Moves a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all in it; nothing where it does not exist.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// The operating system. Directories are 0700 and files 0600: log lines may hold what others must not read.
#[derive(Debug)]
pub(super) struct Os;

impl Storage for Os {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let _ = step("create-dir", path);
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let _ = step("create", path);
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&self, mut file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let _ = step_of("write", file);
        let mut rest = slices;
        IoSlice::advance_slices(&mut rest, 0);
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

    fn overwrite(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let _ = step_of("overwrite", file);
        file.write_all_at(bytes, at)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let _ = step_of("set-len", file);
        file.set_len(len)
    }

    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        let _ = step_of("allocate", file);
        Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)?)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        if step_of("sync", file) { file.sync_data() } else { Ok(()) }
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        if step_of("sync", file) { file.sync_all() } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if step("sync-dir", dir) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = step("rename", from);
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let _ = step("unlink", path);
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let _ = step("remove-dir", path);
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// A step of a protocol is about to be done on `path`: says whether it is to be done. Debug builds can be told to die
/// there, or to leave it out: see `kill`.
pub(super) fn step(name: &str, path: &Path) -> bool {
    #[cfg(debug_assertions)]
    return kill::point(name, || Some(path.to_owned()));
    #[cfg(not(debug_assertions))]
    {
        let _ = (name, path);
        true
    }
}

fn step_of(name: &str, file: &File) -> bool {
    #[cfg(debug_assertions)]
    return kill::point(name, || kill::path_of(file));
    #[cfg(not(debug_assertions))]
    {
        let _ = (name, file);
        true
    }
}

//! Which file is which.
//!
//! Invariants:
//! - Two files are the same only if device and inode agree and no further witness disagrees: birth time where both
//!   have one, the head, the bytes before the offset. A witness that is missing disagrees with nothing.
//! - A path is never an identity.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};

use crate::event::FileIdentity;

/// What `statx` says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub identity: FileIdentity,
    pub kind: FileType,
    pub links: u32,
    pub stamp: Stamp,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Change time of the inode, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

impl Stat {
    pub(crate) fn is_regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    fn from_statx(statx: &Statx) -> Self {
        let nanos = |time: &StatxTimestamp| {
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
        };
        let has_birth = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::BTIME);
        let birth_ns = if has_birth { u64::try_from(nanos(&statx.stx_btime)).unwrap_or(0) } else { 0 };
        Self {
            identity: FileIdentity {
                dev: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
                ino: statx.stx_ino,
                birth_ns,
            },
            kind: FileType::from_raw_mode(u32::from(statx.stx_mode)),
            links: statx.stx_nlink,
            stamp: Stamp {
                size: statx.stx_size,
                modified_ns: nanos(&statx.stx_mtime),
                changed_ns: nanos(&statx.stx_ctime),
            },
        }
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

/// Looks at the file that `path` leads to, through symbolic links.
pub(crate) fn stat_path(path: &Path) -> io::Result<Stat> {
    Ok(Stat::from_statx(&rustix::fs::statx(CWD, path, AtFlags::empty(), wanted())?))
}

/// Looks at an open file.
pub(super) fn stat_handle(handle: impl AsFd) -> io::Result<Stat> {
    Ok(Stat::from_statx(&rustix::fs::statx(handle, c"", AtFlags::EMPTY_PATH, wanted())?))
}

/// Whether `path` itself is a symbolic link.
pub(super) fn is_symlink(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|statx| FileType::from_raw_mode(u32::from(statx.stx_mode)) == FileType::Symlink)
}

/// Opens a file for reading. Never blocks and never becomes a controlling terminal, whatever `path` leads to by now.
pub(super) fn open(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether what the file system says speaks for one and the same file.
pub(super) fn same_identity(one: &FileIdentity, other: &FileIdentity) -> bool {
    one.dev == other.dev && one.ino == other.ino && same_birth(one, other)
}

/// Whether the birth times agree, or one is not known.
pub(super) fn same_birth(one: &FileIdentity, other: &FileIdentity) -> bool {
    one.birth_ns == 0 || other.birth_ns == 0 || one.birth_ns == other.birth_ns
}

/// How often a directory is listed again because names moved meanwhile.
const LISTINGS_MAX: usize = 4;

/// The files of a directory whose inode number and path are `wanted`, each once, under the last path seen. While names
/// move, a listing may show a file under a name that has become another one's, or not at all: it is repeated, up to a
/// bound. So a file that is not found may be there nevertheless.
pub(crate) fn find_entries(dir: &Path, wanted: impl Fn(u64, &Path) -> bool) -> Vec<(PathBuf, Stat)> {
    let mut found: HashMap<(u64, u64), (PathBuf, Stat)> = HashMap::new();
    for _ in 0..LISTINGS_MAX {
        let mut is_steady = true;
        // A directory that is gone or closed has nothing to offer.
        let Ok(entries) = std::fs::read_dir(dir) else { break };
        for entry in entries.flatten() {
            let path = entry.path();
            if !wanted(entry.ino(), &path) {
                continue;
            }
            match stat_path(&path) {
                // A symbolic link has a number of its own.
                Ok(stat) if stat.identity.ino != entry.ino() && !is_symlink(&path) => is_steady = false,
                Ok(stat) => drop(found.insert((stat.identity.dev, stat.identity.ino), (path, stat))),
                Err(_) => is_steady = false,
            }
        }
        if is_steady {
            break;
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_and_a_path_tell_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "12345").unwrap();
        let stat = stat_path(&path).unwrap();
        assert!(stat.is_regular());
        assert_eq!((stat.stamp.size, stat.links), (5, 1));
        assert_ne!(stat.identity.ino, 0);
        assert_eq!(stat_handle(open(&path).unwrap()).unwrap(), stat);

        let other = dir.path().join("b.log");
        std::fs::write(&other, "12345").unwrap();
        assert!(!same_identity(&stat.identity, &stat_path(&other).unwrap().identity));
    }

    #[test]
    fn a_symbolic_link_is_followed_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.log"), dir.path().join("link"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(stat_path(&link).unwrap().identity, stat_path(&path).unwrap().identity);
        assert!(is_symlink(&link) && !is_symlink(&path));
    }

    #[test]
    fn a_reused_inode_has_another_birth() {
        let one = FileIdentity { dev: 1, ino: 2, birth_ns: 3 };
        assert!(same_identity(&one, &one));
        assert!(!same_identity(&one, &FileIdentity { birth_ns: 4, ..one }));
        assert!(same_identity(&one, &FileIdentity { birth_ns: 0, ..one }), "not every file system knows it");
        assert!(!same_identity(&one, &FileIdentity { ino: 3, ..one }));
    }
}

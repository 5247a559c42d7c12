//! Change notification: inotify watches on directories.
//!
//! Invariants:
//! - Whatever is not watched is reported as not covered, so that it is polled; a change is never silently missed.
//! - Notification only says where to look. What is there now is always asked of the file system.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::file::FileKey;

/// Room for notifications of one read; the longest one is 272 bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most notifications taken in one go, so that a storm of them cannot keep files from being read.
const MAX_CHANGES: usize = 16 * 1024;

/// What matters in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interest {
    /// Entries that appear and go.
    Names,
    /// And what is written to the files in it.
    Files,
}

impl Interest {
    fn flags(self) -> WatchFlags {
        let names = WatchFlags::ONLYDIR
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        match self {
            Self::Names => names,
            Self::Files => names | WatchFlags::MODIFY | WatchFlags::ATTRIB,
        }
    }
}

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// The file of this name was written to or truncated.
    Written { dir: &'a Path, name: &'a OsStr, sources: &'a [usize] },
    /// Something of this name came, went or has other permissions now.
    Renamed { dir: &'a Path, name: &'a OsStr, sources: &'a [usize] },
    /// Directories came or went: these sources are to be looked through.
    Tree { sources: &'a [usize] },
    /// These files, one of each source that follows it, are watched by themselves and changed.
    Single { files: &'a [FileKey] },
    /// Notifications were lost: everything is to be looked through.
    Overflow,
}

#[derive(Debug)]
enum Target {
    Directories(Vec<Directory>),
    Single(Vec<FileKey>),
}

/// A directory under one of its paths.
#[derive(Debug)]
struct Directory {
    path: Arc<Path>,
    interest: Interest,
    sources: Vec<usize>,
}

/// Why a directory is not covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uncovered {
    /// Polling was asked for, or inotify cannot be had.
    Unavailable,
    /// The directory lies on a file system whose changes elsewhere are not reported here.
    Remote,
    /// The limit of watches (`fs.inotify.max_user_watches`) is reached.
    Limit,
    /// The directory is gone or cannot be entered.
    Failed(Errno),
}

/// All watches.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Option<OwnedFd>,
    buffer: Vec<MaybeUninit<u8>>,
    targets: HashMap<i32, Target>,
    directories: HashMap<Arc<Path>, i32>,
}

impl Watch {
    /// No watches yet. With `polling`, or where inotify cannot be had, there never will be any.
    pub(super) fn new(polling: bool) -> Self {
        let inotify = if polling {
            None
        } else {
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
                .inspect_err(|error| {
                    tracing::warn!(error = %io::Error::from(*error), "no change notification, files are polled");
                })
                .ok()
        };
        let room = if inotify.is_some() { BUFFER_BYTES } else { 0 };
        Self {
            inotify,
            buffer: vec![MaybeUninit::uninit(); room],
            targets: HashMap::new(),
            directories: HashMap::new(),
        }
    }

    /// What becomes readable when there is something to drain.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|fd| fd.as_fd())
    }

    /// Sees to it that changes in `dir` are reported for `source`. To be repeated now and then: the path may lead to
    /// another directory by now.
    pub(super) fn cover(&mut self, dir: &Path, interest: Interest, source: usize) -> Result<(), Uncovered> {
        let Some(inotify) = &self.inotify else { return Err(Uncovered::Unavailable) };
        let known = self.directories.get_key_value(dir).map(|(path, wd)| (Arc::clone(path), *wd));
        let interest = match &known {
            // Watching again replaces the mask, so it has to have all that anyone wants here.
            Some((path, wd)) => self.interest_in(*wd, path).map_or(interest, |wanted| wanted.max(interest)),
            None if is_remote(dir) => return Err(Uncovered::Remote),
            None => interest,
        };
        let added = inotify::add_watch(inotify, dir, interest.flags());
        let wd = match added {
            Ok(wd) => wd,
            Err(error) => {
                if let Some((path, wd)) = known {
                    self.forget_directory(&path, wd);
                }
                return Err(match error {
                    Errno::NOSPC | Errno::NOMEM => Uncovered::Limit,
                    error => Uncovered::Failed(error),
                });
            }
        };
        let path = match known {
            Some((path, old)) if old != wd => {
                self.forget_directory(&path, old);
                path
            }
            Some((path, _)) => path,
            None => Arc::from(dir),
        };
        self.directories.insert(Arc::clone(&path), wd);
        let target = self.targets.entry(wd).or_insert_with(|| Target::Directories(Vec::new()));
        if let Target::Single(_) = target {
            *target = Target::Directories(Vec::new());
        }
        let Target::Directories(directories) = target else { return Ok(()) };
        // The watch belongs to the directory, whatever the path: a narrower mask must not take from another path.
        let widest = directories.iter().map(|known| known.interest).max();
        match directories.iter_mut().find(|known| known.path == path) {
            Some(known) => {
                known.interest = interest;
                if !known.sources.contains(&source) {
                    known.sources.push(source);
                }
            }
            None => directories.push(Directory { path, interest, sources: vec![source] }),
        }
        if widest > Some(interest)
            && let Some(inotify) = &self.inotify
        {
            // It was accepted a moment ago.
            let _ = inotify::add_watch(inotify, dir, Interest::Files.flags());
        }
        Ok(())
    }

    /// Watches one file by itself, for changes made under names in directories that are not watched. Returns whether
    /// it is watched now; where it is not, it is seen at the next look through its source.
    pub(super) fn cover_file(&mut self, path: &Path, file: FileKey) -> Option<i32> {
        let inotify = self.inotify.as_ref()?;
        let wd = inotify::add_watch(inotify, path, WatchFlags::MODIFY | WatchFlags::ATTRIB).ok()?;
        match self.targets.entry(wd).or_insert_with(|| Target::Single(Vec::new())) {
            Target::Directories(_) => None,
            Target::Single(files) => {
                if !files.contains(&file) {
                    files.push(file);
                }
                Some(wd)
            }
        }
    }

    /// Ends the watch of one file.
    pub(super) fn uncover_file(&mut self, wd: i32, file: FileKey) {
        let Some(Target::Single(files)) = self.targets.get_mut(&wd) else { return };
        files.retain(|known| *known != file);
        if files.is_empty()
            && let Some(inotify) = &self.inotify
        {
            self.targets.remove(&wd);
            // It fails where the file is gone, and the watch with it.
            let _ = inotify::remove_watch(inotify, wd);
        }
    }

    fn interest_in(&self, wd: i32, path: &Path) -> Option<Interest> {
        let Target::Directories(directories) = self.targets.get(&wd)? else { return None };
        directories.iter().find(|known| *known.path == *path).map(|known| known.interest)
    }

    fn forget_directory(&mut self, path: &Path, wd: i32) {
        self.directories.remove(path);
        if let Some(Target::Directories(directories)) = self.targets.get_mut(&wd) {
            directories.retain(|known| *known.path != *path);
            if directories.is_empty() {
                self.targets.remove(&wd);
                if let Some(inotify) = &self.inotify {
                    // It fails where the directory is gone, and the watch with it.
                    let _ = inotify::remove_watch(inotify, wd);
                }
            }
        }
    }

    /// Takes what has been reported, up to a bound, and hands each change on. Returns whether there may be more.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Change<'_>)) -> bool {
        let Self { inotify: Some(inotify), buffer, targets, directories } = self else { return false };
        let mut reader = inotify::Reader::new(&*inotify, buffer);
        for _ in 0..MAX_CHANGES {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return false,
                Err(error) => {
                    tracing::warn!(error = %io::Error::from(error), "change notification failed");
                    each(Change::Overflow);
                    return false;
                }
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                tracing::warn!("notifications were lost, all sources are looked through");
                each(Change::Overflow);
                continue;
            }
            let Some(target) = targets.get(&event.wd()) else { continue };
            match target {
                Target::Single(files) => each(Change::Single { files }),
                Target::Directories(known) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    for Directory { path: dir, sources, .. } in known {
                        each(match name {
                            Some(name) if !flags.contains(ReadFlags::ISDIR) => {
                                if flags.contains(ReadFlags::MODIFY) {
                                    Change::Written { dir, name, sources }
                                } else {
                                    Change::Renamed { dir, name, sources }
                                }
                            }
                            // Permissions of a directory may have been what kept files from being seen.
                            _ => Change::Tree { sources },
                        });
                    }
                }
            }
            if flags.contains(ReadFlags::IGNORED)
                && let Some(Target::Directories(gone)) = targets.remove(&event.wd())
            {
                // The kernel has dropped the watch with its directory.
                for directory in gone {
                    directories.remove(&directory.path);
                }
            }
        }
        true
    }
}

/// Whether changes made by other machines (or behind a user-space file system) go unreported in `dir`. The numbers
/// are the `f_type` values of statfs(2) and the kernel's `include/uapi/linux/magic.h`.
fn is_remote(dir: &Path) -> bool {
    const REMOTE: [u32; 13] = [
        0x6969,      // NFS
        0xFF53_4D42, // CIFS
        0xFE53_4D42, // SMB2
        0x517B,      // SMB
        0x6573_5546, // FUSE
        0x0102_1997, // 9P
        0x00C3_6400, // Ceph
        0x5346_414F, // AFS
        0x6B41_4653, // kAFS
        0x7375_7245, // Coda
        0x564C,      // NCP
        0x0BD0_0BD0, // Lustre
        0x786F_4256, // VirtualBox shared folders
    ];
    rustix::fs::statfs(dir).is_ok_and(|stat| {
        // The field is signed on some machines; the numbers have 32 bits everywhere.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f_type has 32 bits")]
        let kind = stat.f_type as u32;
        REMOTE.contains(&kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(watch: &mut Watch) -> Vec<String> {
        let mut seen = Vec::new();
        while watch.drain(|change| {
            seen.push(match change {
                Change::Written { name, sources, .. } => format!("written {name:?} {sources:?}"),
                Change::Renamed { name, sources, .. } => format!("renamed {name:?} {sources:?}"),
                Change::Tree { sources } => format!("tree {sources:?}"),
                Change::Single { files } => format!("single {files:?}"),
                Change::Overflow => "overflow".to_owned(),
            });
        }) {}
        seen.dedup();
        seen
    }

    #[test]
    fn writes_renames_and_directories_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(false);
        watch.cover(dir.path(), Interest::Names, 0).unwrap();
        watch.cover(dir.path(), Interest::Files, 1).unwrap();
        watch.cover(dir.path(), Interest::Names, 0).unwrap();
        assert_eq!(drained(&mut watch), Vec::<String>::new());

        std::fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(drained(&mut watch), ["renamed \"a\" [0, 1]", "written \"a\" [0, 1]"]);
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(drained(&mut watch), ["renamed \"a\" [0, 1]", "renamed \"b\" [0, 1]"]);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(drained(&mut watch), ["tree [0, 1]"]);
    }

    #[test]
    fn a_directory_under_two_paths_is_reported_for_both() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut watch = Watch::new(false);
        watch.cover(&real, Interest::Files, 0).unwrap();
        watch.cover(&link, Interest::Names, 1).unwrap();
        std::fs::write(real.join("a"), "x").unwrap();
        let seen = drained(&mut watch);
        assert!(seen.contains(&"written \"a\" [0]".to_owned()), "{seen:?}");
        assert!(seen.contains(&"written \"a\" [1]".to_owned()), "{seen:?}");
    }

    #[test]
    fn a_directory_that_goes_and_comes_back_is_covered_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let mut watch = Watch::new(false);
        for _ in 0..2 {
            std::fs::create_dir(&path).unwrap();
            watch.cover(&path, Interest::Files, 0).unwrap();
            std::fs::write(path.join("a"), "x").unwrap();
            assert!(drained(&mut watch).contains(&"written \"a\" [0]".to_owned()));
            std::fs::remove_dir_all(&path).unwrap();
            assert!(drained(&mut watch).contains(&"tree [0]".to_owned()));
            assert!(watch.targets.is_empty() && watch.directories.is_empty());
        }
        assert_eq!(watch.cover(&path, Interest::Files, 0), Err(Uncovered::Failed(Errno::NOENT)));
    }

    #[test]
    fn a_file_behind_a_link_is_watched_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "").unwrap();
        let mut watch = Watch::new(false);
        let wd = watch.cover_file(&path, FileKey(7)).unwrap();
        assert_eq!(watch.cover_file(&path, FileKey(8)), Some(wd));
        std::fs::write(&path, "x").unwrap();
        assert_eq!(drained(&mut watch), ["single [FileKey(7), FileKey(8)]"]);
        watch.uncover_file(wd, FileKey(7));
        watch.uncover_file(wd, FileKey(8));
        std::fs::write(&path, "y").unwrap();
        assert_eq!(drained(&mut watch), Vec::<String>::new());
    }

    #[test]
    fn without_notification_nothing_is_covered() {
        let mut watch = Watch::new(true);
        assert_eq!(watch.cover(Path::new("/"), Interest::Files, 0), Err(Uncovered::Unavailable));
        assert!(watch.fd().is_none() && !watch.drain(|_| panic!("nothing can be reported")));
    }
}

//! Copies of followed files: what a rotation makes that copies a file and then truncates it.
//!
//! Invariants:
//! - What a copy has is read once: from the file as long as that has it, from the copy where the file was truncated before
//!   it was read to its end.
//! - A file that stands for itself is never taken for a copy: that takes a rotated name of a followed file, the same
//!   beginning, and the same bytes where it ends.
//! - A copy inside the glob is not recorded before its original was read past it, so that after a crash it is judged anew.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Roster, skip_note};
use crate::event::{FileOffset, SkipReason};
use crate::tail::content::Content as _;
use crate::tail::detour::{Candidate, Detour, Then};
use crate::tail::file::{FileKey, FollowedFile, Origin, Place, Progress, ReadBuffer};
use crate::tail::identity::{self, Stat};
use crate::tail::names;

/// A file without a related name is a copy only beside the file, in a directory of no more entries than this, each of which
/// costs a look, ...
const UNRELATED_MAX: usize = 256;
/// ... and only where so many bytes of its beginning agree.
const UNRELATED_HEAD_MIN: u16 = 256;
/// A file that is shorter and begins as another one is a copy only if that is truncated: two writers begin alike.
const UNTRUNCATED_MIN: u64 = 256;
/// Most entries of a directory that are considered.
const ENTRIES_MAX: usize = 100_000;
/// Most candidates of one search.
const CANDIDATES_MAX: usize = 64;
/// What compressed files begin with: gzip, zstd, xz, bzip2 and lz4.
const PACKED: [&[u8]; 5] = [b"\x1F\x8B\x08", b"\x28\xB5\x2F\xFD", b"\xFD7zXZ\0", b"BZh", b"\x04\x22\x4D\x18"];
/// How much of the ends of two files is compared.
const COMPARED_BYTES: u64 = 1024;

/// Whether a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tail) enum Verdict {
    /// It is read.
    Read,
    /// Not now: it may be a copy, and that cannot be told before its original was read further.
    Wait,
    /// There is nothing in it to be read at the moment.
    Leave,
}

impl Roster {
    /// Says whether a file whose handle is open is to be read, or is a copy of a followed one.
    pub(in crate::tail) fn judge(&mut self, key: FileKey, buffer: &mut ReadBuffer, now: Instant) -> Verdict {
        let Some(file) = self.files.get(&key) else { return Verdict::Leave };
        match file.origin {
            Origin::Own => return Verdict::Read,
            Origin::Packed => return Verdict::Leave,
            Origin::Unknown | Origin::CopyOf(_) => {}
        }
        let Some(handle) = &file.handle else { return Verdict::Leave };
        let is_packed = file.origin == Origin::Unknown
            && buffer
                .read(&mut &*handle, 0, 8)
                .is_ok_and(|head| PACKED.iter().any(|magic| head.starts_with(magic)));
        if is_packed {
            tracing::warn!(
                path = %file.path.display(),
                "a compressed file is not read as lines; what it was made of is read before it is compressed"
            );
            self.set_origin(key, Origin::Packed);
            return Verdict::Leave;
        }
        let Some(original) = self.original_of(key) else {
            let is_empty = handle.size().is_ok_and(|size| size == 0);
            // What will be in it is not known yet.
            return if is_empty { Verdict::Read } else { self.release(key) };
        };
        let compared = self.compare(key, original, buffer);
        let compared = compared.unwrap_or_else(|error| {
            tracing::debug!(path = %self.path_of(key).display(), %error, "a possible copy cannot be compared");
            Compared::Gone
        });
        tracing::debug!(
            path = %self.path_of(key).display(), original = %self.path_of(original).display(), ?compared,
            "a file with a rotated name was compared with what it may be a copy of"
        );
        match compared {
            Compared::Gone => self.release(key),
            Compared::Other => {
                // If it seemed to be a copy, it only began alike.
                self.unseen(key);
                self.release(key)
            }
            Compared::Empty => Verdict::Leave,
            Compared::Undecided => {
                self.enqueue(original);
                Verdict::Wait
            }
            Compared::Copy(progress) => {
                let has_grown =
                    self.files.get(&key).is_none_or(|file| file.progress.offset != progress.offset);
                let Some(file) = self.files.get_mut(&key) else { return Verdict::Leave };
                file.progress = progress;
                file.origin = Origin::CopyOf(original);
                file.at_end = true;
                let since = if has_grown { now } else { file.copied_since.unwrap_or(now) };
                file.copied_since = Some(since);
                if now.saturating_duration_since(since) < crate::tail::follower::QUIET {
                    return Verdict::Wait;
                }
                // Nobody adds to it any more, or truncates what it would be a copy of.
                if progress.offset < UNTRUNCATED_MIN {
                    self.unseen(key);
                    return self.release(key);
                }
                self.release(key);
                Verdict::Leave
            }
        }
    }

    /// Lets a file stand for itself from here on; what it has before its offset is a copy of what was read.
    fn release(&mut self, key: FileKey) -> Verdict {
        self.set_origin(key, Origin::Own);
        self.record_copied(key);
        Verdict::Read
    }

    /// Lets a file that is alike so far begin at its start.
    fn unseen(&mut self, key: FileKey) {
        if let Some(file) = self.files.get_mut(&key) {
            file.progress = Progress::default();
            file.at_end = false;
        }
    }

    /// A file is about to be read from its start: what was a copy of it when it was last compared is a copy for good.
    pub(in crate::tail) fn release_copies_of(&mut self, original: FileKey) {
        let is_copy = |file: &FollowedFile| file.origin == Origin::CopyOf(original) && !file.is_recorded;
        let copies: Vec<FileKey> =
            self.files.iter().filter(|(_, file)| is_copy(file)).map(|(key, _)| *key).collect();
        for copy in copies {
            self.release(copy);
            self.enqueue(copy);
        }
    }

    fn set_origin(&mut self, key: FileKey, origin: Origin) {
        if let Some(file) = self.files.get_mut(&key) {
            file.origin = origin;
            file.copied_since = None;
        }
    }

    /// Has the spool remember that what a file has before its offset is a copy.
    fn record_copied(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let Some(source) = self.sources.get(file.source) else { return };
        if file.is_recorded || file.progress.offset == 0 {
            return;
        }
        file.is_recorded = true;
        file.skip_content = None;
        let checkpoint = file.checkpoint(&source.name);
        self.notes.push(skip_note(checkpoint, FileOffset(0), SkipReason::Copy));
    }

    /// The followed file that a file may be a copy of, by its name.
    fn original_of(&self, key: FileKey) -> Option<FileKey> {
        let file = self.files.get(&key)?;
        if let Origin::CopyOf(original) = file.origin
            && self.files.contains_key(&original)
        {
            return Some(original);
        }
        // What is recorded was judged.
        if file.is_recorded {
            return None;
        }
        let source = self.sources.get(file.source)?;
        let (dir, name) = (file.path.parent()?, file.path.file_name()?);
        let originals = names::bases(name).into_iter().filter_map(|base| {
            let path = dir.join(base);
            source.by_path.get(&*path).or_else(|| source.former.get(&*path))
        });
        originals.copied().filter(|holder| *holder != key).find_map(|holder| self.oldest_before(holder, key))
    }

    /// The oldest generation that `holder` waits for, or itself; none where that leads to `key`, which is a generation then.
    fn oldest_before(&self, holder: FileKey, key: FileKey) -> Option<FileKey> {
        let mut oldest = holder;
        while let Some(before) = self.files.get(&oldest)?.waits_for {
            if before == key {
                return None;
            }
            oldest = before;
        }
        Some(oldest)
    }

    fn compare(&self, key: FileKey, original: FileKey, buffer: &mut ReadBuffer) -> std::io::Result<Compared> {
        let (Some(file), Some(original)) = (self.files.get(&key), self.files.get(&original)) else {
            return Ok(Compared::Other);
        };
        let Some(handle) = &file.handle else { return Ok(Compared::Other) };
        let mut copy = handle;
        let size = identity::stat_handle(handle)?.stamp.size;
        if original.detour.is_some() {
            // It may be the copy that is read at the moment.
            return Ok(Compared::Undecided);
        }
        let Some(opened) = original.handle() else { return Ok(Compared::Gone) };
        let mut whole = &*opened;
        let original_size = identity::stat_handle(whole)?.stamp.size;
        if size == 0 {
            return Ok(Compared::Empty);
        }
        let progress = &original.progress;
        if progress.head.len == 0 {
            // Nothing was read of it that could be compared. It is about to be, or there is nothing.
            let is_unread = original_size > 0 && original.trouble.is_none() && !original.at_end;
            return Ok(if is_unread { Compared::Undecided } else { Compared::Gone });
        }
        let is_intact = original_size >= progress.offset
            && progress.head_agrees(&mut whole, buffer)?
            && progress.tail_agrees(&mut whole, buffer)?;
        if !is_intact {
            // It was truncated, and nobody has noticed yet: what this file is shows then.
            return Ok(Compared::Undecided);
        }
        let begins_the_same = if size >= u64::from(progress.head.len) {
            progress.head_agrees(&mut copy, buffer)?
        } else {
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            let head = buffer.read(&mut copy, 0, len)?.to_vec();
            head == buffer.read(&mut whole, 0, len)?
        };
        if !begins_the_same {
            return Ok(Compared::Other);
        }
        let from = size.saturating_sub(COMPARED_BYTES);
        let len = usize::try_from(size - from).unwrap_or(usize::MAX);
        let end = buffer.read(&mut copy, from, len)?.to_vec();
        if size > original_size || end != buffer.read(&mut whole, from, len)? {
            return Ok(Compared::Other);
        }
        if size > progress.offset {
            return Ok(Compared::Undecided);
        }
        Ok(Compared::Copy(Progress::passed(&mut copy, buffer, size)?))
    }

    /// The search for a copy of a file that no longer has what was to be read. `dirs` are searched in this order.
    fn detour(
        &self,
        key: FileKey,
        then: Then,
        dirs: &[PathBuf],
        buffer: &mut ReadBuffer,
    ) -> Option<Box<Detour>> {
        let file = self.files.get(&key)?;
        if file.progress.head.len == 0 {
            // Nothing is known that a copy could be told by.
            return None;
        }
        let (mut candidates, mut shorter) = (Vec::new(), Vec::new());
        for (nearness, dir) in dirs.iter().enumerate() {
            let mut found = self.candidates_in(dir, file, nearness == 0);
            found.sort_by_key(|found| {
                let newest_first = std::cmp::Reverse(found.stat.stamp.modified_ns);
                (!found.is_related, found.candidate.is_archive, newest_first)
            });
            for Found { candidate, stat, is_related } in found {
                if candidate.is_archive || stat.stamp.size >= file.progress.offset {
                    candidates.push(candidate);
                } else if is_related
                    && then == Then::StartOver
                    && begins_alike(file, &candidate, &stat, buffer)
                {
                    shorter.push(candidate);
                }
            }
        }
        candidates.truncate(CANDIDATES_MAX);
        (!candidates.is_empty() || !shorter.is_empty())
            .then(|| Box::new(Detour::new(then, candidates, shorter)))
    }

    /// Searches for copies of a file and, where there may be one, lets it be read. Returns whether there may be.
    pub(in crate::tail) fn begin_detour(
        &mut self,
        key: FileKey,
        then: Then,
        dirs: &[PathBuf],
        searches: u8,
        buffer: &mut ReadBuffer,
    ) -> bool {
        let Some(mut detour) = self.detour(key, then, dirs, buffer) else { return false };
        detour.searches = searches;
        if let Some(file) = self.files.get_mut(&key) {
            file.detour = Some(detour);
            file.at_end = false;
        }
        self.enqueue(key);
        true
    }

    fn candidates_in(&self, dir: &Path, file: &FollowedFile, is_home: bool) -> Vec<Found> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let entries: Vec<_> = entries.flatten().take(ENTRIES_MAX).collect();
        let takes_unrelated =
            is_home && entries.len() <= UNRELATED_MAX && file.progress.head.len >= UNRELATED_HEAD_MIN;
        let own_names: Vec<_> =
            [&file.path, &file.named].iter().filter_map(|path| path.file_name()).collect();
        let found = entries.iter().filter_map(|entry| {
            let name = entry.file_name();
            let unpacked = names::unpacked(&name);
            let plain_name = unpacked.unwrap_or(&name);
            let is_related = own_names.iter().any(|own| names::are_related(own, plain_name));
            if !is_related && (unpacked.is_some() || !takes_unrelated) {
                return None;
            }
            let path = entry.path();
            let stat = identity::stat_path(&path).ok().filter(Stat::is_regular)?;
            let is_itself = identity::same_identity(&stat.identity, &file.identity);
            // What has its name now is its successor, however alike they are; and a copy is younger than its original.
            let is_successor = *path == *file.path || *path == *file.named;
            let is_older = stat.identity.birth_ns != 0 && stat.identity.birth_ns < file.identity.birth_ns;
            if is_itself || is_successor || is_older || self.stands_for_itself(file.source, &stat) {
                return None;
            }
            let candidate = Candidate { path, identity: stat.identity, is_archive: unpacked.is_some() };
            Some(Found { candidate, stat, is_related })
        });
        found.collect()
    }

    /// Whether a file is followed and is no copy.
    fn stands_for_itself(&self, source: usize, stat: &Stat) -> bool {
        let inode = (stat.identity.dev, stat.identity.ino);
        let known = self.sources.get(source).and_then(|source| source.by_inode.get(&inode));
        known.and_then(|key| self.files.get(key)).is_some_and(|file| {
            identity::same_birth(&file.identity, &stat.identity)
                && (file.is_recorded || file.origin == Origin::Own)
        })
    }

    /// Has it remembered that everything in a copy was read, so that nobody takes it for a generation of its own.
    pub(in crate::tail) fn consumed(
        &mut self,
        source: usize,
        copy: &Candidate,
        buffer: &mut ReadBuffer,
        now: Instant,
    ) {
        if copy.is_archive {
            return;
        }
        let Some(path) = current_path(copy) else { return };
        let Some(followed) = self.sources.get(source) else { return };
        let place = if followed.pattern.matches(&path) { Place::Matched } else { Place::Renamed };
        let Ok(handle) = identity::open(&path) else { return };
        let Ok(stat) = identity::stat_handle(&handle) else { return };
        if !identity::same_identity(&stat.identity, &copy.identity) {
            return;
        }
        let Ok(progress) = Progress::passed(&mut &handle, buffer, stat.stamp.size) else { return };
        let key = match self.known(source, &stat, now) {
            Some(key) => key,
            None => {
                let path: Arc<Path> = Arc::from(path);
                let key = self.enter(FollowedFile::new(source, stat.identity, Arc::clone(&path), place));
                self.put(key, path, place, now);
                key
            }
        };
        let Some(file) = self.files.get_mut(&key).filter(|file| !file.is_recorded) else { return };
        file.progress = progress;
        file.at_end = true;
        self.release(key);
    }

    fn path_of(&self, key: FileKey) -> Arc<Path> {
        self.files.get(&key).map_or_else(|| Arc::from(Path::new("")), |file| Arc::clone(&file.path))
    }
}

/// What comparing a file with its possible original says.
#[derive(Debug)]
enum Compared {
    /// It is another file.
    Other,
    /// There is nothing any more to compare it with.
    Gone,
    /// It has nothing yet.
    Empty,
    /// It cannot be told before the original was read further.
    Undecided,
    /// All that it has was read from the original: it is as read to its end.
    Copy(Progress),
}

/// A directory entry that may be a copy.
struct Found {
    candidate: Candidate,
    stat: Stat,
    is_related: bool,
}

/// Where a candidate is by now.
fn current_path(candidate: &Candidate) -> Option<PathBuf> {
    let is_it = |stat: &Stat| identity::same_identity(&stat.identity, &candidate.identity);
    if identity::stat_path(&candidate.path).is_ok_and(|stat| is_it(&stat)) {
        return Some(candidate.path.clone());
    }
    let entries = identity::find_entries(candidate.path.parent()?, |ino, _| ino == candidate.identity.ino);
    entries.into_iter().find(|(_, stat)| is_it(stat)).map(|(path, _)| path)
}

/// Whether a file that ends before the offset begins as `file` did: at least as far as is known of that.
fn begins_alike(file: &FollowedFile, candidate: &Candidate, stat: &Stat, buffer: &mut ReadBuffer) -> bool {
    stat.stamp.size >= u64::from(file.progress.head.len)
        && identity::open(&candidate.path)
            .is_ok_and(|handle| file.progress.head_agrees(&mut &handle, buffer).unwrap_or(false))
}

/// Whether the file at `path` begins and ends with what the open file `whole` has there.
pub(super) fn is_prefix(path: &Path, stat: &Stat, whole: &OwnedFd, buffer: &mut ReadBuffer) -> bool {
    let size = stat.stamp.size;
    let mut agrees = |from: u64| {
        let handle = identity::open(path)?;
        let len = usize::try_from(COMPARED_BYTES.min(size - from)).unwrap_or(0);
        let part = buffer.read(&mut &handle, from, len)?.to_vec();
        std::io::Result::Ok(part.len() == len && part == buffer.read(&mut &*whole, from, len)?)
    };
    agrees(0).unwrap_or(false) && agrees(size.saturating_sub(COMPARED_BYTES)).unwrap_or(false)
}

/// Whether the file at `path` has what was read of another one, as far as is known of that.
pub(super) fn is_copy(path: &Path, progress: &Progress, buffer: &mut ReadBuffer) -> bool {
    identity::open(path).is_ok_and(|handle| {
        progress.head_agrees(&mut &handle, buffer).unwrap_or(false)
            && progress.tail_agrees(&mut &handle, buffer).unwrap_or(false)
    })
}

/// The directories in which a file from `dir` may be after it was moved: those below it, those beside it, and theirs.
/// A bounded search: a rotation moves files near.
pub(in crate::tail) fn nearby(dir: &Path) -> Vec<PathBuf> {
    const DIRS_MAX: usize = 256;
    fn below(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut dirs: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        dirs.sort_unstable();
        dirs.into_iter()
    }
    let parent = dir.parent();
    let mut dirs: Vec<PathBuf> = below(dir).collect();
    dirs.extend(parent.map(Path::to_owned));
    dirs.extend(parent.into_iter().flat_map(below).filter(|beside| beside != dir));
    let deeper: Vec<PathBuf> =
        dirs.iter().filter(|near| near.starts_with(dir)).flat_map(|near| below(near)).collect();
    dirs.extend(deeper);
    dirs.truncate(DIRS_MAX);
    dirs
}

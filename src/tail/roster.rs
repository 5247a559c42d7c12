//! Which files are followed, and under which name each of them is.
//!
//! Invariants:
//! - A source follows a file once, whatever names it has: tables go by inode, and a path only says where to look.
//! - A file that loses its name is not let go: it is looked for by identity, through its open handle or beside its old
//!   name, and read to its end. The file that took its name waits for that.
//! - The first look after a start is like any other. Remembered files stand in the tables from the beginning, so what
//!   happened while the agent was down is found the same way as what happens while it runs.

pub(super) mod copies;
mod generations;
mod handles;
mod missing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assemble::Assembler;
use super::discover::{Pattern, Visit};
use super::file::{FileKey, FollowedFile, Origin, Place, Progress, ReadBuffer};
use super::identity::{self, Stat};
use super::watch::{Interest, Uncovered, Watch};
use crate::clock;
use crate::config::{SourceConfig, StartAt};
use crate::event::{Checkpoint, EventBlock, FileOffset, FrameDraft, SkipReason, Skips, SourceName};

/// How often a source is looked through although changes are reported: what notification may have missed is found
/// after that time at the latest. A look takes about 3 µs a file, almost all of it in `statx`: with 10,000 files a
/// third of a percent of one core.
pub(super) const SAFETY_LOOK: Duration = Duration::from_secs(10);
/// After this time a file that is nowhere to be found is forgotten, where its directory is there on the same file
/// system. Before, it might come back: moved to and fro, or restored.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// The same, where its directory is not there: its file system may not be mounted at the moment.
pub(super) const FORGET_UNMOUNTED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// A look comes no earlier than so many times its own duration after the one before: with very many files the share of one
/// core that looking takes stays at a thousandth.
const LOOK_SHARE: u32 = 1000;
/// Most paths of one source whose trouble is remembered as reported.
const MAX_REPORTED: usize = 4096;

/// A `[[sources]]` entry and its files.
#[derive(Debug)]
pub(super) struct FollowedSource {
    pub name: SourceName,
    pub pattern: Arc<Pattern>,
    pub log_path: String,
    pub max_line: usize,
    pub assembler: Assembler,
    /// When its directories are looked through next.
    pub look_due: Instant,
    delay: Duration,
    /// A look that was asked for by a change comes no earlier, so that a storm of changes costs a bounded share.
    look_not_before: Instant,
    /// Files found now are skipped to their end: `start_at = "end"`, no checkpoint, first look.
    skip_present: bool,
    /// Files found that were not written to for longer than this are skipped to their end.
    ignore_older: Option<Duration>,
    /// Some of its directories are not watched, and polled instead.
    polled: bool,
    reported_waiting: bool,
    reported_following: bool,
    /// Paths whose trouble was reported.
    reported: HashSet<PathBuf>,
    by_path: HashMap<Arc<Path>, FileKey>,
    by_inode: HashMap<(u64, u64), FileKey>,
    /// The file that was last displaced from a path, until it is finished.
    former: HashMap<Arc<Path>, FileKey>,
}

/// All sources and files.
#[derive(Debug)]
pub(super) struct Roster {
    pub sources: Vec<FollowedSource>,
    pub files: HashMap<FileKey, FollowedFile>,
    /// Files that may have something to read, each once.
    pub ready: VecDeque<FileKey>,
    /// Files that were displaced and are finished once they are quiet.
    pub finishing: Vec<FileKey>,
    /// Drafts without events that are to be appended.
    pub notes: Vec<FrameDraft>,
    /// Files that need a watch of their own.
    pub unwatched: Vec<FileKey>,
    /// Watches of files that are no longer followed.
    pub watches_to_end: Vec<(i32, FileKey)>,
    /// How many files are open.
    pub open: usize,
    displaced: Vec<FileKey>,
    /// Files whose name a new file took.
    successions: Vec<FileKey>,
    next_key: u64,
    looks: u64,
}

impl Roster {
    pub(super) fn new(
        configs: &[SourceConfig],
        patterns: Vec<Pattern>,
        checkpoints: Vec<Checkpoint>,
        now: Instant,
    ) -> Self {
        let sources = configs.iter().zip(patterns).map(|(config, pattern)| FollowedSource {
            name: config.name.clone(),
            pattern: Arc::new(pattern),
            log_path: config.log_path.clone(),
            max_line: config.lines.max_line_bytes.clamp(1, EventBlock::MAX_EVENT_BYTES),
            assembler: Assembler::new(&config.lines),
            look_due: now,
            delay: config.delay,
            look_not_before: now,
            skip_present: config.start_at == StartAt::End,
            ignore_older: config.ignore_older,
            polled: false,
            reported_waiting: false,
            reported_following: false,
            reported: HashSet::new(),
            by_path: HashMap::new(),
            by_inode: HashMap::new(),
            former: HashMap::new(),
        });
        let mut roster = Self {
            sources: sources.collect(),
            files: HashMap::new(),
            ready: VecDeque::new(),
            finishing: Vec::new(),
            notes: Vec::new(),
            unwatched: Vec::new(),
            watches_to_end: Vec::new(),
            open: 0,
            displaced: Vec::new(),
            successions: Vec::new(),
            next_key: 0,
            looks: 0,
        };
        for checkpoint in checkpoints {
            roster.remember(&checkpoint);
        }
        roster
    }

    /// Enters a file that the spool has a checkpoint of. Checkpoints of sources that are no longer configured stay in
    /// the spool as they are.
    fn remember(&mut self, checkpoint: &Checkpoint) {
        let Some(at) = self.sources.iter().position(|source| source.name == checkpoint.source) else {
            return;
        };
        let path: Arc<Path> = Arc::from(checkpoint.path.as_path());
        let mut file = FollowedFile::new(at, checkpoint.identity, Arc::clone(&path), Place::Missing);
        file.progress = Progress::remembered(checkpoint);
        file.is_recorded = true;
        if file.progress.offset > 0 {
            file.origin = Origin::Own;
        }
        let key = self.enter(file);
        let Some(source) = self.sources.get_mut(at) else { return };
        source.skip_present = false;
        // Of several that had the name one after the other, the youngest had it last.
        let holder = source.by_path.get(&path).and_then(|key| self.files.get(key));
        if holder.is_none_or(|holder| holder.identity.birth_ns <= checkpoint.identity.birth_ns) {
            source.by_path.insert(path, key);
        }
    }

    fn enter(&mut self, file: FollowedFile) -> FileKey {
        let key = FileKey(self.next_key);
        self.next_key += 1;
        let inode = (file.identity.dev, file.identity.ino);
        if let Some(source) = self.sources.get_mut(file.source) {
            // Of several that had the inode one after the other, the youngest has it.
            let holder = source.by_inode.get(&inode).and_then(|key| self.files.get(key));
            if holder.is_none_or(|holder| holder.identity.birth_ns <= file.identity.birth_ns) {
                source.by_inode.insert(inode, key);
            } else {
                self.displaced.push(key);
            }
        }
        self.files.insert(key, file);
        key
    }

    /// Puts a file into the queue of those to read.
    pub(super) fn enqueue(&mut self, key: FileKey) {
        if let Some(file) = self.files.get_mut(&key)
            && !file.queued
        {
            file.queued = true;
            self.ready.push_back(key);
        }
    }

    /// The file under a path was written to.
    pub(super) fn written(&mut self, source: usize, path: &Path) {
        if let Some(key) = self.sources.get(source).and_then(|source| source.by_path.get(path)) {
            self.enqueue(*key);
        }
    }

    /// Something came to a path or went from it.
    pub(super) fn renamed(&mut self, source: usize, path: &Path, now: Instant) {
        let Some(followed) = self.sources.get(source) else { return };
        if followed.by_path.contains_key(path) || followed.pattern.matches(path) {
            self.look_at(source, path, now);
        }
    }

    /// Asks for a look through a source at the next turn.
    pub(super) fn ask_for_look(&mut self, source: usize, now: Instant) {
        if let Some(source) = self.sources.get_mut(source) {
            source.look_due = source.look_due.min(source.look_not_before.max(now));
        }
    }

    /// Looks through a source: what matches now, what has changed, what is no longer there.
    pub(super) fn look(&mut self, at: usize, watch: &mut Watch, now: Instant) {
        let Some(source) = self.sources.get(at) else { return };
        let pattern = Arc::clone(&source.pattern);
        let began = clock::now();
        self.looks += 1;
        let mut uncovered: Option<(PathBuf, Uncovered)> = None;
        pattern.walk(&mut |visit| match visit {
            Visit::Parent(dir) | Visit::Home(dir) => {
                let interest =
                    if matches!(visit, Visit::Home(_)) { Interest::Files } else { Interest::Names };
                if let Err(reason) = watch.cover(dir, interest, at) {
                    uncovered.get_or_insert_with(|| (dir.to_owned(), reason));
                }
            }
            Visit::Match(path) => self.look_at(at, path, now),
            Visit::Unlistable(dir, error) => self.report(at, dir, &error, "a directory cannot be listed"),
        });
        let keys = self.sources.get(at).into_iter().flat_map(|source| source.by_inode.values());
        let is_unseen = |key: &&FileKey| self.files.get(key).is_some_and(|file| file.seen_in != self.looks);
        for key in keys.filter(is_unseen).copied().collect::<Vec<_>>() {
            self.recheck(key, now);
        }
        let Some(source) = self.sources.get_mut(at) else { return };
        source.skip_present = false;
        // What stands at a plain path instead of a file was reported as that.
        let is_explained = pattern.is_literal() && !source.reported.is_empty();
        if source.by_path.is_empty() && !source.reported_waiting && !is_explained {
            tracing::info!(source = %source.name, path = %source.log_path, "no such file yet, waiting for it");
        }
        source.reported_waiting = source.by_path.is_empty();
        if !source.by_path.is_empty() && !source.reported_following {
            let files = source.by_path.len();
            tracing::info!(source = %source.name, path = %source.log_path, files, "following");
            source.reported_following = true;
        }
        if let Some((dir, reason)) = &uncovered
            && !source.polled
        {
            report_polling(source, dir, reason);
        }
        source.polled = uncovered.is_some();
        let took = clock::now().saturating_duration_since(began);
        let safety_look = SAFETY_LOOK.max(took.saturating_mul(LOOK_SHARE));
        source.look_due = now + if source.polled { source.delay } else { safety_look };
        source.look_not_before = now + took.saturating_mul(4);
    }

    /// Looks at a path that belongs to the source or did.
    fn look_at(&mut self, source: usize, path: &Path, now: Instant) {
        match identity::stat_path(path) {
            Ok(stat) if stat.is_regular() => {
                self.report_no_more(source, path);
                self.found(source, path, &stat, now);
            }
            Ok(stat) => {
                self.vacate(source, path, now);
                self.refuse(source, path, stat.kind);
            }
            Err(error) if is_absence(&error) => {
                self.report_no_more(source, path);
                self.vacate(source, path, now);
            }
            Err(error) => self.report(source, path, &error, "a file cannot be looked at"),
        }
    }

    /// A regular file is at a path.
    fn found(&mut self, source: usize, path: &Path, stat: &Stat, now: Instant) {
        let Some(followed) = self.sources.get(source) else { return };
        let holder = followed.by_path.get(path).copied();
        if let Some((key, file)) = holder.and_then(|key| Some((key, self.files.get(&key)?)))
            && matches!(file.place, Place::Matched | Place::Renamed)
            && identity::same_identity(&file.identity, &stat.identity)
        {
            // As almost always.
            return self.seen(key, file.place, stat, now);
        }
        let skip_content = followed.skips(stat);
        let place = if followed.pattern.matches(path) { Place::Matched } else { Place::Renamed };
        match (holder, self.known(source, stat, now)) {
            (Some(holder), Some(known)) if holder == known => {}
            (holder, Some(known)) => {
                if let Some(holder) = holder {
                    self.displace(holder, now);
                }
                if self.is_in_place(known) {
                    // Another name of a file that is read under its first one.
                    self.unwatched.push(known);
                    return;
                }
                // One that is remembered and was not seen yet may just be where it was.
                let is_at_home = self.files.get(&known).is_some_and(|file| {
                    file.place == Place::Missing && file.missing_since.is_none() && *file.path == *path
                });
                if !is_at_home {
                    self.displace(known, now);
                }
                self.put(known, Arc::from(path), place, now);
            }
            (holder, None) => {
                if let Some(holder) = holder
                    && self.adopt(holder, stat)
                {
                    return self.seen(holder, place, stat, now);
                }
                let former = self.sources.get_mut(source).and_then(|source| source.former.remove(path));
                if let Some(holder) = holder {
                    self.displace(holder, now);
                }
                if place != Place::Matched {
                    return;
                }
                tracing::debug!(path = %path.display(), identity = ?stat.identity, "a new file is followed");
                let path: Arc<Path> = Arc::from(path);
                let mut file = FollowedFile::new(source, stat.identity, Arc::clone(&path), place);
                file.skip_content = skip_content;
                let key = self.enter(file);
                self.put(key, Arc::clone(&path), place, now);
                self.enqueue(key);
                if let Some(older) = holder.or(former).filter(|older| self.files.contains_key(older)) {
                    self.succeed(older, key, now);
                    self.successions.push(older);
                    // It may have come to its end before there was anyone to wait for that.
                    self.enqueue(older);
                    if let Some(older) = self.files.get_mut(&older) {
                        older.taken_over = Some(Box::new((key, path)));
                    }
                }
            }
        }
        if let Some(key) = self.sources.get(source).and_then(|source| source.by_path.get(path)) {
            self.seen(*key, place, stat, now);
        }
    }

    /// The followed file with this identity. One whose inode was given to another file is gone: what is left of it can only
    /// be in a copy.
    fn known(&mut self, source: usize, stat: &Stat, now: Instant) -> Option<FileKey> {
        let inode = (stat.identity.dev, stat.identity.ino);
        let key = *self.sources.get(source)?.by_inode.get(&inode)?;
        let file = self.files.get(&key)?;
        if identity::same_birth(&file.identity, &stat.identity) {
            return Some(key);
        }
        tracing::debug!(
            path = %file.path.display(), was = ?file.identity, is = ?stat.identity,
            "the inode of a followed file was given to another file"
        );
        self.displace(key, now);
        self.sources.get_mut(source)?.by_inode.remove(&inode);
        None
    }

    /// Whether a remembered file is this one although the device has another number, as after a reboot.
    fn adopt(&mut self, key: FileKey, stat: &Stat) -> bool {
        let Some(file) = self.files.get_mut(&key) else { return false };
        let (old, new) = (file.identity, stat.identity);
        if file.handle.is_some() || old.ino != new.ino || old.birth_ns == 0 || old.birth_ns != new.birth_ns {
            return false;
        }
        let Some(source) = self.sources.get_mut(file.source) else { return false };
        source.by_inode.remove(&(old.dev, old.ino));
        source.by_inode.insert((new.dev, new.ino), key);
        let before = file.checkpoint(&source.name);
        file.identity = new;
        let after = file.checkpoint(&source.name);
        self.notes.push(note(after, false));
        self.notes.push(note(before, true));
        true
    }

    /// Whether a file is still where it is followed.
    fn is_in_place(&self, key: FileKey) -> bool {
        self.files.get(&key).is_some_and(|file| {
            file.place == Place::Matched
                && identity::stat_path(&file.path)
                    .is_ok_and(|stat| identity::same_identity(&stat.identity, &file.identity))
        })
    }

    /// Notes that a file is at its path and what it looks like.
    fn seen(&mut self, key: FileKey, place: Place, stat: &Stat, now: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let is_new = file.seen_in == 0;
        file.seen_in = self.looks;
        file.place = place;
        file.missing_since = None;
        file.identity.birth_ns = file.identity.birth_ns.max(stat.identity.birth_ns);
        if file.observe(stat.stamp) || is_new {
            if let Some(trouble) = &mut file.trouble {
                // Its permissions may be other ones now.
                trouble.retry_at = now;
            }
            self.enqueue(key);
        }
    }

    /// Gives a file a path. The spool learns of it when the file is finished: until then, its old name tells a restart
    /// that it was displaced.
    fn put(&mut self, key: FileKey, path: Arc<Path>, place: Place, now: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let Some(source) = self.sources.get_mut(file.source) else { return };
        if source.by_path.get(&file.path) == Some(&key) {
            source.by_path.remove(&file.path);
        }
        file.path = Arc::clone(&path);
        file.place = place;
        file.missing_since = None;
        let other = source.by_path.insert(Arc::clone(&path), key).filter(|other| *other != key);
        if let Some(other) = other {
            self.displace(other, now);
        }
    }

    /// Whatever was followed at a path is no longer there.
    fn vacate(&mut self, source: usize, path: &Path, now: Instant) {
        if let Some(holder) = self.sources.get(source).and_then(|source| source.by_path.get(path)) {
            self.displace(*holder, now);
        }
    }

    /// A file lost its name: it is looked for, read to its end, and finished once it is quiet.
    pub(super) fn displace(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if let Some(source) = self.sources.get_mut(file.source)
            && source.by_path.get(&file.path) == Some(&key)
        {
            source.by_path.remove(&file.path);
            source.former.insert(Arc::clone(&file.path), key);
        }
        file.at_end = false;
        file.place = Place::Displaced;
        if file.quiet_since.replace(now).is_none() {
            self.finishing.push(key);
        }
        self.displaced.push(key);
        self.enqueue(key);
    }

    /// There is no copy of a file that was not found: it is looked for once more, or given up when its time has come.
    pub(super) fn not_found(&mut self, key: FileKey) {
        self.displaced.push(key);
    }

    /// Looks at a followed file that a look through its source did not come across.
    fn recheck(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.files.get(&key) else { return };
        match file.place {
            Place::Matched | Place::Renamed => match identity::stat_path(&file.path) {
                Ok(stat) if identity::same_identity(&stat.identity, &file.identity) => {
                    self.seen(key, file.place, &stat, now);
                }
                Err(error) if !is_absence(&error) => {}
                _ => self.displace(key, now),
            },
            // A remembered file that has not been found for the first time.
            Place::Missing if file.missing_since.is_none() => self.displace(key, now),
            Place::Missing => self.displaced.push(key),
            Place::Displaced | Place::Deleted => {}
        }
    }

    /// Lets go of a file for good, and has the spool forget it.
    pub(super) fn forget(&mut self, key: FileKey) {
        self.release_successor(key);
        let Some(file) = self.files.remove(&key) else { return };
        self.open -= usize::from(file.handle.is_some());
        self.watches_to_end.extend(file.watch.map(|watch| (watch, key)));
        let Some(source) = self.sources.get_mut(file.source) else { return };
        source.by_inode.retain_key(&(file.identity.dev, file.identity.ino), key);
        source.by_path.retain_key(&file.path, key);
        source.former.retain(|_, former| *former != key);
        if file.is_recorded {
            self.notes.push(note(file.checkpoint(&source.name), true));
        }
    }

    /// Ends what a displaced file was kept for: order among generations, and its handle unless it still matches.
    pub(super) fn finish(&mut self, key: FileKey, buffer: &mut ReadBuffer, now: Instant) {
        // Once more, as names may have been moving at the first look. After this the spool forgets that there was a
        // generation to look after.
        self.find_generations(key, buffer, now);
        self.release_successor(key);
        let Some(file) = self.files.get_mut(&key) else { return };
        file.quiet_since = None;
        file.taken_over = None;
        if let Some(source) = self.sources.get_mut(file.source) {
            source.former.retain(|_, former| *former != key);
            // As long as no other file is known under the old name, the old name is what tells a restart that there
            // was one, and that generations after this one may have come and gone.
            let is_taken = source.by_path.get(&file.named).is_some_and(|other| *other != key);
            if is_taken && file.place != Place::Deleted {
                file.named = Arc::clone(&file.path);
                if file.is_recorded {
                    self.notes.push(note(file.checkpoint(&source.name), false));
                }
            }
        }
        match file.place {
            Place::Matched => {}
            Place::Deleted => self.forget(key),
            _ => self.close(key),
        }
    }

    /// Reports trouble with a path once.
    fn report(&mut self, source: usize, path: &Path, error: &io::Error, message: &'static str) {
        if let Some(source) = self.sources.get_mut(source)
            && source.report_once(path)
        {
            tracing::warn!(source = %source.name, path = %path.display(), %error, "{message}");
        }
    }

    /// The trouble with a path is over: the next one is reported again.
    fn report_no_more(&mut self, source: usize, path: &Path) {
        if let Some(source) = self.sources.get_mut(source)
            && !source.reported.is_empty()
        {
            source.reported.remove(path);
        }
    }

    fn refuse(&mut self, source: usize, path: &Path, kind: rustix::fs::FileType) {
        let Some(source) = self.sources.get_mut(source) else { return };
        if !source.report_once(path) {
            return;
        }
        // A glob meets directories all the time.
        if kind == rustix::fs::FileType::Directory && !source.pattern.is_literal() {
            tracing::debug!(source = %source.name, path = %path.display(), "a directory is not followed");
        } else {
            tracing::warn!(
                source = %source.name, path = %path.display(), kind = ?kind,
                "not a regular file, it is not followed"
            );
        }
    }
}

impl FollowedSource {
    /// Why the content of a file that is found now is not read, if it is not.
    fn skips(&self, stat: &Stat) -> Option<SkipReason> {
        if self.skip_present {
            return Some(SkipReason::StartAtEnd);
        }
        let limit = i64::try_from(self.ignore_older?.as_millis()).unwrap_or(i64::MAX);
        let age_ms = clock::wall().millis().saturating_sub(stat.stamp.modified_ns / 1_000_000);
        (age_ms > limit).then_some(SkipReason::Older)
    }

    fn report_once(&mut self, path: &Path) -> bool {
        self.reported.len() < MAX_REPORTED && self.reported.insert(path.to_owned())
    }
}

trait RetainKey<K> {
    /// Removes an entry if it leads to `key`.
    fn retain_key(&mut self, at: &K, key: FileKey);
}

impl<K: std::hash::Hash + Eq> RetainKey<K> for HashMap<K, FileKey> {
    fn retain_key(&mut self, at: &K, key: FileKey) {
        if self.get(at) == Some(&key) {
            self.remove(at);
        }
    }
}

/// Where an open file is by now: `Some((None, _))` where its last name is gone, `None` where that cannot be told.
fn through_handle(file: &FollowedFile) -> Option<(Option<PathBuf>, Stat)> {
    use std::os::fd::AsRawFd as _;
    let handle = file.handle.as_ref()?;
    let stat = identity::stat_handle(handle).ok()?;
    if stat.links == 0 {
        return Some((None, stat));
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).ok()?;
    let there = identity::stat_path(&path).ok()?;
    identity::same_identity(&there.identity, &file.identity).then_some((Some(path), stat))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A draft that says why what is between `start` and the checkpoint's offset did not become events.
pub(super) fn skip_note(checkpoint: Checkpoint, start: FileOffset, reason: SkipReason) -> FrameDraft {
    let skips = Skips::of(reason, checkpoint.offset.since(start));
    FrameDraft { start, skips, ..note(checkpoint, false) }
}

/// A draft without events.
pub(super) fn note(checkpoint: Checkpoint, forget: bool) -> FrameDraft {
    FrameDraft {
        start: FileOffset(checkpoint.offset.0),
        checkpoint,
        detected: clock::wall(),
        events: EventBlock::default(),
        skips: Skips::default(),
        before: None,
        forget,
    }
}

fn report_polling(source: &FollowedSource, dir: &Path, reason: &Uncovered) {
    let (name, path, delay_ms) = (&source.name, dir.display(), source.delay.as_millis());
    match reason {
        // Said once at start.
        Uncovered::Unavailable => {}
        Uncovered::Remote => {
            tracing::info!(source = %name, %path, delay_ms, "a network file system, its files are polled");
        }
        Uncovered::Limit => tracing::warn!(
            source = %name, %path, delay_ms,
            "the limit of watches is reached, files are polled; raise fs.inotify.max_user_watches"
        ),
        Uncovered::Failed(error) => tracing::warn!(
            source = %name, %path, delay_ms, error = %io::Error::from(*error),
            "a directory cannot be watched, its files are polled"
        ),
    }
}

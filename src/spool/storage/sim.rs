//! A disk whose power can be cut before every step, and whose steps can be made to fail.
//!
//! The files are real, so that sled and the readers need no seam. What is simulated is what of them a power cut leaves:
//! every step is recorded, and [`Sim::crash`] makes from the first so many of them any [`Image`] that a disk may show
//! afterwards, as the invariants of [`Storage`] allow: parts of what was written and not synced, in any order and torn
//! at sectors; and for each directory its names but for the newest changes.
//!
//! The files of the ledger are written by sled. What changed in them is looked for at each step, and counts as written
//! right before it; only what is synced through the seam is durable, whatever sled itself has synced.

mod cut;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use self::cut::Cut;
use super::{Os, Storage};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Where there are no more ways than this for a power cut to leave things, all of them are gone through.
const WAYS_MAX: u64 = 48;

type Dir = usize;
type Inode = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir(Dir),
    File(Inode),
}

/// One change, or one sync of changes.
#[derive(Clone, Debug)]
enum Step {
    Link {
        dir: Dir,
        name: OsString,
        node: Node,
    },
    Unlink {
        dir: Dir,
        name: OsString,
    },
    Rename {
        from: (Dir, OsString),
        to: (Dir, OsString),
    },
    Write {
        file: Inode,
        at: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        file: Inode,
        len: u64,
    },
    Sync {
        file: Inode,
    },
    /// A sync that failed: what was written is still to be read, and will never be on the disk.
    Drop {
        file: Inode,
    },
    SyncDir {
        dir: Dir,
    },
}

impl Step {
    /// Whether it writes just where `before` did.
    fn replaces(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Write { at, bytes, .. }, Self::Write { at: other, bytes: others, .. }) => {
                at == other && bytes.len() == others.len()
            }
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { dir, name, .. } => write!(f, "create {dir}/{}", name.display()),
            Self::Unlink { dir, name } => write!(f, "unlink {dir}/{}", name.display()),
            Self::Rename { from, to } => {
                write!(f, "rename {}/{} to {}/{}", from.0, from.1.display(), to.0, to.1.display())
            }
            Self::Write { file, at, bytes } => write!(f, "write {} bytes to {file} at {at}", bytes.len()),
            Self::SetLen { file, len } => write!(f, "set the length of {file} to {len}"),
            Self::Sync { file } => write!(f, "sync {file}"),
            Self::Drop { file } => write!(f, "fail to sync {file}"),
            Self::SyncDir { dir } => write!(f, "sync the directory {dir}"),
        }
    }
}

/// The calls of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Call {
    Create,
    Write,
    Sync,
    SyncDir,
    Rename,
    Unlink,
    SetLen,
}

/// What a call answers instead of doing what it should.
#[derive(Clone, Copy, Debug)]
pub(in crate::spool) enum Failure {
    /// ENOSPC after half of what was to be written.
    NoSpace,
    /// EIO.
    Io,
}

/// Directories and files, as a file system has them.
pub(in crate::spool) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

#[derive(Clone, Debug)]
struct Tree {
    dirs: Vec<BTreeMap<OsString, Node>>,
}

#[derive(Debug, Default)]
struct Journal {
    /// How many of the steps made the disk that the test began with.
    given: usize,
    steps: Vec<Step>,
    /// The names as they are now.
    tree: Tree,
    /// What the inodes of the real file system are here.
    inodes: HashMap<u64, Inode>,
    files: usize,
    /// What is known of the content of the ledger's files.
    seen: HashMap<Inode, Vec<u8>>,
    plans: Vec<Plan>,
    calls: u64,
    left_out: Option<(Call, &'static str)>,
}

#[derive(Debug)]
struct Plan {
    which: Which,
    failure: Failure,
    times: u32,
}

#[derive(Debug)]
enum Which {
    /// Calls of one kind whose path has this directory.
    Under(Call, PathBuf),
    /// The calls from this one on, counted from 0.
    From(u64),
}

impl Default for Tree {
    fn default() -> Self {
        Self { dirs: vec![BTreeMap::new()] }
    }
}

impl Tree {
    fn find(&self, path: &Path) -> Option<Node> {
        path.iter().try_fold(Node::Dir(0), |node, name| match node {
            Node::Dir(dir) => self.dirs.get(dir)?.get(name).copied(),
            Node::File(_) => None,
        })
    }

    /// The directory of a path, and its name there.
    fn place(&self, path: &Path) -> Option<(Dir, OsString)> {
        match self.find(path.parent()?)? {
            Node::Dir(dir) => Some((dir, path.file_name()?.to_owned())),
            Node::File(_) => None,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Link { dir, name, node } => {
                self.dirs[*dir].insert(name.clone(), *node);
            }
            Step::Unlink { dir, name } => {
                self.dirs[*dir].remove(name);
            }
            Step::Rename { from, to } => {
                // What was to be moved may never have come to stand there.
                if let Some(node) = self.dirs[from.0].remove(&from.1) {
                    self.dirs[to.0].insert(to.1.clone(), node);
                }
            }
            _ => {}
        }
    }
}

impl Journal {
    fn record(&mut self, step: Step) {
        if let Step::Link { node: Node::Dir(dir), .. } = step {
            self.tree.dirs.resize(self.tree.dirs.len().max(dir + 1), BTreeMap::new());
        }
        self.tree.apply(&step);
        self.steps.push(step);
    }

    fn link(&mut self, path: &Path, node: Node) {
        let (dir, name) = self.tree.place(path).unwrap();
        self.record(Step::Link { dir, name, node });
    }

    fn link_dir(&mut self, path: &Path) {
        let node = Node::Dir(self.tree.dirs.len());
        self.link(path, node);
    }

    fn new_file(&mut self, inode: u64) -> Inode {
        let file = self.files;
        self.files += 1;
        self.inodes.insert(inode, file);
        file
    }

    fn file(&self, file: &File) -> Inode {
        self.inodes[&file.metadata().unwrap().ino()]
    }

    fn unlink_all(&mut self, path: &Path) {
        if let Some(Node::Dir(dir)) = self.tree.find(path) {
            let names: Vec<_> = self.tree.dirs[dir].keys().cloned().collect();
            names.iter().for_each(|name| self.unlink_all(&path.join(name)));
        }
        if self.tree.find(path).is_some() {
            let (dir, name) = self.tree.place(path).unwrap();
            self.record(Step::Unlink { dir, name });
        }
    }

    /// Records what sled has changed below a directory.
    fn look(&mut self, root: &Path, path: &Path) {
        let Ok(entries) = fs::read_dir(root.join(path)) else { return };
        let mut there = HashSet::new();
        for entry in entries.flatten() {
            let path = path.join(entry.file_name());
            let Ok(meta) = entry.metadata() else { continue };
            there.insert(entry.file_name());
            if meta.is_dir() {
                if self.tree.find(&path).is_none() {
                    self.link_dir(&path);
                }
                self.look(root, &path);
            } else if let Ok(bytes) = fs::read(root.join(&path)) {
                let known = self.tree.find(&path).filter(
                    |known| matches!(known, Node::File(file) if self.inodes.get(&meta.ino()) == Some(file)),
                );
                match known {
                    Some(Node::File(file)) => self.changed(file, bytes),
                    _ if entry.file_name().as_encoded_bytes().starts_with(b"snap.") => {
                        // sled gives them this name only after an fsync.
                        let file = self.new_file(meta.ino());
                        self.changed(file, bytes);
                        self.record(Step::Sync { file });
                        self.link(&path, Node::File(file));
                    }
                    _ => {
                        let file = self.new_file(meta.ino());
                        self.link(&path, Node::File(file));
                        self.changed(file, bytes);
                    }
                }
            }
        }
        let Some(Node::Dir(dir)) = self.tree.find(path) else { return };
        let gone: Vec<_> =
            self.tree.dirs[dir].keys().filter(|name| !there.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.unlink_all(&path.join(name)));
    }

    /// Learns which files of the real file system its own are, and what is in them.
    fn learn(&mut self, root: &Path, path: &Path) {
        for entry in fs::read_dir(root.join(path)).unwrap().flatten() {
            let path = path.join(entry.file_name());
            match self.tree.find(&path).unwrap() {
                Node::Dir(_) => self.learn(root, &path),
                Node::File(file) => {
                    self.inodes.insert(entry.metadata().unwrap().ino(), file);
                    self.seen.insert(file, fs::read(root.join(&path)).unwrap());
                }
            }
        }
    }

    fn look_at_ledgers(&mut self, root: &Path) {
        for name in ["ledger", "ledger.new", "ledger.old"].map(Path::new) {
            if root.join(name).is_dir() {
                if self.tree.find(name).is_none() {
                    self.link_dir(name);
                }
                self.look(root, name);
            }
        }
    }

    /// Records the sectors that differ from what was seen, in runs.
    fn changed(&mut self, file: Inode, bytes: Vec<u8>) {
        let before = self.seen.remove(&file).unwrap_or_default();
        if before != bytes {
            if bytes.len() != before.len() {
                self.record(Step::SetLen { file, len: bytes.len() as u64 });
            }
            let mut before = before;
            before.resize(bytes.len(), 0);
            let sectors: Vec<_> =
                bytes.chunks(SECTOR).zip(before.chunks(SECTOR)).map(|(a, b)| a != b).collect();
            let mut at = 0;
            for run in sectors.chunk_by(|a, b| a == b) {
                let end = at + run.len();
                if run[0] {
                    let bytes = bytes[at * SECTOR..(end * SECTOR).min(bytes.len())].to_vec();
                    self.record(Step::Write { file, at: (at * SECTOR) as u64, bytes });
                }
                at = end;
            }
        }
        self.seen.insert(file, bytes);
    }

    /// Whether a call is to fail, and how.
    fn strike(&mut self, call: Call, path: &Path) -> Option<Failure> {
        let number = self.calls;
        self.calls += 1;
        let plan = self.plans.iter_mut().find(|plan| {
            plan.times > 0
                && match &plan.which {
                    Which::Under(only, under) => *only == call && path.starts_with(under),
                    Which::From(from) => number >= *from,
                }
        })?;
        plan.times -= 1;
        Some(plan.failure)
    }

    fn is_left_out(&self, call: Call, path: &Path) -> bool {
        self.left_out.is_some_and(|(left_out, place)| {
            let top = path.iter().next().unwrap_or(OsStr::new("."));
            left_out == call && top.to_string_lossy().starts_with(place)
        })
    }
}

/// A simulated disk below a directory.
#[derive(Debug)]
pub(in crate::spool) struct Sim {
    root: PathBuf,
    journal: Mutex<Journal>,
}

impl Sim {
    /// A disk that holds what is in a directory, durably.
    pub(in crate::spool) fn new(root: &Path) -> Self {
        let mut journal = Journal::default();
        journal.look(root, Path::new(""));
        // Only the ledger's files are looked at again.
        let ledgers: HashSet<_> = (0..journal.files).collect();
        journal.seen.retain(|file, _| ledgers.contains(file));
        for file in 0..journal.files {
            journal.record(Step::Sync { file });
        }
        for dir in 0..journal.tree.dirs.len() {
            journal.record(Step::SyncDir { dir });
        }
        journal.given = journal.steps.len();
        Self { root: root.to_owned(), journal: Mutex::new(journal) }
    }

    /// The disk that a killed process leaves after the first `steps` steps, in the empty directory `root`: all that it
    /// did can be read, and what was not synced may still be lost.
    pub(in crate::spool) fn killed(&self, steps: usize, root: &Path) -> Self {
        let (all, files) = {
            let journal = self.journal();
            (journal.steps[..steps].to_vec(), journal.files)
        };
        let cut = Cut::after(&all, files);
        let kept: Vec<_> = cut.choices().iter().map(|ways| ways - 1).collect();
        make(&cut.image(&kept, &mut SmallRng::seed_from_u64(0)), root);
        let mut journal = Journal { files, given: steps, ..Journal::default() };
        all.into_iter().for_each(|step| journal.record(step));
        journal.learn(root, Path::new(""));
        Self { root: root.to_owned(), journal: Mutex::new(journal) }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap()
    }

    fn path<'a>(&self, path: &'a Path) -> &'a Path {
        // What is not below it is the directory above.
        path.strip_prefix(&self.root).unwrap_or(Path::new(".."))
    }

    fn path_of(&self, file: &File) -> PathBuf {
        let path = super::kill::path_of(file).unwrap();
        self.path(&path).to_owned()
    }

    /// How many steps there were.
    pub(in crate::spool) fn steps(&self) -> usize {
        self.journal().steps.len()
    }

    /// How many of them were there from the beginning.
    pub(in crate::spool) fn given(&self) -> usize {
        self.journal().given
    }

    /// How many calls there were.
    pub(in crate::spool) fn calls(&self) -> u64 {
        self.journal().calls
    }

    /// Lets the next `times` calls of this kind fail that touch something under a directory of the spool.
    pub(in crate::spool) fn fail(&self, call: Call, under: &str, failure: Failure, times: u32) {
        self.journal().plans.push(Plan { which: Which::Under(call, under.into()), failure, times });
    }

    /// Lets `times` calls fail from the one with this number on, counted from 0.
    pub(in crate::spool) fn fail_from(&self, number: u64, failure: Failure, times: u32) {
        self.journal().plans.push(Plan { which: Which::From(number), failure, times });
    }

    /// How many of the failures that were asked for are still to come.
    pub(in crate::spool) fn failures_left(&self) -> u32 {
        self.journal().plans.iter().map(|plan| plan.times).sum()
    }

    /// Lets no call fail any more.
    pub(in crate::spool) fn heal(&self) {
        self.journal().plans.clear();
    }

    /// The last steps before a power cut.
    pub(in crate::spool) fn describe(&self, steps: usize) -> String {
        let journal = self.journal();
        let last = journal.steps[..steps].iter().enumerate().skip(steps.saturating_sub(6));
        last.map(|(number, step)| format!("  {number}: {step}\n")).collect()
    }

    /// Lets all calls of this kind do nothing whose path begins with a name that begins with `place`, or with a dot is
    /// the spool's own directory: the mistake that a test has to find.
    pub(in crate::spool) fn leave_out(&self, call: Call, place: &'static str) {
        self.journal().left_out = Some((call, place));
    }

    /// Does a call, unless it is to fail.
    fn call(
        &self,
        call: Call,
        path: &Path,
        run: impl FnOnce(&mut Journal) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut journal = self.journal();
        journal.look_at_ledgers(&self.root);
        match journal.strike(call, path) {
            Some(Failure::NoSpace) => Err(io::Error::from_raw_os_error(28)),
            Some(Failure::Io) => Err(io::Error::from_raw_os_error(5)),
            None if journal.is_left_out(call, path) => Ok(()),
            None => run(&mut journal),
        }
    }

    /// What the disk may hold if the power is cut after the first `steps` steps: every way there is where they are few,
    /// otherwise the extremes and as many at random.
    pub(in crate::spool) fn crash(&self, steps: usize, random: &mut SmallRng) -> Vec<Image> {
        let journal = self.journal();
        let cut = Cut::after(&journal.steps[..steps], journal.files);
        let choices = cut.choices();
        let ways = choices.iter().try_fold(1_u64, |ways, n| ways.checked_mul(*n as u64)).unwrap_or(u64::MAX);
        let mut picks: Vec<Vec<usize>> = Vec::new();
        if ways <= WAYS_MAX {
            for way in 0..ways {
                let mut rest = way;
                picks.push(
                    choices
                        .iter()
                        .map(|n| {
                            let pick = rest % *n as u64;
                            rest /= *n as u64;
                            usize::try_from(pick).unwrap()
                        })
                        .collect(),
                );
            }
        } else {
            picks.push(choices.iter().map(|_| 0).collect());
            picks.push(choices.iter().map(|n| n - 1).collect());
            for _ in 2..WAYS_MAX {
                picks.push(choices.iter().map(|n| random.random_range(0..*n)).collect());
            }
        }
        picks.iter().map(|picks| cut.image(picks, random)).collect()
    }
}

/// Makes a directory that holds an image.
pub(in crate::spool) fn make(image: &Image, root: &Path) {
    for (path, content) in image {
        match content {
            None => fs::create_dir(root.join(path)).unwrap(),
            Some(bytes) => fs::write(root.join(path), bytes).unwrap(),
        }
    }
}

/// Tells images apart.
pub(in crate::spool) fn fingerprint(image: &Image) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

impl Storage for Sim {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let here = self.path(path);
        self.call(Call::Create, here, |journal| {
            Os.create_dir(path)?;
            if here != Path::new("") && here != Path::new("..") && journal.tree.find(here).is_none() {
                journal.link_dir(here);
            }
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut created = None;
        let here = self.path(path);
        self.call(Call::Create, here, |journal| {
            let file = Os.create(path)?;
            let inode = journal.new_file(file.metadata()?.ino());
            journal.link(here, Node::File(inode));
            created = Some(file);
            Ok(())
        })?;
        Ok(created.unwrap())
    }

    fn write(&self, file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        use io::Seek as _;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut position = file;
        let at = position.stream_position()?;
        let written = self.call(Call::Write, &self.path_of(file), |journal| {
            Os.write(file, slices)?;
            let file = journal.file(file);
            journal.record(Step::Write { file, at, bytes: bytes.clone() });
            Ok(())
        });
        if written.as_ref().is_err_and(|error| error.raw_os_error() == Some(28)) {
            // What a full disk leaves.
            bytes.truncate(bytes.len() / 2);
            Os.write(file, &mut [IoSlice::new(&bytes)])?;
            let mut journal = self.journal();
            let file = journal.file(file);
            journal.record(Step::Write { file, at, bytes });
        }
        written
    }

    fn overwrite(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.call(Call::Write, &self.path_of(file), |journal| {
            Os.overwrite(file, bytes, at)?;
            let file = journal.file(file);
            journal.record(Step::Write { file, at, bytes: bytes.to_vec() });
            Ok(())
        })
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.call(Call::SetLen, &self.path_of(file), |journal| {
            Os.set_len(file, len)?;
            let file = journal.file(file);
            journal.record(Step::SetLen { file, len });
            Ok(())
        })
    }

    fn allocate(&self, _: &File, _: u64) -> io::Result<()> {
        // Room for an emergency is nothing that a power cut could take.
        Ok(())
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let synced = self.call(Call::Sync, &self.path_of(file), |journal| {
            let file = journal.file(file);
            journal.record(Step::Sync { file });
            Ok(())
        });
        if synced.is_err() {
            let mut journal = self.journal();
            let file = journal.file(file);
            journal.record(Step::Drop { file });
        }
        synced
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.sync_data(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let here = self.path(dir);
        self.call(Call::SyncDir, here, |journal| {
            if let Some(Node::Dir(dir)) = journal.tree.find(here) {
                journal.record(Step::SyncDir { dir });
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (here, there) = (self.path(from), self.path(to));
        self.call(Call::Rename, here, |journal| {
            Os.rename(from, to)?;
            let step = Step::Rename {
                from: journal.tree.place(here).unwrap(),
                to: journal.tree.place(there).unwrap(),
            };
            journal.record(step);
            Ok(())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let here = self.path(path);
        self.call(Call::Unlink, here, |journal| {
            Os.unlink(path)?;
            if here.file_name() != Some(OsStr::new("reserve")) {
                let (dir, name) = journal.tree.place(here).unwrap();
                journal.record(Step::Unlink { dir, name });
            }
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let here = self.path(path);
        self.call(Call::Unlink, here, |journal| {
            Os.remove_dir(path)?;
            journal.unlink_all(here);
            Ok(())
        })
    }
}

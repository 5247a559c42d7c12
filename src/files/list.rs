//! Every file that the spool knows: where it is now, and how far it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Identity;
use crate::clock;
use crate::spool::{Agent, FileRecord, Known, SpoolError, is_same_file, known_files};
use crate::tail::{Stat, find_entries, stat_path};

/// The files that a spool knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileList {
    /// The agent that runs on the spool.
    pub agent: Option<Agent>,
    /// Bytes that are not read yet, of all files.
    pub lag_bytes: u64,
    /// Bytes of disk that deleted files hold because the agent has them open; unknown where no agent runs or its open files
    /// cannot be seen.
    pub held_bytes: Option<u64>,
    /// By source and path.
    pub list: Vec<FileEntry>,
}

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileEntry {
    /// The source that follows it.
    pub source: String,
    /// Where it was last followed; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What the file system says it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where it is now.
    #[serde(flatten)]
    pub place: Place,
    /// Everything before this offset is in the spool, or was skipped for a counted reason.
    pub offset: u64,
    /// Its size now; unknown where it is gone.
    pub size: Option<u64>,
    /// Bytes that are not read yet; unknown where it is gone.
    pub lag_bytes: Option<u64>,
    /// Where there are such bytes, how long ago the last were read, in seconds.
    pub lag_secs: Option<u64>,
    /// Whether `offset = spooled + skipped`.
    pub balanced: bool,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Place {
    /// At its path.
    Current,
    /// Under another name beside it.
    Renamed {
        /// That name, as a path.
        found_at: String,
    },
    /// It has no name any more, and the agent has it open.
    DeletedHeldOpen {
        /// Bytes of disk that it holds.
        held_bytes: u64,
    },
    /// It is neither at its path nor beside it.
    Gone,
}

/// Lists the files that the spool in `dir` knows, whether or not an agent runs on it.
///
/// # Errors
/// Where there is no spool or it cannot be read.
pub(crate) fn list(dir: &Path) -> Result<FileList, SpoolError> {
    let Known { agent, mut files } = known_files(dir)?;
    files.sort_by(|one, other| {
        let of = |record: &FileRecord| (record.checkpoint.source.clone(), record.checkpoint.path.clone());
        of(one).cmp(&of(other))
    });
    let held = agent.and_then(|agent| held_open(agent.pid?).ok());
    let sight = Sight::of(&files, held.as_deref().unwrap_or_default());
    let list: Vec<_> = files.iter().map(|record| sight.entry(record)).collect();
    let held_bytes = held.map(|_| {
        // Several sources may follow one file.
        let deleted: BTreeMap<_, _> = list
            .iter()
            .filter_map(|entry| match entry.place {
                Place::DeletedHeldOpen { held_bytes } => {
                    Some(((entry.identity.dev, entry.identity.ino), held_bytes))
                }
                _ => None,
            })
            .collect();
        deleted.into_values().fold(0, u64::saturating_add)
    });
    let lag_bytes = list.iter().filter_map(|entry| entry.lag_bytes).fold(0, u64::saturating_add);
    Ok(FileList { agent, lag_bytes, held_bytes, list })
}

/// A file without a name that a process has open.
struct Held {
    stat: Stat,
    /// Bytes of disk.
    bytes: u64,
}

/// The deleted files that a process has open.
fn held_open(pid: u32) -> io::Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // What is closed meanwhile is not held.
        let Ok(entry) = entry else { continue };
        let (Ok(stat), Ok(meta)) = (stat_path(&entry.path()), std::fs::metadata(entry.path())) else {
            continue;
        };
        if stat.is_regular() && stat.links == 0 {
            // `st_blocks` counts in 512 bytes, whatever the file system's blocks are.
            held.push(Held { stat, bytes: meta.blocks().saturating_mul(512) });
        }
    }
    Ok(held)
}

/// What is seen of the files in the file system.
struct Sight<'a> {
    /// What is at the path of each file, by path.
    at_paths: BTreeMap<&'a Path, Stat>,
    /// Files under other names, by the directory of the path.
    beside: BTreeMap<&'a Path, Vec<(PathBuf, Stat)>>,
    held: &'a [Held],
}

impl<'a> Sight<'a> {
    fn of(files: &'a [FileRecord], held: &'a [Held]) -> Self {
        let mut at_paths = BTreeMap::new();
        let mut astray: BTreeMap<&Path, BTreeSet<u64>> = BTreeMap::new();
        for FileRecord { checkpoint, .. } in files {
            let path = checkpoint.path.as_path();
            let stat = stat_path(path).ok();
            at_paths.extend(stat.map(|stat| (path, stat)));
            let is_there = stat.is_some_and(|stat| is_same_file(&stat.identity, &checkpoint.identity));
            if let (false, Some(dir)) = (is_there, path.parent()) {
                astray.entry(dir).or_default().insert(checkpoint.identity.ino);
            }
        }
        let search = |(dir, wanted): (&'a Path, BTreeSet<u64>)| {
            (dir, find_entries(dir, |ino, _| wanted.contains(&ino)))
        };
        Self { at_paths, beside: astray.into_iter().map(search).collect(), held }
    }

    /// Where a file is, and what it looks like there.
    fn place(&self, FileRecord { checkpoint, .. }: &FileRecord) -> (Place, Option<Stat>) {
        let path = checkpoint.path.as_path();
        let is_it = |stat: &Stat| is_same_file(&stat.identity, &checkpoint.identity);
        if let Some(stat) = self.at_paths.get(path).filter(|stat| is_it(stat)) {
            return (Place::Current, Some(*stat));
        }
        let beside = path.parent().and_then(|dir| self.beside.get(dir)).into_iter().flatten();
        if let Some((found_at, stat)) = beside.clone().find(|(_, stat)| is_it(stat)) {
            return (Place::Renamed { found_at: found_at.display().to_string() }, Some(*stat));
        }
        match self.held.iter().find(|held| is_it(&held.stat)) {
            Some(held) => (Place::DeletedHeldOpen { held_bytes: held.bytes }, Some(held.stat)),
            None => (Place::Gone, None),
        }
    }

    fn entry(&self, record: &FileRecord) -> FileEntry {
        let FileRecord { checkpoint, account } = record;
        let (place, stat) = self.place(record);
        let (size, offset) = (stat.map(|stat| stat.stamp.size), checkpoint.offset.0);
        // One that is shorter than what was read was truncated: all that is in it is new.
        let lag_bytes = size.map(|size| size.checked_sub(offset).unwrap_or(size));
        let lag_secs = lag_bytes.map(|bytes| {
            let ago_ms = clock::wall().millis().saturating_sub(account.read_at.millis());
            if bytes == 0 { 0 } else { u64::try_from(ago_ms / 1000).unwrap_or(0) }
        });
        FileEntry {
            source: checkpoint.source.to_string(),
            path: checkpoint.display_path().to_string(),
            identity: checkpoint.identity.into(),
            place,
            offset,
            size,
            lag_bytes,
            lag_secs,
            balanced: record.is_balanced(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::verdict::tests::{Followed, spooled};

    fn entries(spool: &Path) -> Vec<FileEntry> {
        list(spool).unwrap().list
    }

    #[test]
    fn a_file_is_found_where_it_is_now() {
        let followed = Followed::with(b"one\ntwo\n");
        spooled(&followed, 4);
        let found = entries(&followed.spool());
        assert_eq!((&found[0].place, found[0].size, found[0].lag_bytes), (&Place::Current, Some(8), Some(4)));
        assert!(found[0].lag_secs.is_some_and(|secs| secs > 0), "the frame is from the past");

        let renamed = followed.path().with_extension("log.1");
        std::fs::rename(followed.path(), &renamed).unwrap();
        std::fs::write(followed.path(), "another").unwrap();
        let place = Place::Renamed { found_at: renamed.display().to_string() };
        assert_eq!(entries(&followed.spool())[0].place, place);

        std::fs::remove_file(renamed).unwrap();
        let gone = &entries(&followed.spool())[0];
        assert_eq!((&gone.place, gone.size, gone.lag_bytes, gone.lag_secs), (&Place::Gone, None, None, None));
    }

    #[test]
    fn what_is_read_to_its_end_has_no_lag() {
        let followed = Followed::with(b"one\ntwo\n");
        spooled(&followed, 8);
        let found = entries(&followed.spool());
        assert_eq!((found[0].lag_bytes, found[0].lag_secs), (Some(0), Some(0)));
        assert!(found[0].balanced);
        // It was truncated and written again: all that is in it is new.
        std::fs::write(followed.path(), "new\n").unwrap();
        assert_eq!(entries(&followed.spool())[0].lag_bytes, Some(4));
    }

    #[test]
    fn a_deleted_file_shows_while_somebody_holds_it() {
        let followed = Followed::with(&[b'\n'; 100_000]);
        let file = std::fs::File::open(followed.path()).unwrap();
        file.sync_all().unwrap();
        let _open = spooled(&followed, 100_000).keep_open();
        std::fs::remove_file(followed.path()).unwrap();
        let list = list(&followed.spool()).unwrap();
        assert_eq!(list.agent, Some(Agent { pid: Some(std::process::id()) }));
        let Place::DeletedHeldOpen { held_bytes } = list.list[0].place else { panic!("{list:?}") };
        assert_eq!((list.held_bytes, list.list[0].size), (Some(held_bytes), Some(100_000)));
        assert!(held_bytes >= 100_000);
        drop(file);
        let list = super::list(&followed.spool()).unwrap();
        assert_eq!((&list.list[0].place, list.held_bytes), (&Place::Gone, Some(0)));
    }
}

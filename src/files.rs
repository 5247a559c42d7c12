//! The followed files as an operator sees them: what the spool knows of each, beside what the file system says of it now.
//!
//! Invariants:
//! - The spool is asked first and the file system after it, so that what is added meanwhile shows as not read.
//! - A file is told by its identity, never by its name.
//! - "It may be deleted" is said only where every byte of it is accounted for, durably, for every source that follows it.

mod list;
mod verdict;

pub(crate) use list::{FileEntry, FileList, Place, list};
pub(crate) use verdict::{Answer, FileReport, FileVerdict, examine};

use crate::event::FileIdentity;

/// What the file system says a file is, as reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Identity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time in nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub birth_ns: u64,
}

impl From<FileIdentity> for Identity {
    fn from(FileIdentity { dev, ino, birth_ns }: FileIdentity) -> Self {
        Self { dev, ino, birth_ns }
    }
}

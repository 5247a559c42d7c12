//! How many commits a ledger has had, in a file beside its database.
//!
//! The database takes a damaged place for the end of its log. It opens then without an error, as it was some commits
//! before: batches that were acknowledged are outstanding again, and those that were cut are to be cut anew. The count
//! shows it.
//!
//! Invariants:
//! - The count is written once a commit is durable, and is not synced itself. So the file is never ahead of a database
//!   that has all it was told.
//! - A count that cannot be read says nothing.

use std::fs::File;
use std::io;
use std::path::Path;

use super::codec::{Cursor, Put as _};
use super::disk::{self, Disk};

/// The file's name in the ledger's directory.
const NAME: &str = "commits";
/// The count and its checksum.
const LEN: usize = 12;

/// The file.
#[derive(Debug)]
pub(super) struct Commits {
    disk: Disk,
    file: File,
    recorded: u64,
}

impl Commits {
    /// Opens the file of the ledger in `dir`, or creates it.
    pub(super) fn open(disk: &Disk, dir: &Path) -> io::Result<Self> {
        let file = Disk::open_or_create(&dir.join(NAME))?;
        let mut bytes = [0; LEN];
        let read = disk::read_at(&file, &mut bytes, 0)?;
        let recorded = decode(bytes.get(..read).unwrap_or_default()).unwrap_or(0);
        Ok(Self { disk: disk.clone(), file, recorded })
    }

    /// The commits that there were, at least, when the file was opened.
    pub(super) const fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Notes that `count` commits are durable. What cannot be noted is not found missing.
    pub(super) fn record(&self, count: u64) {
        let _ = self.disk.overwrite(&self.file, &encode(count), 0);
    }
}

pub(super) fn encode(count: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LEN);
    bytes.put_u64(count);
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32(crc);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.u64()?;
    (cursor.u32()? == crc32fast::hash(&count.to_le_bytes())).then_some(count)
}

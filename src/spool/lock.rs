//! One process per spool.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::time::Duration;

use super::SpoolError;
use super::disk::Disk;
use crate::clock;

/// How long a lock is waited for: whoever looks into a spool has it for an instant.
const PATIENCE: Duration = Duration::from_millis(200);
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// The lock on a spool's directory, released when dropped. The kernel releases it when its process ends, however.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and leaves this process's id in it.
    ///
    /// # Errors
    /// [`SpoolError::Held`] with the id of the process that has it.
    pub(super) fn take(disk: &Disk) -> Result<Self, SpoolError> {
        let path = disk.lock();
        let io = |source| SpoolError::Directory { path: disk.root().to_owned(), source };
        let mut file = Disk::open_or_create(&path).map_err(io)?;
        let deadline = clock::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if clock::now() < deadline => std::thread::sleep(RETRY_EVERY),
                Err(TryLockError::WouldBlock) => return Err(held(disk, file)),
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io)?;
        Ok(Self { _file: file })
    }

    /// Says whether nobody has the lock, without keeping anyone from it.
    ///
    /// # Errors
    /// [`SpoolError::Held`] with the id of the process that has it.
    pub(super) fn probe(disk: &Disk) -> Result<(), SpoolError> {
        // Without the file no agent was ever here.
        let Ok(file) = Disk::open(&disk.lock()) else { return Ok(()) };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(held(disk, file)),
            // Released when the file is dropped. Where locks do not work, an agent says so.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }
}

fn held(disk: &Disk, file: File) -> SpoolError {
    let mut pid = String::new();
    // Without an answer the message says so.
    let _ = file.take(32).read_to_string(&mut pid);
    let pid = pid.trim();
    let pid = if pid.is_empty() { "?" } else { pid }.to_owned();
    SpoolError::Held { path: disk.root().to_owned(), pid }
}

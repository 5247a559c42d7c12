//! One process per spool.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};

use super::SpoolError;
use super::disk::Disk;

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
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Without an answer the message says so.
                let _ = file.take(32).read_to_string(&mut pid);
                let pid = pid.trim();
                let pid = if pid.is_empty() { "?" } else { pid }.to_owned();
                return Err(SpoolError::Held { path: disk.root().to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io)?;
        Ok(Self { _file: file })
    }
}

//! The one call that a file system needs for its power to be cut. A file of its own, as it is unsafe.
#![allow(unsafe_code, reason = "the call is not among those that a safe interface has")]

use std::os::fd::AsFd;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `FS_IOC_SHUTDOWN`, that is `_IOR('X', 125, u32)`.
const SHUTDOWN: Opcode = 0x8004_587D;
/// Not even the journal is written.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts down the file system that `file` is on: what was not synced is gone, and everything fails from now on.
pub fn shut_down(file: impl AsFd) -> rustix::io::Result<()> {
    // SAFETY: the kernel reads a u32 behind the pointer that it is given, which is what the setter passes.
    unsafe { ioctl(file, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
}

//! Every decoder of what comes from disks and networks as a function of bytes, for fuzzing.
//!
//! A target takes any bytes. It panics where what was decoded does not keep what its decoder promises, as that it is
//! encoded to the same again; that bytes are not what the decoder is for is no failure. Where a checksum guards a
//! decoder, the target also decodes what the bytes would be with the right one: a fuzzer does not find that by itself, and
//! a disk that was written on purpose has it.

use std::io::{Seek as _, Write as _};

/// A decoder to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the program in `fuzz/fuzz_targets`, and of its directory in `fuzz/seeds`.
    pub name: &'static str,
    /// Decodes bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: crate::spool::fuzzing::frame },
    Target { name: "segment_header", run: crate::spool::fuzzing::segment_header },
    Target { name: "segment", run: crate::spool::fuzzing::segment },
    Target { name: "snapshot", run: crate::spool::fuzzing::snapshot },
    Target { name: "entries", run: crate::spool::fuzzing::entries },
    Target { name: "ledger", run: crate::spool::fuzzing::ledger },
    Target { name: "dead_letter", run: crate::spool::fuzzing::dead_letter },
    Target { name: "spool", run: crate::spool::fuzzing::spool },
    Target { name: "payload", run: crate::payload::fuzzing::payload },
    Target { name: "lines", run: crate::tail::fuzzing::lines },
    Target { name: "cri", run: crate::tail::fuzzing::cri },
    Target { name: "docker_json", run: crate::tail::fuzzing::docker_json },
    Target { name: "gzip", run: crate::tail::fuzzing::gzip },
    Target { name: "config", run: crate::config::fuzzing::config },
    Target { name: "request", run: crate::collect::fuzzing::request },
    Target { name: "index", run: crate::collect::fuzzing::index },
    Target { name: "retry_after", run: crate::send::fuzzing::retry_after },
    #[cfg(feature = "websocket")]
    Target { name: "websocket_frame", run: crate::collect::fuzzing::websocket_frame },
    #[cfg(feature = "websocket")]
    Target { name: "websocket_answer", run: crate::send::fuzzing::websocket_answer },
];

/// Runs the target of this name on `bytes`.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    assert!(target.is_some(), "there is no target {name}");
    target.into_iter().for_each(|target| (target.run)(bytes));
}

/// Bytes as an open file, read from its beginning. None where the disk refuses.
pub(crate) fn file_of(bytes: &[u8]) -> Option<std::fs::File> {
    let mut file = tempfile::tempfile().ok()?;
    file.write_all(bytes).ok()?;
    file.rewind().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests;

//! System calls that fail or kill: strace lets the n-th call of a kind that touches a place of the spool go wrong.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PATIENCE, Scene, has_program, wait_for};

/// So many files beyond those that are there are watched for: more than a life begins.
const NEW_MAX: u64 = 40;

/// A place of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The files of segments.
    Segments,
    /// The directory that has their names.
    SegmentsDir,
    /// The ledger's file, also while it is written anew.
    Ledger,
    /// The ledger's directory, and its other files.
    LedgerDir,
    /// The spool's own directory.
    Root,
    /// The files of dead letters.
    Letters,
    /// The directory that has their names.
    LettersDir,
    /// All of it.
    Everywhere,
}

impl Place {
    /// The paths of it, as strace has to be given them: each by its whole name.
    fn paths(self, spool: &Path) -> Vec<PathBuf> {
        let numbered = |dir: &str| {
            let dir = spool.join(dir);
            let names =
                std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let there: Vec<u64> =
                names.filter_map(|name| name.to_str()?.strip_suffix(".seg")?.parse().ok()).collect();
            let (first, last) = (there.iter().min().unwrap_or(&1), there.iter().max().unwrap_or(&0));
            (*first..=last + NEW_MAX).map(|number| dir.join(format!("{number:020}.seg"))).collect()
        };
        let named = |names: &[&str]| names.iter().map(|name| spool.join(name)).collect();
        match self {
            Self::Segments => numbered("segments"),
            Self::SegmentsDir => named(&["segments"]),
            Self::Ledger => named(&["ledger/db", "ledger.new/db", "ledger.old/db"]),
            Self::LedgerDir => named(&[
                "ledger",
                "ledger.new",
                "ledger.old",
                "ledger/conf",
                "ledger.new/conf",
                "ledger/blobs",
                "ledger.new/blobs",
            ]),
            Self::Root => named(&[""]),
            Self::Letters => numbered("dead-letters"),
            Self::LettersDir => named(&["dead-letters"]),
            Self::Everywhere => {
                let all = [
                    Self::Segments,
                    Self::SegmentsDir,
                    Self::Ledger,
                    Self::LedgerDir,
                    Self::Root,
                    Self::Letters,
                    Self::LettersDir,
                ];
                all.into_iter().flat_map(|place| place.paths(spool)).collect()
            }
        }
    }
}

/// What goes wrong, where, and at which call. strace counts the calls of each thread alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Names of system calls, with commas between them.
    pub calls: &'static str,
    pub place: Place,
    /// As strace takes it: `error=EIO`, `signal=KILL`.
    pub what: &'static str,
    /// The first call that it hits, from 1.
    pub from: u32,
    /// How many in a row.
    pub times: u32,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, place, what, from, times } = self;
        write!(f, "{what} at {calls} of {place:?}, call {from}, {times} in a row")
    }
}

impl Injection {
    pub const fn new(calls: &'static str, place: Place, what: &'static str) -> Self {
        Self { calls, place, what, from: 1, times: 1 }
    }

    /// The same at another call.
    pub const fn at(&self, from: u32) -> Self {
        Self { from, ..*self }
    }

    /// The same for so many calls in a row.
    pub const fn in_a_row(&self, times: u32) -> Self {
        Self { times, ..*self }
    }

    /// Why nothing can be injected here.
    pub fn impossible() -> Option<&'static str> {
        (!has_program("strace")).then_some("strace is not installed")
    }

    /// Lets `command` run with it. The child is the program itself, not strace, which writes what it saw to
    /// [`Injection::trace`].
    pub fn put_on(&self, command: &mut Command, scene: &Scene) {
        let trace = Self::trace(scene);
        let _ = std::fs::remove_file(&trace);
        let Self { calls, what, from, times, .. } = self;
        let last = from + times - 1;
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-y"]);
        if !what.starts_with("signal=") {
            // Only the calls in question are stopped at; strace sends no signals then.
            strace.arg("--seccomp-bpf");
        }
        strace.arg("-o").arg(trace);
        strace.arg("-e").arg(format!("trace={calls}"));
        strace.arg("-e").arg(format!("inject={calls}:{what}:when={from}..{last}"));
        // Paths are compared as the kernel has them, without symbolic links.
        let spool = scene
            .path(".")
            .canonicalize()
            .unwrap()
            .join(scene.spool_dir().strip_prefix(scene.path("")).unwrap());
        for path in self.place.paths(&spool) {
            strace.arg("-P").arg(path);
        }
        super::wrap(command, strace);
    }

    pub fn trace(scene: &Scene) -> PathBuf {
        scene.path("injected")
    }

    /// How many calls it hit, of a process that has ended.
    pub fn hits(&self, scene: &Scene, pid: u32) -> usize {
        let mut text = String::new();
        let pid = pid.to_string();
        wait_for(PATIENCE, "strace has written everything", || {
            text =
                String::from_utf8_lossy(&std::fs::read(Self::trace(scene)).unwrap_or_default()).into_owned();
            // strace pads short process ids.
            text.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(&pid) && words.next() == Some("+++")
            })
        });
        text.lines().filter(|line| line.contains("(INJECTED)")).count()
    }
}

/// Stands before the C library's functions that write. Each call that writes to a file below `TEST_SHORT_DIR` does half
/// of what was asked, as the kernel may, at least a byte; `TEST_SHORT_COUNT` is a file that counts those calls.
const SHORT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static volatile int64_t *count;
static const char *dir;

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    dir = getenv("TEST_SHORT_DIR");
    int fd = open(getenv("TEST_SHORT_COUNT"), O_RDWR | O_CLOEXEC);
    void *there = mmap(0, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!dir || there == MAP_FAILED) abort();
    close(fd);
    count = there;
}

static size_t some(int fd, size_t asked) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = count ? readlink(link, path, sizeof path - 1) : -1;
    if (asked < 2 || length < 0) return asked;
    path[length] = 0;
    if (strncmp(path, dir, strlen(dir))) return asked;
    __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    return asked / 2;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!real_write) begin();
    return real_write(fd, bytes, some(fd, length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    if (!real_pwrite) begin();
    return real_pwrite(fd, bytes, some(fd, length), at);
}

ssize_t writev(int fd, const struct iovec *slices, int slice_count) {
    if (!real_writev) begin();
    size_t asked = 0;
    for (int i = 0; i < slice_count; i++) asked += slices[i].iov_len;
    size_t left = some(fd, asked);
    if (left == asked) return real_writev(fd, slices, slice_count);
    struct iovec part[1024];
    int used = 0;
    for (; used < slice_count && left; used++) {
        part[used] = slices[used];
        if (part[used].iov_len > left) part[used].iov_len = left;
        left -= part[used].iov_len;
    }
    return real_writev(fd, part, used);
}
"#;

/// Writes that the kernel cuts short: every one to the spool.
#[derive(Debug)]
pub struct ShortWrites {
    library: PathBuf,
    count: PathBuf,
    dir: PathBuf,
}

impl ShortWrites {
    /// None where there is no compiler to make them with.
    pub fn new(scene: &Scene) -> Option<Self> {
        let library = super::preload(scene, "short", SHORT)?;
        let count = scene.path("short.count");
        std::fs::write(&count, 0_i64.to_ne_bytes()).unwrap();
        let dir = scene.path(".").canonicalize().unwrap().join("spool");
        Some(Self { library, count, dir })
    }

    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env("TEST_SHORT_DIR", &self.dir).env("TEST_SHORT_COUNT", &self.count);
    }

    /// How many writes were cut short.
    pub fn count(&self) -> i64 {
        i64::from_ne_bytes(std::fs::read(&self.count).unwrap().try_into().unwrap())
    }
}

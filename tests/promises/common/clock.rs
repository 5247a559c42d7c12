//! A monotonic clock that leaps: so that an hour passes for a process at once, and for the machine not at all.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Scene, preload};

/// Stands before the C library's functions. What the file says is added to the time that they tell, and taken from the
/// time until which a thread asks to wait: the standard library waits for moments, not for durations. The clock on the
/// wall stays as it is.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead_secs;
static int (*real_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void begin(void) {
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_syscall = dlsym(RTLD_NEXT, "syscall");
    int fd = open(getenv("TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *there = mmap(0, sizeof *ahead_secs, PROT_READ, MAP_SHARED, fd, 0);
    if (!real_gettime || !real_syscall || there == MAP_FAILED) abort();
    close(fd);
    ahead_secs = there;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_gettime) begin();
    int result = real_gettime(clock, time);
    if (result == 0 && clock == CLOCK_MONOTONIC) time->tv_sec += *ahead_secs;
    return result;
}

long syscall(long number, ...) {
    if (!real_syscall) begin();
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    int waits = number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    if (waits && a[3] && !(a[1] & FUTEX_CLOCK_REALTIME)) {
        until = *(struct timespec *)a[3];
        until.tv_sec -= *ahead_secs;
        if (until.tv_sec < 0) until.tv_sec = 0;
        a[3] = (long)&until;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"#;

/// The clock of the processes that were given it.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    ahead_secs: File,
}

impl Clock {
    /// A clock like the machine's; none where there is no compiler to make it with.
    pub fn new(scene: &Scene) -> Option<Self> {
        let library = preload(scene, "clock", SHIM)?;
        let path = scene.path("clock");
        let ahead_secs = File::create(&path).unwrap();
        ahead_secs.write_all_at(&0_i64.to_ne_bytes(), 0).unwrap();
        Some(Self { library, path, ahead_secs })
    }

    /// Gives it to the program that `command` starts.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("TEST_CLOCK", &self.path);
    }

    /// Puts it ahead of the machine's. It must not go back.
    pub fn set_ahead(&self, by: Duration) {
        let secs = i64::try_from(by.as_secs()).unwrap();
        self.ahead_secs.write_all_at(&secs.to_ne_bytes(), 0).unwrap();
    }
}

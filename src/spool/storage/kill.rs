//! Kill points, in debug builds alone: the process ends with SIGKILL right before a step of the spool's protocols.
//!
//! `LOG_AGENT_TEST_KILL_AT` says which: `17` is the seventeenth step of all, `sync segments 2` the second sync of
//! something below a directory or file whose name begins with `segments`. What a kill leaves on the disk is what the
//! steps before it did, so that counting up goes through everything that a kill can leave. The step is named on stderr,
//! so that a test can tell which ones it has met.
//!
//! `LOG_AGENT_TEST_LEAVE_OUT=commit ledger` leaves out every commit, or `sync` or `sync-dir`, of something there: the
//! mistake that a test of crashes has to find.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that asks for it.
const VARIABLE: &str = "LOG_AGENT_TEST_KILL_AT";

static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| std::env::var(VARIABLE).ok().map(|text| plan(&text)));
/// The variable that asks for a step to be left out.
const LEAVE_OUT: &str = "LOG_AGENT_TEST_LEAVE_OUT";

static LEFT_OUT: LazyLock<Option<(String, String)>> = LazyLock::new(|| {
    let text = std::env::var(LEAVE_OUT).ok()?;
    text.split_once(' ').map(|(step, place)| (step.to_owned(), place.to_owned()))
});
static REACHED: AtomicU64 = AtomicU64::new(0);

struct Plan {
    /// Which step and where; every one if `None`.
    only: Option<(String, String)>,
    /// Which of those, from 1.
    number: u64,
}

/// A plan that makes no sense would make a test pass that kills nothing.
#[expect(clippy::panic, reason = "debug builds alone, and only where a test asks for it")]
fn plan(text: &str) -> Plan {
    let words: Vec<_> = text.split_whitespace().collect();
    let (only, number) = match words.as_slice() {
        [number] => (None, number.parse()),
        [step, place, number] => (Some(((*step).to_owned(), (*place).to_owned())), number.parse()),
        _ => panic!("{VARIABLE}={text:?} is neither \"N\" nor \"STEP PLACE N\""),
    };
    match number {
        Ok(number) if number > 0 => Plan { only, number },
        _ => panic!("{VARIABLE}={text:?} does not end with a number from 1"),
    }
}

/// Ends the process here if that is the plan; says whether the step is to be done.
pub(super) fn point(step: &str, path: impl FnOnce() -> Option<PathBuf>) -> bool {
    if PLAN.is_none() && LEFT_OUT.is_none() {
        return true;
    }
    let path = path().unwrap_or_default();
    if let Some(plan) = PLAN.as_ref() {
        die(plan, step, &path);
    }
    !LEFT_OUT.as_ref().is_some_and(|(left_out, place)| step == left_out && is_in(&path, place))
}

fn die(plan: &Plan, step: &str, path: &Path) {
    if plan.only.as_ref().is_some_and(|(only, place)| step != only || !is_in(path, place)) {
        return;
    }
    if REACHED.fetch_add(1, Ordering::SeqCst).saturating_add(1) == plan.number {
        // Nothing could be done about a message that cannot be written.
        let _ = writeln!(std::io::stderr(), "killed before: {step} {}", path.display());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is on its way; no step may come before it.
        loop {
            std::thread::park();
        }
    }
}

fn is_in(path: &Path, place: &str) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with(place))
}

pub(super) fn path_of(file: &File) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

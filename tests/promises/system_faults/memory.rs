//! Little memory, a server that is away, and far more input than memory.

use std::sync::{Arc, Mutex};

use super::*;
use crate::common::{is_root, wrap};

/// What the agent may use, with what the system keeps of its files.
const LIMIT_BYTES: u64 = 64 << 20;
/// How much more memory it may have of its own after all of the input than after a third of it.
const GROWTH_KB_MAX: u64 = 8 << 10;
/// Input in the short version; in the long one it is a gigabyte.
const INPUT_MB: u64 = 80;

/// A control group with a limit of memory, which goes when the test ends.
struct Limit {
    dir: PathBuf,
}

impl Limit {
    /// Why there can be none here.
    fn new(test: &str) -> Result<Self, String> {
        if !is_root() {
            return Err("only root may limit memory".into());
        }
        let (version_1, version_2) =
            (PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup"));
        let (parent, file) = if version_1.join("memory.limit_in_bytes").exists() {
            (version_1, "memory.limit_in_bytes")
        } else {
            (version_2, "memory.max")
        };
        let dir = parent.join(format!("log-agent-test-{}-{test}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("no control group can be made: {error}"))?;
        let limit = Self { dir };
        let set = fs::OpenOptions::new().write(true).open(limit.dir.join(file)).and_then(|mut file| {
            use std::io::Write as _;
            file.write_all(LIMIT_BYTES.to_string().as_bytes())
        });
        set.map_err(|error| format!("memory cannot be limited: {error}"))?;
        Ok(limit)
    }

    /// Lets `command` run under it.
    fn put_on(&self, command: &mut Command) {
        let mut enter = Command::new("sh");
        enter.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs"));
        wrap(command, enter);
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // It can be removed once the process is gone from it, which takes a moment after its end.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A server that takes everything and remembers the numbers that came, in kilobytes of memory.
struct Numbers {
    came: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Numbers {
    fn of(proxy: &FaultProxy) -> Self {
        let came = Arc::new(Mutex::new(Vec::new()));
        proxy.keep_no_requests();
        proxy.script({
            let came = came.clone();
            move |request| {
                let (first, last) = request.seq().split_once('-').expect("a range of one source");
                came.lock().unwrap().push((first.parse().unwrap(), last.parse().unwrap()));
                Fault::Pass
            }
        });
        Self { came }
    }

    /// The numbers that came, as ranges that do not touch, each with all that came of it.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let mut came = self.came.lock().unwrap().clone();
        came.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (first, last) in came {
            match ranges.last_mut() {
                Some(range) if range.1 + 1 >= first => range.1 = range.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        ranges
    }
}

/// An outage with much input and little memory. An error where the agent did not live through it.
struct Outage {
    scene: Scene,
    proxy: FaultProxy,
    numbers: Numbers,
    limit: Limit,
    lines: u64,
}

impl Outage {
    /// Lines of 200 bytes.
    fn new(test: &str, megabytes: u64) -> Option<Self> {
        let limit = match Limit::new(test) {
            Ok(limit) => limit,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let scene = Scene::new(test);
        let mut proxy = FaultProxy::alone();
        let numbers = Numbers::of(&proxy);
        proxy.refuse_connections();
        let mut log = fs::File::create(scene.path("logs/app.log")).unwrap();
        let mut lines = 0;
        for _ in 0..megabytes {
            use std::fmt::Write as _;
            use std::io::Write as _;
            let mut block = String::with_capacity(1 << 20);
            while block.len() < 1_000_000 {
                lines += 1;
                writeln!(block, "{lines:<199}").unwrap();
            }
            log.write_all(block.as_bytes()).unwrap();
        }
        Some(Self { scene, proxy, numbers, limit, lines })
    }

    fn config(&self) -> ConfigBuilder<'_> {
        self.scene
            .config()
            .end_point(self.proxy.url())
            .global("retry_delay_ms", 5)
            .global("interval_secs", 1)
            .global("max_batch_size", 5000)
            .global("segment_bytes", 4 << 20)
            .source("app", "logs/app.log")
    }

    /// Lets an agent read everything while the server is away, and deliver it.
    fn run(&mut self) -> Result<(), String> {
        let mut agent = Agent::start_with(&self.scene, |command| self.limit.put_on(command));
        let segments = self.scene.spool_dir().join("segments");
        let size = |dir: &PathBuf| -> u64 {
            fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|f| f.metadata().ok())
                .map(|m| m.len())
                .sum()
        };
        let mut await_alive = |what: &str, condition: &mut dyn FnMut() -> bool| {
            let mut alive = true;
            wait_for(Duration::from_secs(300), what, || {
                alive = agent.is_running();
                !alive || condition()
            });
            if alive { Ok(agent.pid()) } else { Err(format!("the agent ended: {what}")) }
        };
        let bytes = self.lines * 200;
        let pid = await_alive("a third is read", &mut || size(&segments) > bytes / 3)?;
        let third = own_kb(pid)?;
        await_alive("everything is read", &mut || size(&segments) >= bytes)?;
        let all = own_kb(pid)?;
        self.proxy.listen_again();
        let wanted = [(1, self.lines)];
        await_alive("everything is delivered", &mut || self.numbers.ranges() == wanted)?;
        let delivered = own_kb(pid)?;
        println!("{} lines; own memory {third} kB, {all} kB, {delivered} kB", self.lines);
        for later in [all, delivered] {
            if later > third + GROWTH_KB_MAX {
                return Err(format!("memory grew from {third} to {later} kB"));
            }
        }
        assert_eq!(agent.stop(), Some(0));
        Ok(())
    }
}

/// Memory of a process that is not that of files.
fn own_kb(pid: u32) -> Result<u64, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("the agent is gone")?;
    line.trim().trim_end_matches(" kB").parse().map_err(|_| line.to_owned())
}

#[test]
fn an_outage_in_64_mebibytes_of_memory_loses_nothing() {
    let test = "an_outage_in_64_mebibytes_of_memory_loses_nothing";
    let megabytes = if all_is_wanted() { 1000 } else { INPUT_MB };
    let Some(mut outage) = Outage::new(test, megabytes) else { return };
    outage.config().write();
    outage.run().unwrap();
    let status = crate::common::spool_status(&outage.scene);
    assert_eq!(status["sources"][0]["acknowledged"], outage.lines, "{status:#}");
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
}

/// The same with batches as large as the input: what grows with the backlog is found.
#[test]
fn memory_that_grows_with_the_backlog_is_found() {
    let test = "memory_that_grows_with_the_backlog_is_found";
    if is_left_to_the_long_version(test) {
        return;
    }
    let Some(mut outage) = Outage::new(test, INPUT_MB) else {
        return;
    };
    outage
        .config()
        .global("max_batch_size", 1_000_000)
        .global("max_batch_bytes", "256 MiB")
        .global("interval_secs", 60)
        .write();
    let ended = outage.run();
    assert!(ended.is_err(), "80 MB of batches fit into 64 MiB: the test above shows nothing");
    println!("{}", ended.unwrap_err());
}

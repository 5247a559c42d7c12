//! What following many files costs, and how soon a line is in the spool: the real binary, with a receiver that takes
//! whatever comes.
//!
//! `cargo bench --bench scale -- [--files N] [--seconds T] [--samples N] [--dir DIR]`
//!
//! - *Idle*: processor time over T seconds in which nothing is written, as the kernel accounts it, in percent of one
//!   core; memory, descriptors and threads at their end.
//! - *Latency*: from the return of the write that appends a line to one of the files, chosen at random, until the line
//!   stands in a segment. One line at a time.
//! - *Quiet beside busy*: the same, while the agent reads another file of the source as fast as it can.
//!
//! A line counts as spooled when its bytes can be read in the newest segments. The frame's fsync may still be under
//! way then; how long that takes is a matter of the disk, not of the number of files. What is measured includes the
//! looking, which takes turns of 50 µs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark that meets the unexpected should stop there"
)]

#[allow(dead_code, reason = "what comes is only taken here, and not counted")]
mod sink;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sink::Sink;

/// How long anything may take before the benchmark gives up.
const DEADLINE: Duration = Duration::from_secs(300);
/// Files in one directory.
const FILES_A_DIR: usize = 100;
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// The pause between two lines that are timed: longer than the agent lets notifications gather.
const BETWEEN_SAMPLES: Duration = Duration::from_millis(20);
/// One write of the busy file.
const BUSY_WRITE_BYTES: usize = 256 << 10;
/// How long the busy file is.
const BUSY_FILE_BYTES: u64 = 8 << 30;

struct Settings {
    files: usize,
    seconds: u64,
    samples: usize,
    dir: Option<PathBuf>,
}

fn main() {
    let settings = Settings::from_args();
    let dir = match &settings.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .unwrap();
    let logs = Logs::create(&dir.path().join("logs"), settings.files);
    let sink = Sink::start().unwrap();
    let agent = Agent::start(dir.path(), &sink.url());
    let mut spool = Spool::of(dir.path());
    logs.append(settings.files - 1, "everything before this line is spooled");
    spool.await_text("everything before this line is spooled");
    // What else there was to do at the start is done.
    agent.await_rest();

    println!("{} files in {} directories", settings.files, settings.files.div_ceil(FILES_A_DIR));
    agent.report_idle(Duration::from_secs(settings.seconds));
    let mut rng = SmallRng::seed_from_u64(4711);
    let mut time = |what: &str, spool: &mut Spool| {
        let mut latencies: Vec<Duration> = (0..settings.samples)
            .map(|sample| {
                std::thread::sleep(BETWEEN_SAMPLES);
                spool.skip();
                let text = format!("{what}, sample {sample:06}");
                let begun = logs.append(rng.random_range(0..settings.files), &text);
                spool.await_text(&text) - begun
            })
            .collect();
        report_latency(what, &mut latencies);
    };
    time("latency of a line", &mut spool);
    let busy = Busy::prepare(&logs.dir.join("000/busy.log"));
    busy.reveal();
    spool.await_text(Busy::MARK);
    let (begun, read) = (Instant::now(), agent.bytes_read());
    time("latency of a line beside a busy file", &mut spool);
    let rate = (agent.bytes_read() - read) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    println!("{:<40} {rate:>9.0} MB/s", "read by the agent meanwhile, spool and all");
    agent.stop();
}

impl Settings {
    fn from_args() -> Self {
        let mut settings = Self { files: 10_000, seconds: 60, samples: 200, dir: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap();
            match arg.as_str() {
                "--files" => settings.files = usize::try_from(number()).unwrap().max(1),
                "--seconds" => settings.seconds = number().max(1),
                "--samples" => settings.samples = usize::try_from(number()).unwrap().max(1),
                "--dir" => settings.dir = args.next().map(PathBuf::from),
                // What cargo adds.
                "--bench" => {}
                other => panic!("{other}: not an argument of this benchmark"),
            }
        }
        settings
    }
}

/// The files that are followed.
struct Logs {
    dir: PathBuf,
    paths: Vec<PathBuf>,
}

impl Logs {
    fn create(dir: &Path, files: usize) -> Self {
        let path = |file: usize| dir.join(format!("{:03}/{file:06}.log", file / FILES_A_DIR));
        let paths: Vec<PathBuf> = (0..files).map(path).collect();
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("the first line of {}\n", path.display())).unwrap();
        }
        Self { dir: dir.to_owned(), paths }
    }

    /// Appends a line; when that was done.
    fn append(&self, file: usize, text: &str) -> Instant {
        let mut file = File::options().append(true).open(&self.paths[file]).unwrap();
        file.write_all(format!("{text}\n").as_bytes()).unwrap();
        Instant::now()
    }
}

/// A file with so much in it that reading it takes longer than what is timed beside it. It is written and synced before the
/// agent may see it, so that neither its writer nor the disk's writing it back is what is measured.
struct Busy {
    prepared: PathBuf,
    path: PathBuf,
}

impl Busy {
    const MARK: &'static str = "the busy file is followed";

    fn prepare(path: &Path) -> Self {
        let prepared = path.with_extension("prepared");
        let line = format!("{}\n", "busy 0123456789 ".repeat(12));
        let text = line.repeat(BUSY_WRITE_BYTES / line.len());
        let mut file = File::create(&prepared).unwrap();
        file.write_all(format!("{}\n", Self::MARK).as_bytes()).unwrap();
        for _ in 0..BUSY_FILE_BYTES / BUSY_WRITE_BYTES as u64 {
            file.write_all(text.as_bytes()).unwrap();
        }
        file.sync_all().unwrap();
        Self { prepared, path: path.to_owned() }
    }

    fn reveal(&self) {
        fs::rename(&self.prepared, &self.path).unwrap();
    }
}

/// The segments of a spool, read as they grow.
struct Spool {
    segments: PathBuf,
    /// The segment that is read, and how far. Open, so that it can still be read when it is delivered and deleted.
    at: Option<(PathBuf, File, u64)>,
    buffer: Vec<u8>,
    /// The end of what was read before, in which the beginning of a text may lie.
    carry: Vec<u8>,
}

impl Spool {
    fn of(dir: &Path) -> Self {
        Self { segments: dir.join("spool/segments"), at: None, buffer: vec![0; 1 << 20], carry: Vec::new() }
    }

    /// Goes to the end of what there is.
    fn skip(&mut self) {
        self.carry.clear();
        if let Some((path, file)) = self.segments().into_iter().next_back().and_then(open) {
            let end = file.metadata().unwrap().len();
            self.at = Some((path, file, end));
        }
    }

    /// Reads on until `text` was there; when it was seen.
    fn await_text(&mut self, text: &str) -> Instant {
        let finder = Finder::new(text);
        let begun = Instant::now();
        loop {
            if self.read_on(&finder, text.len()) {
                return Instant::now();
            }
            assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {text}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Reads what there is by now, up to the text. Says whether that was found.
    fn read_on(&mut self, finder: &Finder<'_>, len: usize) -> bool {
        loop {
            let Some((path, file, offset)) = &mut self.at else {
                let first = self.segments().into_iter().find_map(open);
                self.at = first.map(|(path, file)| (path, file, 0));
                if self.at.is_none() {
                    return false;
                }
                continue;
            };
            let read = file.read_at(&mut self.buffer, *offset).unwrap();
            if read > 0 {
                *offset += read as u64;
                self.carry.extend_from_slice(&self.buffer[..read]);
                if finder.find(&self.carry).is_some() {
                    return true;
                }
                self.carry.drain(..self.carry.len().saturating_sub(len));
                continue;
            }
            let (path, offset) = (path.clone(), *offset);
            let next = self.segments().into_iter().filter(|next| *next > path).find_map(open);
            // What was written to the segment before the next was begun is there by now.
            let is_read =
                self.at.as_ref().is_some_and(|(_, file, _)| file.metadata().unwrap().len() == offset);
            match next {
                Some((path, file)) if is_read => self.at = Some((path, file, 0)),
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Their paths, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.segments).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    }
}

/// Opens a segment; none where it was delivered and deleted meanwhile.
fn open(path: PathBuf) -> Option<(PathBuf, File)> {
    let file = File::open(&path).ok()?;
    Some((path, file))
}

/// The agent under test.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path, url: &str) -> Self {
        let config = dir.join("log-agent.config");
        let text = format!(
            "[global]\nagent_name = \"bench\"\nend_point = \"{url}\"\nsend_type = \"HTTP\"\n\
             max_batch_size = 5000\ninterval_secs = 1\nspool_dir = \"{}\"\n\
             [global.proxy]\nurl = \"none\"\n\
             [[sources]]\nname = \"app\"\nlog_path = \"{}\"\n",
            dir.join("spool").display(),
            dir.join("logs/*/*.log").display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_log-agent"));
        command.arg("--config").arg(&config).env("RUST_LOG", "error").stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn proc(&self, entry: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.0.id())).join(entry)
    }

    /// Processor time so far, user and system.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // Fields 14 and 15 of proc(5), in ticks of 10 ms.
        let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Bytes that it has read from anywhere: of the log files and, to deliver them, of the spool.
    fn bytes_read(&self) -> u64 {
        let io = fs::read_to_string(self.proc("io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// A field of `/proc/PID/status`.
    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        value.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until a second went by with next to no processor time.
    fn await_rest(&self) {
        let begun = Instant::now();
        loop {
            let before = self.cpu();
            std::thread::sleep(Duration::from_secs(1));
            if self.cpu() - before <= Duration::from_millis(20) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "the agent does not come to rest");
        }
    }

    fn report_idle(&self, over: Duration) {
        let (begun, before) = (Instant::now(), self.cpu());
        std::thread::sleep(over);
        let percent = (self.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        let descriptors = fs::read_dir(self.proc("fd")).unwrap().count();
        let seconds = over.as_secs();
        println!("{:<40} {percent:>9.2} % of a core, over {seconds} s", "idle");
        println!("{:<40} {:>9.1} MB", "resident memory", self.status("VmRSS") as f64 * 1024.0 / 1e6);
        println!("{:<40} {:>9.1} MB", "its peak", self.status("VmHWM") as f64 * 1024.0 / 1e6);
        println!("{:<40} {descriptors:>9}", "descriptors");
        println!("{:<40} {:>9}", "threads", self.status("Threads"));
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

fn report_latency(what: &str, latencies: &mut [Duration]) {
    latencies.sort_unstable();
    // The smallest one that as many percent are not above.
    let percentile = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
    let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
    println!(
        "{what:<40} {:>9.2} ms p50 {:>9.2} ms p99 {:>9.2} ms max, of {}",
        ms(percentile(50)),
        ms(percentile(99)),
        ms(latencies[latencies.len() - 1]),
        latencies.len()
    );
}

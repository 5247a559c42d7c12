//! Every line of a followed file is delivered once and in order, whatever happens to the file.
//!
//! A [`Stage`] is a scene with a collector and an agent that sends one batch at a time, so that what is stored has the
//! order in which it was read. Beside the sources of the test the agent follows a file of marks, and
//! [`Stage::settle`] writes one and waits for it: what was written before has been read by then, and what has been read
//! is stored. So a test can say that *nothing* came of something, without waiting for any time.

mod accounting;
mod containers;
mod copies;
mod encodings;
mod filters;
mod groups;
mod limits;
mod logrotate;
mod model;
mod names;
mod reading;
mod restart;
mod rotation;
mod schemes;
mod trouble;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{
    Agent, Collector, ConfigBuilder, PATIENCE, Scene, Stored, Writer, assert_delivered_exactly_once,
    assert_stored_once, await_delivery, has_program, is_root, skip, wait_for, wrap,
};

/// The source of the marks.
const MARKS: &str = "marks";

struct Stage {
    agent: Option<Agent>,
    collector: Collector,
    marks: Writer,
    /// Last, so that what the processes said can still be shown when they are dropped.
    scene: Scene,
}

impl Stage {
    /// A scene whose agent does not run yet, so that files can be there before it.
    fn new(name: &str) -> Self {
        let scene = Scene::new(name);
        let collector = Collector::start(&scene);
        let marks = Writer::new(&scene, MARKS, "marks/marks.log");
        Self { agent: None, collector, marks, scene }
    }

    /// The configuration, without the sources of the test.
    fn config(&self) -> ConfigBuilder<'_> {
        self.scene
            .config()
            .end_point(self.collector.url())
            .global("max_send_task", 1)
            .global("interval_secs", 0.02)
            .source(MARKS, "marks/marks.log")
    }

    /// Follows `log_path` as the source `app`, and starts the agent.
    fn follow(mut self, log_path: &str) -> Self {
        self.config().source("app", log_path).write();
        self.start();
        self
    }

    fn start(&mut self) {
        self.start_with(|_| {});
    }

    fn start_with(&mut self, change: impl FnOnce(&mut Command)) {
        assert!(self.agent.is_none(), "the agent runs already");
        self.agent = Some(Agent::start_with(&self.scene, change));
    }

    /// SIGTERM, once it listens for that.
    #[track_caller]
    fn stop(&mut self) {
        let agent = self.agent.take().expect("the agent does not run");
        agent.await_started();
        assert_eq!(agent.stop(), Some(0));
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.agent.take().expect("the agent does not run").kill();
    }

    /// SIGSTOP: it notices nothing until [`Stage::thaw`], and then all at once.
    fn freeze(&self) {
        self.agent().signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.agent().pid());
        wait_for(PATIENCE, "the agent stands still", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        });
    }

    /// SIGCONT.
    fn thaw(&self) {
        self.agent().signal(Signal::CONT);
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent does not run")
    }

    fn messages(&self) -> String {
        fs::read_to_string(Agent::stderr_path(&self.scene)).unwrap_or_default()
    }

    /// Appends `bytes` to a file of the scene, which is created if need be.
    fn append(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        self.handle(path).write_all(bytes.as_ref()).unwrap();
    }

    /// A handle that appends to a file of the scene, as a writer keeps it across a rotation.
    fn handle(&self, path: impl AsRef<Path>) -> File {
        let path = self.scene.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::options().create(true).append(true).open(path).unwrap()
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.scene.path(from), self.scene.path(to)).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.scene.path(path)).unwrap();
    }

    /// What is stored of a source, in the order of the sequence numbers.
    fn stored_events(&self, source: &str) -> Vec<Stored> {
        let mut stored = self.collector.stored();
        stored.retain(|event| event.source == source);
        stored.sort_by_key(|event| event.seq);
        stored
    }

    /// The lines of it.
    fn stored(&self, source: &str) -> Vec<String> {
        self.stored_events(source).into_iter().map(|event| event.data).collect()
    }

    /// Waits until everything that was written before, and was read because of it, is stored.
    #[track_caller]
    fn settle(&mut self) {
        self.marks.append_line("mark");
        let mark = self.marks.lines().last().unwrap();
        wait_for(PATIENCE, mark, || self.stored(MARKS).last() == Some(mark));
    }

    /// Waits until as many events of the source are stored as `lines` has, and asserts that it is those and no others.
    #[track_caller]
    fn expect_of<S: AsRef<str>>(&mut self, source: &str, lines: &[S]) {
        let what = format!("{} events of {source} are stored", lines.len());
        wait_for(PATIENCE, &what, || self.stored(source).len() >= lines.len());
        self.settle();
        let (stored, lines) =
            (self.stored(source), lines.iter().map(|line| line.as_ref().to_owned()).collect::<Vec<_>>());
        if stored != lines {
            let at = stored.iter().zip(&lines).take_while(|(one, other)| one == other).count();
            let (stored_len, len) = (stored.len(), lines.len());
            let show =
                |lines: &[String]| format!("{:.400?}", lines.iter().skip(at).take(5).collect::<Vec<_>>());
            panic!(
                "{source}: {stored_len} events instead of {len}, different from event {at} on:\n{}\ninstead of\n{}",
                show(&stored),
                show(&lines)
            );
        }
        assert_stored_once(&self.collector.stored());
    }

    /// [`Stage::expect_of`] of the source `app`.
    #[track_caller]
    fn expect<S: AsRef<str>>(&mut self, lines: &[S]) {
        self.expect_of("app", lines);
    }

    /// The same for files that are read side by side: `groups` has the lines of each, which begin with what tells the
    /// file. Their order is that of the group; that of lines of different groups does not matter.
    #[track_caller]
    fn expect_groups<S: AsRef<str>>(&mut self, groups: &[&[S]]) {
        let total: usize = groups.iter().map(|group| group.len()).sum();
        wait_for(PATIENCE, &format!("{total} events are stored"), || self.stored("app").len() >= total);
        self.settle();
        let stored = self.stored("app");
        for group in groups {
            let of_group: Vec<&str> = stored
                .iter()
                .map(String::as_str)
                .filter(|line| group.iter().any(|wanted| wanted.as_ref() == *line))
                .collect();
            assert_eq!(of_group, group.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        }
        assert_eq!(stored.len(), total, "nothing else: {stored:.2000?}");
        assert_stored_once(&self.collector.stored());
    }

    /// Waits until the lines of `writers` are stored, and asserts that nothing else is, save the marks.
    #[track_caller]
    fn expect_written(&mut self, writers: &[&Writer]) {
        let all: Vec<&Writer> = writers.iter().copied().chain([&self.marks]).collect();
        await_delivery(&all, &self.collector);
        self.settle();
        let all: Vec<&Writer> = writers.iter().copied().chain([&self.marks]).collect();
        assert_delivered_exactly_once(&all, &self.collector);
    }

    /// A field of `/proc/PID/status`, in kB.
    fn memory_kb(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
    }

    /// Where the agent's descriptors lead.
    fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.agent().pid())).unwrap();
        entries
            .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()))
            .collect()
    }
}

/// The bytes as a gzip member.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Replaces a file by `<path>.gz`, as `gzip` does: it is gone once the other is whole.
fn compress(path: &Path) {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".gz");
    fs::write(compressed, gzip(&fs::read(path).unwrap())).unwrap();
    fs::remove_file(path).unwrap();
}

/// Runs the command as an argument of `program`, which ends with an exec of what follows `arguments`.
fn through<A: AsRef<OsStr>>(command: &mut Command, program: &str, arguments: impl IntoIterator<Item = A>) {
    let mut wrapped = Command::new(program);
    wrapped.args(arguments);
    wrap(command, wrapped);
}

fn numbered(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{prefix} {number}")).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

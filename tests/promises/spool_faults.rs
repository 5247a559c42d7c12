//! A spool that was damaged while nobody looked: the agent starts unaided, and everything that is intact arrives.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use log_agent::spool::inspect;

use crate::common::{
    Agent, Collector, PATIENCE, Scene, Stored, Writer, assert_accounts_agree, assert_delivered_exactly_once,
    await_delivery, is_root, log_agent, spool_status, wait_for,
};

/// A spool with some of its lines acknowledged and some waiting, after a kill.
struct Wreck {
    scene: Scene,
    collector: Collector,
    writer: Writer,
}

impl Wreck {
    /// Lines acknowledged, and lines that wait.
    const LINES: usize = 400;

    fn of(test: &str) -> Self {
        Self::with(test, |_| {})
    }

    /// `between` sees the spool while no agent runs, after the first lines were acknowledged.
    fn with(test: &str, between: impl FnOnce(&Path)) -> Self {
        let scene = Scene::new(test);
        let mut collector = Collector::start(&scene);
        scene
            .config()
            .end_point(collector.url())
            .global("interval_secs", 0.02)
            .global("retry_delay_ms", 5)
            .global("max_batch_size", 20)
            .global("segment_bytes", 1 << 20)
            .source("app", "logs/app.log")
            .write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        let agent = Agent::start(&scene);
        writer.append(100);
        await_delivery(&[&writer], &collector);
        assert_eq!(agent.stop(), Some(0));
        between(&scene.spool_dir());

        let agent = Agent::start(&scene);
        writer.append(Self::LINES - 100);
        await_delivery(&[&writer], &collector);
        collector.kill();
        // In portions, so that there are many frames, and damage to one leaves others.
        for portion in 1..=10 {
            writer.append(Self::LINES / 10);
            let spooled = (Self::LINES + portion * Self::LINES / 10) as u64;
            wait_for(PATIENCE, "the lines are spooled", || {
                inspect::spooled(&scene.spool_dir()).is_ok_and(|events| events >= spooled)
            });
        }
        agent.kill();
        Self { scene, collector, writer }
    }

    fn spool(&self, path: &str) -> PathBuf {
        self.scene.spool_dir().join(path)
    }

    /// The newest segment that holds events.
    fn newest_segment(&self) -> PathBuf {
        let mut segments: Vec<_> =
            fs::read_dir(self.spool("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        segments.pop().unwrap()
    }

    /// Starts the agent on what is left, and expects every line once. Gives back the scene to look at.
    fn recovers(mut self) -> Scene {
        self.collector.restart();
        let agent = Agent::start(&self.scene);
        agent.await_started();
        await_delivery(&[&self.writer], &self.collector);
        assert_delivered_exactly_once(&[&self.writer], &self.collector);
        assert_accounts_agree(&[&self.writer], &self.collector);
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(spool_status(&self.scene)["backlog"]["events"], 0);
        self.scene
    }

    /// Starts the agent on what is left, and expects every line once but those that are counted as damaged.
    fn recovers_what_is_intact(mut self) -> Scene {
        self.collector.restart();
        let agent = Agent::start(&self.scene);
        agent.await_started();
        let last = self.writer.lines().last().unwrap().clone();
        wait_for(PATIENCE, "the last line to be stored", || {
            self.collector.stored().iter().any(|event| event.data == last)
        });
        // What was replayed may come after the last line: a stop and a start end with everything acknowledged.
        wait_for(PATIENCE, "nothing to wait", || agent_is_idle(&self.collector));
        assert_eq!(agent.stop(), Some(0));
        let stored: Vec<Stored> = self.collector.stored();
        let seqs: HashSet<u64> = stored.iter().map(|event| event.seq).collect();
        assert_eq!(seqs.len(), stored.len(), "an event was stored twice");
        let status = spool_status(&self.scene);
        assert_eq!(status["backlog"]["events"], 0, "{status:#}");
        let damaged = status["sources"][0]["damaged"].as_u64().unwrap();
        let missing = self.writer.lines().iter().filter(|line| !stored.iter().any(|e| e.data == **line));
        assert_eq!(missing.count() as u64, damaged, "{status:#}");
        assert!(damaged > 0, "nothing was damaged");
        self.scene
    }
}

/// Whether the collector's count has stopped growing: several looks in a row see the same.
fn agent_is_idle(collector: &Collector) -> bool {
    let before = collector.stored_count();
    std::thread::sleep(std::time::Duration::from_millis(300));
    collector.stored_count() == before
}

/// How many things are in the quarantine.
fn set_aside(scene: &Scene) -> usize {
    fs::read_dir(scene.spool_dir().join("quarantine")).unwrap().count()
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn zero(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    fs::write(path, vec![0; usize::try_from(len).unwrap()]).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_missing_ledger_is_rebuilt_and_nothing_is_stored_twice() {
    let wreck = Wreck::of("a_missing_ledger_is_rebuilt_and_nothing_is_stored_twice");
    fs::remove_dir_all(wreck.spool("ledger")).unwrap();
    wreck.recovers();
}

#[test]
fn an_empty_ledger_beside_segments_is_rebuilt() {
    let wreck = Wreck::of("an_empty_ledger_beside_segments_is_rebuilt");
    fs::remove_dir_all(wreck.spool("ledger")).unwrap();
    fs::create_dir(wreck.spool("ledger")).unwrap();
    wreck.recovers();
}

#[test]
fn a_torn_ledger_is_set_aside_and_rebuilt() {
    let wreck = Wreck::of("a_torn_ledger_is_set_aside_and_rebuilt");
    let db = fs::OpenOptions::new().write(true).open(wreck.spool("ledger/db")).unwrap();
    db.set_len(db.metadata().unwrap().len() / 3).unwrap();
    wreck.recovers();
}

#[test]
fn a_ledger_whose_settings_are_zeroed_is_set_aside_and_rebuilt() {
    let wreck = Wreck::of("a_ledger_whose_settings_are_zeroed_is_set_aside_and_rebuilt");
    zero(&wreck.spool("ledger/conf"));
    let scene = wreck.recovers();
    assert!(set_aside(&scene) > 0, "it was not kept");
}

#[test]
fn a_zeroed_ledger_is_rebuilt() {
    let wreck = Wreck::of("a_zeroed_ledger_is_rebuilt");
    zero(&wreck.spool("ledger/db"));
    wreck.recovers();
}

#[test]
fn an_old_copy_of_the_ledger_put_back_costs_nothing() {
    let mut old = None;
    let wreck = Wreck::with("an_old_copy_of_the_ledger_put_back_costs_nothing", |spool| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&spool.join("ledger"), copy.path()).unwrap();
        old = Some(copy);
    });
    fs::remove_dir_all(wreck.spool("ledger")).unwrap();
    copy_dir(old.unwrap().path(), &wreck.spool("ledger")).unwrap();
    wreck.recovers();
}

#[test]
fn a_torn_tail_is_cut_and_its_lines_are_read_again() {
    let wreck = Wreck::of("a_torn_tail_is_cut_and_its_lines_are_read_again");
    let path = wreck.newest_segment();
    let bytes = fs::read(&path).unwrap();
    // What a crash leaves of a commit that nobody saw: the beginning of a frame, then nothing.
    let frame = bytes.windows(4).rposition(|window| window == b"LAFR").unwrap();
    let mut torn = bytes.clone();
    torn.extend_from_slice(&bytes[frame..frame + 150]);
    fs::write(&path, torn).unwrap();
    wreck.recovers();
}

#[test]
fn zeros_behind_the_last_frame_are_cut() {
    let wreck = Wreck::of("zeros_behind_the_last_frame_are_cut");
    let path = wreck.newest_segment();
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(bytes.len() + 10_000, 0);
    fs::write(&path, bytes).unwrap();
    let scene = wreck.recovers();
    assert_eq!(set_aside(&scene), 0, "zeros are not worth keeping");
}

#[test]
fn a_damaged_frame_is_stepped_over_counted_and_kept() {
    let wreck = Wreck::of("a_damaged_frame_is_stepped_over_counted_and_kept");
    let path = wreck.newest_segment();
    let bytes = fs::read(&path).unwrap();
    let frames: Vec<_> = memchr::memmem::find_iter(&bytes, b"LAFR").collect();
    assert!(frames.len() > 5, "the test needs several frames");
    // In the payload of a frame that waits, with frames behind it.
    flip(&path, frames[frames.len() - 3] - 10);
    let scene = wreck.recovers_what_is_intact();
    assert!(set_aside(&scene) > 0, "the damaged bytes were not kept");
}

#[test]
fn a_damaged_frame_header_is_stepped_over_counted_and_kept() {
    let wreck = Wreck::of("a_damaged_frame_header_is_stepped_over_counted_and_kept");
    let path = wreck.newest_segment();
    let bytes = fs::read(&path).unwrap();
    let frames: Vec<_> = memchr::memmem::find_iter(&bytes, b"LAFR").collect();
    flip(&path, frames[frames.len() - 3] + 20);
    let scene = wreck.recovers_what_is_intact();
    assert!(set_aside(&scene) > 0, "the damaged bytes were not kept");
}

#[test]
fn a_foreign_and_a_duplicate_segment_are_set_aside() {
    let wreck = Wreck::of("a_foreign_and_a_duplicate_segment_are_set_aside");
    let other = Wreck::of("a_foreign_and_a_duplicate_segment_are_set_aside_other");
    fs::copy(other.newest_segment(), wreck.spool("segments/00000000000000000090.seg")).unwrap();
    fs::copy(wreck.newest_segment(), wreck.spool("segments/00000000000000000091.seg")).unwrap();
    fs::write(wreck.spool("segments/00000000000000000092.seg"), "not a segment at all ".repeat(50)).unwrap();
    let scene = wreck.recovers();
    assert!(set_aside(&scene) >= 3, "what was set aside was not kept");
}

#[test]
fn a_segment_that_a_power_cut_brought_back_is_not_sent_again() {
    let mut old = Vec::new();
    let wreck = Wreck::with("a_segment_that_a_power_cut_brought_back_is_not_sent_again", |spool| {
        for entry in fs::read_dir(spool.join("segments")).unwrap() {
            let entry = entry.unwrap();
            old.push((entry.file_name(), fs::read(entry.path()).unwrap()));
        }
    });
    for (name, bytes) in old {
        let path = wreck.spool("segments").join(name);
        if !path.exists() {
            fs::write(path, bytes).unwrap();
        }
    }
    wreck.recovers();
}

#[test]
fn a_spool_of_a_newer_version_is_refused_untouched() {
    let wreck = Wreck::of("a_spool_of_a_newer_version_is_refused_untouched");
    let path = wreck.newest_segment();
    let mut bytes = fs::read(&path).unwrap();
    let header_len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[8] = 99;
    let crc = crc32fast::hash(&bytes[..header_len - 4]);
    bytes[header_len - 4..header_len].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let agent = Agent::start(&wreck.scene);
    let messages = {
        wait_for(PATIENCE, "the refusal", || agent.said().contains("version 99"));
        agent.said()
    };
    assert_eq!(agent.wait(), Some(1));
    assert!(messages.contains(&path.display().to_string()), "{messages}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it was touched");
}

#[test]
fn a_second_agent_is_told_which_process_holds_the_spool() {
    let scene = Scene::new("a_second_agent_is_told_which_process_holds_the_spool");
    scene.config().end_point("http://127.0.0.1:9/").source("app", "logs/app.log").write();
    let agent = Agent::start(&scene);
    agent.await_started();
    let second = refusal(&scene, &scene.spool_dir());
    let expected = format!("held by process {}", agent.pid());
    assert!(second.contains(&expected), "{second}");
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_spool_directory_that_cannot_be_used_is_told_with_its_path() {
    let scene = Scene::new("a_spool_directory_that_cannot_be_used_is_told_with_its_path");
    scene.config().end_point("http://127.0.0.1:9/").source("app", "logs/app.log").write();
    let file = scene.path("a-file");
    fs::write(&file, "").unwrap();
    let told = refusal(&scene, &file);
    assert!(told.contains("a-file cannot be used: not a directory"), "{told}");
    let below = file.join("spool");
    let told = refusal(&scene, &below);
    assert!(told.contains("a-file/spool cannot be used"), "{told}");
    if !is_root() {
        let told = refusal(&scene, Path::new("/proc/1/spool"));
        assert!(told.contains("/proc/1/spool cannot be used"), "{told}");
    }
}

/// The one line with which an agent on the spool in `dir` refuses to start, with exit code 1.
fn refusal(scene: &Scene, dir: &Path) -> String {
    let output = log_agent()
        .args(["--config".as_ref(), scene.config_path().as_os_str(), "--spool-dir".as_ref(), dir.as_os_str()])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

/// A spool with a budget of one mebibyte, and more than three of lines while the server is away.
fn outgrows_its_budget(test: &str, on_full: &str) -> (Scene, Collector, Writer, Agent) {
    let scene = Scene::new(test);
    let mut collector = Collector::start(&scene);
    collector.kill();
    scene
        .config()
        .end_point(collector.url())
        .global("interval_secs", 0.02)
        .global("retry_delay_ms", 5)
        .global("max_batch_size", 50)
        .global("segment_bytes", 64 << 10)
        .global("max_spool_bytes", 1 << 20)
        .global("on_full", on_full)
        .source("app", "logs/app.log")
        .write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let agent = Agent::start(&scene);
    agent.await_started();
    for _ in 0..200 {
        writer.append(100);
    }
    (scene, collector, writer, agent)
}

#[test]
fn a_full_spool_pauses_reading_and_resumes_by_itself() {
    let (scene, mut collector, writer, agent) =
        outgrows_its_budget("a_full_spool_pauses_reading_and_resumes_by_itself", "block");
    agent.await_said("reading pauses");
    let spooled = inspect::spooled(&scene.spool_dir()).unwrap();
    assert!(spooled < writer.count(), "all {spooled} lines fit: the test shows nothing");
    collector.restart();
    await_delivery(&[&writer], &collector);
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(spool_status(&scene)["sources"][0]["dropped"], 0);
}

#[test]
fn a_full_spool_stops_when_it_is_told_to() {
    let (_scene, _collector, _writer, agent) =
        outgrows_its_budget("a_full_spool_stops_when_it_is_told_to", "block");
    agent.await_said("reading pauses");
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn drop_oldest_keeps_the_newest_and_counts_every_event_that_it_drops() {
    let (scene, mut collector, writer, agent) = outgrows_its_budget(
        "drop_oldest_keeps_the_newest_and_counts_every_event_that_it_drops",
        "drop_oldest",
    );
    wait_for(PATIENCE, "everything was read", || {
        inspect::spooled(&scene.spool_dir()).is_ok_and(|spooled| spooled == writer.count())
    });
    collector.restart();
    let last = writer.lines().last().unwrap();
    wait_for(PATIENCE, "the last line to be stored", || {
        collector.stored().iter().any(|event| event.data == *last)
    });
    wait_for(PATIENCE, "nothing to come any more", || agent_is_idle(&collector));
    assert_eq!(agent.stop(), Some(0));
    let status = spool_status(&scene);
    let dropped = status["sources"][0]["dropped"].as_u64().unwrap();
    assert!(dropped > 0, "{status:#}");
    assert_eq!(status["backlog"]["events"], 0, "{status:#}");
    let stored: HashSet<String> = collector.stored().into_iter().map(|event| event.data).collect();
    assert_eq!(stored.len() as u64 + dropped, writer.count(), "{status:#}");
    let missing = writer.lines().iter().filter(|line| !stored.contains(*line)).count();
    assert_eq!(missing as u64, dropped);
    // Half of the budget holds far more than these. Of the older ones those come, too, that were on their way.
    let newest = writer.lines().iter().rev().take(1000);
    assert_eq!(
        newest.filter(|line| !stored.contains(*line)).count(),
        0,
        "what was dropped is not the oldest"
    );
}

/// Every file below `dir` with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn spool_status_says_what_waits_and_changes_nothing() {
    let wreck = Wreck::of("spool_status_says_what_waits_and_changes_nothing");
    // What recovery would mend is left as it is, too.
    let mut bytes = fs::read(wreck.newest_segment()).unwrap();
    bytes[40] ^= 1;
    bytes.extend_from_slice(b"LAFR and no more");
    fs::write(wreck.newest_segment(), bytes).unwrap();
    let before = content(&wreck.scene.spool_dir());
    let report = spool_status(&wreck.scene);
    let text =
        log_agent().args(["spool", "status", "--spool-dir"]).arg(wreck.scene.spool_dir()).output().unwrap();
    assert_eq!(content(&wreck.scene.spool_dir()), before);

    assert_eq!(report["sources"][0]["spooled"], wreck.writer.count());
    assert_eq!(report["backlog"]["events"], report["sources"][0]["pending"]);
    assert!(report["backlog"]["events"].as_u64().unwrap() >= Wreck::LINES as u64, "{report:#}");
    assert!(report["batches"].as_u64().unwrap() > 0, "{report:#}");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(report["spool_id"].as_str().unwrap()), "{text}");
    assert!(text.contains("logs/app.log read to"), "{text}");
    wreck.recovers();
}

#[test]
fn spool_status_refuses_a_spool_that_is_in_use_or_not_there() {
    let scene = Scene::new("spool_status_refuses_a_spool_that_is_in_use_or_not_there");
    let ask = || {
        let output =
            log_agent().args(["spool", "status", "--spool-dir"]).arg(scene.spool_dir()).output().unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
    };
    let (said, code) = ask();
    assert_eq!(code, 1);
    assert!(said.contains("there is no spool in") && said.lines().count() == 1, "{said}");
    assert!(!scene.spool_dir().exists());

    let collector = Collector::start(&scene);
    scene.config().end_point(collector.url()).source("app", "logs/app.log").write();
    let agent = Agent::start(&scene);
    agent.await_started();
    let (said, code) = ask();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("held by process {}", agent.pid())), "{said}");
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(ask().1, 0);
}

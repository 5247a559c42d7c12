//! Files that are copied and truncated, moved, or compressed, while they are followed or while nobody looks.

use super::*;

impl Rig {
    /// What `copytruncate` does, with something in between.
    pub(super) fn copytruncate(&self, name: &str, copy: &str, between: impl FnOnce(&Self)) {
        fs::copy(self.path(name), self.path(copy)).unwrap();
        between(self);
        File::options().write(true).open(self.path(name)).unwrap().set_len(0).unwrap();
    }

    pub(super) fn compress(&self, name: &str, archive: &str) {
        let content = fs::read(self.path(name)).unwrap();
        let file = File::create(self.path(archive)).unwrap();
        // Two members, as where archives were put behind each other.
        let (one, two) = content.split_at(content.len() / 2);
        let mut file = [one, two].iter().fold(file, |file, part| {
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        });
        file.flush().unwrap();
        self.remove(name);
    }

    /// Bytes that were skipped for a reason, over all drafts.
    fn skipped(&self, reason: SkipReason) -> u64 {
        let skips = self.sink.drafts.iter().flat_map(|draft| draft.skips.iter());
        skips.filter(|(why, _)| *why == reason).map(|(_, skipped)| skipped.bytes).sum()
    }

    fn assert_no_loss(&self) {
        for reason in SkipReason::ALL.into_iter().filter(|reason| reason.is_loss()) {
            assert_eq!(self.skipped(reason), 0, "{reason}");
        }
    }
}

fn block(prefix: &str, count: usize) -> String {
    (0..count).map(|number| format!("{prefix} {number}\n")).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_was_not_read_before_the_truncation_is_read_from_the_copy_wherever_it_is() {
    both_ways(|polling| {
        for (pattern, copy) in [("app.log", "app.log.1"), ("app.log", "kept"), ("app.log*", "app.log.1")] {
            let mut rig = Rig::following(pattern, polling);
            let (first, second, third) = (block("first", 50), block("second", 50), block("third", 90));
            rig.append("app.log", &first);
            rig.settle();
            rig.append("app.log", &second);
            rig.copytruncate("app.log", copy, |_| {});
            rig.append("app.log", &third);
            rig.settle();
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines(), lines(&format!("{first}{second}{third}")), "{pattern} {copy}");
            rig.assert_no_loss();
            // And nothing comes twice after a restart.
            rig.stop();
            rig.start();
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines().len(), 190, "{pattern} {copy}");
        }
    });
}

#[test]
fn a_copy_inside_the_glob_is_not_delivered_twice_however_long_the_truncation_takes() {
    both_ways(|polling| {
        for wait in [Duration::ZERO, Duration::from_secs(1), QUIET * 4] {
            let mut rig = Rig::following("*.log*", polling);
            let (first, second) = (block("first", 50), block("second", 70));
            rig.append("app.log", &first);
            rig.settle();
            fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
            rig.pass(wait);
            File::options().write(true).open(rig.path("app.log")).unwrap().set_len(0).unwrap();
            rig.append("app.log", &second);
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines(), lines(&format!("{first}{second}")));
            assert_eq!(rig.skipped(SkipReason::Copy), first.len() as u64);
            rig.stop();
            rig.start();
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines().len(), 120);
        }
    });
}

#[test]
fn a_copy_that_grows_while_it_is_watched_is_a_copy_to_its_end() {
    let mut rig = Rig::following("*.log*", false);
    let content = block("line", 3000);
    rig.append("app.log", &content);
    rig.settle();
    for part in content.as_bytes().chunks(7001) {
        rig.append("app.log.1", std::str::from_utf8(part).unwrap());
        rig.settle();
        rig.now += Duration::from_millis(300);
    }
    File::options().write(true).open(rig.path("app.log")).unwrap().set_len(0).unwrap();
    rig.append("app.log", "after\n");
    rig.pass(QUIET * 3);
    assert_eq!(rig.lines(), lines(&format!("{content}after\n")));
    assert_eq!(rig.skipped(SkipReason::Copy), content.len() as u64);
}

#[test]
fn a_file_with_a_rotated_name_and_the_same_beginning_is_another_file() {
    both_ways(|polling| {
        let mut rig = Rig::following("*.log*", polling);
        let banner = block("banner", 200);
        rig.append("app.log", &format!("{banner}app\n"));
        rig.append("app.log.1", &format!("{banner}one\n"));
        // Alike as far as both go: nothing but the truncation of the other could tell it from a copy.
        rig.append("other.log", &banner);
        rig.settle();
        rig.pass(QUIET * 3);
        let mut found = rig.lines();
        assert_eq!(found.iter().filter(|line| line.starts_with("banner")).count(), 600);
        found.retain(|line| !line.starts_with("banner"));
        found.sort_unstable();
        assert_eq!(found, ["app", "one"]);
    });
}

#[test]
fn a_copy_made_while_the_agent_is_down_is_found_plain_or_compressed() {
    both_ways(|polling| {
        for (pattern, is_compressed) in
            [("app.log", false), ("app.log", true), ("*.log*", false), ("*.log*", true)]
        {
            let mut rig = Rig::following(pattern, polling);
            let (first, second, third) = (block("first", 50), block("second", 50), block("third", 90));
            rig.append("app.log", &first);
            rig.settle();
            rig.stop();
            rig.append("app.log", &second);
            rig.copytruncate("app.log", "app.log.1", |_| {});
            if is_compressed {
                rig.compress("app.log.1", "app.log.1.gz");
            }
            rig.append("app.log", &third);
            rig.start();
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines(), lines(&format!("{first}{second}{third}")), "{pattern} {is_compressed}");
            rig.assert_no_loss();
        }
    });
}

#[test]
fn several_copies_made_while_the_agent_is_down_are_read_in_their_order() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::following(pattern, false);
        let parts: Vec<String> = (0..5).map(|number| block(&format!("part {number}"), 30 + number)).collect();
        rig.append("app.log", &parts[0]);
        rig.settle();
        rig.stop();
        for (number, part) in parts[1..].iter().enumerate() {
            if number > 0 {
                for older in (1..number).rev() {
                    rig.rename(&format!("app.log.{older}"), &format!("app.log.{}", older + 1));
                }
                rig.copytruncate("app.log", "app.log.1", |_| {});
            }
            rig.append("app.log", part);
            // Births are told apart by the file system's clock, which ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(12));
        }
        rig.start();
        rig.pass(QUIET * 3);
        assert_eq!(rig.lines(), lines(&parts.concat()), "{pattern}");
    }
}

#[test]
fn a_copy_that_is_gone_before_it_is_opened_keeps_nobody_waiting() {
    let mut rig = Rig::following("app.log", false);
    let (first, third) = (block("first", 50), block("third", 90));
    rig.append("app.log", &first);
    rig.settle();
    rig.append("app.log", &block("second", 50));
    rig.copytruncate("app.log", "app.log.1", |_| {});
    rig.append("app.log", &third);
    // It is found, and not opened yet.
    assert_eq!(rig.turn(), Pace::Busy);
    rig.remove("app.log.1");
    rig.settle();
    assert_eq!(rig.lines(), lines(&format!("{first}{third}")));
}

#[test]
fn a_file_moved_or_compressed_while_the_agent_is_down_is_read_to_its_end_and_once() {
    let moves: [fn(&Rig); 5] = [
        |rig| {
            fs::create_dir(rig.path("logs/old")).unwrap();
            rig.rename("logs/app.log", "logs/old/app.log.1");
        },
        |rig| {
            fs::create_dir(rig.path("archive")).unwrap();
            rig.rename("logs/app.log", "archive/app");
        },
        |rig| rig.compress("logs/app.log", "logs/app.log.1.gz"),
        |rig| rig.compress("logs/app.log", "logs/app.log-20240115.gz"),
        |rig| {
            // Moved to another file system: copied and deleted.
            fs::create_dir(rig.path("archive")).unwrap();
            fs::copy(rig.path("logs/app.log"), rig.path("archive/app.log.1")).unwrap();
            rig.remove("logs/app.log");
        },
    ];
    for (number, rotate) in moves.into_iter().enumerate() {
        let mut rig = Rig::new(false).source("app", "logs/app.log");
        fs::create_dir(rig.path("logs")).unwrap();
        rig.start();
        let (first, second, third) = (block("first", 50), block("second", 50), block("third", 90));
        rig.append("logs/app.log", &first);
        rig.settle();
        rig.stop();
        rig.append("logs/app.log", &second);
        rotate(&rig);
        rig.append("logs/app.log", &third);
        rig.start();
        rig.pass(QUIET * 3);
        assert_eq!(rig.lines(), lines(&format!("{first}{second}{third}")), "{number}");
        rig.assert_no_loss();
        rig.stop();
        rig.start();
        rig.pass(QUIET * 3);
        assert_eq!(rig.lines().len(), 190, "{number}");
    }
}

#[test]
fn a_restart_in_the_middle_of_a_copy_goes_on_in_the_middle_of_it() {
    let mut rig = Rig::following("app.log", false);
    let (first, second) = (block("first", 50), block("second", 100_000));
    rig.append("app.log", &first);
    rig.settle();
    rig.stop();
    rig.append("app.log", &second);
    rig.copytruncate("app.log", "app.log.1", |_| {});
    rig.append("app.log", "after\n");
    let patterns = vec![Pattern::new(&rig.sources[0].log_path).unwrap()];
    let follower = Follower::new(&rig.sources, patterns, rig.sink.checkpoints(), &rig.options, rig.now);
    rig.follower = Some(follower);
    let drafts = rig.sink.drafts.len();
    while rig.sink.drafts.len() < drafts + 2 {
        rig.turn();
    }
    rig.stop();
    assert!(rig.lines().len() > 50 && rig.lines().len() < 50_000);
    rig.start();
    rig.pass(QUIET * 3);
    assert_eq!(rig.lines(), lines(&format!("{first}{second}after\n")));
}

#[test]
fn bytes_that_are_known_to_be_lost_are_counted_with_their_range() {
    let mut rig = Rig::following("app.log", false);
    rig.append("app.log", "one\ntwo, not comple");
    rig.settle();
    File::options().write(true).open(rig.path("app.log")).unwrap().set_len(0).unwrap();
    rig.settle();
    rig.append("app.log", "three\n");
    rig.settle();
    assert_eq!(rig.lines(), ["one", "three"]);
    let lost: Vec<_> = rig
        .sink
        .drafts
        .iter()
        .filter(|draft| draft.skips.iter().any(|(reason, _)| reason == SkipReason::Truncated))
        .map(|draft| (draft.start.0, draft.checkpoint.offset.0, draft.events.is_empty()))
        .collect();
    assert_eq!(lost, [(4, 19, true)]);
}

#[test]
fn a_compressed_file_inside_the_glob_is_not_read_as_lines() {
    let mut rig = Rig::following("*", false);
    rig.append("a", "1\n");
    rig.append("b", &block("old", 1000));
    rig.compress("b", "b.gz");
    File::create(rig.path("c.zst")).unwrap();
    rig.settle();
    rig.append("c.zst", "(\u{b5}");
    fs::write(rig.path("c.zst"), b"\x28\xB5\x2F\xFD\n\n\n").unwrap();
    rig.settle();
    rig.append("a", "2\n");
    rig.pass(SAFETY_LOOK * 2);
    assert_eq!(rig.lines(), ["1", "2"]);
}

#[test]
fn a_file_that_was_not_written_to_for_too_long_is_skipped_until_it_is() {
    let mut rig = Rig::new(false).source("app", "*.log");
    rig.sources[0].ignore_older = Some(Duration::from_secs(3600));
    for (name, age_secs) in [("old", 7200), ("new", 60)] {
        rig.append(&format!("{name}.log"), &format!("{name} before\n"));
        let file = File::options().append(true).open(rig.path(format!("{name}.log"))).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - Duration::from_secs(age_secs)).unwrap();
    }
    rig.start();
    assert_eq!(rig.lines(), ["new before"]);
    assert_eq!(rig.skipped(SkipReason::Older), "old before\n".len() as u64);
    rig.append("old.log", "old after\n");
    rig.settle();
    assert_eq!(rig.lines(), ["new before", "old after"]);
}

#[test]
fn copies_of_many_files_are_read_with_few_descriptors() {
    let mut rig = Rig::new(false).source("app", "*.log");
    rig.options.max_open_files = 4;
    rig.start();
    let mut expected = Vec::new();
    for number in 0..12 {
        let first = block(&format!("first {number}"), 50);
        rig.append(&format!("{number}.log"), &first);
        expected.extend(lines(&first));
    }
    rig.settle();
    rig.stop();
    for number in 0..12 {
        let (second, third) =
            (block(&format!("second {number}"), 40_000), block(&format!("third {number}"), 20));
        rig.append(&format!("{number}.log"), &second);
        rig.copytruncate(&format!("{number}.log"), &format!("{number}.log.1"), |_| {});
        rig.append(&format!("{number}.log"), &third);
        expected.extend(lines(&second).into_iter().chain(lines(&third)));
    }
    let patterns = vec![Pattern::new(&rig.sources[0].log_path).unwrap()];
    let follower = Follower::new(&rig.sources, patterns, rig.sink.checkpoints(), &rig.options, rig.now);
    rig.follower = Some(follower);
    for _ in 0..100 {
        rig.turn();
        assert!(rig.open_files() <= 4, "{}", rig.open_files());
    }
    rig.pass(QUIET * 3);
    let mut found = rig.lines();
    found.sort_unstable();
    expected.sort_unstable();
    assert!(found == expected, "{} of {} lines", found.len(), expected.len());
}

#[test]
fn a_file_that_was_copied_inside_the_glob_and_deleted_is_delivered_once() {
    both_ways(|polling| {
        for is_down in [false, true] {
            let mut rig = Rig::following("app.log*", polling);
            let (first, second) = (block("first", 50), block("second", 50));
            rig.append("app.log", &first);
            rig.settle();
            if is_down {
                rig.stop();
            }
            rig.append("app.log", &second);
            fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
            rig.remove("app.log");
            if is_down {
                rig.start();
            }
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines(), lines(&format!("{first}{second}")), "{is_down}");
            rig.stop();
            rig.start();
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines().len(), 100, "{is_down}");
        }
    });
}

#[test]
fn a_file_whose_inode_was_reused_and_of_which_there_is_no_copy_is_forgotten() {
    let mut rig = Rig::following("app.log", false);
    rig.append("app.log", &block("first", 50));
    rig.settle();
    rig.stop();
    for draft in &mut rig.sink.drafts {
        draft.checkpoint.identity.birth_ns -= 1;
    }
    rig.append("old", &block("other", 50));
    rig.compress("old", "app.log.1.gz");
    rig.start();
    rig.pass(QUIET * 3);
    assert_eq!(rig.sink.checkpoints().len(), 1, "{:?}", rig.sink.checkpoints());
}

#[test]
fn a_file_that_begins_as_another_one_and_goes_on_otherwise_loses_nothing() {
    both_ways(|polling| {
        for wait in [Duration::ZERO, QUIET / 2, QUIET * 2] {
            let mut rig = Rig::following("worker*.log", polling);
            rig.append("worker.log", "starting\nfirst worker\n");
            rig.settle();
            rig.append("worker-1.log", "starting\n");
            rig.settle();
            rig.pass(wait);
            rig.append("worker-1.log", "second worker\n");
            rig.pass(QUIET * 3);
            assert_eq!(rig.lines(), ["starting", "first worker", "starting", "second worker"], "{wait:?}");
        }
    });
}

#[test]
fn a_later_copy_that_begins_alike_and_is_shorter_is_read() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::following(pattern, false);
        let banner = block("banner", 200);
        let (first, second, third) = (block("first", 300), block("second", 50), block("third", 10));
        rig.append("app.log", &format!("{banner}{first}"));
        rig.settle();
        rig.stop();
        rig.append("app.log", "rest\n");
        rig.copytruncate("app.log", "app.log.2", |_| {});
        // Births are told apart by the file system's clock, which ticks every few milliseconds.
        std::thread::sleep(Duration::from_millis(12));
        rig.append("app.log", &format!("{banner}{second}"));
        rig.copytruncate("app.log", "app.log.1", |_| {});
        rig.append("app.log", &format!("{banner}{third}"));
        rig.start();
        rig.pass(QUIET * 3);
        let expected = format!("{banner}{first}rest\n{banner}{second}{banner}{third}");
        assert_eq!(rig.lines(), lines(&expected), "{pattern}");
    }
}

#[test]
fn a_file_that_comes_back_while_its_copy_is_read_goes_on() {
    let mut rig = Rig::following("app.log", false);
    let (first, second) = (block("first", 50), block("second", 100_000));
    rig.append("app.log", &first);
    rig.settle();
    rig.stop();
    rig.append("app.log", &second);
    fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
    let aside = tempfile::tempdir_in(rig.dir.path().parent().unwrap()).unwrap();
    fs::create_dir(aside.path().join("deep")).unwrap();
    let aside_path = aside.path().join("deep/app.log");
    fs::rename(rig.path("app.log"), &aside_path).unwrap();
    let patterns = vec![Pattern::new(&rig.sources[0].log_path).unwrap()];
    let follower = Follower::new(&rig.sources, patterns, rig.sink.checkpoints(), &rig.options, rig.now);
    rig.follower = Some(follower);
    let drafts = rig.sink.drafts.len();
    while rig.sink.drafts.len() < drafts + 2 {
        rig.turn();
    }
    fs::rename(&aside_path, rig.path("app.log")).unwrap();
    rig.append("app.log", "after\n");
    rig.pass(QUIET * 3);
    assert_eq!(rig.lines(), lines(&format!("{first}{second}after\n")));
}

#[test]
fn what_can_be_unpacked_of_a_damaged_archive_is_read() {
    let mut rig = Rig::following("app.log", false);
    let (first, second) = (block("first", 50), block("second", 1000));
    rig.append("app.log", &first);
    rig.settle();
    rig.stop();
    rig.append("app.log", &second);
    rig.copytruncate("app.log", "app.log.1", |_| {});
    let file = File::create(rig.path("app.log.1.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(&fs::read(rig.path("app.log.1")).unwrap()).unwrap();
    let file = encoder.finish().unwrap();
    file.set_len(file.metadata().unwrap().len() * 3 / 4).unwrap();
    rig.remove("app.log.1");
    rig.append("app.log", "after\n");
    rig.start();
    rig.pass(QUIET * 3);
    let mut found = rig.lines();
    assert_eq!(found.pop().as_deref(), Some("after"));
    let (all, torn) = (lines(&format!("{first}{second}")), found.pop().unwrap());
    assert!(found.len() > 500 && all[found.len()].starts_with(&torn), "{} {torn}", found.len());
    assert!(found == all[..found.len()]);
}

#[test]
fn what_a_copy_does_not_have_of_a_truncated_file_is_counted_as_lost() {
    let mut rig = Rig::new(false).source("app", "app.log");
    let (first, between) = (block("first", 100_000), block("between", 1000));
    rig.append("app.log", &first);
    fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
    rig.append("app.log", &between);
    let patterns = vec![Pattern::new(&rig.sources[0].log_path).unwrap()];
    rig.follower = Some(Follower::new(&rig.sources, patterns, Vec::new(), &rig.options, rig.now));
    rig.turn();
    rig.turn();
    File::options().write(true).open(rig.path("app.log")).unwrap().set_len(0).unwrap();
    rig.append("app.log", "after\n");
    rig.pass(SAFETY_LOOK * 2);
    assert_eq!(rig.lines(), lines(&format!("{first}after\n")));
    assert_eq!(rig.skipped(SkipReason::Truncated), between.len() as u64);
}

#[test]
fn a_copy_that_is_there_when_a_source_starts_at_the_end_is_accounted_for_once() {
    let rig = Rig::new(false).source("app", "app.log*").starting_at_end();
    let content = block("line", 100);
    rig.append("app.log", &content);
    rig.append("app.log.1", &content);
    let mut rig = rig.started();
    rig.pass(QUIET * 3);
    rig.append("app.log.1", "one\n");
    rig.append("app.log", "two\n");
    rig.pass(QUIET * 3);
    let mut found = rig.lines();
    found.sort_unstable();
    assert_eq!(found, ["one", "two"]);
    let skipped = rig.skipped(SkipReason::Copy) + rig.skipped(SkipReason::StartAtEnd);
    assert_eq!(skipped, 2 * content.len() as u64);
}

//! Multi-line events and last lines that wait in their files: for their time, across rotations and restarts.

use super::*;
use crate::config::{LineRules, Multiline, MultilinePattern};

/// Longer than a rig takes to settle.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) fn indented() -> LineRules {
    let pattern = MultilinePattern::Continue(regex::bytes::Regex::new(r"^\s").unwrap());
    let multiline = Multiline { pattern, max_lines: 100, max_bytes: 1 << 16, timeout: TIMEOUT };
    LineRules { multiline: Some(multiline), ..LineRules::default() }
}

fn rig(pattern: &str, rules: &LineRules, polling: bool) -> Rig {
    let mut rig = Rig::new(polling).source("app", pattern);
    rig.sources[0].lines = rules.clone();
    rig.started()
}

impl Rig {
    /// The bytes of the files that frames account for, by identity: how far each was read without a gap.
    fn assert_no_gaps(&self) {
        let mut ends: HashMap<CheckpointKey, u64> = HashMap::new();
        for draft in &self.sink.drafts {
            let ranges = draft
                .before
                .iter()
                .map(|before| (before.checkpoint.key(), before.start.0, before.checkpoint.offset.0))
                .chain([(draft.checkpoint.key(), draft.start.0, draft.checkpoint.offset.0)]);
            for (key, start, end) in ranges {
                let known = ends.insert(key, end).unwrap_or(0);
                assert!(start == known || start == 0, "{start} behind {known}");
            }
        }
    }
}

#[test]
fn an_open_group_waits_for_its_time_and_no_longer() {
    both_ways(|polling| {
        let mut rig = rig("app.log", &indented(), polling);
        rig.append("app.log", "one\n two\n");
        rig.settle();
        assert_eq!(rig.lines(), Vec::<String>::new());
        rig.pass(TIMEOUT / 2);
        rig.append("app.log", " three\n");
        rig.pass(TIMEOUT / 2 + Duration::from_millis(100));
        assert_eq!(rig.lines(), Vec::<String>::new(), "it grew meanwhile");
        rig.pass(TIMEOUT * 2);
        assert_eq!(rig.lines(), ["one\n two\n three"]);
        rig.append("app.log", "four\nfive\n");
        rig.settle();
        assert_eq!(rig.lines().len(), 2, "the next line ends the group at once");
        rig.pass(TIMEOUT * 2);
        assert_eq!(rig.lines()[1..], ["four", "five"]);
    });
}

#[test]
fn an_open_group_is_neither_lost_nor_torn_nor_doubled_by_a_restart() {
    let mut rig = rig("app.log", &indented(), false);
    rig.append("app.log", "one\n two\n");
    rig.settle();
    rig.stop();
    rig.append("app.log", " three\n");
    rig.start();
    rig.append("app.log", " four\nnext\n");
    rig.settle();
    assert_eq!(rig.lines(), ["one\n two\n three\n four"]);
    rig.stop();
    rig.now += TIMEOUT * 10;
    rig.start();
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two\n three\n four", "next"]);
}

#[test]
fn a_group_goes_on_in_the_file_that_took_the_name() {
    both_ways(|polling| {
        for is_down in [false, true] {
            let mut rig = rig("app.log", &indented(), polling);
            rig.append("app.log", "zero\none\n two\n");
            rig.settle();
            if is_down {
                rig.stop();
            }
            rig.rename("app.log", "app.log.1");
            rig.append("app.log", " three\n four\n");
            if is_down {
                rig.start();
            }
            rig.settle();
            assert_eq!(rig.lines(), ["zero"]);
            rig.append("app.log", " five\nsix\n");
            rig.pass(TIMEOUT * 2);
            assert_eq!(rig.lines(), ["zero", "one\n two\n three\n four\n five", "six"], "{is_down}");
            rig.pass(QUIET * 3);
            rig.append("app.log", "seven\n");
            rig.pass(TIMEOUT * 2);
            assert_eq!(rig.lines()[3..], ["seven"]);
            rig.assert_no_gaps();
            let read_to_its_end =
                rig.sink.checkpoints().iter().any(|checkpoint| {
                    checkpoint.offset.0 == fs::metadata(rig.path("app.log.1")).unwrap().len()
                });
            assert!(read_to_its_end);
        }
    });
}

#[test]
fn a_group_goes_on_in_a_file_that_was_copied_and_truncated() {
    both_ways(|polling| {
        for (pattern, is_compressed) in [("app.log", false), ("app.log*", false), ("app.log", true)] {
            let mut rig = rig(pattern, &indented(), polling);
            rig.append("app.log", "zero\none\n two\n");
            rig.settle();
            rig.stop();
            rig.append("app.log", " three\n");
            rig.copytruncate("app.log", "app.log.1", |_| {});
            if is_compressed {
                rig.compress("app.log.1", "app.log.1.gz");
            }
            rig.append("app.log", " four\n");
            rig.start();
            assert_eq!(rig.lines(), ["zero"]);
            rig.append("app.log", " five\nsix\n");
            rig.pass(TIMEOUT * 2);
            rig.append("app.log", "seven\n");
            rig.pass(TIMEOUT * 2);
            assert_eq!(rig.lines(), ["zero", "one\n two\n three\n four\n five", "six", "seven"]);
            rig.assert_no_gaps();
        }
    });
}

#[test]
fn a_group_at_the_end_of_a_copy_ends_in_time_where_nothing_follows() {
    let mut rig = rig("app.log", &indented(), false);
    rig.append("app.log", "one\n two\n");
    rig.settle();
    rig.copytruncate("app.log", "app.log.1", |_| {});
    rig.settle();
    assert_eq!(rig.lines(), Vec::<String>::new());
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two"]);
    rig.append("app.log", "three\n");
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two", "three"]);
}

#[test]
fn a_group_that_does_not_go_on_ends_with_its_file() {
    both_ways(|polling| {
        let mut rig = rig("app.log", &indented(), polling);
        rig.append("app.log", "one\n two\n");
        rig.settle();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", "three\nfour\n");
        rig.settle();
        assert_eq!(rig.lines(), ["one\n two", "three"]);
        rig.pass(TIMEOUT * 2);
        assert_eq!(rig.lines(), ["one\n two", "three", "four"]);
        rig.assert_no_gaps();
    });
}

#[test]
fn a_group_whose_successor_says_nothing_ends_in_time() {
    let mut rig = rig("app.log", &indented(), false);
    rig.append("app.log", "one\n two\n");
    rig.settle();
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", " not compl");
    rig.settle();
    assert_eq!(rig.lines(), Vec::<String>::new());
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two"]);
    rig.append("app.log", "ete\nthree\n");
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two", " not complete", "three"]);
    rig.assert_no_gaps();
}

#[test]
fn a_file_that_appears_long_after_its_name_was_free_does_not_wait() {
    let mut rig = Rig::following("app.log", false);
    rig.append("app.log", "one\n");
    rig.settle();
    rig.rename("app.log", "app.log.1");
    rig.settle();
    rig.append("app.log", "two\n");
    rig.settle();
    assert_eq!(rig.lines(), ["one", "two"]);
}

#[test]
fn a_last_line_without_newline_is_delivered_after_the_partial_timeout_and_marked() {
    both_ways(|polling| {
        let rules = LineRules { partial_timeout: Some(TIMEOUT), ..LineRules::default() };
        let mut rig = rig("app.log", &rules, polling);
        rig.append("app.log", "one\nprompt: ");
        rig.settle();
        assert_eq!(rig.lines(), ["one"]);
        rig.pass(TIMEOUT * 2);
        assert_eq!(rig.lines(), ["one", "prompt: "]);
        rig.append("app.log", "answer\n");
        rig.settle();
        rig.append("app.log", "waits");
        rig.pass(TIMEOUT * 2);
        rig.append("app.log", "\nlast\n");
        rig.settle();
        assert_eq!(rig.lines(), ["one", "prompt: ", "answer", "waits", "last"]);
        let marks: Vec<bool> = rig
            .sink
            .drafts
            .iter()
            .flat_map(|draft| draft.events.events())
            .map(|event| event.continues)
            .collect();
        assert_eq!(marks, [false, true, false, true, false]);
        rig.assert_no_gaps();
    });
}

#[test]
fn a_group_ends_in_time_whatever_else_its_file_is_looked_at_for() {
    let mut rig = rig("app.log", &indented(), false);
    rig.append("app.log", "one\n two\n");
    rig.settle();
    // Its permissions change in the moment in which its time is over.
    rig.now += TIMEOUT;
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(rig.path("app.log"), fs::Permissions::from_mode(0o640)).unwrap();
    rig.settle();
    rig.pass(TIMEOUT * 2);
    assert_eq!(rig.lines(), ["one\n two"]);
}

#[test]
fn groups_end_in_time_where_more_files_than_may_be_open_have_one() {
    both_ways(|polling| {
        let mut rig = Rig::new(polling).source("app", "*.log");
        rig.sources[0].lines = indented();
        rig.options.max_open_files = 2;
        rig.start();
        for number in 0..20 {
            rig.append(&format!("{number}.log"), "one\n two\n");
        }
        rig.settle();
        rig.pass(TIMEOUT * 4);
        assert_eq!(rig.lines(), ["one\n two"; 20]);
    });
}

#[test]
fn a_rotated_file_is_finished_although_its_successor_stays_empty() {
    both_ways(|polling| {
        let mut rig = rig("app.log", &indented(), polling);
        rig.append("app.log", "one\n two\nrest");
        rig.settle();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", "");
        rig.pass(TIMEOUT * 2 + QUIET * 2);
        assert_eq!(rig.lines(), ["one\n two", "rest"]);
        assert_eq!(rig.open_files(), 1, "the handle of the renamed file is released");
        rig.append("app.log", "three\n");
        rig.pass(TIMEOUT * 2);
        assert_eq!(rig.lines()[2..], ["three"]);
        rig.assert_no_gaps();
    });
}

#[test]
fn a_partial_record_that_goes_on_in_a_file_that_is_rotated_too_is_not_held_for_ever() {
    both_ways(|polling| {
        let rules = LineRules { format: crate::config::LineFormat::Cri, ..LineRules::default() };
        let mut rig = rig("app.log", &rules, polling);
        let record = |tag: &str, text: &str| format!("2024-01-15T10:30:00Z stdout {tag} {text}\n");
        rig.append("app.log", &record("P", "one "));
        rig.settle();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", &record("P", "two "));
        rig.settle();
        rig.rename("app.log", "app.log.2");
        rig.append("app.log", &record("F", "three"));
        rig.pass(QUIET * 6);
        assert_eq!(rig.lines().concat(), "one two three");
        assert_eq!(rig.open_files(), 1);
        rig.assert_no_gaps();
    });
}

#[test]
fn a_group_that_goes_on_is_not_torn_where_few_files_may_be_open() {
    both_ways(|polling| {
        let mut rig = Rig::new(polling).source("app", "*.log");
        rig.sources[0].lines = indented();
        rig.options.max_open_files = 1;
        rig.start();
        rig.append("app.log", "one\n two\n");
        rig.settle();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", " three\n");
        rig.settle();
        rig.append("other.log", "other\nother\n");
        rig.settle();
        rig.append("app.log", " four\nfive\n");
        rig.pass(TIMEOUT * 3);
        let mut lines = rig.lines();
        lines.sort_unstable();
        assert_eq!(lines, ["five", "one\n two\n three\n four", "other", "other"]);
        rig.assert_no_gaps();
    });
}

#[test]
fn a_line_that_is_not_complete_is_not_joined_with_the_first_of_the_next_file() {
    both_ways(|polling| {
        let mut rig = rig("app.log", &indented(), polling);
        rig.append("app.log", "one\n tw");
        rig.settle();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", " three\nfour\n");
        rig.settle();
        rig.append("app.log.1", "o\n");
        rig.pass(TIMEOUT * 2 + QUIET * 2);
        let mut lines = rig.lines();
        lines.sort_unstable();
        println!("{lines:?}");
        assert!(!lines.concat().contains("tw three"), "{lines:?}");
        rig.assert_no_gaps();
    });
}

#[test]
fn a_group_at_the_end_of_a_copy_is_not_held_for_ever_where_its_file_is_closed() {
    both_ways(|polling| {
        let mut rig = Rig::new(polling).source("app", "*.log");
        rig.sources[0].lines = indented();
        rig.options.max_open_files = 2;
        rig.start();
        rig.append("app.log", "one\n two\n");
        rig.settle();
        rig.copytruncate("app.log", "app.log.1", |_| {});
        rig.append("app.log", " three\n");
        rig.settle();
        for number in 0..4 {
            rig.append(&format!("{number}.log"), "other\nother\n");
            rig.settle();
        }
        rig.pass(TIMEOUT * 3);
        let mut lines = rig.lines();
        lines.retain(|line| line != "other");
        assert_eq!(lines, ["one\n two\n three"]);
        rig.append("app.log", "four\n");
        rig.pass(TIMEOUT * 3);
        assert_eq!(rig.lines().last().map(String::as_str), Some("four"));
        rig.assert_no_gaps();
    });
}

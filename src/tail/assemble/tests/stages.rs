//! One example for each rule that takes more than one stage to show.

use super::*;
use crate::event::SkipReason;

const TIME: i64 = 1_705_314_600_500;

fn docker(stream: &str, second: u32, log: &str) -> String {
    let log = serde_json::to_string(log).unwrap();
    format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"2024-01-15T10:30:{second:02}.5Z\"}}\n")
}

fn cri(stream: &str, second: u32, tag: &str, text: &str) -> String {
    format!("2024-01-15T10:30:{second:02}.500000000Z {stream} {tag} {text}\n")
}

fn wrapped(format: LineFormat, max_line_bytes: usize) -> Assembler {
    Assembler::new(&LineRules { format, max_line_bytes, ..LineRules::default() })
}

fn continuing(pattern: &str) -> Assembler {
    joining(MultilinePattern::Continue(regex(pattern)))
}

/// As many NULs as it takes to be no line.
const HOLE: &str = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

mod plain {
    use super::*;

    #[test]
    fn without_configuration_lines_come_out_as_they_are() {
        let assembler = Assembler::new(&LineRules::default());
        assert!(assembler.is_plain);
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append(format!("\u{FEFF}one\r\n{HOLE}two\n\nthr")).cut(End::Open), Waits::Newline);
        assert_eq!(reader.texts(), ["one", "two", ""]);
        assert_eq!(
            reader.skips.iter().collect::<Vec<_>>(),
            [
                (SkipReason::ByteOrderMark, Skipped { bytes: 3, lines: 0 }),
                (SkipReason::Nul, Skipped { bytes: 16, lines: 0 }),
            ]
        );
        assert_eq!(reader.append("ee\n").cut(End::Open), Waits::Nothing);
        assert_eq!(reader.texts().last().unwrap(), "three");
    }

    #[test]
    fn the_fast_way_and_the_stages_make_the_same_of_it() {
        let plain = LineRules { max_line_bytes: 16, ..LineRules::default() };
        let staged = LineRules { exclude: vec![regex("$never")], ..plain.clone() };
        let file = format!("\u{FEFF}a\n{HOLE}b\r\n\n{}\n\0\nlast", "é".repeat(30));
        assert_eq!(events_of(&Assembler::new(&plain), &file), events_of(&Assembler::new(&staged), &file));
    }

    #[test]
    fn a_finished_file_that_grows_again_makes_no_event_of_the_newline_it_lacked() {
        let assembler = Assembler::new(&LineRules::default());
        let mut reader = Reader::new(&assembler);
        reader.append("rest").cut(End::Finished);
        reader.append("\nnew\n").cut(End::Open);
        assert_eq!(reader.texts(), ["rest", "new"]);
    }

    #[test]
    fn a_hole_of_many_reads_is_passed_without_being_held() {
        let assembler = Assembler::new(&LineRules::default());
        let mut reader = Reader::new(&assembler);
        reader.append("one\n").cut(End::Open);
        for _ in 0..10 {
            assert_eq!(reader.append([0; 10_000]).cut(End::Open), Waits::Nothing);
        }
        reader.append("two\n").cut(End::Open);
        assert_eq!(reader.texts(), ["one", "two"]);
        assert_eq!(reader.skips, Skips::of(SkipReason::Nul, 100_000));
    }

    #[test]
    fn the_start_of_the_incomplete_line_is_told_in_the_encoding_of_the_file() {
        let assembler = |encoding| Assembler::new(&LineRules { encoding, ..LineRules::default() });
        assert_eq!(assembler(encoding_rs::UTF_8).last_line_start(b"a\nb"), Some(2));
        assert_eq!(assembler(encoding_rs::UTF_8).last_line_start(b"ab"), None);
        let wide = assembler(encoding_rs::UTF_16LE);
        assert_eq!(wide.last_line_start(b"a\0\n\0b\0\0\n"), Some(4), "the last is U+0A00");
    }

    #[test]
    fn timeouts_are_those_of_the_configuration() {
        let rules = LineRules { partial_timeout: Some(Duration::from_secs(3)), ..LineRules::default() };
        assert_eq!(Assembler::new(&rules).partial_timeout(), Some(Duration::from_secs(3)));
        assert_eq!(Assembler::new(&rules).group_timeout(), None);
        assert_eq!(continuing("^ ").group_timeout(), Some(Duration::from_secs(1)));
    }
}

mod encodings {
    use super::*;

    #[test]
    fn lines_of_another_encoding_become_utf8_and_are_measured_as_they_stand_in_the_file() {
        let rules =
            LineRules { encoding: encoding_rs::WINDOWS_1252, max_line_bytes: 16, ..LineRules::default() };
        let file = b"caf\xE9\n\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\xE9\nplain\n";
        assert_eq!(events_of(&Assembler::new(&rules), file), ["café", &"é".repeat(16), "plain"]);
    }

    #[test]
    fn patterns_see_the_decoded_text() {
        let rules = LineRules {
            encoding: encoding_rs::UTF_16LE,
            include: vec![regex("^é")],
            redact: vec![Redact { pattern: regex("ü"), replacement: "u".to_owned() }],
            ..LineRules::default()
        };
        let file: Vec<u8> = "\u{FEFF}éü\r\nother\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let assembler = Assembler::new(&rules);
        let mut reader = Reader::new(&assembler);
        reader.append(file).cut(End::Open);
        assert_eq!(reader.texts(), ["éu"]);
        assert_eq!(
            reader.skips.iter().collect::<Vec<_>>(),
            [
                (SkipReason::NotIncluded, Skipped { bytes: 12, lines: 1 }),
                (SkipReason::ByteOrderMark, Skipped { bytes: 2, lines: 0 }),
            ]
        );
    }
}

mod containers {
    use super::*;

    #[test]
    fn a_record_is_its_text_at_its_own_time() {
        for (format, file) in [
            (LineFormat::DockerJson, docker("stdout", 0, "a \"line\"\n")),
            (LineFormat::Cri, cri("stdout", 0, "F", "a \"line\"")),
        ] {
            let assembler = wrapped(format, 1 << 20);
            let mut reader = Reader::new(&assembler);
            assert_eq!(reader.append(file).cut(End::Open), Waits::Nothing);
            let time = Some(Timestamp::from_millis(TIME));
            assert_eq!(reader.events, [(b"a \"line\"".to_vec(), false, time)]);
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_delivered_as_it_is_without_a_time() {
        for format in [LineFormat::DockerJson, LineFormat::Cri] {
            let assembler = wrapped(format, 1 << 20);
            let mut reader = Reader::new(&assembler);
            reader.append("{\"log\":\nplain text\n").cut(End::Open);
            assert_eq!(
                reader.events,
                [(b"{\"log\":".to_vec(), false, None), (b"plain text".to_vec(), false, None)]
            );
        }
    }

    #[test]
    fn partial_records_are_joined_and_have_the_time_of_the_first() {
        let assembler = wrapped(LineFormat::DockerJson, 1 << 20);
        let mut reader = Reader::new(&assembler);
        for (second, part) in [(0, "one "), (1, "two\\ ")] {
            assert_eq!(reader.append(docker("stdout", second, part)).cut(End::Open), Waits::Group);
        }
        assert_eq!(reader.offset, 0, "they stay in the file");
        assert_eq!(reader.append(docker("stdout", 2, "three\r\n")).cut(End::Open), Waits::Nothing);
        let time = Some(Timestamp::from_millis(TIME));
        assert_eq!(reader.events, [(b"one two\\ three".to_vec(), false, time)]);
    }

    #[test]
    fn a_carriage_return_belongs_to_the_ending_even_if_its_newline_is_in_another_record() {
        let file = [docker("stdout", 0, "text\r"), docker("stdout", 0, "\n")].concat();
        assert_eq!(events_of(&wrapped(LineFormat::DockerJson, 1 << 20), file), ["text"]);
        let file = [cri("stdout", 0, "P", "text\r"), cri("stdout", 0, "F", "more\r")].concat();
        assert_eq!(events_of(&wrapped(LineFormat::Cri, 1 << 20), file), ["text\rmore"]);
    }

    #[test]
    fn streams_are_joined_apart_and_what_is_behind_an_open_record_waits() {
        let assembler = wrapped(LineFormat::Cri, 1 << 20);
        let mut reader = Reader::new(&assembler);
        reader.append(cri("stdout", 0, "F", "before")).append(cri("stdout", 1, "P", "out "));
        reader.append(cri("stderr", 2, "F", "behind")).append(cri("stderr", 3, "P", "err "));
        assert_eq!(reader.cut(End::Open), Waits::Group);
        assert_eq!(reader.taken(), ["before"]);
        assert_eq!(reader.append(cri("stdout", 4, "F", "end")).cut(End::Open), Waits::Group);
        assert_eq!(reader.taken(), Vec::<String>::new(), "the other stream is open");
        assert_eq!(reader.append(cri("stderr", 5, "F", "end")).cut(End::Open), Waits::Nothing);
        assert_eq!(reader.taken(), ["out end", "behind", "err end"]);
    }

    #[test]
    fn a_partial_record_comes_out_as_going_on_after_a_quiet_time_and_unmarked_at_the_end() {
        let assembler = wrapped(LineFormat::Cri, 1 << 20);
        let mut reader = Reader::new(&assembler);
        reader.append(cri("stdout", 0, "P", "part")).append(cri("stderr", 0, "F", "behind"));
        assert_eq!(reader.cut(End::GroupQuiet), Waits::Group);
        assert_eq!(reader.cut(End::Quiet), Waits::Nothing);
        assert_eq!(reader.taken(), ["part+", "behind"]);
        reader.append(cri("stdout", 0, "P", "part")).cut(End::Finished);
        assert_eq!(reader.taken(), ["part"]);
    }

    #[test]
    fn joined_text_is_bounded_by_pieces_at_the_ends_of_records() {
        let parts = |count| cri("stdout", 0, "P", "0123456789").repeat(count);
        let assembler = wrapped(LineFormat::Cri, 25);
        let mut reader = Reader::new(&assembler);
        reader.append(parts(5)).cut(End::Open);
        assert_eq!(reader.taken(), ["01234567890123456789+", "01234567890123456789+"]);
        reader.append(cri("stdout", 0, "F", "end")).cut(End::Open);
        assert_eq!(reader.taken(), ["0123456789end"]);
    }

    #[test]
    fn a_text_that_is_too_long_comes_out_in_pieces() {
        let assembler = wrapped(LineFormat::DockerJson, 16);
        let file = docker("stdout", 0, "0123456789abcde\u{e9}xyz\n");
        assert_eq!(events_of(&assembler, file), ["0123456789abcde+", "éxyz"]);
        let file = docker("stdout", 0, "0123456789abcdefxyz") + &docker("stdout", 1, "end\n");
        assert_eq!(events_of(&assembler, file), ["0123456789abcdef+", "xyz+", "end"]);
    }

    #[test]
    fn an_open_record_that_never_ends_holds_others_back_only_so_far() {
        let assembler = wrapped(LineFormat::Cri, 16);
        let mut reader = Reader::new(&assembler);
        reader.append(cri("stdout", 0, "P", "never ends"));
        let others = assembler.hold_max() / cri("stderr", 0, "F", "other").len() + 1;
        reader.append(cri("stderr", 0, "F", "other").repeat(others)).cut(End::Open);
        assert_eq!(reader.texts()[..2], ["never ends+", "other"]);
    }

    #[test]
    fn a_line_that_is_no_record_and_a_hole_end_what_is_open() {
        let assembler = wrapped(LineFormat::Cri, 1 << 20);
        let file = cri("stdout", 0, "P", "part") + "broken\n" + &cri("stdout", 0, "F", "end");
        assert_eq!(events_of(&assembler, file), ["part+", "broken", "end"]);
        let file = cri("stdout", 0, "P", "part") + HOLE + &cri("stdout", 0, "F", "end");
        assert_eq!(events_of(&assembler, file), ["part+", "end"]);
    }

    #[test]
    fn a_partial_record_goes_on_in_the_file_that_took_over_the_name() {
        let assembler = wrapped(LineFormat::DockerJson, 1 << 20);
        let held = docker("stdout", 0, "part");
        let told = |next: &str| assembler.goes_on(held.as_bytes(), next.as_bytes());
        assert_eq!(told(&docker("stdout", 1, "end\n")), Some(true));
        assert_eq!(told("no record\n"), Some(false));
        assert_eq!(told("\0"), Some(false));
        assert_eq!(told(""), None);
        assert_eq!(told("{\"log\""), None);
    }
}

mod groups {
    use super::*;

    #[test]
    fn an_event_begins_with_a_line_that_matches_the_start_pattern() {
        let assembler = joining(MultilinePattern::Start(regex("^[0-9]")));
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append("no start\n1 one\n  more\n\n2 two\n").cut(End::Open), Waits::Group);
        assert_eq!(reader.taken(), ["no start", "1 one\n  more\n"]);
        assert_eq!(reader.append("x\n3").cut(End::Open), Waits::Group);
        assert_eq!(reader.taken(), Vec::<String>::new(), "the last line is not known yet");
        assert_eq!(reader.append(" three\n").cut(End::Open), Waits::Group);
        assert_eq!(reader.taken(), ["2 two\nx"]);
        assert_eq!(reader.cut(End::Finished), Waits::Nothing);
        assert_eq!(reader.taken(), ["3 three"]);
    }

    #[test]
    fn a_line_that_matches_the_continue_pattern_belongs_to_the_event_before_it() {
        let assembler = continuing("^[ \t]");
        assert_eq!(
            events_of(&assembler, " first\n more\nb\nc\r\n\tmore\r\n"),
            [" first\n more", "b", "c\n\tmore"]
        );
    }

    #[test]
    fn a_quiet_time_completes_an_event_and_leaves_an_incomplete_line_behind_it() {
        let assembler = continuing("^ ");
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append("a\n b\n c").cut(End::GroupQuiet), Waits::Newline);
        assert_eq!(reader.taken(), ["a\n b"]);
        assert_eq!(reader.cut(End::Quiet), Waits::Nothing);
        assert_eq!(reader.taken(), [" c+"]);
        reader.append(" and more\n d\n").cut(End::Finished);
        assert_eq!(reader.taken(), [" and more\n d"]);
    }

    #[test]
    fn an_event_is_complete_when_it_has_its_most_lines_and_what_follows_begins_another() {
        let limits = Multiline { max_lines: 2, ..multiline(MultilinePattern::Start(regex("^start"))) };
        let assembler = Assembler::new(&LineRules { multiline: Some(limits), ..LineRules::default() });
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append("start\na\n").cut(End::Open), Waits::Nothing, "no need to wait");
        reader.append("b\nc\nd\nstart\n").cut(End::Finished);
        assert_eq!(reader.texts(), ["start\na", "b\nc", "d", "start"]);
    }

    #[test]
    fn an_event_covers_no_more_than_its_most_bytes() {
        let limits = Multiline { max_bytes: 16, ..multiline(MultilinePattern::Continue(regex("^ "))) };
        let assembler = Assembler::new(&LineRules { multiline: Some(limits), ..LineRules::default() });
        let long = "x".repeat(40);
        assert_eq!(
            events_of(&assembler, format!("1234567\n 234567\n 8\n12345\n 2345678901\n{long}\n y\n")),
            ["1234567\n 234567", " 8", "12345", " 2345678901", &long, " y"]
        );
    }

    #[test]
    fn a_line_in_pieces_joins_only_what_is_behind_its_last_piece() {
        let limits = multiline(MultilinePattern::Continue(regex("^ ")));
        let assembler = Assembler::new(&LineRules {
            multiline: Some(limits),
            max_line_bytes: 16,
            ..LineRules::default()
        });
        assert_eq!(
            events_of(&assembler, "a\n 123456789abcdef0123\n more\nb\n"),
            ["a", " 123456789abcdef+", "0123\n more", "b"]
        );
    }

    #[test]
    fn a_hole_completes_an_event() {
        let assembler = continuing("^ ");
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append(format!("a\n b\n{HOLE}")).cut(End::Open), Waits::Nothing);
        assert_eq!(reader.taken(), ["a\n b"]);
    }

    #[test]
    fn an_event_in_a_container_has_the_time_of_its_first_line_and_lines_of_one_stream() {
        let rules = LineRules {
            format: LineFormat::Cri,
            multiline: Some(multiline(MultilinePattern::Continue(regex("^ ")))),
            ..LineRules::default()
        };
        let assembler = Assembler::new(&rules);
        let mut reader = Reader::new(&assembler);
        reader.append(cri("stdout", 0, "F", "a")).append(cri("stdout", 1, "P", " b"));
        reader.append(cri("stdout", 2, "F", " c")).append(cri("stderr", 3, "F", " d"));
        reader.cut(End::Finished);
        let time = |second: i64| Some(Timestamp::from_millis(TIME + second * 1000));
        assert_eq!(reader.events, [(b"a\n b c".to_vec(), false, time(0)), (b" d".to_vec(), false, time(3))]);
    }

    #[test]
    fn records_that_came_out_together_are_used_together() {
        let rules = |pattern| LineRules {
            format: LineFormat::Cri,
            multiline: Some(multiline(pattern)),
            ..LineRules::default()
        };
        let go = MultilinePattern::Preset(MultilinePreset::Go);
        for pattern in [MultilinePattern::Continue(regex("^ ")), go] {
            let assembler = Assembler::new(&rules(pattern));
            let mut reader = Reader::new(&assembler);
            reader.append(cri("stdout", 0, "P", "a ")).append(cri("stderr", 1, "F", "panic: b"));
            assert_eq!(reader.append(cri("stdout", 2, "F", "c")).cut(End::Open), Waits::Group);
            assert_eq!(reader.taken(), Vec::<String>::new(), "the last of them may go on");
            reader.append(cri("stdout", 3, "F", "d")).cut(End::Finished);
            assert_eq!(reader.taken(), ["a c", "panic: b", "d"]);
        }
    }

    #[test]
    fn a_quiet_time_completes_the_event_before_an_open_record() {
        let rules = LineRules {
            format: LineFormat::Cri,
            multiline: Some(multiline(MultilinePattern::Continue(regex("^ ")))),
            ..LineRules::default()
        };
        let assembler = Assembler::new(&rules);
        let mut reader = Reader::new(&assembler);
        reader.append(cri("stdout", 0, "F", "a")).append(cri("stdout", 1, "P", "b"));
        assert_eq!(reader.cut(End::GroupQuiet), Waits::Group);
        assert_eq!(reader.taken(), ["a"]);
        assert_eq!(reader.cut(End::Quiet), Waits::Nothing);
        assert_eq!(reader.taken(), ["b+"]);
    }

    #[test]
    fn an_event_goes_on_in_the_file_that_took_over_the_name() {
        let assembler = continuing("^ ");
        assert_eq!(assembler.goes_on(b"a\n b\n", b" c\nd"), Some(true));
        assert_eq!(assembler.goes_on(b"a\n b\n", b"c\n"), Some(false));
        assert_eq!(assembler.goes_on(b"a\n b", b" c\n"), Some(true), "the former file is finished");
        assert_eq!(assembler.goes_on(b"a\n b\n", b" c"), None);
        assert_eq!(assembler.goes_on(b"a\n b\n", b"\0 c\n"), Some(false));
        assert_eq!(assembler.goes_on(b"", b" c\n"), Some(false));
        assert_eq!(Assembler::new(&LineRules::default()).goes_on(b"a", b" c\n"), Some(false));
    }

    #[test]
    fn whether_a_record_in_parts_goes_on_is_told_once_it_is_whole() {
        let rules = LineRules {
            format: LineFormat::Cri,
            multiline: Some(multiline(MultilinePattern::Continue(regex("end$")))),
            ..LineRules::default()
        };
        let assembler = Assembler::new(&rules);
        let (held, part) = (cri("stdout", 0, "F", "a"), cri("stdout", 1, "P", "b "));
        assert_eq!(assembler.goes_on(held.as_bytes(), part.as_bytes()), None);
        let whole = part + &cri("stdout", 2, "F", "end");
        assert_eq!(assembler.goes_on(held.as_bytes(), whole.as_bytes()), Some(true));
    }
}

mod finish {
    use super::*;

    #[test]
    fn filters_judge_whole_events_and_count_what_they_leave_out() {
        let rules = LineRules {
            multiline: Some(multiline(MultilinePattern::Continue(regex("^ ")))),
            include: vec![regex("keep")],
            exclude: vec![regex("secret")],
            ..LineRules::default()
        };
        let assembler = Assembler::new(&rules);
        let mut reader = Reader::new(&assembler);
        reader.append("a\n keep\nb\n other\nc keep\r\n secret\n").cut(End::Finished);
        assert_eq!(reader.texts(), ["a\n keep"]);
        assert_eq!(
            reader.skips.iter().collect::<Vec<_>>(),
            [
                (SkipReason::Excluded, Skipped { bytes: 16, lines: 2 }),
                (SkipReason::NotIncluded, Skipped { bytes: 9, lines: 2 }),
            ]
        );
    }

    #[test]
    fn each_piece_of_an_over_long_line_is_judged_alone() {
        let rules = LineRules { max_line_bytes: 16, exclude: vec![regex("x")], ..LineRules::default() };
        let assembler = Assembler::new(&rules);
        let mut reader = Reader::new(&assembler);
        reader.append("0123456789abcdefx123456789abcdef0123\n").cut(End::Open);
        assert_eq!(reader.texts(), ["0123456789abcdef+", "0123"]);
        let skipped = Skipped { bytes: 16, lines: 0 };
        assert_eq!(reader.skips.iter().collect::<Vec<_>>(), [(SkipReason::Excluded, skipped)]);
    }

    #[test]
    fn what_is_replaced_was_seen_by_the_filters_and_may_span_lines() {
        let rules = LineRules {
            multiline: Some(multiline(MultilinePattern::Continue(regex("^ ")))),
            include: vec![regex("key")],
            redact: vec![Redact {
                pattern: regex(r"key=(\w)\w*\n \w+"), replacement: "key=$1…".to_owned()
            }],
            ..LineRules::default()
        };
        assert_eq!(events_of(&Assembler::new(&rules), "key=abc\n def\nother\n"), ["key=a…"]);
    }
}

mod traces {
    use super::*;

    /// The trace, between lines that are events of their own, is one event.
    fn assert_is_one_event(language: MultilinePreset, trace: &str) {
        let assembler = preset(language);
        let events = events_of(&assembler, format!("before\n\n{trace}\nafter\n\n"));
        assert_eq!(events, ["before", "", trace, "after", ""]);
    }

    #[test]
    fn a_java_trace_is_one_event_with_the_line_before_its_first_call() {
        assert_is_one_event(
            MultilinePreset::Java,
            "10:30:00 ERROR request failed: java.lang.IllegalStateException: no session\n\
             \tat app.Sessions.find(Sessions.java:17) ~[app.jar:1.0]\n\
             \tSuppressed: java.io.IOException: close\n\
             \t\tat app.Sessions.close(Sessions.java:40)\n\
             \t\t... 3 more\n\
             Caused by: java.io.IOException: timeout\n\
             \tat app.Store.read(Store.java:88)\n\
             \t[CIRCULAR REFERENCE: java.io.IOException]\n\
             \t... 12 common frames omitted",
        );
    }

    #[test]
    fn lines_that_only_look_like_java_calls_are_not_joined() {
        let events =
            events_of(&preset(MultilinePreset::Java), "one\nat the margin\n  indented\n\t... many more\n");
        assert_eq!(events, ["one", "at the margin", "  indented", "\t... many more"]);
    }

    #[test]
    fn a_python_trace_is_one_event_with_those_that_caused_it() {
        assert_is_one_event(
            MultilinePreset::Python,
            "Traceback (most recent call last):\n  \
               File \"app.py\", line 3, in <module>\n    \
                 main()\n    \
                 ~~~~^^\n\
             KeyError: 'a'\n\
             \n\
             During handling of the above exception, another exception occurred:\n\
             \n\
             Traceback (most recent call last):\n  \
               File \"app.py\", line 5, in <module>\n\
             app.errors.RecoveryError: no\n\
             \n\
             The above exception was the direct cause of the following exception:\n\
             \n\
             Traceback (most recent call last):\n  \
               File \"app.py\", line 7, in <module>\n\
             KeyboardInterrupt",
        );
        assert_is_one_event(
            MultilinePreset::Python,
            "  + Exception Group Traceback (most recent call last):\n  \
               |   File \"app.py\", line 3, in <module>\n  \
               | ExceptionGroup: two (2 sub-exceptions)\n  \
               +-+---------------- 1 ----------------\n    \
                 | ValueError: 1\n    \
                 +------------------------------------\n\
             \n\
             During handling of the above exception, another exception occurred:\n\
             \n\
             Traceback (most recent call last):\n  \
               File \"app.py\", line 5, in <module>\n\
             OSError",
        );
    }

    #[test]
    fn a_python_trace_that_breaks_off_takes_no_line_of_the_log() {
        let file = "Traceback (most recent call last):\n  File \"a\"\n2024-01-15 10:30:00 INFO on\n";
        assert_eq!(
            events_of(&preset(MultilinePreset::Python), file),
            ["Traceback (most recent call last):\n  File \"a\"", "2024-01-15 10:30:00 INFO on"]
        );
    }

    #[test]
    fn a_go_panic_is_one_event_with_its_blank_lines_and_goroutines() {
        assert_is_one_event(
            MultilinePreset::Go,
            "panic: assignment to entry in nil map [recovered]\n\
             \tpanic: again\n\
             [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48]\n\
             \n\
             goroutine 1 gp=0xc0 m=0 [running]:\n\
             panic({0x45e420?, 0x48b9a8?})\n\
             \t/usr/lib/go/src/runtime/panic.go:770 +0x132\n\
             main.(*Server).serve(0xc000010000, {0x4b, 0x3})\n\
             \t/src/app/main.go:17 +0x1d\n\
             ...additional frames elided...\n\
             created by main.main in goroutine 1\n\
             \t/src/app/main.go:9 +0x25\n\
             \n\
             goroutine 7 [chan receive, 2 minutes]:\n\
             main.wait(...)\n\
             \t/src/app/wait.go:4\n\
             exit status 2",
        );
        assert_is_one_event(
            MultilinePreset::Go,
            "2009/11/10 23:00:00 http: panic serving 127.0.0.1:80: no\n\
             goroutine 5 [running]:\n\
             net/http.(*conn).serve.func1()\n\
             \t/usr/lib/go/src/net/http/server.go:1868 +0xb9",
        );
        assert_is_one_event(
            MultilinePreset::Go,
            "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [select (no cases)]:\nmain.main()\n\t/a.go:4 +0xf",
        );
    }

    #[test]
    fn a_blank_line_behind_a_trace_is_an_event_of_its_own() {
        let assembler = preset(MultilinePreset::Go);
        let mut reader = Reader::new(&assembler);
        assert_eq!(reader.append("panic: x\n\n").cut(End::Open), Waits::Group);
        assert_eq!(reader.offset, 0, "the trace may go on after it");
        assert_eq!(reader.cut(End::GroupQuiet), Waits::Nothing);
        assert_eq!(reader.taken(), ["panic: x", ""]);
        reader.append("panic: y\n\n\nplain\n").cut(End::Open);
        assert_eq!(reader.taken(), ["panic: y", "", "", "plain"]);
    }

    #[test]
    fn a_ruby_trace_is_one_event() {
        for quote in ['\'', '`'] {
            assert_is_one_event(
                MultilinePreset::Ruby,
                &format!(
                    "app.rb:3:in {quote}Sessions#find': no session (RuntimeError)\n\
                     \tfrom app.rb:9:in {quote}block in <main>'\n\
                     \t ... 12 levels...\n\
                     \tfrom app.rb:12:in {quote}<main>'"
                ),
            );
        }
    }

    #[test]
    fn a_line_that_no_trace_begins_with_waits_for_nothing() {
        for language in [MultilinePreset::Python, MultilinePreset::Go, MultilinePreset::Ruby] {
            let assembler = preset(language);
            assert_eq!(Reader::new(&assembler).append("plain\n  indented\n").cut(End::Open), Waits::Nothing);
        }
        let assembler = preset(MultilinePreset::Java);
        assert_eq!(Reader::new(&assembler).append("plain\n").cut(End::Open), Waits::Group);
    }
}

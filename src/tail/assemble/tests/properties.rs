//! What holds for every configuration.

use super::*;
use crate::tail::assemble::nul;

fn patterns() -> impl Strategy<Value = Option<MultilinePattern>> {
    prop_oneof![
        Just(None),
        Just(Some(MultilinePattern::Start(regex("^[0-9]")))),
        Just(Some(MultilinePattern::Continue(regex("^[ \t]")))),
        prop_oneof![
            Just(MultilinePreset::Java),
            Just(MultilinePreset::Python),
            Just(MultilinePreset::Go),
            Just(MultilinePreset::Ruby),
        ]
        .prop_map(|preset| Some(MultilinePattern::Preset(preset))),
    ]
}

/// Every kind of configuration, with limits so small that they are reached.
fn any_rules() -> impl Strategy<Value = LineRules> {
    let encodings = prop_oneof![
        4 => Just(encoding_rs::UTF_8),
        2 => Just(encoding_rs::UTF_16LE),
        1 => Just(encoding_rs::UTF_16BE),
        1 => Just(encoding_rs::SHIFT_JIS),
        1 => Just(encoding_rs::ISO_2022_JP),
    ];
    let formats = prop_oneof![2 => Just(LineFormat::Plain), 1 => Just(LineFormat::DockerJson), 1 => Just(LineFormat::Cri)];
    let limits = (16_usize..64, 2_usize..5, 16_usize..400);
    (encodings, formats, patterns(), limits, any::<[bool; 3]>()).prop_map(
        |(encoding, format, pattern, (max_line_bytes, max_lines, max_bytes), [include, exclude, redact])| {
            LineRules {
                max_line_bytes,
                encoding,
                format,
                multiline: pattern.map(|pattern| Multiline { max_lines, max_bytes, ..multiline(pattern) }),
                include: if include { vec![regex("a"), regex("at")] } else { Vec::new() },
                exclude: if exclude { vec![regex("b")] } else { Vec::new() },
                redact: redact
                    .then(|| Redact { pattern: regex("(a+)"), replacement: "<$1>".to_owned() })
                    .into_iter()
                    .collect(),
                partial_timeout: None,
            }
        },
    )
}

/// With lines of containers so short that all limits are reached, too.
fn small(rules: &LineRules) -> Assembler {
    Assembler::with_record_line(rules, 120)
}

/// A line of text, of every kind that joining knows.
fn any_line() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[ab 0\té]{0,10}",
        2 => "[ab 0é😀\"\\\\.]{0,12}",
        1 => "[aé😀]{20,90}",
        1 => "(\tat a\\.B\\(C:1\\)|Caused by: x|\t\\.\\.\\. 2 more|java\\.E: a)",
        1 => "(Traceback \\(most recent call last\\):|  File \"a\"|ValueError: a)",
        1 => Just("During handling of the above exception, another exception occurred:".to_owned()),
        1 => "(panic: a|goroutine 1 \\[running\\]:|main\\.a\\(0x1\\)|\t/a\\.go:1 \\+0x1|exit status 2)",
        1 => "(a\\.rb:1:in 'b': a \\(E\\)|\tfrom a\\.rb:1:in 'c')",
    ]
}

/// What no line is made of, or half of one.
fn any_oddity() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[ab 0\té]{0,10}(\r\n|\r|)",
        1 => "\u{0}{1,9}",
        1 => Just("\u{0}".repeat(1500)),
        1 => Just("\u{FEFF}".to_owned()),
        1 => Just("\u{A00}\u{10A}\u{D}\u{D00}".to_owned()),
    ]
}

/// A stretch of a file: mostly whole lines of its format.
fn any_stretch(format: LineFormat) -> impl Strategy<Value = String> {
    const TIME: &str = "2024-01-15T10:30:00.5Z";
    let stream = prop_oneof![2 => Just("stdout"), 1 => Just("stderr")];
    let line = (any_line(), stream, any::<bool>()).prop_map(move |(text, stream, is_partial)| match format {
        LineFormat::Plain => format!("{text}\n"),
        LineFormat::Cri => {
            let tag = if is_partial { "P" } else { "F" };
            format!("{TIME} {stream} {tag} {text}\n")
        }
        LineFormat::DockerJson => {
            let log =
                serde_json::to_string(&format!("{text}{}", if is_partial { "" } else { "\n" })).unwrap();
            format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{TIME}\"}}\n")
        }
    });
    prop_oneof![8 => line, 1 => any_line().prop_map(|line| line + "\n"), 1 => any_oddity()]
}

fn any_file(rules: &LineRules) -> impl Strategy<Value = Vec<u8>> + use<> {
    let encoding = rules.encoding;
    let text =
        prop::collection::vec(any_stretch(rules.format), 0..30).prop_map(|stretches| stretches.concat());
    let raw = prop::collection::vec(any::<u8>(), 0..4);
    (text, raw).prop_map(move |(text, raw)| {
        let mut bytes: Vec<u8> = if encoding == encoding_rs::UTF_16LE {
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        } else if encoding == encoding_rs::UTF_16BE {
            text.encode_utf16().flat_map(u16::to_be_bytes).collect()
        } else {
            encoding.encode(&text).0.into_owned()
        };
        bytes.extend_from_slice(&raw);
        bytes
    })
}

fn any_case() -> impl Strategy<Value = (LineRules, Vec<u8>)> {
    any_rules().prop_flat_map(|rules| {
        let file = any_file(&rules);
        (Just(rules), file)
    })
}

/// The end of a read: any place of a file, or the end of a line.
type ReadEnd = (prop::sample::Index, bool);

/// The ends of reads, ascending, the last at the end of the file.
fn ends(assembler: &Assembler, cuts: &[ReadEnd], file: &[u8]) -> Vec<usize> {
    let lines = newlines(assembler, file);
    let place = |(cut, at_line): &ReadEnd| match lines.as_slice() {
        lines if *at_line && !lines.is_empty() => lines[cut.index(lines.len())],
        _ => cut.index(file.len() + 1),
    };
    let mut ends: Vec<usize> = cuts.iter().map(place).chain([file.len()]).collect();
    ends.sort_unstable();
    ends
}

/// What a stretch of lines is, with nothing of it left out and nothing replaced.
fn unfiltered(rules: &LineRules) -> LineRules {
    LineRules { include: Vec::new(), exclude: Vec::new(), redact: Vec::new(), ..rules.clone() }
}

proptest! {
    #[test]
    fn the_events_do_not_depend_on_how_the_bytes_were_cut_into_reads(
        (rules, file) in any_case(), cuts in prop::collection::vec(any::<ReadEnd>(), 0..30),
    ) {
        let assembler = small(&rules);
        let mut once = Reader::new(&assembler);
        once.append(&file).cut(End::Finished);
        let mut many = Reader::new(&assembler);
        for end in ends(&assembler, &cuts, &file) {
            let added = file[many.file.len()..end].to_vec();
            many.append(added).cut(End::Open);
        }
        many.cut(End::Finished);
        prop_assert_eq!(many.texts(), once.texts());
        prop_assert_eq!(many.events, once.events);
        prop_assert_eq!(many.skips, once.skips);
    }

    /// Timeouts may cut events apart. They lose and double nothing: all that is not a line ending or a wrapper comes out.
    #[test]
    fn quiet_times_lose_and_double_nothing(
        (rules, file) in any_case(), cuts in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..30),
    ) {
        let rules = LineRules { format: LineFormat::Plain, multiline: rules.multiline.clone(), ..unfiltered(&rules) };
        let assembler = small(&rules);
        let content = |reader: &Reader<'_>| -> Vec<u8> {
            let bytes = reader.events.iter().flat_map(|(text, ..)| text.clone());
            bytes.filter(|byte| !matches!(byte, b'\n' | b'\r' | 0)).collect()
        };
        let mut whole = Reader::new(&assembler);
        whole.append(&file).cut(End::Finished);
        let mut many = Reader::new(&assembler);
        for (cut, end) in cuts {
            let upto = cut.index(file.len() + 1).max(many.file.len());
            // A writer stops between its units.
            let upto = (upto - upto % assembler.alignment()).max(many.file.len());
            let added = file[many.file.len()..upto].to_vec();
            let end = [End::Open, End::GroupQuiet, End::Quiet][usize::from(end % 3)];
            let waits = many.append(added).cut(end);
            prop_assert!(end == End::Open || waits != Waits::Group, "every group is complete");
        }
        let rest = file[many.file.len()..].to_vec();
        many.append(rest).cut(End::Finished);
        if rules.encoding == encoding_rs::UTF_8 {
            prop_assert_eq!(content(&many), content(&whole));
        }
    }

    /// Events cover exactly the bytes that were used: where all are left out, the bytes skipped are the bytes used.
    #[test]
    fn what_is_left_out_is_counted_to_the_byte(
        (rules, file) in any_case(), cuts in prop::collection::vec(any::<ReadEnd>(), 0..30),
    ) {
        let excluding = LineRules { exclude: vec![regex("")], ..unfiltered(&rules) };
        let assembler = small(&excluding);
        let mut reader = Reader::new(&assembler);
        for end in ends(&assembler, &cuts, &file) {
            let added = file[reader.file.len()..end].to_vec();
            reader.append(added).cut(End::Open);
            prop_assert_eq!(reader.skips.bytes(), reader.offset as u64);
        }
        reader.cut(End::Finished);
        prop_assert_eq!(reader.skips.bytes(), file.len() as u64);
        prop_assert_eq!(reader.texts(), Vec::<String>::new());
    }

    /// Random bytes are nothing special.
    #[test]
    fn any_bytes_come_out_however_they_are_cut(
        rules in any_rules(),
        file in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(0)], 0..400),
        cuts in prop::collection::vec(any::<ReadEnd>(), 0..10),
    ) {
        let assembler = small(&rules);
        let mut once = Reader::new(&assembler);
        once.append(&file).cut(End::Finished);
        let mut many = Reader::new(&assembler);
        for end in ends(&assembler, &cuts, &file) {
            let added = file[many.file.len()..end].to_vec();
            many.append(added).cut(End::Open);
        }
        many.cut(End::Finished);
        prop_assert_eq!(many.events, once.events);
        prop_assert_eq!(many.skips, once.skips);
    }

    /// Whether an event goes on in the next file is what cutting both as one says.
    #[test]
    fn an_event_goes_on_in_the_next_file_as_it_would_in_one(
        (rules, file) in any_case(), at in any::<prop::sample::Index>(),
    ) {
        let assembler = small(&unfiltered(&rules));
        let mut reader = Reader::new(&assembler);
        let lines: Vec<usize> = newlines(&assembler, &file);
        prop_assume!(!lines.is_empty());
        let end = lines[at.index(lines.len())];
        reader.append(&file[..end]);
        let waits = reader.cut(End::Open);
        let (held, next) = (file[reader.offset..end].to_vec(), &file[end..]);
        let told = assembler.goes_on(&held, next);
        if waits == Waits::Nothing {
            prop_assert_eq!(told, Some(false));
        }
        // A mark at the beginning of the next file ends what was open; inside a file it does not.
        let mark = assembler.charset.byte_order_mark();
        prop_assume!(mark.is_empty() || !next.starts_with(mark));
        // Nor do a few NULs: there they are a hole, here content.
        prop_assume!(nul::run(assembler.charset, next) == 0);
        // Whether a blank line is in a stack trace is not known before the line after it.
        let first = assembler.charset.find_newline(next).map(|end| assembler.charset.strip_carriage_return(&next[..end]).0);
        prop_assume!(first.is_none_or(|line| !line.is_empty()));
        let before = &file[reader.offset.saturating_sub(1024)..reader.offset];
        // A partial record is marked where another is behind it in its file, and is a whole one at the end of it.
        let mut ignored = EventBlock::default();
        let quiet = assembler.cut(Input { data: &held, before, end: End::GroupQuiet }, &mut ignored);
        prop_assume!(quiet.waits == Waits::Nothing);
        if let Some(told) = told && waits != Waits::Nothing {
            let texts = |data: &[u8]| -> Vec<Vec<u8>> {
                let mut block = EventBlock::default();
                assembler.cut(Input { data, before, end: End::Finished }, &mut block);
                block.events().map(|event| event.line.to_vec()).collect()
            };
            let stops_between = texts(&file[reader.offset..]).starts_with(&texts(&held));
            prop_assert_eq!(told, !stops_between);
        }
    }
}

/// The ends of the lines of a file.
fn newlines(assembler: &Assembler, file: &[u8]) -> Vec<usize> {
    let unit = assembler.alignment();
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(newline) = assembler.charset.find_newline(&file[at..]) {
        at += newline + unit;
        ends.push(at);
    }
    ends
}

//! What is wrong in the keys about files, lines and events of a source.

use super::{Agent, GLOBAL, assert_refused, assert_says, global, source};

/// Lines of a `[sources.multiline]`, from line 9 on.
fn multiline(lines: &str) -> String {
    source(&format!("[sources.multiline]\n{lines}"))
}

/// Lines of a `[[sources.redact]]`, from line 9 on.
fn redact(lines: &str) -> String {
    source(&format!("[[sources.redact]]\n{lines}"))
}

#[test]
fn a_value_of_a_wrong_type_is_told_with_what_is_accepted() {
    let array = "must be an array of up to 256, each a ";
    let pattern = "must be a regular expression of 1 to 4096 bytes";
    assert_refused(&[
        (
            global("max_open_files = \"many\""),
            5,
            "global.max_open_files",
            &["a whole number from 16 to 1048576", "is the string \"many\""],
        ),
        (global("max_open_files = 15"), 5, "global.max_open_files", &["from 16 to 1048576, is 15"]),
        (global("max_open_files = 1048577"), 5, "global.max_open_files", &["to 1048576, is 1048577"]),
        (source("exclude = \"/a.log\""), 8, "sources.exclude", &[array, "bytes", "is a string"]),
        (source("exclude = [\"/a.log\", 5]"), 8, "sources.exclude", &[array, "element 2 is 5"]),
        (source("exclude = [\"\"]"), 8, "sources.exclude", &[array, "element 1 is the string \"\""]),
        (
            source("ignore_older_secs = \"1 d\""),
            8,
            "sources.ignore_older_secs",
            &["seconds from 0.001", "1 d"],
        ),
        (source("ignore_older_secs = 0"), 8, "sources.ignore_older_secs", &["seconds from 0.001", "is 0"]),
        (
            source("encoding = 8"),
            8,
            "sources.encoding",
            &["the label of an encoding", "\"utf-16le\"", "is 8"],
        ),
        (
            source("format = true"),
            8,
            "sources.format",
            &["\"plain\" or \"docker-json\" or \"cri\"", "is true"],
        ),
        (
            source("include_lines = 'x'"),
            8,
            "sources.include_lines",
            &[array, "regular expression", "a string"],
        ),
        (source("include_lines = [[]]"), 8, "sources.include_lines", &[array, "element 1 is an array"]),
        (source("exclude_lines = {}"), 8, "sources.exclude_lines", &[array, "is a table"]),
        (
            source("exclude_lines = ['x', true]"),
            8,
            "sources.exclude_lines",
            &[array, "element 2 is a boolean"],
        ),
        (source("partial_timeout_secs = []"), 8, "sources.partial_timeout_secs", &["seconds", "is an array"]),
        (source("partial_timeout_secs = -1"), 8, "sources.partial_timeout_secs", &["seconds", "is -1"]),
        (source("multiline = 'java'"), 8, "sources.multiline", &["a table, [sources.multiline]", "\"java\""]),
        (
            source("[[sources.multiline]]"),
            8,
            "sources.multiline",
            &["a table, [sources.multiline]", "an array"],
        ),
        (source("redact = 'x'"), 8, "sources.redact", &["tables, each under [[sources.redact]]", "\"x\""]),
        (
            source("[sources.redact]\npattern = 'x'"),
            8,
            "sources.redact",
            &["under [[sources.redact]]", "a table"],
        ),
        (source("redact = [{ pattern = 'x' },\n5]"), 9, "sources.redact", &["tables", "is 5"]),
        (
            multiline("start_pattern = 5"),
            9,
            "sources.multiline.start_pattern",
            &[pattern, "is a whole number"],
        ),
        (multiline("continue_pattern = []"), 9, "sources.multiline.continue_pattern", &[pattern, "an array"]),
        (multiline("preset = 5"), 9, "sources.multiline.preset", &["\"java\" or \"python\"", "is 5"]),
        (multiline("max_lines = 1"), 9, "sources.multiline.max_lines", &["from 2 to 100000, is 1"]),
        (multiline("max_lines = 100001"), 9, "sources.multiline.max_lines", &["from 2 to 100000"]),
        (multiline("max_bytes = 1023"), 9, "sources.multiline.max_bytes", &["1 KiB to 16 MiB", "is 1023"]),
        (multiline("max_bytes = '17 MiB'"), 9, "sources.multiline.max_bytes", &["1 KiB to 16 MiB", "17 MiB"]),
        (multiline("timeout_ms = 0"), 9, "sources.multiline.timeout_ms", &["milliseconds from 1", "is 0"]),
        (redact("pattern = 5"), 9, "sources.redact.pattern", &[pattern, "is a whole number"]),
        (redact("replacement = 'x'"), 8, "sources.redact.pattern", &["is missing", "a regular expression"]),
        (
            redact("pattern = 'x'\nreplacement = 5"),
            10,
            "sources.redact.replacement",
            &["a string of 0 to 4096 bytes without control characters", "is 5"],
        ),
    ]);
}

#[test]
fn an_unknown_or_repeated_key_is_told() {
    let unknown = "is not a known key";
    assert_refused(&[
        (source("exlude = []"), 8, "sources.exlude", &[unknown, "did you mean exclude?"]),
        (source("multi_line = {}"), 8, "sources.multi_line", &[unknown, "did you mean multiline?"]),
        (source("max_open_files = 16"), 8, "sources.max_open_files", &[unknown, "belongs under [global]"]),
        (source("start_pattern = 'x'"), 8, "sources.start_pattern", &[unknown, "under [sources.multiline]"]),
        (source("replacement = 'x'"), 8, "sources.replacement", &[unknown, "under [[sources.redact]]"]),
        (global("[global.multiline]"), 5, "global.multiline", &[unknown, "it belongs under [[sources]]"]),
        (source("[multiline]"), 8, "multiline", &[unknown, "it belongs under [[sources]]"]),
        (
            multiline("preset = 'go'\nmax_line = 5"),
            10,
            "sources.multiline.max_line",
            &[unknown, "did you mean max_lines?"],
        ),
        (
            multiline("preset = 'go'\nnegate = true"),
            10,
            "sources.multiline.negate",
            &[unknown, "known here: start_pattern, continue_pattern, preset"],
        ),
        (
            redact("pattern = 'x'\nreplace = 'y'"),
            10,
            "sources.redact.replace",
            &[unknown, "did you mean replacement?"],
        ),
    ]);
    for (twice, line) in [
        (source("exclude = []\nexclude = []"), 9),
        (source("[sources.multiline]\n[sources.multiline]"), 9),
        (multiline("preset = 'go'\npreset = 'go'"), 10),
        (redact("pattern = 'x'\npattern = 'x'"), 10),
    ] {
        let message = Agent::with_config(&twice).refusal();
        assert_says(&message, &format!("log-agent.config:{line}"), &["not valid TOML: duplicate key"]);
    }
}

#[test]
fn the_element_at_fault_is_told_with_its_own_line() {
    let long = format!("['{}']", "x".repeat(4097));
    assert_refused(&[
        (
            source("exclude = [\n  \"/a.log\",\n  \"/b/[.log\",\n]"),
            10,
            "sources.exclude",
            &["a path or a glob of *", "\"/b/[.log\"", "unclosed character class"],
        ),
        (source("exclude = [\"/a/\"]"), 8, "sources.exclude", &["a path or a glob", "it ends in /"]),
        (source("exclude = [\"/**.gz\"]"), 8, "sources.exclude", &["** is not a whole component"]),
        (
            source("include_lines = [\n  'ERROR',\n  # Both.\n  'a(b',\n]"),
            11,
            "sources.include_lines",
            &["each a regular expression", "element 2 is not one: unclosed group, at character 2"],
        ),
        (
            source("exclude_lines = ['é[z-a]']"),
            8,
            "sources.exclude_lines",
            &["element 1 is not one: invalid character class range", "at character 3"],
        ),
        (source("exclude_lines = ['']"), 8, "sources.exclude_lines", &["element 1 is not one: it is empty"]),
        (source(&format!("exclude_lines = {long}")), 8, "sources.exclude_lines", &["it has 4097 bytes"]),
        (
            source("exclude_lines = ['(\\w{100}){100}']"),
            8,
            "sources.exclude_lines",
            &["it takes more than 2 MiB when compiled", "(?-u:"],
        ),
        (
            source(&format!("exclude_lines = [\n{}]", "'x',\n".repeat(257))),
            8 + 257,
            "sources.exclude_lines",
            &["an array of up to 256, has more"],
        ),
        (
            source(&"[[sources.redact]]\npattern = 'x'\n".repeat(65)),
            8 + 2 * 64,
            "sources.redact",
            &["at most 64 tables, each under [[sources.redact]], has more"],
        ),
    ]);
    let most = format!("exclude_lines = [\n{}]\n", "'x',\n".repeat(256));
    let redactions = "[[sources.redact]]\npattern = 'x'\n".repeat(64);
    Agent::with_config(source(&format!("{most}{redactions}"))).accepted(0);
}

#[test]
fn a_word_that_is_none_of_the_accepted_ones_is_told_with_those() {
    let examples = &["the label of an encoding", "\"latin1\"", "\"shift_jis\"", "\"gb18030\""];
    for label in ["utf-7", "utf32", "", "replacement", "iso-2022-kr", "x-user-defined"] {
        let message = Agent::with_config(source(&format!("encoding = {label:?}"))).refusal();
        assert_says(&message, "log-agent.config:8: sources.encoding", examples);
        assert!(message.ends_with(&format!("is the string {label:?}")), "{message}");
    }
    assert_refused(&[
        (source("format = 'json'"), 8, "sources.format", &["\"docker-json\" or \"cri\"", "\"json\""]),
        (
            multiline("preset = 'rust'"),
            9,
            "sources.multiline.preset",
            &["\"java\" or \"python\" or \"go\" or \"ruby\"", "\"rust\""],
        ),
    ]);
}

#[test]
fn keys_that_do_not_go_together_are_told_by_name() {
    let one_of = "exactly one of start_pattern, continue_pattern and preset";
    let multiline_key = "sources.multiline";
    assert_refused(&[
        (multiline(""), 8, multiline_key, &["does not say which lines make up an event", one_of]),
        (multiline("max_lines = 5"), 8, multiline_key, &[one_of]),
        (source("multiline = {}"), 8, multiline_key, &[one_of]),
        (
            multiline("preset = 'java'\nmax_lines = 5\nstart_pattern = 'x'"),
            11,
            "sources.multiline.start_pattern",
            &["stands beside preset on line 9", one_of],
        ),
        (
            multiline("start_pattern = 'x'\ncontinue_pattern = 'y'"),
            10,
            "sources.multiline.continue_pattern",
            &["stands beside start_pattern on line 9", one_of],
        ),
        (
            multiline("continue_pattern = 'y'\npreset = 'go'"),
            10,
            "sources.multiline.preset",
            &["stands beside continue_pattern on line 9", one_of],
        ),
        (
            source("encoding = 'utf-16le'\nformat = 'docker-json'"),
            8,
            "sources.encoding",
            &["is UTF-16LE", "format on line 9", "always UTF-8", "format = \"plain\""],
        ),
        (
            source("format = 'cri'\nencoding = 'latin1'"),
            9,
            "sources.encoding",
            &["is windows-1252", "format on line 8", "always UTF-8"],
        ),
    ]);
    for format in ["docker-json", "CRI"] {
        Agent::with_config(source(&format!("format = {format:?}\nencoding = 'UTF8'"))).accepted(0);
    }
}

#[test]
fn a_reference_to_a_group_that_is_not_there_is_told() {
    let user = "pattern = '(?<user>[a-z]+)@(.*)'\nreplacement = ";
    for (replacement, group) in [("$3", "3"), ("$1x", "1x"), ("${name}", "name"), ("$user_", "user_")] {
        let message = Agent::with_config(redact(&format!("{user}'{replacement}'"))).refusal();
        let refers = format!("refers to the group \"{group}\", which the pattern on line 9 does not have");
        assert_says(&message, "log-agent.config:10: sources.redact.replacement", &[&refers, "in braces"]);
    }
    for replacement in ["", "$0", "${1}x $2", "$user", "${user}", "$$3", "5 $"] {
        Agent::with_config(redact(&format!("{user}'{replacement}'"))).accepted(0);
    }
}

#[test]
fn what_a_pattern_says_is_never_shown() {
    // The output of every run is searched for the secret.
    for pattern in ["hunter2(", "hunter2)", "(?=hunter2)", r"hunter2\p{Klingon}", r"hunter2\w{1000}"] {
        for lines in
            [format!("[[sources.redact]]\npattern = '{pattern}'"), format!("exclude_lines = ['{pattern}']")]
        {
            Agent::with_config(source(&lines)).refusal();
        }
    }
    let accepted = Agent::with_config(redact("pattern = 'hunter2'"));
    accepted.accepted(0);
    let config = log_agent::config::Config::load(
        &accepted.path("log-agent.config"),
        None,
        &log_agent::send::transports(),
    )
    .unwrap();
    assert!(!format!("{config:#?}").contains("hunter2"));
}

#[test]
fn a_table_belongs_to_the_source_above_it() {
    let agent = Agent::with_config(format!(
        "{GLOBAL}[[sources]]\nname = \"one\"\nlog_path = \"/1\"\n[[sources.redact]]\npattern = 'a'\n\
         [[sources]]\nname = \"two\"\nlog_path = \"/2\"\n[sources.multiline]\npreset = \"RUBY\"\n\
         [[sources.redact]]\npattern = 'b'\nreplacement = ''\n[[sources.redact]]\npattern = 'c'\n"
    ));
    let config = log_agent::config::Config::load(
        &agent.path("log-agent.config"),
        None,
        &log_agent::send::transports(),
    )
    .unwrap();
    let redactions = |index: usize| -> Vec<_> {
        let redact = &config.sources[index].lines.redact;
        redact.iter().map(|redact| (redact.pattern.as_str(), redact.replacement.as_str())).collect()
    };
    assert_eq!(redactions(0), [("a", "[redacted]")]);
    assert_eq!(redactions(1), [("b", ""), ("c", "[redacted]")]);
    assert!(config.sources[0].lines.multiline.is_none() && config.sources[1].lines.multiline.is_some());
}

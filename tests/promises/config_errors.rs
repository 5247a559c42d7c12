//! A wrong configuration is told in one line with file, line, key and what is accepted; an accepted one is explained;
//! neither ever shows a secret.

mod check;
mod formats;
mod tailing;
mod transport;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// In every secret of these tests, and in no output.
const SECRET: &str = "hunter2";

/// A directory with a configuration, and the program run in it.
struct Agent {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
    program: PathBuf,
    /// The user as whom the program runs, where it is not ours.
    user: Option<u32>,
}

/// The commands that load the configuration: what one refuses, all refuse.
const LOADERS: &[&[&str]] = &[&["check"], &[]];

/// A user who owns nothing (`nobody` on Linux).
const NOBODY: u32 = 65534;

impl Agent {
    fn with_config(text: impl AsRef<[u8]>) -> Self {
        let agent = Self {
            directory: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
            program: env!("CARGO_BIN_EXE_log-agent").into(),
            user: None,
        };
        agent.file("log-agent.config", text);
        agent
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the file `name` unreadable to the program, which runs as another user where this one may read everything.
    /// False where that cannot be had.
    fn lock(&mut self, name: &str) -> bool {
        let path = self.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(&path).is_err() {
            return true;
        }
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        self.user = Some(NOBODY);
        // Where the program was built, another user may have no access.
        let program = self.path("program");
        if fs::hard_link(&self.program, &program).is_err() {
            fs::copy(&self.program, &program).unwrap();
        }
        self.program = program;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.command().arg("--version").output() {
                // A process that another test starts just now may still hold the copy open for writing.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                result => return result.is_ok_and(|output| output.status.success()),
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command.env_clear().envs(self.environment.iter().cloned());
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command().args(arguments).output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.to_lowercase().contains(SECRET), "a secret was shown: {text}");
        }
        output
    }

    /// The one line with which every command refuses the configuration, without `log-agent: `.
    fn refusal(&self) -> String {
        let mut lines: Vec<_> = LOADERS.iter().map(|command| self.refusal_by(command)).collect();
        lines.dedup();
        assert_eq!(lines.len(), 1, "the commands differ: {lines:?}");
        lines.remove(0)
    }

    fn refusal_by(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{stderr}{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stdout.is_empty());
        let line = stderr.strip_prefix("log-agent: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("not a message: {stderr:?}"));
        assert!(!line.contains('\n'), "not one line: {line}");
        let left: Vec<_> =
            fs::read_dir(self.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(
            !left.iter().any(|name| name.to_string_lossy().contains("spool")),
            "opened before checking: {left:?}"
        );
        line.to_owned()
    }

    /// Checks the configuration, which must be accepted with `code`; returns standard output and error.
    fn accepted(&self, code: i32) -> (String, String) {
        let output = self.run(&["check"]);
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
        (stdout, stderr)
    }
}

/// Lines 1 to 4 of a configuration.
const GLOBAL: &str =
    "[global]\nagent_name = \"a\"\nend_point = \"https://logs.example/in\"\nsend_type = \"HTTP\"\n";
const SOURCE: &str = "[[sources]]\nname = \"app\"\nlog_path = \"/nonexistent/app.log\"\n";

/// A configuration with `lines` from line 5 on, in `[global]` or what they begin themselves.
fn global(lines: &str) -> String {
    format!("{GLOBAL}{lines}\n{SOURCE}")
}

/// A configuration with `lines` from line 8 on, in `[[sources]]` or what they begin themselves.
fn source(lines: &str) -> String {
    format!("{GLOBAL}{SOURCE}{lines}\n")
}

/// A configuration whose line 3 is `line` in place of the end point.
fn end_point(line: &str) -> String {
    global("").replace("end_point = \"https://logs.example/in\"", line)
}

/// Asserts that `message` begins with the place and has every part.
fn assert_says(message: &str, place: &str, parts: &[&str]) {
    assert!(message.starts_with(&format!("{place}: ")), "not at {place}: {message}");
    for part in parts {
        assert!(message.contains(part), "does not say {part:?}: {message}");
    }
}

/// Runs each case: a configuration, the line at fault, the key at fault, what the message says.
fn assert_refused(cases: &[(String, usize, &str, &[&str])]) {
    for (text, line, key, parts) in cases {
        let message = Agent::with_config(text).refusal();
        assert_says(&message, &format!("log-agent.config:{line}: {key}"), parts);
    }
}

#[test]
fn a_file_that_cannot_be_a_configuration_is_told_with_its_place() {
    let missing = Agent::with_config("");
    fs::remove_file(missing.path("log-agent.config")).unwrap();
    assert_says(&missing.refusal(), "log-agent.config", &["cannot be read", "--config FILE", "No such file"]);

    let directory = Agent::with_config("");
    fs::remove_file(directory.path("log-agent.config")).unwrap();
    fs::create_dir(directory.path("log-agent.config")).unwrap();
    assert_says(&directory.refusal(), "log-agent.config", &["cannot be read", "Is a directory"]);

    let mut latin = global("# caf").into_bytes();
    latin.extend_from_slice(b"\xe9\n");
    let offset = latin.iter().position(|byte| *byte == 0xe9).unwrap();
    let offset = format!("offset {offset}");
    let line = 1 + latin.iter().take_while(|byte| **byte != 0xe9).filter(|byte| **byte == b'\n').count();
    let message = Agent::with_config(latin).refusal();
    assert_says(&message, &format!("log-agent.config:{line}"), &["must be UTF-8", &offset]);

    for empty in ["", "\n\n", "# nothing\n"] {
        let message = Agent::with_config(empty).refusal();
        assert_says(&message, "log-agent.config:1", &["empty", "[global]", "[[sources]]", "log_path"]);
    }

    let message = Agent::with_config("#".repeat(5 << 20)).refusal();
    assert_says(&message, "log-agent.config", &["too long", "4194304 bytes"]);
}

#[test]
fn an_unreadable_configuration_is_told() {
    let mut agent = Agent::with_config(global(""));
    if !agent.lock("log-agent.config") {
        println!("SKIPPED: this user reads files whatever their permissions are");
        return;
    }
    assert_says(&agent.refusal(), "log-agent.config", &["cannot be read", "Permission denied"]);
}

#[test]
fn what_is_not_toml_is_told_with_line_and_column_and_not_repeated() {
    for (text, line) in [
        (global("max_send_task 5"), 5),
        (global("max_send_task = "), 5),
        (global(&format!("[global.auth]\ntype = \"bearer\"\ntoken = \"{SECRET}")), 7),
        (global(&format!("[global.auth]\ntoken = {SECRET}")), 6),
        (global("retry_count = 1\nretry_count = 2"), 6),
        (format!("{GLOBAL}{SOURCE}[global"), 8),
    ] {
        let message = Agent::with_config(&text).refusal();
        assert_says(&message, &format!("log-agent.config:{line}"), &["column ", "not valid TOML: "]);
    }
}

#[test]
fn a_missing_key_is_named_with_what_it_must_be() {
    let without = |key: &str, text: String| -> String {
        text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect()
    };
    assert_refused(&[
        (SOURCE.to_owned(), 1, "global", &["is missing", "[global]", "agent_name, end_point and send_type"]),
        (GLOBAL.to_owned(), 1, "sources", &["is missing", "[[sources]]", "name and log_path"]),
        (format!("sources = []\n{GLOBAL}"), 1, "sources", &["is missing", "[[sources]]"]),
        (without("agent_name", global("")), 1, "global.agent_name", &["is missing", "1 to 255 bytes"]),
        (without("end_point", global("")), 1, "global.end_point", &["is missing", "it must be a string"]),
        (without("send_type", global("")), 1, "global.send_type", &["is missing", "\"HTTP\""]),
        (without("name", source("")), 5, "sources.name", &["is missing", "1 to 255 bytes"]),
        (without("log_path", source("")), 5, "sources.log_path", &["is missing", "it must be a string"]),
        (
            global("[global.auth]\nuser = \"u\""),
            5,
            "global.auth.type",
            &["is missing", "\"bearer\" or \"basic\""],
        ),
    ]);
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    let unknown = "is not a known key";
    assert_refused(&[
        (global("max_send_tasks = 5"), 5, "global.max_send_tasks", &[unknown, "did you mean max_send_task?"]),
        (global("MAX_SEND_TASK = 5"), 5, "global.MAX_SEND_TASK", &[unknown, "did you mean max_send_task?"]),
        (global("retry_delay = 5"), 5, "global.retry_delay", &[unknown, "did you mean retry_delay_ms?"]),
        (global("zzzzzzzz = 5"), 5, "global.zzzzzzzz", &[unknown, "known here: agent_name, end_point"]),
        (global("log_path = \"x\""), 5, "global.log_path", &[unknown, "it belongs under [[sources]]"]),
        (source("timeout_secs = 5"), 8, "sources.timeout_secs", &[unknown, "it belongs under [global]"]),
        (source("delay_msec = 5"), 8, "sources.delay_msec", &[unknown, "did you mean delay_ms?"]),
        (source("[source]"), 8, "source", &[unknown, "did you mean sources?"]),
        (source("[global.tsl]"), 8, "global.tsl", &[unknown, "did you mean tls?"]),
        (
            global("[global.auth]\ntokn = \"hunter2\""),
            6,
            "global.auth.tokn",
            &[unknown, "did you mean token?"],
        ),
        (global("[global.tls]\nverify = false"), 6, "global.tls.verify", &[unknown, "known here: ca_file"]),
        (global("\"two\\nlines\" = 5"), 5, "global.two\\nlines", &[unknown]),
    ]);
}

#[test]
fn a_value_of_a_wrong_type_is_told_with_what_is_accepted() {
    assert_refused(&[
        (
            global("max_send_task = \"5\""),
            5,
            "global.max_send_task",
            &["a whole number from 1", "is the string \"5\""],
        ),
        (global("max_send_task = 5.5"), 5, "global.max_send_task", &["a whole number from 1", "is 5.5"]),
        (global("max_send_task = true"), 5, "global.max_send_task", &["a whole number from 1", "is true"]),
        (global("max_send_task = [5]"), 5, "global.max_send_task", &["a whole number from 1", "is an array"]),
        (global("interval_secs = 1979-05-27"), 5, "global.interval_secs", &["seconds", "is a date or time"]),
        (global("spool_dir = 5"), 5, "global.spool_dir", &["a string", "is 5"]),
        (global("sync = true"), 5, "global.sync", &["\"group\" or \"os\"", "is true"]),
        (global("[global.sync]"), 5, "global.sync", &["\"group\" or \"os\"", "is a table"]),
        (global("headers = 5"), 5, "global.headers", &["a table, [global.headers]", "is 5"]),
        (global("[[global.auth]]"), 5, "global.auth", &["a table, [global.auth]", "is an array"]),
        (format!("global = 5\n{SOURCE}"), 1, "global", &["a table, [global]", "is 5"]),
        (
            format!("{GLOBAL}[sources]\nname = \"a\"\n"),
            5,
            "sources",
            &["each under [[sources]]", "is a table"],
        ),
        (format!("sources = [5]\n{GLOBAL}"), 1, "sources", &["each under [[sources]]", "is 5"]),
        (
            source("delay_ms = \"fast\""),
            8,
            "sources.delay_ms",
            &["milliseconds from 1", "is the string \"fast\""],
        ),
    ]);
}

#[test]
fn a_number_out_of_bounds_is_told_with_its_bounds() {
    let huge = "9".repeat(200);
    assert_refused(&[
        (global("max_send_task = 0"), 5, "global.max_send_task", &["a whole number from 1 to 65535, is 0"]),
        (global("max_send_task = -3"), 5, "global.max_send_task", &["from 1 to 65535, is -3"]),
        (global(&format!("max_send_task = {huge}")), 5, "global.max_send_task", &["from 1 to 65535, is 999"]),
        (global("retry_count = -1"), 5, "global.retry_count", &["from 0 to 4294967295, is -1"]),
        (
            global("retry_delay_ms = 0"),
            5,
            "global.retry_delay_ms",
            &["milliseconds from 1 to 4294967295, is 0"],
        ),
        (global("channel_bound = 0"), 5, "global.channel_bound", &["from 1 to 1048576, is 0"]),
        (
            global("interval_secs = 0"),
            5,
            "global.interval_secs",
            &["seconds from 0.001", "fractions allowed, is 0"],
        ),
        (global("interval_secs = -0.5"), 5, "global.interval_secs", &["seconds from 0.001", "is -0.5"]),
        (global("interval_secs = nan"), 5, "global.interval_secs", &["seconds from 0.001", "is nan"]),
        (global("interval_secs = inf"), 5, "global.interval_secs", &["seconds from 0.001", "is inf"]),
        (global("max_batch_size = 0"), 5, "global.max_batch_size", &["from 1 to 1000000, is 0"]),
        (global("max_batch_bytes = 0"), 5, "global.max_batch_bytes", &["1 B to 256 MiB", "is 0"]),
        (global("max_spool_bytes = 4096"), 5, "global.max_spool_bytes", &["128 KiB or more", "is 4096"]),
        (
            global("max_spool_bytes = \"1 M\""),
            5,
            "global.max_spool_bytes",
            &["\"64 MiB\"", "is the string \"1 M\""],
        ),
        (
            global("max_spool_bytes = \"1 MiB\""),
            5,
            "global.max_spool_bytes",
            &["twice segment_bytes", "64 MiB"],
        ),
        (
            global("segment_bytes = \"1 GiB\"\nmax_spool_bytes = \"1 GiB\""),
            6,
            "global.max_spool_bytes",
            &["twice"],
        ),
        (global("segment_bytes = 4096"), 5, "global.segment_bytes", &["64 KiB to 1 GiB", "is 4096"]),
        (global("min_free_bytes = -1"), 5, "global.min_free_bytes", &["a size", "is -1"]),
        (global("timeout_secs = 0"), 5, "global.timeout_secs", &["seconds from 0.001", "is 0"]),
        (global("shutdown_secs = -1"), 5, "global.shutdown_secs", &["seconds from 0 to", "is -1"]),
        (source("delay_ms = 0"), 8, "sources.delay_ms", &["milliseconds from 1", "is 0"]),
        (source("max_line_bytes = 15"), 8, "sources.max_line_bytes", &["16 B to 16 MiB", "is 15"]),
        (source("max_line_bytes = \"17 MiB\""), 8, "sources.max_line_bytes", &["16 B to 16 MiB", "17 MiB"]),
    ]);
}

#[test]
fn a_word_that_is_none_of_the_accepted_ones_is_told_with_those() {
    let tcp = global("").replace("\"HTTP\"", "\"TCP\"");
    assert_refused(&[
        (tcp, 4, "global.send_type", &["must be \"HTTP\"", "is the string \"TCP\""]),
        (global("on_full = \"drop\""), 5, "global.on_full", &["\"block\" or \"drop_oldest\"", "\"drop\""]),
        (global("sync = \"none\""), 5, "global.sync", &["\"group\" or \"os\"", "\"none\""]),
        (
            global("compression = \"br\""),
            5,
            "global.compression",
            &["\"none\" or \"gzip\" or \"zstd\"", "\"br\""],
        ),
        (source("start_at = \"now\""), 8, "sources.start_at", &["\"beginning\" or \"end\"", "\"now\""]),
        (
            global("[global.auth]\ntype = \"digest\""),
            6,
            "global.auth.type",
            &["\"bearer\" or \"basic\"", "digest"],
        ),
    ]);
}

#[test]
fn a_wrong_end_point_is_told_with_what_it_must_begin_with() {
    let accepts = "must be a URL that begins with http:// or https://";
    let cases: &[(&str, &[&str])] = &[
        ("logs.example/in", &[accepts, "\"logs.example/in\"", "relative URL"]),
        ("http://", &[accepts, "empty host"]),
        ("http://host:99999/", &[accepts, "invalid port"]),
        ("ftp://host/", &[accepts, "\"ftp://host/\""]),
        ("ws://host/", &[accepts, "as send_type is \\\"HTTP\\\""]),
        ("ftp://host/?key=hunter2", &[accepts, "query that is not shown"]),
        ("https://u:hunter2@host/", &["without user and password", "[global.auth]"]),
        ("https://hunter2@host/", &["without user and password", "[global.auth]"]),
        ("u:hunter2@host", &[accepts, "not shown"]),
        ("//u:hunter2@host", &[accepts, "not shown"]),
    ];
    for (url, parts) in cases {
        let parts: Vec<_> = parts.iter().map(|part| part.replace("\\\"", "\"")).collect();
        let message = Agent::with_config(end_point(&format!("end_point = {url:?}"))).refusal();
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        assert_says(&message, "log-agent.config:3: global.end_point", &parts);
    }
    assert_refused(&[(end_point("end_point = \"\""), 3, "global.end_point", &["1 to 4096 bytes", "\"\""])]);
}

#[test]
fn a_source_that_cannot_be_meant_is_told() {
    let again = "[[sources]]\nlog_path = \"/other.log\"\nname = \"app\"";
    let named = |name: &str| source("").replace("\"app\"", &format!("{name:?}"));
    let path = |path: &str| source("").replace("\"/nonexistent/app.log\"", &format!("{path:?}"));
    let long = "n".repeat(256);
    let accepts = "a path or a glob of *, ?, [..] and **";
    assert_refused(&[
        (
            source(again),
            10,
            "sources.name",
            &["the name \"app\" is used twice, first on line 6", "of its own"],
        ),
        (named(""), 6, "sources.name", &["1 to 255 bytes", "is the string \"\""]),
        (named("a\nb"), 6, "sources.name", &["without control characters", "a\\nb"]),
        (named(&long), 6, "sources.name", &["1 to 255 bytes", "(256 bytes)"]),
        (path(""), 7, "sources.log_path", &["1 to 4096 bytes", "\"\""]),
        (path("/var/log/[ab.log"), 7, "sources.log_path", &[accepts, "unclosed character class"]),
        (path("/var/log/[z-a].log"), 7, "sources.log_path", &[accepts, "invalid range"]),
        (path("/var/log/{a,b.log"), 7, "sources.log_path", &[accepts, "unclosed alternate"]),
        (path("/var/**.log"), 7, "sources.log_path", &[accepts, "** is not a whole component"]),
        (path("/var/log/"), 7, "sources.log_path", &[accepts, "it ends in /"]),
        (path("/var/*/../x.log"), 7, "sources.log_path", &[accepts, ".. follows a wildcard"]),
    ]);
    assert!(Agent::with_config(named(&long[..255])).accepted(0).0.contains(&long[..255]));
}

#[test]
fn a_header_that_cannot_be_sent_is_told_without_its_value() {
    let header = |line: &str| global(&format!("[global.headers]\nX-Env = \"prod\"\n{line}"));
    for own in
        ["Content-Type", "content-length", "HOST", "Idempotency-Key", "Log-Agent-Seq", "Content-Encoding"]
    {
        let message = Agent::with_config(header(&format!("{own} = \"hunter2\""))).refusal();
        let place = format!("log-agent.config:7: global.headers.{own}");
        assert_says(&message, &place, &["is set by the agent itself", "none of", "Idempotency-Key"]);
    }
    let auth = "Authorization = \"hunter2\"\n[global.auth]\ntype = \"bearer\"\ntoken = \"hunter2\"";
    assert_refused(&[
        (header(auth), 7, "global.headers.Authorization", &["set by the agent itself from [global.auth]"]),
        (
            header("\"a b\" = \"hunter2\""),
            7,
            "global.headers.a b",
            &["not the name of a header", "letters, digits"],
        ),
        (header("\"\" = \"hunter2\""), 7, "global.headers.", &["not the name of a header"]),
        (header("X-A = 5"), 7, "global.headers.X-A", &["visible ASCII", "is a whole number (not shown)"]),
        (header("X-A = \"hunter2\\r\\nX: y\""), 7, "global.headers.X-A", &["visible ASCII", "(not shown)"]),
        (header("X-A = \"hunter2é\""), 7, "global.headers.X-A", &["visible ASCII", "(not shown)"]),
        (header("x-env = \"hunter2\""), 7, "global.headers.x-env", &["used twice, first on line 6"]),
    ]);
}

#[test]
fn a_secret_that_cannot_be_had_is_told_and_never_shown() {
    let bearer = |lines: &str| global(&format!("[global.auth]\ntype = \"bearer\"\n{lines}"));
    let basic = |lines: &str| global(&format!("[global.auth]\ntype = \"basic\"\nuser = \"u\"\n{lines}"));
    let one_of = "exactly one of token, token_env and token_file";
    assert_refused(&[
        (bearer(""), 5, "global.auth.token", &["is missing", one_of]),
        (
            bearer("token = \"hunter2\"\ntoken_env = \"hunter2\""),
            8,
            "global.auth.token_env",
            &["given twice, first on line 7 by token", one_of],
        ),
        (
            bearer("token_file = \"hunter2\"\ntoken = \"hunter2\""),
            8,
            "global.auth.token",
            &["given twice, first on line 7 by token_file", one_of],
        ),
        (bearer("token = 5"), 7, "global.auth.token", &["a string", "is a whole number (not shown)"]),
        (bearer("token = \"\""), 7, "global.auth.token", &["1 to 4096 bytes", "(not shown)"]),
        (bearer("token = [\"hunter2\"]"), 7, "global.auth.token", &["a string", "is an array (not shown)"]),
        (
            bearer("token = \"hunter2 x\""),
            7,
            "global.auth.token",
            &["visible ASCII characters, without spaces"],
        ),
        (
            bearer("token_env = \"hunter2\""),
            7,
            "global.auth.token_env",
            &["environment variable it names is not set"],
        ),
        (
            bearer("token_env = \"A=hunter2\""),
            7,
            "global.auth.token_env",
            &["must be the name of an environment"],
        ),
        (
            bearer("token_file = \"hunter2\""),
            7,
            "global.auth.token_file",
            &["cannot be read", "No such file"],
        ),
        (
            bearer("password = \"hunter2\""),
            7,
            "global.auth.password",
            &["no meaning with type = \"bearer\"", "takes token"],
        ),
        (
            bearer("user = \"u\""),
            7,
            "global.auth.user",
            &["no meaning with type = \"bearer\"", "takes token"],
        ),
        (basic(""), 5, "global.auth.password", &["is missing", "exactly one of password, password_env and"]),
        (
            basic("token = \"hunter2\""),
            8,
            "global.auth.token",
            &["no meaning with type = \"basic\"", "user and password"],
        ),
        (basic("password_env = \"hunter2\""), 8, "global.auth.password_env", &["is not set"]),
        (
            basic("password_file = \"/\""),
            8,
            "global.auth.password_file",
            &["cannot be read", "Is a directory"],
        ),
        (
            basic("password = 1979-05-27"),
            8,
            "global.auth.password",
            &["a string", "is a date or time (not shown)"],
        ),
        (
            global("[global.auth]\ntype = \"basic\"\npassword = \"hunter2\""),
            5,
            "global.auth.user",
            &["is missing", "basic"],
        ),
        (
            global("[global.auth]\ntype = \"basic\"\nuser = \"a:b\"\npassword = \"hunter2\""),
            7,
            "global.auth.user",
            &["without a colon"],
        ),
    ]);

    let agent = Agent::with_config(bearer("token_env = \"TOKEN\"")).env("TOKEN", "");
    assert_says(&agent.refusal(), "log-agent.config:7: global.auth.token_env", &["empty"]);
    for (content, says) in
        [(&b""[..], "empty"), (b"\n", "empty"), (b"hunter2\xff", "UTF-8"), (b"hunter2\nb", "ASCII")]
    {
        let agent = Agent::with_config(bearer("token_file = \"token\""));
        agent.file("token", content);
        assert_says(&agent.refusal(), "log-agent.config:7: global.auth.token_file", &[says]);
    }
    let agent = Agent::with_config(bearer("token_file = \"token\""));
    agent.file("token", SECRET.repeat(10_000));
    assert_says(&agent.refusal(), "log-agent.config:7: global.auth.token_file", &["longer than a secret"]);
}

/// A self-signed certificate and its key.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["logs.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_told_with_its_file() {
    let (cert, key) = certificate();
    let (_, other_key) = certificate();
    let broken = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
    let both = "client_cert_file = \"cert.pem\"\nclient_key_file = \"key.pem\"";
    let broken_key = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";
    let unended = "-----BEGIN PRIVATE KEY-----\nhunter2\n";
    /// Lines of `[global.tls]`, content of cert.pem and of key.pem; line and key at fault, what is said.
    type Case<'a> = (&'a str, &'a str, &'a str, usize, &'a str, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (
            "ca_file = \"gone.pem\"",
            "",
            "",
            6,
            "ca_file",
            &["gone.pem cannot be read", "certificates", "No such file"],
        ),
        ("ca_file = \"cert.pem\"", "", "", 6, "ca_file", &["cert.pem: no certificate was found", "PEM"]),
        ("ca_file = \"cert.pem\"", &key, "", 6, "ca_file", &["cert.pem: no certificate was found"]),
        ("ca_file = \"cert.pem\"", broken, "", 6, "ca_file", &["cert.pem: certificate 1 cannot be trusted"]),
        ("ca_file = \"cert.pem\"", unended, "", 6, "ca_file", &["cert.pem: is not valid PEM"]),
        ("client_cert_file = \"cert.pem\"", &cert, "", 6, "client_cert_file", &["needs client_key_file"]),
        ("client_key_file = \"key.pem\"", "", &key, 6, "client_key_file", &["needs client_cert_file"]),
        (both, "", &key, 6, "client_cert_file", &["cert.pem: no certificate was found"]),
        (both, broken, &key, 6, "client_cert_file", &["cert.pem: certificate 1 is malformed"]),
        (both, &cert, "", 7, "client_key_file", &["key.pem: no private key was found", "not encrypted"]),
        (both, &cert, unended, 7, "client_key_file", &["key.pem: no private key was found"]),
        (both, &cert, broken_key, 7, "client_key_file", &["key.pem: the private key is malformed"]),
        (
            both,
            &cert,
            &other_key,
            7,
            "client_key_file",
            &["key.pem: the key does not belong to client_cert_file"],
        ),
    ];
    for (lines, cert, key, line, name, parts) in cases {
        let agent = Agent::with_config(global(&format!("[global.tls]\n{lines}")));
        agent.file("cert.pem", cert);
        agent.file("key.pem", key);
        assert_says(&agent.refusal(), &format!("log-agent.config:{line}: global.tls.{name}"), parts);
    }
}

#[test]
fn the_configuration_that_is_named_is_the_one_that_is_told() {
    let agent = Agent::with_config(global(""));
    agent.file("etc/other.config", global("retry_count = -1"));
    let output = agent.run(&["check", "--config", "etc/other.config"]);
    assert_eq!(output.status.code(), Some(64));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("log-agent: etc/other.config:5: global.retry_count: must be "), "{stderr}");
}

#[test]
fn no_text_form_of_a_configuration_shows_a_secret() {
    let agent = Agent::with_config(
        global("[global.headers]\nX-Key = \"hunter2\"\n[global.auth]\ntype = \"basic\"\nuser = \"u\"\npassword = \"hunter2\"")
            .replace("/in\"", "/in?key=hunter2#hunter2\""),
    );
    let config = log_agent::config::Config::load(
        &agent.path("log-agent.config"),
        None,
        &log_agent::send::transports(),
    )
    .unwrap();
    for text in [format!("{config:?}"), format!("{config:#?}"), config.global.end_point.to_string()] {
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("logs.example"), "{text}");
    }
    assert!(config.global.end_point.0.as_str().contains("key=hunter2"), "the request needs it");
}

//! What `log-agent check` says of a configuration that is accepted, and of a command line that is not.

use std::fs;
use std::path::Path;

use super::{Agent, GLOBAL, SECRET, certificate, global, source};

#[test]
fn the_sample_is_accepted() {
    let sample = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("log-agent.config")).unwrap();
    let (stdout, stderr) = Agent::with_config(sample).accepted(0);
    assert!(stdout.contains("/var/log/app1/*.log"), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn check_says_what_is_followed_and_where_it_is_sent() {
    let (cert, key) = certificate();
    let agent = Agent::with_config(
        "[global]\nagent_name = \"agent-7\"\nend_point = \"https://logs.example/in?key=hunter2\"\nsend_type = \"http\"\n\
         max_send_task = 7\ninterval_secs = 0.25\nmax_batch_size = 5000\nmax_batch_bytes = 3_000_000\n\
         compression = \"zstd\"\nspool_dir = \"elsewhere\"\nmax_spool_bytes = \"3 GiB\"\nsync = \"os\"\n\
         on_full = \"drop_oldest\"\n[global.headers]\nX-Api-Key = \"hunter2\"\n\
         [global.auth]\ntype = \"basic\"\nuser = \"carol\"\npassword_env = \"PASSWORD\"\n\
         [global.tls]\nca_file = \"ca.pem\"\nclient_cert_file = \"ca.pem\"\nclient_key_file = \"key.pem\"\n\
         [[sources]]\nname = \"web\"\nlog_path = \"logs/*.log\"\nstart_at = \"end\"\n\
         [[sources]]\nname = \"db\"\nlog_path = \"db/current.log\"\n",
    )
    .env("PASSWORD", "hunter2");
    agent.file("ca.pem", cert);
    agent.file("key.pem", key);
    for number in 0..25 {
        agent.file(&format!("logs/{number:02}.log"), vec![b'x'; 2048]);
    }
    agent.file("logs/not.txt", "");
    let (stdout, stderr) = agent.accepted(0);
    assert_eq!(stderr, "");
    for part in [
        "agent-7",
        "https://logs.example/in",
        "up to 7 requests at a time",
        "zstd",
        "basic, as carol",
        "X-Api-Key",
        "verified against ca_file; client_cert_file is shown",
        "up to 5000 events or 3 MB, sent after 250ms",
        "elsewhere",
        "up to 3 GiB",
        "oldest events are dropped and counted",
        "not a power cut",
        "logs/*.log from the end",
        "logs/00.log (2.00 KiB)",
        "logs/19.log",
        "and 5 more (10.00 KiB)",
        "db/current.log from the beginning",
        "none yet: waited for",
    ] {
        assert!(stdout.contains(part), "does not say {part:?}:\n{stdout}");
    }
    for absent in ["logs/20.log", "not.txt"] {
        assert!(!stdout.contains(absent), "says {absent:?}:\n{stdout}");
    }
    let spool = agent.run(&["check", "--spool-dir", "over"]);
    assert!(String::from_utf8(spool.stdout).unwrap().lines().any(|line| line == "spool       over"));
    let files = agent.run(&["check", "--files", "25"]);
    assert!(!String::from_utf8(files.stdout).unwrap().contains(" more ("));
    assert!(!agent.path("elsewhere").exists() && !agent.path("over").exists(), "check opened a spool");
}

#[test]
fn check_says_what_is_left_out_and_how_lines_are_read() {
    let agent = Agent::with_config(format!(
        "{GLOBAL}max_open_files = 300\n\
         [[sources]]\nname = \"web\"\nlog_path = \"logs/**/*\"\nexclude = [\"logs/*.tmp\", \"logs/old/**\"]\n\
         encoding = \"latin1\"\ninclude_lines = ['a']\nexclude_lines = ['b', 'c']\npartial_timeout_secs = 2\n\
         [sources.multiline]\nstart_pattern = '^x'\nmax_lines = 9\ntimeout_ms = 250\n\
         [[sources.redact]]\npattern = 'hunter2'\n\
         [[sources]]\nname = \"pod\"\nlog_path = \"pods/*\"\nformat = \"cri\"\nignore_older_secs = 3600\n\
         [sources.multiline]\npreset = \"java\"\n\
         [[sources]]\nname = \"app\"\nlog_path = \"app.log\"\nformat = \"docker-json\"\n\
         [sources.multiline]\ncontinue_pattern = '^ '\n"
    ));
    for file in ["logs/a.log", "logs/deep/b.tmp", "logs/c.tmp", "logs/old/d.log", "logs/old/e/f.log"] {
        agent.file(file, "x\n");
    }
    for name in ["old", "new"] {
        agent.file(&format!("pods/{name}"), "x\n");
    }
    let old = std::fs::File::options().append(true).open(agent.path("pods/old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let (stdout, stderr) = agent.accepted(0);
    assert_eq!(stderr, "");
    for part in [
        "up to 300 are kept open",
        "logs/*.tmp, ",
        "windows-1252, converted to UTF-8",
        "lines joined up to the next that matches start_pattern, up to 9 lines or 1 MiB, complete after 250ms",
        "only events that match include_lines (1 pattern)",
        "no events that match exclude_lines (2 patterns)",
        "redacted (1 pattern)",
        "a last line without newline is an event after 2s",
        "logs/a.log (2 B)",
        "logs/deep/b.tmp (2 B)",
        "  3 excluded",
        "records of cri, unwrapped",
        "skipped where the last write is older than 3600s",
        "stack traces of Java joined, up to 500 lines or 1 MiB, complete after 1s",
        "pods/new (2 B)\n",
        "pods/old (2 B, older: skipped if new)\n",
        "records of docker-json, unwrapped",
        "lines that match continue_pattern joined to those before",
    ] {
        assert!(stdout.contains(part), "does not say {part:?}:\n{stdout}");
    }
    for absent in ["c.tmp", "d.log", "f.log"] {
        assert!(!stdout.contains(absent), "says {absent:?}:\n{stdout}");
    }
    let (plain, _) = Agent::with_config(source("")).accepted(0);
    for absent in ["kept open", "except", "converted", "unwrapped", "joined", "match", "redacted", "newline"]
    {
        assert!(!plain.contains(absent), "says {absent:?}:\n{plain}");
    }
}

#[test]
fn compressed_files_that_a_glob_matches_are_a_warning() {
    let config = |exclude: &str| {
        format!("{GLOBAL}[[sources]]\nname = \"web\"\nlog_path = \"logs/*\"\nexclude = [{exclude}]\n")
    };
    let one = Agent::with_config(config("'logs/*.zst'"));
    for name in ["a.log", "a.log.1.gz", "a.log.2.zst"] {
        one.file(&format!("logs/{name}"), "x\n");
    }
    let (_, stderr) = one.accepted(2);
    assert!(stderr.contains("logs/a.log.1.gz is, by its name, compressed"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    one.file("log-agent.config", config(""));
    let (_, stderr) = one.accepted(2);
    assert!(stderr.contains("a.log.1.gz and 1 more are, by their names, compressed"), "{stderr}");
    one.file("log-agent.config", config("'logs/*.gz', 'logs/*.zst'"));
    one.accepted(0);
}

#[test]
fn a_secret_is_taken_from_the_environment_and_from_a_file() {
    for (line, auth) in [
        ("type = \"bearer\"\ntoken = \"hunter2\"", "bearer token"),
        ("type = \"BEARER\"\ntoken_env = \"SECRET\"", "bearer token"),
        ("type = \"bearer\"\ntoken_file = \"secret\"", "bearer token"),
        ("type = \"basic\"\nuser = \"u\"\npassword = \"hunter2 with spaces\"", "basic, as u"),
        ("type = \"basic\"\nuser = \"u\"\npassword_env = \"SECRET\"", "basic, as u"),
        ("type = \"basic\"\nuser = \"u\"\npassword_file = \"secret\"", "basic, as u"),
    ] {
        let agent = Agent::with_config(global(&format!("[global.auth]\n{line}"))).env("SECRET", SECRET);
        agent.file("secret", format!("{SECRET}\r\n"));
        let (stdout, stderr) = agent.accepted(0);
        assert!(stdout.contains(&format!("auth        {auth}\n")), "{stdout}");
        assert_eq!(stderr, "");
    }
}

#[test]
fn what_cannot_be_meant_is_a_warning_and_exit_code_2() {
    let auth = "[global.auth]\ntype = \"bearer\"\ntoken = \"hunter2\"";
    let insecure = |host: &str| global(auth).replace("https://logs.example/in", host);
    let (_, stderr) = Agent::with_config(insecure("http://logs.example/")).accepted(2);
    assert!(stderr.starts_with("log-agent: warning: ") && stderr.contains("in the clear"), "{stderr}");
    for loopback in ["http://localhost:1/", "http://127.0.0.1/", "http://[::1]/"] {
        Agent::with_config(insecure(loopback)).accepted(0);
    }

    let unused = Agent::with_config(
        global("[global.tls]\nca_file = \"ca.pem\"")
            .replace("https://logs.example/in", "http://logs.example/"),
    );
    unused.file("ca.pem", certificate().0);
    let (_, stderr) = unused.accepted(2);
    assert!(stderr.contains("[global.tls] is not used"), "{stderr}");

    let twice = Agent::with_config(format!(
        "{GLOBAL}[[sources]]\nname = \"one\"\nlog_path = \"logs/a.log\"\n[[sources]]\nname = \"two\"\nlog_path = \"**/*.log\"\n"
    ));
    twice.file("logs/a.log", "");
    twice.file("logs/b.log", "");
    let (_, stderr) = twice.accepted(2);
    assert!(stderr.contains("logs/a.log is followed by the sources one and two"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let directory = Agent::with_config(format!("{GLOBAL}[[sources]]\nname = \"one\"\nlog_path = \"logs\"\n"));
    directory.file("logs/a.log", "");
    let (stdout, stderr) = directory.accepted(2);
    assert!(stderr.contains("logs is not a file"), "{stderr}");
    assert!(stdout.contains("none yet"), "{stdout}");

    let mut unreadable =
        Agent::with_config(format!("{GLOBAL}[[sources]]\nname = \"one\"\nlog_path = \"a.log\"\n"));
    unreadable.file("a.log", "");
    if !unreadable.lock("a.log") {
        println!("SKIPPED in part: this user reads files whatever their permissions are");
        return;
    }
    let (_, stderr) = unreadable.accepted(2);
    assert!(stderr.contains("a.log cannot be read: Permission denied"), "{stderr}");
}

#[test]
fn a_wrong_command_line_exits_64_and_help_exits_0() {
    let agent = Agent::with_config(global(""));
    for wrong in [
        &["chek"][..],
        &["--confg", "x"],
        &["check", "x"],
        &["--log-format", "xml"],
        &["check", "--files", "-1"],
    ] {
        let output = agent.run(wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
    for (right, says) in [
        (&["--help"][..], "Examples:"),
        (&["--help"], "64  wrong command line or configuration"),
        (&["check", "--help"], "Examples:"),
        (&["check", "--help"], "accepted with warnings"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["check", "--keys"], "| `max_send_task` | `5` | a whole number from 1 to 65535 |"),
    ] {
        let output = agent.run(right);
        assert_eq!(output.status.code(), Some(0), "{right:?}");
        assert!(
            output.stderr.is_empty() && String::from_utf8(output.stdout).unwrap().contains(says),
            "{right:?}"
        );
    }
}

#[test]
fn the_agents_own_messages_are_lines_or_json_without_colours() {
    for (format, is_json) in [("text", false), ("json", true)] {
        let agent = Agent::with_config(global("")).env("RUST_LOG", "=;=");
        let output = agent.run(&["check", "--log-format", format]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(0), 1), "{stderr}");
        assert!(stderr.contains("RUST_LOG is not a filter") && !stderr.contains('\x1b'), "{stderr}");
        let parsed = serde_json::from_str::<serde_json::Value>(&stderr);
        assert_eq!(parsed.is_ok(), is_json, "{stderr}");
        if let Ok(message) = parsed {
            assert_eq!(
                (&message["level"], message["timestamp"].is_string()),
                (&"WARN".into(), true),
                "{stderr}"
            );
        }
    }
    let quiet = Agent::with_config(global("")).env("RUST_LOG", "error").run(&["check"]);
    assert!(quiet.stderr.is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let agent = Agent::with_config(global(""));
    for arguments in [&["check"][..], &["check", "--keys"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = agent.command().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let refused =
        Agent::with_config(global("retry_count = -1")).command().arg("check").stderr(writer).output();
    assert_eq!(refused.unwrap().status.code(), Some(64));
}

//! What `check --connect` says of brokers.

use std::net::TcpListener;

use crate::common::{ConfigBuilder, free_port, log_agent};

/// Asserts that `check --connect` says that it reached each of `end_points`, and `says` each of these things; nothing else is
/// worth a warning.
#[track_caller]
pub fn assert_reached(config: &ConfigBuilder<'_>, end_points: &[&str], says: &[&str]) {
    let (code, stdout, stderr) = check_connect(config);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    for end_point in end_points {
        assert!(stdout.contains(&format!("reached     {end_point}: ")), "not {end_point}: {stdout}");
    }
    for part in says {
        assert!(stdout.contains(part), "not {part:?}: {stdout}");
    }
}

/// Asserts that `check --connect` says that `end_point` cannot be used, and `says` each of these things, and none of the
/// `secrets`.
#[track_caller]
pub fn assert_not_usable(config: &ConfigBuilder<'_>, end_point: &str, says: &[&str], secrets: &[&str]) {
    let (code, stdout, stderr) = check_connect(config);
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    let begins = format!("log-agent: warning: {end_point} cannot be used: ");
    let line = stderr.lines().find(|line| line.starts_with(&begins));
    let line = line.unwrap_or_else(|| panic!("not said of {end_point}: {stderr}"));
    for part in says {
        assert!(line.contains(part), "not {part:?}: {line}");
    }
    for secret in secrets {
        assert!(!stdout.contains(secret) && !stderr.contains(secret), "a secret was shown");
    }
}

/// Asserts that it says so where nobody listens, and where somebody does and never says a word.
#[track_caller]
pub fn assert_nobody_answers(config: ConfigBuilder<'_>, scheme: &str) {
    let config = config.global("timeout_secs", 1.5);
    let nowhere = format!("{scheme}://127.0.0.1:{}", free_port());
    assert_not_usable(&config.clone().end_point(&nowhere), &nowhere, &["refused"], &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("{scheme}://{}", silent.local_addr().unwrap());
    assert_not_usable(&config.end_point(&nobody), &nobody, &["within 1.5 s"], &[]);
}

/// The exit code of `check --connect`, and what it says on standard output and standard error.
fn check_connect(config: &ConfigBuilder<'_>) -> (Option<i32>, String, String) {
    let output =
        log_agent().arg("check").arg("--connect").arg("--config").arg(config.write()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

//! What goes with which `send_type`, and what an agent says that was built without one.

use super::{Agent, SOURCE, assert_refused, assert_says};

fn config(send_type: &str, end_point: &str, more: &str) -> String {
    format!(
        "[global]\nagent_name = \"a\"\nsend_type = \"{send_type}\"\nend_point = \"{end_point}\"\n{more}\n{SOURCE}"
    )
}

#[test]
#[cfg(feature = "websocket")]
fn a_web_socket_takes_its_own_schemes_and_no_compression() {
    let accepts =
        &["must be a URL that begins with ws:// or wss://", "as send_type is \"WEBSOCKET\"", "is \"http"];
    let uncompressed = &["must be \"none\", as send_type is \"WEBSOCKET\""];
    assert_refused(&[
        (config("WEBSOCKET", "http://host/", ""), 4, "global.end_point", accepts),
        (config("websocket", "https://host/", ""), 4, "global.end_point", accepts),
        (config("WEBSOCKET", "ws://host/", "compression = \"gzip\""), 5, "global.compression", uncompressed),
    ]);
    for header in ["Upgrade", "sec-websocket-protocol", "Sec-WebSocket-Key"] {
        let headers = format!("[global.headers]\n{header} = \"x\"");
        let message = Agent::with_config(config("WEBSOCKET", "wss://host/", &headers)).refusal();
        assert_says(
            &message,
            &format!("log-agent.config:6: global.headers.{header}"),
            &["is set by the agent itself"],
        );
    }
}

#[test]
#[cfg(feature = "websocket")]
fn check_says_that_frames_are_sent_and_whether_they_are_encrypted() {
    let auth = "max_send_task = 7\n[global.auth]\ntype = \"bearer\"\ntoken = \"hunter2\"";
    let (stdout, stderr) =
        Agent::with_config(config("websocket", "wss://logs.example/in?key=hunter2", auth)).accepted(0);
    assert_eq!(stderr, "");
    for part in [
        "wss://logs.example/in?(not-shown)",
        "WEBSOCKET, up to 7 batches at a time on one connection, 10s each",
        "the server is verified against the system's roots",
    ] {
        assert!(stdout.contains(part), "does not say {part:?}:\n{stdout}");
    }
    let (stdout, stderr) = Agent::with_config(config("WEBSOCKET", "ws://logs.example/in", auth)).accepted(2);
    assert!(stdout.contains("tls         none"), "{stdout}");
    assert!(stderr.contains("in the clear, as end_point begins with ws://"), "{stderr}");
    Agent::with_config(config("WEBSOCKET", "ws://localhost:8080/in", auth)).accepted(0);
}

/// Of a program that was built without some of them; with all of them there is nothing to refuse.
#[test]
fn a_strategy_that_was_not_built_in_is_refused_with_how_to_build_it() {
    let transports = log_agent::send::transports();
    for transport in &transports {
        let Some(feature) = transport.feature.filter(|feature| !feature.built) else { continue };
        let part = format!("{:?} is not part of this log-agent", transport.name);
        let build = format!("cargo build --release --features {}", feature.name);
        let says: &[&str] = &[&part, &build];
        let end_point = format!("{}://host/", transport.schemes.plain);
        assert_refused(&[(config(transport.name, &end_point, ""), 3, "global.send_type", says)]);
    }
    let message = Agent::with_config(config("TCP", "ws://host/", "")).refusal();
    let words: Vec<_> = transports.iter().map(|transport| format!("{:?}", transport.name)).collect();
    let accepts = format!("must be {}", words.join(" or "));
    assert_says(&message, "log-agent.config:3: global.send_type", &[&accepts]);
}

#[test]
#[cfg(feature = "nats")]
fn a_subject_with_a_place_for_the_source_needs_messages_that_have_one() {
    let nats = |rest: &str| config("NATS", "nats://host", &format!("[global.nats]\n{rest}"));
    let place = &["has the place {source}", "messages = \"source\" or \"event\""];
    assert_refused(&[
        (nats("subject = \"logs.{source}\""), 6, "global.nats.subject", place),
        (nats("subject = \"logs.*\""), 6, "global.nats.subject", &["'*', which a subject must not have"]),
        (nats("messages = \"line\""), 6, "global.nats.messages", &["\"batch\" or \"source\" or \"event\""]),
        (nats("topic = \"logs\""), 6, "global.nats.topic", &["is not a known key"]),
        (config("NATS", "nats:host", ""), 4, "global.end_point", &["begins with nats:// or tls://"]),
        (config("NATS", "nats://", ""), 4, "global.end_point", &["begins with nats:// or tls://"]),
        (config("HTTP", "http://host", "[global.nats]"), 5, "global.nats", &["send_type = \"HTTP\""]),
        (
            config(
                "NATS",
                "nats://host",
                "[global.nats]\nnkey_file = \"/x\"\n[global.auth]\ntype = \"bearer\"\ntoken = \"hunter2\"",
            ),
            6,
            "global.nats.nkey_file",
            &["stands beside [global.auth]"],
        ),
    ]);
    let (stdout, _) = Agent::with_config(
        nats("messages = \"event\"\nsubject = \"logs.{agent}.{source}\"").replace("host", "localhost"),
    )
    .accepted(0);
    assert!(stdout.contains("NATS, up to 5 batches at a time on one connection, 10s each"), "{stdout}");
}

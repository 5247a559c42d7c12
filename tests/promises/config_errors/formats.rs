//! Formats and labels, several end points, proxies, and what `check --connect` finds.

use super::{Agent, SOURCE, assert_refused};
use crate::common::{Collector, Scene, free_port};

/// A configuration whose `[global]` has these lines from line 5 on.
fn config(more: &str) -> String {
    format!(
        "[global]\nagent_name = \"a\"\nsend_type = \"HTTP\"\nend_point = \"http://127.0.0.1:1/\"\n{more}\n{SOURCE}"
    )
}

#[test]
fn formats_and_labels_that_do_not_go_together_are_refused() {
    let labels =
        |format: &str, label: &str| config(&format!("format = \"{format}\"\n[global.labels]\n{label}"));
    let source = format!("{}[sources.labels]\nagent = \"x\"\n", config("format = \"loki\""));
    let source_line = source.lines().count();
    let index =
        |index: &str| config(&format!("format = \"elasticsearch\"\nelasticsearch_index = \"{index}\""));
    let no_index = &["must be a string of up to 128 lower-case letters", "{agent}, {source} and {date}"][..];
    assert_refused(&[
        (
            config("format = \"otlp\""),
            5,
            "global.format",
            &["must be", "\"otlp-json\" or \"otlp-protobuf\"", "is the string \"otlp\""],
        ),
        (labels("loki", "\"a.b\" = \"x\""), 7, "global.labels.a.b", &["is not the name of a label", "_,"]),
        (labels("elasticsearch", "a-b = \"x\""), 7, "global.labels.a-b", &["is not the name of a label"]),
        (
            labels("json", "\"1a\" = \"x\""),
            7,
            "global.labels.1a",
            &["_ . and -", "the first of them a letter"],
        ),
        (labels("loki", "source = \"x\""), 7, "global.labels.source", &["none of agent, source, path"]),
        (labels("loki", "__name__ = \"x\""), 7, "global.labels.__name__", &["not begin with __"]),
        (labels("raw", "a = \"x\""), 7, "global.labels.a", &["has no meaning with format = \"raw\""]),
        (labels("json", "a = 1"), 7, "global.labels.a", &["must be a string of 1 to 3072 bytes", "is 1"]),
        (labels("json", "a = \"\""), 7, "global.labels.a", &["must be a string of 1 to 3072 bytes"]),
        (
            labels("json", &format!("a = \"{}\"\nb = \"{}\"", "x".repeat(2000), "x".repeat(2000))),
            8,
            "global.labels.b",
            &["is one label too many"],
        ),
        (source, source_line, "sources.labels.agent", &["is a label of its own with format = \"loki\""]),
        (
            config("compression = \"zstd\"\nformat = \"loki\""),
            5,
            "global.compression",
            &["must be \"none\" or \"gzip\", as format is \"loki\""],
        ),
        (index("Logs-{date}"), 6, "global.elasticsearch_index", no_index),
        (index("-x"), 6, "global.elasticsearch_index", no_index),
        (index("x-{host}"), 6, "global.elasticsearch_index", no_index),
        (
            config("elasticsearch_index = \"x\""),
            5,
            "global.elasticsearch_index",
            &["has no meaning with format = \"json\""],
        ),
    ]);
}

#[test]
#[cfg(feature = "websocket")]
fn a_web_socket_has_one_format_and_one_end_point() {
    let socket = |more: &str, end_point: &str| {
        format!(
            "[global]\nagent_name = \"a\"\nsend_type = \"WEBSOCKET\"\nend_point = {end_point}\n{more}\n{SOURCE}"
        )
    };
    assert_refused(&[
        (
            socket("format = \"ndjson\"", "\"ws://h/\""),
            5,
            "global.format",
            &["must be \"json\", as send_type is \"WEBSOCKET\""],
        ),
        (
            socket("", "[\"ws://h/\",\n\"ws://i/\"]"),
            5,
            "global.end_point",
            &["must be one URL, as send_type is \"WEBSOCKET\""],
        ),
    ]);
}

#[test]
#[cfg(all(feature = "nats", feature = "amqp", feature = "mqtt", feature = "kafka"))]
fn a_queue_has_the_formats_that_are_messages_and_takes_apart_what_can_be() {
    let queue = |send_type: &str, format: &str, rest: &str| {
        let (scheme, table) = (send_type.to_lowercase(), send_type.to_lowercase());
        let topic = if send_type == "KAFKA" { "topic = \"logs\"" } else { "" };
        format!(
            "[global]\nagent_name = \"a\"\nsend_type = \"{send_type}\"\nend_point = \"{scheme}://localhost\"\n\
             format = \"{format}\"\n[global.{table}]\n{topic}\n{rest}\n{SOURCE}"
        )
    };
    for send_type in ["NATS", "AMQP", "MQTT", "KAFKA"] {
        let formats = "must be \"json\" or \"ndjson\" or \"otlp-json\" or \"otlp-protobuf\" or \"raw\", as send_type is";
        let messages = format!("global.{}.messages", send_type.to_lowercase());
        for format in ["loki", "elasticsearch"] {
            assert_refused(&[(queue(send_type, format, ""), 5, "global.format", &[formats, send_type])]);
        }
        for format in ["otlp-json", "otlp-protobuf"] {
            let says = format!("must be \"batch\", as format is \"{format}\", which is not taken apart");
            let others = "with \"source\" and \"event\" go \"json\", \"ndjson\" and \"raw\"";
            for per in ["source", "event"] {
                let text = queue(send_type, format, &format!("messages = \"{per}\""));
                assert_refused(&[(text, 8, &messages, &[&says, others])]);
            }
            _ = Agent::with_config(queue(send_type, format, "messages = \"batch\"")).accepted(0);
        }
        for format in ["json", "ndjson", "raw"] {
            for per in ["batch", "source", "event"] {
                let text = queue(send_type, format, &format!("messages = \"{per}\""));
                _ = Agent::with_config(text).accepted(0);
            }
        }
    }
    // What Kafka has if nothing is said is an event.
    let says = &["must be \"batch\", as format is \"otlp-json\""][..];
    assert_refused(&[(queue("KAFKA", "otlp-json", ""), 6, "global.kafka.messages", says)]);
}

#[test]
fn end_points_and_proxies_that_cannot_be_used_are_refused_and_no_password_is_shown() {
    let end_points = |list: &str| config("").replace("\"http://127.0.0.1:1/\"", list);
    let proxy = |keys: &str| config(&format!("[global.proxy]\n{keys}"));
    let through = "url = \"http://proxy:3128\"\n";
    assert_refused(&[
        (end_points("[]"), 4, "global.end_point", &["or an array of 1 to 16 such", "is an array of 0"]),
        (
            end_points("[\"http://a/\",\n\"ftp://b/\"]"),
            5,
            "global.end_point",
            &["must be a URL that begins with http:// or https://"],
        ),
        (
            end_points("[\"http://a/\", \"http://u:hunter2@b/\"]"),
            4,
            "global.end_point",
            &["without user and password"],
        ),
        (
            proxy("url = \"socks5://proxy\""),
            6,
            "global.proxy.url",
            &["\"none\", or a URL that begins with http://"],
        ),
        (proxy("url = \"http://u:hunter2@proxy\""), 6, "global.proxy.url", &["without user and password"]),
        (proxy("url = \"https://u:hunter2@proxy\""), 6, "global.proxy.url", &["may hold a password"]),
        (proxy("user = \"u\""), 5, "global.proxy.url", &["is missing"]),
        (proxy(&format!("{through}user = \"u\"")), 5, "global.proxy.password", &["is missing"]),
        (
            proxy(&format!("{through}password = \"hunter2\"")),
            7,
            "global.proxy.password",
            &["needs user beside it"],
        ),
        (
            proxy("url = \"none\"\nuser = \"u\""),
            7,
            "global.proxy.user",
            &["has no meaning with url = \"none\""],
        ),
        (proxy(&format!("{through}except = [\"a,b\"]")), 7, "global.proxy.except", &["one in each string"]),
        (config("proxy = \"http://proxy\""), 5, "global.proxy", &["must be a table, [global.proxy]"]),
    ]);
}

#[test]
fn check_says_which_format_which_labels_and_which_way() {
    let more = "format = \"elasticsearch\"\nelasticsearch_index = \"logs-{date}\"\n[global.labels]\nzone = \"a\"\n\
                [global.proxy]\nurl = \"http://proxy:3128\"\nuser = \"carol\"\npassword = \"hunter2\"\nexcept = [\".local\"]";
    let text = config(more)
        .replace("\"http://127.0.0.1:1/\"", "[\"http://a/_bulk\", \"http://b/_bulk?key=hunter2\"]");
    let (stdout, stderr) = Agent::with_config(format!("{text}[sources.labels]\nteam = \"x\"\n")).accepted(0);
    assert_eq!(stderr, "");
    for part in [
        "sends to    http://a/_bulk\nor to       http://b/_bulk?(not-shown)\n",
        "format      elasticsearch, index logs-{date}\n",
        "labels      zone=a\n",
        "            team=x of ",
        "proxy       http://proxy:3128/, as carol, but for .local\n",
    ] {
        assert!(stdout.contains(part), "does not say {part:?}:\n{stdout}");
    }
}

#[test]
fn check_connect_reaches_what_is_there_and_names_what_is_not_and_sends_nothing() {
    let scene = Scene::new("check_connect_reaches_what_is_there_and_names_what_is_not_and_sends_nothing");
    let collector = Collector::start(&scene);
    let (here, away) = (collector.url(), format!("http://127.0.0.1:{}/", free_port()));
    let with = |end_points: &str| config("timeout_secs = 5").replace("\"http://127.0.0.1:1/\"", end_points);
    let agent = Agent::with_config(with(&format!("\"{here}\"")));
    let output = agent.run(&["check", "--connect"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(
        stdout.contains(&format!("reached     {here}: HTTP/1.1, answered 405 Method Not Allowed to OPTIONS")),
        "{stdout}"
    );

    let agent = Agent::with_config(with(&format!("[\"{here}\", \"{away}\"]")));
    let output = agent.run(&["check", "--connect"]);
    assert_eq!(output.status.code(), Some(2));
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(stdout.contains("reached ") && !stdout.contains(&format!("reached     {away}")), "{stdout}");
    assert!(
        stderr.contains(&format!("warning: {away} cannot be used: ")) && stderr.contains("refused"),
        "{stderr}"
    );
    let stats = collector.stats();
    assert_eq!((stats.requests, collector.stored_count()), (0, 0), "{stats:?}");
}

#[test]
#[cfg(feature = "websocket")]
fn check_connect_asks_a_web_socket_by_its_handshake() {
    let scene = Scene::new("check_connect_asks_a_web_socket_by_its_handshake");
    let collector = Collector::start(&scene);
    let url = collector.socket_url();
    let text = config("").replace("\"HTTP\"", "\"WEBSOCKET\"").replace("http://127.0.0.1:1/", &url);
    let output = Agent::with_config(&text).run(&["check", "--connect"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains(&format!("reached     {url}: takes the handshake of log-agent.v1")), "{stdout}");
    let refused = text.replace(&url, &format!("{url}stats"));
    let output = Agent::with_config(refused).run(&["check", "--connect"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("to the handshake of a WebSocket: check end_point and send_type"), "{stderr}");
}

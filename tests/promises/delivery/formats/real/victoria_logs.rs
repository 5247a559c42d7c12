//! VictoriaLogs, which takes most of the formats and keeps whatever it is sent, also what it has already.

use super::*;

fn start(scene: &Scene, test: &str) -> Option<Server> {
    let mut command = Command::new(installed(test, "victoria-logs")?);
    let port = free_port();
    command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
    command.arg("-storageDataPath=victoria-logs").arg("-retentionPeriod=100y");
    Some(Server::start(scene, "victoria-logs", command, port, "GET /health"))
}

/// Every row, as `read` makes an event of it.
fn rows(server: &Server, read: impl Fn(&Value) -> Stored) -> Vec<Stored> {
    let rows = server.ask("POST /select/logsql/query?query=*", "");
    rows.lines().map(|row| read(&serde_json::from_str(row).unwrap())).collect()
}

/// The event of a row with these names for what it has; a name that is not there is an error.
fn event(row: &Value, [source, path, labels]: [&str; 3], seq: u64) -> Stored {
    let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned();
    let label =
        |name: &str| row[format!("{labels}{name}")].as_str().map(|value| (name.to_owned(), value.to_owned()));
    let time = chrono::DateTime::parse_from_rfc3339(&text("_time")).unwrap();
    Stored {
        source: text(source),
        seq,
        line: text("_msg"),
        time: time.timestamp_millis(),
        path: text(path),
        labels: ["environment", "team"].into_iter().filter_map(label).collect(),
    }
}

/// The number that a field ends with.
fn number(row: &Value, field: &str) -> u64 {
    row[field].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn victoria_logs_has_every_event_of_ndjson() {
    const TEST: &str = "victoria_logs_has_every_event_of_ndjson";
    let scene = Scene::new(TEST);
    let Some(server) = start(&scene, TEST) else { return };
    let path = "/insert/jsonline?_msg_field=data&_time_field=timestamp&_stream_fields=agentName,sourceName";
    deliver(&scene, server.address, path, &[("format", "ndjson")], Copies::AsSent, || {
        rows(&server, |row| {
            assert_eq!(row["agentName"], "agent1");
            event(row, ["sourceName", "path", "labels."], number(row, "seq"))
        })
    });
}

#[test]
fn victoria_logs_has_every_event_of_otlp() {
    const TEST: &str = "victoria_logs_has_every_event_of_otlp";
    let scene = Scene::new(TEST);
    let Some(server) = start(&scene, TEST) else { return };
    let path = "/insert/opentelemetry/v1/logs";
    deliver(&scene, server.address, path, &[("format", "otlp-protobuf")], Copies::AsSent, || {
        rows(&server, |row| {
            assert_eq!((&row["log_agent.name"], &row["scope.name"]), (&"agent1".into(), &"log-agent".into()));
            assert_eq!(row["service.name"], row["log_agent.source"]);
            event(row, ["log_agent.source", "log.file.path", ""], number(row, "log.record.uid"))
        })
    });
}

#[test]
fn victoria_logs_has_every_event_of_a_push_to_loki() {
    const TEST: &str = "victoria_logs_has_every_event_of_a_push_to_loki";
    let scene = Scene::new(TEST);
    let Some(server) = start(&scene, TEST) else { return };
    let path = "/insert/loki/api/v1/push";
    deliver(&scene, server.address, path, &[("format", "loki")], Copies::AsSent, || {
        rows(&server, |row| {
            assert_eq!(row["agent"], "agent1");
            let time = chrono::DateTime::parse_from_rfc3339(row["_time"].as_str().unwrap()).unwrap();
            let seq = u64::from(time.timestamp_subsec_nanos() % 1_000_000);
            event(row, ["source", "path", ""], seq)
        })
    });
}

#[test]
fn victoria_logs_has_every_document_of_a_bulk_for_elasticsearch() {
    const TEST: &str = "victoria_logs_has_every_document_of_a_bulk_for_elasticsearch";
    let scene = Scene::new(TEST);
    let Some(server) = start(&scene, TEST) else { return };
    let path =
        "/insert/elasticsearch/_bulk?_msg_field=message&_time_field=@timestamp&_stream_fields=agent.name";
    deliver(&scene, server.address, path, &[("format", "elasticsearch")], Copies::AsSent, || {
        rows(&server, |row| {
            assert_eq!(row["agent.name"], "agent1");
            event(row, ["event.dataset", "log.file.path", "labels."], number(row, "event.sequence"))
        })
    });
}

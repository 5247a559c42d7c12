//! The OpenTelemetry Collector, which decodes OTLP by its own code and writes to a file what it has understood.

use super::*;

/// The attributes of a resource or a record, each of which is text and there once.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for pair in of["attributes"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {pair}")).to_owned();
        let before = attributes.insert(text(&pair["key"]), text(&pair["value"]["stringValue"]));
        assert_eq!(before, None, "an attribute is there twice: {of}");
    }
    attributes
}

/// The records of one line of the file.
fn records(line: &str) -> Vec<Stored> {
    let request: Value = serde_json::from_str(line).unwrap();
    let mut records = Vec::new();
    for resource in request["resourceLogs"].as_array().unwrap() {
        let mut of_resource = attributes(&resource["resource"]);
        let mut take =
            |name: &str| of_resource.remove(name).unwrap_or_else(|| panic!("no {name} in {resource}"));
        let (source, agent, service) =
            (take("log_agent.source"), take("log_agent.name"), take("service.name"));
        assert_eq!((agent.as_str(), &service), ("agent1", &source));
        let [scope] = resource["scopeLogs"].as_array().unwrap().as_slice() else { panic!("{resource}") };
        assert_eq!(scope["scope"], serde_json::json!({"name": "log-agent"}));
        for record in scope["logRecords"].as_array().unwrap() {
            let nanos = |name: &str| record[name].as_str().unwrap().parse::<i64>().unwrap();
            let mut attributes = attributes(record);
            let (_, seq) = attributes["log.record.uid"].rsplit_once('-').unwrap();
            let event = Stored {
                source: source.clone(),
                seq: seq.parse().unwrap(),
                line: record["body"]["stringValue"].as_str().unwrap().to_owned(),
                time: nanos("timeUnixNano") / 1_000_000,
                path: attributes.remove("log.file.path").unwrap(),
                labels: of_resource.clone(),
            };
            assert!(nanos("observedTimeUnixNano") >= nanos("timeUnixNano"));
            records.push(event);
        }
    }
    records
}

fn receives(test: &str, format: &str) {
    let Some(program) = installed(test, "otelcol") else { return };
    let scene = Scene::new(test);
    let (config, out, port) = (scene.path("otelcol.yaml"), scene.path("otelcol.jsonl"), free_port());
    let text = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
         exporters: {{file: {{path: '{}', flush_interval: 50ms}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{logs: {{receivers: [otlp], exporters: [file]}}}}\n",
        out.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(&config);
    let server = Server::start(&scene, "otelcol", command, port, "GET /v1/logs");
    deliver(&scene, server.address, "/v1/logs", &[("format", format)], Copies::AsSent, || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        text[..whole].lines().flat_map(records).collect()
    });
}

#[test]
fn the_opentelemetry_collector_has_every_record_of_otlp_in_json() {
    receives("the_opentelemetry_collector_has_every_record_of_otlp_in_json", "otlp-json");
}

#[test]
fn the_opentelemetry_collector_has_every_record_of_otlp_in_protobuf() {
    receives("the_opentelemetry_collector_has_every_record_of_otlp_in_protobuf", "otlp-protobuf");
}

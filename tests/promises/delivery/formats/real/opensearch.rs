//! OpenSearch, which keeps a document once under its id and refuses what its mapping does not take, one by one.

use super::*;

/// A node with a template of `mapping` for every index; it needs Java, and Java its compiler.
fn start(scene: &Scene, test: &str, mapping: &Value) -> Option<Server> {
    let dir = installed(test, "opensearch")?;
    let home = scene.path("opensearch");
    std::fs::create_dir_all(home.join("config")).unwrap();
    let (port, transport) = (free_port(), free_port());
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(dir.join("libs/*"));
    command.arg(dir.join("OpenSearch.java")).arg(home).args([port.to_string(), transport.to_string()]);
    let server = Server::start(scene, "opensearch", command, port, "GET /");
    let template = serde_json::json!({
        "index_patterns": ["logs-*"],
        "template": {"settings": {"number_of_replicas": 0}, "mappings": mapping},
    });
    server.ask("PUT /_index_template/logs", &template.to_string());
    Some(server)
}

/// Every document, and the index that it is in; none while an index is being made.
fn documents(server: &Server) -> Vec<(String, Value)> {
    server.ask("POST /_refresh", "");
    let found = exchange(server.address, "GET /logs-*/_search?size=10000", &[], b"").unwrap();
    if found.status == 503 {
        return Vec::new();
    }
    let mut found: Value = serde_json::from_slice(&found.body).unwrap();
    let Value::Array(hits) = found["hits"]["hits"].take() else { panic!("{found}") };
    hits.into_iter()
        .map(|mut hit| (hit["_index"].as_str().unwrap().to_owned(), hit["_source"].take()))
        .collect()
}

fn event(index: &str, document: &Value) -> Stored {
    let text = |field: &Value| field.as_str().unwrap_or_else(|| panic!("{document}")).to_owned();
    let source = text(&document["event"]["dataset"]);
    let timestamp = text(&document["@timestamp"]);
    assert_eq!(index, format!("logs-{source}-{}", timestamp[..10].replace('-', ".")));
    assert_eq!(document["agent"]["name"], "agent1");
    let labels = document["labels"].as_object().unwrap();
    Stored {
        source,
        seq: document["event"]["sequence"].as_u64().unwrap(),
        line: text(&document["message"]),
        time: chrono::DateTime::parse_from_rfc3339(&timestamp).unwrap().timestamp_millis(),
        path: text(&document["log"]["file"]["path"]),
        labels: labels.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
    }
}

const SETTINGS: [(&str, &str); 2] =
    [("format", "elasticsearch"), ("elasticsearch_index", "logs-{source}-{date}")];

#[test]
fn opensearch_has_every_document_once() {
    const TEST: &str = "opensearch_has_every_document_once";
    let scene = Scene::new(TEST);
    let Some(server) = start(&scene, TEST, &serde_json::json!({})) else { return };
    deliver(&scene, server.address, "/_bulk", &SETTINGS, Copies::One, || {
        documents(&server).iter().map(|(index, document)| event(index, document)).collect()
    });
}

#[test]
fn what_opensearch_cannot_map_is_a_dead_letter_and_the_rest_is_there() {
    const TEST: &str = "what_opensearch_cannot_map_is_a_dead_letter_and_the_rest_is_there";
    let scene = Scene::new(TEST);
    // The longest term of an index has 32,766 bytes.
    let mapping = serde_json::json!({"properties": {"message": {"type": "keyword"}}});
    let Some(server) = start(&scene, TEST, &mapping) else { return };
    let config = quick(&scene, format!("http://{}/_bulk", server.address)).global("timeout_secs", 30);
    SETTINGS.iter().fold(config, |config, &(key, value)| config.global(key, value)).write();
    let mut all = lines(60);
    for number in [0, 7, 31] {
        all[number].push_str(&"long ".repeat(8000));
    }
    write(&scene, &all);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE * 2, "every document but three is there", || documents(&server).len() >= 57);
    await_dead(&scene, "at least one immense term", 3);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(account(&scene), (57, 3));
    let mut messages: Vec<_> = documents(&server)
        .iter()
        .map(|(_, document)| document["message"].as_str().unwrap().to_owned())
        .collect();
    messages.sort_unstable();
    all.retain(|line| line.len() < 1000);
    assert_eq!(messages, all);
}

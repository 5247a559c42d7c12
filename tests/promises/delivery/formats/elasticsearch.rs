//! A server that answers as the bulk API is documented to: an item for each action, in order, with its own status.

use super::*;

/// What a document with this in its message is answered with, always.
const BAD: &str = "UNMAPPABLE";
/// The same, but only the first time.
const BUSY: &str = "BUSY";

#[derive(Default)]
struct Index {
    documents: BTreeMap<String, Value>,
    /// What was turned away once.
    met: Vec<String>,
    requests: usize,
    conflicts: usize,
}

impl Index {
    fn create(&mut self, action: &Value, document: &Value) -> Value {
        let id = action["create"]["_id"].as_str().expect("an id").to_owned();
        assert_eq!(action["create"]["_index"], format!("logs-app-{}", date(document)));
        let message = document["message"].as_str().expect("a message");
        let (status, error) = if message.contains(BAD) {
            (400, Some("document_parsing_exception"))
        } else if message.contains(BUSY) && !self.met.contains(&id) {
            self.met.push(id.clone());
            (429, Some("es_rejected_execution_exception"))
        } else if self.documents.contains_key(&id) {
            self.conflicts += 1;
            assert_eq!(&self.documents[&id], document, "an id names one document");
            (409, Some("version_conflict_engine_exception"))
        } else {
            self.documents.insert(id.clone(), document.clone());
            (201, None)
        };
        let mut item = serde_json::json!({"_index": "i", "_id": id, "status": status});
        if let Some(error) = error {
            item["error"] = serde_json::json!({"type": error, "reason": format!("not {id}")});
        }
        serde_json::json!({"create": item})
    }

    fn bulk(&mut self, request: &Message) -> Reply {
        assert_eq!((request.word(0), request.word(1)), ("POST", "/_bulk"));
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        let text = std::str::from_utf8(&request.body).expect("UTF-8");
        assert!(text.ends_with('\n'), "a bulk ends with a line feed");
        let lines: Vec<Value> =
            text.split_terminator('\n').map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let items: Vec<Value> = lines.chunks(2).map(|pair| self.create(&pair[0], &pair[1])).collect();
        let errors = items.iter().any(|item| item["create"]["error"].is_object());
        self.requests += 1;
        if self.requests.is_multiple_of(5) {
            return Reply::Nothing;
        }
        let answer = serde_json::json!({"took": 1, "errors": errors, "items": items});
        Reply::Answer(200, answer.to_string())
    }
}

fn date(document: &Value) -> String {
    document["@timestamp"].as_str().unwrap()[..10].replace('-', ".")
}

#[test]
fn elasticsearch_gets_every_line_once_and_what_it_cannot_map_is_a_dead_letter() {
    let scene = Scene::new("elasticsearch_gets_every_line_once_and_what_it_cannot_map_is_a_dead_letter");
    let index: Shelf<Index> = Shelf::default();
    let shelf = Arc::clone(&index);
    let receiver = Receiver::start(move |request| shelf.lock().unwrap().bulk(request));
    let config = quick(&scene, receiver.url("/_bulk"))
        .global("format", "elasticsearch")
        .global("elasticsearch_index", "logs-{source}-{date}")
        .global("max_batch_size", 30)
        .table("labels", "environment", "test");
    config.write();
    let mut all = lines(200);
    for number in [0, 7, 8, 95, 199] {
        all[number].push_str(BAD);
    }
    for number in [1, 60, 150] {
        all[number].push_str(BUSY);
    }
    write(&scene, &all);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "every document but the bad ones is there", || {
        index.lock().unwrap().documents.len() >= 195
    });
    await_dead(&scene, "document_parsing_exception", 5);
    // A death, and a start after it, add nothing: what comes again stands there already.
    agent.kill();
    let agent = Agent::start(&scene);
    agent.await_started();
    assert_eq!(agent.stop(), Some(0));
    let index = index.lock().unwrap();
    assert!(index.conflicts > 0, "nothing came twice, so nothing was shown");
    let mut messages: Vec<_> = index.documents.values().map(|doc| doc["message"].as_str().unwrap()).collect();
    messages.sort_unstable();
    let expected: Vec<_> = all.iter().filter(|line| !line.contains(BAD)).collect();
    assert_eq!(messages, expected);
    for document in index.documents.values() {
        assert_eq!(document["labels"]["environment"], "test");
        assert_eq!(document["log"]["file"]["path"], scene.path("logs/app.log").to_str().unwrap());
    }
}

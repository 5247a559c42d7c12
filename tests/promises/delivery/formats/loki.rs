//! A server that takes pushes as Loki is documented to: entries with the same time and text in a stream are one, and
//! 400 says that some were not taken while the others were.

use std::collections::BTreeSet;

use super::*;

const TOO_OLD: &str = "TOO OLD";

#[derive(Default)]
struct Streams {
    /// Entries by the labels of their stream.
    streams: BTreeMap<String, BTreeSet<(u64, String)>>,
    requests: usize,
    twice: usize,
}

impl Streams {
    fn push(&mut self, request: &Message) -> Reply {
        assert_eq!((request.word(0), request.word(1)), ("POST", "/loki/api/v1/push"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let mut body = Vec::new();
        let coded = request.header("content-encoding") == Some("gzip");
        assert!(coded, "what was configured is coded");
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&request.body[..]), &mut body).unwrap();
        let push: Value = serde_json::from_slice(&body).expect("JSON");
        let mut refused = 0;
        for stream in push["streams"].as_array().unwrap() {
            let mut newest = 0;
            let entries = self.streams.entry(stream["stream"].to_string()).or_default();
            for entry in stream["values"].as_array().unwrap() {
                let time: u64 = entry[0].as_str().expect("a string").parse().expect("nanoseconds");
                let line = entry[1].as_str().expect("a string").to_owned();
                assert!(newest < time, "entries are in order");
                newest = time;
                if line.contains(TOO_OLD) {
                    refused += 1;
                } else if !entries.insert((time, line)) {
                    self.twice += 1;
                }
            }
        }
        self.requests += 1;
        match refused {
            _ if self.requests.is_multiple_of(4) => Reply::Nothing,
            0 => Reply::Answer(204, String::new()),
            _ => Reply::Answer(400, format!("entry too far behind, total ignored: {refused} out of some")),
        }
    }
}

#[test]
fn loki_gets_every_line_once_like_lines_too_and_what_is_too_old_is_a_dead_letter() {
    let scene = Scene::new("loki_gets_every_line_once_like_lines_too_and_what_is_too_old_is_a_dead_letter");
    let streams: Shelf<Streams> = Shelf::default();
    let shelf = Arc::clone(&streams);
    let receiver = Receiver::start(move |request| shelf.lock().unwrap().push(request));
    let config = quick(&scene, receiver.url("/loki/api/v1/push"))
        .global("format", "loki")
        .global("compression", "gzip")
        .global("max_batch_size", 20)
        .table("labels", "environment", "test");
    config.write();
    let mut all = lines(120);
    // Detected in one millisecond, as they are written at once: only their numbers tell them apart.
    all.extend(std::iter::repeat_n("the same".to_owned(), 50));
    for number in [3, 4, 77] {
        all[number].push_str(TOO_OLD);
    }
    write(&scene, &all);
    let agent = Agent::start(&scene);
    let stored = || streams.lock().unwrap().streams.values().map(BTreeSet::len).sum::<usize>();
    wait_for(PATIENCE, "every entry but the old ones is there", || stored() >= 167);
    await_dead(&scene, "total ignored", 3);
    wait_for(PATIENCE, "all is settled", || agent.said().contains("moved to the dead letters"));
    assert_eq!(agent.stop(), Some(0));
    let streams = streams.lock().unwrap();
    assert!(streams.twice > 0, "nothing came twice, so nothing was shown");
    assert_eq!(streams.streams.len(), 1);
    let labels: Value = serde_json::from_str(streams.streams.keys().next().unwrap()).unwrap();
    let path = scene.path("logs/app.log");
    assert_eq!(
        labels,
        serde_json::json!({"agent": "agent1", "source": "app", "path": path.to_str().unwrap(), "environment": "test"})
    );
    // In the order of their times they are in the order of the file.
    let got: Vec<_> = streams.streams.values().flatten().map(|(_, line)| line).collect();
    assert_eq!(got, all.iter().filter(|line| !line.contains(TOO_OLD)).collect::<Vec<_>>());
}

//! Every format is read again, by another reader than the one that wrote it, and is what the documentation shows.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use super::otlp::proto;
use super::*;
use crate::batch::FrameSlice;
use crate::config::Labels;
use crate::event::{EventBlock, Seq, SourceName, Timestamp};

const SPOOL: &str = "0123456789abcdef0123456789abcdef";
const FORMATS_MD: &str = include_str!("../../docs/formats.md");

/// A frame of a source: when its lines were detected, and its events, all of one file.
#[derive(Clone, Debug)]
struct Frame {
    source: u8,
    file: u8,
    detected: i64,
    events: Vec<(Vec<u8>, bool, Option<i64>)>,
}

fn source_name(number: u8) -> SourceName {
    SourceName::from(["app1", "we\"b", "öl"][usize::from(number) % 3])
}

fn path(number: u8) -> &'static Path {
    use std::os::unix::ffi::OsStrExt as _;
    let paths: [&[u8]; 3] = [b"/var/log/app1/app.log", b"/var/log/\xFF\"odd\\.log", b"/var/log/b.log"];
    Path::new(std::ffi::OsStr::from_bytes(paths[usize::from(number) % 3]))
}

fn content_of(frames: &[Frame], first_seq: u64) -> BatchContent {
    let mut content = BatchContent::default();
    let mut next = [Seq(first_seq); 3];
    for frame in frames {
        let mut block = EventBlock::default();
        for (line, continues, time) in &frame.events {
            block.push_timed(line, *continues, time.map(Timestamp::from_millis));
        }
        let payload = Arc::new(block.into_buffer());
        let slice = FrameSlice {
            range: 0..payload.len(),
            payload,
            detected: Timestamp::from_millis(frame.detected),
            path: path(frame.file).into(),
        };
        let events = u32::try_from(frame.events.len()).unwrap();
        let seq = &mut next[usize::from(frame.source) % 3];
        content.push(&source_name(frame.source), *seq, events, slice);
        *seq = seq.plus(u64::from(events));
    }
    content
}

/// An event as it is to arrive.
#[derive(Clone, Debug, PartialEq)]
struct Arrived {
    source: String,
    seq: u64,
    path: String,
    time: i64,
    line: String,
    continues: bool,
    labels: Labels,
}

/// What is to arrive of `content`, in payload order.
fn expected(profile: &Profile, content: &BatchContent) -> Vec<Arrived> {
    let of_run = |run| outgoing(run).map(move |event| (run, event));
    let events = content.sources.iter().flat_map(of_run);
    events
        .map(|(run, event)| Arrived {
            source: run.source.to_string(),
            seq: event.seq.0,
            path: event.path.display().to_string(),
            time: event.time.millis(),
            line: String::from_utf8_lossy(event.line).into_owned(),
            continues: event.continues,
            labels: profile.labels_of(&run.source),
        })
        .collect()
}

fn profile(format: Format) -> Profile {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Profile {
        agent_name: "agent1".to_owned(),
        format,
        labels: Labels::from([label("environment", "production"), label("team", "nobody")]),
        source_labels: [(source_name(0), Labels::from([label("team", "payments")]))].into(),
        index: "logs-{source}-{date}".to_owned(),
        rekeyed: false,
    }
}

fn encoded(format: Format, content: &BatchContent) -> Vec<u8> {
    let mut body = Vec::new();
    let ends = Encoder::new(&profile(format)).encode(SPOOL, content, &mut body);
    assert!(ends.is_empty(), "nobody asked where events end");
    body
}

fn lines_of(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).expect("the body is UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'));
    // Not `str::lines`, which ends lines at other places as well.
    text.split_terminator('\n').map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

fn labels(value: &Value) -> Labels {
    let object = value.as_object().unwrap();
    object.iter().map(|(name, value)| (name.clone(), string(value))).collect()
}

fn millis(text: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().timestamp_millis()
}

fn from_ndjson(body: &[u8]) -> Vec<Arrived> {
    let event = |event: Value| {
        assert_eq!((&event["agentName"], &event["spoolId"]), (&json!("agent1"), &json!(SPOOL)));
        Arrived {
            source: string(&event["sourceName"]),
            seq: event["seq"].as_u64().unwrap(),
            path: string(&event["path"]),
            time: millis(&event["timestamp"]),
            line: string(&event["data"]),
            continues: event.get("continues").is_some(),
            labels: labels(&event["labels"]),
        }
    };
    lines_of(body).into_iter().map(event).collect()
}

fn from_elasticsearch(body: &[u8]) -> Vec<Arrived> {
    let lines = lines_of(body);
    assert_eq!(lines.len() % 2, 0);
    let event = |pair: &[Value]| {
        let (action, document) = (&pair[0]["create"], &pair[1]);
        let (source, seq) =
            (string(&document["event"]["dataset"]), document["event"]["sequence"].as_u64().unwrap());
        assert_eq!(action["_id"], json!(format!("{SPOOL}-{source}-{seq}")));
        let date = string(&document["@timestamp"])[..10].replace('-', ".");
        let in_index = if source == "app1" {
            "app1"
        } else if source == "öl" {
            "-l"
        } else {
            "we-b"
        };
        assert_eq!(action["_index"], json!(format!("logs-{in_index}-{date}")));
        assert_eq!(document["agent"]["name"], "agent1");
        Arrived {
            source,
            seq,
            path: string(&document["log"]["file"]["path"]),
            time: millis(&document["@timestamp"]),
            line: string(&document["message"]),
            continues: document.get("tags").is_some(),
            labels: labels(&document["labels"]),
        }
    };
    lines.chunks(2).map(event).collect()
}

/// The entries of each stream in order, by its labels.
fn from_loki(body: &[u8]) -> Vec<(Labels, Vec<(i128, String)>)> {
    let push: Value = serde_json::from_slice(body).unwrap();
    let entry = |entry: &Value| (string(&entry[0]).parse().unwrap(), string(&entry[1]));
    let stream = |stream: &Value| {
        (labels(&stream["stream"]), stream["values"].as_array().unwrap().iter().map(entry).collect())
    };
    push["streams"].as_array().unwrap().iter().map(stream).collect()
}

/// The message that a body of OTLP in JSON stands for.
fn from_otlp_json(body: &[u8]) -> proto::ExportLogsServiceRequest {
    let any = |value: &Value| {
        let value = match value.get("boolValue") {
            Some(truth) => proto::Value::Bool(truth.as_bool().unwrap()),
            None => proto::Value::String(string(&value["stringValue"])),
        };
        Some(proto::AnyValue { value: Some(value) })
    };
    let attributes = |value: &Value| {
        let attribute =
            |pair: &Value| proto::KeyValue { key: string(&pair["key"]), value: any(&pair["value"]) };
        value["attributes"].as_array().unwrap().iter().map(attribute).collect::<Vec<_>>()
    };
    let number = |value: &Value| string(value).parse().unwrap();
    let record = |record: &Value| proto::LogRecord {
        time_unix_nano: number(&record["timeUnixNano"]),
        observed_time_unix_nano: number(&record["observedTimeUnixNano"]),
        body: any(&record["body"]),
        attributes: attributes(record),
    };
    let scope = |scope: &Value| proto::ScopeLogs {
        scope: Some(proto::InstrumentationScope { name: string(&scope["scope"]["name"]) }),
        log_records: scope["logRecords"].as_array().unwrap().iter().map(record).collect(),
    };
    let resource = |resource: &Value| proto::ResourceLogs {
        resource: Some(proto::Resource { attributes: attributes(&resource["resource"]) }),
        scope_logs: resource["scopeLogs"].as_array().unwrap().iter().map(scope).collect(),
    };
    let request: Value = serde_json::from_slice(body).unwrap();
    let resource_logs = request["resourceLogs"].as_array().unwrap().iter().map(resource).collect();
    proto::ExportLogsServiceRequest { resource_logs }
}

fn from_otlp(request: &proto::ExportLogsServiceRequest) -> Vec<Arrived> {
    let text = |value: &Option<proto::AnyValue>| match value.as_ref().and_then(|value| value.value.clone()) {
        Some(proto::Value::String(text)) => text,
        other => panic!("{other:?} is no text"),
    };
    let named = |attributes: &[proto::KeyValue], name: &str| {
        attributes.iter().find(|attribute| attribute.key == name).map(|attribute| text(&attribute.value))
    };
    let mut arrived = Vec::new();
    for of_source in &request.resource_logs {
        let resource = &of_source.resource.as_ref().unwrap().attributes;
        let source = named(resource, "log_agent.source").unwrap();
        assert_eq!(named(resource, "service.name"), Some(source.clone()));
        assert_eq!(named(resource, "log_agent.name").as_deref(), Some("agent1"));
        let own = ["service.name", "log_agent.name", "log_agent.source"];
        let labels = resource.iter().filter(|label| !own.contains(&label.key.as_str()));
        let labels: Labels = labels.map(|label| (label.key.clone(), text(&label.value))).collect();
        for record in &of_source.scope_logs[0].log_records {
            let uid = named(&record.attributes, "log.record.uid").unwrap();
            let seq = uid.strip_prefix(&format!("{SPOOL}-{source}-")).unwrap().parse().unwrap();
            arrived.push(Arrived {
                source: source.clone(),
                seq,
                path: named(&record.attributes, "log.file.path").unwrap(),
                time: i64::try_from(record.time_unix_nano / 1_000_000).unwrap(),
                line: text(&record.body),
                continues: record.attributes.iter().any(|attribute| attribute.key == "log_agent.continues"),
                labels: labels.clone(),
            });
        }
    }
    arrived
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "\\PC{0,40}".prop_map(String::into_bytes),
        // What formats of lines and of strings trip over; half a surrogate pair as some encoders write it; a cut character.
        proptest::sample::select(vec![
            "two\nlines\n".as_bytes(),
            "\u{2028}\u{2029}\u{85}\u{feff}".as_bytes(),
            "\\u2028 \\ud800 \\n \" {}\r\n".as_bytes(),
            b"\xED\xA0\x80\xED\xB0\x80",
            b"\xF0\x9F\x98",
            b"\0\x01\x1F\x7F",
            "😀\u{10FFFF}".as_bytes(),
            b"",
        ])
        .prop_map(<[u8]>::to_vec),
    ]
}

fn any_frames() -> impl Strategy<Value = Vec<Frame>> {
    // From 1970 to the year 2500: OTLP cannot say what is before it, or after 2554.
    let time = 0..16_725_225_600_000_i64;
    let event = (any_line(), any::<bool>(), proptest::option::of(time.clone()));
    let frame = (0..3_u8, 0..3_u8, time, proptest::collection::vec(event, 1..5))
        .prop_map(|(source, file, detected, events)| Frame { source, file, detected, events });
    proptest::collection::vec(frame, 1..6)
}

proptest! {
    #[test]
    fn every_event_is_read_again_from_every_format_that_keeps_events_apart(frames in any_frames(), first_seq in 1..u64::from(u32::MAX)) {
        let content = content_of(&frames, first_seq);
        let expected = expected(&profile(Format::Ndjson), &content);
        prop_assert_eq!(&from_ndjson(&encoded(Format::Ndjson, &content)), &expected);
        prop_assert_eq!(&from_elasticsearch(&encoded(Format::Elasticsearch, &content)), &expected);
        let protobuf = encoded(Format::OtlpProtobuf, &content);
        let request = proto::ExportLogsServiceRequest::decode(protobuf.as_slice()).unwrap();
        prop_assert_eq!(&from_otlp(&request), &expected);
        prop_assert_eq!(from_otlp_json(&encoded(Format::OtlpJson, &content)), request);
    }

    #[test]
    fn a_stream_of_loki_has_the_events_of_a_source_and_a_file_in_the_order_of_time(frames in any_frames(), first_seq in 1..2_000_000_u64) {
        let content = content_of(&frames, first_seq);
        let profile = profile(Format::Loki);
        let mut expected: Vec<(Labels, Vec<(i128, String)>)> = Vec::new();
        for event in expected_of_loki(&profile, &content) {
            match expected.iter_mut().find(|(labels, _)| *labels == event.0) {
                Some((_, entries)) => entries.push(event.1),
                None => expected.push((event.0, vec![event.1])),
            }
        }
        for (_, entries) in &mut expected {
            entries.sort_by_key(|(nanos, _)| *nanos);
            let mut times: Vec<_> = entries.iter().map(|(nanos, _)| *nanos).collect();
            times.dedup();
            prop_assert_eq!(times.len(), entries.len(), "no two entries of a stream have one time");
        }
        prop_assert_eq!(from_loki(&encoded(Format::Loki, &content)), expected);
    }

    #[test]
    fn where_each_event_ends_is_said_where_it_is_wanted_and_the_bytes_are_the_same(frames in any_frames()) {
        let content = content_of(&frames, 1);
        let lines: Vec<&[u8]> = content.sources.iter().flat_map(outgoing).map(|event| event.line).collect();
        for format in Format::ALL {
            let encoder = Encoder::new(&profile(format)).marking_ends(true);
            let mut body = Vec::new();
            let ends = encoder.encode(SPOOL, &content, &mut body);
            prop_assert_eq!(&body, &encoded(format, &content));
            if !matches!(format, Format::Ndjson | Format::Raw) {
                prop_assert!(ends.is_empty(), "{:?}", format);
                continue;
            }
            prop_assert_eq!((ends.len(), ends.last()), (lines.len(), Some(&body.len())));
            let starts = std::iter::once(0).chain(ends.iter().copied());
            for ((start, end), line) in starts.zip(&ends).zip(&lines) {
                let (last, event) = body[start..*end].split_last().unwrap();
                prop_assert_eq!(*last, b'\n');
                if format == Format::Raw {
                    prop_assert_eq!(event, *line);
                } else {
                    let event: Value = serde_json::from_slice(event).unwrap();
                    prop_assert_eq!(string(&event["data"]), String::from_utf8_lossy(line));
                }
            }
        }
    }

    #[test]
    fn raw_bodies_are_the_bytes_of_the_lines(frames in any_frames()) {
        let content = content_of(&frames, 1);
        let mut lines = Vec::new();
        for event in content.sources.iter().flat_map(outgoing) {
            lines.extend_from_slice(event.line);
            lines.push(b'\n');
        }
        prop_assert_eq!(encoded(Format::Raw, &content), lines);
    }

    #[test]
    fn labels_stand_beside_the_name_of_their_source_in_json(frames in any_frames()) {
        let content = content_of(&frames, 1);
        let body: Value = serde_json::from_slice(&encoded(Format::Json, &content)).unwrap();
        for (source, run) in body["sources"].as_array().unwrap().iter().zip(&content.sources) {
            prop_assert_eq!(labels(&source["labels"]), profile(Format::Json).labels_of(&run.source));
            prop_assert_eq!(source["logs"].as_array().unwrap().len(), run.events as usize);
        }
    }
}

/// What is to arrive at Loki: the labels of the stream, and the entry.
fn expected_of_loki(profile: &Profile, content: &BatchContent) -> Vec<(Labels, (i128, String))> {
    let entry = |event: Arrived| {
        let mut labels = event.labels;
        let own = [("agent", "agent1".to_owned()), ("source", event.source), ("path", event.path)];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
        (labels, (i128::from(event.time) * 1_000_000 + i128::from(event.seq % 1_000_000), event.line))
    };
    expected(profile, content).into_iter().map(entry).collect()
}

/// The batch of the documentation: two events of one source.
fn example() -> BatchContent {
    let events = vec![
        (b"started".to_vec(), false, None),
        (b"panic: \"disk full\"\n  at main".to_vec(), false, Some(1_705_314_600_500)),
    ];
    content_of(&[Frame { source: 0, file: 0, detected: 1_705_314_600_123, events }], 1001)
}

#[test]
fn the_documentation_shows_the_body_of_every_format() {
    for format in Format::ALL {
        let body = encoded(format, &example());
        let body = if format == Format::OtlpProtobuf {
            base64::engine::general_purpose::STANDARD.encode(body) + "\n"
        } else {
            let mut text = String::from_utf8(body).unwrap();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        };
        let section =
            FORMATS_MD.split("\n## ").find(|section| section.starts_with(&format!("`{}`\n", format.name())));
        let shown = section
            .unwrap_or_else(|| panic!("docs/formats.md has no section of {format:?}"))
            .split("\n```")
            .nth(1)
            .and_then(|block| block.split_once('\n'))
            .map(|(_, block)| format!("{block}\n"));
        assert_eq!(
            shown.as_deref(),
            Some(body.as_str()),
            "docs/formats.md, {format:?}: its first block is to be\n{body}"
        );
    }
}

#[test]
fn every_format_is_a_pure_function_of_its_content() {
    for format in Format::ALL {
        assert_eq!(encoded(format, &example()), encoded(format, &example()), "{format:?}");
    }
}

#[test]
fn an_index_is_one_that_elasticsearch_takes_whatever_the_names() {
    for (template, agent, index) in [
        ("log-agent-{date}", "a", "log-agent-2024.01.15"),
        ("{agent}-x", "__Ä/B*c", "b-c-x"),
        ("{agent}", "....", "log-agent"),
        ("{agent}{date}", "-", "2024.01.15"),
        ("x-{date}-{agent}", "{date} {source}", "x-2024.01.15--date---source-"),
    ] {
        let profile =
            Profile { agent_name: agent.into(), index: template.into(), ..profile(Format::Elasticsearch) };
        let mut body = Vec::new();
        Encoder::new(&profile).encode(SPOOL, &example(), &mut body);
        assert_eq!(lines_of(&body)[0]["create"]["_index"], index, "{template} of {agent}");
    }
}

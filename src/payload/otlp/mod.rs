//! OTLP logs, in JSON and in protobuf: the same messages in either.
//!
//! A source is a resource, an event a log record. A record's `log.record.uid` is the event's identity for ever, by which a
//! receiver can tell a record that comes again.
//!
//! Invariant: nothing in a body depends on the version of this program; a resend after an update is the same.

pub(crate) mod proto;

use std::io::Write as _;

use prost::Message as _;

use self::proto::{
    AnyValue, ExportLogsServiceRequest, InstrumentationScope, KeyValue, LogRecord, Resource, ResourceLogs,
    ScopeLogs, Value,
};
use super::json::write_string;
use super::outgoing::{Outgoing, nanos, outgoing};
use super::profile::Profile;
use crate::batch::{BatchContent, SourceRun};
use crate::config::Format;

/// The name of the instrumentation scope.
const SCOPE: &str = "log-agent";

/// Encodes batches as OTLP.
#[derive(Clone, Debug)]
pub struct OtlpEncoder {
    profile: Profile,
}

impl OtlpEncoder {
    /// An encoder for what `profile` says: in protobuf if it says so, otherwise in JSON.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.clone() }
    }

    /// Appends the body of `content` to `body`.
    pub fn encode(&self, spool_id: &str, content: &BatchContent, body: &mut Vec<u8>) {
        if self.profile.format == Format::OtlpProtobuf {
            let resource_logs = content.sources.iter().map(|run| self.resource_logs(spool_id, run)).collect();
            // Room in a Vec does not run out.
            let _ = ExportLogsServiceRequest { resource_logs }.encode(body);
            return;
        }
        body.extend_from_slice(b"{\"resourceLogs\":[");
        for (number, run) in content.sources.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            self.write_resource_logs(spool_id, run, body);
        }
        body.extend_from_slice(b"]}");
    }

    /// The attributes of a source: who it is, who read it, and its labels, which win.
    fn resource(&self, run: &SourceRun) -> Vec<(String, String)> {
        let labels = self.profile.labels_of(&run.source);
        let own = [
            ("service.name", run.source.as_str()),
            ("log_agent.name", &self.profile.agent_name),
            ("log_agent.source", run.source.as_str()),
        ];
        let own = own.into_iter().filter(|(name, _)| !labels.contains_key(*name));
        let mut all: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.extend(labels);
        all
    }

    fn resource_logs(&self, spool_id: &str, run: &SourceRun) -> ResourceLogs {
        let attributes = self.resource(run).into_iter().map(|(name, value)| attribute(name, value)).collect();
        let scope = InstrumentationScope { name: SCOPE.to_owned() };
        let log_records = outgoing(run).map(|event| log_record(spool_id, run, &event)).collect();
        ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records }],
        }
    }

    fn write_resource_logs(&self, spool_id: &str, run: &SourceRun, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"resource\":{\"attributes\":[");
        for (number, (name, value)) in self.resource(run).iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            write_attribute(name, value.as_bytes(), body);
        }
        // Writing to a Vec cannot fail.
        let _ = write!(body, "]}},\"scopeLogs\":[{{\"scope\":{{\"name\":\"{SCOPE}\"}},\"logRecords\":[");
        for (number, event) in outgoing(run).enumerate() {
            if number > 0 {
                body.push(b',');
            }
            write_log_record(spool_id, run, &event, body);
        }
        body.extend_from_slice(b"]}]}");
    }
}

/// What tells the event from every other, for ever.
fn uid(spool_id: &str, run: &SourceRun, event: &Outgoing<'_>) -> String {
    format!("{spool_id}-{}-{}", run.source.as_str(), event.seq)
}

fn attribute(key: String, value: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(Value::String(value)) }) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn log_record(spool_id: &str, run: &SourceRun, event: &Outgoing<'_>) -> LogRecord {
    let path = text(event.path.as_os_str().as_encoded_bytes());
    let mut attributes = vec![
        attribute("log.record.uid".to_owned(), uid(spool_id, run, event)),
        attribute("log.file.path".to_owned(), path),
    ];
    if event.continues {
        let value = Some(AnyValue { value: Some(Value::Bool(true)) });
        attributes.push(KeyValue { key: "log_agent.continues".to_owned(), value });
    }
    LogRecord {
        time_unix_nano: nanos(event.time),
        body: Some(AnyValue { value: Some(Value::String(text(event.line))) }),
        attributes,
        observed_time_unix_nano: nanos(event.detected),
    }
}

fn write_attribute(name: &str, value: &[u8], body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"key\":");
    write_string(name.as_bytes(), body);
    body.extend_from_slice(b",\"value\":{\"stringValue\":");
    write_string(value, body);
    body.extend_from_slice(b"}}");
}

fn write_log_record(spool_id: &str, run: &SourceRun, event: &Outgoing<'_>, body: &mut Vec<u8>) {
    // Writing to a Vec cannot fail. 64-bit numbers are strings in the JSON of protobuf.
    let _ = write!(
        body,
        "{{\"timeUnixNano\":\"{}\",\"observedTimeUnixNano\":\"{}\",\"body\":{{\"stringValue\":",
        nanos(event.time),
        nanos(event.detected)
    );
    write_string(event.line, body);
    body.extend_from_slice(b"},\"attributes\":[");
    write_attribute("log.record.uid", uid(spool_id, run, event).as_bytes(), body);
    body.push(b',');
    write_attribute("log.file.path", event.path.as_os_str().as_encoded_bytes(), body);
    if event.continues {
        body.extend_from_slice(b",{\"key\":\"log_agent.continues\",\"value\":{\"boolValue\":true}}");
    }
    body.extend_from_slice(b"]}");
}

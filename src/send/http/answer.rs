//! What a 2xx says of the events one by one, in the formats whose servers answer so.
//!
//! Invariants:
//! - `Acknowledged` is said only where every event was taken; of a batch that was taken in part, nothing is.
//! - Pure: what was answered in, an outcome out. No text here went through the redactor yet.

use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::client::Verdict;
use crate::config::Format;
use crate::payload::otlp::proto::ExportLogsServiceResponse;
use crate::send::Outcome;

/// An answer is read up to this size, in bytes, and this for each event.
const ANSWER_BYTES: usize = 64 * 1024;
const ANSWER_BYTES_PER_EVENT: usize = 4 * 1024;
/// No answer is read past this size.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an event that already stands in Elasticsearch is answered with.
const CONFLICT: u16 = 409;

/// How many bytes of a 2xx have to be read to know what became of so many events; `None` where the status says it all.
pub(super) fn bytes_max(format: Format, events: u64) -> Option<usize> {
    match format {
        Format::Json | Format::Ndjson | Format::Loki | Format::Raw => None,
        Format::OtlpJson | Format::OtlpProtobuf => Some(ANSWER_BYTES),
        Format::Elasticsearch => {
            let events = usize::try_from(events).unwrap_or(usize::MAX);
            let bytes = events.saturating_mul(ANSWER_BYTES_PER_EVENT).saturating_add(ANSWER_BYTES);
            Some(bytes.min(ANSWER_BYTES_MAX))
        }
    }
}

/// What a 2xx with this whole body means for a batch of so many events.
pub(super) fn outcome(format: Format, status: u16, events: u64, body: &[u8]) -> Outcome {
    match format {
        Format::Json | Format::Ndjson | Format::Loki | Format::Raw => Outcome::Acknowledged,
        Format::OtlpJson => {
            otlp(status, serde_json::from_slice::<OtlpAnswer>(body).ok().and_then(OtlpAnswer::refused))
        }
        Format::OtlpProtobuf => {
            let answer = ExportLogsServiceResponse::decode(body).ok();
            let partial = answer.and_then(|answer| answer.partial_success);
            otlp(status, partial.map(|partial| (partial.rejected_log_records, partial.error_message)))
        }
        Format::Elasticsearch => bulk(events, body),
    }
}

/// `ExportLogsServiceResponse` in JSON, where 64-bit numbers are strings, and servers send numbers as well.
#[derive(Deserialize)]
struct OtlpAnswer {
    #[serde(rename = "partialSuccess", alias = "partial_success")]
    partial_success: Option<Partial>,
}

#[derive(Deserialize)]
struct Partial {
    #[serde(rename = "rejectedLogRecords", alias = "rejected_log_records")]
    rejected: Option<Number>,
    #[serde(default, rename = "errorMessage", alias = "error_message")]
    message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl OtlpAnswer {
    fn refused(self) -> Option<(i64, String)> {
        let partial = self.partial_success?;
        let rejected = match partial.rejected? {
            Number::Number(number) => number,
            Number::Text(text) => text.parse().ok()?,
        };
        Some((rejected, partial.message))
    }
}

/// A partial success rejects events without saying which; they are found by halving the batch.
fn otlp(status: u16, refused: Option<(i64, String)>) -> Outcome {
    match refused {
        Some((rejected, message)) if rejected > 0 => {
            Outcome::Rejected { status, response: format!("{rejected} rejected: {message}") }
        }
        _ => Outcome::Acknowledged,
    }
}

/// The answer of the bulk API.
#[derive(Deserialize)]
struct Bulk<'a> {
    errors: bool,
    #[serde(borrow)]
    items: Option<Vec<Line<'a>>>,
}

/// One item, under the name of its action.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, alias = "index")]
    create: Item<'a>,
}

#[derive(Deserialize)]
struct Item<'a> {
    status: u16,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Item<'_> {
    fn error(&self) -> &str {
        self.error.map_or("no error is named", RawValue::get)
    }
}

fn bulk(events: u64, body: &[u8]) -> Outcome {
    let fault = |what: &str| Outcome::EndpointFault {
        reason: format!(
            "the server answered {what}: check that end_point is that of the bulk API, .../_bulk"
        ),
    };
    let Ok(Bulk { errors, items }) = serde_json::from_slice::<Bulk<'_>>(body) else {
        return fault("2xx without what the bulk API answers");
    };
    let items = match items {
        Some(items) if items.len() as u64 == events => items,
        // `filter_path` may leave them out.
        None if !errors => return Outcome::Acknowledged,
        _ => return fault("for another number of events than were sent"),
    };
    let (mut later, mut at_fault, mut refused) = (None, None, None);
    for Line { create: item } in &items {
        let place = match Verdict::of(item.status) {
            Verdict::Taken => continue,
            Verdict::Fault if item.status == CONFLICT => continue,
            Verdict::Later => &mut later,
            Verdict::Fault => &mut at_fault,
            Verdict::Refused => &mut refused,
        };
        place.get_or_insert(item);
    }
    // What may pass comes first: once it has passed, the rest is settled.
    if let Some(item) = later {
        let reason = format!("the server answered {} for an event: {}", item.status, one_line(item.error()));
        return Outcome::Retry { after: None, reason };
    }
    if let Some(item) = at_fault {
        let error = one_line(item.error());
        let reason = format!(
            "the server answered {} for an event: check elasticsearch_index and what the server allows this agent: {error}",
            item.status
        );
        return Outcome::EndpointFault { reason };
    }
    match refused {
        Some(item) => Outcome::Rejected { status: item.status, response: item.error().to_owned() },
        None => Outcome::Acknowledged,
    }
}

/// The beginning of an error, on one line.
fn one_line(text: &str) -> String {
    const SHOWN_CHARS: usize = 300;
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::otlp::proto::ExportLogsPartialSuccess;

    fn bulk_of(statuses: &[u16]) -> Outcome {
        let item = |status: &u16| {
            let error =
                if *status < 300 { String::new() } else { format!(",\"error\":{{\"type\":\"t{status}\"}}") };
            format!("{{\"create\":{{\"_index\":\"i\",\"_id\":\"x\",\"status\":{status}{error}}}}}")
        };
        let items: Vec<_> = statuses.iter().map(item).collect();
        let errors = statuses.iter().any(|status| *status >= 300);
        let body = format!("{{\"took\":3,\"errors\":{errors},\"items\":[{}]}}", items.join(","));
        outcome(Format::Elasticsearch, 200, statuses.len() as u64, body.as_bytes())
    }

    #[test]
    fn a_bulk_is_taken_when_every_event_of_it_stands_there() {
        assert_eq!(bulk_of(&[201, 200]), Outcome::Acknowledged);
        assert_eq!(bulk_of(&[409, 201, 409]), Outcome::Acknowledged, "a resend meets what it stored before");
    }

    #[test]
    fn what_may_pass_is_waited_for_before_what_is_refused_is_sorted_out() {
        for later in [408, 429, 500, 503] {
            assert!(
                matches!(bulk_of(&[201, 400, later, 404]), Outcome::Retry { after: None, .. }),
                "{later}"
            );
        }
        for fault in [401, 403, 404] {
            assert!(matches!(bulk_of(&[400, 201, fault]), Outcome::EndpointFault { .. }), "{fault}");
        }
        let expected = Outcome::Rejected { status: 400, response: "{\"type\":\"t400\"}".into() };
        assert_eq!(bulk_of(&[409, 201, 400]), expected);
    }

    #[test]
    fn an_answer_that_is_none_of_the_bulk_api_takes_nothing() {
        for body in [
            "",
            "{}",
            "ok",
            "<html>",
            r#"{"errors":true}"#,
            r#"{"errors":false,"items":[{"create":{"status":201}}]}"#,
            r#"{"errors":false,"items":[]}"#,
            r#"{"errors":true,"items":[{"delete":{"status":200}},{"create":{"status":201}}]}"#,
        ] {
            let outcome = outcome(Format::Elasticsearch, 200, 2, body.as_bytes());
            assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{body}: {outcome:?}");
        }
        let filtered = outcome(Format::Elasticsearch, 200, 2, br#"{"errors":false}"#);
        assert_eq!(filtered, Outcome::Acknowledged);
    }

    #[test]
    fn a_partial_success_is_a_refusal_only_where_something_was_rejected() {
        let json = |body: &str| outcome(Format::OtlpJson, 200, 3, body.as_bytes());
        for taken in [
            "",
            "{}",
            "ok",
            r#"{"partialSuccess":null}"#,
            r#"{"partialSuccess":{}}"#,
            r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"slow down"}}"#,
        ] {
            assert_eq!(json(taken), Outcome::Acknowledged, "{taken}");
        }
        let refused = Outcome::Rejected { status: 200, response: "2 rejected: too old".into() };
        for number in ["2", "\"2\""] {
            let body =
                format!(r#"{{"partialSuccess":{{"rejectedLogRecords":{number},"errorMessage":"too old"}}}}"#);
            assert_eq!(json(&body), refused);
        }
        let protobuf = |rejected_log_records| {
            let error_message = "too old".to_owned();
            let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!(outcome(Format::OtlpProtobuf, 200, 3, &protobuf(2)), refused);
        assert_eq!(outcome(Format::OtlpProtobuf, 200, 3, &protobuf(0)), Outcome::Acknowledged);
        assert_eq!(outcome(Format::OtlpProtobuf, 200, 3, b""), Outcome::Acknowledged);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200), events in any::<u64>()) {
            for format in Format::ALL {
                let _ = bytes_max(format, events);
                let _ = outcome(format, 200, events, &body);
            }
        }

        #[test]
        fn a_bulk_is_taken_only_if_every_item_is(statuses in proptest::collection::vec(
            proptest::sample::select(vec![200_u16, 201, 409, 400, 413, 429, 503, 404]), 1..6)) {
            let all = statuses.iter().all(|status| matches!(status, 200 | 201 | 409));
            prop_assert_eq!(bulk_of(&statuses) == Outcome::Acknowledged, all);
        }
    }
}

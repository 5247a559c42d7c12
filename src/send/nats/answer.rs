//! What an answer to a publication means. Pure: the table of `docs/strategies.md` in code.

use serde::Deserialize;

use crate::send::Outcome;
use crate::send::client::fault::said;

/// What JetStream answers to a publication.
#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

/// Why it does not take a message.
#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// What the `answer` to a publication on `subject` means.
pub(super) fn outcome_of(answer: &[u8], subject: &str) -> Outcome {
    let ack = match serde_json::from_slice::<PubAck>(answer) {
        Ok(PubAck { error: Some(error), .. }) => return refusal(&error),
        Ok(ack) => ack,
        Err(_) => PubAck { stream: String::new(), seq: 0, error: None },
    };
    if ack.stream.is_empty() || ack.seq == 0 {
        let reason =
            format!("what answers on the subject {subject} is no stream: check subject in [global.nats]");
        return Outcome::EndpointFault { reason };
    }
    Outcome::Acknowledged
}

/// What a refusal means: the codes of the server's list, one by one; what is unknown may pass.
fn refusal(error: &ApiError) -> Outcome {
    let description = said(&error.description);
    let said = format!("the stream refused with {} ({}): {description}", error.code, error.err_code);
    let hint = match error.err_code {
        // The message is longer than the stream takes.
        10054 => return Outcome::Rejected { status: 413, response: said },
        10060 => "check stream and subject in [global.nats]",
        10059 => "check subject in [global.nats], and that the stream is there",
        10109 => "the stream is sealed: check subject in [global.nats]",
        10039 | 10076 => "the server has no JetStream for this agent: check end_point and [global.auth]",
        // Store full (10077), no resources (10023, 10028, 10047), no quorum (10008, 10009), the same identifier still
        // being stored (10158), and whatever there may be.
        _ => return Outcome::Retry { after: None, reason: said },
    };
    Outcome::EndpointFault { reason: format!("{said}: {hint}") }
}

/// What the server says to a question for the streams that take a subject.
#[derive(Deserialize)]
struct Streams {
    /// Without any, it is null.
    streams: Option<Vec<String>>,
    error: Option<ApiError>,
}

/// The stream that takes `subject`, as the `answer` to a question for it says: the `expected` one, where one is.
pub(super) fn stream_of(answer: &[u8], subject: &str, expected: Option<&str>) -> Result<String, Outcome> {
    let streams = match serde_json::from_slice::<Streams>(answer) {
        Ok(Streams { error: Some(error), .. }) => return Err(refusal(&error)),
        Ok(Streams { streams, .. }) => streams.unwrap_or_default(),
        Err(_) => {
            let reason = "what answers in place of JetStream is something else: check end_point".to_owned();
            return Err(Outcome::EndpointFault { reason });
        }
    };
    // The subjects of streams do not overlap, so there is one at most.
    let stream = streams.into_iter().next().ok_or_else(|| no_stream(subject))?;
    match expected {
        Some(expected) if expected != stream => Err(Outcome::EndpointFault {
            reason: format!(
                "the subject {subject} is taken by the stream {stream} and not by {expected}, which is expected: check stream \
                 and subject in [global.nats]"
            ),
        }),
        _ => Ok(stream),
    }
}

/// What it means that nobody answers questions for streams.
pub(super) fn no_jetstream() -> Outcome {
    let reason =
        "the server has no JetStream for this agent: turn it on, or check end_point and [global.auth]";
    Outcome::EndpointFault { reason: reason.to_owned() }
}

/// What it means that nobody answers on `subject`.
pub(super) fn no_stream(subject: &str) -> Outcome {
    let reason = format!(
        "no stream takes the subject {subject}: make one, or check subject in [global.nats]; the server may also have no \
         JetStream"
    );
    Outcome::EndpointFault { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> Outcome {
        outcome_of(answer.as_bytes(), "logs.a")
    }

    #[test]
    fn a_stream_that_stored_it_or_had_it_already_acknowledges() {
        assert_eq!(of(r#"{"stream":"LOGS","seq":1}"#), Outcome::Acknowledged);
        assert_eq!(of(r#"{"stream":"LOGS","domain":"hub","seq":9,"duplicate":true}"#), Outcome::Acknowledged);
    }

    #[test]
    fn an_answer_without_stream_or_number_acknowledges_nothing() {
        for answer in
            ["", "ok", "{}", r#"{"stream":"LOGS"}"#, r#"{"seq":1}"#, r#"{"stream":"LOGS","seq":-1}"#, "[1]"]
        {
            let Outcome::EndpointFault { reason } = of(answer) else { panic!("{answer}") };
            assert!(reason.contains("logs.a is no stream: check subject"), "{reason}");
        }
    }

    #[test]
    fn the_stream_of_a_subject_is_the_one_that_is_expected_or_it_is_said() {
        let of = |answer: &str, expected| stream_of(answer.as_bytes(), "logs.a", expected);
        let one = r#"{"type":"io.nats.jetstream.api.v1.stream_names_response","total":1,"streams":["LOGS"]}"#;
        for expected in [None, Some("LOGS")] {
            assert_eq!(of(one, expected), Ok("LOGS".to_owned()));
        }
        for (answer, expected, says) in [
            (one, Some("OTHER"), "taken by the stream LOGS and not by OTHER"),
            (r#"{"total":0,"streams":null}"#, None, "no stream takes the subject logs.a"),
            (r#"{"total":0,"streams":[]}"#, Some("LOGS"), "no stream takes the subject logs.a"),
            (r#"{"error":{"code":503,"err_code":10039,"description":"x"}}"#, None, "has no JetStream"),
            ("ok", None, "something else: check end_point"),
        ] {
            let Err(Outcome::EndpointFault { reason }) = of(answer, expected) else { panic!("{answer}") };
            assert!(reason.contains(says), "{reason}");
        }
        let passing = of(r#"{"error":{"code":503,"err_code":10008,"description":"no leader"}}"#, None);
        assert!(matches!(passing, Err(Outcome::Retry { .. })), "{passing:?}");
    }

    #[test]
    fn each_refusal_has_its_outcome() {
        let refused = |code: u16, err_code: u32| {
            of(&format!(
                r#"{{"stream":"LOGS","seq":0,"error":{{"code":{code},"err_code":{err_code},"description":"so it is"}}}}"#
            ))
        };
        let Outcome::Rejected { status: 413, response } = refused(400, 10054) else { panic!() };
        assert!(response.ends_with("so it is"), "{response}");
        for err_code in [10060, 10059, 10109, 10039, 10076] {
            let Outcome::EndpointFault { reason } = refused(400, err_code) else { panic!("{err_code}") };
            assert!(reason.contains("so it is: ") && reason.contains("check "), "{reason}");
        }
        for err_code in [10077, 10023, 10028, 10047, 10008, 10009, 10158, 10071, 0, 4711] {
            let outcome = refused(503, err_code);
            assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{err_code}: {outcome:?}");
        }
        let long = format!(r#"{{"error":{{"code":503,"err_code":1,"description":"{}"}}}}"#, "é".repeat(4000));
        let Outcome::Retry { reason, .. } = of(&long) else { panic!() };
        assert!(reason.len() < 1200, "{}", reason.len());
    }
}

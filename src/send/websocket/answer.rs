//! What a server answers: `{"ack":"<key>"}`, or `{"nack":"<key>","status":422,"reason":"…"}`.
//!
//! Invariants:
//! - What is not exactly one of the two is no answer: a server that does not speak this protocol cannot be understood
//!   to have taken anything.
//! - No error repeats what the server sent: it may be what the agent had sent to it.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::client::{RESPONSE_KEPT_BYTES, Verdict};

/// The longest answer that is read, in bytes. A key has about a hundred, which leaves room for a reason.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a server says of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has taken every event.
    Ack,
    /// It has not.
    Nack(Nack),
}

/// Why a server has not taken a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nack {
    /// As of HTTP; never one of success.
    pub(super) status: Option<u16>,
    /// The beginning of the reason, at most [`RESPONSE_KEPT_BYTES`].
    pub(super) reason: String,
    /// How long it asks to be left alone, counted from now.
    pub(super) retry_after: Option<Duration>,
}

/// Why a text frame is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("it is not JSON from column {0} on")]
    NotJson(usize),
    #[error("a member is there twice or not of its type, at column {0}")]
    Form(usize),
    #[error("it must have exactly one of \"ack\" and \"nack\", with the key of a batch")]
    NotOne,
    #[error("its \"status\" {0} contradicts it")]
    Status(u16),
}

/// An answer as it is on the wire. Unknown members are passed over, so that servers may say more.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    ack: Option<Cow<'a, str>>,
    #[serde(borrow)]
    nack: Option<Cow<'a, str>>,
    status: Option<u16>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "retryAfter")]
    retry_after: Option<f64>,
}

/// Reads an answer: the key of the batch that it is about, and what it says.
///
/// # Errors
/// [`NoAnswer`] where it is none.
pub(super) fn parse(text: &str) -> Result<(Cow<'_, str>, Answer), NoAnswer> {
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => NoAnswer::Form(error.column()),
        Category::Io | Category::Syntax | Category::Eof => NoAnswer::NotJson(error.column()),
    })?;
    let is_taken = |status: u16| Verdict::of(status) == Verdict::Taken;
    match (wire.ack, wire.nack) {
        (Some(key), None) => match wire.status {
            Some(status) if !is_taken(status) => Err(NoAnswer::Status(status)),
            _ => Ok((key, Answer::Ack)),
        },
        (None, Some(key)) => match wire.status {
            Some(status) if is_taken(status) => Err(NoAnswer::Status(status)),
            status => {
                let reason = beginning(wire.reason.unwrap_or_default().into_owned());
                let retry_after = wire.retry_after.and_then(wait);
                Ok((key, Answer::Nack(Nack { status, reason, retry_after })))
            }
        },
        _ => Err(NoAnswer::NotOne),
    }
}

/// As much of `text` as is kept.
fn beginning(mut text: String) -> String {
    while text.len() > RESPONSE_KEPT_BYTES {
        text.pop();
    }
    text
}

/// The longest wait that a server can ask for, as with `Retry-After`.
const WAIT_SECS_MAX: f64 = 3600.0;

fn wait(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.min(WAIT_SECS_MAX)).ok()
}

/// An answer, for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::send) fn fuzz(text: &str) {
    if let Ok((_, Answer::Nack(nack))) = parse(text) {
        assert!(nack.reason.len() <= RESPONSE_KEPT_BYTES);
        assert!(nack.retry_after.is_none_or(|wait| wait <= Duration::from_secs_f64(WAIT_SECS_MAX)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nack(status: Option<u16>, reason: &str) -> Answer {
        Answer::Nack(Nack { status, reason: reason.to_owned(), retry_after: None })
    }

    #[test]
    fn acks_and_nacks_are_told_apart_and_carry_the_key() {
        let cases = [
            (r#"{"ack":"k-1-2"}"#, Answer::Ack),
            (r#" { "ack" : "k-1-\u0032" , "stored": 7, "status": 200 } "#, Answer::Ack),
            (r#"{"nack":"k-1-2"}"#, nack(None, "")),
            (r#"{"reason":"so \u00e9","status":422,"nack":"k-1-2"}"#, nack(Some(422), "so é")),
            (r#"{"nack":"k-1-2","ack":null,"status":null,"reason":null}"#, nack(None, "")),
        ];
        for (text, expected) in cases {
            let (key, answer) = parse(text).unwrap();
            assert_eq!((&*key, answer), ("k-1-2", expected), "{text}");
        }
    }

    #[test]
    fn the_answers_of_the_documentation_are_answers() {
        let documentation = include_str!("../../../docs/strategies.md");
        let answers = documentation.lines().filter_map(|line| line.strip_prefix("← "));
        let answers: Vec<_> = answers.map(|line| parse(line).unwrap().1).collect();
        let waits =
            Nack { status: Some(503), retry_after: Some(Duration::from_millis(2500)), ..Nack::default() };
        let refused = nack(Some(422), "no such field");
        assert_eq!(answers, [Answer::Nack(waits), Answer::Ack, refused, Answer::Ack]);
    }

    #[test]
    fn a_wait_is_understood_and_bounded() {
        let waits = |text: &str| match parse(text).unwrap().1 {
            Answer::Nack(nack) => nack.retry_after.map(|wait| wait.as_millis()),
            Answer::Ack => None,
        };
        assert_eq!(waits(r#"{"nack":"k","retryAfter":1.5}"#), Some(1500));
        assert_eq!(waits(r#"{"nack":"k","retryAfter":1e300}"#), Some(3_600_000));
        assert_eq!(waits(r#"{"nack":"k","retryAfter":-1}"#), None);
    }

    #[test]
    fn what_is_neither_or_contradicts_itself_is_no_answer_and_is_not_repeated() {
        let cases = [
            ("", NoAnswer::NotJson(0)),
            ("ok", NoAnswer::NotJson(1)),
            (r#"{"ack":"k"}{"ack":"k"}"#, NoAnswer::NotJson(12)),
            ("[]", NoAnswer::Form(0)),
            ("{}", NoAnswer::NotOne),
            (r#"{"key":"k","seq":"1-1"}"#, NoAnswer::NotOne),
            (r#"{"ack":"k","nack":"k"}"#, NoAnswer::NotOne),
            (r#"{"ack":true}"#, NoAnswer::Form(11)),
            (r#"{"ack":"k","ack":"l"}"#, NoAnswer::Form(16)),
            (r#"{"nack":"k","status":70000}"#, NoAnswer::Form(26)),
            (r#"{"nack":"k","status":"s3cret"}"#, NoAnswer::Form(29)),
            (r#"{"ack":"k","status":500}"#, NoAnswer::Status(500)),
            (r#"{"nack":"k","status":200}"#, NoAnswer::Status(200)),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&expected), "{text}: {error}");
            assert!(!error.to_string().contains("s3cret") && !error.to_string().contains('\n'));
        }
    }

    #[test]
    fn of_a_long_reason_the_beginning_is_kept() {
        let text = format!(r#"{{"nack":"k","status":400,"reason":"{}"}}"#, "é".repeat(4000));
        let (_, answer) = parse(&text).unwrap();
        assert_eq!(answer, nack(Some(400), &"é".repeat(RESPONSE_KEPT_BYTES / 2)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_or_keep_much(text in "\\{\"n?ack\":.{0,40}\\}|.{0,40}", long in 0..9000_usize) {
            if let Ok((_, Answer::Nack(nack))) = parse(&text) {
                prop_assert!(nack.reason.len() <= RESPONSE_KEPT_BYTES);
            }
            prop_assert!(beginning("é".repeat(long)).len() <= RESPONSE_KEPT_BYTES);
        }
    }
}

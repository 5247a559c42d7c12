//! What an answer, or the end of a connection, means for a batch. Pure: the table of `docs/strategies.md` in code.

use std::time::Duration;

use super::super::client::Verdict;
use super::answer::{Answer, Nack, NoAnswer};
use crate::send::Outcome;

/// The close code of a server that was sent a longer message than it takes (RFC 6455, section 7.4.1).
const TOO_BIG: u16 = 1009;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The server closed it; code and reason where it gave any.
    Closed { code: Option<u16>, reason: String },
    /// It broke.
    Broken(String),
    /// A text frame was no answer.
    NoAnswer(NoAnswer),
    /// What came was not even a text frame within the limits.
    Malformed(String),
    /// The server answered no ping.
    Silent(Duration),
    /// Nobody here used it any more.
    Left,
}

/// What becomes of a batch, and what is to be known of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The outcome is all.
    Known(Outcome),
    /// This one was too big.
    TooBig(Outcome),
    /// One of several was too big, and which one shows when they are sent one by one.
    SomeTooBig(Outcome),
}

/// What an answer means for its batch: the table of HTTP statuses. Without a status it is not sure that the refusal is
/// for good, so the batch is sent again.
pub(super) fn of_answer(answer: Answer) -> Meaning {
    let Nack { status, reason, retry_after: after } = match answer {
        Answer::Ack => return Meaning::Known(Outcome::Acknowledged),
        Answer::Nack(nack) => nack,
    };
    let because = if reason.is_empty() { String::new() } else { format!(": {}", one_line(&reason)) };
    let Some(status) = status else {
        let reason = format!("the server refused the batch without a status{because}");
        return Meaning::Known(Outcome::Retry { after, reason });
    };
    Meaning::Known(match Verdict::of(status) {
        Verdict::Refused => Outcome::Rejected { status, response: reason },
        // A refusal that says success does not get here: it is no answer.
        Verdict::Later | Verdict::Taken => {
            Outcome::Retry { after, reason: format!("the server refused the batch with {status}{because}") }
        }
        Verdict::Fault => Outcome::EndpointFault {
            reason: format!(
                "the server refused the batch with {status}{because}: check [global.auth], end_point and what the \
                 server allows this agent"
            ),
        },
    })
}

/// What the end of a connection means for a batch that was on it, unanswered; `alone` where no other was.
pub(super) fn of_end(end: &End, alone: bool) -> Meaning {
    let reason = match end {
        End::Closed { code, reason } => return of_close(*code, reason, alone),
        End::Broken(error) => format!("the connection broke: {error}"),
        End::NoAnswer(error) => format!("what the server sent is no answer: {error}"),
        End::Malformed(error) => format!("what the server sent is no answer: {error}"),
        End::Silent(after) => format!("the server answered no ping within {} s", after.as_secs_f64()),
        End::Left => "the connection was given up".to_owned(),
    };
    Meaning::Known(Outcome::Retry { after: None, reason })
}

fn of_close(code: Option<u16>, reason: &str, alone: bool) -> Meaning {
    let reason = one_line(reason);
    let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let Some(code) = code else {
        let reason = "the server closed the connection".to_owned();
        return Meaning::Known(Outcome::Retry { after: None, reason });
    };
    let said = format!("the server closed the connection with code {code}{because}");
    let hint = match code {
        TOO_BIG if alone => {
            return Meaning::TooBig(Outcome::Rejected { status: 413, response: said });
        }
        TOO_BIG => return Meaning::SomeTooBig(Outcome::Retry { after: None, reason: said }),
        1003 | 1007 => "it takes no such messages: check end_point",
        1008 | 3000 | 3003 => "check [global.auth] and what the server allows this agent",
        1010 => "it wants extensions that the agent has not: check end_point",
        _ => return Meaning::Known(Outcome::Retry { after: None, reason: said }),
    };
    Meaning::Known(Outcome::EndpointFault { reason: format!("{said}: {hint}") })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(meaning: Meaning) -> Outcome {
        let Meaning::Known(outcome) = meaning else { panic!("{meaning:?}") };
        outcome
    }

    fn refused(status: Option<u16>) -> Outcome {
        let retry_after = Some(Duration::from_secs(7));
        known(of_answer(Answer::Nack(Nack { status, reason: "so\nit is".into(), retry_after })))
    }

    #[test]
    fn a_refusal_has_the_outcome_of_its_status() {
        assert_eq!(known(of_answer(Answer::Ack)), Outcome::Acknowledged);
        for status in (100..200).chain(300..600) {
            match (status, refused(Some(status))) {
                (400 | 413 | 422, outcome) => {
                    assert_eq!(outcome, Outcome::Rejected { status, response: "so\nit is".into() });
                }
                (408 | 425 | 429 | 500..600, Outcome::Retry { after, reason }) => {
                    assert_eq!(after, Some(Duration::from_secs(7)));
                    assert!(reason.ends_with(&format!("{status}: so it is")), "{reason}");
                }
                (_, Outcome::EndpointFault { reason }) => assert!(reason.contains("check "), "{reason}"),
                (_, outcome) => panic!("{status}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_without_a_status_is_not_for_good() {
        let reason = "the server refused the batch without a status: so it is".to_owned();
        assert_eq!(refused(None), Outcome::Retry { after: Some(Duration::from_secs(7)), reason });
    }

    #[test]
    fn a_message_that_was_too_big_is_refused_once_it_is_known_which_one() {
        let end = End::Closed { code: Some(1009), reason: "over 1 MiB".into() };
        let said = "the server closed the connection with code 1009 (over 1 MiB)".to_owned();
        let rejected = Outcome::Rejected { status: 413, response: said.clone() };
        assert_eq!(of_end(&end, true), Meaning::TooBig(rejected));
        assert_eq!(of_end(&end, false), Meaning::SomeTooBig(Outcome::Retry { after: None, reason: said }));
    }

    #[test]
    fn an_end_is_a_retry_unless_its_code_says_that_somebody_must_act() {
        let closed = |code| End::Closed { code, reason: "bye".into() };
        let codes =
            [None, Some(1000), Some(1001), Some(1002), Some(1006), Some(1011), Some(1012), Some(4711)];
        let broken = [
            End::Broken("x".into()),
            End::NoAnswer(NoAnswer::NotOne),
            End::Malformed("x".into()),
            End::Silent(Duration::from_secs(1)),
            End::Left,
        ];
        for end in codes.map(closed).into_iter().chain(broken) {
            let outcome = known(of_end(&end, true));
            assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{end:?}: {outcome:?}");
        }
        for code in [1003, 1007, 1008, 1010, 3000, 3003] {
            let outcome = known(of_end(&closed(Some(code)), true));
            let Outcome::EndpointFault { reason } = outcome else { panic!("{code}: {outcome:?}") };
            assert!(reason.contains(&code.to_string()) && reason.contains("(bye): "), "{reason}");
        }
    }
}

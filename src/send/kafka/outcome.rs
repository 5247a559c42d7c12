//! What an error means: the library has one set of codes, for what it finds itself and for what brokers say.

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::send::Outcome;

/// The status that a dead letter of a message that was too large gets: that of HTTP for it.
const TOO_LARGE_STATUS: u16 = 413;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass.
    Later,
    /// The message, or the set of messages that it travelled in, is larger than what is taken.
    TooLarge,
    /// A person must act; what to look at.
    Fault(&'static str),
}

/// What `code` asks for. What is not known may pass.
pub(super) const fn verdict(code: Code) -> Verdict {
    Verdict::Fault(match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            return Verdict::TooLarge;
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            "create the topic, or check topic in [global.kafka]"
        }
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            "check [global.auth] and what the brokers allow this agent: to write to the topic, and to do so \
             idempotently"
        }
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled => "check [global.auth], and sasl_mechanism in [global.kafka]",
        Code::SSL => "check [global.tls], scheme, host and port of end_point, and the brokers' certificates",
        Code::InvalidRecord | Code::InvalidTimestamp => {
            "check how the topic is set up: a compacted one takes no messages without a key"
        }
        Code::PolicyViolation | Code::InvalidRequiredAcks | Code::InvalidConfig => {
            "check how the topic is set up"
        }
        Code::UnsupportedVersion | Code::UnsupportedForMessageFormat | Code::UnsupportedFeature => {
            "the brokers are too old: an idempotent producer takes Kafka 0.11 or later"
        }
        Code::UnsupportedCompressionType => "check compression in [global.kafka]",
        _ => return Verdict::Later,
    })
}

/// What has been reported of a batch's messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// How many reports there were.
    pub(super) reported: usize,
    /// The first error of each kind, in words.
    pub(super) later: Option<String>,
    pub(super) too_large: Option<String>,
    pub(super) fault: Option<String>,
    /// The topic of the first fault.
    pub(super) topic: Option<String>,
    /// Whether a message's time was over, of which the connections may know why.
    pub(super) timed_out: bool,
}

impl Tally {
    /// Adds a report: nothing, or what is wrong with a message to which topic.
    pub(super) fn add(&mut self, error: Option<(Code, &str)>) {
        self.reported = self.reported.saturating_add(1);
        if let Some((code, topic)) = error {
            self.fail(code, topic);
        }
    }

    /// Adds an error without a report.
    pub(super) fn fail(&mut self, code: Code, topic: &str) {
        if code == Code::MessageTimedOut {
            self.timed_out = true;
            return;
        }
        let (first, hint) = match verdict(code) {
            Verdict::Later => (&mut self.later, None),
            Verdict::TooLarge => (&mut self.too_large, None),
            Verdict::Fault(hint) => {
                self.topic.get_or_insert_with(|| topic.to_owned());
                (&mut self.fault, Some(hint))
            }
        };
        first.get_or_insert_with(|| said(code, topic, hint));
    }
}

/// What has gone wrong with the connections since something was delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// The last that may pass.
    later: Option<String>,
    /// The last that a person must act on.
    fault: Option<String>,
}

impl Trouble {
    /// Adds what the library says of a connection.
    pub(super) fn add(&mut self, code: Code, reason: &str) {
        let reason = one_line(reason);
        match verdict(code) {
            Verdict::Fault(hint) => self.fault = Some(format!("{reason}: {hint}")),
            // That all are down says less than why one of them is.
            Verdict::Later if code == Code::AllBrokersDown && self.later.is_some() => {}
            Verdict::Later | Verdict::TooLarge => self.later = Some(reason),
        }
    }

    /// The outcome of a batch of which not every message was reported in time.
    pub(super) fn outcome(self, timeout: Duration) -> Outcome {
        self.explain(format!("no delivery within {} s", timeout.as_secs_f64()))
    }

    /// The outcome of what got no answer, as `silent` says, with the reason for it.
    pub(super) fn explain(self, silent: String) -> Outcome {
        match (self.fault, self.later) {
            (Some(fault), _) => Outcome::EndpointFault { reason: format!("{silent}: {fault}") },
            (None, Some(later)) => Outcome::Retry { after: None, reason: format!("{silent}: {later}") },
            (None, None) => Outcome::Retry { after: None, reason: silent },
        }
    }
}

/// The outcome of a batch whose messages are all accounted for; `alone` where what is too large can only be its own.
/// `silence` is the outcome where messages were not delivered in time.
pub(super) fn of(tally: Tally, alone: bool, silence: impl FnOnce() -> Outcome) -> Outcome {
    let Tally { later, too_large, fault, timed_out, .. } = tally;
    match (fault, later, too_large) {
        (Some(reason), ..) => Outcome::EndpointFault { reason },
        _ if timed_out => silence(),
        (None, Some(reason), _) => Outcome::Retry { after: None, reason },
        (None, None, Some(response)) if alone => Outcome::Rejected { status: TOO_LARGE_STATUS, response },
        (None, None, Some(reason)) => Outcome::Retry {
            after: None,
            reason: format!("{reason}; it may be another's, so it is sent alone"),
        },
        (None, None, None) => Outcome::Acknowledged,
    }
}

/// The outcome of a batch whose producer has ended for good; the next has another.
pub(super) fn of_fatal(code: Code, reason: &str) -> Outcome {
    let reason = format!("the producer cannot go on: {}", one_line(reason));
    match verdict(code) {
        Verdict::Fault(hint) => Outcome::EndpointFault { reason: format!("{reason}: {hint}") },
        Verdict::Later | Verdict::TooLarge => Outcome::Retry { after: None, reason },
    }
}

fn said(code: Code, topic: &str, hint: Option<&str>) -> String {
    let said = format!("a message to the topic {topic} was not delivered: {}", one_line(&code.to_string()));
    match hint {
        Some(hint) => format!("{said}: {hint}"),
        None => said,
    }
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(codes: &[Option<Code>]) -> Tally {
        let mut tally = Tally::default();
        codes.iter().for_each(|code| tally.add(code.map(|code| (code, "logs"))));
        assert_eq!(tally.reported, codes.len());
        tally
    }

    fn of(tally: Tally, alone: bool) -> Outcome {
        super::of(tally, alone, || Trouble::default().outcome(Duration::from_secs(1)))
    }

    #[test]
    fn a_batch_is_delivered_when_every_message_is() {
        assert_eq!(of(tally(&[None, None]), true), Outcome::Acknowledged);
        let partly = of(tally(&[None, Some(Code::MessageTimedOut), None]), true);
        assert!(matches!(partly, Outcome::Retry { after: None, .. }), "{partly:?}");
        let purged = of(tally(&[Some(Code::PurgeQueue)]), true);
        assert!(matches!(purged, Outcome::Retry { after: None, .. }), "{purged:?}");
    }

    #[test]
    fn a_message_whose_time_is_over_has_the_reason_of_the_connections() {
        let mut trouble = Trouble::default();
        trouble.add(Code::Authentication, "wrong password");
        let silence = || trouble.outcome(Duration::from_secs(1));
        let outcome = super::of(tally(&[None, Some(Code::MessageTimedOut)]), true, silence);
        assert!(matches!(outcome, Outcome::EndpointFault { .. }), "{outcome:?}");
    }

    #[test]
    fn what_must_be_mended_outweighs_what_may_pass_and_that_what_is_too_large() {
        let all = [
            Some(Code::MessageSizeTooLarge),
            Some(Code::MessageTimedOut),
            Some(Code::TopicAuthorizationFailed),
        ];
        let Outcome::EndpointFault { reason } = of(tally(&all), true) else { panic!() };
        assert!(reason.contains("the topic logs") && reason.contains("check [global.auth]"), "{reason}");
        assert_eq!(tally(&all).topic.as_deref(), Some("logs"));
        assert!(matches!(of(tally(&all[..2]), true), Outcome::Retry { .. }));
        assert!(matches!(of(tally(&all[..1]), true), Outcome::Rejected { status: 413, .. }));
        assert!(matches!(of(tally(&[None, all[0]]), true), Outcome::Rejected { status: 413, .. }));
    }

    #[test]
    fn what_is_too_large_is_refused_only_where_it_was_alone() {
        let outcome = of(tally(&[Some(Code::MessageSizeTooLarge)]), false);
        let Outcome::Retry { after: None, reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.ends_with("it is sent alone"), "{reason}");
    }

    #[test]
    fn an_error_is_a_retry_unless_it_says_that_somebody_must_act() {
        let later = [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::Resolve,
            Code::MessageTimedOut,
            Code::RequestTimedOut,
            Code::NotLeaderForPartition,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::KafkaStorageError,
            Code::InvalidMessage,
            Code::OutOfOrderSequenceNumber,
            Code::PurgeQueue,
            Code::ThrottlingQuotaExceeded,
            Code::Unknown,
        ];
        for code in later {
            assert_eq!(verdict(code), Verdict::Later, "{code:?}");
            assert!(matches!(of_fatal(code, "x"), Outcome::Retry { .. }), "{code:?}");
        }
        let faults = [
            Code::UnknownTopic,
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::Authentication,
            Code::SaslAuthenticationFailed,
            Code::SSL,
            Code::InvalidRecord,
            Code::PolicyViolation,
            Code::UnsupportedVersion,
        ];
        for code in faults {
            let outcome = of(tally(&[Some(code)]), true);
            let Outcome::EndpointFault { reason } = outcome else { panic!("{code:?}: {outcome:?}") };
            assert!(!reason.contains('\n') && reason.contains(": "), "{reason}");
            assert!(matches!(of_fatal(code, "x"), Outcome::EndpointFault { .. }), "{code:?}");
        }
    }

    #[test]
    fn silence_is_explained_by_what_went_wrong_with_the_connections() {
        let mut trouble = Trouble::default();
        let timeout = Duration::from_millis(1500);
        let retry = |reason: &str| Outcome::Retry { after: None, reason: reason.to_owned() };
        assert_eq!(trouble.clone().outcome(timeout), retry("no delivery within 1.5 s"));
        trouble.add(Code::BrokerTransportFailure, "connection\nrefused");
        trouble.add(Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(trouble.clone().outcome(timeout), retry("no delivery within 1.5 s: connection refused"));
        trouble.add(Code::Authentication, "wrong password");
        trouble.add(Code::BrokerTransportFailure, "closed");
        let outcome = trouble.outcome(timeout);
        let Outcome::EndpointFault { reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("wrong password: check [global.auth]"), "{reason}");
    }
}

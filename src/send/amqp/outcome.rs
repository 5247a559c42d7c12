//! What a confirmation, a return or an error means. Pure: the table of `docs/strategies.md` in code.

use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, Error, ErrorKind};

use crate::send::Outcome;
use crate::send::client::fault::{self, said};

/// What the broker's word on one message means; `None` for a message that it has taken.
pub(super) fn of_confirmation(confirmation: Result<Confirmation, Error>) -> Option<Outcome> {
    match confirmation {
        Ok(Confirmation::Ack(None)) => None,
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            Some(of_return(&returned))
        }
        Ok(Confirmation::Nack(None)) => {
            let reason = "the broker did not take the message (basic.nack): a queue may be full".to_owned();
            Some(Outcome::Retry { after: None, reason })
        }
        // Confirmations are asked for on every channel.
        Ok(Confirmation::NotRequested) => {
            let reason = "the broker confirms nothing on this channel".to_owned();
            Some(Outcome::Retry { after: None, reason })
        }
        Err(error) => Some(of_error(&error)),
    }
}

fn of_return(returned: &BasicReturnMessage) -> Outcome {
    let delivery = &returned.delivery;
    Outcome::EndpointFault {
        reason: format!(
            "the broker returned the message with {} ({}): no queue takes the routing key {:?} from the exchange {:?}: bind \
             one, or check [global.amqp]",
            returned.reply_code,
            said(returned.reply_text.as_str()),
            delivery.routing_key.as_str(),
            delivery.exchange.as_str(),
        ),
    }
}

/// What an error of the connection or a channel means.
pub(super) fn of_error(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::ProtocolError(error) => of_code(error.get_id(), error.get_message().as_str()),
        ErrorKind::IOError(error) | ErrorKind::RuntimeShutdownError(error) => fault::of_connecting(&**error),
        ErrorKind::InvalidProtocolVersion(version) => Outcome::EndpointFault {
            reason: format!("the server speaks another protocol ({version:?}): check end_point"),
        },
        ErrorKind::AuthProviderError(text) => {
            Outcome::EndpointFault { reason: format!("{}: check [global.auth]", said(text)) }
        }
        other => Outcome::Retry {
            after: None,
            reason: format!("the connection failed: {}", said(&format!("{other:?}"))),
        },
    }
}

/// What an error means where a queue was asked for.
pub(super) fn of_queue(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::ProtocolError(error) if error.get_id() == 404 => Outcome::EndpointFault {
            reason: format!(
                "the broker answered 404 ({}): make it, or check routing_key and exchange in [global.amqp]",
                said(error.get_message().as_str())
            ),
        },
        _ => of_error(error),
    }
}

/// What a reply code of the protocol means (its section 1.8, and what RabbitMQ does with it). What is unknown may pass.
fn of_code(code: u16, text: &str) -> Outcome {
    let text = said(text);
    let closed = format!("the broker answered {code} ({text})");
    let hint = match code {
        311 => return Outcome::Rejected { status: 413, response: closed },
        // RabbitMQ says so of a message that is longer than its `max_message_size`, and has no code for it.
        406 if text.contains("message size") => return Outcome::Rejected { status: 413, response: closed },
        403 => "check [global.auth] and what the broker allows this agent",
        404 => "make it, or check exchange in [global.amqp]",
        402 | 530 => "check the virtual host in the path of end_point, and that the agent may use it",
        312 | 313 | 406 | 540 => "check [global.amqp]",
        // Shutting down (320), locked (405), broken frames (501 to 505), out of resources (506), internal (541).
        _ => return Outcome::Retry { after: None, reason: closed },
    };
    Outcome::EndpointFault { reason: format!("{closed}: {hint}") }
}

/// What is said while the broker takes nothing.
pub(super) fn blocked(reason: &str) -> Outcome {
    let reason = format!("the broker takes nothing for the moment: {}", said(reason));
    Outcome::Retry { after: None, reason }
}

/// Whether `one` says more of what is to be done than `other`.
pub(super) fn outweighs(one: &Outcome, other: &Outcome) -> bool {
    let weight = |outcome: &Outcome| match outcome {
        Outcome::Acknowledged => 0,
        Outcome::Retry { .. } => 1,
        Outcome::Rejected { .. } => 2,
        Outcome::EndpointFault { .. } => 3,
    };
    weight(one) > weight(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_outcome() {
        for code in [402, 403, 404, 406, 312, 313, 530, 540] {
            let Outcome::EndpointFault { reason } = of_code(code, "so\nit is") else { panic!("{code}") };
            assert!(
                reason.contains(&format!("{code} (so it is): ")) && reason.contains("check "),
                "{reason}"
            );
        }
        for code in [320, 405, 501, 502, 503, 504, 505, 506, 541, 0, 4711] {
            assert!(matches!(of_code(code, ""), Outcome::Retry { after: None, .. }), "{code}");
        }
        let size =
            "PRECONDITION_FAILED - message size 134217729 is larger than configured max size 134217728";
        assert!(matches!(of_code(406, size), Outcome::Rejected { status: 413, .. }));
        assert!(matches!(of_code(311, ""), Outcome::Rejected { status: 413, .. }));
    }

    #[test]
    fn only_a_bare_ack_is_a_confirmation() {
        assert_eq!(of_confirmation(Ok(Confirmation::Ack(None))), None);
        for confirmation in [Confirmation::Nack(None), Confirmation::NotRequested] {
            let outcome = of_confirmation(Ok(confirmation)).unwrap();
            assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{outcome:?}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(of_confirmation(Err(broken.into())), Some(Outcome::Retry { .. })));
    }

    #[test]
    fn of_several_failures_the_one_to_act_upon_speaks() {
        let retry = Outcome::Retry { after: None, reason: String::new() };
        let rejected = Outcome::Rejected { status: 413, response: String::new() };
        let fault = Outcome::EndpointFault { reason: String::new() };
        assert!(
            outweighs(&fault, &rejected)
                && outweighs(&rejected, &retry)
                && outweighs(&retry, &Outcome::Acknowledged)
        );
        assert!(!outweighs(&retry, &retry));
    }
}

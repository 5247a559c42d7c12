//! What an acknowledgement, or the end of a connection, means. Pure: the table of `docs/strategies.md` in code.

use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode as Connack5, DisconnectReasonCode as Disconnect, PubAckReason,
};
use rumqttc::{ConnectReturnCode as Connack3, v5};

use crate::send::Outcome;
use crate::send::client::fault;

/// Why a connection ended, for the messages on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All have this outcome.
    Of(Outcome),
    /// One was longer than the broker takes. Which one is known where only one is unacknowledged: what the library had read
    /// before the end is lost with it.
    TooBig(String),
}

fn retry(reason: String) -> Outcome {
    Outcome::Retry { after: None, reason }
}

/// What the reason of a PUBACK means.
pub(super) fn of_ack(reason: PubAckReason) -> Outcome {
    let said = format!("the broker answered {reason:?}");
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Outcome::Acknowledged,
        PubAckReason::PayloadFormatInvalid => Outcome::Rejected { status: 422, response: said },
        PubAckReason::NotAuthorized => Outcome::EndpointFault {
            reason: format!("{said}: check [global.auth], and what the broker allows this agent to publish"),
        },
        PubAckReason::TopicNameInvalid => {
            Outcome::EndpointFault { reason: format!("{said}: check topic in [global.mqtt]") }
        }
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::PacketIdentifierInUse
        | PubAckReason::QuotaExceeded => retry(said),
    }
}

/// What the end of a connection of MQTT 5 means.
pub(super) fn of_end(error: &v5::ConnectionError) -> End {
    use v5::{ConnectionError as Error, StateError as State};
    /// "Packet too large", as some brokers say it in a PUBACK, where the protocol has it for a DISCONNECT.
    const TOO_LARGE: u8 = 0x95;
    match error {
        Error::ConnectionRefused(code) => End::Of(of_connack(*code)),
        Error::Tls(error) => End::Of(fault::of_connecting(error)),
        Error::Io(error) | Error::MqttState(State::Io(error)) => End::Of(fault::of_connecting(error)),
        Error::MqttState(State::ServerDisconnect { reason_code, reason_string }) => {
            of_disconnect(*reason_code, reason_string.as_deref().unwrap_or_default())
        }
        Error::MqttState(State::Deserialization(v5::mqttbytes::Error::InvalidConnectReturnCode(
            TOO_LARGE,
        ))) => End::TooBig("the broker answered that the packet is too large".to_owned()),
        other => End::Of(retry(fault::chain(other))),
    }
}

/// What the end of a connection of MQTT 3.1.1 means.
pub(super) fn of_end_3(error: &rumqttc::ConnectionError) -> End {
    use rumqttc::{ConnectionError as Error, StateError as State};
    End::Of(match error {
        Error::ConnectionRefused(code) => {
            let said = format!("the broker refused the connection with {code:?}");
            match code {
                Connack3::Success | Connack3::ServiceUnavailable => retry(said),
                Connack3::RefusedProtocolVersion => {
                    Outcome::EndpointFault { reason: format!("{said}: check version in [global.mqtt]") }
                }
                Connack3::BadClientId => {
                    Outcome::EndpointFault { reason: format!("{said}: check client_id in [global.mqtt]") }
                }
                Connack3::BadUserNamePassword | Connack3::NotAuthorized => {
                    Outcome::EndpointFault { reason: format!("{said}: check [global.auth]") }
                }
            }
        }
        Error::Tls(error) => fault::of_connecting(error),
        Error::Io(error) | Error::MqttState(State::Io(error)) => fault::of_connecting(error),
        other => retry(fault::chain(other)),
    })
}

fn of_connack(code: Connack5) -> Outcome {
    let said = format!("the broker refused the connection with {code:?}");
    let hint = match code {
        Connack5::Success
        | Connack5::ServiceUnavailable
        | Connack5::UnspecifiedError
        | Connack5::ImplementationSpecificError
        | Connack5::ServerUnavailable
        | Connack5::ServerBusy
        | Connack5::QuotaExceeded
        | Connack5::ConnectionRateExceeded => return retry(said),
        Connack5::RefusedProtocolVersion | Connack5::UnsupportedProtocolVersion => {
            "it may speak 3.1.1 only: check version in [global.mqtt]"
        }
        Connack5::BadClientId | Connack5::ClientIdentifierNotValid => "check client_id in [global.mqtt]",
        Connack5::BadUserNamePassword
        | Connack5::NotAuthorized
        | Connack5::Banned
        | Connack5::BadAuthenticationMethod => "check [global.auth], and what the broker allows this agent",
        Connack5::UseAnotherServer | Connack5::ServerMoved => "check end_point",
        Connack5::MalformedPacket
        | Connack5::ProtocolError
        | Connack5::TopicNameInvalid
        | Connack5::PacketTooLarge
        | Connack5::PayloadFormatInvalid
        | Connack5::RetainNotSupported
        | Connack5::QoSNotSupported => "check [global.mqtt], and what the broker supports",
    };
    Outcome::EndpointFault { reason: format!("{said}: {hint}") }
}

fn of_disconnect(code: Disconnect, text: &str) -> End {
    let text = fault::said(text);
    let because = if text.is_empty() { String::new() } else { format!(" ({text})") };
    let said = format!("the broker ended the connection with {code:?}{because}");
    let hint = match code {
        Disconnect::PacketTooLarge => return End::TooBig(said),
        Disconnect::NotAuthorized => "check [global.auth], and what the broker allows this agent",
        Disconnect::SessionTakenOver => {
            "another client has the same identifier: check client_id in [global.mqtt]"
        }
        Disconnect::TopicNameInvalid => "check topic in [global.mqtt]",
        Disconnect::QoSNotSupported => "the broker acknowledges nothing: check end_point",
        Disconnect::UseAnotherServer | Disconnect::ServerMoved => "check end_point",
        _ => return End::Of(retry(said)),
    };
    End::Of(Outcome::EndpointFault { reason: format!("{said}: {hint}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_an_acknowledgement_has_its_outcome() {
        use PubAckReason as Reason;
        for reason in [Reason::Success, Reason::NoMatchingSubscribers] {
            assert_eq!(of_ack(reason), Outcome::Acknowledged);
        }
        for reason in [
            Reason::UnspecifiedError,
            Reason::ImplementationSpecificError,
            Reason::PacketIdentifierInUse,
            Reason::QuotaExceeded,
        ] {
            assert!(matches!(of_ack(reason), Outcome::Retry { after: None, .. }), "{reason:?}");
        }
        for reason in [Reason::NotAuthorized, Reason::TopicNameInvalid] {
            let Outcome::EndpointFault { reason } = of_ack(reason) else { panic!("{reason:?}") };
            assert!(reason.contains("check "), "{reason}");
        }
        assert!(matches!(of_ack(Reason::PayloadFormatInvalid), Outcome::Rejected { status: 422, .. }));
    }

    #[test]
    fn each_way_for_a_connection_to_end_has_its_outcome() {
        let disconnect = |code| of_disconnect(code, "so\nit is");
        for code in [
            Disconnect::NotAuthorized,
            Disconnect::SessionTakenOver,
            Disconnect::TopicNameInvalid,
            Disconnect::QoSNotSupported,
            Disconnect::ServerMoved,
        ] {
            let End::Of(Outcome::EndpointFault { reason }) = disconnect(code) else { panic!("{code:?}") };
            assert!(reason.contains("(so it is): ") && reason.contains("check "), "{reason}");
        }
        for code in [
            Disconnect::NormalDisconnection,
            Disconnect::ServerShuttingDown,
            Disconnect::ServerBusy,
            Disconnect::KeepAliveTimeout,
            Disconnect::QuotaExceeded,
            Disconnect::PayloadFormatInvalid,
        ] {
            assert!(matches!(disconnect(code), End::Of(Outcome::Retry { after: None, .. })), "{code:?}");
        }
        assert!(matches!(disconnect(Disconnect::PacketTooLarge), End::TooBig(_)));

        let refused = |code| of_end(&v5::ConnectionError::ConnectionRefused(code));
        for code in
            [Connack5::BadUserNamePassword, Connack5::NotAuthorized, Connack5::UnsupportedProtocolVersion]
        {
            assert!(matches!(refused(code), End::Of(Outcome::EndpointFault { .. })), "{code:?}");
        }
        for code in [Connack5::ServerBusy, Connack5::ServerUnavailable, Connack5::ConnectionRateExceeded] {
            assert!(matches!(refused(code), End::Of(Outcome::Retry { .. })), "{code:?}");
        }
        let refused = |code| of_end_3(&rumqttc::ConnectionError::ConnectionRefused(code));
        assert!(matches!(refused(Connack3::BadUserNamePassword), End::Of(Outcome::EndpointFault { .. })));
        assert!(matches!(refused(Connack3::ServiceUnavailable), End::Of(Outcome::Retry { .. })));
        let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(of_end(&v5::ConnectionError::Io(reset())), End::Of(Outcome::Retry { .. })));
        assert!(matches!(of_end_3(&rumqttc::ConnectionError::Io(reset())), End::Of(Outcome::Retry { .. })));
    }
}

//! `[global.kafka.properties]`: properties of librdkafka that are passed on.
//!
//! Invariant: those that may be set tune; whatever they are set to, no promise is broken and no secret is among them.
//! A property that is not known here is refused, as nobody has looked at what it would do.

use toml::de::DeValue;

use crate::config::options::{ConfigError, Problem, Table};

/// The name of the table below `[global.kafka]`.
pub(super) const NAME: &str = "properties";

/// The longest value, in bytes: lists of ciphers are the longest there are.
const VALUE_BYTES_MAX: usize = 4096;

/// What may be set.
const TUNING: &[&str] = &[
    "allow.auto.create.topics",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.id",
    "compression.level",
    "connections.max.idle.ms",
    "debug",
    "enable.metrics.push",
    "linger.ms",
    "log.connection.close",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "partitioner",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "sticky.partitioning.linger.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// What is said of those that many would look for here: how the names begin, and why they cannot be set.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &[
            "acks",
            "delivery.report.only.error",
            "enable.gapless.guarantee",
            "enable.idempotence",
            "message.send.max.retries",
            "queuing.strategy",
            "request.required.acks",
            "retries",
            "transaction",
        ],
        "is set by the agent: what it promises rests on it",
    ),
    (&["message.timeout.ms", "delivery.timeout.ms"], "follows from timeout_secs in [global]"),
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "is given by end_point in [global] and brokers in [global.kafka]",
    ),
    (&["security.protocol"], "follows from the scheme of end_point and from [global.auth]"),
    (&["sasl.mechanism"], "is given by sasl_mechanism in [global.kafka]"),
    (&["sasl.username", "sasl.password"], "is given by [global.auth], which is never printed"),
    (
        &["ssl.ca.", "ssl_ca", "ssl.certificate.", "ssl_certificate", "ssl.key", "ssl_key"],
        "is given by [global.tls]",
    ),
    (&["compression.codec", "compression.type"], "is given by compression in [global.kafka]"),
];

/// Reads the table.
pub(super) fn read(table: &Table<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut properties = Vec::new();
    for entry in table.entries() {
        let error = |problem| Err(table.error(entry.name, entry.line, problem));
        if !TUNING.contains(&entry.name) {
            let begins = |names: &&[&str]| names.iter().any(|name| entry.name.starts_with(name));
            let why = ELSEWHERE.iter().find(|(names, _)| begins(names)).map(|(_, why)| *why);
            let why =
                why.unwrap_or("is none of the properties that can be set here; docs/strategies.md has them");
            return error(Problem::Conflict(why.to_owned()));
        }
        let value = match entry.value {
            DeValue::String(text) if text.len() <= VALUE_BYTES_MAX && !text.contains(char::is_control) => {
                text.to_string()
            }
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Boolean(truth) => truth.to_string(),
            _ => {
                return error(Problem::Conflict("must be a string, a whole number or a boolean".to_owned()));
            }
        };
        if let Err(reason) = check(entry.name, &value) {
            return error(Problem::Conflict(format!("must be what librdkafka takes: {reason}")));
        }
        properties.push((entry.name.to_owned(), value));
    }
    Ok(properties)
}

/// Whether the library takes the value; why not.
#[cfg(feature = "kafka")]
fn check(name: &str, value: &str) -> Result<(), String> {
    use rdkafka::config::ClientConfig;
    use rdkafka::error::KafkaError;

    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, ..)) => {
            Err(reason.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Without the library, a configuration for it is refused before this.
#[cfg(not(feature = "kafka"))]
fn check(_name: &str, _value: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_property_that_can_be_set() {
        let docs = include_str!("../../../docs/strategies.md");
        for name in TUNING {
            assert!(docs.contains(&format!("`{name}`")), "docs/strategies.md lacks {name}");
        }
    }

    #[test]
    fn what_may_be_set_is_in_order_known_to_the_library_and_nothing_that_is_given_elsewhere() {
        assert!(TUNING.is_sorted());
        let elsewhere = |name: &str| {
            ELSEWHERE.iter().any(|(names, _)| names.iter().any(|elsewhere| name.starts_with(elsewhere)))
        };
        for name in TUNING {
            // An unknown name is refused differently from a value that is none of its.
            let reason = check(name, "\u{1}").err().unwrap_or_default();
            assert!(!reason.contains("No such configuration property"), "{reason}");
            assert!(!elsewhere(name), "{name}");
        }
    }
}

//! `[global.kafka]`.

use super::properties;
use super::template::Template;
use crate::config::options::{
    Beside, ConfigError, Line, List, Located, OneOf, Optional, Or, Problem, Required, Table, table,
};
use crate::config::{OptionTable, Options};
use crate::send::parts::Per;

/// The most brokers beside `end_point`: the library learns the others from any of them.
const BROKERS_MAX: usize = 64;

/// How the agent shows who it is, where `[global.auth]` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// What compresses a set of messages on its way and on the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

table! {
    /// `[global.kafka]`.
    KafkaKeys, "[global.kafka]", also &[properties::NAME], {
        topic: Located<String> = Required(Line::NAME),
            "The topic; `{agent}` and `{source}` are filled in, and what a topic cannot have becomes `_`.";
        messages: Located<Per> =
            Or(OneOf(&[("event", Per::Event), ("source", Per::Source), ("batch", Per::Batch)]), Per::Event),
            "What a message is: an event, the events that a batch has of a source, or a batch.";
        key: Option<Located<String>> = Optional(Line::MAYBE_EMPTY),
            "The key of a message, which chooses its partition; `{agent}` and `{source}` are filled in. Empty, there is none, and events are in no order. Without it, `{agent}/{source}`, or `{agent}` where a message is a batch.";
        brokers: Vec<Located<String>> = List { each: Line::NAME, count_max: BROKERS_MAX },
            "More brokers to begin with, each as `host:port`, for when that of `end_point` is down.";
        compression: Located<Codec> = Or(
            OneOf(&[
                ("none", Codec::None),
                ("gzip", Codec::Gzip),
                ("snappy", Codec::Snappy),
                ("lz4", Codec::Lz4),
                ("zstd", Codec::Zstd),
            ]),
            Codec::None,
        ),
            "What compresses sets of messages.";
        sasl_mechanism: Located<Mechanism> = Or(
            OneOf(&[
                ("PLAIN", Mechanism::Plain),
                ("SCRAM-SHA-256", Mechanism::ScramSha256),
                ("SCRAM-SHA-512", Mechanism::ScramSha512),
            ]),
            Mechanism::Plain,
        ),
            "How user and password of `[global.auth]` are shown; `PLAIN` sends them as they are, which wants TLS.";
    }
}

/// The table, as the configuration knows it.
pub(super) const TABLE: OptionTable = OptionTable {
    name: "kafka",
    about: "With `send_type = \"KAFKA\"`. Below it, `[global.kafka.properties]` sets properties of librdkafka, each as \
            `\"name\" = value`: those that tune it, listed in docs/strategies.md.",
    keys: KafkaKeys::KEYS,
    rows: KafkaKeys::rows,
    read,
};

/// What the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "it is read to be checked"))]
pub(super) struct KafkaOptions {
    pub(super) topic: Template,
    /// None where messages have no key.
    pub(super) key: Option<Template>,
    pub(super) per: Per,
    /// Beside that of `end_point`, as `host:port`.
    pub(super) brokers: Vec<String>,
    pub(super) codec: Codec,
    pub(super) mechanism: Mechanism,
    /// Properties of the library, in the order of the file; they win over our defaults.
    pub(super) properties: Vec<(String, String)>,
}

fn read(table: &Table<'_>, beside: Beside<'_>) -> Result<Options, ConfigError> {
    let keys = KafkaKeys::read(table)?;
    let per = Per::check(table, &keys.messages, beside.format)?;
    let topic = checked(table, "topic", &keys.topic, per, Template::parse_topic)?;
    let key = match &keys.key {
        Some(key) if key.value.is_empty() => None,
        Some(key) => Some(checked(table, "key", key, per, Template::parse)?),
        None => {
            let default = if per == Per::Batch { "{agent}" } else { "{agent}/{source}" };
            Template::parse(default).ok()
        }
    };
    for broker in &keys.brokers {
        if !is_broker(&broker.value) {
            let problem = Problem::Conflict("must be brokers, each as \"host:port\"".to_owned());
            return Err(table.error("brokers", broker.line, problem));
        }
    }
    let properties = table.table(properties::NAME)?.map(|table| properties::read(&table)).transpose()?;
    Ok(Options::new(KafkaOptions {
        topic,
        key,
        per,
        brokers: keys.brokers.into_iter().map(|broker| broker.value).collect(),
        codec: keys.compression.value,
        mechanism: keys.sasl_mechanism.value,
        properties: properties.unwrap_or_default(),
    }))
}

/// The template of the key `name`, which must go with what a message is.
fn checked(
    table: &Table<'_>,
    name: &str,
    text: &Located<String>,
    per: Per,
    parse: fn(&str) -> Result<Template, String>,
) -> Result<Template, ConfigError> {
    let error = |problem| table.error(name, text.line, Problem::Conflict(problem));
    let template = parse(&text.value).map_err(error)?;
    if template.has_source() && per == Per::Batch {
        return Err(error(
            "has the place {source}, but a batch may be of several; it goes with messages = \"event\" or \"source\""
                .to_owned(),
        ));
    }
    Ok(template)
}

/// Whether `text` is `host:port`, and so one broker of a list that the library splits at commas.
pub(super) fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let in_host = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_', ':', '[', ']'].contains(&c);
    !host.is_empty() && host.chars().all(in_host) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn load(rest: &str) -> Result<KafkaOptions, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let text = format!(
            "[global]\nagent_name = \"a\"\nend_point = \"kafka://h:9092\"\nsend_type = \"kafka\"\n[global.kafka]\n{rest}\n\
             [[sources]]\nname = \"s\"\nlog_path = \"/s.log\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = Config::load(Path::new(&path), None, &crate::send::transports());
        let config = config.map_err(|error| error.to_string().split_once("c:").unwrap().1.to_owned())?;
        Ok(config.global.options.of::<KafkaOptions>().unwrap().clone())
    }

    #[test]
    fn the_defaults_are_those_that_are_documented() {
        let options = load("topic = \"logs\"").unwrap();
        assert_eq!(options.topic, Template::parse("logs").unwrap());
        assert_eq!(options.key, Template::parse("{agent}/{source}").ok());
        assert_eq!(
            (options.per, options.codec, options.mechanism),
            (Per::Event, Codec::None, Mechanism::Plain)
        );
        assert!(options.brokers.is_empty() && options.properties.is_empty());
        let batches = load("topic = \"logs\"\nmessages = \"Batch\"").unwrap();
        assert_eq!(batches.key, Template::parse("{agent}").ok());
        assert_eq!(load("topic = \"logs\"\nkey = \"\"").unwrap().key, None);
    }

    #[test]
    fn what_is_written_arrives_as_written() {
        let options = load(
            "topic = \"l-{source}\"\nkey = \"{agent}\"\nbrokers = [\"b:1\", \"[::1]:9\"]\ncompression = \"lz4\"\n\
             sasl_mechanism = \"scram-sha-512\"\nmessages = \"source\"\n[global.kafka.properties]\n\
             \"linger.ms\" = 50\n\"socket.keepalive.enable\" = true\n\"partitioner\" = \"murmur2_random\"",
        )
        .unwrap();
        assert_eq!(
            (options.per, options.codec, options.mechanism),
            (Per::Source, Codec::Lz4, Mechanism::ScramSha512)
        );
        assert_eq!(options.brokers, ["b:1", "[::1]:9"]);
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options.properties,
            [
                property("linger.ms", "50"),
                property("socket.keepalive.enable", "true"),
                property("partitioner", "murmur2_random")
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_key() {
        for (rest, message) in [
            ("", "5: global.kafka.topic: is missing"),
            ("topic = \"a b\"", "6: global.kafka.topic: has ' '"),
            ("topic = \"{host}\"", "6: global.kafka.topic: has the place {host}"),
            ("topic = \"x\"\nkey = \"{\"", "7: global.kafka.key: has a brace that is not closed"),
            (
                "topic = \"{source}\"\nmessages = \"batch\"",
                "6: global.kafka.topic: has the place {source}, but",
            ),
            ("topic = \"x\"\nbrokers = [\"h:1\",\n\"h\"]", "8: global.kafka.brokers: must be brokers"),
            ("topic = \"x\"\nbrokers = [\"h:1,i:2\"]", "7: global.kafka.brokers: must be brokers"),
            ("topic = \"x\"\nacks = 1", "7: global.kafka.acks: is not a known key"),
        ] {
            let error = load(rest).unwrap_err();
            assert!(error.starts_with(message), "{rest}: {error}");
        }
    }

    #[test]
    fn a_property_that_would_break_a_promise_is_refused_with_its_line_and_key() {
        for (property, message) in [
            ("\"acks\" = 1", "8: global.kafka.properties.acks: is set by the agent"),
            (
                "\"enable.idempotence\" = false",
                "8: global.kafka.properties.enable.idempotence: is set by the agent",
            ),
            (
                "\"delivery.report.only.error\" = true",
                "8: global.kafka.properties.delivery.report.only.error: is set",
            ),
            (
                "\"message.timeout.ms\" = 0",
                "8: global.kafka.properties.message.timeout.ms: follows from timeout_secs",
            ),
            (
                "\"sasl.password\" = \"hunter2\"",
                "8: global.kafka.properties.sasl.password: is given by [global.auth]",
            ),
            (
                "\"ssl.key.pem\" = \"hunter2\"",
                "8: global.kafka.properties.ssl.key.pem: is given by [global.tls]",
            ),
            (
                "\"enable.ssl.certificate.verification\" = false",
                "8: global.kafka.properties.enable.ssl.certificate.verification: is none",
            ),
            ("\"test.mock.num.brokers\" = 3", "8: global.kafka.properties.test.mock.num.brokers: is none of"),
            (
                "\"plugin.library.paths\" = \"x\"",
                "8: global.kafka.properties.plugin.library.paths: is none of",
            ),
            (
                "\"linger.ms\" = \"hunter\"",
                "8: global.kafka.properties.linger.ms: must be what librdkafka takes",
            ),
            (
                "\"linger.ms\" = 1000000000",
                "8: global.kafka.properties.linger.ms: must be what librdkafka takes",
            ),
            (
                "\"linger.ms\" = [1]",
                "8: global.kafka.properties.linger.ms: must be a string, a whole number or a boolean",
            ),
        ] {
            let error = load(&format!("topic = \"x\"\n[global.kafka.properties]\n{property}")).unwrap_err();
            assert!(error.starts_with(message), "{property}: {error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
    }
}

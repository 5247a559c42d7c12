//! The library's configuration, made of ours.

use std::time::Duration;

use rdkafka::config::ClientConfig;

use super::options::{Codec, KafkaOptions, Mechanism, is_broker};
use crate::config::{Auth, Global};

/// The largest message that leaves: what a broker reads of a request at most is 100 MiB where nobody changed it. Whether
/// a topic takes that much is the brokers' to say.
const MESSAGE_BYTES_MAX: u32 = 100_000_000;
/// What the library queues at most, in KiB; above the largest message, which otherwise would never find room.
const QUEUE_KIB_MAX: u32 = 128 << 10;
/// The longest pause before the library connects again: a broker that is back is found within it.
const RECONNECT_MS_MAX: u32 = 1000;
/// The library's own defaults for a request and for connecting, which a shorter `timeout_secs` shortens.
const REQUEST_MS_MAX: u32 = 60_000;
const CONNECT_MS_MAX: u32 = 30_000;
/// The shortest of both that it takes.
const REQUEST_MS_MIN: u32 = 10;
const CONNECT_MS_MIN: u32 = 1000;
/// How long the library waits for a topic that no broker knows, as brokers make some when they are asked for; and the part
/// of the timeout that it may take at most, so that the answer comes within the call.
const TOPIC_MS_MAX: u32 = 30_000;
const TOPIC_PART: u32 = 4;

/// What the library is told. Nothing connects to it before a producer is made of it.
///
/// # Errors
/// In one line, what is wrong with `end_point`.
pub(super) fn client(global: &Global, options: &KafkaOptions) -> Result<ClientConfig, String> {
    let timeout_ms = millis(global.timeout);
    let mut config = ClientConfig::new();
    let mut set = |name: &str, value: String| {
        config.set(name, value);
    };
    set("client.id", "log-agent".to_owned());
    set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
    set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string());
    set("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string());
    set("socket.timeout.ms", timeout_ms.clamp(REQUEST_MS_MIN, REQUEST_MS_MAX).to_string());
    set("socket.connection.setup.timeout.ms", timeout_ms.clamp(CONNECT_MS_MIN, CONNECT_MS_MAX).to_string());
    set("topic.metadata.propagation.max.ms", (timeout_ms / TOPIC_PART).min(TOPIC_MS_MAX).to_string());
    // What the agent does is its operator's to know.
    set("enable.metrics.push", "false".to_owned());
    for (name, value) in &options.properties {
        set(name, value.clone());
    }
    // From here on, what no property may change.
    set("bootstrap.servers", brokers(global, options)?);
    set("acks", "all".to_owned());
    set("enable.idempotence", "true".to_owned());
    set("message.timeout.ms", timeout_ms.to_string());
    set("compression.codec", codec(options.codec).to_owned());
    secure(&mut config, global, options);
    Ok(config)
}

/// The same without brokers: a producer of it opens no connection.
pub(super) fn unconnected(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.remove("bootstrap.servers");
    config
}

/// TLS as the scheme says, and who the agent is.
fn secure(config: &mut ClientConfig, global: &Global, options: &KafkaOptions) {
    let tls = global.end_point.is_secure(global.send_type);
    let protocol = match (tls, &global.auth) {
        (false, None) => "plaintext",
        (true, None) => "ssl",
        (false, Some(_)) => "sasl_plaintext",
        (true, Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if tls {
        config.set("enable.ssl.certificate.verification", "true");
        config.set("ssl.endpoint.identification.algorithm", "https");
        // What is accepted as PEM is ASCII but for what stands around it.
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).replace('\0', " ");
        if let Some(pem) = &global.tls.ca_pem {
            config.set("ssl.ca.pem", text(pem));
        }
        if let Some(identity) = &global.tls.client_identity_pem {
            config.set("ssl.certificate.pem", text(&identity.cert_pem));
            config.set("ssl.key.pem", text(&identity.key_pem));
        }
    }
    // A bearer token is refused with the configuration.
    if let Some(Auth::Basic { user, password }) = &global.auth {
        config.set("sasl.mechanism", mechanism(options.mechanism));
        config.set("sasl.username", user);
        config.set("sasl.password", password.reveal());
    }
}

/// The port of brokers, for an `end_point` that has none.
const PORT: u16 = 9092;

fn brokers(global: &Global, options: &KafkaOptions) -> Result<String, String> {
    let url = &global.end_point.0;
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return Err("end_point must be host and port alone; the topic goes under [global.kafka]".to_owned());
    }
    let first = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(PORT));
    if !is_broker(&first) {
        return Err("end_point must be one broker; more of them go under [global.kafka]".to_owned());
    }
    Ok(std::iter::once(&first).chain(&options.brokers).map(String::as_str).collect::<Vec<_>>().join(","))
}

/// In milliseconds, as the library counts, which is up to 24 days.
fn millis(timeout: Duration) -> u32 {
    const MAX: u32 = i32::MAX.unsigned_abs();
    // As long as messages are held back to travel with others, or longer, or nothing would ever leave.
    const MIN: u32 = 100;
    u32::try_from(timeout.as_millis()).unwrap_or(MAX).clamp(MIN, MAX)
}

const fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    }
}

const fn mechanism(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

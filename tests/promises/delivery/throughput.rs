//! What each strategy delivers in a second, and for how much processor time and memory.
//!
//! The backlog is written by the spool itself and drained to a real server on the same machine, which takes its share of
//! the processors. How much is there is counted on the other side. By default the backlog is small and the run shows that
//! full batches pass; `LOG_AGENT_TEST_THROUGHPUT_MB` makes it large enough for figures that mean something.

use std::fs;
use std::time::{Duration, Instant};

use crate::backlog::fill;
use crate::common::{Agent, Collector, ConfigBuilder, PATIENCE, Scene, sink};

/// Events in a batch.
const BATCH: u64 = 1000;
/// How many events a message has: the value of the key, how it is called here, and what part of the backlog is enough.
#[cfg(any(feature = "queue", feature = "kafka"))]
const PER: [(&str, &str, u64); 2] = [("batch", "a batch", 1), ("event", "an event", 10)];
/// Log text of the default run, in bytes.
const SMALL_BYTES: u64 = 4_000_000;

/// A backlog, and the agent that drains it.
struct Drain {
    scene: Scene,
    bytes: u64,
    lines: u64,
}

impl Drain {
    fn of(name: &str) -> Self {
        Self::of_part(name, 1)
    }

    /// A backlog of the `part`th part of the usual size.
    fn of_part(name: &str, part: u64) -> Self {
        let bytes = std::env::var("LOG_AGENT_TEST_THROUGHPUT_MB").map_or(SMALL_BYTES, |megabytes| {
            megabytes.parse::<u64>().expect("LOG_AGENT_TEST_THROUGHPUT_MB is not a number") * 1_000_000
        });
        let scene = Scene::new(name);
        let bytes = bytes / part;
        let lines = fill(&scene, bytes, 64 << 20);
        Self { scene, bytes, lines }
    }

    fn config(&self, send_type: &str, url: impl Into<String>) -> ConfigBuilder<'_> {
        self.scene
            .config()
            .end_point(url)
            .global("send_type", send_type)
            .global("max_spool_bytes", "100 GiB")
            .global("max_batch_size", BATCH as i64)
            .global("timeout_secs", 60)
            .source("app", "logs/app.log")
    }

    /// Batches that the backlog is cut into, all but the last of them full.
    fn batches(&self) -> u64 {
        self.lines.div_ceil(BATCH)
    }

    /// Starts an agent and prints what it took until `arrived` says that `wanted` are there.
    fn run(&self, what: &str, wanted: u64, mut arrived: impl FnMut() -> u64) {
        let begun = Instant::now();
        let agent = Agent::start(&self.scene);
        let (mut there, mut moved) = (0, Instant::now());
        while there < wanted {
            std::thread::sleep(Duration::from_millis(20));
            let now = arrived();
            if now != there {
                (there, moved) = (now, Instant::now());
            }
            assert!(moved.elapsed() < PATIENCE, "{there} of {wanted} have come, and no more do");
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (processor_seconds, peak_mb) = taken_by(agent.pid());
        let (lines, bytes) = (self.lines as f64, self.bytes as f64);
        println!(
            "{what:<36} {:>9.0} lines/s {:>6.0} MB/s {:>6.2} CPU s/GB {:>6.1} MB resident at most ({:.0} MB in {seconds:.2} s)",
            lines / seconds,
            bytes / 1e6 / seconds,
            processor_seconds / (bytes / 1e9),
            peak_mb,
            bytes / 1e6,
        );
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(arrived(), wanted, "what was acknowledged came again");
    }

    /// The same with a message for each batch or for each event, as `messages` says.
    #[cfg(any(feature = "queue", feature = "kafka"))]
    fn run_per(&self, strategy: &str, messages: &str, each: &str, arrived: impl FnMut() -> u64) {
        let wanted = if messages == "batch" { self.batches() } else { self.lines };
        self.run(&format!("{strategy}, a message {each}"), wanted, arrived);
    }
}

/// Processor time in seconds and the most resident memory in megabytes of a process so far.
fn taken_by(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    let seconds = |field: &str| field.parse::<f64>().unwrap() / 100.0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    (seconds(fields[11]) + seconds(fields[12]), kib * 1.024e-3)
}

#[test]
fn a_backlog_goes_through_http_in_full_batches() {
    let drain = Drain::of("a_backlog_goes_through_http_in_full_batches");
    let sink = sink::Sink::start().unwrap();
    drain.config("HTTP", sink.url()).write();
    drain.run("HTTP, counting server", drain.lines, || sink.counts().events());
    assert_eq!(sink.counts().requests(), drain.batches());

    let drain = Drain::of("a_backlog_goes_through_http_in_full_batches");
    let collector = Collector::start(&drain.scene);
    drain.config("HTTP", collector.url()).write();
    drain.run("HTTP, log-agent collect", drain.batches(), || collector.stats().requests);
    assert_eq!(collector.stored_count(), drain.lines);
}

#[cfg(feature = "websocket")]
#[test]
fn a_backlog_goes_through_a_websocket_in_full_batches() {
    let drain = Drain::of("a_backlog_goes_through_a_websocket_in_full_batches");
    let collector = Collector::start(&drain.scene);
    drain.config("WEBSOCKET", collector.socket_url()).write();
    drain.run("WEBSOCKET, log-agent collect", drain.batches(), || collector.stats().requests);
    assert_eq!(collector.stored_count(), drain.lines);
}

#[cfg(feature = "nats")]
#[test]
fn a_backlog_goes_through_nats_in_full_batches() {
    const TEST: &str = "a_backlog_goes_through_nats_in_full_batches";
    if !super::nats::is_installed(TEST) {
        return;
    }
    for (messages, each, part) in PER {
        let drain = Drain::of_part(TEST, part);
        let server = super::nats::Server::start(&drain.scene, "");
        server.make_stream(serde_json::json!({}));
        let config = drain.config("NATS", server.url()).table("nats", "subject", "logs.app");
        config.table("nats", "messages", messages).write();
        drain.run_per("NATS", messages, each, || server.message_count());
    }
}

#[cfg(feature = "amqp")]
#[test]
fn a_backlog_goes_through_amqp_in_full_batches() {
    const TEST: &str = "a_backlog_goes_through_amqp_in_full_batches";
    if !super::amqp::broker::is_installed(TEST) {
        return;
    }
    let broker = super::amqp::broker::Broker::taking(1 << 20);
    for (messages, each, part) in PER {
        let drain = Drain::of_part(TEST, part);
        let queue = broker.make_queue(messages, &[]);
        let config = drain.config("AMQP", broker.url()).table("amqp", "routing_key", messages);
        config.table("amqp", "messages", messages).write();
        drain.run_per("AMQP", messages, each, || queue.message_count());
    }
}

#[cfg(feature = "mqtt")]
#[test]
fn a_backlog_goes_through_mqtt_in_full_batches() {
    const TEST: &str = "a_backlog_goes_through_mqtt_in_full_batches";
    if !super::mqtt::is_installed(TEST) {
        return;
    }
    for (messages, each, part) in PER {
        let drain = Drain::of_part(TEST, part);
        let broker = super::mqtt::Broker::start(&drain.scene, "allow_anonymous true");
        let subscriber = super::mqtt::Subscriber::start(&broker);
        let config = drain.config("MQTT", broker.url()).table("mqtt", "topic", "logs/app");
        config.table("mqtt", "messages", messages).write();
        drain.run_per("MQTT", messages, each, || subscriber.count());
    }
}

#[cfg(feature = "kafka")]
#[test]
fn a_backlog_goes_through_kafka_in_full_batches() {
    use super::kafka::{Brokers, TOPIC, Topic, real};
    const TEST: &str = "a_backlog_goes_through_kafka_in_full_batches";
    for (messages, each, part) in PER {
        let drain = Drain::of_part(TEST, part);
        let deliver = |whose: &str, url: String, topic: &Topic| {
            let config = drain.config("KAFKA", url).table("kafka", "topic", TOPIC);
            config.table("kafka", "messages", messages).write();
            drain.run_per(&format!("KAFKA{whose}"), messages, each, || topic.message_count());
        };
        if real::fetched().is_some() {
            let broker = real::Broker::start(&drain.scene, TEST).unwrap();
            broker.create_topic();
            let address = broker.address();
            deliver("", format!("kafka://{address}"), &Topic::of(&address, TOPIC));
        } else {
            let brokers = Brokers::start();
            deliver(" (mock)", brokers.url(), &brokers.topic());
        }
    }
}

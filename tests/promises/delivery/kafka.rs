//! The same promises through Kafka: brokers of the library's mock cluster, which listen on real ports, and real ones
//! where there are some.

pub(super) mod real;
mod topic;

use std::process::Command;
use std::time::Duration;

use rand::Rng as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr as Error;
use rustix::process::Signal;

pub(super) use self::topic::Topic;
use super::connect::{assert_nobody_answers, assert_not_usable, assert_reached};
use super::quick;
use super::refusals::dead_letters;
use crate::common::{
    Agent, ConfigBuilder, PATIENCE, Scene, Writer, assert_all_is_acknowledged, log_agent, spool_status,
    wait_for,
};

pub(super) const TOPIC: &str = "logs";

/// Brokers, and the topic in two partitions.
pub(super) struct Brokers(MockCluster<'static, DefaultProducerContext>);

impl Brokers {
    pub(super) fn start() -> Self {
        Self::several(1)
    }

    /// So many, of which each has everything.
    fn several(count: i32) -> Self {
        let cluster = MockCluster::new(count).unwrap();
        cluster.create_topic(TOPIC, 2, count).unwrap();
        Self(cluster)
    }

    pub(super) fn url(&self) -> String {
        // The others are learnt from the first.
        let brokers = self.0.bootstrap_servers();
        format!("kafka://{}", brokers.split(',').next().unwrap())
    }

    pub(super) fn topic(&self) -> Topic {
        Topic::of(&self.0.bootstrap_servers(), TOPIC)
    }
}

/// A configuration with one source that sends to Kafka. The library looks around once a second, so a second is too short
/// for a call.
fn to_kafka(scene: &Scene, url: impl Into<String>) -> ConfigBuilder<'_> {
    quick(scene, url.into())
        .global("send_type", "KAFKA")
        .global("timeout_secs", 4)
        .table("kafka", "topic", TOPIC)
}

/// The same with a property of the library.
fn with_property<'a>(config: ConfigBuilder<'a>, name: &str, value: i64) -> ConfigBuilder<'a> {
    let mut properties = toml::Table::new();
    properties.insert(name.to_owned(), value.into());
    config.table("kafka", "properties", properties)
}

#[test]
fn every_line_is_a_message_once_and_the_agent_ends_in_order() {
    let scene = Scene::new("every_line_is_a_message_once_and_the_agent_ends_in_order");
    let brokers = Brokers::start();
    to_kafka(&scene, brokers.url()).table("kafka", "compression", "zstd").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(500);
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_all(&writer);
    writer.append(5);
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(topic.counts(), (505, 0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

#[test]
fn an_event_travels_as_its_line_of_ndjson_under_the_same_headers() {
    let scene = Scene::new("an_event_travels_as_its_line_of_ndjson_under_the_same_headers");
    let brokers = Brokers::start();
    to_kafka(&scene, brokers.url()).global("format", "ndjson").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_all(&writer);
    assert_eq!(topic.counts(), (100, 0));
    assert!(topic.all_name_their_spool(), "a value is not the line of NDJSON");
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

#[test]
fn brokers_that_go_away_are_awaited_and_get_every_line() {
    let scene = Scene::new("brokers_that_go_away_are_awaited_and_get_every_line");
    let brokers = Brokers::start();
    to_kafka(&scene, brokers.url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(50);
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_all(&writer);
    brokers.0.broker_down(1).unwrap();
    writer.append(95);
    agent.await_said("delivery failed and will be tried again");
    writer.append(5);
    brokers.0.broker_up(1).unwrap();
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

#[test]
fn another_broker_that_leads_gets_what_follows_and_nothing_twice() {
    let scene = Scene::new("another_broker_that_leads_gets_what_follows_and_nothing_twice");
    let brokers = Brokers::several(2);
    let lead = |broker| {
        (0..2).for_each(|partition| brokers.0.partition_leader(TOPIC, partition, Some(broker)).unwrap())
    };
    lead(1);
    to_kafka(&scene, brokers.url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(50);
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_all(&writer);
    lead(2);
    writer.append(50);
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(topic.counts(), (100, 0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

#[test]
fn a_confirmation_that_is_lost_leads_to_the_same_messages_under_the_same_headers() {
    let scene = Scene::new("a_confirmation_that_is_lost_leads_to_the_same_messages_under_the_same_headers");
    let brokers = Brokers::start();
    to_kafka(&scene, brokers.url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(10);
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_all(&writer);
    // The broker stores what comes, and is not heard of it while the agent lives.
    brokers.0.broker_round_trip_time(1, Duration::from_secs(30)).unwrap();
    writer.append(20);
    agent.await_said("delivery failed and will be tried again");
    agent.kill();
    brokers.0.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let topic = brokers.topic();
    topic.await_all(&writer);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "the messages come again", || topic.counts().1 >= 20);
    topic.await_all(&writer);
    for seq in 11..=30 {
        let mut batches = topic.batches_of("app", seq);
        assert!(batches.len() >= 2, "{seq} came once");
        batches.dedup();
        assert_eq!(batches.len(), 1, "{seq} came in two batches: {batches:?}");
    }
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

/// In a line that is too long for a message.
const LONG: &str = "TOO-LONG";

#[test]
fn an_event_that_is_too_large_becomes_a_dead_letter_and_all_others_are_delivered() {
    let scene = Scene::new("an_event_that_is_too_large_becomes_a_dead_letter_and_all_others_are_delivered");
    let brokers = Brokers::start();
    with_property(to_kafka(&scene, brokers.url()), "message.max.bytes", 5000).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    for number in 0..40 {
        if [0, 17, 18, 39].contains(&number) {
            writer.append_line(&format!("{LONG} {}", "x".repeat(6000)));
        } else {
            writer.append(1);
        }
    }
    let agent = Agent::start(&scene);
    let topic = brokers.topic();
    topic.await_lines(&writer, |line| !line.contains(LONG));
    wait_for(PATIENCE, "four dead letters", || dead_letters(&scene).matches(LONG).count() == 4);
    assert!(dead_letters(&scene).contains("Message size too large"), "the reason is kept with each");
    assert_eq!(agent.stop(), Some(0));
    assert!(!agent_messages(&scene).contains(LONG), "the content of a line was logged");
}

fn agent_messages(scene: &Scene) -> String {
    std::fs::read_to_string(Agent::stderr_path(scene)).unwrap()
}

#[test]
fn while_the_topic_is_missing_everything_is_kept_and_it_is_said() {
    let scene = Scene::new("while_the_topic_is_missing_everything_is_kept_and_it_is_said");
    let brokers = Brokers::start();
    brokers.0.topic_error(TOPIC, Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let config = to_kafka(&scene, brokers.url());
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("create the topic, or check topic in [global.kafka]");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    writer.append(10);
    brokers.0.topic_error(TOPIC, Error::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    // The slow cadence would find it in half a minute.
    agent.signal(Signal::HUP);
    let topic = brokers.topic();
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(topic.counts().1, 0, "nothing was sent to a topic that is not there");
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
}

#[test]
fn every_line_arrives_through_twenty_deaths_of_the_agent() {
    const ROUNDS: u32 = 20;
    let scene = Scene::new("every_line_arrives_through_twenty_deaths_of_the_agent");
    let brokers = Brokers::start();
    // Far enough away for several batches to be on their way at a time, and others to wait for them.
    brokers.0.broker_round_trip_time(1, Duration::from_millis(20)).unwrap();
    to_kafka(&scene, brokers.url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let topic = brokers.topic();
    let mut rng = scene.rng("deaths");
    for round in 0..ROUNDS {
        topic.read();
        writer.append(200);
        let agent = Agent::start(&scene);
        writer.append(50);
        if round % 5 == 4 {
            brokers.0.broker_down(1).unwrap();
            agent.await_started();
            std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
            brokers.0.broker_up(1).unwrap();
        }
        topic.await_next();
        // Not to wait for something, but to hit another moment.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        agent.kill();
    }
    let agent = Agent::start(&scene);
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
    let (messages, again) = topic.counts();
    assert!(again > 0, "no death hit a batch that was on its way");
    println!("{ROUNDS} rounds, {} lines, {messages} messages, {again} of them known", writer.count());
}

#[test]
fn check_connect_asks_each_broker_for_the_topics_and_whether_their_leaders_answer() {
    let scene = Scene::new("check_connect_asks_each_broker_for_the_topics_and_whether_their_leaders_answer");
    let brokers = Brokers(MockCluster::new(2).unwrap());
    brokers.0.create_topic("logs-app", 2, 1).unwrap();
    let servers = brokers.0.bootstrap_servers();
    let (first, second) = servers.split_once(',').unwrap();
    Writer::new(&scene, "app", "logs/app.log").append(1);
    Writer::new(&scene, "web", "logs/web.log").append(1);
    let config = to_kafka(&scene, format!("kafka://{first}"))
        .table("kafka", "topic", "logs-{source}")
        .source("web", "logs/web.log");
    let url = |address: &str| format!("kafka://{address}");
    let missing = ["the topic logs-web: ", "create the topic, or check topic in [global.kafka]"];
    assert_not_usable(&config, &url(first), &missing, &[]);

    brokers.0.create_topic("logs-web", 1, 1).unwrap();
    let config = config.table("kafka", "brokers", vec![second]);
    let says = [
        "2 brokers (",
        "), without TLS; of the topics there is logs-app (2 partitions), logs-web (1 partition)\n",
    ];
    assert_reached(&config, &[&url(first), &url(second)], &says);

    // The first answers, but one of the partitions is led by the second.
    brokers.0.broker_round_trip_time(2, Duration::from_secs(30)).unwrap();
    assert_not_usable(&config, &url(first), &["which leads the partition", "(advertised.listeners)"], &[]);
    assert_not_usable(&config, &url(second), &["no answer within 4 s"], &[]);
    brokers.0.broker_down(2).unwrap();
    assert_not_usable(&config, &url(first), &["is led by the broker 2, which is not among those"], &[]);
}

#[test]
fn check_connect_says_that_no_broker_is_there_and_shows_no_password() {
    let scene = Scene::new("check_connect_says_that_no_broker_is_there_and_shows_no_password");
    Writer::new(&scene, "app", "logs/app.log").append(1);
    let config = to_kafka(&scene, "kafka://127.0.0.1:1")
        .table("auth", "type", "basic")
        .table("auth", "user", USER)
        .table("auth", "password", PASSWORD);
    assert_nobody_answers(config.clone(), "kafka");
    // It knows no SASL.
    let brokers = Brokers::start();
    let config = config.end_point(brokers.url());
    assert_not_usable(&config, &brokers.url(), &["no answer within 4 s"], &[PASSWORD]);
}

const USER: &str = "the-user-of-kafka";
const PASSWORD: &str = "the-password-of-kafka";

#[test]
fn a_password_is_never_shown_whatever_is_asked_for() {
    let scene = Scene::new("a_password_is_never_shown_whatever_is_asked_for");
    // It knows no SASL, so nothing is delivered and much is said.
    let brokers = Brokers::start();
    let mut properties = toml::Table::new();
    properties.insert("debug".into(), "all".into());
    to_kafka(&scene, brokers.url())
        .table("kafka", "properties", properties)
        .table("auth", "type", "basic")
        .table("auth", "user", USER)
        .table("auth", "password", PASSWORD)
        .write();
    Writer::new(&scene, "app", "logs/app.log").append(10);
    let agent = Agent::start_with(&scene, |command| {
        _ = command.env("RUST_LOG", "trace,librdkafka=trace,rdkafka=trace")
    });
    agent.await_said("error=\"no delivery within");
    assert!(agent.said().contains("librdkafka"), "it was not asked for everything it would say");
    assert_eq!(agent.stop(), Some(0));
    let messages = agent_messages(&scene);
    assert!(!messages.contains(PASSWORD), "the password was shown");
}

#[test]
fn what_would_break_a_promise_is_refused_with_file_line_and_key() {
    let scene = Scene::new("what_would_break_a_promise_is_refused_with_file_line_and_key");
    let text = "[global]\nagent_name = \"a\"\nend_point = \"kafka://localhost\"\nsend_type = \"KAFKA\"\n\
                [global.kafka]\ntopic = \"logs\"\n[global.kafka.properties]\n\"acks\" = 1\n\
                [[sources]]\nname = \"s\"\nlog_path = \"/s.log\"\n";
    let check = |text: &str| {
        std::fs::write(scene.config_path(), text).unwrap();
        let mut command: Command = log_agent();
        let output = command.arg("check").arg("--config").arg(scene.config_path()).output().unwrap();
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, said) = check(text);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("log-agent.config:8: global.kafka.properties.acks: is set by the agent"), "{said}");
    let (code, said) = check(&text.replace("\"acks\" = 1", "\"linger.ms\" = 50"));
    // The source's file is not there, which is worth a warning.
    assert!(matches!(code, Some(0 | 2)) && said.contains("KAFKA, up to 5 batches"), "{said}");
}

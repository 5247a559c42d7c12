//! A real broker: Apache Kafka from the directory in `LOG_AGENT_TEST_KAFKA`, which `tests/kafka.sh` fills. Without it these
//! tests are skipped. A broker is a Java program that takes seconds to start, so they take turns.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rustix::process::Signal;

use super::super::connect::{assert_not_usable, assert_reached};
use super::topic::Topic;
use super::{LONG, TOPIC, agent_messages, dead_letters, to_kafka};
use crate::common::{
    Agent, PATIENCE, Process, Scene, Writer, assert_all_is_acknowledged, free_port, skip, spool_status,
    wait_for,
};

/// One broker that is its own controller, with a listener for anybody and one that wants a password.
pub(in super::super) struct Broker {
    _turn: MutexGuard<'static, ()>,
    kafka: PathBuf,
    dir: PathBuf,
    port: u16,
    sasl_port: u16,
    process: Option<Process>,
}

static TURN: Mutex<()> = Mutex::new(());

const USER: &str = "agent";
const PASSWORD: &str = "the-password-of-kafka";

/// Where the jars of Kafka are.
pub(in super::super) fn fetched() -> Option<PathBuf> {
    std::env::var_os("LOG_AGENT_TEST_KAFKA").map(PathBuf::from)
}

impl Broker {
    /// A broker that runs, without topics; none where there is no Kafka.
    pub(in super::super) fn start(scene: &Scene, test: &str) -> Option<Self> {
        let Some(kafka) = fetched() else {
            skip(test, "LOG_AGENT_TEST_KAFKA names no Kafka; tests/kafka.sh fetches one");
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scene.path("kafka");
        std::fs::create_dir(&dir).unwrap();
        let (port, sasl_port, controller) = (free_port(), free_port(), free_port());
        let config = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=OPEN://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=OPEN://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port}\n\
             listener.security.protocol.map=OPEN:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=OPEN\n\
             listener.name.sasl.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{USER}=\"{PASSWORD}\";\n\
             log.dirs={}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n",
            dir.join("data").display()
        );
        std::fs::write(dir.join("server.properties"), config).unwrap();
        let mut broker = Self { _turn: turn, kafka, dir, port, sasl_port, process: None };
        let mut format = broker.java("kafka.tools.StorageTool");
        format
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(broker.dir.join("server.properties"));
        let output = format.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        broker.run();
        Some(broker)
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(self.kafka.join("libs/*")).arg(class).stdin(Stdio::null()).current_dir(&self.dir);
        command
    }

    /// Starts it and waits until it answers.
    fn run(&mut self) {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.dir.join("server.properties")).stdout(Stdio::null());
        self.process = Some(Process::start("kafka", command, &self.dir.join("stderr")));
        let admin = self.admin();
        wait_for(Duration::from_secs(120), "the broker answers", || {
            assert!(self.process.as_mut().unwrap().is_running(), "the broker ended");
            admin
                .inner()
                .fetch_metadata(None, Duration::from_secs(1))
                .is_ok_and(|found| !found.brokers().is_empty())
        });
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    pub(in super::super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    pub(in super::super) fn create_topic(&self) {
        self.create_topic_with(&[]);
    }

    fn create_topic_with(&self, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(TOPIC, 2, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        assert_eq!(made, [Ok(TOPIC.to_owned())]);
    }
}

#[test]
fn a_real_broker_that_restarts_gets_every_line() {
    let name = "a_real_broker_that_restarts_gets_every_line";
    let scene = Scene::new(name);
    let Some(mut broker) = Broker::start(&scene, name) else { return };
    broker.create_topic();
    to_kafka(&scene, format!("kafka://{}", broker.address())).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(500);
    let agent = Agent::start(&scene);
    let topic = Topic::of(&broker.address(), TOPIC);
    topic.await_all(&writer);
    assert_eq!(topic.counts(), (500, 0), "what nothing disturbs comes once");
    assert_eq!(broker.process.take().unwrap().stop(), Some(143), "in order, as Java ends by SIGTERM");
    writer.append(95);
    agent.await_said("delivery failed and will be tried again");
    writer.append(5);
    broker.run();
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
}

/// The broker refuses sets of messages, of which only one is at fault.
#[test]
fn an_event_that_a_real_broker_finds_too_large_becomes_a_dead_letter_and_all_others_are_delivered() {
    let name =
        "an_event_that_a_real_broker_finds_too_large_becomes_a_dead_letter_and_all_others_are_delivered";
    let scene = Scene::new(name);
    let Some(broker) = Broker::start(&scene, name) else { return };
    broker.create_topic_with(&[("max.message.bytes", "20000")]);
    to_kafka(&scene, format!("kafka://{}", broker.address())).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    for number in 0..60 {
        if [0, 17, 18, 59].contains(&number) {
            writer.append_line(&format!("{LONG} {}", "x".repeat(30_000)));
        } else {
            writer.append(1);
        }
    }
    let agent = Agent::start(&scene);
    let topic = Topic::of(&broker.address(), TOPIC);
    topic.await_lines(&writer, |line| !line.contains(LONG));
    wait_for(PATIENCE, "four dead letters", || dead_letters(&scene).matches(LONG).count() == 4);
    assert_eq!(agent.stop(), Some(0));
    assert!(dead_letters(&scene).contains("Message size too large"), "the reason is kept with each");
}

#[test]
fn while_a_real_broker_has_no_such_topic_everything_is_kept() {
    let name = "while_a_real_broker_has_no_such_topic_everything_is_kept";
    let scene = Scene::new(name);
    let Some(broker) = Broker::start(&scene, name) else { return };
    to_kafka(&scene, format!("kafka://{}", broker.address())).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("create the topic, or check topic in [global.kafka]");
    broker.create_topic();
    agent.signal(Signal::HUP);
    let topic = Topic::of(&broker.address(), TOPIC);
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(topic.counts(), (100, 0));
}

#[test]
fn a_real_broker_takes_the_right_password_and_what_a_wrong_one_kept_is_delivered() {
    let name = "a_real_broker_takes_the_right_password_and_what_a_wrong_one_kept_is_delivered";
    let scene = Scene::new(name);
    let Some(broker) = Broker::start(&scene, name) else { return };
    broker.create_topic();
    let config = to_kafka(&scene, format!("kafka://127.0.0.1:{}", broker.sasl_port))
        .table("auth", "type", "basic")
        .table("auth", "user", USER);
    config.clone().table("auth", "password", "the-wrong-one").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let url = format!("kafka://127.0.0.1:{}", broker.sasl_port);
    let refused = ["check [global.auth], and sasl_mechanism in [global.kafka]"];
    let wrong = config.clone().table("auth", "password", "the-wrong-one");
    assert_not_usable(&wrong, &url, &refused, &["the-wrong-one"]);
    let everything = |command: &mut Command| _ = command.env("RUST_LOG", "debug,librdkafka=trace");
    let agent = Agent::start_with(&scene, everything);
    agent.await_said("check [global.auth], and sasl_mechanism in [global.kafka]");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    let config = config.table("auth", "password", PASSWORD);
    assert_reached(&config, &[&url], &["of the topics there is logs (2 partitions)"]);
    agent.signal(Signal::HUP);
    let topic = Topic::of(&broker.address(), TOPIC);
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    let messages = agent_messages(&scene);
    assert!(!messages.contains(PASSWORD) && !messages.contains("the-wrong-one"), "a password was shown");
}

#[test]
fn every_line_arrives_through_twenty_deaths_of_agent_and_real_broker() {
    const ROUNDS: u32 = 20;
    let name = "every_line_arrives_through_twenty_deaths_of_agent_and_real_broker";
    let scene = Scene::new(name);
    let Some(mut broker) = Broker::start(&scene, name) else { return };
    broker.create_topic();
    to_kafka(&scene, format!("kafka://{}", broker.address())).global("max_batch_size", 40).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let topic = Topic::of(&broker.address(), TOPIC);
    let mut rng = scene.rng("deaths");
    let mut agent = Agent::start(&scene);
    for round in 0..ROUNDS {
        topic.read();
        writer.append(1500);
        topic.await_next();
        // Not to wait for something, but to hit another moment.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
        // Each alone, and both in either order.
        match round % 4 {
            0 => agent.kill(),
            1 => {
                broker.kill();
                broker.run();
                continue;
            }
            2 => {
                broker.kill();
                agent.kill();
                broker.run();
            }
            _ => {
                agent.kill();
                broker.kill();
                broker.run();
            }
        }
        agent = Agent::start(&scene);
    }
    topic.await_all(&writer);
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
    let (messages, again) = topic.counts();
    assert!(again > 0, "no death hit a batch that was on its way");
    println!("{ROUNDS} rounds, {} lines, {messages} messages, {again} of them known", writer.count());
}

//! MQTT, against mosquitto: each test has a broker of its own, and a subscriber that was there first.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::connect::{assert_nobody_answers, assert_not_usable, assert_reached};
use super::queue::{
    Published, assert_all_arrives, assert_done, assert_events_travel_in, dead_letters, deaths, event_count,
    queued, rounds,
};
use crate::common::{
    Agent, Authority, ConfigBuilder, PATIENCE, Process, Scene, Writer, free_port, has_program, skip, wait_for,
};

const PROGRAM: &str = "/usr/sbin/mosquitto";

/// Whether the broker is installed; says that the test is skipped where it is not.
pub(super) fn is_installed(test: &str) -> bool {
    let installed = Path::new(PROGRAM).is_file() || has_program("mosquitto");
    if !installed {
        skip(test, "mosquitto is not installed");
    }
    installed
}

/// A broker whose port and data stay the same across restarts.
pub(super) struct Broker {
    process: Process,
    config: PathBuf,
    stderr: PathBuf,
    port: u16,
}

impl Broker {
    /// A broker that keeps its sessions on disk, and what `more` says of its configuration.
    pub(super) fn start(scene: &Scene, more: &str) -> Self {
        let port = free_port();
        let config = scene.path("mosquitto.conf");
        let mut text = format!("listener {port} 127.0.0.1\n");
        // It would become another user, who cannot write here.
        writeln!(text, "user root\npersistence true\npersistence_location {}/", scene.path(".").display())
            .unwrap();
        writeln!(text, "max_queued_messages 0\nmax_inflight_messages 0\nlog_dest stderr\n{more}").unwrap();
        fs::write(&config, text).unwrap();
        let stderr = scene.path("mosquitto.stderr");
        Self { process: run(&config, &stderr), config, stderr, port }
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    fn restart(&mut self) {
        self.process = run(&self.config, &self.stderr);
    }
}

fn run(config: &Path, stderr: &Path) -> Process {
    let program = if Path::new(PROGRAM).is_file() { PROGRAM } else { "mosquitto" };
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Process::start("mosquitto", command, stderr)
}

/// A subscriber whose session outlives its connections.
pub(super) struct Subscriber {
    taken: Arc<Mutex<Vec<Published>>>,
    _runtime: Runtime,
}

impl Subscriber {
    /// Subscribes to everything, and returns once the broker says so.
    pub(super) fn start(broker: &Broker) -> Self {
        Self::start_with(broker, |_| {})
    }

    fn start_with(broker: &Broker, change: impl FnOnce(&mut MqttOptions)) -> Self {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", broker.port);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            .set_max_packet_size(Some(1 << 24));
        options.set_keep_alive(Duration::from_secs(5));
        change(&mut options);
        let (client, mut wire) = AsyncClient::new(options, 16);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let subscribed = Arc::new(Mutex::new(false));
        client.try_subscribe("logs/#", QoS::AtLeastOnce).unwrap();
        runtime.spawn({
            let (taken, subscribed) = (Arc::clone(&taken), Arc::clone(&subscribed));
            async move {
                let _client = client;
                loop {
                    match wire.poll().await {
                        Ok(Event::Incoming(Packet::Publish(message))) => {
                            taken.lock().unwrap().push(published(message))
                        }
                        Ok(Event::Incoming(Packet::SubAck(_))) => *subscribed.lock().unwrap() = true,
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            }
        });
        wait_for(PATIENCE, "the subscription", || *subscribed.lock().unwrap());
        Self { taken, _runtime: runtime }
    }

    fn published(&self) -> Vec<Published> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> u64 {
        self.taken.lock().unwrap().len() as u64
    }
}

fn published(message: Publish) -> Published {
    let properties = message.properties.unwrap_or_default();
    let property = |name: &str| {
        let property = properties.user_properties.iter().find(|(found, _)| found == name);
        property.map(|(_, value)| value.clone())
    };
    let body = message.payload.to_vec();
    let address = String::from_utf8(message.topic.to_vec()).unwrap();
    match property("Log-Agent-Id") {
        Some(id) => Published {
            address,
            id,
            key: property("Log-Agent-Key").unwrap(),
            seq: property("Log-Agent-Seq").unwrap(),
            source: property("Log-Agent-Source"),
            content_type: properties.content_type.clone().unwrap(),
            body,
        },
        // Of 3.1.1: what a message of one event says of itself.
        None => {
            let event: Value = serde_json::from_slice(&body).unwrap();
            let source = event["sourceName"].as_str().unwrap().to_owned();
            let seq = event["seq"].to_string();
            Published {
                address,
                id: format!("{source}/{seq}"),
                key: "none".into(),
                seq,
                source: Some(source),
                content_type: "application/json".into(),
                body,
            }
        }
    }
}

fn to_mqtt<'a>(scene: &'a Scene, broker: &Broker) -> ConfigBuilder<'a> {
    queued(scene, "MQTT", &broker.url())
}

#[test]
fn a_subscriber_gets_every_line_once_through_a_restart_of_the_broker() {
    const TEST: &str = "a_subscriber_gets_every_line_once_through_a_restart_of_the_broker";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let mut broker = Broker::start(&scene, "allow_anonymous true");
    let subscriber = Subscriber::start(&broker);
    to_mqtt(&scene, &broker).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let agent = Agent::start(&scene);
    writer.append(200);
    wait_for(PATIENCE, "half of it is there", || event_count(&subscriber.published()) == 200);
    broker.process.stop();
    writer.append(200);
    agent.await_said("will be tried again");
    broker.restart();
    let again = assert_all_arrives(&[&writer], || subscriber.published());
    println!("{again} messages came again, as they had been");
    assert!(subscriber.published().iter().all(|message| message.address == "logs/agent1"));
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn with_a_message_for_each_event_the_source_is_in_the_topic_in_either_version() {
    const TEST: &str = "with_a_message_for_each_event_the_source_is_in_the_topic_in_either_version";
    if !is_installed(TEST) {
        return;
    }
    for version in ["5", "3.1.1"] {
        let scene = Scene::new(TEST);
        let broker = Broker::start(&scene, "allow_anonymous true");
        let subscriber = Subscriber::start(&broker);
        to_mqtt(&scene, &broker)
            .table("mqtt", "version", version)
            .table("mqtt", "messages", "event")
            .table("mqtt", "topic", "logs/{agent}/{source}")
            .source("web/eu", "logs/web.log")
            .write();
        let mut app = Writer::new(&scene, "app", "logs/app.log");
        let mut web = Writer::new(&scene, "web/eu", "logs/web.log");
        app.append(300);
        web.append(300);
        let agent = Agent::start(&scene);
        assert_eq!(assert_all_arrives(&[&app, &web], || subscriber.published()), 0);
        for message in subscriber.published() {
            let source = message.source.as_deref().unwrap();
            assert_eq!(
                message.address,
                if source == "app" { "logs/agent1/app" } else { "logs/agent1/web_eu" }
            );
            assert!(message.id.ends_with(&format!("{source}/{}", message.seq)), "{}", message.id);
        }
        assert_done(&scene, agent, &[&app, &web]);
    }
}

#[test]
fn events_travel_as_they_are_or_as_a_line_of_ndjson() {
    const TEST: &str = "events_travel_as_they_are_or_as_a_line_of_ndjson";
    if !is_installed(TEST) {
        return;
    }
    for format in ["raw", "ndjson"] {
        let scene = Scene::new(TEST);
        let broker = Broker::start(&scene, "allow_anonymous true");
        let subscriber = Subscriber::start(&broker);
        let config = to_mqtt(&scene, &broker);
        assert_events_travel_in(format, &scene, config, "mqtt", || subscriber.published());
    }
}

#[test]
fn a_topic_that_is_not_allowed_is_the_operators_to_mend() {
    const TEST: &str = "a_topic_that_is_not_allowed_is_the_operators_to_mend";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let acl = scene.path("acl");
    fs::write(&acl, "topic readwrite logs/#\n").unwrap();
    let broker = Broker::start(&scene, &format!("allow_anonymous true\nacl_file {}", acl.display()));
    let subscriber = Subscriber::start(&broker);
    let config = to_mqtt(&scene, &broker);
    config.clone().table("mqtt", "topic", "private/{agent}").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(50);
    let agent = Agent::start(&scene);
    agent.await_said("the broker answered NotAuthorized: check [global.auth]");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    assert_eq!(subscriber.count(), 0);
    config.write();
    agent.signal(Signal::HUP);
    assert_eq!(assert_all_arrives(&[&writer], || subscriber.published()), 0);
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn an_event_longer_than_the_broker_takes_is_a_dead_letter_and_all_others_are_there() {
    const TEST: &str = "an_event_longer_than_the_broker_takes_is_a_dead_letter_and_all_others_are_there";
    if !is_installed(TEST) {
        return;
    }
    // The first is said when the connection is made, the second when the message is there.
    for (limit, says) in
        [("max_packet_size 40000", "longer than the 40000"), ("message_size_limit 40000", "too large")]
    {
        let scene = Scene::new(TEST);
        let broker = Broker::start(&scene, &format!("allow_anonymous true\n{limit}"));
        let subscriber = Subscriber::start(&broker);
        to_mqtt(&scene, &broker).write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(25);
        writer.append_line(&"z".repeat(50_000));
        writer.append(25);
        let agent = Agent::start(&scene);
        wait_for(PATIENCE, "one dead letter", || dead_letters(&scene).contains("zzzz"));
        wait_for(PATIENCE, "every other line is there", || event_count(&subscriber.published()) == 50);
        assert_eq!(agent.stop(), Some(0));
        let letters = dead_letters(&scene);
        assert!(letters.contains(says), "{letters}: {}", agent_said(&scene));
    }
}

fn agent_said(scene: &Scene) -> String {
    fs::read_to_string(Agent::stderr_path(scene)).unwrap()
}

/// What a broker is told so that it takes nobody but `user`.
fn with_password(scene: &Scene, user: &str, password: &str) -> String {
    let users = scene.path("users");
    let mut command = Command::new("mosquitto_passwd");
    let made = command.args(["-c", "-b"]).arg(&users).args([user, password]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!("allow_anonymous false\npassword_file {}", users.display())
}

#[test]
fn wrong_credentials_are_the_operators_to_mend_and_no_secret_is_shown() {
    const TEST: &str = "wrong_credentials_are_the_operators_to_mend_and_no_secret_is_shown";
    const SECRET: &str = "s3cret-4711-word";
    const WRONG: &str = "wrong-s3cret-0815";
    const EVERYTHING: &str = "trace,rumqttc=trace,rustls=trace,sled=trace";
    if !is_installed(TEST) {
        return;
    }
    if !has_program("mosquitto_passwd") {
        return skip(TEST, "mosquitto_passwd is not installed");
    }
    for version in ["5", "3.1.1"] {
        let scene = Scene::new(TEST);
        let broker = Broker::start(&scene, &with_password(&scene, "agent", SECRET));
        let subscriber = Subscriber::start_with(&broker, |options| {
            options.set_credentials("agent", SECRET);
        });
        let config = to_mqtt(&scene, &broker)
            .table("mqtt", "version", version)
            .table("mqtt", "messages", "event")
            .table("auth", "type", "basic")
            .table("auth", "user", "agent");
        config.clone().table("auth", "password", WRONG).write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(30);
        let agent = Agent::start_with(&scene, |command| {
            command.env("RUST_LOG", EVERYTHING);
        });
        agent.await_said("check [global.auth]");
        assert!(agent.said().contains("ERROR"), "it was not said loudly");
        config.table("auth", "password", SECRET).write();
        agent.signal(Signal::HUP);
        assert_all_arrives(&[&writer], || subscriber.published());
        for secret in [SECRET, WRONG] {
            assert!(!agent.messages().contains(secret), "a secret was shown");
        }
        assert_done(&scene, agent, &[&writer]);
    }
}

#[test]
fn mqtt_with_a_private_authority_is_verified_and_a_client_certificate_is_shown() {
    const TEST: &str = "mqtt_with_a_private_authority_is_verified_and_a_client_certificate_is_shown";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let ca_file = servers.write_certificate(&scene, "ca.pem");
    let wrong_ca = Authority::new("others").write_certificate(&scene, "others.pem");
    let client_ca = clients.write_certificate(&scene, "clients.pem");
    let (cert, key) = servers.write_server(&scene, "server", &["127.0.0.1"]);
    let (agent_cert, agent_key) = clients.write_client(&scene, "agent");
    let secure = free_port();
    let broker = Broker::start(
        &scene,
        &format!(
            "allow_anonymous true\nlistener {secure} 127.0.0.1\ncertfile {}\nkeyfile {}\ncafile {}\n\
             require_certificate true\nallow_anonymous true",
            cert.display(),
            key.display(),
            client_ca.display()
        ),
    );
    let subscriber = Subscriber::start(&broker);
    let config = queued(&scene, "MQTT", &format!("mqtts://127.0.0.1:{secure}"))
        .table("tls", "client_cert_file", agent_cert.to_str().unwrap())
        .table("tls", "client_key_file", agent_key.to_str().unwrap());
    config.clone().table("tls", "ca_file", wrong_ca.to_str().unwrap()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    agent.await_said("is not from a trusted authority: check ca_file in [global.tls]");
    assert_eq!(subscriber.count(), 0);
    config.table("tls", "ca_file", ca_file.to_str().unwrap()).write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || subscriber.published());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn check_connect_says_what_the_broker_takes_and_leaves_a_running_agent_alone() {
    const TEST: &str = "check_connect_says_what_the_broker_takes_and_leaves_a_running_agent_alone";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let broker = Broker::start(&scene, "allow_anonymous true\nmax_packet_size 50000");
    let subscriber = Subscriber::start(&broker);
    let config = to_mqtt(&scene, &broker);
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    assert_all_arrives(&[&writer], || subscriber.published());
    let before = subscriber.count();
    let id = "answered Success to the client log-agent-agent1-check";
    let says = ["MQTT 5, without TLS, ", id, "up to 50000 bytes", "publish to logs/agent1, only a message"];
    assert_reached(&config, &[&broker.url()], &says);
    let older = config.clone().table("mqtt", "version", "3.1.1");
    assert_reached(&older, &[&broker.url()], &["MQTT 3.1.1, without TLS, ", id]);
    assert_eq!(subscriber.count(), before, "a message was published");
    config.write();
    writer.append(30);
    assert_all_arrives(&[&writer], || subscriber.published());
    assert!(!agent.said().contains("delivery failed"), "its connection was taken over: {}", agent.said());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn check_connect_says_what_is_wrong_with_an_mqtt_broker() {
    const TEST: &str = "check_connect_says_what_is_wrong_with_an_mqtt_broker";
    const WRONG: &str = "wrong-s3cret-0815";
    if !is_installed(TEST) {
        return;
    }
    if !has_program("mosquitto_passwd") {
        return skip(TEST, "mosquitto_passwd is not installed");
    }
    let scene = Scene::new(TEST);
    let says = format!("{}\nmax_qos 0", with_password(&scene, "agent", "right-s3cret"));
    let broker = Broker::start(&scene, &says);
    Writer::new(&scene, "app", "logs/app.log").append(1);
    let of = |version: &str, password: &str| {
        let config = to_mqtt(&scene, &broker).table("mqtt", "version", version);
        let config = config.table("auth", "type", "basic").table("auth", "user", "agent");
        config.table("auth", "password", password)
    };
    for version in ["5", "3.1.1"] {
        let refused = ["check [global.auth]", "asked as the client log-agent-agent1-check"];
        assert_not_usable(&of(version, WRONG), &broker.url(), &refused, &[WRONG]);
        assert_nobody_answers(of(version, WRONG), "mqtt");
    }
    let unconfirmed = ["takes messages of quality 0 alone", "check end_point"];
    assert_not_usable(&of("5", "right-s3cret"), &broker.url(), &unconfirmed, &["right-s3cret"]);
}

/// The broker acknowledges before it writes, however often it writes: killed, it loses what it had acknowledged last. It is
/// stopped here, in order.
#[test]
fn a_subscriber_gets_every_line_through_twenty_deaths_of_the_agent_and_stops_of_the_broker() {
    const TEST: &str =
        "a_subscriber_gets_every_line_through_twenty_deaths_of_the_agent_and_stops_of_the_broker";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let broker = Broker::start(&scene, "allow_anonymous true");
    let subscriber = Subscriber::start(&broker);
    to_mqtt(&scene, &broker).global("max_batch_size", 40).write();
    let mut both = (broker, subscriber);
    let mut stops = 0;
    let break_server = |(broker, _): &mut (Broker, Subscriber), round| {
        if round % 3 == 2 {
            broker.process.stop();
            broker.restart();
            stops += 1;
        }
    };
    let count = |(_, subscriber): &(Broker, Subscriber)| subscriber.count();
    let (agent, writer) = deaths(&scene, rounds(20), &mut both, count, break_server);
    let again = assert_all_arrives(&[&writer], || both.1.published());
    println!("{} lines, {again} messages came again, the broker stopped {stops} times", writer.count());
    assert_done(&scene, agent, &[&writer]);
}

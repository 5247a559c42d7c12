//! AMQP 0-9-1, against RabbitMQ: a broker takes seconds to start, so tests that do not break it share one.

mod broken;
pub(super) mod broker;

use lapin::ExchangeKind;
use rustix::process::Signal;

use self::broker::{Broker, is_installed};
use super::connect::{assert_nobody_answers, assert_not_usable, assert_reached};
use super::queue::{
    assert_all_arrives, assert_done, assert_events_travel_in, dead_letters, event_count, queued,
};
use crate::common::{Agent, Authority, ConfigBuilder, PATIENCE, Scene, Writer, wait_for};

fn to_amqp<'a>(scene: &'a Scene, broker: &Broker, queue: &str) -> ConfigBuilder<'a> {
    queued(scene, "AMQP", &broker.url()).table("amqp", "routing_key", queue)
}

#[test]
fn a_durable_queue_has_every_line_once_as_persistent_messages() {
    const TEST: &str = "a_durable_queue_has_every_line_once_as_persistent_messages";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let mut queue = broker.make_queue("plain", &[]);
    to_amqp(&scene, &broker, "plain").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(300);
    let agent = Agent::start(&scene);
    assert_eq!(assert_all_arrives(&[&writer], || queue.published()), 0, "a message came twice");
    assert!(queue.published().iter().all(|message| message.id == message.key));
    assert!(queue.all_persistent(), "a message would not survive a restart of the broker");
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn events_travel_as_they_are_or_as_a_line_of_ndjson() {
    const TEST: &str = "events_travel_as_they_are_or_as_a_line_of_ndjson";
    if !is_installed(TEST) {
        return;
    }
    let broker = Broker::shared();
    for format in ["raw", "ndjson"] {
        let scene = Scene::new(TEST);
        let mut queue = broker.make_queue(format, &[]);
        let config = to_amqp(&scene, &broker, format);
        assert_events_travel_in(format, &scene, config, "amqp", || queue.published());
    }
}

#[test]
fn with_a_message_for_each_event_a_topic_exchange_takes_each_source_to_its_queue() {
    const TEST: &str = "with_a_message_for_each_event_a_topic_exchange_takes_each_source_to_its_queue";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    broker.make_exchange("topics", ExchangeKind::Topic);
    let mut apps = broker.make_queue("apps", &[]);
    let mut webs = broker.make_queue("webs", &[]);
    broker.bind("apps", "topics", "logs.*.app");
    broker.bind("webs", "topics", "logs.*.web_eu");
    queued(&scene, "AMQP", &broker.url())
        .table("amqp", "exchange", "topics")
        .table("amqp", "routing_key", "logs.{agent}.{source}")
        .table("amqp", "messages", "event")
        .source("web.eu", "logs/web.log")
        .write();
    let mut app = Writer::new(&scene, "app", "logs/app.log");
    let mut web = Writer::new(&scene, "web.eu", "logs/web.log");
    app.append(60);
    web.append(60);
    let agent = Agent::start(&scene);
    assert_eq!(assert_all_arrives(&[&app], || apps.published()), 0);
    assert_eq!(assert_all_arrives(&[&web], || webs.published()), 0);
    for message in webs.published() {
        assert!(message.id.ends_with(&format!("/web.eu/{}", message.seq)), "{}", message.id);
    }
    assert_done(&scene, agent, &[&app, &web]);
}

#[test]
fn without_exchange_or_queue_everything_is_kept_and_goes_on_when_they_are_there() {
    const TEST: &str = "without_exchange_or_queue_everything_is_kept_and_goes_on_when_they_are_there";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    to_amqp(&scene, &broker, "late").table("amqp", "exchange", "missing").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("make it, or check exchange in [global.amqp]");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");

    broker.make_exchange("missing", ExchangeKind::Direct);
    agent.signal(Signal::HUP);
    agent.await_said("the broker returned the message with 312");

    let mut queue = broker.make_queue("late", &[]);
    broker.bind("late", "missing", "late");
    agent.signal(Signal::HUP);
    assert_eq!(assert_all_arrives(&[&writer], || queue.published()), 0);
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn a_queue_that_is_full_is_tried_again_until_there_is_room() {
    const TEST: &str = "a_queue_that_is_full_is_tried_again_until_there_is_room";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let mut queue = broker.make_queue("full", &[("x-max-length", "2"), ("x-overflow", "reject-publish")]);
    to_amqp(&scene, &broker, "full").global("retry_count", 1_000_000).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("basic.nack");
    assert!(!agent.said().contains("ERROR"), "what passes by itself is nobody's fault: {}", agent.said());
    // Reading makes room, two messages at a time.
    assert_all_arrives(&[&writer], || queue.published());
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn an_event_longer_than_the_broker_takes_is_a_dead_letter_and_all_others_are_there() {
    const TEST: &str = "an_event_longer_than_the_broker_takes_is_a_dead_letter_and_all_others_are_there";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let mut queue = broker.make_queue("short", &[]);
    to_amqp(&scene, &broker, "short").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(25);
    writer.append_line(&"z".repeat(Broker::MESSAGE_BYTES_MAX));
    writer.append(25);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "one dead letter", || dead_letters(&scene).contains("zzzz"));
    wait_for(PATIENCE, "every other line is there", || event_count(&queue.published()) == 50);
    assert_eq!(agent.stop(), Some(0));
    assert!(dead_letters(&scene).contains("message size"), "{}", dead_letters(&scene));
}

#[test]
fn wrong_credentials_or_virtual_hosts_are_the_operators_to_mend_and_no_secret_is_shown() {
    const TEST: &str = "wrong_credentials_or_virtual_hosts_are_the_operators_to_mend_and_no_secret_is_shown";
    const SECRET: &str = "wrong-s3cret-0815";
    const EVERYTHING: &str = "trace,lapin=trace,rustls=trace,sled=trace";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let mut queue = broker.make_queue("private", &[]);
    let config =
        to_amqp(&scene, &broker, "private").table("auth", "type", "basic").table("auth", "user", "guest");
    config.clone().table("auth", "password", SECRET).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start_with(&scene, |command| {
        command.env("RUST_LOG", EVERYTHING);
    });
    agent.await_said("check [global.auth] and what the broker allows this agent");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");

    let config = config.table("auth", "password", "guest");
    config.clone().end_point(format!("{}/nowhere", broker.url())).write();
    agent.signal(Signal::HUP);
    agent.await_said("check the virtual host in the path of end_point");

    config.end_point(format!("{}/%2F", broker.url())).write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || queue.published());
    assert!(!agent.messages().contains(SECRET), "a secret was shown");
    assert_done(&scene, agent, &[&writer]);
}

/// With the settings of `[global.tls]` that it takes to come in.
fn with_identity<'a>(config: ConfigBuilder<'a>, broker: &Broker) -> ConfigBuilder<'a> {
    let (cert, key) = broker.client_identity();
    config
        .end_point(broker.secure_url())
        .table("tls", "ca_file", broker.ca_file().to_str().unwrap())
        .table("tls", "client_cert_file", cert.to_str().unwrap())
        .table("tls", "client_key_file", key.to_str().unwrap())
}

#[test]
fn amqp_with_a_private_authority_is_verified_and_a_client_certificate_is_shown() {
    const TEST: &str = "amqp_with_a_private_authority_is_verified_and_a_client_certificate_is_shown";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let mut queue = broker.make_queue("secure", &[]);
    let wrong_ca = Authority::new("others").write_certificate(&scene, "others.pem");
    let config = to_amqp(&scene, &broker, "secure").end_point(broker.secure_url());
    config.clone().table("tls", "ca_file", wrong_ca.to_str().unwrap()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    agent.await_said("is not from a trusted authority: check ca_file in [global.tls]");
    config.table("tls", "ca_file", broker.ca_file().to_str().unwrap()).write();
    agent.signal(Signal::HUP);
    agent.await_said("client_cert_file");
    assert_eq!(queue.message_count(), 0);
    let config = with_identity(to_amqp(&scene, &broker, "secure"), &broker);
    config.write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || queue.published());

    // The broker knows who it is by the certificate alone.
    let config = config.end_point(format!("{}?auth_mechanism=external", broker.secure_url()));
    config.write();
    agent.signal(Signal::HUP);
    agent.await_said("?(not-shown)");
    writer.append(30);
    agent.await_said("check [global.auth] and what the broker allows this agent");
    broker.control(&["add_user", Broker::CLIENT, "none-that-is-shown"]);
    broker.control(&["set_permissions", Broker::CLIENT, "", ".*", ""]);
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || queue.published());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn check_connect_says_whether_exchange_and_queues_are_there_and_publishes_nothing() {
    const TEST: &str = "check_connect_says_whether_exchange_and_queues_are_there_and_publishes_nothing";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let url = broker.url();
    Writer::new(&scene, "app", "logs/app.log").append(1);
    Writer::new(&scene, "web", "logs/web.log").append(1);
    let config = to_amqp(&scene, &broker, "looked.{source}")
        .table("amqp", "messages", "source")
        .source("web", "logs/web.log");
    let apps = broker.make_queue("looked.app", &[]);
    let missing = ["404", "looked.web", "make it, or check routing_key and exchange in [global.amqp]"];
    assert_not_usable(&config, &url, &missing, &[]);
    let webs = broker.make_queue("looked.web", &[]);
    let says = ["AMQP 0-9-1, without TLS, the virtual host /; the queue looked.app, looked.web is there"];
    assert_reached(&config, &[&url], &says);

    let config = config.table("amqp", "exchange", "looked");
    assert_not_usable(&config, &url, &["404", "make it, or check exchange in [global.amqp]"], &[]);
    broker.make_exchange("looked", ExchangeKind::Topic);
    let says = "the exchange looked is there; whether a queue takes looked.app, looked.web from it";
    assert_reached(&config, &[&url], &[says]);
    assert_eq!((apps.message_count(), webs.message_count()), (0, 0));
}

#[test]
fn check_connect_says_what_is_wrong_with_an_amqp_broker() {
    const TEST: &str = "check_connect_says_what_is_wrong_with_an_amqp_broker";
    const WRONG: &str = "wrong-s3cret-0815";
    if !is_installed(TEST) {
        return;
    }
    let (scene, broker) = (Scene::new(TEST), Broker::shared());
    let _queue = broker.make_queue("checked", &[]);
    Writer::new(&scene, "app", "logs/app.log").append(1);
    let config = to_amqp(&scene, &broker, "checked");
    assert_nobody_answers(config.clone(), "amqp");
    let wrong = config.clone().table("auth", "type", "basic").table("auth", "user", "guest");
    let wrong = wrong.table("auth", "password", WRONG);
    assert_not_usable(&wrong, &broker.url(), &["check [global.auth]"], &[WRONG]);
    let nowhere = format!("{}/nowhere", broker.url());
    let says = ["check the virtual host in the path of end_point"];
    assert_not_usable(&config.clone().end_point(&nowhere), &nowhere, &says, &[]);
    let secure = with_identity(config, &broker);
    assert_reached(&secure, &[&broker.secure_url()], &["AMQP 0-9-1, with TLS", "the queue checked is there"]);
    let wrong_ca = Authority::new("others").write_certificate(&scene, "others.pem");
    let distrusted = secure.table("tls", "ca_file", wrong_ca.to_str().unwrap());
    assert_not_usable(&distrusted, &broker.secure_url(), &["check ca_file in [global.tls]"], &[]);
}

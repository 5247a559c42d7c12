//! NATS JetStream, against the real server: each test has one of its own.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::connect::{assert_nobody_answers, assert_not_usable, assert_reached};
use super::queue::{
    Published, assert_all_arrives, assert_done, assert_events_travel_in, dead_letters, deaths, event_count,
    queued, rounds,
};
use crate::common::{
    Agent, Authority, ConfigBuilder, PATIENCE, Process, Scene, Writer, free_port, has_program, skip, wait_for,
};

/// Whether the server is installed; says that the test is skipped where it is not.
pub(super) fn is_installed(test: &str) -> bool {
    let installed = has_program("nats-server") || Path::new("/usr/sbin/nats-server").is_file();
    if !installed {
        skip(test, "nats-server is not installed");
    }
    installed
}

/// A server whose port and data stay the same across restarts.
pub(super) struct Server {
    process: Process,
    config: PathBuf,
    stderr: PathBuf,
    port: u16,
    admin: ConnectOptions,
    runtime: Runtime,
    client: Option<Client>,
}

impl Server {
    /// A server with JetStream, and what `more` says of its configuration.
    pub(super) fn start(scene: &Scene, more: &str) -> Self {
        Self::start_with(scene, more, ConnectOptions::new())
    }

    /// The same, where the test itself comes in with `admin`.
    fn start_with(scene: &Scene, more: &str, admin: ConnectOptions) -> Self {
        let port = free_port();
        let store = scene.path("jetstream");
        let config = scene.path("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, max_file_store: 1GB, max_memory_store: 64MB }}\n{more}\n"
        );
        fs::write(&config, text).unwrap();
        let stderr = scene.path("nats.stderr");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let process = run(&config, &stderr);
        let mut server = Self { process, config, stderr, port, admin, runtime, client: None };
        server.await_ready();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Waits until JetStream answers.
    fn await_ready(&mut self) {
        let address = format!("nats://127.0.0.1:{}", self.port);
        wait_for(PATIENCE, "nats-server answers", || {
            let connect = self.admin.clone().connect(address.as_str());
            self.client = self.runtime.block_on(connect).ok();
            self.client.is_some() && self.ask("$JS.API.INFO", "").is_some()
        });
    }

    /// What the server answers, if it does.
    fn ask(&self, subject: &str, request: impl Into<String>) -> Option<Value> {
        let client = self.client.as_ref()?;
        let request = client.request(subject.to_owned(), request.into().into());
        let answer = async { tokio::time::timeout(Duration::from_secs(10), request).await };
        let answer = self.runtime.block_on(answer).ok()?.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    pub(super) fn make_stream(&self, more: Value) {
        let mut stream = json!({
            "name": "LOGS", "subjects": ["logs.>"], "storage": "file", "retention": "limits", "num_replicas": 1,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1, "max_msg_size": -1,
            "discard": "old", "duplicate_window": 120_000_000_000_u64,
        });
        stream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.ask("$JS.API.STREAM.CREATE.LOGS", stream.to_string()).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }

    fn update_stream(&self, change: Value) {
        let mut stream = self.ask("$JS.API.STREAM.INFO.LOGS", "").unwrap()["config"].clone();
        stream.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = self.ask("$JS.API.STREAM.UPDATE.LOGS", stream.to_string()).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }

    pub(super) fn message_count(&self) -> u64 {
        let info = self.ask("$JS.API.STREAM.INFO.LOGS", "");
        info.and_then(|info| info["state"]["messages"].as_u64()).unwrap_or_default()
    }

    /// Every message of the stream, as it is stored.
    fn published(&self) -> Vec<Published> {
        let Some(info) = self.ask("$JS.API.STREAM.INFO.LOGS", "") else { return Vec::new() };
        let (first, last) = (info["state"]["first_seq"].as_u64(), info["state"]["last_seq"].as_u64());
        let get = |seq| self.ask("$JS.API.STREAM.MSG.GET.LOGS", json!({ "seq": seq }).to_string());
        // Of a stream that has nothing yet, both are 0.
        let all = first.unwrap_or_default().max(1)..=last.unwrap_or_default();
        all.map(|seq| published(&get(seq).unwrap()["message"])).collect()
    }

    /// SIGKILL, and a new one on the same data.
    fn die(&mut self) {
        self.process.kill();
        self.restart();
    }

    fn restart(&mut self) {
        self.client = None;
        self.process = run(&self.config, &self.stderr);
        self.await_ready();
    }
}

fn run(config: &Path, stderr: &Path) -> Process {
    let program = if has_program("nats-server") { "nats-server" } else { "/usr/sbin/nats-server" };
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Process::start("nats-server", command, stderr)
}

fn published(message: &Value) -> Published {
    let decode = |part: &Value| STANDARD.decode(part.as_str().unwrap_or_default()).unwrap();
    let headers = String::from_utf8(decode(&message["hdrs"])).unwrap();
    let header = |name: &str| {
        let line = headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    Published {
        address: message["subject"].as_str().unwrap().to_owned(),
        id: header("Nats-Msg-Id").unwrap(),
        key: header("Log-Agent-Key").unwrap(),
        seq: header("Log-Agent-Seq").unwrap(),
        source: header("Log-Agent-Source"),
        content_type: header("Content-Type").unwrap(),
        body: decode(&message["data"]),
    }
}

fn to_nats<'a>(scene: &'a Scene, server: &Server) -> ConfigBuilder<'a> {
    queued(scene, "NATS", &server.url())
}

#[test]
fn a_stream_has_every_line_once_through_a_restart_of_the_server() {
    const TEST: &str = "a_stream_has_every_line_once_through_a_restart_of_the_server";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let mut server = Server::start(&scene, "");
    server.make_stream(json!({}));
    to_nats(&scene, &server).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let agent = Agent::start(&scene);
    writer.append(200);
    wait_for(PATIENCE, "half of it is published", || event_count(&server.published()) >= 200);
    server.process.stop();
    writer.append(200);
    agent.await_said("retry");
    server.restart();
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0, "a message is there twice");
    assert!(
        server
            .published()
            .iter()
            .all(|message| message.address == "logs.agent1" && message.id == message.key)
    );
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn without_a_stream_everything_is_kept_and_goes_on_when_there_is_one() {
    const TEST: &str = "without_a_stream_everything_is_kept_and_goes_on_when_there_is_one";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    to_nats(&scene, &server).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("no stream takes the subject logs.agent1");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    server.make_stream(json!({}));
    agent.signal(Signal::HUP);
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0);
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn another_stream_than_the_expected_one_is_the_operators_to_mend() {
    const TEST: &str = "another_stream_than_the_expected_one_is_the_operators_to_mend";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    server.make_stream(json!({}));
    let config = to_nats(&scene, &server);
    config.clone().table("nats", "stream", "OTHER").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    agent.await_said("check stream and subject in [global.nats]");
    assert_eq!(server.message_count(), 0);
    config.table("nats", "stream", "LOGS").write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || server.published());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn a_stream_that_is_full_is_tried_again_until_there_is_room() {
    const TEST: &str = "a_stream_that_is_full_is_tried_again_until_there_is_room";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    server.make_stream(json!({ "max_msgs": 3, "discard": "new" }));
    to_nats(&scene, &server).global("retry_count", 1_000_000).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("10077");
    assert!(!agent.said().contains("ERROR"), "what passes by itself is nobody's fault: {}", agent.said());
    server.update_stream(json!({ "max_msgs": -1 }));
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0);
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn an_event_longer_than_server_or_stream_take_is_a_dead_letter_and_all_others_are_there() {
    const TEST: &str = "an_event_longer_than_server_or_stream_take_is_a_dead_letter_and_all_others_are_there";
    if !is_installed(TEST) {
        return;
    }
    for (server_takes, stream_takes, says) in
        [("max_payload: 32KB", -1, "max_payload"), ("", 20_000, "10054")]
    {
        let scene = Scene::new(TEST);
        let server = Server::start(&scene, server_takes);
        server.make_stream(json!({ "max_msg_size": stream_takes }));
        to_nats(&scene, &server).write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(25);
        writer.append_line(&"z".repeat(40_000));
        writer.append(25);
        let agent = Agent::start(&scene);
        wait_for(PATIENCE, "one dead letter", || dead_letters(&scene).contains("zzzz"));
        wait_for(PATIENCE, "every other line is there", || event_count(&server.published()) == 50);
        assert_eq!(agent.stop(), Some(0));
        assert!(dead_letters(&scene).contains(says), "{}", dead_letters(&scene));
    }
}

#[test]
fn with_a_message_for_each_event_the_source_is_in_the_subject_and_the_identifier() {
    const TEST: &str = "with_a_message_for_each_event_the_source_is_in_the_subject_and_the_identifier";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    server.make_stream(json!({}));
    to_nats(&scene, &server)
        .table("nats", "messages", "event")
        .table("nats", "subject", "logs.{agent}.{source}")
        .source("web.eu", "logs/web.log")
        .write();
    let mut app = Writer::new(&scene, "app", "logs/app.log");
    let mut web = Writer::new(&scene, "web.eu", "logs/web.log");
    app.append(40);
    web.append(40);
    let agent = Agent::start(&scene);
    assert_eq!(assert_all_arrives(&[&app, &web], || server.published()), 0);
    for message in server.published() {
        let source = message.source.as_deref().unwrap();
        let subject = if source == "app" { "logs.agent1.app" } else { "logs.agent1.web_eu" };
        assert_eq!(message.address, subject);
        assert!(message.id.ends_with(&format!("/{source}/{}", message.seq)), "{}", message.id);
    }
    assert_done(&scene, agent, &[&app, &web]);
}

#[test]
fn events_travel_as_they_are_or_as_a_line_of_ndjson() {
    const TEST: &str = "events_travel_as_they_are_or_as_a_line_of_ndjson";
    if !is_installed(TEST) {
        return;
    }
    for format in ["raw", "ndjson"] {
        let scene = Scene::new(TEST);
        let server = Server::start(&scene, "");
        server.make_stream(json!({}));
        let config = to_nats(&scene, &server).table("nats", "subject", "logs.{agent}.{source}");
        assert_events_travel_in(format, &scene, config, "nats", || server.published());
        assert!(server.published().iter().all(|message| message.address.starts_with("logs.agent1.")));
    }
}

/// The sequence numbers of a batch of one source.
fn range_of(message: &Published) -> RangeInclusive<usize> {
    let (first, last) = message.seq.split_once('-').unwrap();
    first.parse().unwrap()..=last.parse().unwrap()
}

/// The lines in the body of a batch; of protobuf, those of `expected` that are in it, in this order.
fn lines_in(format: &str, body: &[u8], expected: &[String]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = |body: &[u8]| -> Vec<String> {
        let body = std::str::from_utf8(body).unwrap().strip_suffix('\n').unwrap();
        body.split('\n').map(str::to_owned).collect()
    };
    match format {
        "raw" => lines(body),
        "ndjson" => {
            let data = |line: &String| text(&serde_json::from_str::<Value>(line).unwrap()["data"]);
            lines(body).iter().map(data).collect()
        }
        "otlp-json" => {
            let request: Value = serde_json::from_slice(body).unwrap();
            let records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
            records.iter().map(|record| text(&record["body"]["stringValue"])).collect()
        }
        _ => {
            let mut rest = body;
            let is_next = |line: &&String| {
                let at = rest.windows(line.len()).position(|part| part == line.as_bytes());
                at.inspect(|at| rest = &rest[at + line.len()..]).is_some()
            };
            expected.iter().filter(is_next).cloned().collect()
        }
    }
}

#[test]
fn a_batch_travels_as_it_is_in_every_format_of_messages() {
    const TEST: &str = "a_batch_travels_as_it_is_in_every_format_of_messages";
    if !is_installed(TEST) {
        return;
    }
    for (format, content_type) in [
        ("ndjson", "application/x-ndjson"),
        ("otlp-json", "application/json"),
        ("otlp-protobuf", "application/x-protobuf"),
        ("raw", "text/plain"),
    ] {
        let scene = Scene::new(TEST);
        let server = Server::start(&scene, "");
        server.make_stream(json!({}));
        to_nats(&scene, &server).global("format", format).write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(50);
        let agent = Agent::start(&scene);
        let mut published = Vec::new();
        wait_for(PATIENCE, "every line is published", || {
            published = server.published();
            published.iter().map(|message| range_of(message).count()).sum::<usize>() == 50
        });
        published.sort_by_key(|message| *range_of(message).start());
        for message in &published {
            assert_eq!((message.content_type.as_str(), &message.id), (content_type, &message.key));
            let expected = &writer.lines()[*range_of(message).start() - 1..*range_of(message).end()];
            assert_eq!(lines_in(format, &message.body, expected), expected, "{format}");
        }
        assert_done(&scene, agent, &[&writer]);
    }
}

#[test]
fn a_batch_goes_to_where_its_agent_was_when_it_was_cut() {
    const TEST: &str = "a_batch_goes_to_where_its_agent_was_when_it_was_cut";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    let config = to_nats(&scene, &server).global("format", "raw").table("nats", "messages", "event");
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    // It is cut by then, and nobody takes it.
    agent.await_said("no stream takes the subject logs.agent1");
    assert_eq!(agent.stop(), Some(0));
    config.global("agent_name", "agent2").write();
    let agent = Agent::start(&scene);
    agent.await_said("no stream takes the subject logs.agent1");
    server.make_stream(json!({}));
    agent.signal(Signal::HUP);
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0);
    assert!(server.published().iter().any(|message| message.address == "logs.agent1"));
    writer.append(1);
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0);
    let addresses: Vec<_> = server.published().into_iter().map(|message| message.address).collect();
    assert_eq!(addresses.last().map(String::as_str), Some("logs.agent2"));
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn credentials_are_shown_to_the_server_and_to_nobody_else() {
    const TEST: &str = "credentials_are_shown_to_the_server_and_to_nobody_else";
    const SECRET: &str = "s3cret-4711-word";
    const EVERYTHING: &str = "trace,async_nats=trace,rustls=trace,sled=trace";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().unwrap();
    fs::write(scene.path("agent.nk"), format!("{seed}\n")).unwrap();
    let users = format!(
        "authorization {{ users: [ {{ user: agent, password: \"{SECRET}\" }}, {{ nkey: {} }} ] }}",
        pair.public_key()
    );
    let admin = ConnectOptions::with_user_and_password("agent".into(), SECRET.into());
    let server = Server::start_with(&scene, &users, admin);
    server.make_stream(json!({}));
    let basic = to_nats(&scene, &server).table("auth", "type", "basic").table("auth", "user", "agent");
    basic.clone().table("auth", "password", "wrong-s3cret-0815").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start_with(&scene, |command| {
        command.env("RUST_LOG", EVERYTHING);
    });
    agent.await_said("the server refused the agent's credentials: check [global.auth]");
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    assert_eq!(server.message_count(), 0);

    basic.table("auth", "password", SECRET).write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || server.published());

    let nkey = scene.path("agent.nk");
    to_nats(&scene, &server).table("nats", "nkey_file", nkey.to_str().unwrap()).write();
    agent.signal(Signal::HUP);
    writer.append(30);
    assert_all_arrives(&[&writer], || server.published());
    let said = agent.messages();
    for secret in [SECRET, "wrong-s3cret-0815", seed.as_str()] {
        assert!(!said.contains(secret), "a secret was shown");
    }
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn what_the_server_does_not_allow_is_the_operators_to_mend() {
    const TEST: &str = "what_the_server_does_not_allow_is_the_operators_to_mend";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let users = "authorization { users: [ { user: admin, password: admin }, { user: agent, password: agent-word, \
                 permissions: { publish: [\"other.>\"], subscribe: [\"_INBOX.>\"] } } ] }";
    let admin = ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let server = Server::start_with(&scene, users, admin);
    server.make_stream(json!({}));
    let config = to_nats(&scene, &server).table("auth", "type", "basic");
    config.clone().table("auth", "user", "agent").table("auth", "password", "agent-word").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    let agent = Agent::start(&scene);
    agent.await_said("the server does not allow it");
    assert_eq!(server.message_count(), 0);
    config.table("auth", "user", "admin").table("auth", "password", "admin").write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || server.published());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn nats_with_a_private_authority_is_verified_and_a_client_certificate_is_shown() {
    const TEST: &str = "nats_with_a_private_authority_is_verified_and_a_client_certificate_is_shown";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let (servers, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let ca_file = servers.write_certificate(&scene, "ca.pem");
    let wrong_ca = others.write_certificate(&scene, "others.pem");
    let client_ca = clients.write_certificate(&scene, "clients.pem");
    let (cert, key) = servers.write_server(&scene, "server", &["127.0.0.1"]);
    let (agent_cert, agent_key) = clients.write_client(&scene, "agent");
    let tls =
        format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {client_ca:?}, verify: true }}");
    let admin = ConnectOptions::new()
        .add_root_certificates(ca_file.clone())
        .add_client_certificate(agent_cert.clone(), agent_key.clone())
        .require_tls(true);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start_with(&scene, &tls, admin);
    server.make_stream(json!({}));
    let config = queued(&scene, "NATS", &server.url().replace("nats://", "tls://"));
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(30);
    config.clone().table("tls", "ca_file", wrong_ca.to_str().unwrap()).write();
    let agent = Agent::start(&scene);
    agent.await_said("is not from a trusted authority: check ca_file in [global.tls]");

    let config = config.table("tls", "ca_file", ca_file.to_str().unwrap());
    config.write();
    agent.signal(Signal::HUP);
    agent.await_said("check client_cert_file in [global.tls]");
    assert_eq!(server.message_count(), 0);
    config
        .table("tls", "client_cert_file", agent_cert.to_str().unwrap())
        .table("tls", "client_key_file", agent_key.to_str().unwrap())
        .write();
    agent.signal(Signal::HUP);
    assert_all_arrives(&[&writer], || server.published());
    assert_done(&scene, agent, &[&writer]);
}

#[test]
fn check_connect_says_which_stream_takes_each_subject_and_publishes_nothing() {
    const TEST: &str = "check_connect_says_which_stream_takes_each_subject_and_publishes_nothing";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let server = Server::start(&scene, "");
    server.make_stream(json!({}));
    Writer::new(&scene, "app", "logs/app.log").append(1);
    Writer::new(&scene, "web.eu", "logs/web.log").append(1);
    let config = to_nats(&scene, &server)
        .table("nats", "messages", "event")
        .table("nats", "subject", "logs.{agent}.{source}")
        .table("nats", "stream", "LOGS")
        .source("web.eu", "logs/web.log");
    let says =
        [": nats-server 2.", ", without TLS; the stream LOGS takes logs.agent1.app, logs.agent1.web_eu\n"];
    assert_reached(&config, &[&server.url()], &says);
    assert_eq!(server.message_count(), 0);
}

#[test]
fn check_connect_says_what_is_wrong_with_a_nats_server() {
    const TEST: &str = "check_connect_says_what_is_wrong_with_a_nats_server";
    const WRONG: &str = "wrong-s3cret-0815";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let users = "accounts { A { jetstream: enabled, users: [ { user: admin, password: admin-word }, \
                 { user: humble, password: humble-word, permissions: { publish: [\"logs.>\"] } } ] }, \
                 B { users: [ { user: other, password: other-word } ] } }";
    let admin = ConnectOptions::with_user_and_password("admin".into(), "admin-word".into());
    let server = Server::start_with(&scene, users, admin);
    Writer::new(&scene, "app", "logs/app.log").append(1);
    let url = server.url();
    let of = |user: &str, password: &str| {
        let config = to_nats(&scene, &server).table("auth", "type", "basic").table("auth", "user", user);
        config.table("auth", "password", password)
    };
    let config = of("admin", "admin-word");
    assert_nobody_answers(config.clone(), "nats");
    let refused = "the server refused the agent's credentials: check [global.auth]";
    assert_not_usable(&of("admin", WRONG), &url, &[refused], &[WRONG]);
    assert_not_usable(&config, &url, &["no stream takes the subject logs.agent1"], &["admin-word"]);
    assert_not_usable(
        &of("other", "other-word"),
        &url,
        &["has no JetStream for this agent"],
        &["other-word"],
    );

    server.make_stream(json!({}));
    let expected = config.clone().table("nats", "stream", "OTHER");
    assert_not_usable(&expected, &url, &["taken by the stream LOGS and not by OTHER"], &[]);
    let says = "which stream takes logs.agent1 it does not let this agent ask";
    assert_reached(&of("humble", "humble-word"), &[&url], &[says]);
    assert_reached(&config, &[&url], &["the stream LOGS takes logs.agent1"]);
    assert_eq!(server.message_count(), 0);
}

#[test]
fn a_stream_has_every_line_exactly_once_through_twenty_deaths_of_agent_and_server() {
    const TEST: &str = "a_stream_has_every_line_exactly_once_through_twenty_deaths_of_agent_and_server";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let mut server = Server::start(&scene, "");
    server.make_stream(json!({}));
    to_nats(&scene, &server).global("max_batch_size", 40).write();
    let mut kills = 0;
    let break_server = |server: &mut Server, round| {
        if round % 3 == 2 {
            server.die();
            kills += 1;
        }
    };
    let (agent, writer) = deaths(&scene, rounds(20), &mut server, Server::message_count, break_server);
    assert_eq!(assert_all_arrives(&[&writer], || server.published()), 0, "the server drops what it has");
    assert_done(&scene, agent, &[&writer]);
    println!("{} lines, {} messages, the server died {kills} times", writer.count(), server.message_count());
}

//! TLS with certificates of one's own, and secrets that arrive and are never shown.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::quick;
use crate::common::{
    Agent, Authority, Collector, Fault, FaultProxy, PATIENCE, Receiver, Reply, Scene, Writer,
    assert_delivered_exactly_once, await_delivery, wait_for,
};

#[test]
fn tls_with_a_private_authority_delivers() {
    let scene = Scene::new("tls_with_a_private_authority_delivers");
    let collector = Collector::start(&scene);
    let authority = Authority::new("private");
    let proxy = FaultProxy::before_with_tls(&collector, authority.server(&["127.0.0.1"]));
    let ca_file = authority.write_certificate(&scene, "ca.pem");
    quick(&scene, proxy.url()).table("tls", "ca_file", ca_file.to_str().unwrap()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    proxy.next_n(2, Fault::LoseReply);
    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks_and_its_absence_is_said() {
    let scene = Scene::new("a_client_certificate_is_shown_to_a_server_that_asks_and_its_absence_is_said");
    let collector = Collector::start(&scene);
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let proxy = FaultProxy::before_with_tls(&collector, servers.server_for(&["127.0.0.1"], &clients));
    let ca_file = servers.write_certificate(&scene, "ca.pem");
    let (certificate, key) = clients.write_client(&scene, "agent");
    let config = quick(&scene, proxy.url()).table("tls", "ca_file", ca_file.to_str().unwrap());
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(50);
    let agent = Agent::start(&scene);
    agent.await_said("set client_cert_file and client_key_file");
    assert_eq!(proxy.request_count(), 0);

    config
        .table("tls", "client_cert_file", certificate.to_str().unwrap())
        .table("tls", "client_key_file", key.to_str().unwrap())
        .write();
    agent.signal(Signal::HUP);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
}

/// A server whose certificate is refused gets nothing, and it is said why.
fn refuses(name: &str, server_names: &[&str], issuer_is_trusted: bool, says: &str) {
    let scene = Scene::new(name);
    let collector = Collector::start(&scene);
    let authority = Authority::new("private");
    let proxy = FaultProxy::before_with_tls(&collector, authority.server(server_names));
    let another = Authority::new("another");
    let trusted = if issuer_is_trusted { &authority } else { &another };
    let ca_file = trusted.write_certificate(&scene, "ca.pem");
    quick(&scene, proxy.url()).table("tls", "ca_file", ca_file.to_str().unwrap()).write();
    Writer::new(&scene, "app", "logs/app.log").append(50);
    let agent = Agent::start(&scene);
    agent.await_said(says);
    assert!(agent.said().contains("certificate"));
    assert_eq!(agent.stop(), Some(0));
    assert!(proxy.connection_count() > 0);
    assert_eq!(proxy.request_count(), 0, "lines were sent to a server that is not trusted");
}

#[test]
fn a_server_of_an_unknown_authority_gets_nothing_and_the_certificate_is_named() {
    refuses(
        "a_server_of_an_unknown_authority_gets_nothing_and_the_certificate_is_named",
        &["127.0.0.1"],
        false,
        "the server's certificate is not from a trusted authority: check ca_file in [global.tls]",
    );
}

#[test]
fn a_server_of_another_name_gets_nothing_and_the_certificate_is_named() {
    refuses(
        "a_server_of_another_name_gets_nothing_and_the_certificate_is_named",
        &["elsewhere.example"],
        true,
        "the server's certificate is for another name: check the host in end_point",
    );
}

#[test]
fn secrets_arrive_and_are_never_shown() {
    /// The libraries speak only where they are named.
    const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,sled=trace";
    const TOKEN: &str = "s3cret-t0ken-4711";
    const PASSWORD: &str = "correct horse battery staple";
    const HEADER: &str = "tenant-key-0815";
    /// base64 of `agent:correct horse battery staple`.
    const BASIC: &str = "YWdlbnQ6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==";
    for bearer in [true, false] {
        let scene = Scene::new("secrets_arrive_and_are_never_shown");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        let config = quick(&scene, proxy.url()).table("headers", "X-Tenant", HEADER);
        let config = if bearer {
            config.table("auth", "type", "bearer").table("auth", "token", TOKEN)
        } else {
            let config = config.table("auth", "type", "basic").table("auth", "user", "agent");
            config.table("auth", "password", PASSWORD)
        };
        config.write();
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(100);
        // The agent talks about what a server says, also where that gives the secrets back.
        let echo = format!("no entry for {TOKEN} {BASIC} {PASSWORD} {HEADER}");
        proxy.next(Fault::StatusBody(400, echo.clone()));
        proxy.next(Fault::StatusBody(500, echo));
        proxy.next(Fault::LoseReply);
        let agent = Agent::start_with(&scene, |command| _ = command.env("RUST_LOG", EVERYTHING));
        await_delivery(&[&writer], &collector);
        proxy.always(Fault::Redirect(302, format!("http://{TOKEN}@{}/?{HEADER}", proxy.address())));
        writer.append(1);
        agent.await_said("redirects are not followed");
        proxy.always(Fault::StatusBody(400, format!("I do not like {HEADER}")));
        writer.append(1);
        agent.await_said("moved to the dead letters");
        assert_eq!(agent.stop(), Some(0));

        let expected = if bearer { format!("Bearer {TOKEN}") } else { format!("Basic {BASIC}") };
        for request in proxy.requests() {
            assert_eq!(request.header("authorization"), Some(expected.as_str()));
            assert_eq!(request.header("x-tenant"), Some(HEADER));
        }
        let messages = std::fs::read_to_string(Agent::stderr_path(&scene)).unwrap();
        assert!(messages.contains("TRACE"), "it was not asked for everything it would say");
        for secret in [TOKEN, BASIC, PASSWORD, HEADER] {
            let shown = messages.lines().find(|line| line.contains(secret));
            assert_eq!(shown, None, "a secret was shown");
        }
    }
}

#[test]
fn a_proxy_of_the_configuration_or_of_the_environment_is_used_and_its_password_never_shown() {
    const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace";
    const PASSWORD: &str = "pr0xy/s3cret";
    /// The same as a part of a URL.
    const ENCODED: &str = "pr0xy%2Fs3cret";
    /// base64 of `carol:pr0xy/s3cret`.
    const SENT: &str = "Y2Fyb2w6cHIweHkvczNjcmV0";
    for by_configuration in [true, false] {
        let scene = Scene::new("a_proxy_of_the_configuration_or_of_the_environment_is_used");
        let (seen, mut count) = (Arc::new(Mutex::new(Vec::new())), 0);
        let requests = Arc::clone(&seen);
        let proxy = Receiver::start(move |request| {
            count += 1;
            requests.lock().unwrap().push(request.clone());
            match count {
                1 => Reply::Answer(407, format!("not with {PASSWORD}")),
                2 => Reply::Answer(400, format!("no {PASSWORD} {SENT}")),
                _ => Reply::Answer(200, String::new()),
            }
        });
        let config = quick(&scene, "http://logs.example.invalid/in".into()).global("max_batch_size", 1);
        let config = if by_configuration {
            let config = config.table("proxy", "url", proxy.url("/")).table("proxy", "user", "carol");
            config.table("proxy", "password", PASSWORD)
        } else {
            config
        };
        config.write();
        Writer::new(&scene, "app", "logs/app.log").append(3);
        let url = proxy.url("/").replace("http://", &format!("http://carol:{ENCODED}@"));
        let agent = Agent::start_with(&scene, |command| {
            command.env("RUST_LOG", EVERYTHING);
            if !by_configuration {
                command.env("http_proxy", url);
            }
        });
        agent.await_said("set user and password in [global.proxy]");
        // What a person has to mend is tried again slowly, but for a reload.
        agent.signal(Signal::HUP);
        wait_for(PATIENCE, "two lines are delivered and one is a dead letter", || {
            seen.lock().unwrap().len() >= 4 && agent.said().contains("moved to the dead letters")
        });
        assert_eq!(agent.stop(), Some(0));
        for request in seen.lock().unwrap().iter() {
            assert_eq!(request.start_line, "POST http://logs.example.invalid/in HTTP/1.1");
            assert_eq!(request.header("proxy-authorization"), Some(format!("Basic {SENT}").as_str()));
        }
        let messages = std::fs::read_to_string(Agent::stderr_path(&scene)).unwrap();
        let letters = super::refusals::dead_letters(&scene);
        assert!(messages.contains("TRACE") && letters.contains("(secret)"), "{letters}");
        for secret in [PASSWORD, SENT, ENCODED] {
            let shown = messages.lines().chain(letters.lines()).find(|line| line.contains(secret));
            assert_eq!(shown, None, "a secret was shown");
        }
    }
}

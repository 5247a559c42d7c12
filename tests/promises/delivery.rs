//! Whatever the server does: nothing is lost, nothing is altered, and a server that keeps keys stores every line once.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(any(feature = "kafka", feature = "queue"))]
mod connect;
mod fail_over;
mod formats;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
mod nginx;
mod payload;
#[cfg(feature = "queue")]
mod queue;
mod refusals;
mod secure;
mod throughput;
#[cfg(feature = "websocket")]
mod websocket;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::{
    Agent, Collector, ConfigBuilder, Fault, FaultProxy, Received, Scene, Writer, assert_accounts_agree,
    assert_batches_keep_their_boundaries, assert_delivered_exactly_once, assert_resends_identical,
    await_delivery, wait_for,
};

/// A configuration with one source and delays short enough for tests.
fn quick<'a>(scene: &'a Scene, url: String) -> ConfigBuilder<'a> {
    scene
        .config()
        .end_point(url)
        .global("interval_secs", 0.05)
        .global("retry_delay_ms", 5)
        .global("timeout_secs", 1)
        .global("shutdown_secs", 1)
        .global("max_batch_size", 10)
        .source("app", "logs/app.log")
}

/// Breaks the server with `fault` while lines are written, mends it, and expects every line once.
fn survives(
    scene: &Scene,
    proxy: &mut FaultProxy,
    collector: &Collector,
    faults: &[Fault],
    config: ConfigBuilder<'_>,
) {
    config.write();
    let mut writer = Writer::new(scene, "app", "logs/app.log");
    let agent = Agent::start(scene);
    for fault in faults {
        proxy.always(fault.clone());
        let before = proxy.request_count();
        writer.append(35);
        proxy.await_requests(before + 3);
        proxy.heal();
        await_delivery(&[&writer], collector);
        assert_delivered_exactly_once(&[&writer], collector);
    }
    assert_accounts_agree(&[&writer], collector);
    assert_resends_identical(&proxy.requests());
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn errors_resets_and_garbage_are_tried_again_until_every_line_is_stored_once() {
    let scene = Scene::new("errors_resets_and_garbage_are_tried_again_until_every_line_is_stored_once");
    let collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    let statuses = [408, 425, 429, 500, 502, 503, 504];
    let mut faults: Vec<Fault> = statuses.into_iter().map(Fault::Status).collect();
    faults.extend([Fault::Reset, Fault::Garbage, Fault::LoseReply, Fault::CutReply, Fault::CloseAfter]);
    let config = quick(&scene, proxy.url());
    survives(&scene, &mut proxy, &collector, &faults, config);
}

#[test]
fn a_server_that_hangs_or_answers_a_byte_a_second_is_given_up_on_and_tried_again() {
    let scene = Scene::new("a_server_that_hangs_or_answers_a_byte_a_second_is_given_up_on_and_tried_again");
    let collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    let config = quick(&scene, proxy.url());
    let faults = [Fault::Hang, Fault::HangAfterForward, Fault::Trickle];
    survives(&scene, &mut proxy, &collector, &faults, config);
}

#[test]
fn a_server_that_refuses_connections_is_awaited() {
    let scene = Scene::new("a_server_that_refuses_connections_is_awaited");
    let collector = Collector::start(&scene);
    let mut proxy = FaultProxy::before(&collector);
    proxy.refuse_connections();
    quick(&scene, proxy.url()).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(95);
    let agent = Agent::start(&scene);
    agent.await_said("delivery failed and will be tried again");
    writer.append(5);
    proxy.listen_again();
    await_delivery(&[&writer], &collector);
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_connection_that_is_closed_after_an_answer_costs_no_resend() {
    let scene = Scene::new("a_connection_that_is_closed_after_an_answer_costs_no_resend");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    // One at a time, so that no request is on its way on a connection that ends.
    quick(&scene, proxy.url()).global("max_send_task", 1).write();
    proxy.always(Fault::CloseAfter);
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    let keys: BTreeSet<String> = proxy.requests().iter().map(|request| request.key().to_owned()).collect();
    assert_eq!(keys.len() as u64, proxy.request_count(), "a batch was sent twice");
}

/// A shorter wait would be wrong however slow the machine is; a longer one would not.
#[test]
fn retry_after_is_honoured() {
    const ASKED: Duration = Duration::from_secs(1);
    let scene = Scene::new("retry_after_is_honoured");
    let proxy = FaultProxy::alone();
    quick(&scene, proxy.url()).global("max_send_task", 1).write();
    for status in [429, 503] {
        proxy.next(Fault::StatusRetryAfter(status, "1".into()));
    }
    Writer::new(&scene, "app", "logs/app.log").append(1);
    let agent = Agent::start(&scene);
    proxy.await_requests(3);
    assert_eq!(agent.stop(), Some(0));
    let requests = proxy.requests();
    for pair in requests.windows(2) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= ASKED, "it waited {waited:?} after {:?}", pair[0].fault);
    }
}

/// What is counted and measured is between requests as the server saw them, and can only be longer on a slow machine.
#[test]
fn an_outage_sees_few_requests_however_large_the_backlog() {
    const SEND_TASKS: usize = 4;
    /// The breaker opens after retry_count + 1 failures; so many requests may be on their way besides.
    const BURST: usize = 4 + 2 * SEND_TASKS;
    /// From then on at least retry_delay_ms * 2^3, halved by jitter, passes between two requests; then twice that.
    const PAUSE: Duration = Duration::from_millis(40 * 8 / 2);
    const PROBES: usize = 4;
    let scene = Scene::new("an_outage_sees_few_requests_however_large_the_backlog");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    quick(&scene, proxy.url())
        .global("max_send_task", SEND_TASKS as i64)
        .global("retry_delay_ms", 40)
        .global("timeout_secs", 30)
        .write();
    proxy.always(Fault::UNAVAILABLE);
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(20_000);
    let agent = Agent::start(&scene);
    let pauses =
        || -> Vec<Duration> { proxy.requests().windows(2).map(|pair| pair[1].at - pair[0].at).collect() };
    wait_for(Duration::from_secs(60), "the probes of an open breaker", || {
        let pauses = pauses();
        let short = pauses.iter().filter(|pause| **pause < PAUSE).count();
        assert!(short <= BURST, "{short} requests came without a pause before them");
        pauses.iter().rev().take_while(|pause| **pause >= PAUSE).count() >= PROBES
    });
    let pauses = pauses();
    assert!(pauses.last() >= Some(&(PAUSE * 4)), "the pauses do not grow: {pauses:?}");

    proxy.heal();
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_resends_identical(&proxy.requests());
}

/// The requests of each key.
fn by_key(requests: &[Received]) -> BTreeMap<&str, Vec<&Received>> {
    let mut by_key: BTreeMap<&str, Vec<&Received>> = BTreeMap::new();
    requests.iter().for_each(|request| by_key.entry(request.key()).or_default().push(request));
    by_key
}

#[test]
fn an_acknowledgement_that_is_lost_leads_to_the_same_bytes_under_the_same_key() {
    for fault in [Fault::LoseReply, Fault::CutReply, Fault::HangAfterForward] {
        let scene = Scene::new("an_acknowledgement_that_is_lost_leads_to_the_same_bytes_under_the_same_key");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        quick(&scene, proxy.url()).write();
        proxy.next_n(3, fault);
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        writer.append(100);
        let agent = Agent::start(&scene);
        // The server has the lines before the agent knows; the resends have come when the agent has stopped cleanly
        // with nothing left.
        wait_for(Duration::from_secs(60), "the resends", || {
            let requests = proxy.requests();
            let passed = requests.iter().filter(|request| request.fault == Fault::Pass);
            passed.map(Received::key).collect::<BTreeSet<_>>().len() == by_key(&requests).len()
                && requests.len() >= 13
        });
        assert_eq!(agent.stop(), Some(0));
        assert_delivered_exactly_once(&[&writer], &collector);
        let requests = proxy.requests();
        assert_resends_identical(&requests);
        assert_eq!(by_key(&requests).values().filter(|sent| sent.len() > 1).count(), 3);
        assert_eq!(collector.stats().duplicates_suppressed, 30, "each lost batch came twice");
    }
}

/// In between, everything changes that a batch was made with: its size, its interval, and the agent's name.
#[test]
fn a_resend_after_a_kill_is_byte_identical_under_the_same_key() {
    for compression in ["none", "gzip", "zstd"] {
        let scene = Scene::new("a_resend_after_a_kill_is_byte_identical_under_the_same_key");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        let config = quick(&scene, proxy.url())
            .global("compression", compression)
            .global("timeout_secs", 30)
            .source("other", "logs/other.log");
        config.write();
        let mut app = Writer::new(&scene, "app", "logs/app.log");
        let mut other = Writer::new(&scene, "other", "logs/other.log");
        app.append(40);
        other.append(25);
        proxy.always(Fault::HangAfterForward);
        let agent = Agent::start(&scene);
        proxy.await_requests(5);
        agent.kill();
        let before = proxy.requests();
        // The spool alone is what makes them again.
        std::fs::remove_file(app.path()).unwrap();

        proxy.heal();
        config.global("agent_name", "renamed").global("max_batch_size", 3).write();
        other.append(20);
        let agent = Agent::start(&scene);
        await_delivery(&[&app, &other], &collector);
        assert_eq!(agent.stop(), Some(0));
        assert_delivered_exactly_once(&[&app, &other], &collector);
        let requests = proxy.requests();
        assert_resends_identical(&requests);
        assert_batches_keep_their_boundaries(&requests);
        let after: BTreeSet<&str> = requests[before.len()..].iter().map(Received::key).collect();
        let again = before.iter().filter(|request| after.contains(request.key())).count();
        assert_eq!(again, before.len(), "not every unacknowledged batch was sent again under its key");
        assert!(requests.iter().any(|request| request.text().contains("renamed")), "the new name is used");
        let suppressed = collector.stats().duplicates_suppressed;
        assert!(suppressed > 0, "{compression}: the server had seen them");
    }
}

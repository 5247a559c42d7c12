//! What a server refuses: an event for good, or the agent as a whole.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Signal;

use super::quick;
use crate::common::{
    Agent, Collector, Fault, FaultProxy, Received, Scene, Writer, assert_delivered_exactly_once,
    assert_resends_identical, await_delivery, wait_for,
};

/// In a line that the server is to refuse.
pub(super) const MARKER: &str = "POISON";
pub(super) const ANSWER: &str = "the field foo is not what it should be";

/// The lines that are stored of `app`, by sequence number.
pub(super) fn stored_lines(collector: &Collector) -> Vec<String> {
    let mut stored = collector.stored();
    stored.sort_by_key(|event| event.seq);
    stored.into_iter().map(|event| event.data).collect()
}

pub(super) fn without_marked(writer: &Writer) -> Vec<String> {
    writer.lines().iter().filter(|line| !line.contains(MARKER)).cloned().collect()
}

/// Every byte of the dead letters.
pub fn dead_letters(scene: &Scene) -> String {
    let mut bytes = Vec::new();
    // The agent makes the directory as it starts.
    for entry in fs::read_dir(scene.spool_dir().join("dead-letters")).into_iter().flatten() {
        bytes.extend(fs::read(entry.unwrap().path()).unwrap());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes lines of which some are marked: at the beginning, at the end, side by side, and alone in a batch.
pub(super) fn write_some_marked(writer: &mut Writer) {
    for number in 0..60 {
        if [0, 17, 18, 39, 40].contains(&number) {
            writer.append_line(&format!("{MARKER} {number}"));
        } else {
            writer.append(1);
        }
    }
}

#[test]
fn an_event_that_the_server_refuses_becomes_a_dead_letter_and_all_others_are_delivered() {
    for status in [400, 413, 422] {
        let scene =
            Scene::new("an_event_that_the_server_refuses_becomes_a_dead_letter_and_all_others_are_delivered");
        let collector = Collector::start(&scene);
        let proxy = FaultProxy::before(&collector);
        quick(&scene, proxy.url()).write();
        proxy.refuse_marked(MARKER, Fault::StatusBody(status, ANSWER.into()));
        let mut writer = Writer::new(&scene, "app", "logs/app.log");
        write_some_marked(&mut writer);
        let agent = Agent::start(&scene);
        collector.await_stored(55);
        wait_for(crate::common::PATIENCE, "five dead letters", || {
            dead_letters(&scene).matches(MARKER).count() == 5
        });
        assert_eq!(agent.stop(), Some(0));
        assert_eq!(stored_lines(&collector), without_marked(&writer));
        assert_resends_identical(&proxy.requests());

        let letters = dead_letters(&scene);
        for line in writer.lines().iter().filter(|line| line.contains(MARKER)) {
            assert_eq!(letters.matches(line.as_str()).count(), 1, "{line} has not one dead letter");
        }
        assert_eq!(letters.matches(ANSWER).count(), 5, "the server's answer is kept with each");

        let agent = Agent::start(&scene);
        agent.await_started();
        assert!(agent.said().contains(" resent=0"), "a dead letter is sent again");
        let messages = agent.messages();
        assert!(
            messages.contains("moved to the dead letters") && messages.contains(&format!("status={status}"))
        );
        assert!(!messages.contains(MARKER), "the content of a line was logged");
        assert_eq!(agent.stop(), Some(0));
    }
}

#[test]
fn a_kill_while_a_batch_is_taken_apart_goes_on_where_it_was() {
    let scene = Scene::new("a_kill_while_a_batch_is_taken_apart_goes_on_where_it_was");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    quick(&scene, proxy.url()).global("max_batch_size", 60).global("max_send_task", 1).write();
    proxy.refuse_marked(MARKER, Fault::Status(422));
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    write_some_marked(&mut writer);
    let mut agent = Agent::start(&scene);
    for _ in 0..6 {
        let before = proxy.request_count();
        wait_for(crate::common::PATIENCE, "the next request, or the end", || {
            proxy.request_count() >= before + 3 || dead_letters(&scene).matches(MARKER).count() >= 5
        });
        agent.kill();
        agent = Agent::start(&scene);
        agent.await_started();
    }
    collector.await_stored(55);
    wait_for(crate::common::PATIENCE, "five dead letters", || {
        let letters = dead_letters(&scene);
        let marked = writer.lines().iter().filter(|line| line.contains(MARKER));
        marked.map(String::as_str).all(|line| letters.contains(line))
    });
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(stored_lines(&collector), without_marked(&writer));
    let requests = proxy.requests();
    assert_resends_identical(&requests);
    // Once refused, a batch is not sent whole again but for what a kill took from the ledger.
    let whole = requests.iter().filter(|request| request.seq() == "1-60").count();
    assert!(whole <= 7, "the whole batch was sent {whole} times");
}

/// The operator's fault, until a reload mends it: nothing is lost, nothing is sent elsewhere, and it is said.
fn kept_until_reload(name: &str, broken: Fault, says: &str) {
    let scene = Scene::new(name);
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let is_mended = |request: &Received| {
        request.message.word(1) == "/" && request.header("authorization") == Some("Bearer right")
    };
    proxy.script(move |request| if is_mended(request) { Fault::Pass } else { broken.clone() });
    let config = quick(&scene, format!("{}wrong", proxy.url())).table("auth", "type", "bearer");
    config.clone().table("auth", "token", "wrong").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said(says);
    assert!(agent.said().contains("ERROR"), "it was not said loudly");
    assert_eq!(collector.stored_count(), 0);
    writer.append(10);

    config.end_point(proxy.url()).table("auth", "token", "right").write();
    agent.signal(Signal::HUP);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_resends_identical(&proxy.requests());
    assert!(dead_letters(&scene).is_empty(), "an event was given up on");
}

#[test]
fn a_rejected_token_keeps_everything_and_says_what_to_check() {
    kept_until_reload(
        "a_rejected_token_keeps_everything_and_says_what_to_check",
        Fault::Status(401),
        "check [global.auth]",
    );
}

#[test]
fn a_wrong_path_keeps_everything_and_says_what_to_check() {
    kept_until_reload(
        "a_wrong_path_keeps_everything_and_says_what_to_check",
        Fault::Status(404),
        "check the path in end_point",
    );
}

#[test]
fn a_redirect_is_not_followed_and_keeps_everything() {
    let elsewhere = FaultProxy::alone();
    for status in [301, 302, 303, 307, 308] {
        kept_until_reload(
            "a_redirect_is_not_followed_and_keeps_everything",
            Fault::Redirect(status, elsewhere.url()),
            "redirects are not followed, check end_point",
        );
    }
    assert_eq!(elsewhere.connection_count(), 0, "the lines went where they were not meant to go");
}

/// Takes as long as the slow cadence, about half a minute, of which nearly all is spent waiting.
#[test]
fn an_endpoint_that_is_mended_by_itself_gets_everything_without_a_restart() {
    let scene = Scene::new("an_endpoint_that_is_mended_by_itself_gets_everything_without_a_restart");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    quick(&scene, proxy.url()).write();
    proxy.always(Fault::Status(403));
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(500);
    let agent = Agent::start(&scene);
    agent.await_said("the endpoint refuses delivery");
    proxy.heal();
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    let requests = proxy.requests();
    assert_resends_identical(&requests);
    let refused = requests.iter().filter(|request| request.fault != Fault::Pass);
    let keys: BTreeSet<&str> = refused.clone().map(Received::key).collect();
    assert_eq!(keys.len(), refused.count(), "a batch was tried again before the slow cadence");
}

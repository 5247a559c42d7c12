//! Dead letters, and what is dropped at an operator's word.

use super::reading::python;
use super::*;
use crate::common::{Fault, FaultProxy, await_delivery, has_program, skip};

/// A line that is refused for as long as the server does not take it.
const POISON: &str = "poison";

/// Two dead letters among delivered lines; the server would take them now.
fn refused(test: &str) -> (Scene, Collector, Writer) {
    let scene = Scene::new(test);
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    scene
        .config()
        .end_point(proxy.url())
        .global("interval_secs", 0.02)
        .global("retry_delay_ms", 5)
        .source("app", "logs/app.log")
        .write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    proxy.refuse_marked(POISON, Fault::StatusBody(422, "no\nnever".into()));
    writer.append(20);
    writer.append_line(POISON);
    writer.append(20);
    writer.append_line(POISON);
    let agent = Agent::start(&scene);
    collector.await_stored(40);
    wait_for(PATIENCE, "two dead letters", || {
        spool(&scene, &["dead-letters", "list", "--json"])
            .json()
            .as_array()
            .is_some_and(|list| list.len() == 2)
    });
    assert_eq!(agent.stop(), Some(0));
    scene.config().end_point(collector.url()).source("app", "logs/app.log").write();
    (scene, collector, writer)
}

#[test]
fn a_reader_in_python_that_knows_only_the_document_reads_the_same_letters() {
    let test = "a_reader_in_python_that_knows_only_the_document_reads_the_same_letters";
    if !has_program("python3") {
        return skip(test, "there is no python3");
    }
    let (scene, ..) = refused(test);
    let ours = ok(&scene, &["dead-letters", "list", "--json"]).json();
    let theirs = python(&scene, &["--dead-letters"]);
    let theirs: Vec<Value> = theirs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(theirs.len(), 2);
    assert_eq!(Value::Array(theirs), ours);
}

#[test]
fn requeued_dead_letters_are_delivered_under_new_numbers() {
    let (scene, collector, writer) = refused("requeued_dead_letters_are_delivered_under_new_numbers");
    let listed = ok(&scene, &["dead-letters", "list", "--json"]).json();
    assert_eq!((&listed[0]["seq"], &listed[0]["status"]), (&21.into(), &422.into()));
    let shown = ok(&scene, &["dead-letters", "show", "app:21", "--json"]).json();
    assert_eq!(
        (&shown[0]["data"], shown.as_array().unwrap().len()),
        (&writer.lines()[20].as_str().into(), 1)
    );
    assert_eq!(spool(&scene, &["dead-letters", "show", "app:22"]).code, Some(2));

    let told = ok(&scene, &["dead-letters", "requeue", "app:21"]);
    assert_eq!(told.out, "1 dead letter is in the spool again, as a new event\n");
    assert_clean(&scene);
    let event = ok(&scene, &["show", "app:43", "--json"]).json();
    assert_eq!((&event["data"], &event["state"]), (&shown[0]["data"], &"uncut".into()));
    assert_eq!((&event["time"], &event["path"]), (&shown[0]["time"], &"".into()));
    ok(&scene, &["dead-letters", "requeue", "--all"]);
    assert_eq!(spool(&scene, &["dead-letters", "requeue", "--all"]).code, Some(2), "there is none left");
    assert_clean(&scene);

    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    let stored = collector.stored();
    for seq in [43, 44] {
        let event = stored.iter().find(|event| event.seq == seq).unwrap();
        assert!(event.data.ends_with(POISON), "{event:?}");
        assert_eq!(event.timestamp, listed[usize::from(seq == 44)]["time"].as_str().unwrap());
    }
    let status = spool_status(&scene);
    let source = &status["sources"][0];
    assert_eq!(
        (&source["spooled"], &source["acknowledged"], &source["dead"]),
        (&44.into(), &42.into(), &2.into())
    );
    assert_eq!(status["dead_letters"]["count"], 0);
    assert_clean(&scene);
    // Nothing was forgotten of the file, and nothing is read again.
    let agent = Agent::start(&scene);
    agent.await_started();
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(spool_status(&scene)["sources"][0]["spooled"], 44);
}

#[test]
fn dead_letters_are_purged_only_when_that_is_meant() {
    let (scene, _collector, _writer) = refused("dead_letters_are_purged_only_when_that_is_meant");
    let told = spool(&scene, &["dead-letters", "purge", "--all"]);
    assert!(told.code == Some(1) && told.errors.contains("--yes"), "{told:?}");
    ok(&scene, &["dead-letters", "purge", "app:42", "--yes"]);
    let left = ok(&scene, &["dead-letters", "list", "--json"]).json();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["seq"]), (1, &21.into()));
    ok(&scene, &["dead-letters", "purge", "--status", "422", "--yes"]);
    assert_eq!(ok(&scene, &["dead-letters", "list", "--json"]).json(), Value::Array(Vec::new()));
    assert_eq!(spool_status(&scene)["sources"][0]["dead"], 2, "what was refused stays counted");
    assert_clean(&scene);
}

#[test]
fn a_damaged_dead_letter_is_found_and_the_others_stay() {
    let (scene, _collector, _writer) = refused("a_damaged_dead_letter_is_found_and_the_others_stay");
    let path = scene.spool_dir().join(format!("dead-letters/{:020}.seg", 1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    let told = spool(&scene, &["verify", "--json"]);
    assert_eq!((told.code, &told.json()["findings"][0]["kind"]), (Some(2), &"dead-letter".into()));
    ok(&scene, &["repair"]);
    assert_eq!(assert_clean(&scene)["read"]["dealt_with"], 1);
    assert_eq!(ok(&scene, &["dead-letters", "list", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn what_is_purged_counts_as_dropped_event_by_event() {
    let mut backlog = Backlog::of("what_is_purged_counts_as_dropped_event_by_event");
    let told = spool(&backlog.scene, &["purge", "--all"]);
    assert!(told.code == Some(1) && told.errors.contains("--yes"), "{told:?}");
    assert_eq!(spool(&backlog.scene, &["purge", "--yes"]).code, Some(64), "all of them must be said");
    let old = ok(&backlog.scene, &["purge", "--older-than", "1d", "--yes", "--json"]).json();
    assert_eq!(old["dropped"], Value::Array(Vec::new()), "nothing is as old");

    let purged = ok(&backlog.scene, &["purge", "--all", "--yes", "--json"]).json();
    let waiting = Backlog::WAITING as u64;
    assert_eq!(purged["dropped"], serde_json::json!([["app", waiting], ["web", waiting]]));
    assert!(purged["freed_bytes"].as_u64().unwrap() > 0);
    assert_clean(&backlog.scene);
    let status = spool_status(&backlog.scene);
    assert_eq!((&status["backlog"]["events"], &status["batches"]), (&0.into(), &0.into()));
    assert_eq!(status["sources"][0]["dropped"], waiting);
    assert_eq!(backlog.delivers_the_rest(), 2 * waiting);
}

#[test]
fn a_purge_by_age_takes_what_is_older_and_nothing_else() {
    let mut backlog = Backlog::of("a_purge_by_age_takes_what_is_older_and_nothing_else");
    let purged = ok(&backlog.scene, &["purge", "--older-than", "0s", "--yes", "--json"]).json();
    let dropped: u64 =
        purged["dropped"].as_array().unwrap().iter().map(|source| source[1].as_u64().unwrap()).sum();
    assert_eq!(dropped, 2 * Backlog::WAITING as u64, "everything was read before now");
    assert_eq!(backlog.delivers_the_rest(), dropped);
}

//! What must hold once everything is delivered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{Collector, PATIENCE, Received, Stored, Writer};

/// How many lines of a kind are shown when they should not be there, or should.
const SHOWN_MAX: usize = 3;
/// How often is looked whether everything is stored; looking reads the whole out file.
const POLL: Duration = Duration::from_millis(20);

/// Waits until at least as many events are stored as the writers wrote, as long as there are more and more of them. Where
/// they do not come, says which.
#[track_caller]
pub fn await_delivery(writers: &[&Writer], collector: &Collector) {
    let expected: u64 = writers.iter().map(|writer| writer.count()).sum();
    let (mut stored, mut moved) = (0, Instant::now());
    while stored < expected {
        let now = collector.stored_count();
        if now != stored {
            (stored, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            let complaints = complaints(writers, &collector.stored()).join("\n");
            panic!("waited {PATIENCE:?} in vain for {expected} lines to be stored:\n{complaints}");
        }
        std::thread::sleep(POLL);
    }
}

/// Asserts that every line that is complete in its file is stored exactly once under its source, as it was written; that
/// the lines of a writer have ascending sequence numbers; that nothing else is stored; and that no sequence number of a
/// source is missing or there twice.
#[track_caller]
pub fn assert_delivered_exactly_once(writers: &[&Writer], collector: &Collector) {
    let complaints = complaints(writers, &collector.stored());
    assert!(complaints.is_empty(), "not delivered exactly once:\n{}", complaints.join("\n"));
}

/// Asserts of events from any place what [`assert_delivered_exactly_once`] asserts of those that a collector has.
#[track_caller]
pub fn assert_written_exactly_once(writers: &[&Writer], events: &[Stored]) {
    let complaints = complaints(writers, events);
    assert!(complaints.is_empty(), "not there exactly once:\n{}", complaints.join("\n"));
}

/// Asserts that no event is stored twice, by its sequence number, and that none of a source is missing between others.
#[track_caller]
pub fn assert_stored_once(stored: &[Stored]) {
    let complaints = sequence_complaints(stored);
    assert!(complaints.is_empty(), "not stored once:\n{}", complaints.join("\n"));
}

/// Asserts that requests with the same key had the same bytes and ranges.
#[track_caller]
pub fn assert_resends_identical(requests: &[Received]) {
    let mut first_of_key: HashMap<&str, &Received> = HashMap::new();
    for request in requests {
        let first = first_of_key.entry(request.key()).or_insert(request);
        assert_eq!(first.seq(), request.seq(), "ranges under the key {} changed", request.key());
        assert!(first.body == request.body, "the body under the key {} changed", request.key());
    }
}

/// Asserts that no event travelled in two batches: whatever happened in between, a batch that was sent kept its
/// boundaries. Parts of a batch that was taken apart do not count.
#[track_caller]
pub fn assert_batches_keep_their_boundaries(requests: &[Received]) {
    let mut batches: Vec<(String, u64, u64)> =
        requests.iter().filter_map(|request| boundaries(request.key())).collect();
    batches.sort_unstable();
    batches.dedup();
    for pair in batches.windows(2) {
        let ((spool, first, last), (next_spool, next_first, next_last)) = (&pair[0], &pair[1]);
        assert!(
            spool != next_spool || next_first > last,
            "batch {first}-{last} was also sent as {next_first}-{next_last}"
        );
    }
}

/// Spool id and positions of a batch that is no part, from its key.
fn boundaries(key: &str) -> Option<(String, u64, u64)> {
    let mut parts = key.trim_matches('"').split('-');
    let spool = parts.next()?.to_owned();
    Some((spool, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Asserts that the collector's own account agrees: of each source the events that its writers wrote, under one spool id,
/// numbered from 1 without a gap.
#[track_caller]
pub fn assert_accounts_agree(writers: &[&Writer], collector: &Collector) {
    let mut expected: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for writer in writers {
        let ranges = expected.entry(writer.source().to_owned()).or_insert_with(|| vec![(1, 0)]);
        ranges[0].1 += writer.count();
    }
    let stats = collector.stats();
    let sources = stats.store.sources.iter();
    let found: BTreeMap<_, _> = sources.map(|found| (found.source.clone(), found.ranges.clone())).collect();
    assert_eq!(found.len(), stats.store.sources.len(), "a source came under two spool ids");
    assert_eq!(found, expected);
    assert_eq!(stats.store.events_stored, writers.iter().map(|writer| writer.count()).sum::<u64>());
}

fn complaints(writers: &[&Writer], stored: &[Stored]) -> Vec<String> {
    let mut of_source: HashMap<&str, Vec<&Stored>> = HashMap::new();
    for event in stored {
        of_source.entry(&event.source).or_default().push(event);
    }
    of_source.values_mut().for_each(|events| events.sort_by_key(|event| event.seq));

    let mut complaints = sequence_complaints(stored);
    let mut foreign: HashSet<(&str, u64)> =
        stored.iter().map(|event| (event.source.as_str(), event.seq)).collect();
    for writer in writers {
        let prefix = format!("{} ", writer.name());
        let mut times = vec![0_u32; writer.lines().len()];
        let mut altered = Vec::new();
        let mut disordered = Vec::new();
        let mut last: Option<usize> = None;
        for event in of_source.get(writer.source()).map_or(&[][..], Vec::as_slice) {
            let Some(rest) = event.data.strip_prefix(&prefix) else { continue };
            foreign.remove(&(event.source.as_str(), event.seq));
            let number = rest.get(..8).and_then(|number| number.parse::<usize>().ok());
            match number.filter(|number| writer.lines().get(*number) == Some(&event.data)) {
                Some(number) => {
                    times[number] += 1;
                    if last.is_some_and(|last| last >= number) && times[number] == 1 {
                        disordered.push(format!(
                            "line {number} at seq {} after line {}",
                            event.seq,
                            last.unwrap()
                        ));
                    }
                    last = last.max(Some(number));
                }
                None => altered.push(format!("seq {}: {:?}", event.seq, event.data)),
            }
        }
        let numbers = |wanted: fn(u32) -> bool| -> Vec<String> {
            let found = times.iter().enumerate().filter(|(_, times)| wanted(**times));
            found.map(|(number, times)| format!("line {number} ({times} times)")).collect()
        };
        let kinds = [
            ("missing", numbers(|times| times == 0)),
            ("stored more than once", numbers(|times| times > 1)),
            ("not as they were written", altered),
            ("out of order", disordered),
        ];
        for (kind, found) in kinds {
            complain(&mut complaints, &format!("{} of {}", kind, writer.name()), &found);
        }
    }
    let foreign: Vec<String> = stored
        .iter()
        .filter(|event| foreign.contains(&(event.source.as_str(), event.seq)))
        .map(|event| format!("{} {}: {:?}", event.source, event.seq, event.data))
        .collect();
    complain(&mut complaints, "written by no writer", &foreign);
    complaints
}

fn sequence_complaints(stored: &[Stored]) -> Vec<String> {
    let mut of_source: HashMap<&str, Vec<u64>> = HashMap::new();
    for event in stored {
        of_source.entry(&event.source).or_default().push(event.seq);
    }
    let mut complaints = Vec::new();
    for (source, mut seqs) in of_source {
        seqs.sort_unstable();
        let pairs = || seqs.iter().zip(seqs.iter().skip(1));
        let twice: Vec<String> = pairs().filter(|(a, b)| a == b).map(|(seq, _)| seq.to_string()).collect();
        let gaps: Vec<String> =
            pairs().filter(|(a, b)| **b > **a + 1).map(|(a, b)| format!("{}-{}", a + 1, b - 1)).collect();
        complain(&mut complaints, &format!("seqs of {source} stored twice"), &twice);
        complain(&mut complaints, &format!("seqs of {source} missing"), &gaps);
    }
    complaints
}

fn complain(complaints: &mut Vec<String>, kind: &str, found: &[String]) {
    if !found.is_empty() {
        let shown = found.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("; ");
        let more = if found.len() > SHOWN_MAX { "; …" } else { "" };
        complaints.push(format!("{kind}: {}: {shown}{more}", found.len()));
    }
}

/// A check that cannot fail is a defect: each kind of fault is put in and must be found.
#[test]
fn the_oracle_finds_what_it_is_for() {
    let scene = super::Scene::new("the_oracle_finds_what_it_is_for");
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(5);
    let good: Vec<Stored> = (1..)
        .zip(writer.lines())
        .map(|(seq, line)| Stored {
            agent: "agent1".into(),
            source: "app".into(),
            seq,
            timestamp: "2024-01-15T10:30:00.123Z".into(),
            data: line.clone(),
            continues: false,
        })
        .collect();
    let found = |change: &dyn Fn(&mut Vec<Stored>)| {
        let mut stored = good.clone();
        change(&mut stored);
        complaints(&[&writer], &stored).join("\n")
    };
    assert_eq!(found(&|_| {}), "");
    assert_eq!(
        found(&|stored| stored.reverse()),
        "",
        "the order of lines in the out file is not the events' order"
    );
    assert!(found(&|stored| drop(stored.remove(2))).contains("missing of app:logs.app.log: 1: line 2"));
    assert!(found(&|stored| drop(stored.remove(2))).contains("seqs of app missing: 1: 3-3"));
    assert!(found(&|stored| stored.push(stored[1].clone())).contains("seqs of app stored twice: 1: 2"));
    assert!(found(&|stored| stored[4].data = stored[3].data.clone()).contains("stored more than once"));
    assert!(found(&|stored| stored[4].data.push('x')).contains("not as they were written"));
    assert!(found(&|stored| stored[4].data = "x".into()).contains("written by no writer"));
    assert!(found(&|stored| stored[4].source = "other".into()).contains("missing of"));
    let swap = |stored: &mut Vec<Stored>| {
        let (a, b) = (stored[1].data.clone(), stored[2].data.clone());
        (stored[1].data, stored[2].data) = (b, a);
    };
    assert!(found(&swap).contains("out of order"));
}

/// A request of the collector's format, as far as the checks look at it.
#[cfg(test)]
fn received(key: &str, seq: &str, body: &str) -> Received {
    let headers = [("Idempotency-Key", key), ("Log-Agent-Seq", seq)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Received {
        at: Instant::now(),
        connection: 0,
        message: super::Message { start_line: "POST / HTTP/1.1".into(), headers, body: Vec::new() },
        body: std::sync::Arc::new(body.into()),
        fault: super::Fault::Pass,
    }
}

#[test]
fn resends_that_differ_and_batches_that_overlap_are_found() {
    let (first, next) = (received("\"a-1-5\"", "1-5", "five"), received("\"a-6-9\"", "6-9", "four"));
    let good = [first.clone(), next.clone(), first.clone()];
    assert_resends_identical(&good);
    assert_batches_keep_their_boundaries(&good);
    let differs =
        |request| std::panic::catch_unwind(|| assert_resends_identical(&[first.clone(), request])).is_err();
    assert!(differs(received("\"a-1-5\"", "1-5", "FIVE")));
    assert!(differs(received("\"a-1-5\"", "2-6", "five")));
    let overlaps = received("\"a-4-9\"", "4-9", "six");
    assert!(
        std::panic::catch_unwind(|| assert_batches_keep_their_boundaries(&[first.clone(), overlaps]))
            .is_err()
    );
}

//! What a failed sync leads to, told by strace: the segment is never written again, what it should have held is written
//! to another, and nobody sees any of it before a sync has worked.

use std::collections::BTreeMap;

use super::order::{Order, is_segment, tokens, trace};
use crate::common::Call;

/// What was done in spite of a sync that had failed.
fn complaints(calls: &[Call]) -> Vec<String> {
    let order = Order::new(calls);
    let mut complaints: Vec<String> = order.complaints().into_values().flatten().collect();
    let syncs = || calls.iter().filter(|call| call.name == "fdatasync" && is_segment(&call.path));
    for failed in syncs().filter(|call| !call.worked) {
        let of_segment = || {
            calls.iter().filter(|call| call.name.contains("write") && call.path == failed.path && call.worked)
        };
        if of_segment().any(|write| write.begun > failed.ended) {
            complaints.push(format!("{} was written after its sync had failed", failed.path.display()));
        }
        let synced = syncs().filter(|sync| sync.worked && sync.path == failed.path);
        let safe = synced.map(|sync| sync.begun).filter(|sync| *sync < failed.begun).max().unwrap_or(0);
        let lost = of_segment().filter(|write| write.ended > safe && write.ended < failed.begun);
        for line in lost.flat_map(|write| tokens(&write.bytes)) {
            let again = order.written[&line];
            if again.path == failed.path || again.begun < failed.ended {
                complaints.push(format!("line {line} was not written to another segment"));
            }
        }
    }
    complaints
}

#[test]
fn a_segment_whose_sync_failed_is_never_written_again() {
    let test = "a_segment_whose_sync_failed_is_never_written_again";
    // Segments alone are synced with this call. Two in a row: the successor fails, too.
    let inject = ["-e", "inject=fdatasync:error=EIO:when=4..5"];
    let Some(calls) = trace(test, "group", &inject) else { return };
    let is_failed = |call: &&Call| call.name == "fdatasync" && !call.worked;
    let failed: Vec<Call> = calls.iter().filter(is_failed).cloned().collect();
    assert_eq!(failed.len(), 2, "the syncs did not fail");
    assert!(failed.iter().all(|call| is_segment(&call.path)));
    assert_eq!(complaints(&calls), Vec::<String>::new());

    // The same trace of an agent that takes no notice: it goes on in the segment, or believes the next sync.
    let (first, last) = (&failed[0], &failed[1]);
    let again = Order::new(&calls)
        .written
        .values()
        .map(|write| (*write).clone())
        .find(|write| write.begun > last.ended && write.path != first.path);
    let again = again.expect("a write after the failure");
    let mut in_place = calls.clone();
    for call in in_place.iter_mut().filter(|call| call.path == again.path) {
        call.path.clone_from(&first.path);
    }
    let found: BTreeMap<&str, usize> =
        complaints(&in_place).iter().fold(BTreeMap::new(), |mut kinds, complaint| {
            let kind = if complaint.contains("after its sync") { "written" } else { "line" };
            *kinds.entry(kind).or_default() += 1;
            kinds
        });
    assert!(
        found.contains_key("written") && found.contains_key("line"),
        "the check does not bite: {found:?}"
    );
    // And of one that shows what it has written without asking whether the sync worked.
    let mut unsynced = calls.clone();
    unsynced.retain(|call| !(call.name == "fdatasync" && call.path == again.path));
    assert!(!complaints(&unsynced).is_empty(), "the check does not bite");
}

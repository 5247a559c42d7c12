//! Damage: it is found, it is mended, and everything that is intact arrives.

use std::os::unix::fs::FileExt as _;

use super::*;

impl Backlog {
    /// Where the frame with the event at `position` stands: segment and offset; and where the next one begins.
    fn frame(&self, position: u64) -> (u64, u64, u64) {
        let place = |position: u64| {
            let event = ok(&self.scene, &["show", &format!("@{position}"), "--json"]).json();
            (event["segment"].as_u64().unwrap(), event["offset"].as_u64().unwrap())
        };
        let (segment, offset) = place(position);
        let len = fs::metadata(self.segment(segment)).unwrap().len();
        let next = (position..).map(place).find(|next| *next != (segment, offset)).unwrap();
        (segment, offset, if next.0 == segment { next.1 } else { len })
    }

    fn flip(&self, segment: u64, at: u64) {
        let file = fs::File::options().read(true).write(true).open(self.segment(segment)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }

    /// Verifies, which finds something of this kind and changes nothing; repairs; verifies; says what was found.
    #[track_caller]
    fn is_found_and_mended(&self, kind: &str) -> Value {
        let before = content(&self.scene.spool_dir());
        let told = spool(&self.scene, &["verify", "--json"]);
        assert_eq!(told.code, Some(2), "{told:?}");
        let verified = told.json();
        let found = verified["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind} in {verified:#}")).clone();
        let text = spool(&self.scene, &["verify"]);
        assert_eq!(text.out.matches("WRONG").count(), verified["findings"].as_array().unwrap().len());
        assert_eq!(content(&self.scene.spool_dir()), before, "verifying changes nothing");

        let repaired = ok(&self.scene, &["repair", "--json"]).json();
        assert!(repaired["done"].as_array().unwrap().contains(&found), "{repaired:#}");
        let again = ok(&self.scene, &["repair", "--json"]).json();
        assert_eq!(again["done"], Value::Array(Vec::new()), "{again:#}");
        assert_clean(&self.scene);
        spool_status(&self.scene);
        found
    }

    fn quarantined(&self) -> usize {
        fs::read_dir(self.spool("quarantine")).unwrap().count()
    }
}

#[test]
fn a_damaged_payload_costs_its_events_and_no_others() {
    let mut backlog = Backlog::of("a_damaged_payload_costs_its_events_and_no_others");
    let (segment, _, end) = backlog.frame(3000);
    backlog.flip(segment, end - 1);
    let found = backlog.is_found_and_mended("frame-payload");
    let positions: Vec<u64> = serde_json::from_value(found["positions"].clone()).unwrap();
    assert!(positions[0] <= 3000 && 3000 <= positions[1], "{found:#}");
    assert_eq!((found["segment"].as_u64(), backlog.quarantined()), (Some(segment), 1));
    assert_eq!(backlog.delivers_the_rest(), positions[1] - positions[0] + 1);
}

#[test]
fn a_damaged_frame_header_costs_its_events_and_no_others() {
    let mut backlog = Backlog::of("a_damaged_frame_header_costs_its_events_and_no_others");
    let (segment, offset, _) = backlog.frame(3000);
    backlog.flip(segment, offset + 30);
    let found = backlog.is_found_and_mended("frame-header");
    let positions: Vec<u64> = serde_json::from_value(found["positions"].clone()).unwrap();
    assert_eq!(found["bytes"][0], offset);
    assert_eq!(backlog.delivers_the_rest(), positions[1] - positions[0] + 1);
}

#[test]
fn damaged_headers_and_snapshots_of_segments_cost_nothing() {
    let mut backlog = Backlog::of("damaged_headers_and_snapshots_of_segments_cost_nothing");
    let segments = backlog.segments();
    let number = |at: usize| segments[at]["number"].as_u64().unwrap();
    backlog.flip(number(1), 20);
    backlog.is_found_and_mended("segment-header");
    backlog.flip(number(2), 80 + 128 + 20);
    backlog.is_found_and_mended("snapshot");
    // In the newest segment, in front of all that is known to have been synced, it may be what a crash left.
    let newest = backlog.segments().last().unwrap()["number"].as_u64().unwrap();
    backlog.flip(newest, 80 + 128 + 20);
    backlog.is_found_and_mended("torn-end");
    assert_eq!(backlog.delivers_the_rest(), 0);
}

#[test]
fn a_torn_end_costs_nothing() {
    let mut backlog = Backlog::of("a_torn_end_costs_nothing");
    let newest = backlog.segments().last().unwrap()["number"].as_u64().unwrap();
    let path = backlog.segment(newest);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"LAFR and no more");
    fs::write(&path, bytes).unwrap();
    backlog.is_found_and_mended("torn-end");
    assert_eq!(backlog.quarantined(), 1);
    assert_eq!(backlog.delivers_the_rest(), 0);
}

#[test]
fn the_events_of_a_missing_segment_are_counted_as_damaged() {
    let mut backlog = Backlog::of("the_events_of_a_missing_segment_are_counted_as_damaged");
    let segment = backlog.segments()[3].clone();
    fs::remove_file(backlog.segment(segment["number"].as_u64().unwrap())).unwrap();
    let found = backlog.is_found_and_mended("missing-positions");
    assert_eq!((&found["positions"][0], &found["positions"][1]), (&segment["first"], &segment["last"]));
    assert_eq!(backlog.delivers_the_rest(), segment["events"].as_u64().unwrap());
}

#[test]
fn a_broken_ledger_is_rebuilt_and_nothing_is_stored_twice() {
    let mut backlog = Backlog::of("a_broken_ledger_is_rebuilt_and_nothing_is_stored_twice");
    let conf = backlog.spool("ledger/conf");
    fs::write(&conf, vec![0; fs::read(&conf).unwrap().len()]).unwrap();
    backlog.is_found_and_mended("ledger");
    fs::remove_dir_all(backlog.spool("ledger")).unwrap();
    backlog.is_found_and_mended("ledger");
    assert_eq!(backlog.delivers_the_rest(), 0);
}

#[test]
fn a_segment_of_another_spool_is_moved_to_the_quarantine() {
    let mut backlog = Backlog::of("a_segment_of_another_spool_is_moved_to_the_quarantine");
    let other = Backlog::of("a_segment_of_another_spool_is_moved_to_the_quarantine.other");
    let foreign = other.segments()[1]["number"].as_u64().unwrap();
    fs::copy(other.segment(foreign), backlog.segment(999)).unwrap();
    // Under another name than its own it is not even a segment.
    backlog.is_found_and_mended("foreign-segment");
    assert!(backlog.spool("quarantine").join(format!("{:020}.seg", 999)).is_file());
    assert_eq!(backlog.delivers_the_rest(), 0);
}

#[test]
fn everything_at_once_is_mended_and_what_is_intact_arrives() {
    let mut backlog = Backlog::of("everything_at_once_is_mended_and_what_is_intact_arrives");
    let segments = backlog.segments();
    let number = |at: usize| segments[at]["number"].as_u64().unwrap();
    let (segment, _, end) = backlog.frame(2000);
    let (other, offset, _) = backlog.frame(4500);
    backlog.flip(segment, end - 1);
    backlog.flip(other, offset + 30);
    backlog.flip(number(4), 80 + 128 + 20);
    backlog.flip(number(5), 40);
    fs::remove_dir_all(backlog.spool("ledger")).unwrap();
    backlog.is_found_and_mended("ledger");
    assert!(backlog.delivers_the_rest() > 0);
}

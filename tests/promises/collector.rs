//! The reference collector stores every event once, whatever is sent to it and whatever ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rand::Rng as _;
use rustix::process::Signal;

use crate::common::{
    Collector, PATIENCE, Process, Scene, Shipment, Stats, Stored, assert_stored_once, exchange, free_port,
    get, is_root, log_agent, post, skip, spool_id, wait_for,
};

fn ship(shipment: &Shipment, collector: &Collector) {
    let answer = shipment.post(collector.address()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What a collector answers to events of which `stored` are new.
fn answer(stored: u64, duplicates: u64) -> String {
    format!("{{\"stored\":{stored},\"duplicates\":{duplicates}}}\n")
}

/// Asserts that the out file has each of these events once, with its line, and nothing else.
#[track_caller]
fn assert_holds_exactly(stored: &[Stored], expected: &BTreeSet<(String, String, u64)>) {
    let mut missing = expected.clone();
    for event in stored {
        let found = expected.iter().find(|(spool, source, seq)| {
            (&event.source, event.seq) == (source, *seq) && event.data == Shipment::line(spool, source, *seq)
        });
        let found = found.unwrap_or_else(|| panic!("nobody sent {event:?}"));
        assert!(missing.remove(found), "stored twice: {event:?}");
    }
    assert!(missing.is_empty(), "missing: {missing:?}");
}

fn events(shipment: &Shipment) -> impl Iterator<Item = (String, String, u64)> {
    let runs = shipment.runs.clone().into_iter();
    let spool = shipment.spool.clone();
    runs.flat_map(move |(source, run)| {
        let spool = spool.clone();
        run.map(move |seq| (spool.clone(), source.clone(), seq))
    })
}

#[test]
fn an_event_that_is_sent_twice_is_stored_once() {
    let scene = Scene::new("an_event_that_is_sent_twice_is_stored_once");
    let collector = Collector::start(&scene);
    let shipment = Shipment::new(&spool_id(1)).with("app", 1..=50).with("other", 7..=9);
    assert_eq!(shipment.post(collector.address()).unwrap().text(), answer(53, 0));
    assert_eq!(shipment.post(collector.address()).unwrap().text(), answer(0, 53));
    assert_holds_exactly(&collector.stored(), &events(&shipment).collect());
    let first = &collector.stored()[0];
    assert_eq!((first.agent.as_str(), first.timestamp.as_str()), ("agent1", "2024-01-15T10:30:00.123Z"));
}

#[test]
fn an_event_is_stored_once_however_batches_are_cut_overlap_and_change_places() {
    let scene = Scene::new("an_event_is_stored_once_however_batches_are_cut_overlap_and_change_places");
    let mut collector = Collector::start(&scene);
    let mut rng = scene.rng("batches");
    let mut expected = BTreeSet::new();
    for round in 0..300 {
        let mut shipment = Shipment::new(&spool_id(rng.random_range(1..=2)));
        for _ in 0..rng.random_range(1..=3) {
            let first = rng.random_range(1..200);
            let last = first + rng.random_range(0..40);
            shipment = shipment.with(["a", "b", "c"][rng.random_range(0..3)], first..=last);
        }
        if rng.random() {
            shipment = shipment.encoded(if rng.random() { "gzip" } else { "zstd" });
        }
        ship(&shipment, &collector);
        expected.extend(events(&shipment));
        if round % 100 == 99 {
            assert_eq!(collector.stop(), Some(0));
            assert_holds_exactly(&collector.stored(), &expected);
            collector.restart();
        }
    }
    assert_eq!(collector.stats().store.events_stored, expected.len() as u64);
}

#[test]
fn the_same_numbers_of_another_spool_or_another_source_are_other_events() {
    let scene = Scene::new("the_same_numbers_of_another_spool_or_another_source_are_other_events");
    let collector = Collector::start(&scene);
    let mut expected = BTreeSet::new();
    for spool in [spool_id(1), spool_id(2)] {
        for source in ["app", "app2", "App", "with, \"punctuation\"\n"] {
            let shipment = Shipment::new(&spool).with(source, 1..=5);
            assert_eq!(shipment.post(collector.address()).unwrap().text(), answer(5, 0));
            expected.extend(events(&shipment));
        }
    }
    assert_holds_exactly(&collector.stored(), &expected);
}

#[test]
fn compressed_batches_are_stored_like_others() {
    let scene = Scene::new("compressed_batches_are_stored_like_others");
    let collector = Collector::start(&scene);
    let plain = Shipment::new(&spool_id(1)).with("app", 1..=500);
    ship(&plain.clone().encoded("gzip"), &collector);
    assert_eq!(plain.clone().encoded("zstd").post(collector.address()).unwrap().text(), answer(0, 500));
    assert_eq!(plain.post(collector.address()).unwrap().text(), answer(0, 500));
    assert_holds_exactly(&collector.stored(), &events(&plain).collect());
}

/// A sender of the kill test: a source, and how far the collector has acknowledged it.
struct Sender {
    spool: String,
    source: &'static str,
    acknowledged: AtomicU64,
}

impl Sender {
    fn new(spool: u128, source: &'static str) -> Self {
        Self { spool: spool_id(spool), source, acknowledged: AtomicU64::new(0) }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Sends batches of random cut until told to stop, from the last that was acknowledged on and sometimes from
    /// before it. Between two requests it waits while somebody else has the gate.
    fn run(&self, scene: &Scene, address: SocketAddr, gate: &RwLock<()>, stop: &AtomicBool) {
        let mut rng = scene.rng(self.source);
        while !stop.load(Ordering::SeqCst) {
            let _open = gate.read().unwrap();
            let done = self.acknowledged();
            let first = (done + 1).saturating_sub(rng.random_range(0..20)).max(1);
            let last = done + rng.random_range(1..40);
            let shipment = Shipment::new(&self.spool).with(self.source, first..=last);
            if let Ok(answer) = shipment.post(address) {
                assert_eq!(answer.status, 200, "{}", answer.text());
                self.acknowledged.store(last, Ordering::SeqCst);
            }
        }
    }
}

/// What is known to be in the out file, read once each.
#[derive(Default)]
struct Checked {
    bytes: u64,
    seqs: BTreeMap<String, BTreeSet<u64>>,
}

impl Checked {
    /// Reads what is new in the out file, all of it whole lines, and asserts that nothing of it was there before and
    /// that it holds what is acknowledged.
    fn go_on(&mut self, collector: &Collector, senders: &[Sender]) {
        let mut file = File::open(collector.out()).unwrap();
        file.seek(SeekFrom::Start(self.bytes)).unwrap();
        let mut text = String::new();
        self.bytes += file.read_to_string(&mut text).unwrap() as u64;
        assert!(text.is_empty() || text.ends_with('\n'), "the out file ends with a torn line");
        for line in text.lines() {
            let event: Stored = serde_json::from_str(line).unwrap();
            let sender = senders.iter().find(|sender| sender.source == event.source).unwrap();
            assert_eq!(event.data, Shipment::line(&sender.spool, sender.source, event.seq));
            let new = self.seqs.entry(event.source).or_default().insert(event.seq);
            assert!(new, "stored twice: {line}");
        }
        for sender in senders {
            let seqs = self.seqs.entry(sender.source.to_owned()).or_default();
            let acknowledged = sender.acknowledged();
            let stored = seqs.iter().filter(|seq| **seq <= acknowledged).count() as u64;
            assert_eq!(
                stored, acknowledged,
                "stored of {} events acknowledged to {}",
                acknowledged, sender.source
            );
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_every_kill_and_nothing_is_there_twice() {
    const KILLS: u32 = 100;
    let scene = Scene::new("what_was_acknowledged_is_there_after_every_kill_and_nothing_is_there_twice");
    let mut collector = Collector::start(&scene);
    let mut rng = scene.rng("kills");
    let address = collector.address();
    let senders = [Sender::new(1, "a"), Sender::new(1, "b"), Sender::new(2, "c")];
    let (gate, stop) = (RwLock::new(()), AtomicBool::new(false));
    let mut checked = Checked::default();
    let mut torn = 0;
    std::thread::scope(|scope| {
        // A failed assertion below must not leave the senders running, or the scope would never end.
        let _stop = StopOnDrop(&stop);
        for sender in &senders {
            scope.spawn(|| sender.run(&scene, address, &gate, &stop));
        }
        let acknowledged = || senders.iter().map(Sender::acknowledged).sum::<u64>();
        for _ in 0..KILLS {
            let before = acknowledged();
            wait_for(PATIENCE, "something is acknowledged between two kills", || acknowledged() > before);
            // Not to wait for something, but to hit another moment.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..10_000)));
            collector.kill();
            // Nothing is sent between the kill and the look at what it left, so nothing can be made good meanwhile.
            let _shut = gate.write().unwrap();
            let left = fs::metadata(collector.out()).unwrap().len();
            collector.restart();
            torn += u32::from(fs::metadata(collector.out()).unwrap().len() < left);
            checked.go_on(&collector, &senders);
        }
    });
    println!("{torn} of {KILLS} kills left lines that were cut off at the start");
    assert_eq!(collector.stop(), Some(0));
    checked.go_on(&collector, &senders);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn torn_ends_of_both_files_are_cut_off_and_cost_nothing() {
    let scene = Scene::new("torn_ends_of_both_files_are_cut_off_and_cost_nothing");
    let mut collector = Collector::start(&scene);
    let shipment = Shipment::new(&spool_id(1)).with("app", 1..=10);
    ship(&shipment, &collector);
    let append = |path: &std::path::Path, bytes: &[u8]| {
        File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
    };
    for torn in [&b"{\"agent\":\"a\",\"sou"[..], b"{\"whole\":\"line\"}\n{\"torn", &[0; 5000]] {
        collector.kill();
        append(collector.out(), torn);
        append(&collector.index(), torn);
        collector.restart();
        assert_eq!(shipment.post(collector.address()).unwrap().text(), answer(0, 10));
        assert_holds_exactly(&collector.stored(), &events(&shipment).collect());
    }
}

#[test]
fn a_wrong_request_is_refused_with_a_reason_and_nothing_of_it_is_stored() {
    let scene = Scene::new("a_wrong_request_is_refused_with_a_reason_and_nothing_of_it_is_stored");
    let out = scene.path("out.jsonl");
    let collector = Collector::start_at(&scene, &out, &["--max-body-bytes", "100000"]);
    let good = Shipment::new(&spool_id(1)).with("app", 1..=2);
    let (key, json) = (good.key_header(), good.json());
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        let answer = post(collector.address(), headers, body).unwrap();
        (answer.status, answer.text())
    };
    let with_key = |seq: &str, body: &[u8]| send(&[("idempotency-key", &key), ("log-agent-seq", seq)], body);

    let refused = [
        (send(&[], json.as_bytes()), "Idempotency-Key is missing"),
        (send(&[("idempotency-key", &key)], json.as_bytes()), "Log-Agent-Seq is missing"),
        (send(&[("idempotency-key", "1-2"), ("log-agent-seq", "1-2")], json.as_bytes()), "Idempotency-Key"),
        (with_key("2-1", json.as_bytes()), "Log-Agent-Seq"),
        (with_key("1-3", json.as_bytes()), "announces 3 events of source 0, the payload has 2"),
        (with_key("1-2, 3-4", json.as_bytes()), "2 ranges, the payload has 1 sources"),
        (with_key("1-2", b"{"), "not the payload"),
        (with_key("1-2", b""), "not the payload"),
        (
            with_key("1-2", br#"{"agentName":"a","sources":[{"sourceName":"app","logs":[{"data":1}]}]}"#),
            "not the payload",
        ),
        (with_key("1-2", &[0xff; 100]), "not the payload"),
    ];
    for ((status, text), reason) in refused {
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(reason), "{text:?} does not say {reason:?}");
        assert_eq!(text.lines().count(), 1, "{text:?}");
    }
    let coded = |coding: &str, body: &[u8]| {
        send(&[("idempotency-key", &key), ("log-agent-seq", "1-2"), ("content-encoding", coding)], body).0
    };
    assert_eq!(coded("gzip", json.as_bytes()), 400);
    assert_eq!(coded("br", json.as_bytes()), 415);
    assert_eq!(with_key("1-2", &vec![b' '; 100_001]).0, 413);
    // Past what is read of it, the answer may be lost with the connection; but it is never stored, and no harm done.
    let _ = post(collector.address(), &[], &vec![b' '; 8 << 20]);
    assert_eq!(coded("zstd", &zstd::bulk::compress(&vec![b' '; 10 << 20], 1).unwrap()), 413);
    assert_eq!(exchange(collector.address(), "PUT /", &[], b"").unwrap().status, 405);
    let answer = get(collector.address(), "/").unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.headers.iter().any(|(name, value)| name == "allow" && value == "POST"));

    assert_eq!(collector.stored(), []);
    ship(&good, &collector);
    assert_eq!(collector.stored_count(), 2);
}

#[test]
fn a_request_that_is_cut_off_is_not_stored() {
    let scene = Scene::new("a_request_that_is_cut_off_is_not_stored");
    let collector = Collector::start(&scene);
    let shipment = Shipment::new(&spool_id(1)).with("app", 1..=2);
    let json = shipment.json();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nidempotency-key: {}\r\nlog-agent-seq: 1-2\r\ncontent-length: {}\r\n\r\n",
        shipment.key_header(),
        json.len() + 1
    );
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(json.as_bytes()).unwrap();
    drop(stream);
    wait_for(PATIENCE, "the cut request is counted", || collector.stats().refused == 1);
    assert_eq!(collector.stored_count(), 0);
}

#[test]
fn stats_say_what_came_and_what_is_stored_also_after_a_restart() {
    let scene = Scene::new("stats_say_what_came_and_what_is_stored_also_after_a_restart");
    let mut collector = Collector::start(&scene);
    let spool = spool_id(0xabc);
    ship(&Shipment::new(&spool).with("app", 1..=10).with("db", 5..=5), &collector);
    ship(&Shipment::new(&spool).with("app", 6..=12).with("db", 7..=7), &collector);
    post(collector.address(), &[], b"wrong").unwrap();
    let stats = collector.stats();
    assert_eq!((stats.requests, stats.refused, stats.failed), (3, 1, 0));
    assert_eq!(stats.duplicates_suppressed, 5);
    assert!(stats.bytes_received > 1000);
    let out = collector.out().to_owned();
    let check_store = |stats: &Stats| {
        assert_eq!(stats.store.events_stored, 14);
        assert_eq!(stats.store.out_bytes, fs::metadata(&out).unwrap().len());
        let sources: Vec<_> = stats
            .store
            .sources
            .iter()
            .map(|source| (&*source.spool, &*source.source, &*source.ranges))
            .collect();
        assert_eq!(sources, [(&*spool, "app", &[(1, 12)][..]), (&*spool, "db", &[(5, 5), (7, 7)])]);
    };
    check_store(&stats);
    collector.kill();
    collector.restart();
    let stats = collector.stats();
    assert_eq!((stats.requests, stats.duplicates_suppressed), (0, 0));
    check_store(&stats);
}

#[test]
fn a_second_collector_on_the_same_file_is_refused_and_the_first_goes_on() {
    let scene = Scene::new("a_second_collector_on_the_same_file_is_refused_and_the_first_goes_on");
    let collector = Collector::start(&scene);
    let second =
        log_agent().args(["collect", "--listen", "127.0.0.1:0", "--out"]).arg(collector.out()).output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("out.jsonl is in use by another collector"), "{said}");
    ship(&Shipment::new(&spool_id(1)).with("app", 1..=2), &collector);
}

#[test]
fn a_file_that_is_not_a_collectors_is_refused_and_left_as_it_is() {
    let scene = Scene::new("a_file_that_is_not_a_collectors_is_refused_and_left_as_it_is");
    let out = scene.path("precious");
    fs::write(&out, "precious\n").unwrap();
    let output =
        log_agent().args(["collect", "--listen", "127.0.0.1:0", "--out"]).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not written by a collector"));
    assert_eq!(fs::read(&out).unwrap(), b"precious\n");
}

#[test]
fn what_is_received_is_readable_by_its_owner_alone() {
    let scene = Scene::new("what_is_received_is_readable_by_its_owner_alone");
    let collector = Collector::start(&scene);
    for path in [collector.out().to_owned(), collector.index()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_stop_ends_the_collector_although_connections_are_open() {
    let scene = Scene::new("a_stop_ends_the_collector_although_connections_are_open");
    let mut collector = Collector::start(&scene);
    let idle = TcpStream::connect(collector.address()).unwrap();
    let mut half = TcpStream::connect(collector.address()).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
    wait_for(PATIENCE, "the half request is in hand", || collector.stats().requests == 1);
    ship(&Shipment::new(&spool_id(1)).with("app", 1..=2), &collector);
    assert_eq!(collector.stop(), Some(0));
    drop((idle, half));
    assert_eq!(collector.stored_count(), 2);
}

#[test]
fn a_full_disk_costs_an_answer_and_nothing_else() {
    let test = "a_full_disk_costs_an_answer_and_nothing_else";
    let scene = Scene::new(test);
    let disk = scene.path("disk");
    fs::create_dir(&disk).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // The mount is seen by the collector alone, and is gone with it.
    let script = "mount -t tmpfs -o size=64k tmpfs \"$1\" && shift && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&disk).arg(env!("CARGO_BIN_EXE_log-agent"));
    command.args(["collect", "--listen", &address.to_string(), "--out"]).arg(disk.join("out.jsonl"));
    command.stdout(std::process::Stdio::null());
    let can_mount = std::process::Command::new("unshare").args(["-m", "true"]).output();
    if !is_root() || !can_mount.is_ok_and(|output| output.status.success()) {
        return skip(test, "mounting takes root and unshare");
    }
    let mut process = Process::start("collector", command, &scene.path("collector.stderr"));
    wait_for(PATIENCE, "the collector listens", || get(address, "/stats").is_ok());

    let mut done = 0;
    let mut refused = None;
    while refused.is_none() {
        let shipment = Shipment::new(&spool_id(1)).with("app", done + 1..=done + 50);
        let answer = shipment.post(address).unwrap();
        match answer.status {
            200 => done += 50,
            _ => refused = Some((shipment, answer)),
        }
        assert!(done < 10_000, "the disk never fills");
    }
    let (shipment, answer) = refused.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.text(), "not stored: No space left on device (os error 28)\n");

    // The collector's own view of the directory, where what others have stored can be taken away to make room.
    let inside = std::path::PathBuf::from(format!("/proc/{}/root", process.id()))
        .join(disk.strip_prefix("/").unwrap());
    let stored = || {
        let text = fs::read_to_string(inside.join("out.jsonl")).unwrap();
        assert!(text.ends_with('\n'), "a part of a line is stored");
        let events: Vec<Stored> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_stored_once(&events);
        events.len() as u64
    };
    assert_eq!(stored(), done, "something of the refused request is stored");
    assert!(shipment.post(address).unwrap().status == 503, "there is still no room");
    let remount = std::process::Command::new("nsenter")
        .args(["-m", "-t", &process.id().to_string(), "mount", "-o", "remount,size=1m"])
        .arg(&disk)
        .output();
    assert!(remount.is_ok_and(|output| output.status.success()), "cannot make room");
    let answer = shipment.post(address).unwrap();
    assert_eq!((answer.status, answer.text()), (200, self::answer(50, 0)));
    assert_eq!(stored(), done + 50);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn many_senders_at_once_are_committed_together_and_each_event_is_stored_once() {
    let scene = Scene::new("many_senders_at_once_are_committed_together_and_each_event_is_stored_once");
    let collector = Collector::start(&scene);
    let address = collector.address();
    let refused = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for sender in 0..24_u64 {
            let refused = Arc::clone(&refused);
            scope.spawn(move || {
                for round in 0..10 {
                    // Two senders each have the same events.
                    let first = (sender / 2) * 100 + round * 10 + 1;
                    let shipment = Shipment::new(&spool_id(1)).with("app", first..=first + 9);
                    match shipment.post(address) {
                        Ok(answer) if answer.status == 200 => {}
                        other => refused.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            });
        }
    });
    assert_eq!(*refused.lock().unwrap(), Vec::<String>::new());
    let all = Shipment::new(&spool_id(1)).with("app", 1..=1200);
    assert_holds_exactly(&collector.stored(), &events(&all).collect());
    assert_eq!(collector.stats().duplicates_suppressed, 1200);
}

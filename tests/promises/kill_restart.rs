//! Whatever ends the agent, the next one goes on where it was: every line is stored once.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use rustix::process::Signal;

use crate::common::{
    Agent, Collector, ConfigBuilder, Fault, FaultProxy, Load, Rhythm, Scene, Writer, assert_accounts_agree,
    assert_all_is_acknowledged, assert_batches_keep_their_boundaries, assert_delivered_exactly_once,
    assert_resends_identical, await_delivery, spool_status, wait_for,
};

/// How often the agent is killed in one run.
const KILLS: u32 = 200;
/// A writer rotates its file once in so many lives of the agent. Several lives, so that one of them surely sees each
/// file: one that comes and goes between two looks cannot be promised.
const LIVES_PER_ROTATION: u32 = 8;

/// Delays and sizes so small that everything happens in the life of an agent that lives for a moment.
fn hasty<'a>(scene: &'a Scene, url: String) -> ConfigBuilder<'a> {
    scene
        .config()
        .end_point(url)
        .global("interval_secs", 0.02)
        .global("retry_delay_ms", 5)
        .global("timeout_secs", 0.5)
        .global("shutdown_secs", 1)
        .global("max_batch_size", 40)
        .global("segment_bytes", 64 << 10)
}

/// What a bad day does to a request: most go through.
fn bad_day(rng: &mut SmallRng) -> Fault {
    match rng.random_range(0..100) {
        0..8 => Fault::UNAVAILABLE,
        8..12 => Fault::Status(500),
        12..14 => Fault::StatusRetryAfter(429, "0".into()),
        14..19 => Fault::LoseReply,
        19..22 => Fault::CutReply,
        22..26 => Fault::Reset,
        26..30 => Fault::CloseAfter,
        30..31 => Fault::Hang,
        31..32 => Fault::HangAfterForward,
        32..33 => Fault::Garbage,
        _ => Fault::Pass,
    }
}

#[test]
fn every_line_is_stored_exactly_once_through_two_hundred_kills() {
    let scene = Scene::new("every_line_is_stored_exactly_once_through_two_hundred_kills");
    let mut collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    hasty(&scene, proxy.url())
        .source("app", "logs/app.log")
        .source("web", "logs/web/*.log")
        .source("all", "logs/all/all.log*")
        .source("quiet", "logs/quiet.log")
        .write();
    let load = |source, path, rhythm: Rhythm| Load::start(&scene, Writer::new(&scene, source, path), rhythm);
    let brisk = Rhythm::BRISK.up_to(40_000);
    let loads = [
        load("app", "logs/app.log", brisk),
        load("web", "logs/web/one.log", brisk),
        load("web", "logs/web/two.log", brisk),
        load("all", "logs/all/all.log", brisk),
        load("quiet", "logs/quiet.log", Rhythm::SLOW),
    ];
    let mut faults = scene.rng("faults");
    proxy.script(move |_| bad_day(&mut faults));

    let mut rng = scene.rng("kills");
    let millis = |rng: &mut SmallRng, range| Duration::from_millis(rng.random_range(range));
    let mut collector_returns = 0;
    for life in 0..KILLS {
        let agent = Agent::start(&scene);
        if rng.random_ratio(1, 5) {
            // While it starts: opening the spool, recovering, finding its files again.
            std::thread::sleep(millis(&mut rng, 0..60));
        } else {
            agent.await_started();
            std::thread::sleep(millis(&mut rng, 20..260));
        }
        let rotates_now = |load: usize| (life + load as u32) % LIVES_PER_ROTATION == LIVES_PER_ROTATION - 1;
        let asleep: bool = rng.random();
        let rotate = || (0..4).filter(|load| rotates_now(*load)).for_each(|load| loads[load].rotate());
        if !asleep {
            rotate();
        }
        if collector.is_running() && rng.random_ratio(1, 8) {
            collector.kill();
            collector_returns = life + rng.random_range(1..4);
        }
        agent.kill();
        // The first lives may be too short to make a spool.
        if life % 16 == 15 {
            spool_status(&scene);
        }
        if asleep {
            rotate();
        }
        if !collector.is_running() && life >= collector_returns {
            collector.restart();
        }
        proxy.release();
    }

    let writers = loads.map(Load::stop);
    let writers: Vec<&Writer> = writers.iter().collect();
    if !collector.is_running() {
        collector.restart();
    }
    proxy.heal();
    let agent = Agent::start(&scene);
    await_delivery(&writers, &collector);
    // A kill alone costs the spool nothing: no ledger is set aside, and nothing is damaged but the end of a write.
    for line in agent.messages().lines().filter(|line| line.contains(" log_agent::spool::")) {
        println!("{line}");
    }
    assert_delivered_exactly_once(&writers, &collector);
    assert_accounts_agree(&writers, &collector);
    assert_resends_identical(&proxy.requests());
    assert_batches_keep_their_boundaries(&proxy.requests());
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &writers);
    assert_nothing_is_left(&scene, &proxy);
    let lines: u64 = writers.iter().map(|writer| writer.count()).sum();
    println!("{KILLS} kills, {lines} lines, {} requests", proxy.request_count());
    assert!(writers.iter().all(|writer| writer.count() > 100), "the run shows little: {lines} lines");
}

/// Asserts that an agent that starts now has nothing to send.
#[track_caller]
fn assert_nothing_is_left(scene: &Scene, proxy: &FaultProxy) {
    let requests = proxy.request_count();
    let agent = Agent::start(scene);
    agent.await_started();
    assert!(agent.said().contains(" resent=0"), "batches are left");
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(proxy.request_count(), requests, "something was sent that the server had acknowledged");
}

/// What is delivered is gone from the spool, all of it; how far the files were read is not.
#[test]
fn a_restart_when_everything_is_delivered_repeats_nothing() {
    let scene = Scene::new("a_restart_when_everything_is_delivered_repeats_nothing");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    hasty(&scene, proxy.url()).source("app", "logs/app.log").write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    for kills in [true, false, true] {
        // Spooled, not delivered, and killed; then delivered with nothing new to read; then stopped.
        proxy.always(Fault::Hang);
        writer.append(100);
        let agent = Agent::start(&scene);
        let before = proxy.request_count();
        proxy.await_requests(before + 1);
        agent.kill();
        proxy.heal();
        let agent = Agent::start(&scene);
        await_delivery(&[&writer], &collector);
        if kills {
            agent.kill();
        } else {
            assert_eq!(agent.stop(), Some(0));
        }
        let agent = Agent::start(&scene);
        agent.await_started();
        writer.append(1);
        await_delivery(&[&writer], &collector);
        assert_eq!(agent.stop(), Some(0));
        assert_delivered_exactly_once(&[&writer], &collector);
        assert_accounts_agree(&[&writer], &collector);
        assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
    }
}

/// Bytes that a process has read so far, from files and connections.
fn bytes_read(agent: &Agent) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

fn size_of_files_in(dir: &Path) -> u64 {
    // Files come and go while they are counted.
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| file.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// That the first request does not depend on the backlog shows in what was read before it, which is the same on any
/// machine; how long it takes is not asserted beyond the five seconds in which an agent has to be up.
#[test]
fn a_restart_after_an_outage_starts_sending_within_a_second() {
    const BACKLOG: u64 = 64 << 20;
    const READ_MAX: u64 = 24 << 20;
    let scene = Scene::new("a_restart_after_an_outage_starts_sending_within_a_second");
    let mut proxy = FaultProxy::alone();
    scene
        .config()
        .end_point(proxy.url())
        .global("segment_bytes", 1 << 20)
        .global("timeout_secs", 300)
        .global("shutdown_secs", 0)
        .source("app", "logs/app.log")
        .write();
    proxy.refuse_connections();
    let mut log = fs::File::create(scene.path("logs/app.log")).unwrap();
    let line = format!("{}\n", "a line of an ordinary length, as they come by the million ".repeat(4));
    let block = line.repeat((1 << 20) / line.len() + 1);
    (0..BACKLOG >> 20).for_each(|_| log.write_all(block.as_bytes()).unwrap());

    let agent = Agent::start(&scene);
    let segments = scene.spool_dir().join("segments");
    wait_for(Duration::from_secs(120), "the backlog is spooled", || size_of_files_in(&segments) > BACKLOG);
    agent.kill();
    assert!(fs::read_dir(&segments).unwrap().count() as u64 >= BACKLOG >> 20);

    proxy.always(Fault::Hang);
    proxy.listen_again();
    let agent = Agent::start(&scene);
    // Several are sent at once, so the oldest batch need not be the first to arrive.
    wait_for(Duration::from_secs(5), "the oldest batch", || {
        proxy.requests().iter().any(|request| request.seq().starts_with("1-"))
    });
    // Nothing is acknowledged, so what it reads ahead comes to an end, too.
    let read = bytes_read(&agent);
    assert!(read < READ_MAX, "{read} bytes were read before the first request was answered");
    agent.kill();
}

#[test]
fn a_stop_under_load_is_clean_while_the_server_hangs() {
    let scene = Scene::new("a_stop_under_load_is_clean_while_the_server_hangs");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    // A request may take longer than this test waits for anything: a stop that depends on the server would fail it.
    hasty(&scene, proxy.url()).global("timeout_secs", 3600).source("app", "logs/app.log").write();
    let load = Load::start(&scene, Writer::new(&scene, "app", "logs/app.log"), Rhythm::BRISK);
    for round in 1..=4 {
        proxy.always(if round % 2 == 0 { Fault::Hang } else { Fault::HangAfterForward });
        let agent = Agent::start(&scene);
        let before = proxy.request_count();
        proxy.await_requests(before + 2);
        let signal = if round % 2 == 0 { Signal::TERM } else { Signal::INT };
        agent.signal(signal);
        agent.await_said("stopping");
        assert_eq!(agent.wait(), Some(0), "round {round}");
        proxy.release();
    }
    let agent = Agent::start(&scene);
    proxy.heal();
    let writer = load.stop();
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_accounts_agree(&[&writer], &collector);
    assert_resends_identical(&proxy.requests());
    assert_nothing_is_left(&scene, &proxy);
}

#[test]
fn a_stop_lets_requests_in_flight_finish() {
    let scene = Scene::new("a_stop_lets_requests_in_flight_finish");
    let proxy = FaultProxy::alone();
    hasty(&scene, proxy.url())
        .global("timeout_secs", 3600)
        .global("shutdown_secs", 3600)
        .global("max_send_task", 1)
        .source("app", "logs/app.log")
        .write();
    proxy.next(Fault::Hold);
    let agent = Agent::start(&scene);
    Writer::new(&scene, "app", "logs/app.log").append(1);
    proxy.await_requests(1);
    agent.signal(Signal::TERM);
    agent.await_said("stopping");
    proxy.release();
    assert_eq!(agent.wait(), Some(0));
    assert_nothing_is_left(&scene, &proxy);
}

#[test]
fn a_second_signal_exits_at_once() {
    let scene = Scene::new("a_second_signal_exits_at_once");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    // Both are longer than this test waits.
    hasty(&scene, proxy.url())
        .global("timeout_secs", 3600)
        .global("shutdown_secs", 3600)
        .source("app", "logs/app.log")
        .write();
    let load = Load::start(&scene, Writer::new(&scene, "app", "logs/app.log"), Rhythm::BRISK);
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        proxy.always(Fault::Hang);
        let mut agent = Agent::start(&scene);
        let before = proxy.request_count();
        proxy.await_requests(before + 1);
        agent.signal(first);
        agent.await_said("stopping");
        assert!(agent.is_running(), "it did not wait for the request in flight");
        // One that comes at once counts as the first: `timeout` sends it to the process and to its group.
        wait_for(crate::common::PATIENCE, "the second signal to be taken", || {
            agent.signal(second);
            !agent.is_running()
        });
        assert_eq!(agent.wait(), Some(1));
        proxy.release();
    }
    proxy.heal();
    let agent = Agent::start(&scene);
    let writer = load.stop();
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_nothing_is_left(&scene, &proxy);
}

#[test]
fn sighup_follows_a_new_source_and_a_wrong_configuration_changes_nothing() {
    let scene = Scene::new("sighup_follows_a_new_source_and_a_wrong_configuration_changes_nothing");
    let collector = Collector::start(&scene);
    let config = hasty(&scene, collector.url()).source("app", "logs/app.log");
    config.write();
    let mut app = Writer::new(&scene, "app", "logs/app.log");
    let mut new = Writer::new(&scene, "new", "logs/new.log");
    app.append(10);
    new.append(10);
    let agent = Agent::start(&scene);
    collector.await_stored(10);

    fs::write(scene.config_path(), config.text().replace("agent_name", "agent_nam")).unwrap();
    agent.signal(Signal::HUP);
    agent.await_said("was not reloaded");
    app.append(10);
    collector.await_stored(20);

    config.source("new", "logs/new.log").write();
    agent.signal(Signal::HUP);
    agent.await_said("configuration reloaded");
    app.append(10);
    await_delivery(&[&app, &new], &collector);

    // A third time, with lines being written meanwhile: the reload has a gap for the agent and none for the file.
    let load = Load::start(&scene, app, Rhythm::BRISK);
    for reloads in 2..5 {
        let before = load.written();
        wait_for(Duration::from_secs(60), "lines are written", || load.written() > before + 50);
        agent.signal(Signal::HUP);
        wait_for(Duration::from_secs(60), "another reload", || {
            agent.said().matches("configuration reloaded").count() >= reloads
        });
    }
    let app = load.stop();
    await_delivery(&[&app, &new], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_delivered_exactly_once(&[&app, &new], &collector);
    assert_accounts_agree(&[&app, &new], &collector);
}

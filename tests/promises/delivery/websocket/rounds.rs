//! Agents and collectors that die, in turns and together.

use std::time::Duration;

use rand::Rng as _;

use super::framed;
use crate::common::{
    Agent, Collector, Fault, FaultProxy, Load, Rhythm, Scene, Writer, assert_accounts_agree,
    assert_all_is_acknowledged, assert_batches_keep_their_boundaries, assert_delivered_exactly_once,
    assert_resends_identical, await_delivery, spool_status, wait_for,
};

const ROUNDS: u32 = 20;

#[test]
fn every_line_is_stored_exactly_once_through_twenty_deaths_of_agent_and_collector() {
    let scene = Scene::new("every_line_is_stored_exactly_once_through_twenty_deaths_of_agent_and_collector");
    let mut collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let through_proxy = framed(&scene, proxy.socket_url()).global("max_batch_size", 40);
    let straight = through_proxy.clone().end_point(collector.socket_url());
    let mut faults = scene.rng("faults");
    proxy.script(move |_| match faults.random_range(0..100) {
        0..6 => Fault::UNAVAILABLE,
        6..12 => Fault::LoseReply,
        12..15 => Fault::CutReply,
        15..18 => Fault::Reset,
        18..22 => Fault::CloseAfter,
        22..23 => Fault::Hang,
        23..24 => Fault::HangAfterForward,
        24..26 => Fault::Garbage,
        _ => Fault::Pass,
    });
    let brisk = Rhythm::BRISK.up_to(20_000);
    let load = Load::start(&scene, Writer::new(&scene, "app", "logs/app.log"), brisk);
    let mut rng = scene.rng("deaths");
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            through_proxy.write()
        } else {
            straight.write()
        };
        let agent = Agent::start(&scene);
        let stored = collector.stored_count();
        wait_for(crate::common::PATIENCE, "something is stored in each round", || {
            collector.stored_count() > stored
        });
        // Not to wait for something, but to hit another moment.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
        match rng.random_range(0..3) {
            0 => agent.kill(),
            1 => {
                collector.kill();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
                agent.kill();
                collector.restart();
            }
            _ => {
                // The collector alone: the same agent goes on with the next one.
                collector.kill();
                collector.restart();
                let stored = collector.stored_count();
                wait_for(crate::common::PATIENCE, "the agent comes back to the collector", || {
                    collector.stored_count() > stored
                });
                agent.kill();
            }
        }
    }
    let writer = load.stop();
    proxy.heal();
    through_proxy.write();
    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);
    assert_delivered_exactly_once(&[&writer], &collector);
    assert_accounts_agree(&[&writer], &collector);
    assert_resends_identical(&proxy.requests());
    assert_batches_keep_their_boundaries(&proxy.requests());
    assert_eq!(agent.stop(), Some(0));
    assert_all_is_acknowledged(&spool_status(&scene), &[&writer]);
    println!("{ROUNDS} rounds, {} lines, {} frames by the proxy", writer.count(), proxy.request_count());
}

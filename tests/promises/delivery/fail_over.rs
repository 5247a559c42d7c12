//! Several end points: while the first is away batches go to the second, with the same bytes under the same keys.

use super::*;
use crate::common::{PATIENCE, free_port};

#[test]
fn while_the_first_end_point_is_away_the_second_gets_every_line_and_keeps_getting_them() {
    let scene =
        Scene::new("while_the_first_end_point_is_away_the_second_gets_every_line_and_keeps_getting_them");
    let collector = Collector::start(&scene);
    let proxy = FaultProxy::before(&collector);
    let away = format!("http://127.0.0.1:{}/", free_port());
    let urls: Vec<toml::Value> = [away, proxy.url()].into_iter().map(Into::into).collect();
    // Labels change nothing for the collector.
    let config = quick(&scene, String::new()).global("end_point", urls).table("labels", "zone", "a");
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("batches go to another end point from now on");
    await_delivery(&[&writer], &collector);
    // A batch that was stored and whose answer was lost goes out again with the same bytes.
    proxy.next_n(3, Fault::LoseReply);
    writer.append(100);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_resends_identical(&proxy.requests());
    assert_delivered_exactly_once(&[&writer], &collector);
}

#[test]
fn when_the_current_end_point_goes_away_as_well_the_first_is_next() {
    let scene = Scene::new("when_the_current_end_point_goes_away_as_well_the_first_is_next");
    let collector = Collector::start(&scene);
    let (first, second) = (FaultProxy::before(&collector), FaultProxy::before(&collector));
    let urls: Vec<toml::Value> = [first.url(), second.url()].into_iter().map(Into::into).collect();
    quick(&scene, String::new()).global("end_point", urls).global("max_send_task", 1).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    first.always(Fault::UNAVAILABLE);
    second.always(Fault::Reset);
    writer.append(50);
    let agent = Agent::start(&scene);
    wait_for(PATIENCE, "both were tried more than once", || {
        second.connection_count() > 0 && agent.said().matches("another end point").count() >= 2
    });
    second.always(Fault::Pass);
    first.always(Fault::Pass);
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    let requests: Vec<Received> = first.requests().into_iter().chain(second.requests()).collect();
    assert_resends_identical(&requests);
    assert_delivered_exactly_once(&[&writer], &collector);
}

//! Brokers that are out of memory, close connections and die, and agents that die.

use super::super::queue::{assert_all_arrives, assert_done, deaths, event_count, rounds};
use super::broker::{Broker, Queue, is_installed};
use super::to_amqp;
use crate::common::{Agent, PATIENCE, Scene, Writer, wait_for};

#[test]
fn a_broker_that_dies_is_out_of_memory_or_closes_connections_loses_nothing() {
    const TEST: &str = "a_broker_that_dies_is_out_of_memory_or_closes_connections_loses_nothing";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let mut broker = Broker::start();
    let mut queue = broker.make_queue("logs", &[]);
    to_amqp(&scene, &broker, "logs").global("retry_count", 1_000_000).write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    let agent = Agent::start(&scene);
    writer.append(100);
    wait_for(PATIENCE, "a hundred lines are there", || event_count(&queue.published()) == 100);

    // A memory alarm blocks whoever publishes: what is not taken is sent again when it is over.
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    writer.append(100);
    agent.await_said("the broker takes nothing for the moment");
    assert!(!agent.said().contains("ERROR"), "what passes by itself is nobody's fault: {}", agent.said());
    broker.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]);
    wait_for(PATIENCE, "what waited for the alarm is there", || event_count(&queue.published()) == 200);

    broker.control(&["close_all_connections", "by the test"]);
    queue.reconnect(&broker);
    writer.append(100);
    wait_for(PATIENCE, "what came after the close is there", || event_count(&queue.published()) == 300);

    // It dies with messages on their way, and the agent while it is gone.
    writer.append(200);
    broker.kill();
    agent.kill();
    writer.append(100);
    let agent = Agent::start(&scene);
    agent.await_said("will be tried again");
    broker.restart();
    queue.reconnect(&broker);
    let again = assert_all_arrives(&[&writer], || queue.published());
    println!("{again} messages came again, as they had been");
    assert_done(&scene, agent, &[&writer]);
}

/// A broker takes seconds to come back: it dies in fewer rounds than the agent.
#[test]
fn a_durable_queue_has_every_line_through_twenty_deaths_of_the_agent_and_three_of_the_broker() {
    const TEST: &str =
        "a_durable_queue_has_every_line_through_twenty_deaths_of_the_agent_and_three_of_the_broker";
    if !is_installed(TEST) {
        return;
    }
    let scene = Scene::new(TEST);
    let mut broker = Broker::start();
    let mut queue = broker.make_queue("deaths", &[]);
    to_amqp(&scene, &broker, "deaths").global("max_batch_size", 40).write();
    let mut kills = 0;
    let break_server = |queue: &mut Queue, round: u32| {
        if round % 7 == 5 {
            broker.kill();
            broker.restart();
            queue.reconnect(&broker);
            kills += 1;
        }
    };
    let (agent, writer) = deaths(&scene, rounds(20), &mut queue, Queue::message_count, break_server);
    let again = assert_all_arrives(&[&writer], || queue.published());
    println!("{} lines, {again} messages came again, the broker died {kills} times", writer.count());
    assert_done(&scene, agent, &[&writer]);
}

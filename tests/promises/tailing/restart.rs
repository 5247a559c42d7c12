//! What happens to files while no agent runs.

use super::*;

#[test]
fn stop_append_start_reads_only_the_new_lines() {
    let mut stage = Stage::new("stop_append_start_reads_only_the_new_lines").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.stop();
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
    stage.kill();
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
    // And nothing at all where nothing was added.
    stage.stop();
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn rotated_while_down() {
    let mut stage = Stage::new("rotated_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.kill();
    writer.append(100);
    writer.rotate();
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn rotated_twice_while_down() {
    let mut stage = Stage::new("rotated_twice_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.stop();
    for _ in 0..2 {
        writer.append(100);
        writer.rotate();
    }
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn truncated_while_down() {
    let mut stage = Stage::new("truncated_while_down").follow("logs/*.log");
    let [shorter, longer] =
        ["shorter", "longer"].map(|name| [format!("{name} before"), format!("{name} after")]);
    for [before, _] in [&shorter, &longer] {
        let name = before.split(' ').next().unwrap();
        stage.append(format!("logs/{name}.log"), format!("{before}\n"));
    }
    stage.settle();
    stage.stop();
    stage.handle("logs/shorter.log").set_len(0).unwrap();
    stage.append("logs/shorter.log", "shorter after\n");
    stage.handle("logs/longer.log").set_len(0).unwrap();
    let more = numbered("longer than before", 0..100);
    stage.append("logs/longer.log", format!("longer after\n{}", text(&more)));
    stage.start();
    let longer: Vec<String> = longer.into_iter().chain(more).collect();
    stage.expect_groups(&[&shorter, &longer]);
}

#[test]
fn option_change_does_not_reread() {
    let mut stage = Stage::new("option_change_does_not_reread").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(50);
    stage.expect_written(&[&writer]);
    let changes: [&dyn Fn(ConfigBuilder<'_>) -> ConfigBuilder<'_>; 4] = [
        &|config| config.source("app", "logs/../logs/./app.log"),
        &|config| config.source("app", "logs/a*.log").with("max_line_bytes", "64 KiB"),
        &|config| config.source("app", "logs/**/*.log").with("delay_ms", 77),
        &|config| config.source("app", "logs/app.log").with("start_at", "end"),
    ];
    for change in changes {
        stage.stop();
        writer.append(50);
        change(stage.config()).write();
        stage.start();
        stage.expect_written(&[&writer]);
        writer.append(50);
        stage.expect_written(&[&writer]);
    }
    // The same without a restart.
    stage.config().source("app", "logs/*").write();
    let before = stage.messages().matches("configuration reloaded").count();
    stage.agent().signal(rustix::process::Signal::HUP);
    wait_for(PATIENCE, "the configuration is reloaded", || {
        stage.messages().matches("configuration reloaded").count() > before
    });
    writer.append(50);
    stage.expect_written(&[&writer]);
}

#[test]
fn renamed_source_reads_from_the_beginning() {
    let mut stage = Stage::new("renamed_source_reads_from_the_beginning").follow("logs/app.log");
    stage.append("logs/app.log", "1\n");
    stage.expect(&["1"]);
    stage.stop();
    stage.config().source("other", "logs/app.log").write();
    stage.append("logs/app.log", "2\n");
    stage.start();
    stage.expect_of("other", &["1", "2"]);
    stage.expect(&["1"]);
}

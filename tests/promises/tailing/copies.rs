//! Content that goes on living elsewhere: in a copy beside a truncated file, or compressed.
//!
//! A copy is known by its content. Its lines are those of the file it was taken from: what had been read of that is not
//! read again, and what had not is read from the copy.

use super::*;

/// Lets the agent read some of what a writer writes, and stand still from then on.
fn read_some(stage: &mut Stage, writer: &mut Writer) {
    writer.append(100);
    stage.settle();
    stage.freeze();
}

#[test]
fn copytruncate_under_load() {
    const TRUNCATIONS: usize = 12;
    let mut stage = Stage::new("copytruncate_under_load").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(10);
    stage.settle();
    for round in 0..TRUNCATIONS {
        // Nothing waits for the agent, which is somewhere within what the copy takes.
        for _ in 0..round % 5 {
            writer.append(400);
        }
        writer.copytruncate();
        writer.append(10);
        // Of several truncations before a look, the copies alone would know.
        stage.settle();
    }
    writer.append(100);
    stage.expect_written(&[&writer]);
}

#[test]
fn rest_of_a_truncated_file_is_read_from_the_copy() {
    let mut stage = Stage::new("rest_of_a_truncated_file_is_read_from_the_copy").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    // The new content is shorter than what was read, as long as that, and longer than all there was.
    for lines in [1, 100, 5000] {
        read_some(&mut stage, &mut writer);
        writer.append(2000);
        writer.copytruncate();
        writer.append(lines);
        stage.thaw();
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn rest_of_a_file_truncated_and_left_empty_is_read_from_the_copy() {
    const NAME: &str = "rest_of_a_file_truncated_and_left_empty_is_read_from_the_copy";
    let mut stage = Stage::new(NAME).follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    read_some(&mut stage, &mut writer);
    writer.append(2000);
    writer.copytruncate();
    stage.thaw();
    stage.expect_written(&[&writer]);
    writer.append(10);
    stage.expect_written(&[&writer]);
}

#[test]
fn line_cut_by_a_truncation_is_read_from_the_copy() {
    let mut stage = Stage::new("line_cut_by_a_truncation_is_read_from_the_copy").follow("logs/app.log");
    stage.append("logs/app.log", "1\n2, of which the be");
    stage.expect(&["1"]);
    stage.freeze();
    stage.append("logs/app.log", "ginning was seen\n3\n");
    fs::copy(stage.scene.path("logs/app.log"), stage.scene.path("logs/app.log.1")).unwrap();
    stage.handle("logs/app.log").set_len(0).unwrap();
    stage.append("logs/app.log", "4\n");
    stage.thaw();
    stage.expect(&["1", "2, of which the beginning was seen", "3", "4"]);
}

#[test]
fn copytruncate_with_the_copy_inside_the_glob() {
    let mut stage = Stage::new("copytruncate_with_the_copy_inside_the_glob").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for round in 0..6 {
        writer.append(200);
        if round % 2 == 0 {
            stage.settle();
        } else {
            stage.freeze();
        }
        writer.append(200);
        writer.copytruncate();
        writer.append(200);
        if round % 2 == 1 {
            stage.thaw();
        }
        stage.expect_written(&[&writer]);
    }
    stage.stop();
    writer.append(10);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn copy_inside_the_glob_is_known_while_it_is_made() {
    let mut stage = Stage::new("copy_inside_the_glob_is_known_while_it_is_made").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(1000);
    stage.expect_written(&[&writer]);
    let content = fs::read(writer.path()).unwrap();
    for piece in content.chunks(content.len() / 7) {
        stage.append("logs/app.log.1", piece);
        stage.settle();
    }
    stage.expect_written(&[&writer]);
    stage.handle("logs/app.log").set_len(0).unwrap();
    writer.append(10);
    stage.expect_written(&[&writer]);
}

#[test]
fn copytruncated_while_down() {
    let mut stage = Stage::new("copytruncated_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for lines in [1, 100, 1000] {
        writer.append(100);
        stage.settle();
        stage.kill();
        writer.append(100);
        writer.copytruncate();
        writer.append(lines);
        stage.start();
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn copytruncated_while_down_with_the_copy_inside_the_glob() {
    const NAME: &str = "copytruncated_while_down_with_the_copy_inside_the_glob";
    let mut stage = Stage::new(NAME).follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for lines in [1, 100, 1000] {
        writer.append(100);
        stage.settle();
        stage.stop();
        writer.append(100);
        writer.copytruncate();
        writer.append(lines);
        stage.start();
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn copytruncated_and_compressed_while_down() {
    let mut stage = Stage::new("copytruncated_and_compressed_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.stop();
    writer.append(100);
    writer.copytruncate();
    compress(&writer.rotated(1));
    writer.append(150);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn copytruncated_twice_while_down() {
    let mut stage = Stage::new("copytruncated_twice_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.kill();
    for _ in 0..2 {
        writer.append(100);
        writer.copytruncate();
    }
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn compressed_while_down() {
    let mut stage = Stage::new("compressed_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.kill();
    writer.append(100);
    writer.rotate();
    compress(&writer.rotated(1));
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
    // Its rest is not read again.
    stage.stop();
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn compressed_while_down_with_nothing_left_to_read() {
    let mut stage = Stage::new("compressed_while_down_with_nothing_left_to_read").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.stop();
    writer.rotate();
    compress(&writer.rotated(1));
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn compressed_while_down_in_several_members() {
    let mut stage = Stage::new("compressed_while_down_in_several_members").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.stop();
    let read_bytes = fs::metadata(writer.path()).unwrap().len() as usize;
    writer.append(2000);
    writer.rotate();
    // Cut within what was read, and within a line of what was not; an empty member between.
    let content = fs::read(writer.rotated(1)).unwrap();
    let (one, rest) = content.split_at(read_bytes / 2);
    let (two, three) = rest.split_at(read_bytes + 3);
    let members: Vec<u8> = [one, two, b"", three].into_iter().flat_map(gzip).collect();
    fs::write(stage.scene.path("logs/app.log.1.gz"), members).unwrap();
    fs::remove_file(writer.rotated(1)).unwrap();
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn compressed_while_down_with_an_unfinished_line() {
    let mut stage = Stage::new("compressed_while_down_with_an_unfinished_line").follow("logs/app.log");
    stage.append("logs/app.log", "1\n2, of which the be");
    stage.expect(&["1"]);
    stage.stop();
    stage.append("logs/app.log", "ginning was seen\n3, which never");
    stage.rename("logs/app.log", "logs/app.log.1");
    compress(&stage.scene.path("logs/app.log.1"));
    stage.append("logs/app.log", "4\n");
    stage.start();
    stage.expect_groups(&[&["1", "2, of which the beginning was seen", "3, which never"], &["4"]]);
}

#[test]
fn rotated_twice_and_compressed_late_while_down() {
    let mut stage = Stage::new("rotated_twice_and_compressed_late_while_down").follow("logs/app.log");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    stage.kill();
    for _ in 0..2 {
        writer.append(100);
        writer.rotate();
    }
    // The older one, as with `delaycompress`; the younger one was never seen under its name.
    compress(&writer.rotated(2));
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

#[test]
fn compressed_while_it_is_followed() {
    let mut stage = Stage::new("compressed_while_it_is_followed").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    for _ in 0..3 {
        writer.append(100);
        stage.settle();
        stage.freeze();
        writer.append(100);
        writer.rotate_to(&writer.rotated(1));
        writer.append(100);
        // Read through the handle; `rotate 0` throws away even what is compressed.
        compress(&writer.rotated(1));
        fs::remove_file(stage.scene.path("logs/app.log.1.gz")).unwrap();
        stage.thaw();
        stage.expect_written(&[&writer]);
    }
}

#[test]
fn compressed_file_inside_the_glob_is_not_read_as_lines() {
    let mut stage =
        Stage::new("compressed_file_inside_the_glob_is_not_read_as_lines").follow("logs/app.log*");
    let mut writer = Writer::new(&stage.scene, "app", "logs/app.log");
    writer.append(100);
    stage.settle();
    writer.rotate();
    compress(&writer.rotated(1));
    writer.append(100);
    stage.expect_written(&[&writer]);
    stage.stop();
    writer.append(100);
    stage.start();
    stage.expect_written(&[&writer]);
}

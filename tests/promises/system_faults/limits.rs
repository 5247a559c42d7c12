//! What the system refuses for a while: descriptors, a spool that can be written, a file that can be read. What is not
//! refused goes on, it is said once and not again with every try, and what was refused is taken up by itself.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::*;
use crate::common::{Clock, is_root, wrap};

/// The user that has no rights of its own.
const NOBODY: u32 = 65534;

/// Messages of one kind in a while that is shorter than the pause between summaries, and one for what may be asked
/// twice at the same time.
const SAID_MAX: usize = 2;

/// The warnings and errors that say `what`, where there are more than there should be of one that is about the same.
fn floods(said: &str, what: &str, said_max: usize) -> Vec<String> {
    let mut kinds: HashMap<String, usize> = HashMap::new();
    let lines = said.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    for line in lines.filter(|line| line.contains(what)) {
        // Without the time, and without what counts.
        let text = line.split_once("Z ").map_or(line, |(_, text)| text);
        let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    let many = kinds.into_iter().filter(|(_, count)| *count > said_max);
    many.map(|(kind, count)| format!("{count} times: {kind}")).collect()
}

#[test]
fn messages_that_flood_are_found() {
    let line = |n: usize| format!("2026-01-01T00:00:{n:02}Z  WARN tail: cannot be opened path=/a more={n}\n");
    let lines = |count| (0..count).map(line).collect::<String>();
    assert_eq!(floods(&lines(SAID_MAX), "opened", SAID_MAX), Vec::<String>::new());
    assert_eq!(floods(&lines(SAID_MAX + 1), "opened", SAID_MAX).len(), 1);
}

/// Lets a process have no more descriptors than it has, or as many as before.
fn limit_descriptors(agent: &Agent, enough: bool) {
    let dir = format!("/proc/{}/fd", agent.pid());
    let lowest_free = || -> u64 {
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
        let open: HashSet<u64> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
        (0..).find(|number| !open.contains(number)).unwrap()
    };
    // Several looks, since some are open for a moment only.
    let look = |_| {
        std::thread::sleep(Duration::from_millis(10));
        lowest_free()
    };
    let free = (0..20).map(look).min().unwrap();
    let current = if enough { 1024 } else { free };
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum: Some(4096) }).unwrap();
}

#[test]
fn too_many_open_files_stop_only_what_needs_another() {
    let mut trial = Trial::new("too_many_open_files_stop_only_what_needs_another");
    trial.config().global("segment_bytes", 8 << 20).source("new", "logs/new/*.log").write();
    fs::create_dir(trial.scene.path("logs/new")).unwrap();
    let agent = trial.start_with(|command| {
        let mut limit = Command::new("sh");
        // So that it can be lowered and raised by whoever runs the test.
        limit.args(["-c", "ulimit -S -n 1024; exec \"$0\" \"$@\""]);
        wrap(command, limit);
    });
    trial.append(50);
    await_delivery(&trial.writers(), &trial.collector);

    limit_descriptors(&agent, false);
    let mut new: Vec<Writer> = Vec::new();
    for number in 0..10 {
        new.push(Writer::new(&trial.scene, "new", &format!("logs/new/{number}.log")));
        new.iter_mut().for_each(|writer| writer.append(5));
        trial.append(20);
        // The connection is there, then it is not.
        trial.proxy.next(Fault::Reset);
        // What is open is read on, and gives up its place now and then for what is not.
        let written = trial.written() + new.iter().map(Writer::count).sum::<u64>();
        wait_for(PATIENCE, "all files are read in turns", || trial.spooled() >= written);
    }
    agent.await_said("Too many open files");
    assert_eq!(floods(&agent.said(), "Too many open files", SAID_MAX), Vec::<String>::new());

    limit_descriptors(&agent, true);
    trial.writers.append(&mut new);
    await_delivery(&trial.writers(), &trial.collector);
    assert_eq!(agent.stop(), Some(0));
    let writers = trial.writers();
    assert_delivered_exactly_once(&writers, &trial.collector);
    assert_eq!(trial.wrong(), None);
    assert_all_is_acknowledged(&trial.status(), &writers);
}

#[test]
fn a_spool_that_becomes_read_only_pauses_reading_and_goes_on_when_it_can_be_written() {
    let test = "a_spool_that_becomes_read_only_pauses_reading_and_goes_on_when_it_can_be_written";
    let Some(mut trial) = Trial::on_disk(test, FileSystem::Tmpfs("size=100m")) else { return };
    trial.config().write();
    let agent = trial.start();
    trial.append(50);
    await_delivery(&trial.writers(), &trial.collector);

    // Several segments, which are not needed any more when they cannot be deleted.
    trial.proxy.always(Fault::UNAVAILABLE);
    for _ in 0..4 {
        trial.append(300);
        trial.await_read();
    }
    trial.disk.as_ref().unwrap().forbid_writing(&trial.scene.spool_dir());
    trial.proxy.heal();
    // More than the segment that is open takes.
    trial.append(1000);
    agent.await_said("Read-only file system");
    let spooled = trial.spooled();
    assert!(spooled < trial.written(), "all was written: the test shows nothing");
    // What is in the spool is delivered.
    wait_for(PATIENCE, "delivery of what is in the spool", || trial.collector.stored_count() >= spooled);
    assert_eq!(floods(&agent.said(), "Read-only file system", SAID_MAX), Vec::<String>::new());

    trial.disk.as_ref().unwrap().allow_writing(&trial.scene.spool_dir());
    await_delivery(&trial.writers(), &trial.collector);
    trial.append(50);
    await_delivery(&trial.writers(), &trial.collector);
    let dir = trial.spool().join("segments");
    let segments = || fs::read_dir(&dir).unwrap().count();
    for _ in 0..20 {
        if segments() == 1 {
            break;
        }
        // What could not be deleted is tried again with what comes.
        std::thread::sleep(Duration::from_millis(100));
        trial.append(1);
        await_delivery(&trial.writers(), &trial.collector);
    }
    assert_eq!(segments(), 1, "what is not needed any more was not deleted");
    assert_eq!(agent.stop(), Some(0));
    trial.assert_whole();
}

#[test]
fn an_agent_on_a_read_only_spool_says_so_in_one_line_and_starts_when_it_can_be_written() {
    let test = "an_agent_on_a_read_only_spool_says_so_in_one_line_and_starts_when_it_can_be_written";
    let Some(mut trial) = Trial::on_disk(test, FileSystem::Tmpfs("size=100m")) else { return };
    trial.config().write();
    let agent = trial.start();
    trial.proxy.always(Fault::UNAVAILABLE);
    trial.append(50);
    trial.await_read();
    agent.kill();
    trial.disk.as_ref().unwrap().forbid_writing(&trial.scene.spool_dir());
    let mut agent = trial.start();
    wait_for(PATIENCE, "the agent refuses to start", || !agent.is_running());
    let said = agent.said();
    assert_eq!(agent.wait(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("Read-only file system") && said.contains("disk/spool"), "{said}");
    trial.disk.as_ref().unwrap().allow_writing(&trial.scene.spool_dir());
    trial.proxy.heal();
    trial.append(50);
    trial.recover();
    trial.assert_whole();
}

/// What cannot be read is said once, and now and then while it lasts; a file that is read already is read on.
#[test]
fn a_file_that_cannot_be_read_is_said_once_and_read_when_it_can_be() {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    let test = "a_file_that_cannot_be_read_is_said_once_and_read_when_it_can_be";
    if !is_root() {
        return skip(test, "only root can start the agent as a user without rights");
    }
    let mut trial = Trial::new(test);
    let Some(clock) = Clock::new(&trial.scene) else {
        return skip(test, "no C compiler, so the agent's clock cannot be made to leap");
    };
    let as_nobody = || {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        setpriv
    };
    let binary = log_agent();
    let can_run = as_nobody().arg(binary.get_program()).arg("--version").output();
    if !can_run.is_ok_and(|output| output.status.success()) {
        return skip(test, "setpriv is not there, or another user cannot run the binary");
    }
    // A leap is not to be taken for a request that hangs.
    trial.config().global("timeout_secs", 1_000_000).source("dark", "logs/dark/*.log").write();
    let mut dark = Writer::new(&trial.scene, "dark", "logs/dark/1.log");
    dark.append(20);
    let mode =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(dark.path(), 0o000);
    chown(trial.scene.path("."), Some(NOBODY), Some(NOBODY)).unwrap();
    let agent = trial.start_with(|command| {
        clock.give(command);
        wrap(command, as_nobody());
    });
    for minutes in 0..5 {
        clock.set_ahead(Duration::from_secs(minutes * 600));
        for _ in 0..4 {
            dark.append(5);
            trial.append(20);
            await_delivery(&trial.writers(), &trial.collector);
        }
        // One that is open is not asked for its mode again.
        mode(trial.writers[0].path(), 0o000);
    }
    let said = agent.said();
    assert!(said.contains("Permission denied"), "{said}");
    // At most one in each of the pauses.
    assert_eq!(floods(&said, "Permission denied", 5), Vec::<String>::new(), "{said}");
    assert!(trial.collector.stored().iter().all(|event| event.source != "dark"), "it could be read");
    mode(dark.path(), 0o644);
    trial.writers.push(dark);
    await_delivery(&trial.writers(), &trial.collector);
    assert_eq!(agent.stop(), Some(0));
    let writers = trial.writers();
    assert_delivered_exactly_once(&writers, &trial.collector);
    assert_all_is_acknowledged(&trial.status(), &writers);
}

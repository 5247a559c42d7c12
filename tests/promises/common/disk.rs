//! Disks of a test's own: one whose power can be cut, one that is too small. A file system in a file, or in memory,
//! mounted where only this test sees it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Scene, has_program, is_root, shutdown, wrap};

/// Large enough for the smallest XFS; sparse.
const IMAGE_BYTES: u64 = 400 << 20;

/// What is on a disk. The first two can be shut down like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    /// 16 MiB of the first.
    SmallExt4,
    /// In memory, with options that say how small.
    Tmpfs(&'static str),
}

impl FileSystem {
    fn make(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["mkfs.ext4", "-q", "-F"],
            // Nothing is kept for root, which the agent is here.
            Self::SmallExt4 => &["mkfs.ext4", "-q", "-F", "-m", "0"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f"],
            Self::Tmpfs(_) => &["true"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ext4 | Self::SmallExt4 => "ext4",
            Self::Xfs => "xfs",
            Self::Tmpfs(_) => "tmpfs",
        }
    }

    fn image_bytes(self) -> u64 {
        if self == Self::SmallExt4 { 16 << 20 } else { IMAGE_BYTES }
    }
}

/// A mounted file system in a mount namespace of its own. The namespace lives as long as a process that waits for its
/// standard input to end: when the test ends, however it ends, the mount and its loop device go with it.
#[derive(Debug)]
pub struct Disk {
    keeper: Child,
    image: PathBuf,
    mount: PathBuf,
    kind: FileSystem,
}

impl Disk {
    /// Why there can be no such disk here.
    pub fn impossible(kind: FileSystem) -> Option<String> {
        if !is_root() {
            return Some("only root may mount".into());
        }
        let mut needed = ["unshare", "nsenter", "mount", "umount", kind.make()[0]].into_iter();
        if let Some(missing) = needed.find(|program| !has_program(program)) {
            return Some(format!("{missing} is not installed"));
        }
        if !matches!(kind, FileSystem::Tmpfs(_)) && !Path::new("/dev/loop-control").exists() {
            return Some("there are no loop devices".into());
        }
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let is_known = known.lines().any(|line| line.split_whitespace().next_back() == Some(kind.name()));
        (!is_known).then(|| format!("the kernel does not know {}", kind.name()))
    }

    /// Makes one, mounted at `disk` in the scene for those that run in it; an error where the machine does not let us.
    pub fn mount(scene: &Scene, kind: FileSystem) -> Result<Self, String> {
        let (image, mount) = (scene.path("image"), scene.path("disk"));
        File::create(&image).unwrap().set_len(kind.image_bytes()).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let mut make = Command::new(kind.make()[0]);
        run(make.args(&kind.make()[1..]).arg(&image))?;
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut ready = [0; 6];
        let begun = keeper.stdout.as_mut().unwrap().read_exact(&mut ready);
        let disk = Self { keeper, image, mount, kind };
        begun.map_err(|_| "a mount namespace is not allowed".to_owned())?;
        disk.attach()?;
        Ok(disk)
    }

    /// Lets `command` run where the disk is seen.
    pub fn inside(&self, command: &mut Command) {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id()));
        // Entering a namespace leads to its root.
        if let Some(dir) = command.get_current_dir() {
            inside.arg(format!("--wdns={}", dir.display()));
        }
        inside.arg("--");
        wrap(command, inside);
    }

    /// Everything that was not synced is gone; what is written from now on fails.
    pub fn cut_power(&self) {
        // What the keeper sees at the path, also from outside its namespace.
        let seen = format!("/proc/{}/root{}", self.keeper.id(), self.mount.display());
        shutdown::shut_down(File::open(seen).unwrap()).unwrap();
    }

    /// Mounts what is left after a cut. Nobody may use the disk any more.
    pub fn come_back(&self) {
        self.run(Command::new("umount").arg(&self.mount)).unwrap();
        self.attach().unwrap();
    }

    pub fn kind(&self) -> FileSystem {
        self.kind
    }

    /// The path by which the test itself sees what is at `path` for those that run in it.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// Lets nothing be written any more by way of the directory at `path`; what is open stays open.
    pub fn forbid_writing(&self, path: &Path) {
        self.run(Command::new("mount").arg("--bind").arg(path).arg(path)).unwrap();
        self.run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(path)).unwrap();
    }

    /// Ends [`Disk::forbid_writing`].
    pub fn allow_writing(&self, path: &Path) {
        self.run(Command::new("umount").arg("--lazy").arg(path)).unwrap();
    }

    /// Shows `file` in place of `path` to what runs inside.
    pub fn show_instead(&self, file: &Path, path: &str) {
        self.run(Command::new("mount").arg("--bind").arg(file).arg(path)).unwrap();
    }

    fn attach(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", self.kind.name()]);
        match self.kind {
            FileSystem::Tmpfs(options) => mount.args(["-o", options, "tmpfs"]),
            _ => mount.args(["-o", "loop"]).arg(&self.image),
        };
        mount.arg(&self.mount);
        self.run(&mut mount)
    }

    fn run(&self, command: &mut Command) -> Result<(), String> {
        self.inside(command);
        run(command)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where something still uses it, it goes with the last who does.
        let _ = self.run(Command::new("umount").arg("--lazy").arg(&self.mount));
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

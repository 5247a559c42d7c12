//! Something that writes a log file, and knows what it wrote.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::Scene;

/// Appends numbered lines, `<writer> <number, 8 digits> <payload>`, to a file of a source. The payload's length and
/// kind follow from the scene's seed.
#[derive(Debug)]
pub struct Writer {
    name: String,
    source: String,
    path: PathBuf,
    file: File,
    lines: Vec<String>,
    /// A line whose end is not written yet, and how much of it is.
    partial: Option<(String, usize)>,
    rotations: u32,
    rng: SmallRng,
}

impl Writer {
    /// A writer to `path` in the scene, which `source` follows. Its name is made of both.
    pub fn new(scene: &Scene, source: &str, path: &str) -> Self {
        let name = format!("{source}:{}", path.replace([' ', '/'], "."));
        let path = scene.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let rng = scene.rng(&name);
        let file = append_to(&path);
        let source = source.to_owned();
        Self { name, source, path, file, lines: Vec::new(), partial: None, rotations: 0, rng }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every line that is complete in its file, in order.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Appends `count` lines in one write.
    pub fn append(&mut self, count: usize) {
        let mut text = String::new();
        for _ in 0..count {
            let payload = self.payload();
            text.push_str(&self.push(payload));
            text.push('\n');
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Appends one line with this payload, as in a line that a server is to refuse.
    pub fn append_line(&mut self, payload: &str) {
        let line = self.push(payload.to_owned());
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Appends the beginning of a line; the next call of [`Writer::finish_line`] appends the rest.
    pub fn append_partial(&mut self) {
        assert!(self.partial.is_none(), "a partial line is there already");
        let payload = self.payload();
        let line = format!("{} {:08} {payload}", self.name, self.lines.len());
        let cut = self.rng.random_range(1..line.len());
        self.file.write_all(&line.as_bytes()[..cut]).unwrap();
        self.partial = Some((line, cut));
    }

    /// Appends the rest of the partial line, whose bytes may have been cut within a character.
    pub fn finish_line(&mut self) {
        let (line, cut) = self.partial.take().expect("no partial line");
        self.file.write_all(&line.as_bytes()[cut..]).unwrap();
        self.file.write_all(b"\n").unwrap();
        self.lines.push(line);
    }

    /// Renames the file to `<path>.1`, those before it one number up, and begins a new one.
    pub fn rotate(&mut self) {
        self.make_room();
        fs::rename(&self.path, self.rotated(1)).unwrap();
        self.file = append_to(&self.path);
    }

    /// Renames the file to `to`, whose directory is made if need be, and begins a new one.
    pub fn rotate_to(&mut self, to: &Path) {
        self.move_to(to);
        self.file = append_to(&self.path);
    }

    /// Renames the file to `to` and goes on writing to it.
    pub fn move_to(&mut self, to: &Path) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(&self.path, to).unwrap();
    }

    /// Begins a file at the path again, which something else has moved away.
    pub fn reopen(&mut self) {
        self.file = append_to(&self.path);
    }

    /// Copies the file to `<path>.1`, those before it one number up, and truncates it.
    pub fn copytruncate(&mut self) {
        self.make_room();
        fs::copy(&self.path, self.rotated(1)).unwrap();
        self.file.set_len(0).unwrap();
    }

    /// Deletes all rotated files.
    pub fn remove_rotated(&mut self) {
        (1..=self.rotations).for_each(|number| fs::remove_file(self.rotated(number)).unwrap());
        self.rotations = 0;
    }

    /// The path of a rotated file; 1 is the youngest.
    pub fn rotated(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn make_room(&mut self) {
        assert!(self.partial.is_none(), "a rotation would finish the partial line");
        for number in (1..=self.rotations).rev() {
            fs::rename(self.rotated(number), self.rotated(number + 1)).unwrap();
        }
        self.rotations += 1;
    }

    fn push(&mut self, payload: String) -> String {
        assert!(self.partial.is_none(), "finish the partial line first");
        let line = format!("{} {:08} {payload}", self.name, self.lines.len());
        self.lines.push(line.clone());
        line
    }

    fn payload(&mut self) -> String {
        let (alphabet, len): (&[&str], usize) = match self.rng.random_range(0..20) {
            0 => (&["-"], 0),
            1 => (&["long ", "0123456789"], self.rng.random_range(100..400)),
            2 => (&["\"", "\\", "\t", "\u{1}", "{", "'", "/"], self.rng.random_range(1..40)),
            3 => (&["é", "日本", "\u{1f600}", "ß", "\u{2028}", "\u{fffd}"], self.rng.random_range(1..30)),
            _ => (&["GET ", "/index ", "200 ", "error ", "user=", "a1b2c3 "], self.rng.random_range(4..24)),
        };
        (0..len).map(|_| alphabet[self.rng.random_range(0..alphabet.len())]).collect()
    }
}

fn append_to(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

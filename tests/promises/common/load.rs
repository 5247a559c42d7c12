//! Writing that goes on by itself while a test breaks things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::{Scene, Writer};

/// How a load writes.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Most lines in one write; there is at least one.
    pub lines_max: usize,
    /// The longest pause between two writes.
    pub pause_max: Duration,
    /// No more lines than this are written; a test of many rounds stays bounded on a slow machine.
    pub lines_in_all: u64,
}

impl Rhythm {
    /// About a thousand lines a second.
    pub const BRISK: Self =
        Self { lines_max: 24, pause_max: Duration::from_millis(25), lines_in_all: u64::MAX };
    /// About two hundred lines a second, in as many writes as [`Rhythm::BRISK`] makes: for runs of many rounds, whose
    /// lines are all read back.
    pub const STEADY: Self =
        Self { lines_max: 5, pause_max: Duration::from_millis(25), lines_in_all: u64::MAX };
    /// A line now and then.
    pub const SLOW: Self =
        Self { lines_max: 2, pause_max: Duration::from_millis(120), lines_in_all: u64::MAX };

    /// The same, with an end.
    pub const fn up_to(self, lines_in_all: u64) -> Self {
        Self { lines_in_all, ..self }
    }
}

/// A writer at work on a thread of its own.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Writer>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Rotations that were asked for and not done yet.
    rotations: AtomicU64,
    written: AtomicU64,
    /// Lines are written without a pause.
    hurry: AtomicBool,
}

impl Load {
    /// Lets `writer` write until [`Load::stop`]: whole lines, several at a time, and now and then a line in two pieces.
    pub fn start(scene: &Scene, writer: Writer, rhythm: Rhythm) -> Self {
        let shared = Arc::new(Shared::default());
        let rng = scene.rng(&format!("load of {}", writer.name()));
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || write(writer, rhythm, rng, &shared)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Rotates by rename and create between two of the next writes.
    pub fn rotate(&self) {
        self.shared.rotations.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes as fast as it can, or in its rhythm again.
    pub fn hurry(&self, hurry: bool) {
        self.shared.hurry.store(hurry, Ordering::SeqCst);
    }

    /// How many lines are complete.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Ends after the write it is at, every line complete.
    pub fn stop(mut self) -> Writer {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut writer: Writer, rhythm: Rhythm, mut rng: SmallRng, shared: &Shared) -> Writer {
    let mut pause = {
        let mut rng = SmallRng::clone(&rng);
        move || std::thread::sleep(rhythm.pause_max.mul_f64(rng.random()))
    };
    while !shared.stop.load(Ordering::SeqCst) {
        let hurry = shared.hurry.load(Ordering::SeqCst);
        if shared.rotations.load(Ordering::SeqCst) > 0 {
            shared.rotations.fetch_sub(1, Ordering::SeqCst);
            writer.rotate();
        }
        if writer.count() < rhythm.lines_in_all {
            if rng.random_ratio(1, 16) {
                writer.append_partial();
                pause();
                writer.finish_line();
            } else {
                writer.append(rng.random_range(1..=rhythm.lines_max));
            }
        }
        shared.written.store(writer.count(), Ordering::SeqCst);
        if !hurry {
            pause();
        }
    }
    writer
}

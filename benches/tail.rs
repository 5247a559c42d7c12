//! How fast the tailer turns a file's bytes into frames: lines of 200 bytes, into a sink that recycles its buffers.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that meets the unexpected should stop there")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use log_agent::config::{SourceConfig, StartAt};
use log_agent::event::{FrameDraft, FrameSink, SinkClosed, SourceName};
use log_agent::tail::{TailOptions, Tailer};

/// Takes drafts until it has seen so many events, and keeps one buffer going round.
struct Recycler {
    events_left: u64,
    spare: Vec<u8>,
}

impl FrameSink for Recycler {
    fn append(&mut self, draft: FrameDraft) -> Result<(), SinkClosed> {
        self.events_left = self.events_left.saturating_sub(u64::from(draft.events.count()));
        self.spare = black_box(draft.events).into_buffer();
        if self.events_left == 0 { Err(SinkClosed) } else { Ok(()) }
    }

    fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }
}

fn read_to_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tail");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for (lines, files) in [(1_000_000_u64, 1_u64), (1_000_000, 100)] {
        let dir = tempfile::tempdir().unwrap();
        let content = format!("{}\n", "x".repeat(199)).repeat(usize::try_from(lines / files).unwrap());
        for file in 0..files {
            std::fs::write(dir.path().join(format!("{file}.log")), &content).unwrap();
        }
        let source = SourceConfig {
            name: SourceName::from("bench"),
            log_path: format!("{}/*.log", dir.path().display()),
            delay: Duration::from_millis(500),
            start_at: StartAt::Beginning,
            exclude: Vec::new(),
            ignore_older: None,
            labels: log_agent::config::Labels::new(),
            lines: log_agent::config::LineRules::default(),
        };
        group.throughput(Throughput::Bytes(lines * 200));
        group.bench_with_input(BenchmarkId::new("files", files), &source, |bencher, source| {
            let mut spare = Vec::new();
            bencher.iter(|| {
                let tailer =
                    Tailer::new(std::slice::from_ref(source), Vec::new(), &TailOptions::default()).unwrap();
                let mut sink = Recycler { events_left: lines, spare: std::mem::take(&mut spare) };
                tailer.run(&mut sink).unwrap();
                assert_eq!(sink.events_left, 0);
                spare = sink.spare;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read_to_frames);
criterion_main!(benches);

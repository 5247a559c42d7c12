//! How fast a batch becomes a request body: bytes of log text a second, by the kind of line.
#![allow(missing_docs, reason = "criterion generates the entry points")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use log_agent::batch::{BatchContent, FrameSlice};
use log_agent::event::{EventBlock, Seq, SourceName, Timestamp};
use log_agent::payload::JsonEncoder;

/// Lines in a batch.
const LINES: u32 = 5_000;
/// Bytes in a line.
const LINE_BYTES: usize = 200;

fn batch_of(pattern: &[u8]) -> BatchContent {
    let line: Vec<u8> = pattern.iter().copied().cycle().take(LINE_BYTES).collect();
    let mut block = EventBlock::default();
    for _ in 0..LINES {
        block.push(&line, false);
    }
    let payload = Arc::new(block.into_buffer());
    let slice = FrameSlice {
        range: 0..payload.len(),
        payload,
        detected: Timestamp::from_millis(0),
        path: Path::new("/app.log").into(),
    };
    let mut content = BatchContent::default();
    content.push(&SourceName::from("app1"), Seq(1), LINES, slice);
    content
}

fn encode(criterion: &mut Criterion) {
    let kinds: [(&str, &[u8]); 5] = [
        ("plain", b"2024-01-15 10:30:00 INFO request served in 12 ms, "),
        ("quotes", br#"{"level":"info","msg":"request served","took":12} "#),
        ("one-tab-per-line", &{
            let mut line = [b'x'; LINE_BYTES];
            line[100] = b'\t';
            line
        }),
        ("utf8", "Anfrage für Jürgen dauerte 12 µs; größer als üblich. ".as_bytes()),
        ("latin1", b"Anfrage f\xFCr J\xFCrgen dauerte zu lange, siehe Protokoll. "),
    ];
    let encoder = JsonEncoder::new("agent1");
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(u64::from(LINES) * LINE_BYTES as u64));
    for (kind, pattern) in kinds {
        let content = batch_of(pattern);
        let mut body = Vec::new();
        group.bench_function(kind, |bencher| {
            bencher.iter(|| {
                body.clear();
                encoder.encode(black_box(&content), &mut body);
                black_box(body.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);

//! Content coding of request bodies.
//!
//! The coder, its level and its settings are fixed, so that a body that is sent again is coded to the same bytes.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::GzEncoder;

use crate::config::Compression;

/// The fastest level that still finds repetition, which log lines are full of.
const ZSTD_LEVEL: i32 = 1;
/// Up to this size, in bytes, coding takes less time than handing the body to another thread and back.
const INLINE_BYTES_MAX: usize = 8 * 1024;

type Coder = fn(&[u8]) -> io::Result<Vec<u8>>;

/// Codes `body` and names the coding; `None` where the body is as it was.
pub(super) async fn encode(compression: Compression, body: Bytes) -> (Bytes, Option<&'static str>) {
    let (code, name): (Coder, _) = match compression {
        Compression::None => return (body, None),
        Compression::Gzip => (gzip, "gzip"),
        Compression::Zstd => (zstd, "zstd"),
    };
    let coded = if body.len() <= INLINE_BYTES_MAX {
        code(&body)
    } else {
        let body = body.clone();
        tokio::task::spawn_blocking(move || code(&body)).await.unwrap_or_else(|error| Err(error.into()))
    };
    match coded {
        Ok(coded) => (Bytes::from(coded), Some(name)),
        // Only memory can run out here; the body is right without a coding, too.
        Err(_) => (body, None),
    }
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 4 + 64);
    let mut encoder = GzEncoder::new(room, flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn zstd(body: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(body, ZSTD_LEVEL)
}

//! The decoders of log files as functions of bytes.

use std::time::Duration;

use super::assemble::{Assembler, End, Input};
use super::content::{Archive, Content as _};
use crate::config::{LineFormat, LineRules, Multiline, MultilinePattern, MultilinePreset};
use crate::event::{EventBlock, EventIter};

/// Lines without anything around them.
pub(crate) fn lines(bytes: &[u8]) {
    assemble(LineFormat::Plain, bytes);
}

/// Lines as the container runtime interface writes them.
pub(crate) fn cri(bytes: &[u8]) {
    assemble(LineFormat::Cri, bytes);
}

/// Lines as Docker's `json-file` driver writes them.
pub(crate) fn docker_json(bytes: &[u8]) {
    assemble(LineFormat::DockerJson, bytes);
}

/// The first three bytes say by which rules the others become events, and in which pieces they come.
fn assemble(format: LineFormat, bytes: &[u8]) {
    let Some(([kind, limits, piece], data)) = bytes.split_first_chunk::<3>() else { return };
    let encoding = match kind % 4 {
        0 => encoding_rs::UTF_16LE,
        1 => encoding_rs::UTF_16BE,
        2 => encoding_rs::SHIFT_JIS,
        _ => encoding_rs::UTF_8,
    };
    let preset = match kind / 4 % 5 {
        0 => None,
        1 => Some(MultilinePreset::Java),
        2 => Some(MultilinePreset::Python),
        3 => Some(MultilinePreset::Go),
        _ => Some(MultilinePreset::Ruby),
    };
    let rules = LineRules {
        max_line_bytes: 16 + usize::from(limits % 64),
        encoding,
        format,
        multiline: preset.map(|preset| Multiline {
            pattern: MultilinePattern::Preset(preset),
            max_lines: 2 + usize::from(limits / 64),
            max_bytes: 64,
            timeout: Duration::from_secs(1),
        }),
        ..LineRules::default()
    };
    let assembler = Assembler::new(&rules);
    let (mut at, mut seen) = (0_usize, 0_usize);
    while at < data.len() {
        seen = seen.saturating_add(usize::from(*piece) + 1).min(data.len());
        let end = if seen == data.len() { End::Finished } else { End::Open };
        let before = data.get(at.saturating_sub(1024)..at).unwrap_or_default();
        let mut block = EventBlock::default();
        let piece = data.get(at..seen).unwrap_or_default();
        let cut = assembler.cut(Input { data: piece, before, end }, &mut block);
        assert!(cut.used <= piece.len());
        assert!(cut.used > 0 || block.count() == 0, "events of no bytes");
        assert!(cut.used > 0 || piece.len() <= assembler.hold_max(), "{} bytes are held", piece.len());
        assert_eq!(EventIter::new(block.bytes()).count(), block.count() as usize);
        assert!(end != End::Finished || cut.used == piece.len(), "a finished file has a rest");
        at += cut.used;
    }
}

/// A gzip archive, read in pieces, and once more from its beginning.
pub(crate) fn gzip(bytes: &[u8]) {
    const READ_MAX: u64 = 1 << 20;
    let Some(file) = crate::fuzzing::file_of(bytes) else { return };
    let mut archive = Archive::new(file.into());
    let mut piece = [0; 4096];
    let mut at = 0;
    while at < READ_MAX {
        match archive.read_at(&mut piece, at) {
            Ok(0) | Err(_) => break,
            Ok(read) => at += read as u64,
        }
    }
    let mut again = [0; 16];
    let first = archive.read_at(&mut again, 0).unwrap_or(0);
    assert!(at == 0 || first as u64 == at.min(16), "{first} of {at} bytes are read the second time");
}

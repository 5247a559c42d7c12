//! The whole of it: every configuration, whatever comes and however it is cut into reads.

use std::time::Duration;

use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;
use crate::config::{Multiline, MultilinePattern, MultilinePreset, Redact};
use crate::event::{Skipped, Timestamp};

/// An event: its text, whether it goes on, its own time.
type Event = (Vec<u8>, bool, Option<Timestamp>);

/// A file that is read bit by bit.
struct Reader<'a> {
    assembler: &'a Assembler,
    file: Vec<u8>,
    offset: usize,
    events: Vec<Event>,
    skips: Skips,
}

impl<'a> Reader<'a> {
    fn new(assembler: &'a Assembler) -> Self {
        Self { assembler, file: Vec::new(), offset: 0, events: Vec::new(), skips: Skips::default() }
    }

    fn append(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.file.extend_from_slice(bytes.as_ref());
        self
    }

    /// Cuts once from where the last cut stopped, and checks what holds for every cut.
    fn cut(&mut self, end: End) -> Waits {
        let (before, data) = self.file.split_at(self.offset);
        let before = &before[before.len().saturating_sub(1024)..];
        let mut block = EventBlock::default();
        block.push(b"there before", false);
        let Cut { used, skips, waits } = self.assembler.cut(Input { data, before, end }, &mut block);
        let events: Vec<Event> =
            block.events().map(|event| (event.line.to_vec(), event.continues, event.time)).collect();
        assert_eq!(events.len(), block.count() as usize);
        assert_eq!(events[0].0, b"there before", "what was in the block stays");
        assert!(used <= data.len() && skips.bytes() <= used as u64);
        assert!(used > 0 || events.len() == 1, "an event without bytes of the file");
        assert_eq!(waits == Waits::Nothing, used == data.len());
        assert!(used > 0 || data.len() <= self.assembler.hold_max(), "{} bytes are held", data.len());
        assert!(end != End::Finished || used == data.len(), "a finished file has nothing left");
        self.offset += used;
        self.events.extend(events.into_iter().skip(1));
        self.skips.merge(&skips);
        waits
    }

    fn texts(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|(text, continues, _)| {
                format!("{}{}", String::from_utf8_lossy(text), if *continues { "+" } else { "" })
            })
            .collect()
    }

    /// What came out since this was last asked.
    fn taken(&mut self) -> Vec<String> {
        let texts = self.texts();
        self.events.clear();
        texts
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

fn multiline(pattern: MultilinePattern) -> Multiline {
    Multiline { pattern, max_lines: 1_000, max_bytes: 1 << 20, timeout: Duration::from_secs(1) }
}

fn joining(pattern: MultilinePattern) -> Assembler {
    Assembler::new(&LineRules { multiline: Some(multiline(pattern)), ..LineRules::default() })
}

fn preset(preset: MultilinePreset) -> Assembler {
    joining(MultilinePattern::Preset(preset))
}

/// All events of a finished file.
fn events_of(assembler: &Assembler, file: impl AsRef<[u8]>) -> Vec<String> {
    let mut reader = Reader::new(assembler);
    reader.append(file).cut(End::Finished);
    reader.texts()
}

mod properties;
mod stages;

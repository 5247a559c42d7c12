//! Burials that a crash cut short: a dead letter is durable before its batch leaves the ledger, so after a crash there
//! may be one whose batch is still outstanding. The server has refused that event for good: recovery finishes what was
//! begun.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::content;
use super::dead_letter::{self, DeadLetter};
use super::keeper::COMMANDS_MAX;
use super::ledger::{BatchRecord, Books};
use super::log::Log;
use super::reader::FrameReader;
use crate::event::Position;

/// Takes those batches out of `books` and counts their events as dead.
///
/// Only what one commit of the ledger can have held is looked at, and only where there is a batch that it could be.
pub(super) fn finish(log: &Arc<Log>, books: &mut Books) -> io::Result<()> {
    let single: Vec<_> = books.batches().filter(|record| record.id.events() == 1).copied().collect();
    if single.is_empty() {
        return Ok(());
    }
    let letters = dead_letter::take_newest(&log.disk, COMMANDS_MAX)?;
    for record in single {
        let Some(letter) = letter_of(log, &letters, &record)? else { continue };
        for group in books.groups.values_mut() {
            group.batches.retain(|other| other.id != record.id);
        }
        books.sources.entry(letter.source.clone()).or_default().account.dead += 1;
        tracing::info!(batch = %record.id, source = %letter.source, "an event that was refused is a dead letter");
    }
    books.groups.retain(|_, group| !group.batches.is_empty());
    Ok(())
}

/// The letter that was written for a batch of one event.
fn letter_of<'a>(
    log: &Arc<Log>,
    letters: &'a BTreeMap<Position, DeadLetter>,
    record: &BatchRecord,
) -> io::Result<Option<&'a DeadLetter>> {
    let batch = record.id;
    let mut near = letters.range(batch.first..=batch.last).map(|(_, letter)| letter).peekable();
    if near.peek().is_none() {
        return Ok(None);
    }
    let mut reader = FrameReader::new(log.clone(), batch.first, Some(record.at), false);
    let run = content::read_run(&mut reader, batch.first, batch.last)?;
    if !run.is_whole() {
        return Ok(None);
    }
    let content = match batch.part {
        Some(part) => run.content.part(part.from, part.to),
        None => run.content,
    };
    let Some(run) = content.sources.first() else { return Ok(None) };
    let line = run.slices.first().and_then(|slice| slice.events().next().map(|event| event.line));
    Ok(near.find(|letter| {
        letter.source == run.source && letter.seq == run.first_seq && Some(letter.line.as_slice()) == line
    }))
}

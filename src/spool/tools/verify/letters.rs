//! Dead letters: their frames, and whether the ledger knows of them.

use std::collections::BTreeMap;
use std::io;

use super::super::ToolError;
use super::super::list::is_outstanding;
use super::super::look::Look;
use super::super::walk::{Damaged, Directory};
use super::{Checked, Finding, Kind};
use crate::event::{Position, SourceName};
use crate::spool::dead_letter;
use crate::spool::disk::Disk;
use crate::spool::reader::{Place, places};
use crate::spool::segment;
use crate::spool::survey::io_error;

/// Checks every file of dead letters.
pub(super) fn check(look: &Look, checked: &mut Checked) -> Result<(), ToolError> {
    let letters = frames(look, checked).map_err(io_error(&look.disk.dead_letters()))?;
    checked.read.dead_letters = letters.len() as u64;
    let Some(books) = look.books() else { return Ok(()) };
    let mut counts: BTreeMap<&SourceName, u64> = BTreeMap::new();
    // One whose batch is outstanding was written just before the end, and is not counted yet.
    for (_, source) in letters.iter().filter(|(at, _)| !is_outstanding(books, **at, at.plus(1))) {
        *counts.entry(source).or_default() += 1;
    }
    for (source, letters) in counts {
        let known = books.sources.get(source).map_or(0, |record| record.account.dead);
        if letters > known {
            let what = format!("{source} has {letters} dead letters, of which the ledger counts {known}");
            let repair = "sets the ledger aside in quarantine/ and rebuilds it from the segments";
            checked.push(Kind::Accounts, what, "some of them count as something else", repair);
        }
    }
    Ok(())
}

/// The intact letters, by position.
fn frames(look: &Look, checked: &mut Checked) -> io::Result<BTreeMap<Position, SourceName>> {
    let mut letters = BTreeMap::new();
    let files = dead_letter::files(&look.disk)?;
    for id in &files {
        let file = Disk::open(&look.disk.dead_letters().join(segment::file_name(*id)))?;
        let len = file.metadata()?.len();
        places(&file, *id, 0, len, |from, to, place| {
            let header = match place {
                Place::Frame(header, payload) => match dead_letter::decode(header, payload) {
                    Some(letter) => {
                        letters.entry(letter.position).or_insert(letter.source);
                        return Ok::<_, io::Error>(());
                    }
                    None => Some(header),
                },
                Place::Damage(header) => header,
            };
            // What an agent is just writing.
            if look.agent.is_some() && Some(id) == files.last() && to == len {
                return Ok(());
            }
            let damaged = Damaged { directory: Directory::DeadLetters, segment: *id, from, to };
            if look.disk.has_quarantined(&damaged.quarantine_name()) {
                checked.read.dealt_with += 1;
                return Ok(());
            }
            checked.damaged.push(damaged);
            checked.findings.push(Finding {
                kind: Kind::DeadLetter,
                segment: Some(id.0),
                bytes: Some([from, to]),
                positions: header.map(|header| [header.first_position.0; 2]),
                what: "no dead letter can be read there".to_owned(),
                means: "what the server refused, and why, is not known any more",
                repair: "keeps the bytes in quarantine/",
            });
            Ok(())
        })?;
    }
    Ok(letters)
}

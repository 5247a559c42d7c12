//! The ledger: against itself, against the segments, and its accounts.

use super::super::look::{Look, Seen};
use super::{Checked, Kind};
use crate::event::Position;
use crate::spool::disk::Disk;
use crate::spool::inspect::Report;
use crate::spool::ledger::Books;
use crate::spool::reader;

const REBUILDS: &str = "sets it aside in quarantine/ and rebuilds it from the segments";
const RESENDS: &str = "nothing is lost, what was acknowledged since the newest segment began is sent again";

/// Checks what can be seen of the ledger.
pub(super) fn check(look: &Look, checked: &mut Checked) {
    match &look.ledger {
        Seen::Held => {}
        // A spool that never held anything.
        Seen::Missing if look.survey.is_empty() => {}
        Seen::Missing => {
            checked.push(Kind::Ledger, "it is missing", RESENDS, "rebuilds it from the segments");
        }
        Seen::Broken(why) => checked.push(Kind::Ledger, why.clone(), RESENDS, REBUILDS),
        Seen::Books(books) if !look.survey.is_empty() && !look.survey.has(books.meta.lineage) => {
            checked.push(Kind::Ledger, "it belongs to another spool", RESENDS, REBUILDS);
        }
        Seen::Books(books) => check_books(look, books, checked),
    }
}

fn check_books(look: &Look, books: &Books, checked: &mut Checked) {
    let frontier = newest_frontier(look);
    if frontier.is_some_and(|frontier| frontier > books.frontier()) {
        checked.push(Kind::Ledger, "it is older than the segments", RESENDS, REBUILDS);
        return;
    }
    let reach = books.cursor.max(books.mark.position);
    if reach > look.end {
        let what = format!("it knows events up to {}, the segments end before {}", reach.0 - 1, look.end);
        let means = "what is gone is read again from the files where they have it, or is lost";
        checked.push(Kind::Ledger, what, means, "goes on numbering behind what the ledger knows");
    }
    let mut wholes: Vec<(Position, Position)> =
        books.batches().map(|record| (record.id.first, record.id.last)).collect();
    wholes.sort_unstable();
    wholes.dedup();
    let overlaps = wholes.windows(2).any(|pair| matches!(pair, [one, other] if one.1 >= other.0));
    let uncut = wholes.iter().any(|(_, last)| *last >= books.cursor);
    if overlaps || uncut {
        let what = "its batches overlap each other, or what is not cut yet";
        checked.push(Kind::Accounts, what, "events would be delivered twice", REBUILDS);
    }
}

/// Every event before this was settled when the newest snapshot was written.
fn newest_frontier(look: &Look) -> Option<Position> {
    look.log.segments().iter().rev().find_map(|(id, extent)| {
        let file = Disk::open(&look.disk.segment(*id)).ok()?;
        reader::snapshot(&file, *id, extent.len).ok()?.map(|snapshot| snapshot.frontier)
    })
}

/// Whether every event and every byte is accounted for.
pub(super) fn check_accounts(report: &Report, checked: &mut Checked) {
    if report.balanced {
        return;
    }
    for source in &report.sources {
        if !source.balanced {
            let what = format!(
                "of {} events of {} that were spooled, {} acknowledged + {} pending + {} dead + {} dropped + {} \
                 damaged are known",
                source.spooled,
                source.source,
                source.acknowledged,
                source.pending,
                source.dead,
                source.dropped,
                source.damaged
            );
            checked.push(Kind::Accounts, what, "the ledger does not fit the segments", REBUILDS);
        }
        if !source.bytes.balanced {
            let what = format!("the bytes of {} do not add up to what was read", source.source);
            checked.push(Kind::Accounts, what, "no event is concerned", "cannot mend it");
        }
    }
    for file in report.checkpoints.iter().filter(|file| !file.balanced) {
        let what = format!("the bytes of {} of {} do not add up to its offset", file.path, file.source);
        checked.push(Kind::Accounts, what, "no event is concerned", "cannot mend it");
    }
}

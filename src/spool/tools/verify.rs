//! Reading everything, and saying what is wrong.
//!
//! Invariants:
//! - Damage is found by the rules by which an agent steps over it, so what is found here is what delivery would meet.
//! - Damage that was dealt with is no finding: its bytes are in `quarantine/`, and its events are settled.

mod books;
mod letters;
mod segments;

use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::look::Look;
use super::walk::Damaged;
use super::{Progress, ToolError};
use crate::event::Position;
use crate::spool::SpoolError;
use crate::spool::beside::{self, Agent};
use crate::spool::disk::{self, Disk};
use crate::spool::inspect;
use crate::spool::segment;
use crate::spool::survey::Change;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub kind: Kind,
    /// The number of the segment, or of the file of dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<u64>,
    /// The bytes concerned: where they begin, and the byte after them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<[u64; 2]>,
    /// The positions concerned, both included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<[u64; 2]>,
    /// What is wrong.
    pub what: String,
    /// What that means.
    pub means: &'static str,
    /// What `repair` does about it.
    pub repair: &'static str,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A segment's header.
    SegmentHeader,
    /// A segment that is not one of this spool, or cannot be told to be.
    ForeignSegment,
    /// What a segment says of the state at its beginning.
    Snapshot,
    /// A frame's header, or bytes that are no frame.
    FrameHeader,
    /// A frame's payload.
    FramePayload,
    /// An intact frame that does not hold what its header says.
    Content,
    /// Positions that no frame has.
    MissingPositions,
    /// Sequence numbers that do not follow each other.
    Numbers,
    /// What a crash left of the last write.
    TornEnd,
    /// The ledger as a whole.
    Ledger,
    /// Accounts that do not balance.
    Accounts,
    /// A dead letter.
    DeadLetter,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::SegmentHeader => "segment header",
            Self::ForeignSegment => "foreign segment",
            Self::Snapshot => "snapshot",
            Self::FrameHeader => "frame header",
            Self::FramePayload => "frame payload",
            Self::Content => "content",
            Self::MissingPositions => "missing positions",
            Self::Numbers => "numbers",
            Self::TornEnd => "torn end",
            Self::Ledger => "ledger",
            Self::Accounts => "accounts",
            Self::DeadLetter => "dead letter",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.name())?;
        if let Some(segment) = self.segment {
            let file = if self.kind == Kind::DeadLetter { "file" } else { "segment" };
            write!(f, ", {file} {segment}")?;
        }
        if let Some([from, to]) = self.bytes {
            write!(f, ", bytes {from} to {to}")?;
        }
        if let Some([first, last]) = self.positions {
            write!(f, ", positions {first}-{last}")?;
        }
        write!(f, ": {}; {}. Repair {}.", self.what, self.means, self.repair)
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub segments: u64,
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    pub dead_letters: u64,
    /// Damaged places that were dealt with before.
    pub dealt_with: u64,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// The agent that runs on the spool: its ledger, its accounts and what it is just writing were not looked at.
    pub agent: Option<Agent>,
    pub read: Tally,
    pub findings: Vec<Finding>,
}

/// The same, with what a repair needs of it.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub read: Tally,
    pub findings: Vec<Finding>,
    /// Damaged bytes that are not kept yet.
    pub damaged: Vec<Damaged>,
    /// Positions, the second one excluded, whose events cannot be read and may not be settled.
    pub lost: Vec<(Position, Position)>,
}

/// Reads all of the spool in `dir`.
///
/// # Errors
/// Where there is no spool, or it was written by a newer version, or cannot be read.
pub(crate) fn verify(dir: &Path, progress: Progress<'_>) -> Result<Verified, ToolError> {
    loop {
        let look = Look::at(dir)?;
        let checked = check(&look, progress);
        // What an agent that started meanwhile has changed under this look makes it worthless.
        if look.agent.is_none() && beside::holder(&look.disk)?.is_some() {
            continue;
        }
        let Checked { read, findings, .. } = checked?;
        return Ok(Verified { agent: look.agent, read, findings });
    }
}

/// Checks all that can be seen.
pub(super) fn check(look: &Look, progress: Progress<'_>) -> Result<Checked, ToolError> {
    let mut checked = Checked::default();
    checked.changes(look);
    segments::check(look, &mut checked, progress)?;
    if look.agent.is_none() {
        checked.torn_end(look).map_err(|source| unreadable(look, source))?;
        books::check(look, &mut checked);
        check_accounts(look, &mut checked)?;
    }
    letters::check(look, &mut checked)?;
    Ok(checked)
}

/// Checks whether the accounts of a spool that nobody has open balance.
fn check_accounts(look: &Look, checked: &mut Checked) -> Result<(), SpoolError> {
    let silence = tracing::subscriber::NoSubscriber::new();
    let report = tracing::subscriber::with_default(silence, || inspect::report_of(&look.disk))?;
    books::check_accounts(&report, checked);
    Ok(())
}

fn unreadable(look: &Look, source: io::Error) -> ToolError {
    SpoolError::Io { path: look.disk.segments(), source }.into()
}

impl Checked {
    fn push(&mut self, kind: Kind, what: impl Into<String>, means: &'static str, repair: &'static str) {
        self.findings.push(Finding {
            kind,
            segment: None,
            bytes: None,
            positions: None,
            what: what.into(),
            means,
            repair,
        });
    }

    /// What recovery would do to whole segments.
    fn changes(&mut self, look: &Look) {
        for change in &look.changes {
            let (kind, id, bytes, what, means, repair) = match change {
                Change::Remove(_) => continue,
                Change::Mend(header) => (
                    Kind::SegmentHeader,
                    header.segment,
                    Some([0, segment::HEADER_LEN as u64]),
                    "the header is damaged".to_owned(),
                    "nothing is lost, what stands behind it says what it said",
                    "keeps it in quarantine/ and writes it anew",
                ),
                Change::SetAside(id, why) => (
                    Kind::ForeignSegment,
                    *id,
                    None,
                    why.clone(),
                    "what is in it is not delivered",
                    "moves it to quarantine/",
                ),
            };
            let finding = Finding { kind, segment: Some(id.0), bytes, positions: None, what, means, repair };
            self.findings.push(finding);
        }
    }

    fn torn_end(&mut self, look: &Look) -> io::Result<()> {
        let Some((id, at, len)) = look.torn else { return Ok(()) };
        let file = Disk::open(&look.disk.segment(id))?;
        let zeros = disk::is_zero(&file, at)?;
        self.findings.push(Finding {
            kind: Kind::TornEnd,
            segment: Some(id.0),
            bytes: Some([at, len]),
            positions: None,
            what: if zeros { "zeros" } else { "what a crash left of the last write" }.to_owned(),
            means: "nothing is lost, its lines are read again from their files",
            repair: if zeros { "cuts it off" } else { "moves it to quarantine/" },
        });
        Ok(())
    }
}

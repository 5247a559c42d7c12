//! Reading what is left of a file from a copy of it, where the file itself no longer has it: it was truncated in place, or
//! it is gone.
//!
//! Invariants:
//! - A copy is told by its content: it begins as the file did, and has before the offset what the file had there. Names
//!   only say where to look first.
//! - The file's offset goes on in the copy, frame by frame, so that a crash on the way goes on there as well.
//! - One step does a bounded amount of work, however large an archive is.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::content::{Archive, Copied};
use super::file::{Progress, ReadBuffer};
use super::identity;
use crate::event::FileIdentity;

/// Bytes unpacked in one step while the place to read on is looked for: about 10 ms of work.
const SEEK_BYTES: usize = 4 << 20;

/// A file that may be a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub path: PathBuf,
    pub identity: FileIdentity,
    /// It is to be unpacked.
    pub is_archive: bool,
}

/// What becomes of the file after its rest was read from the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It was truncated: it is read from its start.
    StartOver,
    /// It is gone: it is forgotten.
    Forget,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The copy is there and can be read from the file's offset on.
    Found,
    /// There is more to do.
    Seeking,
    /// There is no copy.
    Nothing,
}

/// The way to a copy, and along it.
#[derive(Debug)]
pub(super) struct Detour {
    pub then: Then,
    /// The likeliest first.
    candidates: VecDeque<Candidate>,
    /// Copies that end before the file's offset: all they have was read.
    pub shorter: Vec<Candidate>,
    open: Option<(Candidate, Copied)>,
    is_found: bool,
    /// A candidate was no longer under its name: names were moving, so it is worth to search again.
    pub is_stale: bool,
    /// How often it was searched again.
    pub searches: u8,
    /// Since when the copy has been read to its end, where an event is open that may go on in the file.
    pub open_since: Option<Instant>,
}

impl Detour {
    pub(super) fn new(then: Then, candidates: Vec<Candidate>, shorter: Vec<Candidate>) -> Self {
        Self {
            then,
            candidates: candidates.into(),
            shorter,
            open: None,
            is_found: false,
            is_stale: false,
            searches: 0,
            open_since: None,
        }
    }

    /// The copy, once it was found.
    pub(super) fn copy(&mut self) -> Option<(&Candidate, &mut Copied)> {
        self.open.as_mut().filter(|_| self.is_found).map(|(candidate, copied)| (&*candidate, copied))
    }

    /// Whether it holds a descriptor.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Closes the copy for the moment, so that others can be opened.
    pub(super) fn pause(&mut self) {
        self.is_found = false;
        if let Some((candidate, _)) = self.open.take() {
            self.candidates.push_front(candidate);
        }
    }

    /// Looks at candidates until one proves to be a copy of a file that was read as `progress` says.
    pub(super) fn step(&mut self, progress: &Progress, buffer: &mut ReadBuffer) -> Search {
        if self.is_found {
            return Search::Found;
        }
        if self.open.is_none() {
            let Some(candidate) = self.candidates.pop_front() else { return Search::Nothing };
            let copied = open(&candidate).ok().flatten();
            self.is_stale |= copied.is_none();
            self.open = copied.map(|copied| (candidate, copied));
        }
        let Some((candidate, copied)) = &mut self.open else { return Search::Seeking };
        match examine(copied, progress, buffer) {
            Ok(Some(true)) => self.is_found = true,
            Ok(None) => return Search::Seeking,
            Ok(Some(false)) => self.open = None,
            Err(error) => {
                tracing::debug!(path = %candidate.path.display(), %error, "a possible copy cannot be read");
                self.open = None;
            }
        }
        if self.is_found { Search::Found } else { Search::Seeking }
    }
}

/// Opens a candidate; `None` where something else is there by now.
fn open(candidate: &Candidate) -> io::Result<Option<Copied>> {
    let handle = identity::open(&candidate.path)?;
    let stat = identity::stat_handle(&handle)?;
    if !stat.is_regular() || !identity::same_identity(&stat.identity, &candidate.identity) {
        return Ok(None);
    }
    Ok(Some(if candidate.is_archive {
        Copied::Archive(Box::new(Archive::new(handle)))
    } else {
        Copied::Plain(handle)
    }))
}

/// Whether `copied` has what was read of the file, as far as is known of that; `None` where finding out takes longer.
fn examine(copied: &mut Copied, progress: &Progress, buffer: &mut ReadBuffer) -> io::Result<Option<bool>> {
    if let Copied::Archive(archive) = copied {
        // Only the beginning costs nothing; whatever disagrees there is not unpacked further.
        if archive.is_at_start() && !progress.head_agrees(&mut **archive, buffer)? {
            return Ok(Some(false));
        }
        if !archive.seek(progress.tail_start(), SEEK_BYTES)? {
            return Ok(None);
        }
        return progress.tail_agrees(&mut **archive, buffer).map(Some);
    }
    Ok(Some(progress.head_agrees(copied, buffer)? && progress.tail_agrees(copied, buffer)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::event::Witness;

    fn candidate(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> Candidate {
        let path = dir.path().join(name);
        let is_archive = name.ends_with(".gz");
        if is_archive {
            let file = std::fs::File::create(&path).unwrap();
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        } else {
            std::fs::write(&path, content).unwrap();
        }
        Candidate { identity: identity::stat_path(&path).unwrap().identity, path, is_archive }
    }

    fn read_to(content: &[u8], offset: usize) -> Progress {
        Progress {
            offset: offset as u64,
            scanned: offset as u64,
            head: Witness::of(&content[..offset.min(1024)]),
            tail: Witness::of(&content[offset.saturating_sub(1024)..offset]),
        }
    }

    fn search(candidates: Vec<Candidate>, progress: &Progress) -> (Option<PathBuf>, usize) {
        let mut detour = Detour::new(Then::StartOver, candidates, Vec::new());
        let mut buffer = ReadBuffer::default();
        for steps in 1.. {
            match detour.step(progress, &mut buffer) {
                Search::Seeking => {}
                Search::Nothing => return (None, steps),
                Search::Found => return (detour.copy().map(|(found, _)| found.path.clone()), steps),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_copy_is_told_by_its_head_and_by_what_is_before_the_offset() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..9000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        let mut other_tail = content.clone();
        other_tail[50_000] = b'x';
        let mut other_head = content.clone();
        other_head[3] = b'x';
        for suffix in ["", ".gz"] {
            let not = [
                candidate(&dir, &format!("tail{suffix}"), &other_tail),
                candidate(&dir, &format!("head{suffix}"), &other_head),
                candidate(&dir, &format!("short{suffix}"), &content[..49_999]),
            ];
            let copy = candidate(&dir, &format!("copy{suffix}"), &content);
            let progress = read_to(&content, 50_001);
            assert_eq!(search(not.to_vec(), &progress).0, None);
            assert_eq!(
                search([&not[..], std::slice::from_ref(&copy)].concat(), &progress).0,
                Some(copy.path)
            );
        }
    }

    #[test]
    fn a_large_archive_is_unpacked_in_bounded_steps_and_only_if_it_begins_right() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"0123456789abcde\n".repeat(2 << 20);
        let copy = candidate(&dir, "app.log.gz", &content);
        let (found, steps) = search(vec![copy.clone()], &read_to(&content, content.len()));
        assert_eq!(found, Some(copy.path.clone()));
        assert!(steps >= content.len() / SEEK_BYTES, "{steps}");
        let other = [b"x".to_vec(), content.clone()].concat();
        assert_eq!(search(vec![copy], &read_to(&other, other.len())), (None, 2));
    }

    #[test]
    fn a_path_that_leads_to_another_file_by_now_is_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"line\n".repeat(10);
        let copy = candidate(&dir, "a", &content);
        let other = candidate(&dir, "b", &content);
        std::fs::rename(&other.path, &copy.path).unwrap();
        assert_eq!(search(vec![copy, other], &read_to(&content, 25)).0, None);
    }
}

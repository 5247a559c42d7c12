//! What a disk may hold after a power cut: of what was not synced some is kept, some lost, some torn.

use std::collections::BTreeMap;
use std::path::Path;

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::{Dir, Image, Node, SECTOR, Step, Tree};

/// What is durable at a power cut, and what may be.
pub(super) struct Cut {
    tree: Tree,
    names: Vec<Step>,
    files: Vec<Pending>,
}

#[derive(Clone, Default)]
struct Pending {
    durable: Vec<u8>,
    changes: Vec<Step>,
}

/// What becomes of a change that was not synced.
const LOST: usize = 0;
const TORN: usize = 1;
const LENGTH_ONLY: usize = 2;
const OUTCOMES: usize = 4;

impl Cut {
    pub(super) fn after(steps: &[Step], files: usize) -> Self {
        let mut cut =
            Self { tree: Tree::default(), names: Vec::new(), files: vec![Pending::default(); files] };
        for step in steps {
            match step {
                Step::Link { node, .. } => {
                    if let Node::Dir(dir) = node {
                        cut.tree.dirs.resize(cut.tree.dirs.len().max(dir + 1), BTreeMap::new());
                    }
                    cut.names.push(step.clone());
                }
                Step::Unlink { .. } | Step::Rename { .. } => cut.names.push(step.clone()),
                Step::Write { file, .. } | Step::SetLen { file, .. } => {
                    // What is written over and over in one place is there as it was last, or was before.
                    let changes = &mut cut.files[*file].changes;
                    changes.retain(|before| !step.replaces(before));
                    changes.push(step.clone());
                }
                Step::Sync { file } => {
                    let pending = &mut cut.files[*file];
                    for change in std::mem::take(&mut pending.changes) {
                        pending.apply(&change);
                    }
                }
                Step::Drop { file } => {
                    let pending = &mut cut.files[*file];
                    for change in std::mem::take(&mut pending.changes) {
                        if let Step::Write { at, bytes, .. } = change {
                            let len = pending.durable.len().max(usize::try_from(at).unwrap() + bytes.len());
                            pending.durable.resize(len, 0);
                        } else {
                            pending.apply(&change);
                        }
                    }
                }
                Step::SyncDir { dir } => {
                    let (synced, rest) =
                        std::mem::take(&mut cut.names).into_iter().partition(|n| touches(n, *dir));
                    cut.names = rest;
                    let synced: Vec<Step> = synced;
                    synced.iter().for_each(|name| cut.tree.apply(name));
                }
            }
        }
        cut
    }

    /// In how many ways each thing may have turned out: first the names of each directory, then each change of a file.
    pub(super) fn choices(&self) -> Vec<usize> {
        let names =
            self.dirs().into_iter().map(|dir| self.names.iter().filter(|n| touches(n, dir)).count() + 1);
        let changes = self.files.iter().flat_map(|file| &file.changes).map(|change| match change {
            Step::Write { .. } => OUTCOMES,
            _ => 2,
        });
        names.chain(changes).collect()
    }

    /// The directories whose names are not durable.
    fn dirs(&self) -> Vec<Dir> {
        (0..self.tree.dirs.len()).filter(|dir| self.names.iter().any(|name| touches(name, *dir))).collect()
    }

    pub(super) fn image(&self, picks: &[usize], random: &mut SmallRng) -> Image {
        let mut picks = picks.iter().copied();
        let mut done = vec![false; self.names.len()];
        for dir in self.dirs() {
            let kept = picks.next().unwrap();
            let of_dir = self.names.iter().enumerate().filter(|(_, name)| touches(name, dir));
            of_dir.take(kept).for_each(|(index, _)| done[index] = true);
        }
        let mut tree = self.tree.clone();
        for (name, _) in self.names.iter().zip(done).filter(|(_, done)| *done) {
            tree.apply(name);
        }
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| {
                let mut file = file.clone();
                for change in std::mem::take(&mut file.changes) {
                    let pick = picks.next().unwrap();
                    file.apply_partly(change, pick, random);
                }
                file.durable
            })
            .collect();
        let mut image = Image::new();
        fill(&tree, &files, 0, Path::new(""), &mut image);
        image
    }
}

fn fill(tree: &Tree, files: &[Vec<u8>], dir: Dir, path: &Path, image: &mut Image) {
    for (name, node) in &tree.dirs[dir] {
        let path = path.join(name);
        match node {
            Node::Dir(dir) => {
                image.insert(path.clone(), None);
                fill(tree, files, *dir, &path, image);
            }
            Node::File(file) => {
                image.insert(path, Some(files[*file].clone()));
            }
        }
    }
}

fn touches(name: &Step, dir: Dir) -> bool {
    match name {
        Step::Link { dir: of, .. } | Step::Unlink { dir: of, .. } => *of == dir,
        Step::Rename { from, to } => from.0 == dir || to.0 == dir,
        _ => false,
    }
}

impl Pending {
    fn apply(&mut self, change: &Step) {
        match change {
            Step::Write { at, bytes, .. } => {
                let at = usize::try_from(*at).unwrap();
                self.durable.resize(self.durable.len().max(at + bytes.len()), 0);
                self.durable[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Step::SetLen { len, .. } => self.durable.resize(usize::try_from(*len).unwrap(), 0),
            _ => {}
        }
    }

    fn apply_partly(&mut self, change: Step, pick: usize, random: &mut SmallRng) {
        match (change, pick) {
            (_, LOST) => {}
            (Step::Write { at, bytes, .. }, TORN | LENGTH_ONLY) => {
                // Space is given before it is filled, so what was not written shows as what was there, or zeros.
                let (start, len) = (usize::try_from(at).unwrap(), self.durable.len());
                let mut torn =
                    self.durable.get(start.min(len)..(start + bytes.len()).min(len)).unwrap().to_vec();
                torn.resize(bytes.len(), 0);
                if pick == TORN {
                    // Sectors end where the disk's do, not where the write does.
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = ((start + from) / SECTOR * SECTOR + SECTOR - start).min(bytes.len());
                        if random.random_bool(0.5) {
                            torn[from..to].copy_from_slice(&bytes[from..to]);
                        }
                        from = to;
                    }
                }
                self.apply(&Step::Write { file: 0, at, bytes: torn });
            }
            (change, _) => self.apply(&change),
        }
    }
}

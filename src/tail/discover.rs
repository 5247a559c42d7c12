//! Patterns of `log_path`: which files a source has, and in which directories such files may appear.
//!
//! Invariants:
//! - A directory is announced *before* it is listed, so that a watch placed on the announcement misses nothing that
//!   the listing does not show.
//! - [`Pattern::matches`] and the walk decide by the same parts, so they agree on every path.
//!
//! `*`, `?` and `[..]` match within one name, a leading dot like any other character; `**` matches any number of
//! directories, none included. Names are matched as bytes. Below `**`, symbolic links to directories are not followed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::identity;

/// Directories deeper than this below the beginning of a `**` are not entered.
const MAX_DEPTH: usize = 64;

/// A path or glob that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// There is nothing in it.
    #[error("the path is empty")]
    Empty,
    /// It does not begin with `/`.
    #[error("the path {0:?} is not absolute")]
    Relative(String),
    /// It ends with `/`, `.` or `..`, and so names a directory.
    #[error("the path {0:?} names a directory, not a file")]
    Directory(String),
    /// One of its parts is not a glob.
    #[error("the part {part:?} of the path is not a valid glob")]
    Glob {
        /// The part between two slashes.
        part: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
}

/// One name of a pattern.
#[derive(Clone, Debug)]
enum Part {
    /// Just this name.
    Literal(OsString),
    /// Every name that matches.
    Wild(Box<GlobMatcher>),
    /// `**`: any number of directories.
    Deep,
}

impl Part {
    fn matches(&self, name: &OsStr) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Wild(glob) => glob.is_match(name),
            Self::Deep => true,
        }
    }
}

/// A compiled `log_path`.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The directory below which everything lies.
    base: PathBuf,
    /// What follows, at least one part.
    parts: Vec<Part>,
    /// What one of these matches does not belong to it.
    excluded: Vec<Pattern>,
}

/// What a [`Pattern`] finds on disk.
#[derive(Debug, Default)]
pub struct Survey {
    /// What matches, sorted; it may be anything.
    pub paths: BTreeSet<PathBuf>,
    /// Directories that could not be listed, and why.
    pub unlistable: Vec<(PathBuf, io::Error)>,
}

/// What a walk comes across.
#[derive(Debug)]
pub(super) enum Visit<'a> {
    /// Directories that matter may appear in this directory. Announced before it is listed.
    Parent(&'a Path),
    /// Files that match may appear in this directory. Announced before it is listed.
    Home(&'a Path),
    /// Something with a matching path; it may be no regular file, and a literal path may not be there.
    Match(&'a Path),
    /// A directory could not be listed.
    Unlistable(&'a Path, io::Error),
}

impl Pattern {
    /// Compiles an absolute path or glob.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if !text.starts_with('/') {
            return Err(PatternError::Relative(text.to_owned()));
        }
        if text.ends_with('/') || text.ends_with("/.") || text.ends_with("/..") {
            return Err(PatternError::Directory(text.to_owned()));
        }
        let mut base = PathBuf::from("/");
        let mut parts = Vec::new();
        for name in text.split('/').filter(|name| !matches!(*name, "" | ".")) {
            match name {
                "**" if matches!(parts.last(), Some(Part::Deep)) => {}
                "**" => parts.push(Part::Deep),
                name if name.contains(['*', '?', '[', '{', '\\']) => {
                    let glob = GlobBuilder::new(name)
                        .literal_separator(true)
                        .backslash_escape(true)
                        .build()
                        .map_err(|source| PatternError::Glob { part: name.to_owned(), source })?;
                    parts.push(Part::Wild(Box::new(glob.compile_matcher())));
                }
                literal if parts.is_empty() => base.push(literal),
                literal => parts.push(Part::Literal(literal.into())),
            }
        }
        if parts.is_empty() {
            // The base is the file itself: its last name is what to look for.
            let name = base.file_name().map(OsStr::to_owned);
            parts.push(Part::Literal(name.ok_or_else(|| PatternError::Directory(text.to_owned()))?));
            base.pop();
        }
        Ok(Self { base, parts, excluded: Vec::new() })
    }

    /// The same without what one of `excluded` matches.
    #[must_use]
    pub fn excluding(mut self, excluded: Vec<Self>) -> Self {
        self.excluded = excluded;
        self
    }

    /// Whether this is a plain path, which leads to one file at most.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Literal(_)])
    }

    /// Whether a file at `path` belongs to the source.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.takes_in(path) && !self.excludes(path)
    }

    fn excludes(&self, path: &Path) -> bool {
        self.excluded.iter().any(|pattern| pattern.takes_in(path))
    }

    fn takes_in(&self, path: &Path) -> bool {
        fn matching(parts: &[Part], names: &[&OsStr]) -> bool {
            match (parts.split_first(), names.split_first()) {
                (None, None) => true,
                // At the end of a pattern `**` stands for the file as well.
                (Some((Part::Deep, [])), Some(_)) => true,
                (Some((Part::Deep, after)), name) => {
                    matching(after, names) || name.is_some_and(|(_, deeper)| matching(parts, deeper))
                }
                (Some((part, after)), Some((name, deeper))) => part.matches(name) && matching(after, deeper),
                _ => false,
            }
        }
        let Ok(below) = path.strip_prefix(&self.base) else { return false };
        let names: Vec<&OsStr> = below
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        matching(&self.parts, &names)
    }

    /// The regular files that match now, sorted. What cannot be looked at is left out.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = BTreeSet::new();
        self.walk(&mut |visit| {
            if let Visit::Match(path) = visit
                && identity::stat_path(path).is_ok_and(|stat| stat.is_regular())
            {
                files.insert(path.to_owned());
            }
        });
        files.into_iter().collect()
    }

    /// Everything that matches now, whatever it is, and the directories that could not be searched.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        self.walk(&mut |visit| match visit {
            Visit::Match(path) if path.symlink_metadata().is_ok() => {
                survey.paths.insert(path.to_owned());
            }
            Visit::Unlistable(dir, error) => survey.unlistable.push((dir.to_owned(), error)),
            Visit::Match(_) | Visit::Parent(_) | Visit::Home(_) => {}
        });
        survey
    }

    /// Walks the directories in which matching files are or may appear. A match may be visited more than once.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(Visit<'_>)) {
        if self.excluded.is_empty() {
            return self.walk_all(visit);
        }
        self.walk_all(&mut |found| match found {
            Visit::Match(path) if self.excludes(path) => {}
            found => visit(found),
        });
    }

    fn walk_all(&self, visit: &mut dyn FnMut(Visit<'_>)) {
        if !self.base.is_dir()
            && let Some(there) = self.base.ancestors().skip(1).find(|ancestor| ancestor.is_dir())
        {
            visit(Visit::Parent(there));
            // It may have come between the look and the announcement.
            if !self.base.is_dir() {
                self.visit_missing_literal(visit);
                return;
            }
        }
        let mut pending = vec![(self.base.clone(), 0, 0)];
        while let Some((dir, at, depth)) = pending.pop() {
            let is_last = at + 1 == self.parts.len();
            match self.parts.get(at) {
                None => {}
                Some(Part::Literal(name)) if is_last => {
                    visit(Visit::Home(&dir));
                    visit(Visit::Match(&dir.join(name)));
                }
                Some(Part::Literal(name)) => {
                    let below = dir.join(name);
                    if !below.is_dir() {
                        visit(Visit::Parent(&dir));
                    }
                    if below.is_dir() {
                        pending.push((below, at + 1, 0));
                    }
                }
                Some(part @ Part::Wild(_)) if is_last => {
                    visit(Visit::Home(&dir));
                    list(&dir, visit, |entry, visit| {
                        if part.matches(&entry.file_name()) && !is_plain_dir(entry) {
                            visit(Visit::Match(&entry.path()));
                        }
                    });
                }
                Some(part @ Part::Wild(_)) => {
                    visit(Visit::Parent(&dir));
                    list(&dir, visit, |entry, _| {
                        if part.matches(&entry.file_name()) && entry.path().is_dir() {
                            pending.push((entry.path(), at + 1, 0));
                        }
                    });
                }
                Some(Part::Deep) => {
                    visit(if is_last { Visit::Home(&dir) } else { Visit::Parent(&dir) });
                    list(&dir, visit, |entry, visit| {
                        if is_plain_dir(entry) {
                            if depth < MAX_DEPTH {
                                pending.push((entry.path(), at, depth + 1));
                            }
                        } else if is_last {
                            visit(Visit::Match(&entry.path()));
                        }
                    });
                    if !is_last {
                        pending.push((dir, at + 1, 0));
                    }
                }
            }
        }
    }

    fn visit_missing_literal(&self, visit: &mut dyn FnMut(Visit<'_>)) {
        if let [Part::Literal(name)] = self.parts.as_slice() {
            visit(Visit::Match(&self.base.join(name)));
        }
    }
}

fn is_plain_dir(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn list(
    dir: &Path,
    visit: &mut dyn FnMut(Visit<'_>),
    mut each: impl FnMut(&std::fs::DirEntry, &mut dyn FnMut(Visit<'_>)),
) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // It went away meanwhile; its parent is watched.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return;
        }
        Err(error) => return visit(Visit::Unlistable(dir, error)),
    };
    for entry in entries {
        match entry {
            Ok(entry) => each(&entry, visit),
            Err(error) => return visit(Visit::Unlistable(dir, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn with(files: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for file in files {
                let path = tree.0.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            }
            tree
        }

        fn pattern(&self, pattern: &str) -> Pattern {
            Pattern::new(&format!("{}/{pattern}", self.0.path().display())).unwrap()
        }

        fn found(&self, pattern: &str) -> Vec<String> {
            let pattern = self.pattern(pattern);
            let files = pattern.files();
            assert!(files.iter().all(|file| pattern.matches(file)), "{files:?}");
            files.iter().map(|file| self.relative(file)).collect()
        }

        fn relative(&self, path: &Path) -> String {
            path.strip_prefix(self.0.path()).unwrap().display().to_string()
        }

        fn announced(&self, pattern: &str) -> (BTreeSet<String>, BTreeSet<String>) {
            let (mut parents, mut homes) = (BTreeSet::new(), BTreeSet::new());
            self.pattern(pattern).walk(&mut |visit| match visit {
                Visit::Parent(dir) => drop(parents.insert(self.relative(dir))),
                Visit::Home(dir) => drop(homes.insert(self.relative(dir))),
                _ => {}
            });
            (parents, homes)
        }
    }

    #[test]
    fn patterns_find_what_they_say() {
        let tree =
            Tree::with(&["a.log", "b.log", ".c.log", "a.txt", "x/a.log", "x/y/a.log", "z/a.log", "z/q"]);
        assert_eq!(tree.found("a.log"), ["a.log"]);
        assert_eq!(tree.found("./a.log"), ["a.log"]);
        assert_eq!(tree.found("*.log"), [".c.log", "a.log", "b.log"]);
        assert_eq!(tree.found("[ab].log"), ["a.log", "b.log"]);
        assert_eq!(tree.found("?.txt"), ["a.txt"]);
        assert_eq!(tree.found("*/a.log"), ["x/a.log", "z/a.log"]);
        assert_eq!(tree.found("**/a.log"), ["a.log", "x/a.log", "x/y/a.log", "z/a.log"]);
        assert_eq!(tree.found("x/**"), ["x/a.log", "x/y/a.log"]);
        assert_eq!(tree.found("x/**/y/*.log"), ["x/y/a.log"]);
        assert_eq!(tree.found("missing/*.log"), Vec::<String>::new());
        assert!(tree.pattern("a.log").is_literal() && !tree.pattern("*.log").is_literal());
    }

    #[test]
    fn the_directories_to_watch_are_those_where_something_may_appear() {
        let tree = Tree::with(&["x/a.log", "x/y/a.log"]);
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(tree.announced("x/a.log"), (set(&[]), set(&["x"])));
        assert_eq!(tree.announced("*/a.log"), (set(&[""]), set(&["x"])));
        assert_eq!(tree.announced("**/*.log"), (set(&["", "x", "x/y"]), set(&["", "x", "x/y"])));
        assert_eq!(tree.announced("not/there/a.log"), (set(&[""]), set(&[])));
        assert_eq!(tree.announced("*/not/a.log"), (set(&["", "x"]), set(&[])));
    }

    #[test]
    fn a_missing_literal_file_is_still_visited() {
        let tree = Tree::with(&[]);
        for path in ["a.log", "not/there/a.log"] {
            let mut visited = Vec::new();
            tree.pattern(path).walk(&mut |visit| {
                if let Visit::Match(path) = visit {
                    visited.push(tree.relative(path));
                }
            });
            assert_eq!(visited, [path]);
        }
    }

    #[test]
    fn names_need_not_be_text_and_links_in_a_circle_do_no_harm() {
        let tree = Tree::with(&["x/a.log"]);
        let odd = OsStr::from_bytes(b"\xff\n.log");
        std::fs::write(tree.0.path().join(odd), "").unwrap();
        std::os::unix::fs::symlink(tree.0.path(), tree.0.path().join("x/circle")).unwrap();
        std::os::unix::fs::symlink("loop.log", tree.0.path().join("loop.log")).unwrap();
        assert_eq!(tree.pattern("*.log").files(), [tree.0.path().join(odd)]);
        assert_eq!(tree.pattern("**/*.log").files().len(), 2);
    }

    #[test]
    fn what_is_excluded_is_neither_found_nor_matched() {
        let tree = Tree::with(&["a.log", "b.log", "x/a.log", "x/y/debug.log"]);
        let excluded = vec![tree.pattern("b*"), tree.pattern("**/debug.log")];
        let pattern = tree.pattern("**/*.log").excluding(excluded);
        let found: Vec<_> = pattern.files().iter().map(|file| tree.relative(file)).collect();
        assert_eq!(found, ["a.log", "x/a.log"]);
        assert!(pattern.matches(&tree.0.path().join("x/a.log")));
        assert!(!pattern.matches(&tree.0.path().join("x/y/debug.log")));
        assert_eq!(pattern.survey().paths.len(), 2);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert!(matches!(Pattern::new(""), Err(PatternError::Empty)));
        assert!(matches!(Pattern::new("a.log"), Err(PatternError::Relative(_))));
        assert!(matches!(Pattern::new("/var/log/"), Err(PatternError::Directory(_))));
        assert!(matches!(Pattern::new("/"), Err(PatternError::Directory(_))));
        assert!(matches!(Pattern::new("/var/[a.log"), Err(PatternError::Glob { .. })));
    }
}

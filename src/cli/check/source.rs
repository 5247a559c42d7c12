//! What a source means on this machine: the files it follows, and what becomes of their lines.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;

use super::Report;
use crate::clock;
use crate::config::{
    LineFormat, LineRules, Multiline, MultilinePattern, MultilinePreset, SourceConfig, StartAt, show_bytes,
};
use crate::tail::discover::Pattern;

/// What the names of compressed files end in.
const COMPRESSED: [&str; 8] = ["gz", "tgz", "bz2", "xz", "zst", "lz4", "zip", "Z"];

impl Report {
    /// What a source follows right now, at most `listed` files by name, and how it reads them.
    pub(super) fn source(&mut self, source: &SourceConfig, listed: usize) {
        let start = match source.start_at {
            StartAt::Beginning => "beginning",
            StartAt::End => "end",
        };
        self.line("source", &source.name);
        self.line("", format_args!("{} from the {start}", source.log_path));
        if !source.exclude.is_empty() {
            self.line("", format_args!("except {}", source.exclude.join(", ")));
        }
        if let Some(older) = source.ignore_older {
            self.line("", format_args!("new files are skipped where the last write is older than {older:?}"));
        }
        for rule in describe(&source.lines) {
            self.line("", rule);
        }
        self.files(source, listed);
    }

    fn files(&mut self, source: &SourceConfig, listed: usize) {
        let Some(log_path) = self.pattern(source, &source.log_path) else { return };
        let exclude: Vec<_> = source.exclude.iter().filter_map(|path| self.pattern(source, path)).collect();
        let found = log_path.survey();
        self.warnings.extend(found.unlistable.iter().map(|(path, error)| {
            format!("source {}: {} cannot be searched: {error}", source.name, path.display())
        }));
        let (excluded, kept): (Vec<_>, Vec<_>) =
            found.paths.into_iter().partition(|path| exclude.iter().any(|pattern| pattern.matches(path)));
        let mut files = Vec::new();
        for path in kept {
            match self.file(source, &path) {
                Ok(metadata) => files.push((path, metadata)),
                Err(warning) => {
                    self.warnings.push(format!("source {}: {} {warning}", source.name, path.display()));
                }
            }
        }
        self.warn_of_compressed(source, &files);
        self.list(source, &files, listed);
        if !excluded.is_empty() {
            self.line("", format_args!("  {} excluded", excluded.len()));
        }
    }

    /// A pattern that the configuration took is one that can be followed; should the two disagree, it is said.
    fn pattern(&mut self, source: &SourceConfig, path: &str) -> Option<Pattern> {
        Pattern::new(path)
            .map_err(|error| self.warnings.push(format!("source {}: {error}", source.name)))
            .ok()
    }

    fn list(&mut self, source: &SourceConfig, files: &[(PathBuf, Metadata)], listed: usize) {
        if files.is_empty() {
            self.line("", "  none yet: waited for");
            return;
        }
        for (path, metadata) in files.iter().take(listed) {
            let older = if is_older(source.ignore_older, metadata) { ", older: skipped if new" } else { "" };
            self.line("", format_args!("  {} ({}{older})", path.display(), HumanBytes(metadata.len())));
        }
        if let Some(more) = files.get(listed..).filter(|more| !more.is_empty()) {
            let bytes = more.iter().map(|(_, metadata)| metadata.len()).fold(0, u64::saturating_add);
            self.line("", format_args!("  and {} more ({})", more.len(), HumanBytes(bytes)));
        }
    }

    fn warn_of_compressed(&mut self, source: &SourceConfig, files: &[(PathBuf, Metadata)]) {
        let mut compressed = files.iter().map(|(path, _)| path).filter(|path| is_compressed(path));
        let Some(first) = compressed.next() else { return };
        let (first, more) = (first.display(), compressed.count());
        let which = match more {
            0 => format!("{first} is, by its name, compressed: it has"),
            _ => format!("{first} and {more} more are, by their names, compressed: they have"),
        };
        self.warnings
            .push(format!("source {}: {which} no lines to read; exclude leaves such files out", source.name));
    }

    /// What is known of a file, or why it will not be read.
    fn file(&mut self, source: &SourceConfig, path: &Path) -> Result<Metadata, String> {
        let metadata = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
        // Opening anything else might wait for someone to write.
        if !metadata.is_file() {
            return Err("is not a file".to_owned());
        }
        File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
        let name = source.name.to_string();
        match self.followed.insert((metadata.dev(), metadata.ino()), name) {
            Some(other) if other != source.name.as_str() => {
                self.warnings.push(format!(
                    "{} is followed by the sources {other} and {}: its lines are sent twice",
                    path.display(),
                    source.name
                ));
            }
            _ => {}
        }
        Ok(metadata)
    }
}

/// What is done to lines beyond the defaults. Patterns are counted and not shown: one that redacts may name what is
/// secret.
fn describe(rules: &LineRules) -> Vec<String> {
    let mut said = Vec::new();
    if rules.encoding != encoding_rs::UTF_8 {
        said.push(format!("{}, converted to UTF-8", rules.encoding.name()));
    }
    match rules.format {
        LineFormat::Plain => {}
        LineFormat::DockerJson => said.push("records of docker-json, unwrapped".to_owned()),
        LineFormat::Cri => said.push("records of cri, unwrapped".to_owned()),
    }
    said.extend(rules.multiline.as_ref().map(describe_multiline));
    if !rules.include.is_empty() {
        said.push(format!("only events that match include_lines ({})", patterns(rules.include.len())));
    }
    if !rules.exclude.is_empty() {
        said.push(format!("no events that match exclude_lines ({})", patterns(rules.exclude.len())));
    }
    if !rules.redact.is_empty() {
        said.push(format!("redacted ({})", patterns(rules.redact.len())));
    }
    if let Some(timeout) = rules.partial_timeout {
        said.push(format!("a last line without newline is an event after {timeout:?}"));
    }
    said
}

fn describe_multiline(multiline: &Multiline) -> String {
    let joined = match &multiline.pattern {
        MultilinePattern::Start(_) => "lines joined up to the next that matches start_pattern",
        MultilinePattern::Continue(_) => "lines that match continue_pattern joined to those before",
        MultilinePattern::Preset(MultilinePreset::Java) => "stack traces of Java joined",
        MultilinePattern::Preset(MultilinePreset::Python) => "stack traces of Python joined",
        MultilinePattern::Preset(MultilinePreset::Go) => "stack traces of Go joined",
        MultilinePattern::Preset(MultilinePreset::Ruby) => "stack traces of Ruby joined",
    };
    let (lines, bytes) = (multiline.max_lines, show_bytes(multiline.max_bytes as u64));
    format!("{joined}, up to {lines} lines or {bytes}, complete after {:?}", multiline.timeout)
}

fn patterns(count: usize) -> String {
    format!("{count} pattern{}", if count == 1 { "" } else { "s" })
}

fn is_compressed(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| COMPRESSED.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Whether the last write to a file is longer ago than `limit`.
fn is_older(limit: Option<Duration>, metadata: &Metadata) -> bool {
    let age_ms = clock::wall().millis().saturating_sub(metadata.mtime().saturating_mul(1000));
    limit.is_some_and(|limit| u64::try_from(age_ms).is_ok_and(|age| Duration::from_millis(age) > limit))
}

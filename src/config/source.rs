//! `[[sources]]`: names that are unique, and paths that can match, to follow or to leave out.

use std::collections::HashMap;
use std::path::Path;

use globset::GlobBuilder;

use super::document::{Located, Table, quoted};
use super::error::{ConfigError, Problem};
use super::format::Format;
use super::keys::SourceKeys;
use super::types::SourceConfig;
use super::{labels, lines};
use crate::event::SourceName;

/// Reads all `[[sources]]`, in the order of the file.
pub(super) fn resolve(tables: &[Table<'_>], format: Format) -> Result<Vec<SourceConfig>, ConfigError> {
    let mut lines: HashMap<String, usize> = HashMap::with_capacity(tables.len());
    let mut sources = Vec::with_capacity(tables.len());
    for table in tables {
        let keys = SourceKeys::read(table)?;
        if let Some(first_line) = lines.insert(keys.name.value.clone(), keys.name.line) {
            let what = format!("the name {}", quoted(&keys.name.value));
            let accepts = "each source must have a name of its own";
            return Err(table.error(
                "name",
                keys.name.line,
                Problem::Duplicate { what, first_line, accepts },
            ));
        }
        sources.push(resolve_one(table, keys, format)?);
    }
    Ok(sources)
}

fn resolve_one(table: &Table<'_>, keys: SourceKeys, format: Format) -> Result<SourceConfig, ConfigError> {
    let absolute = |name: &str, path: &Located<String>| {
        absolute(path).map_err(|problem| table.error(name, path.line, problem))
    };
    let labels = table.table("labels")?.map(|labels| labels::resolve(&labels, format)).transpose()?;
    Ok(SourceConfig {
        name: SourceName::from(keys.name.value.as_str()),
        log_path: absolute("log_path", &keys.log_path)?,
        exclude: keys.exclude.iter().map(|path| absolute("exclude", path)).collect::<Result<_, _>>()?,
        delay: keys.delay_ms.value,
        start_at: keys.start_at.value,
        ignore_older: keys.ignore_older_secs.as_ref().map(|older| older.value),
        labels: labels.unwrap_or_default(),
        lines: lines::resolve(table, keys)?,
    })
}

/// The pattern against the root: the working directory in front of a relative one, without `.` and empty components.
///
/// Each component is a glob of its own, so that a directory can be walked one component at a time.
fn absolute(path: &Located<String>) -> Result<String, Problem> {
    let given = path.value.as_str();
    let unacceptable = |found: &str| Problem::Unacceptable {
        accepts: "a path or a glob of *, ?, [..] and ** (a whole component: any directories)".to_owned(),
        found: format!("is {}, in which {found}", quoted(given)),
    };
    if given.ends_with('/') {
        return Err(unacceptable("no file is named: it ends in /"));
    }
    let mut pattern = String::new();
    if !given.starts_with('/') {
        for component in working_directory()?.split('/').filter(|component| !component.is_empty()) {
            pattern.push('/');
            pattern.push_str(&escape(component));
        }
    }
    let mut wild = false;
    for component in given.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component.contains("**") && component != "**" {
            return Err(unacceptable("** is not a whole component"));
        }
        if let Err(error) = GlobBuilder::new(component).literal_separator(true).build() {
            return Err(unacceptable(&format!("{} is not a glob: {}", quoted(component), error.kind())));
        }
        if wild && component == ".." {
            return Err(unacceptable(".. follows a wildcard"));
        }
        wild |= component.contains(['*', '?', '[', '{']);
        pattern.push('/');
        pattern.push_str(component);
    }
    if given.split('/').next_back().is_some_and(|last| matches!(last, "." | "..")) {
        return Err(unacceptable("no file is named: it ends in a directory"));
    }
    // The whole has limits of its own.
    match GlobBuilder::new(&pattern).literal_separator(true).build() {
        Ok(_) => Ok(pattern),
        Err(error) => Err(unacceptable(&format!("it is not a glob: {}", error.kind()))),
    }
}

fn working_directory() -> Result<String, Problem> {
    let directory = std::env::current_dir().map_err(|_| Problem::WorkingDirectory("cannot be read"))?;
    Path::to_str(&directory).map(str::to_owned).ok_or(Problem::WorkingDirectory("is not UTF-8"))
}

/// A name as a glob that matches it alone.
fn escape(name: &str) -> String {
    globset::escape(&name.replace('\\', "\\\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(log_path: &str) -> Result<String, Problem> {
        absolute(&Located { value: log_path.to_owned(), line: 1 })
    }

    #[test]
    fn an_absolute_pattern_stays_as_it_is_but_for_empty_components() {
        assert_eq!(resolved("/var/log/app/*.log").unwrap(), "/var/log/app/*.log");
        assert_eq!(resolved("/var//log/./**/a[0-9]?.log").unwrap(), "/var/log/**/a[0-9]?.log");
        assert_eq!(resolved("/var/../log/a.log").unwrap(), "/var/../log/a.log");
    }

    #[test]
    fn a_relative_pattern_is_taken_from_the_working_directory() {
        let directory = std::env::current_dir().unwrap();
        let expected = directory.join("logs/*.log");
        for given in ["logs/*.log", "./logs/*.log"] {
            let matcher =
                GlobBuilder::new(&resolved(given).unwrap()).literal_separator(true).build().unwrap();
            assert!(matcher.compile_matcher().is_match(expected.parent().unwrap().join("x.log")), "{given}");
        }
    }

    #[test]
    fn a_directory_with_the_characters_of_globs_matches_itself_alone() {
        for name in ["a[b]", "*", "what?", "{x,y}", "back\\slash", "[!a]"] {
            let glob = GlobBuilder::new(&escape(name)).literal_separator(true).build().unwrap();
            assert!(glob.compile_matcher().is_match(name), "{name}");
            assert!(!glob.compile_matcher().is_match("ab"), "{name}");
        }
    }

    #[test]
    fn patterns_that_cannot_match_a_file_are_refused() {
        for given in
            ["/logs/", "/a/[b", "/a/[b/c]", "/a/{b", "/a**", "/a/**b/c", "/*/../c", "/a/..", ".", "/", "/a\\"]
        {
            assert!(resolved(given).is_err(), "{given}");
        }
    }
}

//! `[global.labels]` and `[sources.labels]`: what the operator adds to every event.

use toml::de::DeValue;

use super::document::{Entry, Table, found};
use super::error::{ConfigError, Problem};
use super::format::{Format, LabelNames};
use super::types::Labels;

/// Most labels in a table; Loki takes 15 of a stream by default, three of which are the agent's own.
const LABELS_MAX: usize = 64;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most bytes of names and values in a table: they are kept in the ledger, whose values are small, and sent with every
/// batch.
const TABLE_BYTES_MAX: usize = 3 << 10;

/// Reads a table of labels, whose names must fit `format`.
pub(super) fn resolve(table: &Table<'_>, format: Format) -> Result<Labels, ConfigError> {
    let mut labels = Labels::new();
    let mut bytes = 0_usize;
    for entry in table.entries() {
        let value = resolve_one(table, &entry, format)?;
        bytes = bytes.saturating_add(entry.name.len()).saturating_add(value.len());
        if labels.len() >= LABELS_MAX || bytes > TABLE_BYTES_MAX {
            let problem = Problem::Conflict(format!(
                "is one label too many: a table may have {LABELS_MAX} labels with {TABLE_BYTES_MAX} bytes of names and values"
            ));
            return Err(table.error(entry.name, entry.line, problem));
        }
        labels.insert(entry.name.to_owned(), value);
    }
    Ok(labels)
}

fn resolve_one(table: &Table<'_>, entry: &Entry<'_>, format: Format) -> Result<String, ConfigError> {
    let conflict = |text: String| table.error(entry.name, entry.line, Problem::Conflict(text));
    let names = format.label_names();
    let name = format.name();
    if names == LabelNames::None {
        return Err(conflict(format!("has no meaning with format = \"{name}\", which has no labels")));
    }
    let (more, accepts): (&[u8], _) =
        if names == LabelNames::Dotted { (b"_.-", "_ . and -") } else { (b"_", "_") };
    let fits = entry.name.len() <= NAME_BYTES_MAX
        && entry.name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && entry.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte));
    if !fits {
        return Err(conflict(format!(
            "is not the name of a label; with format = \"{name}\" it must be of up to {NAME_BYTES_MAX} ASCII letters, \
             digits, {accepts}, the first of them a letter or _"
        )));
    }
    if let LabelNames::PlainBut(own) = names
        && (own.contains(&entry.name) || entry.name.starts_with("__"))
    {
        return Err(conflict(format!(
            "is a label of its own with format = \"{name}\"; it must be none of {}, and not begin with __",
            own.join(", ")
        )));
    }
    match entry.value {
        DeValue::String(text)
            if (1..=TABLE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(text.to_string())
        }
        other => {
            let accepts = format!("a string of 1 to {TABLE_BYTES_MAX} bytes without control characters");
            Err(table.unacceptable(entry, accepts, found(other)))
        }
    }
}

//! The file as parsed: tables whose keys and values know their lines.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, one_line};
use super::transport::Transport;

/// The longest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The most characters of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// The text of a configuration file.
pub(super) struct Text<'a> {
    path: &'a Path,
    text: String,
    /// Offsets of the newlines, ascending: every key asks for its line.
    newlines: Vec<usize>,
    /// The strategies that there are.
    transports: &'a [&'static Transport],
}

impl<'a> Text<'a> {
    /// Reads `path`; `transports` are the strategies that it may choose from.
    pub(super) fn read(path: &'a Path, transports: &'a [&'static Transport]) -> Result<Self, ConfigError> {
        let bytes = read_limited(path, CONFIG_BYTES_MAX)
            .map_err(|error| ConfigError::file(path, Problem::Unreadable(error)))?
            .ok_or_else(|| ConfigError::file(path, Problem::TooLong { limit: CONFIG_BYTES_MAX }))?;
        Self::from_bytes(path, bytes, transports)
    }

    /// Takes `bytes` as the content of `path`.
    pub(super) fn from_bytes(
        path: &'a Path,
        bytes: Vec<u8>,
        transports: &'a [&'static Transport],
    ) -> Result<Self, ConfigError> {
        let newlines = memchr::memchr_iter(b'\n', &bytes).collect();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path, text, newlines, transports }),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let line = line_at(&newlines, offset);
                Err(ConfigError::line(path, line, Problem::NotUtf8 { offset }))
            }
        }
    }

    /// Parses the text as TOML.
    pub(super) fn parse(&self) -> Result<DeTable<'_>, ConfigError> {
        DeTable::parse(&self.text).map(toml::Spanned::into_inner).map_err(|error| {
            let offset = error.span().map_or(self.text.len(), |span| span.start);
            let before = self.text.get(..offset).unwrap_or(&self.text);
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
            // Says what was expected and never repeats the file, which may hold secrets.
            let reason = one_line(error.message());
            ConfigError::line(self.path, self.line_at(offset), Problem::Syntax { column, reason })
        })
    }

    /// The line of the byte at `offset`, from 1.
    fn line_at(&self, offset: usize) -> usize {
        line_at(&self.newlines, offset)
    }

    /// The whole document as a table.
    pub(super) const fn root<'t>(&'t self, entries: &'t DeTable<'t>) -> Table<'t> {
        Table { text: self, name: String::new(), line: 1, entries }
    }

    /// The file.
    pub(super) const fn path(&self) -> &'a Path {
        self.path
    }
}

/// A table of the file.
pub(crate) struct Table<'t> {
    text: &'t Text<'t>,
    /// Empty for the document itself.
    name: String,
    line: usize,
    entries: &'t DeTable<'t>,
}

/// A key with its value.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'t> {
    /// The key.
    pub(crate) name: &'t str,
    /// The line of the key, from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: &'t DeValue<'t>,
}

/// A value and the line that it stands on; the line of its table for a default.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// The line, from 1.
    pub(crate) line: usize,
}

impl<'t> Table<'t> {
    /// The strategies that there are.
    pub(super) const fn transports(&self) -> &'t [&'static Transport] {
        self.text.transports
    }

    /// A table below this one that is not in the file: it has what `entries` has, which is nothing.
    pub(super) fn below(&self, name: &str, entries: &'t DeTable<'t>) -> Self {
        Table { text: self.text, name: self.path_of(name), line: self.line, entries }
    }

    /// Whether it is the table of that name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The line of its header, from 1.
    pub(super) const fn line(&self) -> usize {
        self.line
    }

    /// The entry of `name`.
    pub(super) fn entry(&self, name: &str) -> Option<Entry<'t>> {
        let (key, value) = self.entries.get_key_value(name)?;
        Some(Entry { name: key.get_ref(), line: self.text.line_at(key.span().start), value: value.get_ref() })
    }

    /// All entries in the order of the file.
    pub(crate) fn entries(&self) -> Vec<Entry<'t>> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().filter_map(|(key, _)| self.entry(key.get_ref())).collect()
    }

    /// The elements of the array that `entry` has, each on the line of its own; `None` where it has no array.
    pub(super) fn elements(&self, entry: &Entry<'t>) -> Option<Vec<Entry<'t>>> {
        let of_element = |element: &'t toml::Spanned<DeValue<'t>>| Entry {
            line: self.text.line_at(element.span().start),
            value: element.get_ref(),
            ..*entry
        };
        entry.value.as_array().map(|array| array.iter().map(of_element).collect())
    }

    /// The table below `name`, if there is one.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Table<'t>>, ConfigError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        match entry.value {
            DeValue::Table(entries) => {
                Ok(Some(Table { text: self.text, name: self.path_of(name), line: entry.line, entries }))
            }
            other => {
                let accepts = format!("a table, [{}]", self.path_of(name));
                Err(self.unacceptable(&entry, accepts, found(other)))
            }
        }
    }

    /// The tables of the array below `name`, none where there is no such array.
    pub(super) fn tables(&self, name: &str) -> Result<Vec<Table<'t>>, ConfigError> {
        let Some(entry) = self.entry(name) else { return Ok(Vec::new()) };
        let accepts = || format!("tables, each under [[{}]]", self.path_of(name));
        let Some(elements) = self.elements(&entry) else {
            return Err(self.unacceptable(&entry, accepts(), found(entry.value)));
        };
        let table_of = |element: &Entry<'t>| match element.value {
            DeValue::Table(entries) => {
                Ok(Table { text: self.text, name: self.path_of(name), line: element.line, entries })
            }
            other => Err(self.unacceptable(element, accepts(), found(other))),
        };
        elements.iter().map(table_of).collect()
    }

    /// The name of a key with its table, as messages give it.
    pub(super) fn path_of(&self, key: &str) -> String {
        let key = shown(key);
        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) }
    }

    /// An error of the key `name` on `line`.
    pub(crate) fn error(&self, name: &str, line: usize, problem: Problem) -> ConfigError {
        ConfigError::key(self.text.path, line, self.path_of(name), problem)
    }

    /// An error of a value that is not what `accepts` says.
    pub(super) fn unacceptable(&self, entry: &Entry<'_>, accepts: String, found: String) -> ConfigError {
        self.error(entry.name, entry.line, Problem::Unacceptable { accepts, found })
    }

    /// An error of a key that is not there.
    pub(crate) fn missing(&self, name: &str, accepts: String) -> ConfigError {
        self.error(name, self.line, Problem::Missing { accepts })
    }
}

/// Describes a value for a message: `is 0`, `is the string "5"`.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("is the string {}", quoted(text)),
        DeValue::Integer(number) => format!("is {}", shown(&number.to_string())),
        DeValue::Float(number) => format!("is {}", shown(&number.to_string())),
        DeValue::Boolean(truth) => format!("is {truth}"),
        _ => found_kind(value),
    }
}

/// Describes a value by its kind alone: `is an array`.
pub(super) fn found_kind(value: &DeValue<'_>) -> String {
    format!("is {}", kind_of(value))
}

/// Describes a value that may be a secret: only what kind it is of.
pub(super) fn found_secret(value: &DeValue<'_>) -> String {
    format!("is {} (not shown)", kind_of(value))
}

const fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// `text` in quotes, on one line, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len()),
        None => format!("{text:?}"),
    }
}

/// `text` on one line, cut where it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", one_line(text.get(..end).unwrap_or_default())),
        None => one_line(text),
    }
}

/// The line of the byte at `offset`, from 1.
fn line_at(newlines: &[usize], offset: usize) -> usize {
    newlines.partition_point(|newline| *newline < offset).saturating_add(1)
}

/// Reads a file of at most `limit` bytes; `None` where it is longer.
pub(super) fn read_limited(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > limit { None } else { Some(bytes) })
}

//! How the bytes of a source become events: the keys of `[[sources]]` about lines, `[sources.multiline]` and
//! `[[sources.redact]]`, and which of them go together.

use super::document::{Located, Table};
use super::error::{ConfigError, Problem};
use super::keys::{MultilineKeys, REDACTIONS_MAX, RedactKeys, SourceKeys};
use super::pattern::missing_group;
use super::types::{LineFormat, LineRules, Multiline, MultilinePattern, Redact};

/// Reads what `source`, a table of `[[sources]]` with `keys`, says about lines.
pub(super) fn resolve(source: &Table<'_>, keys: SourceKeys) -> Result<LineRules, ConfigError> {
    if keys.format.value != LineFormat::Plain && keys.encoding.value != encoding_rs::UTF_8 {
        let problem = Problem::Conflict(format!(
            "is {}, but the format on line {} is always UTF-8; encoding goes with format = \"plain\"",
            keys.encoding.value.name(),
            keys.format.line
        ));
        return Err(source.error("encoding", keys.encoding.line, problem));
    }
    let multiline = source.table("multiline")?.map(|table| resolve_multiline(source, &table)).transpose()?;
    Ok(LineRules {
        max_line_bytes: to_usize(keys.max_line_bytes.value),
        encoding: keys.encoding.value,
        format: keys.format.value,
        multiline,
        include: values(keys.include_lines),
        exclude: values(keys.exclude_lines),
        redact: resolve_redactions(source)?,
        partial_timeout: keys.partial_timeout_secs.map(|timeout| timeout.value),
    })
}

fn resolve_multiline(source: &Table<'_>, table: &Table<'_>) -> Result<Multiline, ConfigError> {
    const ONE_OF: &str = "exactly one of start_pattern, continue_pattern and preset";
    let keys = MultilineKeys::read(table)?;
    let mut given: Vec<(&str, usize, MultilinePattern)> = [
        located("start_pattern", keys.start_pattern, MultilinePattern::Start),
        located("continue_pattern", keys.continue_pattern, MultilinePattern::Continue),
        located("preset", keys.preset, MultilinePattern::Preset),
    ]
    .into_iter()
    .flatten()
    .collect();
    given.sort_by_key(|(_, line, _)| *line);
    let mut given = given.into_iter();
    let Some((first, first_line, pattern)) = given.next() else {
        let problem =
            Problem::Conflict(format!("does not say which lines make up an event; it must have {ONE_OF}"));
        return Err(source.error("multiline", table.line(), problem));
    };
    if let Some((second, line, _)) = given.next() {
        let problem =
            Problem::Conflict(format!("stands beside {first} on line {first_line}; there must be {ONE_OF}"));
        return Err(table.error(second, line, problem));
    }
    Ok(Multiline {
        pattern,
        max_lines: keys.max_lines.value,
        max_bytes: to_usize(keys.max_bytes.value),
        timeout: keys.timeout_ms.value,
    })
}

/// The key `name` with its line and what it makes of its value, if it is there.
fn located<T>(
    name: &'static str,
    value: Option<Located<T>>,
    pattern: impl FnOnce(T) -> MultilinePattern,
) -> Option<(&'static str, usize, MultilinePattern)> {
    value.map(|value| (name, value.line, pattern(value.value)))
}

fn resolve_redactions(source: &Table<'_>) -> Result<Vec<Redact>, ConfigError> {
    let tables = source.tables("redact")?;
    if let Some(beyond) = tables.get(REDACTIONS_MAX) {
        let accepts = format!("at most {REDACTIONS_MAX} tables, each under [[sources.redact]]");
        let problem = Problem::Unacceptable { accepts, found: "has more".to_owned() };
        return Err(source.error("redact", beyond.line(), problem));
    }
    tables.iter().map(resolve_redaction).collect()
}

fn resolve_redaction(table: &Table<'_>) -> Result<Redact, ConfigError> {
    let keys = RedactKeys::read(table)?;
    if let Some(group) = missing_group(&keys.pattern.value, &keys.replacement.value) {
        let problem = Problem::Conflict(format!(
            "refers to the group {group}, which the pattern on line {} does not have; $1 or ${{name}} must be one of \
             its groups, in braces where a letter, digit or _ follows, and $$ is a dollar sign",
            keys.pattern.line
        ));
        return Err(table.error("replacement", keys.replacement.line, problem));
    }
    Ok(Redact { pattern: keys.pattern.value, replacement: keys.replacement.value })
}

fn values<T>(located: Vec<Located<T>>) -> Vec<T> {
    located.into_iter().map(|located| located.value).collect()
}

/// A number of bytes that its key bounds far below what memory can have.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

//! `elasticsearch_index`: where events go in Elasticsearch.

use super::document::{Located, Table, quoted};
use super::error::{ConfigError, Problem};
use super::format::Format;

/// One index a day, so that old ones can be deleted whole.
const INDEX_DEFAULT: &str = "log-agent-{date}";
/// The longest `elasticsearch_index`; what is filled in is cut so that a name stays within the 255 bytes of Elasticsearch.
const INDEX_BYTES_MAX: usize = 128;

/// Reads `elasticsearch_index`, whose own characters must be those of the name of an index.
pub(super) fn resolve(
    table: &Table<'_>,
    index: Option<&Located<String>>,
    format: Format,
) -> Result<String, ConfigError> {
    let Some(index) = index else { return Ok(INDEX_DEFAULT.to_owned()) };
    let own = ["{agent}", "{source}", "{date}"]
        .iter()
        .fold(index.value.clone(), |own, field| own.replace(field, "x"));
    let fits = index.value.len() <= INDEX_BYTES_MAX
        && own.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && own
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
    if !fits {
        let accepts = format!(
            "a string of up to {INDEX_BYTES_MAX} lower-case letters, digits, - _ and ., with {{agent}}, {{source}} and {{date}}, \
             that begins with none of - _ and ."
        );
        let found = format!("is {}", quoted(&index.value));
        return Err(table.error("elasticsearch_index", index.line, Problem::Unacceptable { accepts, found }));
    }
    if format != Format::Elasticsearch {
        let problem = Problem::Conflict(format!("has no meaning with format = \"{}\"", format.name()));
        return Err(table.error("elasticsearch_index", index.line, problem));
    }
    Ok(index.value.clone())
}

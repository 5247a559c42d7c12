//! The keys that the message queues have in common.

use super::template::{Syntax, Template};
use crate::config::options::{ConfigError, Located, Problem, Table};
use crate::send::parts::Per;

/// The words of the key `messages`.
pub(in crate::send) const PER: &[(&str, Per)] =
    &[("batch", Per::Batch), ("source", Per::Source), ("event", Per::Event)];

/// The address that `key` of `table` says, where a message has the events that `per` says.
pub(in crate::send) fn check_template(
    table: &Table<'_>,
    key: &str,
    text: &Located<String>,
    per: Per,
    syntax: &Syntax,
) -> Result<Template, ConfigError> {
    let template = Template::parse(&text.value, syntax)
        .map_err(|reason| table.error(key, text.line, Problem::Conflict(reason)))?;
    if template.has_source() && per == Per::Batch {
        let problem = Problem::Conflict(
            "has the place {source}, but a batch may be of several; it goes with messages = \"source\" or \"event\""
                .to_owned(),
        );
        return Err(table.error(key, text.line, problem));
    }
    Ok(template)
}

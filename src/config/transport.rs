//! `send_type`: what the configuration has to know of a strategy. The strategies themselves are told to it.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use toml::de::DeTable;

use super::document::{Located, Table};
use super::error::{ConfigError, Problem};
use super::format::Format;
use super::keys::Row;
use super::rules::{Default, Kind, Required, Rule};
use super::types::{Auth, Global};

/// What the configuration has to know of a strategy: a constant beside its code, there whether or not the rest of it was
/// built in.
#[derive(Debug)]
pub struct Transport {
    /// Its name, as `send_type` has it.
    pub name: &'static str,
    /// How a batch travels, in a few words: completes "batches travel as".
    pub about: &'static str,
    /// The schemes that its `end_point` may have.
    pub schemes: Schemes,
    /// What of `[global]` has a meaning with it.
    pub takes: Takes,
    /// The Cargo feature that it comes with; none for what is always there.
    pub feature: Option<Feature>,
    /// Its own table below `[global]`, if it has one.
    pub options: Option<&'static OptionTable>,
    /// How `check` says that batches travel, after the name: how many at a time, how long each may take.
    pub sends: fn(&Global) -> String,
}

/// The URL schemes of a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schemes {
    /// Without TLS.
    pub plain: &'static str,
    /// With TLS.
    pub secure: &'static str,
}

/// Which settings that not every strategy can honour have a meaning with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// `end_point`: several, of which the next is gone over to when one fails.
    pub end_points: bool,
    /// `format`: these.
    pub formats: &'static [Format],
    /// `compression`: it has content codings.
    pub compression: bool,
    /// `[global.headers]`: it has headers of its own.
    pub headers: bool,
    /// A bearer token in `[global.auth]`, beside user and password.
    pub bearer: bool,
}

/// A Cargo feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Whether this program was built with it.
    pub built: bool,
}

/// A strategy's own table below `[global]`, declared with `config::options::table`.
#[derive(Debug)]
pub struct OptionTable {
    /// Its name below `[global]`.
    pub name: &'static str,
    /// What is said of it before its keys, in Markdown.
    pub about: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [&'static str],
    /// Its documentation, a row a key.
    pub(crate) rows: fn() -> Vec<Row>,
    /// Reads it and checks what its keys mean together, and with what stands beside it. A table that is not there is read as
    /// one without keys.
    pub(crate) read: fn(&Table<'_>, Beside<'_>) -> Result<Options, ConfigError>,
}

/// What of `[global]` the keys of a strategy's own table have to go with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    /// `[global.auth]`.
    pub(crate) auth: Option<&'a Auth>,
    /// `format`.
    pub(crate) format: Format,
}

impl OptionTable {
    /// Its header in a file.
    #[must_use]
    pub fn header(&self) -> String {
        format!("[global.{}]", self.name)
    }
}

/// What the table of the chosen strategy says: of a type that only the strategy knows.
#[derive(Clone, Default)]
pub struct Options(Option<Arc<dyn Opaque>>);

/// What can be kept without knowing what it is. Its `Debug` text holds no secret.
trait Opaque: Any + fmt::Debug + Send + Sync {}

impl<T: Any + fmt::Debug + Send + Sync> Opaque for T {}

impl Options {
    /// Keeps `options`, whose `Debug` text must hold no secret.
    #[must_use]
    pub fn new<T: Any + fmt::Debug + Send + Sync>(options: T) -> Self {
        Self(Some(Arc::new(options)))
    }

    /// The options, for the strategy that made them.
    #[must_use]
    pub fn of<T: Any>(&self) -> Option<&T> {
        let options: &dyn Any = self.0.as_deref()?;
        options.downcast_ref()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(options) => options.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// The chosen strategy.
#[derive(Clone, Copy)]
pub struct SendType(pub &'static Transport);

impl Deref for SendType {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        self.0
    }
}

impl fmt::Debug for SendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The rule of the key `send_type`: the name of a strategy, whatever its case.
pub(super) struct Chosen;

impl Rule for Chosen {
    type Value = Located<SendType>;

    fn read(&self, table: &Table<'_>, name: &str) -> Result<Self::Value, ConfigError> {
        Required(OneOfThose(table.transports())).read(table, name)
    }

    /// The table that follows has the names.
    fn accepts(&self) -> String {
        "a name of the next table".to_owned()
    }

    fn default(&self) -> Default {
        Default::Required
    }
}

struct OneOfThose<'t>(&'t [&'static Transport]);

impl Kind for OneOfThose<'_> {
    type Value = SendType;

    fn read(&self, value: &toml::de::DeValue<'_>) -> Option<SendType> {
        let text = value.as_str()?;
        self.0.iter().find(|transport| transport.name.eq_ignore_ascii_case(text)).copied().map(SendType)
    }

    fn accepts(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|transport| self.literal(&SendType(transport))).collect();
        words.join(" or ")
    }

    fn literal(&self, value: &SendType) -> String {
        format!("\"{}\"", value.name)
    }
}

/// Refuses a strategy that was not built in, and what has no meaning with the one that is chosen.
pub(super) fn check(global: &Table<'_>, chosen: &Located<SendType>) -> Result<(), ConfigError> {
    let transport = chosen.value.0;
    let name = transport.name;
    if let Some(Feature { name: feature, built: false }) = transport.feature {
        let problem = Problem::Conflict(format!(
            "\"{name}\" is not part of this log-agent; one that has it is built with \
             cargo build --release --features {feature}"
        ));
        return Err(global.error("send_type", chosen.line, problem));
    }
    let meaningless = |key: &str, line| {
        let problem = Problem::Conflict(format!("has no meaning with send_type = \"{name}\""));
        Err(global.error(key, line, problem))
    };
    if let (Some(entry), false) = (global.entry("headers"), transport.takes.headers) {
        return meaningless(entry.name, entry.line);
    }
    let own = transport.options.map(|options| options.name);
    for other in global.transports().iter().filter_map(|transport| transport.options) {
        if let (Some(entry), true) = (global.entry(other.name), own != Some(other.name)) {
            return meaningless(entry.name, entry.line);
        }
    }
    Ok(())
}

/// Reads the table of the chosen strategy.
pub(super) fn options(
    global: &Table<'_>,
    transport: &Transport,
    beside: Beside<'_>,
) -> Result<Options, ConfigError> {
    let Some(options) = transport.options else { return Ok(Options::default()) };
    match global.table(options.name)? {
        Some(table) => (options.read)(&table, beside),
        None => {
            let nothing = DeTable::new();
            (options.read)(&global.below(options.name, &nothing), beside)
        }
    }
}

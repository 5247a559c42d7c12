//! The configuration: what was accepted cannot be invalid.
//!
//! Invariants:
//! - Loading opens nothing but the files that the configuration itself consists of (it, secrets, certificates), and
//!   changes nothing.
//! - Every key is declared once, in `keys`; reading, the check for unknown keys and the documentation follow from it.
//! - No message and no `Debug` text holds a secret.
//! - What strategies there are, and what they accept, it is told by the caller: it never looks into one.
//!
//! A file is read (`document`), its tables are read key by key as declared (`keys`, from the blocks of `rules` and
//! `pattern`), and what needs more than one key or another file is resolved (`end_point`, `auth`, `tls`, `source` and,
//! below it, `lines`). The first thing that is wrong is the [`ConfigError`].

mod auth;
mod document;
mod end_point;
mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod keys;
mod labels;
mod lines;
pub(crate) mod options;
mod pattern;
mod proxy;
mod reference;
mod rules;
mod source;
mod tls;
mod transport;
mod types;

use std::path::{Path, PathBuf};

use document::{Table, Text};
use keys::{GlobalKeys, ROOT_KEYS, refuse_unknown};

pub use error::{ConfigError, Problem};
pub use format::Format;
pub use reference::reference;
pub use rules::show_bytes;
pub use transport::{Feature, OptionTable, Options, Schemes, SendType, Takes, Transport};
pub use types::{
    Auth, ClientIdentity, Compression, Config, EndPoint, Global, Labels, LineFormat, LineRules, Multiline,
    MultilinePattern, MultilinePreset, OnFull, Proxy, Redact, Secret, SourceConfig, StartAt, SyncMode, Tls,
};

impl Config {
    /// Loads and validates the configuration at `path`, whose `send_type` is one of `transports`. `spool_dir`, where given,
    /// wins over the one in the file. Relative paths are relative to the working directory.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(
        path: &Path,
        spool_dir: Option<&Path>,
        transports: &[&'static Transport],
    ) -> Result<Self, ConfigError> {
        resolve(&Text::read(path, transports)?, spool_dir)
    }
}

fn resolve(text: &Text<'_>, spool_dir: Option<&Path>) -> Result<Config, ConfigError> {
    let path = text.path();
    let document = text.parse()?;
    if document.is_empty() {
        return Err(ConfigError::line(path, 1, Problem::Empty));
    }
    let root = text.root(&document);
    refuse_unknown(&root, &[ROOT_KEYS])?;

    let Some(global) = root.table("global")? else {
        let accepts = "a table, [global], with agent_name, end_point and send_type".to_owned();
        return Err(root.missing("global", accepts));
    };
    let sources = root.tables("sources")?;
    if sources.is_empty() {
        let accepts = "at least one table, [[sources]], with name and log_path".to_owned();
        return Err(root.missing("sources", accepts));
    }
    let global = resolve_global(&global, spool_dir)?;
    let sources = source::resolve(&sources, global.format)?;
    Ok(Config { path: path.to_owned(), global, sources })
}

fn resolve_global(table: &Table<'_>, spool_dir: Option<&Path>) -> Result<Global, ConfigError> {
    let keys = GlobalKeys::read(table)?;
    if keys.max_spool_bytes.value / 2 < keys.segment_bytes.value {
        // The key that is at fault is the one that was written; where both were, the budget.
        let (name, line) = if table.entry("max_spool_bytes").is_some() {
            ("max_spool_bytes", keys.max_spool_bytes.line)
        } else {
            ("segment_bytes", keys.segment_bytes.line)
        };
        let problem = Problem::Conflict(format!(
            "max_spool_bytes must be at least twice segment_bytes, so that one segment can be deleted while another \
             is written; they are {} and {}",
            show_bytes(keys.max_spool_bytes.value),
            show_bytes(keys.segment_bytes.value)
        ));
        return Err(table.error(name, line, problem));
    }
    transport::check(table, &keys.send_type)?;
    check_encoding(table, &keys)?;
    let (end_point, fail_over) = end_point::resolve(table, &keys.end_point, keys.send_type.value)?;
    let proxy = table.table("proxy")?.map(|proxy| proxy::resolve(&proxy)).transpose()?;
    let auth = table.table("auth")?.map(|auth| auth::resolve(&auth, keys.send_type.value)).transpose()?;
    let headers = table.table("headers")?.map(|headers| end_point::headers(&headers, auth.is_some()));
    let tls = table.table("tls")?.map(|tls| tls::resolve(&tls)).transpose()?;
    let format = keys.format.value;
    let labels = table.table("labels")?.map(|labels| labels::resolve(&labels, format)).transpose()?;
    let elasticsearch_index = index::resolve(table, keys.elasticsearch_index.as_ref(), format)?;
    let beside = transport::Beside { auth: auth.as_ref(), format };
    let options = transport::options(table, &keys.send_type.value, beside)?;
    Ok(Global {
        agent_name: keys.agent_name.value,
        end_point,
        fail_over,
        send_type: keys.send_type.value,
        max_send_task: keys.max_send_task.value,
        retry_count: keys.retry_count.value,
        retry_delay: keys.retry_delay_ms.value,
        channel_bound: keys.channel_bound.value,
        interval: keys.interval_secs.value,
        max_batch_size: keys.max_batch_size.value,
        max_batch_bytes: keys.max_batch_bytes.value,
        spool_dir: spool_dir.map_or_else(|| PathBuf::from(keys.spool_dir.value), Path::to_owned),
        max_spool_bytes: keys.max_spool_bytes.value,
        min_free_bytes: keys.min_free_bytes.value,
        on_full: keys.on_full.value,
        segment_bytes: keys.segment_bytes.value,
        sync: keys.sync.value,
        max_open_files: keys.max_open_files.map(|open| open.value),
        timeout: keys.timeout_secs.value,
        shutdown: keys.shutdown_secs.value,
        compression: keys.compression.value,
        format,
        labels: labels.unwrap_or_default(),
        elasticsearch_index,
        headers: headers.transpose()?.unwrap_or_default(),
        auth,
        tls: tls.unwrap_or_default(),
        options,
        proxy: proxy.unwrap_or_default(),
    })
}

/// Refuses a content coding and a format that the strategy has not.
fn check_encoding(table: &Table<'_>, keys: &GlobalKeys) -> Result<(), ConfigError> {
    let send_type = keys.send_type.value;
    if keys.compression.value != Compression::None && !send_type.takes.compression {
        let problem = Problem::Conflict(format!(
            "must be \"none\", as send_type is \"{}\", which has no content coding",
            send_type.name
        ));
        return Err(table.error("compression", keys.compression.line, problem));
    }
    if !keys.format.value.takes(keys.compression.value) {
        let problem = Problem::Conflict(format!(
            "must be \"none\" or \"gzip\", as format is \"{}\", whose servers take no other",
            keys.format.value.name()
        ));
        return Err(table.error("compression", keys.compression.line, problem));
    }
    if !send_type.takes.formats.contains(&keys.format.value) {
        let formats = send_type.takes.formats.iter().map(|format| format!("\"{}\"", format.name()));
        let problem = Problem::Conflict(format!(
            "must be {}, as send_type is \"{}\", whose messages have no other format",
            formats.collect::<Vec<_>>().join(" or "),
            send_type.name
        ));
        return Err(table.error("format", keys.format.line, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::Regex;
    use std::time::Duration;

    const REQUIRED: &str =
        "[global]\nagent_name = \"a\"\nend_point = \"http://localhost/\"\nsend_type = \"http\"\n";
    const SOURCE: &str = "[[sources]]\nname = \"s\"\nlog_path = \"/s.log\"\n";

    fn load(bytes: impl Into<Vec<u8>>) -> Result<Config, ConfigError> {
        resolve(&Text::from_bytes(Path::new("test.config"), bytes.into(), &crate::send::transports())?, None)
    }

    #[test]
    fn the_defaults_are_those_that_are_documented() {
        let config = load(format!("{REQUIRED}{SOURCE}")).unwrap();
        let global = &config.global;
        assert_eq!((global.max_send_task, global.retry_count, global.channel_bound), (5, 3, 1024));
        assert_eq!((global.retry_delay.as_millis(), global.interval.as_secs()), (100, 5));
        assert_eq!((global.max_batch_size, global.timeout.as_secs()), (100, 10));
        assert_eq!((global.on_full, global.sync), (OnFull::Block, SyncMode::Group));
        assert_eq!(global.spool_dir, Path::new("./log-agent-spool"));
        let source = config.sources.first().unwrap();
        assert_eq!((source.delay.as_millis(), source.start_at), (500, StartAt::Beginning));
        assert_eq!((global.max_open_files, source.ignore_older), (None, None));
        assert!(source.exclude.is_empty());
        assert_eq!(format!("{:?}", source.lines), format!("{:?}", LineRules::default()));
    }

    #[test]
    fn the_defaults_of_tables_that_are_there_are_those_that_are_documented() {
        let tables = "[sources.multiline]\npreset = \"Go\"\n[[sources.redact]]\npattern = 'x'\n";
        let config = load(format!("{REQUIRED}{SOURCE}{tables}")).unwrap();
        let lines = &config.sources.first().unwrap().lines;
        let multiline = lines.multiline.as_ref().unwrap();
        assert!(matches!(multiline.pattern, MultilinePattern::Preset(MultilinePreset::Go)));
        assert_eq!((multiline.max_lines, multiline.max_bytes), (500, 1 << 20));
        assert_eq!(multiline.timeout.as_millis(), 1000);
        assert_eq!(lines.redact.first().unwrap().replacement, "[redacted]");
    }

    #[test]
    fn what_is_written_about_lines_arrives_as_written() {
        let keys = "exclude = [\"/a/*.gz\", \"/b\"]\nignore_older_secs = 0.5\nencoding = \"shift_jis\"\n\
                    include_lines = ['a', 'b']\nexclude_lines = ['c']\npartial_timeout_secs = 7\nmultiline = \
                    { continue_pattern = '^\\s', max_lines = 2, max_bytes = \"16 MiB\", timeout_ms = 1 }\n\
                    redact = [{ pattern = 'x(y)', replacement = \"$1\" }]\n";
        let global = "max_open_files = 1048576\n";
        let config = load(format!("{REQUIRED}{global}{SOURCE}{keys}")).unwrap();
        let source = config.sources.first().unwrap();
        let lines = &source.lines;
        assert_eq!(config.global.max_open_files, Some(1 << 20));
        assert_eq!(source.exclude, ["/a/*.gz", "/b"]);
        assert_eq!(source.ignore_older, Some(Duration::from_millis(500)));
        assert_eq!((lines.encoding, lines.format), (encoding_rs::SHIFT_JIS, LineFormat::Plain));
        let texts = |patterns: &[Regex]| patterns.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            (texts(&lines.include), texts(&lines.exclude)),
            (vec!["a".into(), "b".into()], vec!["c".into()])
        );
        assert_eq!(lines.partial_timeout, Some(Duration::from_secs(7)));
        let multiline = lines.multiline.as_ref().unwrap();
        assert!(matches!(&multiline.pattern, MultilinePattern::Continue(p) if p.as_str() == r"^\s"));
        assert_eq!((multiline.max_lines, multiline.max_bytes), (2, 16 << 20));
        assert_eq!(multiline.timeout, Duration::from_millis(1));
        let redact = lines.redact.first().unwrap();
        assert_eq!((redact.pattern.as_str(), redact.replacement.as_str()), ("x(y)", "$1"));
    }

    #[test]
    fn the_spool_directory_of_the_command_line_wins() {
        let text = format!("{REQUIRED}spool_dir = \"/one\"\n{SOURCE}");
        let transports = crate::send::transports();
        let text = Text::from_bytes(Path::new("x"), text.into(), &transports).unwrap();
        assert_eq!(resolve(&text, Some(Path::new("/two"))).unwrap().global.spool_dir, Path::new("/two"));
        assert_eq!(resolve(&text, None).unwrap().global.spool_dir, Path::new("/one"));
    }

    #[test]
    fn lines_are_counted_whatever_the_line_endings_and_the_byte_order_mark() {
        let text = format!("\u{feff}# é\r\n\r\n{REQUIRED}retry_count = -1\n{SOURCE}").replace('\n', "\r\n");
        let error = load(text.replace("\r\r", "\r")).unwrap_err();
        assert_eq!((error.line_number(), error.key_path()), (Some(7), Some("global.retry_count")));
    }

    #[test]
    fn inline_tables_and_dotted_keys_are_the_same_configuration() {
        let inline = "global = { agent_name = \"a\", end_point = \"http://localhost/\", send_type = \"http\" }\n\
                      sources = [{ name = \"s\", log_path = \"/s.log\" }]\n";
        let dotted = "global.agent_name = \"a\"\nglobal.end_point = \"http://localhost/\"\nglobal.send_type = \"http\"\n";
        let plain = format!("{:?}", load(format!("{REQUIRED}{SOURCE}")).unwrap());
        assert_eq!(plain, format!("{:?}", load(inline).unwrap()));
        assert_eq!(plain, format!("{:?}", load(format!("{dotted}{SOURCE}")).unwrap()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Err(error) = load(bytes) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn no_value_makes_the_loader_panic_or_speak_in_lines(
            key in "[a-z_]{1,12}|\"[^\"\\\\\n]{0,8}\"|max_send_task|end_point|interval_secs|spool_dir|headers|auth|tls\
                |exclude|encoding|format|include_lines|multiline|redact",
            value in "-?[0-9]{1,25}|[0-9]{1,4}e-?[0-9]{1,4}|\"[^\"\\\\]{0,80}\"|'''.{0,20}'''|\\['''.{0,20}'''\\]|\\[.{0,8}\\]|\\{.{0,8}\\}|true|nan|inf",
            in_source in any::<bool>(),
        ) {
            let (global, source) = if in_source { (String::new(), format!("{key} = {value}\n")) }
                else { (format!("{key} = {value}\n"), String::new()) };
            if let Err(error) = load(format!("{REQUIRED}{global}{SOURCE}{source}")) {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
                prop_assert!(error.line_number().is_some());
            }
        }

        #[test]
        fn numbers_over_the_documented_ranges_arrive_as_written(
            tasks in 1_usize..=65_535,
            retries in any::<u32>(),
            delay in 1_u32..,
            interval in 1_u32..,
            events in 1_u32..=1_000_000,
            line in 16_usize..=16 << 20,
        ) {
            let config = load(format!(
                "{REQUIRED}max_send_task = {tasks}\nretry_count = {retries}\nretry_delay_ms = {delay}\n\
                 interval_secs = {}\nmax_batch_size = {events}\n{SOURCE}max_line_bytes = {line}\n",
                f64::from(interval) / 1000.0
            )).unwrap();
            prop_assert_eq!(config.global.max_send_task, tasks);
            prop_assert_eq!(config.global.retry_count, retries);
            prop_assert_eq!(config.global.retry_delay.as_millis(), u128::from(delay));
            prop_assert_eq!(config.global.interval.as_millis(), u128::from(interval));
            prop_assert_eq!(config.global.max_batch_size, events);
            prop_assert_eq!(config.sources[0].lines.max_line_bytes, line);
        }
    }
}

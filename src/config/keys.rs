//! Every key of the configuration, declared once: its name, what it accepts, its default and what it is for.
//!
//! Reading, the check for unknown keys and the tables of the documentation all come from these declarations.

use std::ops::RangeInclusive;
use std::time::Duration;

use encoding_rs::Encoding;
use regex::bytes::Regex;

use super::document::{Located, Table};
use super::error::{ConfigError, Problem};
use super::pattern::Pattern;
use super::rules::{
    BYTES_MAX, Bytes, Default, Label, Line, List, Millis, OneOf, Optional, Or, Required, Seconds, Whole,
};
use super::transport::{Chosen, SendType};
use super::types::{Compression, LineFormat, MultilinePreset, OnFull, StartAt, SyncMode};

/// Most requests in flight of each kind: the whole range of a port number, as each needs a connection.
const SEND_TASKS_MAX: usize = 65_535;
/// Longest internal channel; its slots are reserved at once.
const CHANNEL_BOUND_MAX: usize = 1 << 20;
/// Most events in a batch: blank lines have no bytes that [`BATCH_BYTES_MAX`] would count, but their JSON has.
const BATCH_EVENTS_MAX: u32 = 1_000_000;
/// Most bytes of lines in a batch; several batches are in memory at a time.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Smallest segment; below it the headers would outweigh the lines.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest segment: space comes back a segment at a time.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Open log files: below the least, a few busy ones keep each other out; the most is what Linux lets a process have.
const OPEN_FILES: RangeInclusive<usize> = 16..=1 << 20;
/// Most patterns of a kind in a source: every line is matched against each.
const PATTERNS_MAX: usize = 256;
/// Most redactions of a source: each may copy every line.
pub(super) const REDACTIONS_MAX: usize = 64;

/// A key in the documentation.
pub(crate) struct Row {
    /// The key.
    pub(crate) name: &'static str,
    /// What it accepts; completes "must be".
    pub(crate) accepts: String,
    /// Its default.
    pub(crate) default: Default,
    /// What it is for, in Markdown.
    pub(crate) about: &'static str,
}

/// Declares the keys of a table: a field for each, how the table is read, and its documentation.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:ident, $header:literal, also $also:expr, {
            $($key:ident: $value:ty = $rule:expr, $about:literal;)+
        }
    ) => {
        $(#[$doc])*
        pub(super) struct $table {
            $(#[doc = $about] pub(super) $key: $value,)+
        }

        impl $table {
            /// The names of its keys.
            pub(super) const KEYS: &'static [&'static str] = &[$($crate::config::options::name_of(stringify!($key))),+];

            /// Reads it; a key that was not declared is an error.
            pub(super) fn read(
                table: &$crate::config::options::Table<'_>,
            ) -> Result<Self, $crate::config::options::ConfigError> {
                use $crate::config::options::{Rule as _, name_of};
                $crate::config::options::refuse_unknown(table, &[Self::KEYS, $also])?;
                Ok(Self { $($key: $rule.read(table, name_of(stringify!($key)))?,)+ })
            }

            /// Its header in a file.
            #[allow(dead_code, reason = "a strategy's table knows its name besides")]
            pub(super) const HEADER: &'static str = $header;

            /// Its documentation, a row a key.
            pub(super) fn rows() -> Vec<$crate::config::options::Row> {
                use $crate::config::options::{Row, Rule as _, name_of};
                vec![$({
                    let rule = $rule;
                    Row {
                        name: name_of(stringify!($key)),
                        accepts: rule.accepts(),
                        default: rule.default(),
                        about: $about,
                    }
                }),+]
            }
        }
    };
}
pub(crate) use table;

table! {
    /// `[global]`.
    GlobalKeys, "[global]", also &["headers", "auth", "tls"], {
        agent_name: Located<String> = Required(Line::NAME),
            "Names this agent to the server; unique among its agents.";
        end_point: Located<String> = Required(Line::PATH),
            "The server's URL, without credentials; its scheme goes with `send_type`.";
        send_type: Located<SendType> = Chosen,
            "How batches are sent.";
        max_send_task: Located<usize> = Or(Whole(1..=SEND_TASKS_MAX), 5),
            "Most first sends, and most replays, in flight.";
        retry_count: Located<u32> = Or(Whole(0..=u32::MAX), 3),
            "Quick retries before a batch is parked and replayed at the slow cadence. Nothing is ever given up.";
        retry_delay_ms: Located<Duration> = Or(Millis, Duration::from_millis(100)),
            "Delay before the first retry; doubles with each, up to 30 s.";
        channel_bound: Located<usize> = Or(Whole(1..=CHANNEL_BOUND_MAX), 1024),
            "Bound of the internal channels.";
        interval_secs: Located<Duration> = Or(Seconds { min: Seconds::TICK }, Duration::from_secs(5)),
            "The longest an event waits for its batch to fill.";
        max_batch_size: Located<u32> = Or(Whole(1..=BATCH_EVENTS_MAX), 100),
            "Most events in a batch; a full batch is sent at once.";
        max_batch_bytes: Located<u64> = Or(Bytes(1..=BATCH_BYTES_MAX), 1 << 20),
            "Most bytes of lines in a batch; an event that is longer travels alone. 1 MiB is what servers and proxies commonly take.";
        spool_dir: Located<String> = Or(Line::PATH, "./log-agent-spool".to_owned()),
            "Directory of the spool; `--spool-dir` wins over it.";
        max_spool_bytes: Located<u64> = Or(Bytes(2 * SEGMENT_BYTES_MIN..=BYTES_MAX), 10 << 30),
            "Disk budget of the spool, at least twice `segment_bytes`. 10 GiB hold a day of 120 kB/s.";
        min_free_bytes: Located<u64> = Or(Bytes(0..=BYTES_MAX), 64 << 20),
            "Free space left to others on the spool's file system. 64 MiB let a small host go on working.";
        on_full: Located<OnFull> =
            Or(OneOf(&[("block", OnFull::Block), ("drop_oldest", OnFull::DropOldest)]), OnFull::Block),
            "When the budget is used up: `\"block\"` pauses reading, `\"drop_oldest\"` drops the oldest events and counts each.";
        segment_bytes: Located<u64> = Or(Bytes(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX), 64 << 20),
            "Size at which a segment of the spool is sealed; disk space comes back a segment at a time.";
        sync: Located<SyncMode> = Or(OneOf(&[("group", SyncMode::Group), ("os", SyncMode::Os)]), SyncMode::Group),
            "`\"group\"` survives a power cut, `\"os\"` (no fsync) a killed process only.";
        max_open_files: Option<Located<usize>> = Optional(Whole(OPEN_FILES)),
            "Most log files kept open; those beyond it are opened for each read. Without it, half of what the process may have open, at most 16384.";
        timeout_secs: Located<Duration> = Or(Seconds { min: Seconds::TICK }, Duration::from_secs(10)),
            "For one request, from connecting to the end of the answer.";
        shutdown_secs: Located<Duration> = Or(Seconds { min: Duration::ZERO }, Duration::from_secs(5)),
            "How long requests in flight may finish on a stop. 5 s stay below the 10 s after which service managers kill.";
        compression: Located<Compression> = Or(
            OneOf(&[("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]),
            Compression::None,
        ),
            "Content coding of request bodies; `\"none\"` because every server takes it.";
    }
}

/// The ways to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthType {
    /// A bearer token.
    Bearer,
    /// User and password.
    Basic,
}

table! {
    /// `[global.auth]`.
    AuthKeys, "[global.auth]", also &[], {
        r#type: Located<AuthType> =
            Required(OneOf(&[("bearer", AuthType::Bearer), ("basic", AuthType::Basic)])),
            "How the agent authenticates: a bearer token, or user and password.";
        token: Option<Located<String>> = Optional(Line::SECRET),
            "`bearer`: the token itself.";
        token_env: Option<Located<String>> = Optional(Line::SECRET),
            "`bearer`: an environment variable that has the token.";
        token_file: Option<Located<String>> = Optional(Line::SECRET),
            "`bearer`: a file that has the token; a line ending after it is left out.";
        user: Option<Located<String>> = Optional(Line::NAME),
            "`basic`: the user; no colon.";
        password: Option<Located<String>> = Optional(Line::SECRET),
            "`basic`: the password itself.";
        password_env: Option<Located<String>> = Optional(Line::SECRET),
            "`basic`: an environment variable that has the password.";
        password_file: Option<Located<String>> = Optional(Line::SECRET),
            "`basic`: a file that has the password; a line ending after it is left out.";
    }
}

table! {
    /// `[global.tls]`.
    TlsKeys, "[global.tls]", also &[], {
        ca_file: Option<Located<String>> = Optional(Line::PATH),
            "PEM certificates trusted instead of the system's.";
        client_cert_file: Option<Located<String>> = Optional(Line::PATH),
            "PEM certificate chain shown to the server, the agent's own first; needs `client_key_file`.";
        client_key_file: Option<Located<String>> = Optional(Line::PATH),
            "PEM private key of that certificate, not encrypted.";
    }
}

table! {
    /// `[[sources]]`.
    SourceKeys, "[[sources]]", also &["multiline", "redact"], {
        name: Located<String> = Required(Line::NAME),
            "Names the source to the server; unique.";
        log_path: Located<String> = Required(Line::PATH),
            "A path or a glob: `*`, `?`, `[..]`, and `**` for any directories. What does not exist yet is waited for.";
        exclude: Vec<Located<String>> = List { each: Line::PATH, count_max: PATTERNS_MAX },
            "Paths or globs like `log_path`; a file that one of them matches is not followed.";
        delay_ms: Located<Duration> = Or(Millis, Duration::from_millis(500)),
            "How often files are looked at where notification does not reach.";
        start_at: Located<StartAt> =
            Or(OneOf(&[("beginning", StartAt::Beginning), ("end", StartAt::End)]), StartAt::Beginning),
            "Where reading begins in files that are there when the source is first followed; later ones are read from the beginning.";
        ignore_older_secs: Option<Located<Duration>> = Optional(Seconds { min: Seconds::TICK }),
            "A file that has not been written to for longer than this when it is first seen is skipped.";
        max_line_bytes: Located<u64> = Or(Bytes(16..=16 << 20), 1 << 20),
            "A longer line is split into several events, none of it dropped. 1 MiB bounds the memory for one line.";
        encoding: Located<&'static Encoding> = Or(Label, encoding_rs::UTF_8),
            "How the files are encoded; what is not UTF-8 is converted.";
        format: Located<LineFormat> = Or(
            OneOf(&[
                ("plain", LineFormat::Plain),
                ("docker-json", LineFormat::DockerJson),
                ("cri", LineFormat::Cri),
            ]),
            LineFormat::Plain,
        ),
            "What wraps each line: nothing, Docker's `json-file` driver, or the container runtimes of Kubernetes.";
        include_lines: Vec<Located<Regex>> = List { each: Pattern, count_max: PATTERNS_MAX },
            "Where there is any, only events that match one of them are kept.";
        exclude_lines: Vec<Located<Regex>> = List { each: Pattern, count_max: PATTERNS_MAX },
            "Events that match one of them are left out, also where they match one of `include_lines`.";
        partial_timeout_secs: Option<Located<Duration>> = Optional(Seconds { min: Seconds::TICK }),
            "A last line without newline that has not grown for this long becomes an event, marked as going on. Without it, it waits.";
    }
}

table! {
    /// `[sources.multiline]`.
    MultilineKeys, "[sources.multiline]", also &[], {
        start_pattern: Option<Located<Regex>> = Optional(Pattern),
            "An event begins with a line that matches, and goes on up to the next.";
        continue_pattern: Option<Located<Regex>> = Optional(Pattern),
            "A line that matches belongs to the event before it.";
        preset: Option<Located<MultilinePreset>> = Optional(OneOf(&[
            ("java", MultilinePreset::Java),
            ("python", MultilinePreset::Python),
            ("go", MultilinePreset::Go),
            ("ruby", MultilinePreset::Ruby),
        ])),
            "The stack traces of a language are one event each, and every other line is.";
        max_lines: Located<usize> = Or(Whole(2..=100_000), 500),
            "Most lines of an event; what follows begins the next.";
        max_bytes: Located<u64> = Or(Bytes(1 << 10..=16 << 20), 1 << 20),
            "Most bytes of an event, as they stand in the file.";
        timeout_ms: Located<Duration> = Or(Millis, Duration::from_secs(1)),
            "An event whose file has not grown for this long is complete.";
    }
}

table! {
    /// `[[sources.redact]]`.
    RedactKeys, "[[sources.redact]]", also &[], {
        pattern: Located<Regex> = Required(Pattern),
            "What is replaced, wherever it occurs in an event. It is never printed.";
        replacement: Located<String> = Or(Line::REPLACEMENT, "[redacted]".to_owned()),
            "What stands in its place; `$1` or `${name}` is a group of the pattern, `$$` a dollar sign.";
    }
}

/// The tables at the top of a file.
pub(super) const ROOT_KEYS: &[&str] = &["global", "sources"];

/// Every table with its keys, for advice on a key in the wrong place.
const EVERYWHERE: &[(&str, &[&str])] = &[
    ("[global]", GlobalKeys::KEYS),
    ("[[sources]]", SourceKeys::KEYS),
    ("[global.auth]", AuthKeys::KEYS),
    ("[global.tls]", TlsKeys::KEYS),
    ("[sources.multiline]", MultilineKeys::KEYS),
    ("[[sources.redact]]", RedactKeys::KEYS),
    ("[global]", &["headers", "auth", "tls"]),
    ("[[sources]]", &["multiline", "redact"]),
];

/// Refuses the first key of `table` that is in none of `known`, and says which it may have been meant to be.
pub(crate) fn refuse_unknown(table: &Table<'_>, known: &[&[&str]]) -> Result<(), ConfigError> {
    let mut known: Vec<&str> = known.concat();
    let of_strategies = || table.transports().iter().filter_map(|transport| transport.options);
    if table.is("global") {
        known.extend(of_strategies().map(|options| options.name));
    }
    for entry in table.entries() {
        if known.contains(&entry.name) {
            continue;
        }
        let advice = if let Some(nearest) = nearest(entry.name, &known) {
            format!("did you mean {nearest}?")
        } else if let Some((header, _)) = EVERYWHERE.iter().find(|(_, keys)| keys.contains(&entry.name)) {
            format!("it belongs under {header}")
        } else if let Some(options) = of_strategies().find(|options| options.keys.contains(&entry.name)) {
            format!("it belongs under {}", options.header())
        } else {
            format!("known here: {}", known.join(", "))
        };
        return Err(table.error(entry.name, entry.line, Problem::Unknown { advice }));
    }
    Ok(())
}

/// The key of `known` that `name` may have been meant to be: at most a third of its letters differ.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |key: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), key);
    let key = known.iter().copied().min_by_key(distance)?;
    (distance(&key) <= key.len().div_ceil(3)).then_some(key)
}

/// The name of a key as it is in a file: a field that had to be written `r#type` is `type` there.
pub(crate) const fn name_of(field: &'static str) -> &'static str {
    match field.split_at_checked(2) {
        Some((raw, name)) if matches!(raw.as_bytes(), b"r#") => name,
        _ => field,
    }
}

//! The resolved configuration. Values of these types come from a validated file only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;

use super::format::Format;
use super::transport::{Options, SendType};
use crate::event::SourceName;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from, for messages.
    pub path: PathBuf,
    /// `[global]`.
    pub global: Global,
    /// `[[sources]]`, at least one, in file order.
    pub sources: Vec<SourceConfig>,
}

/// `[global]`.
#[derive(Clone, Debug)]
pub struct Global {
    /// `agent_name`: names this agent to the server.
    pub agent_name: String,
    /// `end_point`: where batches go, the first of them where there are several.
    pub end_point: EndPoint,
    /// The others of `end_point`, in their order: where batches go while those before fail.
    pub fail_over: Vec<EndPoint>,
    /// `send_type`: the strategy.
    pub send_type: SendType,
    /// `max_send_task`: most first sends, and most replays, in flight; at least 1.
    pub max_send_task: usize,
    /// `retry_count`: quick retries before a batch is parked.
    pub retry_count: u32,
    /// `retry_delay_ms`: delay before the first retry, at least 1 ms.
    pub retry_delay: Duration,
    /// `channel_bound`: bound of internal channels, at least 1.
    pub channel_bound: usize,
    /// `interval_secs`: the longest an event waits for its batch to fill; above zero.
    pub interval: Duration,
    /// `max_batch_size`: most events in a batch, at least 1.
    pub max_batch_size: u32,
    /// `max_batch_bytes`: most bytes of lines in a batch of more than one event.
    pub max_batch_bytes: u64,
    /// `spool_dir`.
    pub spool_dir: PathBuf,
    /// `max_spool_bytes`: the disk budget.
    pub max_spool_bytes: u64,
    /// `min_free_bytes`: free space left to others on the spool's file system.
    pub min_free_bytes: u64,
    /// `on_full`.
    pub on_full: OnFull,
    /// `segment_bytes`: size at which a segment is sealed.
    pub segment_bytes: u64,
    /// `sync`.
    pub sync: SyncMode,
    /// `max_open_files`: most log files kept open; `None` for half of what the process may have.
    pub max_open_files: Option<usize>,
    /// `timeout_secs`: for one request, from connect to the end of the answer.
    pub timeout: Duration,
    /// `shutdown_secs`: how long requests in flight may finish on a stop.
    pub shutdown: Duration,
    /// `compression` of request bodies.
    pub compression: Compression,
    /// `format` of batches on the wire.
    pub format: Format,
    /// `[global.labels]`: sent with every event.
    pub labels: Labels,
    /// `elasticsearch_index`: the index of an event; `{agent}`, `{source}` and `{date}` are filled in.
    pub elasticsearch_index: String,
    /// `[global.headers]`: sent with every request; never one that the agent sets itself. The values are often keys.
    pub headers: Vec<(String, Secret)>,
    /// `[global.auth]`.
    pub auth: Option<Auth>,
    /// `[global.tls]`.
    pub tls: Tls,
    /// `[global.proxy]`.
    pub proxy: Proxy,
    /// The table of the chosen strategy, where it has one.
    pub options: Options,
}

/// Names and values that the operator adds to events, by name.
pub type Labels = BTreeMap<String, String>;

/// A URL whose scheme fits the strategy, kept without credentials. Its text leaves out the query, which may hold a key;
/// requests use the [`url::Url`] itself.
#[derive(Clone, PartialEq, Eq)]
pub struct EndPoint(pub url::Url);

impl Global {
    /// Every end point, in the order in which they are gone over to.
    pub fn end_points(&self) -> impl Iterator<Item = &EndPoint> {
        std::iter::once(&self.end_point).chain(&self.fail_over)
    }
}

impl EndPoint {
    /// Whether the connection to it is to be encrypted.
    #[must_use]
    pub fn is_secure(&self, send_type: SendType) -> bool {
        self.0.scheme() == send_type.schemes.secure
    }
}

impl fmt::Display for EndPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.query().is_none() && self.0.fragment().is_none() {
            return self.0.fmt(f);
        }
        let mut shown = self.0.clone();
        shown.set_query(self.0.query().map(|_| "(not-shown)"));
        shown.set_fragment(None);
        shown.fmt(f)
    }
}

impl fmt::Debug for EndPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndPoint({self})")
    }
}

/// What happens when the disk budget is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Reading pauses; the log files are the first buffer.
    #[default]
    Block,
    /// The oldest events are dropped, counted one by one.
    DropOldest,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Whatever has gathered while the last sync ran is synced together; survives a power cut.
    #[default]
    Group,
    /// Left to the operating system: survives a killed process, not a power cut.
    Os,
}

/// Content coding of request bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the wire only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `[global.auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// HTTP basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// What stands between the agent and the servers.
#[derive(Clone, Debug, Default)]
pub enum Proxy {
    /// What the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    #[default]
    Environment,
    /// Nothing, whatever the environment says.
    None,
    /// `[global.proxy]`.
    Through {
        /// `url`, without credentials.
        url: url::Url,
        /// `user` and its password.
        credentials: Option<(String, Secret)>,
        /// `except`: what is reached without it.
        except: Vec<String>,
    },
}

/// `[global.tls]`. The server's certificate is always verified.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// `ca_file`: PEM certificates trusted instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// `client_cert_file` and `client_key_file`: PEM certificate chain and key shown to the server.
    pub client_identity_pem: Option<ClientIdentity>,
}

/// The agent's own certificate.
#[derive(Clone)]
pub struct ClientIdentity {
    /// PEM certificate chain, leaf first.
    pub cert_pem: Vec<u8>,
    /// PEM private key.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(secret)")
    }
}

/// A `[[sources]]` entry.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// `name`, unique.
    pub name: SourceName,
    /// `log_path`: a path or a glob, made absolute against the working directory.
    pub log_path: String,
    /// `exclude`: paths or globs, made absolute in the same way; what one of them matches is not followed.
    pub exclude: Vec<String>,
    /// `delay_ms`: how often files are looked at where notification does not reach; at least 1 ms.
    pub delay: Duration,
    /// `start_at`: for files that are there when the source is first followed.
    pub start_at: StartAt,
    /// `ignore_older_secs`: a file that was not written to for longer than this when it is first seen is skipped.
    pub ignore_older: Option<Duration>,
    /// `[sources.labels]`: sent with every event of the source; they win over those of `[global.labels]`.
    pub labels: Labels,
    /// How bytes become events.
    pub lines: LineRules,
}

/// How the bytes of a source's files become events.
#[derive(Clone, Debug)]
pub struct LineRules {
    /// `max_line_bytes`: a longer line is split; within 16 and 16 MiB.
    pub max_line_bytes: usize,
    /// `encoding` of the files. Events are UTF-8, except that bytes of a UTF-8 file stay as they are.
    pub encoding: &'static encoding_rs::Encoding,
    /// `format`: what wraps each line.
    pub format: LineFormat,
    /// `[sources.multiline]`.
    pub multiline: Option<Multiline>,
    /// `include_lines`: where there is any, only events that match one are kept.
    pub include: Vec<Regex>,
    /// `exclude_lines`: events that match one are left out, also where they match an included one.
    pub exclude: Vec<Regex>,
    /// `[[sources.redact]]`, applied in this order.
    pub redact: Vec<Redact>,
    /// `partial_timeout_secs`: a last line without newline becomes an event, marked as going on, once it has not grown for
    /// this long.
    pub partial_timeout: Option<Duration>,
}

impl Default for LineRules {
    /// Plain UTF-8 lines of up to 1 MiB, all of them.
    fn default() -> Self {
        Self {
            max_line_bytes: 1 << 20,
            encoding: encoding_rs::UTF_8,
            format: LineFormat::Plain,
            multiline: None,
            include: Vec::new(),
            exclude: Vec::new(),
            redact: Vec::new(),
            partial_timeout: None,
        }
    }
}

/// What wraps each line of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// Nothing.
    #[default]
    Plain,
    /// Docker's `json-file` driver: `{"log":"…\n","stream":"stdout","time":"…"}`.
    DockerJson,
    /// The container runtime interface of Kubernetes: `TIME STREAM P|F LINE`.
    Cri,
}

/// `[sources.multiline]`: which lines make up one event.
#[derive(Clone, Debug)]
pub struct Multiline {
    /// How the beginning and the going on of an event are told.
    pub pattern: MultilinePattern,
    /// `max_lines`: most lines of an event, at least 2; what follows begins a new event.
    pub max_lines: usize,
    /// `max_bytes`: most bytes of an event, as they stand in the file.
    pub max_bytes: usize,
    /// `timeout_ms`: an event whose file has not grown for this long is complete.
    pub timeout: Duration,
}

/// How the lines of one event are told.
#[derive(Clone, Debug)]
pub enum MultilinePattern {
    /// `start_pattern`: an event begins with a line that matches, and with the first line of a file.
    Start(Regex),
    /// `continue_pattern`: a line that matches belongs to the event before it.
    Continue(Regex),
    /// `preset`: the stack traces of a language; every other line is an event of its own.
    Preset(MultilinePreset),
}

/// The languages whose stack traces are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultilinePreset {
    /// Java and other languages of its virtual machine.
    Java,
    /// Python.
    Python,
    /// Go.
    Go,
    /// Ruby.
    Ruby,
}

/// `[[sources.redact]]`: what is replaced before a line reaches the disk. The pattern is never printed, as it may name
/// what is secret.
#[derive(Clone)]
pub struct Redact {
    /// `pattern`.
    pub pattern: Regex,
    /// `replacement`, in which `$1` or `${name}` stands for a group of the pattern.
    pub replacement: String,
}

impl fmt::Debug for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redact").field("replacement", &self.replacement).finish_non_exhaustive()
    }
}

/// Where reading a file begins that was there when its source was first followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At its first byte.
    #[default]
    Beginning,
    /// At its end; files that appear later are read from the beginning.
    End,
}

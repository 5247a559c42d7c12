//! What can be wrong with a configuration, told in one line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A configuration that was not accepted: where, and what is wrong there.
///
/// Its text is a single line, `FILE:LINE: KEY: what is wrong and what is accepted`, and never has a secret in it. What
/// the operating system said is its source.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    /// Boxed, so that a result is no larger for the error that it never is in a running agent.
    problem: Box<Problem>,
}

impl ConfigError {
    /// The file as a whole.
    pub(super) fn file(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), line: None, key: None, problem: Box::new(problem) }
    }

    /// A line of the file.
    pub(super) fn line(path: &Path, line: usize, problem: Problem) -> Self {
        Self { path: path.to_owned(), line: Some(line), key: None, problem: Box::new(problem) }
    }

    /// A key of the file, on a line of its own or missing from the table that begins there.
    pub(super) fn key(path: &Path, line: usize, key: String, problem: Problem) -> Self {
        Self { path: path.to_owned(), line: Some(line), key: Some(key), problem: Box::new(problem) }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The line, counted from 1, where there is one.
    #[must_use]
    pub const fn line_number(&self) -> Option<usize> {
        self.line
    }

    /// The key with its table, as in `global.max_send_task`, where there is one.
    #[must_use]
    pub fn key_path(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", one_line(&self.path.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.problem)
    }
}

/// What is wrong with a configuration. Every text is one line and free of secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The configuration file cannot be read.
    #[error("the configuration cannot be read; --config FILE names another")]
    Unreadable(#[source] io::Error),
    /// The configuration file is longer than any configuration.
    #[error("the configuration is too long: at most {limit} bytes are read")]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The configuration file is not UTF-8.
    #[error("the configuration must be UTF-8; the byte at offset {offset} is not")]
    NotUtf8 {
        /// Offset of the first byte at fault, from 0.
        offset: usize,
    },
    /// The file says nothing.
    #[error(
        "the configuration is empty; it must have [global] with agent_name, end_point and send_type, \
         and at least one [[sources]] with name and log_path"
    )]
    Empty,
    /// The file is not TOML.
    #[error("column {column}: not valid TOML: {reason}")]
    Syntax {
        /// The column, counted in characters from 1.
        column: usize,
        /// What the parser says, free of the file's content.
        reason: String,
    },
    /// A required key or table is not there.
    #[error("is missing; it must be {accepts}")]
    Missing {
        /// Completes "it must be".
        accepts: String,
    },
    /// A key that means nothing here.
    #[error("is not a known key; {advice}")]
    Unknown {
        /// The nearest known key, or where this one belongs, or the known ones.
        advice: String,
    },
    /// A value of the wrong type or out of bounds.
    #[error("must be {accepts}, {found}")]
    Unacceptable {
        /// Completes "must be".
        accepts: String,
        /// What is there, as in `is 0`.
        found: String,
    },
    /// Something that must be unique is there twice.
    #[error("{what} is used twice, first on line {first_line}; {accepts}")]
    Duplicate {
        /// What it is.
        what: String,
        /// Where it was first, counted from 1.
        first_line: usize,
        /// What is accepted.
        accepts: &'static str,
    },
    /// Two keys, or a key and its absence, do not go together.
    #[error("{0}")]
    Conflict(String),
    /// A secret cannot be had from where the file says it is.
    #[error("{0}")]
    Secret(&'static str),
    /// A secret's file cannot be read. It is not named: who mistakes the key may have written the secret there.
    #[error("the file it names cannot be read; it must hold the secret as UTF-8 text")]
    SecretFile(#[source] io::Error),
    /// A certificate or key file cannot be read.
    #[error("{} cannot be read; it must be {accepts}", one_line(&file.to_string_lossy()))]
    PemUnreadable {
        /// The file.
        file: PathBuf,
        /// Completes "it must be".
        accepts: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// A certificate or key file is malformed.
    #[error("{}: {reason}; it must be {accepts}", one_line(&file.to_string_lossy()))]
    PemMalformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Completes "it must be".
        accepts: &'static str,
    },
    /// The working directory, against which relative paths are taken, cannot be used.
    #[error("the working directory cannot be used for a relative path: it {0}; give an absolute one")]
    WorkingDirectory(&'static str),
}

/// `text` with its control characters escaped, so that it stays on its line.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

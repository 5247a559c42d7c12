//! `[global.auth]`: who the agent is. A secret comes from one of three places and is never repeated in a message.

use std::path::Path;

use super::document::{Located, Table, read_limited};
use super::error::{ConfigError, Problem};
use super::keys::{AuthKeys, AuthType};
use super::transport::SendType;
use super::types::{Auth, Secret};

/// The longest secret, in bytes: what servers take as a header is far less.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads `[global.auth]`, and what the environment or a file has of it.
pub(super) fn resolve(table: &Table<'_>, send_type: SendType) -> Result<Auth, ConfigError> {
    let keys = AuthKeys::read(table)?;
    if keys.r#type.value == AuthType::Bearer && !send_type.takes.bearer {
        let problem = Problem::Conflict(format!("must be \"basic\", as send_type is \"{}\"", send_type.name));
        return Err(table.error("type", keys.r#type.line, problem));
    }
    let token = Places { name: "token", direct: keys.token, env: keys.token_env, file: keys.token_file };
    let password =
        Places { name: "password", direct: keys.password, env: keys.password_env, file: keys.password_file };
    match keys.r#type.value {
        AuthType::Bearer => {
            if let Some(user) = keys.user {
                return Err(table.error("user", user.line, misplaced("bearer", "token")));
            }
            password.refuse(table, || misplaced("bearer", "token"))?;
            let (key, token) = token.find(table)?;
            if !token.value.bytes().all(|byte| byte.is_ascii_graphic()) {
                let problem =
                    Problem::Secret("the token must be of visible ASCII characters, without spaces");
                return Err(table.error(&key, token.line, problem));
            }
            Ok(Auth::Bearer(Secret::new(token.value)))
        }
        AuthType::Basic => {
            token.refuse(table, || misplaced("basic", "user and password"))?;
            let Some(user) = keys.user else {
                return Err(table.missing("user", "the user name, as type is \"basic\"".to_owned()));
            };
            if user.value.contains(':') {
                let problem = Problem::Unacceptable {
                    accepts: "a user name without a colon".to_owned(),
                    found: "has one".to_owned(),
                };
                return Err(table.error("user", user.line, problem));
            }
            let (key, password) = password.find(table)?;
            if password.value.contains(char::is_control) {
                let problem = Problem::Secret("the password must be on one line, without control characters");
                return Err(table.error(&key, password.line, problem));
            }
            Ok(Auth::Basic { user: user.value, password: Secret::new(password.value) })
        }
    }
}

fn misplaced(auth_type: &str, takes: &str) -> Problem {
    Problem::Conflict(format!("has no meaning with type = \"{auth_type}\", which takes {takes}"))
}

/// Where a secret may be: in the file itself, in the environment, in a file of its own.
pub(super) struct Places {
    /// The key of the first; those of the others are made of it.
    pub(super) name: &'static str,
    /// In the file itself.
    pub(super) direct: Option<Located<String>>,
    /// The environment variable that has it.
    pub(super) env: Option<Located<String>>,
    /// The file that has it.
    pub(super) file: Option<Located<String>>,
}

impl Places {
    /// The keys of the three places, with what was given.
    fn given(self) -> impl Iterator<Item = (String, Place, Located<String>)> {
        let Self { name, direct, env, file } = self;
        [
            (name.to_owned(), Place::Direct, direct),
            (format!("{name}_env"), Place::Environment, env),
            (format!("{name}_file"), Place::File, file),
        ]
        .into_iter()
        .filter_map(|(key, place, value)| value.map(|value| (key, place, value)))
    }

    /// An error where any of them was given.
    pub(super) fn refuse(self, table: &Table<'_>, problem: impl Fn() -> Problem) -> Result<(), ConfigError> {
        match self.given().next() {
            Some((key, _, value)) => Err(table.error(&key, value.line, problem())),
            None => Ok(()),
        }
    }

    /// The secret, from the one place where it is, and the key that named the place.
    pub(super) fn find(self, table: &Table<'_>) -> Result<(String, Located<String>), ConfigError> {
        let name = self.name;
        let one_of = format!("exactly one of {name}, {name}_env and {name}_file");
        let mut given = self.given().collect::<Vec<_>>();
        given.sort_by_key(|(_, _, value)| value.line);
        let mut given = given.into_iter();
        let Some((key, place, value)) = given.next() else {
            return Err(table.missing(name, format!("given by {one_of}")));
        };
        if let Some((second, _, also)) = given.next() {
            let problem = Problem::Conflict(format!(
                "the {name} is given twice, first on line {} by {key}; it must be given by {one_of}",
                value.line
            ));
            return Err(table.error(&second, also.line, problem));
        }
        let line = value.line;
        let secret = place.fetch(value.value).map_err(|problem| table.error(&key, line, problem))?;
        Ok((key, Located { value: secret, line }))
    }
}

/// The secret in the file that `file` names.
pub(crate) fn secret_file(file: &Located<String>) -> Result<Secret, Problem> {
    Place::File.fetch(file.value.clone()).map(Secret::new)
}

#[derive(Clone, Copy)]
enum Place {
    Direct,
    Environment,
    File,
}

impl Place {
    /// The secret, where `value` is what the key says.
    fn fetch(self, value: String) -> Result<String, Problem> {
        let secret = match self {
            Self::Direct => value,
            // `var` must not be asked for a name that no variable can have.
            Self::Environment if value.contains(['=', '\0']) => {
                return Err(Problem::Secret("must be the name of an environment variable"));
            }
            Self::Environment => std::env::var(value).map_err(|error| {
                Problem::Secret(match error {
                    std::env::VarError::NotPresent => {
                        "the environment variable it names is not set; it must hold the secret"
                    }
                    std::env::VarError::NotUnicode(_) => {
                        "the environment variable it names is not UTF-8; it must hold the secret as UTF-8 text"
                    }
                })
            })?,
            Self::File => {
                let bytes = read_limited(Path::new(&value), SECRET_BYTES_MAX)
                    .map_err(Problem::SecretFile)?
                    .ok_or(Problem::Secret("the file it names is longer than a secret may be, 65536 bytes"))?;
                let mut text = String::from_utf8(bytes).map_err(|_| {
                    Problem::Secret("the file it names is not UTF-8; it must hold the secret as UTF-8 text")
                })?;
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                text
            }
        };
        if secret.is_empty() {
            return Err(Problem::Secret("what it names is empty; it must hold the secret"));
        }
        Ok(secret)
    }
}

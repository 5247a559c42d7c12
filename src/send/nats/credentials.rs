//! Who the agent is to a NATS server.

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use super::NatsOptions;
use crate::config::{self, Global};

/// What is shown to the server.
#[derive(Clone)]
pub(super) enum Credentials {
    Nobody,
    Token(String),
    User {
        user: String,
        password: String,
    },
    /// The seed of a key; it signs what the server sends.
    Key(String),
    /// A token of an account, and the seed of the key that it is for.
    Jwt {
        jwt: String,
        seed: String,
    },
}

impl Credentials {
    /// What `global` and its own table say; `None` where a file does not have what it should.
    pub(super) fn of(global: &Global, options: &NatsOptions) -> Option<Self> {
        if let Some(file) = &options.credentials {
            let jwt = between(file.reveal(), "NATS USER JWT")?;
            let seed = between(file.reveal(), "USER NKEY SEED")?;
            KeyPair::from_seed(&seed).ok()?;
            return Some(Self::Jwt { jwt, seed });
        }
        if let Some(seed) = &options.nkey {
            let seed = seed.reveal().trim().to_owned();
            KeyPair::from_seed(&seed).ok()?;
            return Some(Self::Key(seed));
        }
        Some(match &global.auth {
            None => Self::Nobody,
            Some(config::Auth::Bearer(token)) => Self::Token(token.reveal().to_owned()),
            Some(config::Auth::Basic { user, password }) => {
                Self::User { user: user.clone(), password: password.reveal().to_owned() }
            }
        })
    }

    /// Its secrets that are not in the configuration as they stand.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::Nobody | Self::Token(_) | Self::User { .. } => Vec::new(),
            Self::Key(seed) => vec![seed.clone()],
            Self::Jwt { jwt, seed } => vec![jwt.clone(), seed.clone()],
        }
    }

    /// What is shown to a server that sent `nonce`.
    pub(super) fn show(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        let sign = |seed: &str| {
            let pair = KeyPair::from_seed(seed).map_err(|_| AuthError::new("the key cannot be used"))?;
            let signature = pair.sign(nonce).map_err(|_| AuthError::new("the key cannot sign"))?;
            Ok::<_, AuthError>((pair.public_key(), signature))
        };
        match self {
            Self::Nobody => {}
            Self::Token(token) => auth.token = Some(token.clone()),
            Self::User { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Self::Key(seed) => {
                let (public, signature) = sign(seed)?;
                auth.nkey = Some(public);
                auth.signature = Some(signature);
            }
            Self::Jwt { jwt, seed } => {
                let (_, signature) = sign(seed)?;
                auth.jwt = Some(jwt.clone());
                auth.signature = Some(signature);
            }
        }
        Ok(auth)
    }
}

/// What stands between the lines `-----BEGIN name-----` and `------END name------` of a file of credentials.
fn between(file: &str, name: &str) -> Option<String> {
    let mut lines = file.lines().map(str::trim);
    let is = |line: &str, word: &str| {
        line.starts_with("---") && line.ends_with("---") && line.contains(&format!("{word} {name}"))
    };
    lines.find(|line| is(line, "BEGIN"))?;
    let content: String = lines.take_while(|line| !line.starts_with("---")).collect();
    (!content.is_empty()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_file_of_credentials_are_found() {
        let file = "-----BEGIN NATS USER JWT-----\neyJ0.abc\n------END NATS USER JWT------\n\n****\n\
                    -----BEGIN USER NKEY SEED-----\nSUAX\n------END USER NKEY SEED------\n";
        assert_eq!(between(file, "NATS USER JWT").as_deref(), Some("eyJ0.abc"));
        assert_eq!(between(file, "USER NKEY SEED").as_deref(), Some("SUAX"));
        assert_eq!(between("SUAX", "USER NKEY SEED"), None);
    }

    #[test]
    fn a_key_signs_and_its_seed_is_not_shown() {
        let pair = KeyPair::new_user();
        let credentials = Credentials::Key(pair.seed().unwrap());
        let auth = credentials.show(b"nonce").unwrap();
        assert_eq!(auth.nkey, Some(pair.public_key()));
        pair.verify(b"nonce", &auth.signature.unwrap()).unwrap();
    }
}

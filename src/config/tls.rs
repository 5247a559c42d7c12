//! `[global.tls]`: whom the agent trusts and how it shows who it is. What is accepted here, the transport can use.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::document::{Located, Table, read_limited};
use super::error::{ConfigError, Problem};
use super::keys::TlsKeys;
use super::types::{ClientIdentity, Tls};

/// The longest certificate or key file that is read, in bytes; the bundles of trusted roots have a quarter of a MiB.
const PEM_BYTES_MAX: u64 = 4 << 20;

const CERTIFICATES: &str = "a PEM file of certificates";
const PRIVATE_KEY: &str = "a PEM file of one private key that is not encrypted";

/// Reads `[global.tls]` and its files.
pub(super) fn resolve(table: &Table<'_>) -> Result<Tls, ConfigError> {
    let keys = TlsKeys::read(table)?;
    let ca_pem = match &keys.ca_file {
        Some(file) => Some(trusted(file).map_err(|problem| table.error("ca_file", file.line, problem))?),
        None => None,
    };
    let client_identity_pem = match (&keys.client_cert_file, &keys.client_key_file) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(identity(table, cert, key)?),
        (Some(cert), None) => return Err(alone(table, "client_cert_file", cert.line, "client_key_file")),
        (None, Some(key)) => return Err(alone(table, "client_key_file", key.line, "client_cert_file")),
    };
    Ok(Tls { ca_pem, client_identity_pem })
}

fn alone(table: &Table<'_>, name: &str, line: usize, other: &str) -> ConfigError {
    table.error(
        name,
        line,
        Problem::Conflict(format!("needs {other} beside it; both must be given, or neither")),
    )
}

/// The PEM of certificates that can be trusted.
fn trusted(file: &Located<String>) -> Result<Vec<u8>, Problem> {
    let file = Path::new(&file.value);
    let pem = read(file, CERTIFICATES)?;
    let mut roots = rustls::RootCertStore::empty();
    for (certificate, number) in certificates(file, &pem)?.into_iter().zip(1_usize..) {
        roots.add(certificate).map_err(|error| {
            malformed(file, format!("certificate {number} cannot be trusted ({error})"), CERTIFICATES)
        })?;
    }
    Ok(pem)
}

/// The agent's own certificate and the key that belongs to it.
fn identity(
    table: &Table<'_>,
    cert: &Located<String>,
    key: &Located<String>,
) -> Result<ClientIdentity, ConfigError> {
    let cert_error = |problem| table.error("client_cert_file", cert.line, problem);
    let key_error = |problem| table.error("client_key_file", key.line, problem);
    let cert_file = Path::new(&cert.value);
    let key_file = Path::new(&key.value);

    let cert_pem = read(cert_file, CERTIFICATES).map_err(cert_error)?;
    let chain = certificates(cert_file, &cert_pem).map_err(cert_error)?;
    if let Some(first) = chain.first() {
        rustls::server::ParsedCertificate::try_from(first).map_err(|error| {
            cert_error(malformed(cert_file, format!("certificate 1 is malformed ({error})"), CERTIFICATES))
        })?;
    }
    let key_pem = read(key_file, PRIVATE_KEY).map_err(key_error)?;
    // The parser's own message would repeat lines of the file.
    let private_key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| key_error(malformed(key_file, "no private key was found".to_owned(), PRIVATE_KEY)))?;
    rustls::sign::CertifiedKey::from_der(chain, private_key, &rustls::crypto::ring::default_provider())
        .map_err(|error| {
            let reason = match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the key does not belong to client_cert_file".to_owned()
                }
                _ => "the private key is malformed or of an unsupported kind".to_owned(),
            };
            key_error(malformed(key_file, reason, PRIVATE_KEY))
        })?;
    Ok(ClientIdentity { cert_pem, key_pem })
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    // The parser's own message would repeat lines of the file.
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(file, "is not valid PEM".to_owned(), CERTIFICATES))?;
    if certificates.is_empty() {
        return Err(malformed(file, "no certificate was found".to_owned(), CERTIFICATES));
    }
    Ok(certificates)
}

fn read(file: &Path, accepts: &'static str) -> Result<Vec<u8>, Problem> {
    read_limited(file, PEM_BYTES_MAX)
        .map_err(|source| Problem::PemUnreadable { file: file.to_owned(), accepts, source })?
        .ok_or_else(|| malformed(file, format!("is longer than {PEM_BYTES_MAX} bytes"), accepts))
}

fn malformed(file: &Path, reason: String, accepts: &'static str) -> Problem {
    Problem::PemMalformed { file: file.to_owned(), reason, accepts }
}

//! TLS for transports that are not HTTP: the settings of `[global.tls]`, on the same provider, with the same trust.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::config::Tls;
use crate::send::SendError;

/// What the agent trusts and who it is: `ca_file` alone where it is given, otherwise the system's roots. The server's
/// certificate is always verified.
///
/// # Errors
/// [`SendError::Tls`] where a certificate or key cannot be used, or the system has no roots.
pub(in crate::send) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, SendError> {
    // One provider for the whole process. That another one is there already is no error: it then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |what: &str| SendError::Tls(rustls::Error::General(what.to_owned()));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SendError::Tls)?;
    let builder = match &tls.ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| refused("ca_file is not PEM"))?;
                roots.add(certificate).map_err(SendError::Tls)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_platform_verifier().map_err(SendError::Tls)?,
    };
    let config = match &tls.client_identity_pem {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&identity.cert_pem).collect();
            let chain = chain.map_err(|_| refused("client_cert_file is not PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
                .map_err(|_| refused("client_key_file is not PEM"))?;
            builder.with_client_auth_cert(chain, key).map_err(SendError::Tls)?
        }
    };
    Ok(Arc::new(config))
}

//! What the tests of the transports share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Outcome;
use crate::batch::{BatchId, Payload, SourceRange};
use crate::config::{
    Auth, ClientIdentity, Compression, EndPoint, Format, Global, Labels, OnFull, Options, Proxy, Secret,
    SendType, SyncMode, Tls,
};
use crate::event::{Position, Seq, SourceName};

/// A batch of two sources.
pub(super) fn payload() -> Payload {
    let range = |source: &str, first, last| SourceRange {
        source: SourceName::from(source),
        first: Seq(first),
        last: Seq(last),
    };
    Payload {
        batch: BatchId { first: Position(1), last: Position(64), part: None },
        key: Arc::from("00112233445566778899aabbccddeeff-1-64"),
        agent: Arc::from("agent"),
        sources: vec![range("a", 1001, 1050), range("b", 77, 90)],
        content_type: "application/json",
        ends: Vec::new(),
        body: Bytes::from(format!("{{\"agentName\":\"{}\"}}", "x".repeat(40_000))),
    }
}

/// A configuration that sends to `url`, by HTTP, with every kind of secret.
pub(super) fn global(url: &str) -> Global {
    Global {
        agent_name: "agent".into(),
        end_point: EndPoint(url.parse().unwrap()),
        fail_over: Vec::new(),
        send_type: SendType(super::http::STRATEGY.transport),
        max_send_task: 2,
        retry_count: 3,
        retry_delay: Duration::from_millis(100),
        channel_bound: 16,
        interval: Duration::from_secs(5),
        max_batch_size: 100,
        max_batch_bytes: 1 << 20,
        spool_dir: "unused".into(),
        max_spool_bytes: 1 << 30,
        min_free_bytes: 0,
        on_full: OnFull::Block,
        segment_bytes: 1 << 20,
        max_open_files: None,
        sync: SyncMode::Group,
        timeout: Duration::from_secs(10),
        shutdown: Duration::from_secs(5),
        compression: Compression::None,
        format: Format::Json,
        labels: Labels::new(),
        elasticsearch_index: String::new(),
        headers: vec![("X-Api-Key".into(), Secret::new("header-key".into()))],
        auth: Some(Auth::Bearer(Secret::new("bearer-token".into()))),
        tls: Tls::default(),
        // Whatever the environment of the tests says.
        proxy: Proxy::None,
        options: Options::default(),
    }
}

/// The one line of a retry or a fault, after a check that it is one and gives nothing away.
pub(super) fn reason(outcome: &Outcome) -> &str {
    let (Outcome::Retry { reason, .. } | Outcome::EndpointFault { reason }) = outcome else {
        panic!("{outcome:?} has no reason")
    };
    assert!(!reason.contains('\n') && !reason.is_empty());
    for secret in ["query-key", "header-key", "bearer-token", "secret-password"] {
        assert!(!reason.contains(secret), "{reason}");
    }
    reason
}

/// An authority and what it vouches for.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for `name`, as PEM and DER.
    pub(super) fn issue(
        &self,
        params: CertificateParams,
    ) -> (ClientIdentity, CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let identity = ClientIdentity {
            cert_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        };
        (identity, certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    pub(super) fn for_name(name: &str) -> CertificateParams {
        CertificateParams::new(vec![name.to_owned()]).unwrap()
    }

    /// What a server needs that has a certificate of this authority and asks for one of `clients` where given.
    pub(super) fn acceptor(&self, params: CertificateParams, clients: Option<&Self>) -> TlsAcceptor {
        self.acceptor_offering(&[], params, clients)
    }

    /// The same, with these protocols offered in the handshake.
    pub(super) fn acceptor_offering(
        &self,
        protocols: &[&[u8]],
        params: CertificateParams,
        clients: Option<&Self>,
    ) -> TlsAcceptor {
        let (_, certificate, key) = self.issue(params);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config).into()
    }
}

//! The authority's certificate and the token in, one client for all agents out.
//!
//! All agents share one certificate with the name `sluice-agent`, and are reached by address: the name is
//! verified whatever the address, and the answer says which pod it comes from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sluice_engine::well_known::AGENT;

use crate::fleet::certificates::Certificates;

/// Longer than the 25 s for which an agent holds a long-poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose packets are not acknowledged for so long is broken.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(2);

/// How agents are reached.
pub struct Access {
    /// The client.
    pub client: reqwest::Client,
    /// The bearer token.
    pub token: String,
    authority: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// An authority or client that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate cannot be read.
    #[error("the authority's certificate cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// TLS cannot be set up with it.
    #[error("TLS towards agents cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nothing can be verified with it.
    #[error("agents' certificates cannot be verified: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// No client.
    #[error("there is no client for agents: {0}")]
    Client(#[from] reqwest::Error),
}

impl Access {
    /// Makes a client that trusts only this authority.
    ///
    /// # Errors
    /// When the authority's certificate cannot be used.
    pub fn new(certificates: &Certificates) -> Result<Self, Error> {
        let authority = certificates.authority.certificate.clone();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // only the name differs from the standard verifier: it is fixed
            .with_custom_certificate_verifier(Arc::new(FixedName { inner }))
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(2)
            .tcp_user_timeout(USER_TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            token: certificates.token.clone(),
            authority,
        })
    }

    /// Whether this still fits.
    pub fn fits(&self, certificates: &Certificates) -> bool {
        self.authority == certificates.authority.certificate && self.token == certificates.token
    }
}

/// The standard verifier, for the name `sluice-agent` whatever the address.
#[derive(Debug)]
struct FixedName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for FixedName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from(AGENT).map_err(|error| rustls::Error::General(error.to_string()))?;
        self.inner
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

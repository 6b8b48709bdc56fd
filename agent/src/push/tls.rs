//! A tenant's TLS options and credentials in, a rustls configuration out.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sluice_engine::credentials::Credentials;
use sluice_engine::document::Tls;

/// Where images and distributions keep the system's CA bundle; `SSL_CERT_FILE` comes before them.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to speak TLS with a tenant's server; for a URL of plain HTTP, what is never asked.
pub(super) fn config(tls: &Tls, credentials: Option<&Credentials>, https: bool) -> Result<ClientConfig, &'static str> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| "this build speaks no TLS version")?;
    let builder = if !https {
        builder.with_root_certificates(RootCertStore::empty())
    } else if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        let roots = match credentials.and_then(|credentials| credentials.ca.as_deref()).filter(|_| tls.ca) {
            Some(bundle) => bundle_of(bundle.as_bytes())?,
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|_| "the CA bundle is not usable")?;
        builder.with_webpki_verifier(verifier)
    };
    let certificate = credentials.filter(|_| tls.client_certificate && https);
    let mut config = match certificate.map(client_certificate).transpose()? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|_| "the client certificate and its key do not fit together")?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn client_certificate(
    credentials: &Credentials,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), &'static str> {
    let pem = credentials.client_certificate.as_deref().unwrap_or_default();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| "the client certificate is not PEM")?;
    if chain.is_empty() {
        return Err("the client certificate is not PEM");
    }
    let key = credentials.client_key.as_deref().unwrap_or_default();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the client certificate's key is not PEM")?;
    Ok((chain, key))
}

fn bundle_of(pem: &[u8]) -> Result<Arc<RootCertStore>, &'static str> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err("the CA bundle holds no certificate"),
        _ => Ok(Arc::new(roots)),
    }
}

/// The system's roots, read once and shared by all tenants.
fn system_roots() -> Result<Arc<RootCertStore>, &'static str> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let pem = named
        .into_iter()
        .chain(BUNDLES.iter().map(std::path::PathBuf::from))
        .find_map(|path| std::fs::read(path).ok())
        .ok_or("this node has no CA bundle")?;
    let roots = bundle_of(&pem)?;
    Ok(Arc::clone(ROOTS.get_or_init(|| roots)))
}

/// Takes any certificate, as the tenant wants it; the handshake is still proved by the certificate's key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

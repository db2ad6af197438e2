//! TLS certificates and keys: parsing, SNI resolver, rustls configurations.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

mod challenge;
mod sni_resolver;

pub use challenge::{challenge_config, challenged_domain};
pub use sni_resolver::IssuedCertificates;
use sni_resolver::SniResolver;

/// Reason why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("not a PEM file with certificates")]
    NoCertificate,
    #[error("the certificate cannot be parsed")]
    BadCertificate,
    #[error("not a PEM file with a private key")]
    NoKey,
    #[error("the type of the key is not supported")]
    BadKey,
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the certificates cannot be served: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the CA certificates cannot be used: {0}")]
    BadAuthorities(#[from] rustls::server::VerifierBuilderError),
}

impl TlsError {
    /// Whether the error concerns the key, not the certificate.
    pub(super) fn is_about_key(&self) -> bool {
        matches!(
            self,
            TlsError::NoKey | TlsError::BadKey | TlsError::Mismatch
        )
    }
}

/// A certificate chain ready to be served, with its names.
#[derive(Clone)]
pub struct CertificateChain {
    certified: Arc<CertifiedKey>,
    /// In lower case; a wildcard starts with `*.`.
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl CertificateChain {
    /// Beginning of the certificate's validity, in Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Expiry of the certificate, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether the certificate is valid for a domain, which it names itself.
    pub fn names(&self, domain: &str) -> bool {
        self.names.iter().any(|name| name == domain)
    }
}

/// Client authentication of a listener.
pub(super) enum ClientAuth {
    NotRequested,
    /// A client needs a certificate that the verifier accepts.
    Required(Arc<dyn ClientCertVerifier>),
}

/// Parses a chain and its key, and checks that they belong together.
pub fn parse_chain(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertificateChain, TlsError> {
    let certificates = parse_certificates(cert_pem)?;
    let first = certificates.first().ok_or(TlsError::NoCertificate)?;
    let end_entity =
        webpki::EndEntityCert::try_from(first).map_err(|_| TlsError::BadCertificate)?;
    let names = end_entity
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    let (_, parsed) = x509_parser::parse_x509_certificate(first.as_ref())
        .map_err(|_| TlsError::BadCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::NoKey)?;
    let certified = CertifiedKey::from_der(certificates.clone(), key, &ring::default_provider())
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
            rustls::Error::InvalidCertificate(_) => TlsError::BadCertificate,
            _ => TlsError::BadKey,
        })?;
    Ok(CertificateChain {
        certified: Arc::new(certified),
        names,
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

/// Requires every client to have a certificate issued by one of these CAs.
pub(super) fn client_auth(ca_pem: &[u8]) -> Result<ClientAuth, TlsError> {
    let roots = Arc::new(parse_authorities(ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    Ok(ClientAuth::Required(verifier))
}

/// Parses CA certificates, all of which must be usable.
pub(super) fn parse_authorities(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in parse_certificates(ca_pem)? {
        roots
            .add(certificate)
            .map_err(|_| TlsError::BadCertificate)?;
    }
    Ok(roots)
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(TlsError::NoCertificate),
    }
}

/// Builds a listener's configuration: TLS 1.2 and 1.3, ALPN with HTTP/2 and HTTP/1.1, SNI. Without any
/// certificate, handshakes are refused.
pub(super) fn server_config(
    chains: Vec<CertificateChain>,
    issued: Option<Arc<IssuedCertificates>>,
    clients: ClientAuth,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let resolver = SniResolver::new(chains, issued);
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientAuth::NotRequested => builder.with_no_client_auth(),
        ClientAuth::Required(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;

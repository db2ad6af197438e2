//! The handshake by which a certificate authority validates a domain: `tls-alpn-01` (RFC 8737).

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest, Sha256};

use super::provider;

/// The protocol that such a handshake negotiates.
const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// Reason why a challenge cannot be responded to.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of the challenge cannot be made")]
pub struct ChallengeError;

/// Returns the domain that a handshake validates; `None`: it is a client's.
pub fn challenged_domain(hello: &ClientHello<'_>) -> Option<String> {
    let mut protocols = hello.alpn()?;
    let is_only = protocols.next() == Some(ACME_TLS_ALPN) && protocols.next().is_none();
    let domain = hello.server_name().filter(|_| is_only)?;
    Some(domain.trim_end_matches('.').to_ascii_lowercase())
}

/// Builds the configuration that responds to a challenge: a self-signed certificate that carries the
/// digest of the key authorization (RFC 8737, section 3).
///
/// # Errors
/// The domain cannot be the name of a certificate, or the operating system gives no randomness.
pub fn challenge_config(
    domain: &str,
    key_authorization: &str,
) -> Result<Arc<rustls::ServerConfig>, ChallengeError> {
    let params = CertificateParams::new([domain.to_owned()]);
    let mut params = params.map_err(|_| ChallengeError)?;
    params.distinguished_name = DistinguishedName::new();
    let digest: [u8; 32] = Sha256::digest(key_authorization.as_bytes()).into();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().map_err(|_| ChallengeError)?;
    let certificate = params.self_signed(&key).map_err(|_| ChallengeError)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = provider();
    let key = provider.key_provider.load_private_key(key.into());
    // Not compared with the certificate, whose critical extension the library does not know.
    let certified = CertifiedKey::new(
        vec![certificate.der().clone()],
        key.map_err(|_| ChallengeError)?,
    );
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| ChallengeError)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    Ok(Arc::new(config))
}

//! Certificates and keys, as rustls wants them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsFault {
    #[error("this is not a PEM file with certificates")]
    NoCertificate,
    #[error("the certificate is not understood")]
    BadCertificate,
    #[error("this is not a PEM file with a private key")]
    NoKey,
    #[error("the key is of a kind that is not supported")]
    BadKey,
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the certificates cannot be served: {0}")]
    Refused(#[from] rustls::Error),
    #[error("the authorities cannot be used: {0}")]
    BadAuthorities(#[from] rustls::server::VerifierBuilderError),
}

impl TlsFault {
    /// Whether the key is at fault, and not the certificate.
    pub(super) fn is_about_key(&self) -> bool {
        matches!(
            self,
            TlsFault::NoKey | TlsFault::BadKey | TlsFault::Mismatch
        )
    }
}

/// A certificate chain that is ready to be served, and the names it is for.
pub(super) struct Chain {
    certified: Arc<CertifiedKey>,
    /// Lower case; `*.` in front of a wildcard.
    names: Vec<String>,
    not_after: i64,
}

impl Chain {
    /// When the certificate expires: Unix time, seconds.
    pub(super) fn not_after(&self) -> i64 {
        self.not_after
    }
}

/// Whose connections are taken.
pub(super) enum Clients {
    Anybody,
    /// Those with a certificate that the verifier accepts.
    Verified(Arc<dyn ClientCertVerifier>),
}

/// Reads a chain and its key, and checks that they belong together.
pub(super) fn chain(cert_pem: &[u8], key_pem: &[u8]) -> Result<Chain, TlsFault> {
    let certificates = certificates(cert_pem)?;
    let first = certificates.first().ok_or(TlsFault::NoCertificate)?;
    let end_entity =
        webpki::EndEntityCert::try_from(first).map_err(|_| TlsFault::BadCertificate)?;
    let names = end_entity
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    let (_, parsed) = x509_parser::parse_x509_certificate(first.as_ref())
        .map_err(|_| TlsFault::BadCertificate)?;
    let not_after = parsed.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsFault::NoKey)?;
    let certified = CertifiedKey::from_der(certificates.clone(), key, &ring::default_provider())
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsFault::Mismatch,
            rustls::Error::InvalidCertificate(_) => TlsFault::BadCertificate,
            _ => TlsFault::BadKey,
        })?;
    Ok(Chain {
        certified: Arc::new(certified),
        names,
        not_after,
    })
}

/// Reads authorities, and demands that every client has a certificate of theirs.
pub(super) fn clients_signed_by(ca_pem: &[u8]) -> Result<Clients, TlsFault> {
    let roots = Arc::new(authorities(ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    Ok(Clients::Verified(verifier))
}

/// Reads the certificates of authorities; all of them must be usable.
pub(super) fn authorities(ca_pem: &[u8]) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots
            .add(certificate)
            .map_err(|_| TlsFault::BadCertificate)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(TlsFault::NoCertificate),
    }
}

/// What a listener serves: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, the certificate by SNI.
pub(super) fn server_config(
    chains: Vec<Chain>,
    clients: Clients,
) -> Result<Arc<rustls::ServerConfig>, TlsFault> {
    let by_name = ByName::new(chains).ok_or(TlsFault::NoCertificate)?;
    let versions = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?;
    let with_clients = match clients {
        Clients::Anybody => versions.with_no_client_auth(),
        Clients::Verified(verifier) => versions.with_client_cert_verifier(verifier),
    };
    let mut config = with_clients.with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Certificates by the names in them: exact before wildcard, the first certificate for the rest.
struct ByName {
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn new(chains: Vec<Chain>) -> Option<ByName> {
        let default = Arc::clone(&chains.first()?.certified);
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for Chain {
            certified, names, ..
        } in chains
        {
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix.to_owned()),
                    None => (&mut exact, name),
                };
                // Of two certificates for a name, the first in the file serves it.
                map.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
        }
        Some(ByName {
            default,
            exact,
            wildcard,
        })
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            // A wildcard stands for exactly one label (RFC 9525, section 6.3).
            let under = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(under)
        });
        named.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.find(client_hello.server_name())))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.exact.keys().chain(self.wildcard.keys());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn signed(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn chain_for(names: &[&str]) -> Chain {
        let (cert, key) = signed(names);
        chain(cert.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn the_certificate_is_chosen_by_name() {
        let by_name = ByName::new(vec![
            chain_for(&["first.test"]),
            chain_for(&["*.example.test"]),
            chain_for(&["exact.example.test"]),
        ])
        .unwrap();
        let index = |name: Option<&str>| {
            let found = by_name.find(name);
            if Arc::ptr_eq(found, &by_name.default) {
                0
            } else if Arc::ptr_eq(found, &by_name.wildcard["example.test"]) {
                1
            } else {
                2
            }
        };
        for (name, expected) in [
            (None, 0),
            (Some("first.test"), 0),
            (Some("unknown.test"), 0),
            (Some("a.example.test"), 1),
            (Some("exact.example.test"), 2),
            (Some("EXACT.example.test"), 2),
            (Some("a.b.example.test"), 0),
            (Some("example.test"), 0),
        ] {
            assert_eq!(index(name), expected, "{name:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (cert, key) = signed(&["a.test"]);
        let (_, other_key) = signed(&["a.test"]);
        let fault = |cert: &str, key: &str| {
            chain(cert.as_bytes(), key.as_bytes())
                .err()
                .map(|fault| fault.to_string())
        };
        assert_eq!(fault(&cert, &key), None);
        assert_eq!(
            fault(&cert, &other_key).unwrap(),
            TlsFault::Mismatch.to_string()
        );
        assert_eq!(
            fault(&key, &key).unwrap(),
            TlsFault::NoCertificate.to_string()
        );
        assert_eq!(fault(&cert, &cert).unwrap(), TlsFault::NoKey.to_string());
        assert!(clients_signed_by(b"nothing").is_err());
        assert!(authorities(cert.as_bytes()).is_ok());
    }

    /// Lets a client and a server talk in memory until both are done or one refuses.
    fn handshake(server: Arc<rustls::ServerConfig>, client: rustls::ClientConfig) -> bool {
        let name = "a.test".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            client.write_tls(&mut to_server).unwrap();
            server.read_tls(&mut to_server.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            server.write_tls(&mut to_client).unwrap();
            client.read_tls(&mut to_client.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
        let (cert, key) = signed(&["a.test"]);
        let serve = |clients| {
            let chain = chain(cert.as_bytes(), key.as_bytes()).unwrap();
            server_config(vec![chain], clients).unwrap()
        };
        let client = || {
            let builder = rustls::ClientConfig::builder_with_provider(provider());
            let versions = builder.with_safe_default_protocol_versions().unwrap();
            let trusting = versions.with_root_certificates(authorities(cert.as_bytes()).unwrap());
            trusting.with_no_client_auth()
        };
        assert!(handshake(serve(Clients::Anybody), client()));
        let verified = clients_signed_by(cert.as_bytes()).unwrap();
        assert!(!handshake(serve(verified), client()));
    }

    #[test]
    fn both_protocols_are_offered() {
        let config = server_config(vec![chain_for(&["a.test"])], Clients::Anybody).unwrap();
        assert_eq!(
            config.alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
    }
}

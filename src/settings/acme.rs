//! Certificates by ACME (RFC 8555).

use std::sync::Arc;

use url::Url;
use zeroize::Zeroizing;

use crate::tls::IssuedCertificates;

/// The certificates by ACME of one listener.
#[derive(Debug, Clone)]
pub struct ListenerAcme {
    pub settings: Arc<AcmeSettings>,
    /// Those that have been issued; the listener serves them.
    pub issued: Arc<IssuedCertificates>,
}

/// Where and how certificates are ordered, one for each domain.
#[derive(Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// `https`, or `http` on loopback.
    pub directory: Url,
    pub email: Option<String>,
    pub external_account: Option<ExternalAccount>,
    /// In lower case; no wildcards. Never empty.
    pub domains: Vec<String>,
    pub challenge: ChallengeKind,
    /// Trusted CA certificates for the directory, in PEM; `None` for those of the system.
    pub ca: Option<Vec<u8>>,
}

/// An account outside of ACME, to which the account is bound (RFC 8555, section 7.3.4).
#[derive(PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExternalAccount({})", self.key_id)
    }
}

/// How control over a domain is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a handshake on the TLS listener (RFC 8737).
    TlsAlpn,
    /// By a response on a plain listener (RFC 8555, section 8.3).
    Http,
}

//! Access tokens: keys, verification, minting, claims (RFC 7519, RFC 8725, RFC 9068).

mod assertion;
mod check;
mod claims;
mod derive;
#[cfg(test)]
pub(crate) mod fixtures;
mod inspect;
mod jwk;
mod jws;
mod key;
mod mint;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use assertion::AssertionClaims;
pub(crate) use check::{VerifiedToken, VerifyError};
pub(crate) use claims::{is_invisible, is_user_id, parse_string_list};
pub use inspect::{Inspection, inspect};
pub use jwk::{IgnoredKey, KeySet, parse_jwks};
pub use key::{Key, KeyError};
pub use mint::{AccessTokenClaims, SignError};
use sha2::{Digest, Sha256};

use crate::auth::session::{Millis, SessionId};

/// Everything the gateway knows about tokens, as configured.
#[derive(Debug)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    pub refresh_grace: Duration,
    pub leeway: Duration,
    /// Absent when every token comes from trusted issuers.
    pub signing: Option<Key>,
    /// The signing key and the older ones, in the order in which they are tried.
    pub verifying: Vec<Key>,
    pub trusted: Vec<Arc<TrustedIssuer>>,
}

/// Another issuer whose tokens are accepted.
#[derive(Debug)]
pub struct TrustedIssuer {
    pub issuer: String,
    pub keys: KeySource,
    pub audience: String,
    pub algorithms: Vec<Algorithm>,
    pub claims: ClaimNames,
    pub user_prefix: String,
    pub require_session: bool,
}

#[derive(Debug)]
pub enum KeySource {
    /// Read at load.
    File(KeySet),
    /// Fetched in the background by `issuers`.
    Url(url::Url),
}

/// Where a foreign token keeps what we need. Each is a JSON pointer (RFC 6901) when it begins with a
/// slash (`/realm_access/roles`); else the name of a claim, or, when there is no claim of exactly
/// that name, a path of members with dots between them (`realm_access.roles`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    pub user: String,
    pub email: String,
    pub roles: String,
    pub scopes: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ];

    /// The name that RFC 7518 and RFC 8037 give it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
        }
    }

    /// Reads the name back; names are case-sensitive. `Ed25519` is EdDSA with that curve, the only one
    /// here (RFC 9864, section 2.2).
    pub fn parse(text: &str) -> Option<Algorithm> {
        if text == "Ed25519" {
            return Some(Algorithm::EdDSA);
        }
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
    }

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a certificate in DER, `x5t#S256` (RFC 8705, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// Hashes a certificate in DER.
    pub fn of(der: &[u8]) -> CertificateHash {
        CertificateHash(Sha256::digest(der).into())
    }

    /// Reads it back from base64url without padding.
    fn parse(text: &str) -> Option<CertificateHash> {
        let hash = jws::decode(text).ok()?;
        hash.try_into().ok().map(CertificateHash)
    }
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `None`: our own; else index into [`Tokens::trusted`].
    pub trusted: Option<usize>,
    pub issuer: String,
    /// With `user_prefix` in front, for a foreign token.
    pub user: String,
    /// For our own tokens, and for trusted issuers with `require_session`.
    pub session: Option<SessionId>,
    /// What the blacklist names the token by: its `jti`, or the hex SHA-256 of the token up to its
    /// last dot when it has none.
    pub blacklist_key: String,
    pub issued_at: Option<Millis>,
    pub expires_at: Millis,
    pub email: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    /// The client certificate that the presenter of the token must have.
    pub certificate: Option<CertificateHash>,
}

impl Claims {
    /// Tells whether the token may be presented on a connection with this client certificate. A
    /// bound token is never a plain bearer token (RFC 8705, section 3).
    pub fn allows_certificate(&self, certificate: Option<&CertificateHash>) -> bool {
        self.certificate
            .as_ref()
            .is_none_or(|bound| certificate == Some(bound))
    }

    /// The user's key in the store, the database and counters: issuer and user of a trusted
    /// issuer, which may use the ids of this gateway's users; the id alone of this gateway's.
    pub fn user_key(&self) -> Cow<'_, str> {
        match self.trusted {
            Some(_) => format!("{}\0{}", self.issuer, self.user).into(),
            None => self.user.as_str().into(),
        }
    }

    /// When it was issued, in whole seconds.
    pub fn issued_at_seconds(&self) -> Option<u64> {
        self.issued_at.map(|at| at / 1000)
    }
}

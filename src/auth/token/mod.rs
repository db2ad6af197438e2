//! Access tokens: keys, verification, issuance, claims (RFC 7519, RFC 8725, RFC 9068).

mod assertion;
mod check;
mod claims;
mod client_assertion;
mod derive;
#[cfg(test)]
pub(crate) mod fixtures;
mod inspect;
mod introspection;
mod jwk;
mod jws;
mod key;
mod mint;
pub mod provider_token;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use assertion::AssertionClaims;
pub(crate) use check::{VerifiedToken, VerifyError};
pub(crate) use claims::{is_invisible, is_user_id, parse_string_list};
pub use inspect::{Inspection, inspect};
pub use introspection::IntrospectionRules;
pub(crate) use introspection::{IntrospectionVerdict, opaque_token_key};
pub use jwk::{IgnoredKey, KeySet, parse_jwks};
pub use key::{Key, KeyError};
pub use mint::{AccessTokenClaims, SignError};
use sha2::{Digest, Sha256};

use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::session::{Millis, SessionId};

/// Configured tokens: the gateway's own, their keys, and trusted issuers.
#[derive(Debug)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    pub refresh_grace: Duration,
    pub leeway: Duration,
    /// `None` if all tokens come from trusted issuers.
    pub signing: Option<Key>,
    /// The signing key and previous keys, in the order in which they are tried.
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
    /// Empty for an issuer with a prefix of its own.
    pub reserved_prefixes: ReservedPrefixes,
    pub require_session: bool,
    /// Index of the introspection entry that its tokens must pass too.
    pub introspection: Option<usize>,
}

#[derive(Debug)]
pub enum KeySource {
    /// Read at load.
    File(KeySet),
    /// Fetched in the background by `issuers`.
    Url(url::Url),
    /// The same, from the address in the issuer's metadata.
    Discovered,
}

/// Names of the claims that the gateway reads from tokens of a trusted issuer.
///
/// A name that starts with a slash is a JSON pointer (RFC 6901), such as `/realm_access/roles`.
/// Otherwise it is the exact name of a claim, or, if there is none, a path with dots, such as
/// `realm_access.roles`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    pub user: String,
    pub email: String,
    pub roles: String,
    pub scopes: String,
}

/// A signature algorithm. PS256 and ES384 are for providers and for authenticating at them: no
/// configuration of own tokens or trusted issuers names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    RS256,
    PS256,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    pub const ALL: [Algorithm; 6] = [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    /// The name in RFC 7518 and RFC 8037.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::PS256 => "PS256",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::EdDSA => "EdDSA",
        }
    }

    /// Parses a name, which is case-sensitive. `Ed25519` is EdDSA with that curve, the only
    /// supported one (RFC 9864, section 2.2).
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
            Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a certificate in DER: `x5t#S256` (RFC 8705, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// Hashes a certificate in DER.
    pub fn of(der: &[u8]) -> CertificateHash {
        CertificateHash(Sha256::digest(der).into())
    }

    /// Parses a hash in base64url without padding.
    fn parse(text: &str) -> Option<CertificateHash> {
        let hash = jws::decode(text).ok()?;
        hash.try_into().ok().map(CertificateHash)
    }
}

/// What vouches for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The gateway's own signature.
    Own,
    /// That of a trusted issuer: an index into [`Tokens::trusted`].
    Trusted(usize),
    /// The introspection entry of this name.
    Introspected(Arc<str>),
}

/// Claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub source: TokenSource,
    /// Issuer of the user.
    pub issuer: String,
    /// Includes the `user_prefix` of the source.
    pub user: String,
    /// Set for the gateway's own tokens, and for trusted issuers with `require_session`.
    pub session: Option<SessionId>,
    /// Key of the token in the blacklist: its `jti`, or, without one, the SHA-256 of the token up
    /// to its last dot, in hex. Of an introspected token, the SHA-256 of all of it.
    pub blacklist_key: String,
    pub issued_at: Option<Millis>,
    pub expires_at: Millis,
    pub email: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    /// Client certificate that the token is bound to.
    pub certificate: Option<CertificateHash>,
}

impl Claims {
    /// Whether the token is accepted on a connection with this client certificate. A bound token is
    /// never accepted as a plain bearer token (RFC 8705, section 3).
    pub fn allows_certificate(&self, certificate: Option<&CertificateHash>) -> bool {
        self.certificate
            .as_ref()
            .is_none_or(|bound| certificate == Some(bound))
    }

    /// Returns the user's key in the store, the database and counters: issuer and user, or, for the
    /// gateway's own tokens, the user alone.
    pub fn user_key(&self) -> Cow<'_, str> {
        match self.is_own() {
            false => format!("{}\0{}", self.issuer, self.user).into(),
            true => self.user.as_str().into(),
        }
    }

    /// Whether the gateway has issued the token.
    pub fn is_own(&self) -> bool {
        self.source == TokenSource::Own
    }

    /// Returns the time of issue in whole seconds.
    pub fn issued_at_seconds(&self) -> Option<u64> {
        self.issued_at.map(|at| at / 1000)
    }
}

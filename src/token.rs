//! Access tokens: keys, verification, minting, claims (RFC 7519, RFC 8725, RFC 9068).

use std::sync::Arc;
use std::time::Duration;

use crate::session::{Millis, SessionId};

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
    File(Vec<Key>),
    /// Fetched in the background by `issuers`.
    Url(url::Url),
}

/// Where a foreign token keeps what we need.
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
}

/// A key with the one algorithm that it may be used for.
#[derive(Clone)]
pub struct Key {
    pub id: Option<String>,
    pub algorithm: Algorithm,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

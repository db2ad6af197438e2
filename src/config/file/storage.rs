//! Store, database and tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::file::introspection::Introspection;
use crate::config::units::{Secret, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Store {
    /// `memory`, `redis://HOST:PORT/DATABASE`,
    /// `redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE` or
    /// `redis+cluster://HOST:PORT,HOST:PORT`; `rediss` in place of `redis` for TLS.
    pub(in crate::config) url: String,
    /// Redis user.
    pub(in crate::config) username: Option<String>,
    /// Redis password.
    pub(in crate::config) password: Option<Secret>,
    /// File with the password; replaces `password`.
    pub(in crate::config) password_file: Option<String>,
    /// Password of the Sentinels, if they require one.
    pub(in crate::config) sentinel_password: Option<Secret>,
    /// File with the password of the Sentinels; replaces `sentinel_password`.
    pub(in crate::config) sentinel_password_file: Option<String>,
    /// TLS to Redis and its Sentinels. The files are re-read for each connection.
    pub(in crate::config) tls: Option<StoreTls>,
    /// Prefix of every key.
    pub(in crate::config) key_prefix: String,
    /// Time limit for one operation. A timeout counts as an outage, never as a negative result.
    pub(in crate::config) timeout: Time,
    /// Replicas that must acknowledge a revocation before it is reported as successful; otherwise
    /// the response is 503.
    #[schemars(range(max = 100))]
    pub(in crate::config) revocation_replicas: u32,
    /// Degraded mode: behavior while the store does not respond.
    pub(in crate::config) on_outage: Outage,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            url: "memory".to_owned(),
            username: None,
            password: None,
            password_file: None,
            sentinel_password: None,
            sentinel_password_file: None,
            tls: None,
            key_prefix: "portcullis:".to_owned(),
            timeout: Time::millis(100),
            revocation_replicas: 0,
            on_outage: Outage::default(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct StoreTls {
    /// PEM file with the trusted CA certificates. `null`: those of the system.
    pub(in crate::config) ca: Option<String>,
    /// PEM file with the gateway's client certificate, if the servers require one.
    pub(in crate::config) cert: Option<String>,
    /// PEM file with the key of that certificate.
    pub(in crate::config) key: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Outage {
    /// Sessions in degraded mode. `deny`: 503. `cached`: entries of the near cache that are at most
    /// `cached_for` old. `token_only`: a valid access token suffices unless its revocation is
    /// cached.
    pub(in crate::config) sessions: SessionsOnOutage,
    /// Maximum age of entries under `cached`.
    pub(in crate::config) cached_for: Time,
    /// Limits in degraded mode. `local`: this gateway enforces its share of each limit from memory.
    /// `allow`: no limits. `deny`: 503.
    pub(in crate::config) limits: LimitsOnOutage,
}

impl Default for Outage {
    fn default() -> Outage {
        Outage {
            sessions: SessionsOnOutage::Deny,
            cached_for: Time::seconds(300),
            limits: LimitsOnOutage::Local,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum SessionsOnOutage {
    Deny,
    Cached,
    TokenOnly,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum LimitsOnOutage {
    Local,
    Allow,
    Deny,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Database {
    /// `sqlite:PATH`, with a path relative to the working directory, or
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, optionally with `?sslmode=` (`disable`,
    /// `prefer`, `require`, `verify-ca` or `verify-full`), `sslrootcert=` (a PEM file) and `host=`
    /// (the directory of a unix socket).
    pub(in crate::config) url: String,
    /// PostgreSQL password.
    pub(in crate::config) password: Option<Secret>,
    /// File with the password; replaces `password`.
    pub(in crate::config) password_file: Option<String>,
    /// Maximum number of connections that a gateway opens to PostgreSQL.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) connections: u32,
}

impl Default for Database {
    fn default() -> Database {
        Database {
            url: "sqlite:portcullis.db".to_owned(),
            password: None,
            password_file: None,
            connections: 10,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Tokens {
    /// `iss` of the gateway's own tokens.
    pub(in crate::config) issuer: String,
    /// `aud` of the gateway's own tokens.
    pub(in crate::config) audience: String,
    /// Lifetime of an access token.
    pub(in crate::config) access_ttl: Time,
    /// Lifetime of a refresh token, which never outlives its session.
    pub(in crate::config) refresh_ttl: Time,
    /// How long a rotated refresh token still returns the same successor.
    pub(in crate::config) refresh_grace: Time,
    /// Tolerated clock difference.
    pub(in crate::config) leeway: Time,
    /// Key that signs the gateway's own tokens. Required unless `api` is null and all tokens come
    /// from `trusted_issuers` or `introspection`.
    pub(in crate::config) signing: Option<SigningKey>,
    /// Previous keys, in the same form, that are accepted until they are removed; for key rotation.
    /// A public key suffices.
    pub(in crate::config) verify_also: Vec<SigningKey>,
    /// Other issuers whose tokens are accepted.
    pub(in crate::config) trusted_issuers: Vec<TrustedIssuer>,
    /// Endpoints at which tokens are verified that only their issuer can read (RFC 7662).
    pub(in crate::config) introspection: Vec<Introspection>,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            issuer: "portcullis".to_owned(),
            audience: "portcullis".to_owned(),
            access_ttl: Time::seconds(15 * 60),
            refresh_ttl: Time::seconds(30 * 86_400),
            refresh_grace: Time::seconds(30),
            leeway: Time::seconds(5),
            signing: None,
            verify_also: Vec::new(),
            trusted_issuers: Vec::new(),
            introspection: Vec::new(),
        }
    }
}

/// A secret for HS256, a PEM key for other algorithms. `portcullis keys generate` creates either.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SigningKey {
    /// The only algorithm that the key is used with.
    pub(in crate::config) algorithm: Algorithm,
    /// `kid` of the key. `null`: its RFC 7638 thumbprint (none for HS256).
    #[serde(default)]
    pub(in crate::config) id: Option<String>,
    /// Secret for HS256, at least 32 bytes.
    #[serde(default)]
    pub(in crate::config) secret: Option<Secret>,
    /// File with the secret; replaces `secret`.
    #[serde(default)]
    pub(in crate::config) secret_file: Option<String>,
    /// Key for other algorithms, in PEM.
    #[serde(default)]
    pub(in crate::config) key: Option<Secret>,
    /// PEM file with the key; replaces `key`.
    #[serde(default)]
    pub(in crate::config) key_file: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::config) enum Algorithm {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct TrustedIssuer {
    /// Exact `iss` of the issuer's tokens.
    pub(in crate::config) issuer: String,
    /// URL of the key set: https, or http on a loopback address. It is fetched every ten minutes,
    /// and for a token with an unknown key, at most once in 30 seconds. For a token without a known
    /// `kid`, at most 16 keys are tried. Unusable keys are logged. Without `jwks_url` and
    /// `jwks_file`, it is the `jwks_uri` in the metadata of `issuer`.
    #[serde(default)]
    pub(in crate::config) jwks_url: Option<String>,
    /// File with the key set; replaces `jwks_url`.
    #[serde(default)]
    pub(in crate::config) jwks_file: Option<String>,
    /// Exact `aud` of the issuer's tokens.
    pub(in crate::config) audience: String,
    /// Algorithms that the keys may be used with. HS256 requires `jwks_file`.
    #[serde(default = "asymmetric")]
    #[schemars(length(min = 1))]
    pub(in crate::config) algorithms: Vec<Algorithm>,
    /// Names of the claims that the gateway reads.
    #[serde(default)]
    pub(in crate::config) claims: Claims,
    /// Prefix for the IDs of the issuer's users.
    #[serde(default)]
    pub(in crate::config) user_prefix: String,
    /// Whether the tokens must belong to a session of this gateway. If not, their `sid` is ignored.
    #[serde(default)]
    pub(in crate::config) require_session: bool,
    /// Name of the `introspection` entry that the tokens must pass as well, after their signature.
    #[serde(default)]
    pub(in crate::config) introspection: Option<String>,
}

fn asymmetric() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Claims {
    /// Claim with the user's ID: a string, or, in a claim other than `sub`, an integer, which is
    /// used in decimal.
    pub(in crate::config) user: String,
    /// Claim with the user's email address.
    pub(in crate::config) email: String,
    /// Claim with the user's roles.
    pub(in crate::config) roles: String,
    /// Claim with the token's scopes.
    pub(in crate::config) scopes: String,
}

impl Default for Claims {
    fn default() -> Claims {
        Claims {
            user: "sub".to_owned(),
            email: "email".to_owned(),
            roles: "roles".to_owned(),
            scopes: "scope".to_owned(),
        }
    }
}

//! The store, the database and tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{Secret, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Store {
    /// `memory`, `redis://HOST:PORT/DATABASE`, `redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE` or
    /// `redis+cluster://HOST:PORT,HOST:PORT`; `rediss` in place of `redis` for TLS.
    pub(in crate::config) url: String,
    /// The Redis user.
    pub(in crate::config) username: Option<String>,
    /// The Redis password.
    pub(in crate::config) password: Option<Secret>,
    /// A file that holds the password, in place of `password`.
    pub(in crate::config) password_file: Option<String>,
    /// The Sentinels' password, where they want one.
    pub(in crate::config) sentinel_password: Option<Secret>,
    /// A file that holds it, in place of `sentinel_password`.
    pub(in crate::config) sentinel_password_file: Option<String>,
    /// TLS towards Redis and its Sentinels. The files are read again for each connection.
    pub(in crate::config) tls: Option<StoreTls>,
    /// What every key begins with.
    pub(in crate::config) key_prefix: String,
    /// For any one operation. Past it the answer is "unknown", never "no".
    pub(in crate::config) timeout: Time,
    /// Replicas that must have a revocation before its caller hears of success; else it hears 503.
    #[schemars(range(max = 100))]
    pub(in crate::config) revocation_replicas: u32,
    /// What holds while the store does not answer.
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
    /// PEM file of the authorities to trust. `null`: the system's.
    pub(in crate::config) ca: Option<String>,
    /// PEM file of the gateway's certificate, where the servers ask for one.
    pub(in crate::config) cert: Option<String>,
    /// PEM file of its key.
    pub(in crate::config) key: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Outage {
    /// `deny`: 503. `cached`: what this gateway knows, at most `cached_for` old. `token_only`: a
    /// valid access token that is not known to be revoked is enough.
    pub(in crate::config) sessions: SessionsOnOutage,
    /// How old knowledge may be under `cached`.
    pub(in crate::config) cached_for: Time,
    /// `local`: the same limits, kept in this process. `allow`: none. `deny`: 503.
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
    /// `sqlite:PATH`, the path relative to the working directory, or
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with `?sslmode=` (`disable`, `prefer`, `require`,
    /// `verify-ca` or `verify-full`), `sslrootcert=` (a PEM file) and `host=` (a socket's folder).
    pub(in crate::config) url: String,
    /// The password at the PostgreSQL server.
    pub(in crate::config) password: Option<Secret>,
    /// A file that holds the password, in place of `password`.
    pub(in crate::config) password_file: Option<String>,
    /// How many connections to PostgreSQL a gateway opens at most.
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
    /// The `iss` of the gateway's own tokens.
    pub(in crate::config) issuer: String,
    /// Their `aud`.
    pub(in crate::config) audience: String,
    /// The life of an access token.
    pub(in crate::config) access_ttl: Time,
    /// The life of a refresh token. It never outlives its session.
    pub(in crate::config) refresh_ttl: Time,
    /// How long a rotated refresh token still gets the same successor.
    pub(in crate::config) refresh_grace: Time,
    /// How far clocks may be apart.
    pub(in crate::config) leeway: Time,
    /// The key that signs the gateway's own tokens. Required, unless `api` is null and every token
    /// comes from `trusted_issuers`.
    pub(in crate::config) signing: Option<SigningKey>,
    /// Older keys, in the same form, accepted until they are removed. For rotation. A public key
    /// is enough here.
    pub(in crate::config) verify_also: Vec<SigningKey>,
    /// Other issuers whose tokens are accepted.
    pub(in crate::config) trusted_issuers: Vec<TrustedIssuer>,
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
        }
    }
}

/// A secret for HS256, a PEM key for the others. `portcullis keys generate` makes either.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SigningKey {
    /// What the key is used for, and nothing else.
    pub(in crate::config) algorithm: Algorithm,
    /// The `kid`. `null`: the key's RFC 7638 thumbprint (none for HS256).
    #[serde(default)]
    pub(in crate::config) id: Option<String>,
    /// For HS256: at least 32 bytes.
    #[serde(default)]
    pub(in crate::config) secret: Option<Secret>,
    /// A file that holds the secret, in place of `secret`.
    #[serde(default)]
    pub(in crate::config) secret_file: Option<String>,
    /// For the others: the key itself, PEM.
    #[serde(default)]
    pub(in crate::config) key: Option<Secret>,
    /// A PEM file, in place of `key`.
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
    /// The exact `iss` of its tokens.
    pub(in crate::config) issuer: String,
    /// Where its key set is fetched from: https, or http on a loopback address. Fetched every ten minutes,
    /// and for a token whose key is not known, at most once in 30 seconds. At most 16 keys are tried for a
    /// token that names no known `kid`; keys that cannot be used are named in the log.
    #[serde(default)]
    pub(in crate::config) jwks_url: Option<String>,
    /// A file with its key set, in place of `jwks_url`.
    #[serde(default)]
    pub(in crate::config) jwks_file: Option<String>,
    /// The exact `aud` of its tokens.
    pub(in crate::config) audience: String,
    /// What its keys may be used for. HS256 only with `jwks_file`.
    #[serde(default = "asymmetric")]
    #[schemars(length(min = 1))]
    pub(in crate::config) algorithms: Vec<Algorithm>,
    /// Where its tokens keep what the gateway needs.
    #[serde(default)]
    pub(in crate::config) claims: Claims,
    /// Put in front of its users' ids.
    #[serde(default)]
    pub(in crate::config) user_prefix: String,
    /// Whether its tokens must belong to a session of this gateway. Otherwise their `sid` is ignored.
    #[serde(default)]
    pub(in crate::config) require_session: bool,
}

fn asymmetric() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Claims {
    /// The user's ID: a string, or, in a claim other than `sub`, a whole number, which counts as its digits.
    pub(in crate::config) user: String,
    /// The user's email address.
    pub(in crate::config) email: String,
    /// The user's roles.
    pub(in crate::config) roles: String,
    /// The token's scopes.
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

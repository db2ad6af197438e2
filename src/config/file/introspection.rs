//! Introspection of tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::file::backend::BackendTls;
use crate::config::file::provider::ClientKey;
use crate::config::file::storage::Claims;
use crate::config::units::{Secret, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Introspection {
    /// Name in logs, metrics and `trusted_issuers[].introspection`: at most 32 characters of `a-z`,
    /// `0-9` and `-`.
    #[schemars(length(min = 1, max = 32))]
    pub(in crate::config) name: String,
    /// Issuer of the tokens. Its metadata names the endpoint, unless `url` does. An `iss` in a response
    /// must equal it.
    #[serde(default)]
    pub(in crate::config) issuer: Option<String>,
    /// Address of the endpoint: https, or http on a loopback address. `null`: the
    /// `introspection_endpoint` in the metadata of `issuer`.
    #[serde(default)]
    pub(in crate::config) url: Option<String>,
    /// ID of the gateway at the endpoint.
    #[schemars(length(min = 1, max = 1000))]
    pub(in crate::config) client_id: String,
    /// How the gateway authenticates at the endpoint. `private_key_jwt` requires `client_key`, the
    /// others require `client_secret`.
    #[serde(default)]
    pub(in crate::config) client_auth: IntrospectionAuth,
    /// Secret of the gateway at the endpoint.
    #[serde(default)]
    pub(in crate::config) client_secret: Option<Secret>,
    /// File with the secret; replaces `client_secret`.
    #[serde(default)]
    pub(in crate::config) client_secret_file: Option<String>,
    /// Private key for `private_key_jwt`. Its public half is registered at the server.
    #[serde(default)]
    pub(in crate::config) client_key: Option<ClientKey>,
    /// Beginning of the tokens that are sent to this endpoint. `null`: the tokens that begin with no
    /// other entry's prefix; one entry at most.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub(in crate::config) prefix: Option<String>,
    /// A value that `aud` of a response must have. `null`: `aud` is not checked.
    #[serde(default)]
    pub(in crate::config) audience: Option<String>,
    /// Names of the members of a response that the gateway reads.
    #[serde(default)]
    pub(in crate::config) claims: Claims,
    /// Prefix for the IDs of its users. `null`: the name and a colon.
    #[serde(default)]
    pub(in crate::config) user_prefix: Option<String>,
    /// How long a response counts: a token that is revoked at its server is accepted for at most this
    /// time.
    #[serde(default = "ten_seconds")]
    pub(in crate::config) cached_for: Time,
    /// Time limit for one call. After it, the response is 503.
    #[serde(default = "two_seconds")]
    pub(in crate::config) timeout: Time,
    /// Maximum number of concurrent calls of one gateway. Beyond it, the response is 503.
    #[serde(default = "sixty_four")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) concurrency: u32,
    /// What becomes of a token while the endpoint gives no usable response. `deny`: 503. `cached`: if
    /// the token was active within the last 5 minutes and has not expired, it is accepted.
    #[serde(default)]
    pub(in crate::config) on_outage: IntrospectionOutage,
    /// TLS to the endpoint.
    #[serde(default)]
    pub(in crate::config) tls: BackendTls,
}

fn ten_seconds() -> Time {
    Time::seconds(10)
}

fn two_seconds() -> Time {
    Time::seconds(2)
}

fn sixty_four() -> u32 {
    64
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum IntrospectionAuth {
    #[default]
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum IntrospectionOutage {
    #[default]
    Deny,
    Cached,
}

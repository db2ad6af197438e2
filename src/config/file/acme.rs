//! Certificates by ACME.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Secret;

/// Certificates by ACME (RFC 8555), one for each domain. They are kept in the database, their keys
/// sealed with `encryption.key`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Acme {
    /// Address of the certificate authority's directory, such as
    /// `https://acme-v02.api.letsencrypt.org/directory`.
    pub(in crate::config) directory: String,
    /// Email address for the authority's notices. `null`: none.
    #[serde(default)]
    pub(in crate::config) email: Option<String>,
    /// Whether the authority's terms of service are accepted; required.
    #[serde(default)]
    pub(in crate::config) accept_terms: bool,
    /// Domains of the listener, at most 100, without wildcards.
    #[schemars(length(min = 1))]
    pub(in crate::config) domains: Vec<String>,
    /// How control over the domains is proven: by a handshake with this listener, which the authority
    /// must reach at port 443, or by a response on the plain listeners, which it must reach at port
    /// 80.
    #[serde(default)]
    pub(in crate::config) challenge: Challenge,
    /// Account outside of ACME that the authority requires. `null`: none.
    #[serde(default)]
    pub(in crate::config) external_account: Option<ExternalAccount>,
    /// PEM file with the CA certificates that verify the directory. `null`: those of the system.
    #[serde(default)]
    pub(in crate::config) ca: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::config) enum Challenge {
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "http-01")]
    Http,
}

/// External account binding (RFC 8555, section 7.3.4).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ExternalAccount {
    /// The authority's ID of the key.
    pub(in crate::config) key_id: String,
    /// The key, in base64url.
    #[serde(default)]
    pub(in crate::config) key: Option<Secret>,
    /// File with the key; replaces `key`.
    #[serde(default)]
    pub(in crate::config) key_file: Option<String>,
}

//! How the gateway authenticates at a provider.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Secret;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ClientAuth {
    #[default]
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
    None,
}

/// A private key. `portcullis keys generate` creates one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ClientKey {
    /// The only algorithm that the key is used with.
    pub(in crate::config) algorithm: ClientKeyAlgorithm,
    /// `kid` of the key. `null`: its RFC 7638 thumbprint.
    #[serde(default)]
    pub(in crate::config) id: Option<String>,
    /// The key, in PEM.
    #[serde(default)]
    pub(in crate::config) key: Option<Secret>,
    /// PEM file with the key; replaces `key`.
    #[serde(default)]
    pub(in crate::config) key_file: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::config) enum ClientKeyAlgorithm {
    ES256,
    RS256,
    PS256,
    EdDSA,
}

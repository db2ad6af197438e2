//! Keys that seal the tokens of providers and the keys of certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Secret;

/// Keys with which the tokens of providers and the keys of certificates by ACME are sealed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Encryption {
    /// The key: 32 bytes in base64. `portcullis keys generate --algorithm A256GCM` creates one.
    pub(in crate::config) key: Option<Secret>,
    /// File with the key; replaces `key`.
    pub(in crate::config) key_file: Option<String>,
    /// Previous keys, which only open. A value that was sealed with one is sealed anew at its next
    /// use.
    pub(in crate::config) also: Vec<PreviousKey>,
}

/// A key, or the file that contains it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum PreviousKey {
    Key(Secret),
    File(PreviousKeyFile),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct PreviousKeyFile {
    /// File with the key.
    pub(in crate::config) key_file: String,
}

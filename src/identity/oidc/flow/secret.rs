//! Secrets of a flow: state, nonce and verifier.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// 256 random bits in base64url: 43 characters. It is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlowSecret(String);

impl FlowSecret {
    /// Generates a random secret.
    pub fn random() -> FlowSecret {
        FlowSecret(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    /// Returns the secret, for the provider.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares a presented text, in constant time.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl std::fmt::Debug for FlowSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlowSecret(…)")
    }
}

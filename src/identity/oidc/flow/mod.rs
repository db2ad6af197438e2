//! The flow of a sign-in, from its start to its callback. It is sealed in a cookie of its own: clients
//! cannot fill the store with flows, and any gateway of the fleet finishes them.

mod cookies;
mod secret;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use cookies::{FlowCookie, FlowCookieRules, FlowSearch};
pub use secret::FlowSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::auth::sealing::KeyRing;
use crate::auth::session::{Millis, SessionId};
use crate::auth::token::Tokens;

/// How long a flow lives.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Label of the keys among those derived from the keys of the gateway's tokens.
const KEY_LABEL: &str = "portcullis flow";

/// What a sign-in keeps between its start and its callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The provider at which it began.
    pub provider: String,
    pub state: FlowSecret,
    pub nonce: FlowSecret,
    /// The verifier of PKCE (RFC 7636).
    pub verifier: FlowSecret,
    pub started_at: Millis,
    #[serde(flatten)]
    pub request: FlowRequest,
}

/// What a flow was started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRequest {
    /// Repeated when the code is redeemed.
    pub redirect_uri: String,
    /// A safe destination after the sign-in.
    pub return_to: String,
    /// The authentication contexts of which the sign-in must have one; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acr: Vec<String>,
    /// Maximum age of the authentication, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// The session whose user the identity is linked to, instead of a sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_to: Option<SessionId>,
}

impl Flow {
    /// Starts a flow with fresh secrets.
    pub fn start(provider: &str, request: FlowRequest, now: Millis) -> Flow {
        Flow {
            provider: provider.to_owned(),
            state: FlowSecret::random(),
            nonce: FlowSecret::random(),
            verifier: FlowSecret::random(),
            started_at: now,
            request,
        }
    }

    /// The challenge of PKCE for the verifier, by `S256`.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose()))
    }

    fn is_expired(&self, now: Millis) -> bool {
        now.saturating_sub(self.started_at) > LIFETIME.as_millis() as Millis
    }
}

/// Returns the keys that seal flows; those of earlier signing keys open them, so that a rotation loses
/// none. `None` without a signing key.
pub fn keys(tokens: &Tokens) -> Option<KeyRing> {
    tokens.derive_ring(KEY_LABEL)
}

#[cfg(test)]
mod tests;

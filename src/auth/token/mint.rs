//! Issuance of the gateway's own access tokens (RFC 9068).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::{Key, Tokens};
use crate::auth::session::{Millis, SessionId};

/// Claims of a new access token.
#[derive(Debug, Clone, Copy)]
pub struct AccessTokenClaims<'a> {
    pub user: &'a str,
    pub session: SessionId,
    /// The `jti`.
    pub token_id: &'a str,
    pub email: Option<&'a str>,
}

/// Reason why a token could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("there is no signing key, because all tokens come from trusted issuers")]
    NoSigningKey,
    #[error("signing failed")]
    Signing,
}

#[derive(Serialize)]
pub(super) struct Header<'a> {
    pub(super) typ: &'static str,
    pub(super) alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: SessionId,
    jti: &'a str,
    /// In seconds, like `exp`.
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

/// Encodes a part of a token as base64url of its JSON.
pub(super) fn encode(part: &impl Serialize) -> Result<String, SignError> {
    let json = serde_json::to_vec(part).map_err(|_| SignError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

impl Tokens {
    /// Signs an access token that is valid for `access_ttl` from `now`, in whole seconds.
    pub fn mint(&self, claims: &AccessTokenClaims<'_>, now: Millis) -> Result<String, SignError> {
        let key = self.signing.as_ref().ok_or(SignError::NoSigningKey)?;
        let header = Header {
            typ: "at+jwt",
            alg: key.algorithm.as_str(),
            kid: key.id.as_deref(),
        };
        let ttl = Millis::try_from(self.access_ttl.as_millis()).unwrap_or(Millis::MAX);
        let payload = Payload {
            iss: &self.issuer,
            aud: &self.audience,
            sub: claims.user,
            sid: claims.session,
            jti: claims.token_id,
            iat: now / 1000,
            exp: now.saturating_add(ttl) / 1000,
            email: claims.email,
        };
        let message = format!("{}.{}", encode(&header)?, encode(&payload)?);
        let signature = key.sign(message.as_bytes()).ok_or(SignError::Signing)?;
        Ok(format!("{message}.{signature}"))
    }

    /// Returns the public keys that verify the gateway's tokens, as a key set (RFC 7517), without
    /// secrets.
    pub fn jwks(&self) -> serde_json::Value {
        let mut keys = Vec::new();
        for jwk in self
            .signing
            .iter()
            .chain(&self.verifying)
            .filter_map(Key::public_jwk)
        {
            if !keys.contains(&jwk) {
                keys.push(jwk);
            }
        }
        serde_json::json!({ "keys": keys })
    }
}

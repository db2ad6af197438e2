//! Strict parser of the compact form of signed tokens (RFC 7515, section 7.1). Ambiguous tokens are
//! rejected before any key is used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::key::MAX_ID;
use super::{Algorithm, Key};
use crate::json;

/// Maximum number of keys that are tried for a token without a known `kid`, which bounds the cost
/// of forged tokens.
const MAX_TRIES: usize = 16;

/// Reasons for which tokens of providers have faults of their own.
pub(super) const UNSUPPORTED_EXTENSION: &str = "the header requires an extension";
pub(super) const UNSUPPORTED_ALGORITHM: &str = "the algorithm is not supported";
pub(super) const WRONG_TYPE: &str = "`typ` is that of another kind of token";

/// A parsed token that is not verified yet.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) payload: Vec<u8>,
    /// The signed part: the token up to its last dot.
    pub(super) message: &'a str,
    signature: &'a str,
}

/// The result of checking a signature with a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureStatus {
    Valid,
    Invalid,
    /// No key matches, and none has the token's `kid`, if it has one; there may be newer keys.
    UnknownKey,
}

/// What a token is for, which its `typ` must allow. A token without `typ` is a `JWT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenUse {
    /// `JWT` or `at+jwt` (RFC 9068).
    Access,
    /// ID token: `JWT`.
    Id,
    /// Authorization response of a provider: `JWT`.
    AuthorizationResponse,
    /// `JWT` or `logout+jwt` (OpenID Connect Back-Channel Logout 1.0, section 2.4).
    Logout,
}

impl TokenUse {
    /// Whether a `typ` fits. It is a media type, compared case-insensitively, of which
    /// `application/` is optional (RFC 7515, section 4.1.9).
    fn allows(self, typ: &str) -> bool {
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        typ == "jwt"
            || match self {
                TokenUse::Access => typ == "at+jwt",
                TokenUse::Id | TokenUse::AuthorizationResponse => false,
                TokenUse::Logout => typ == "logout+jwt",
            }
    }

    /// Why a token with another `typ` is rejected.
    fn type_error(self) -> &'static str {
        match self {
            TokenUse::Access => "the token is not an access token",
            TokenUse::Id | TokenUse::AuthorizationResponse | TokenUse::Logout => WRONG_TYPE,
        }
    }
}

impl<'a> Jws<'a> {
    /// Parses a token. Its length is bounded by the caller.
    pub(super) fn parse(token: &'a str, usage: TokenUse) -> Result<Jws<'a>, &'static str> {
        let three_parts = "the token does not have three parts";
        let (message, signature) = token.rsplit_once('.').ok_or(three_parts)?;
        let (header, payload) = message.split_once('.').ok_or(three_parts)?;
        if payload.contains('.') {
            return Err(three_parts);
        }
        let header = json::parse(&decode(header)?).map_err(|error| error.reason)?;
        let (algorithm, key_id) = read_header(&header, usage)?;
        if signature.is_empty() {
            return Err("the token is not signed");
        }
        decode(signature)?;
        Ok(Jws {
            algorithm,
            key_id,
            payload: decode(payload)?,
            message,
            signature,
        })
    }

    /// Checks the signature with the keys of the token's algorithm: those with its `kid` if there
    /// are any, or else all.
    pub(super) fn verify(&self, keys: &[Key]) -> SignatureStatus {
        let has_key_id = |key: &Key| self.key_id.is_some() && key.id == self.key_id;
        let is_known = keys.iter().any(has_key_id);
        let is_valid = keys
            .iter()
            .filter(|key| key.algorithm == self.algorithm && (!is_known || has_key_id(key)))
            .take(MAX_TRIES)
            .any(|key| key.verify(self.message.as_bytes(), self.signature));
        if is_valid {
            SignatureStatus::Valid
        } else if !is_known {
            SignatureStatus::UnknownKey
        } else {
            SignatureStatus::Invalid
        }
    }
}

/// Decodes unpadded base64url (RFC 7515, section 2). Unused bits must be zero, so that a token has
/// only one encoding.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| "a part is not valid base64url")
}

/// Parses a header. Keys in it or referenced by it (`jwk`, `jku`, `x5c`, `x5u`) are never used.
fn read_header(
    header: &Map<String, Value>,
    usage: TokenUse,
) -> Result<(Algorithm, Option<String>), &'static str> {
    // No extension is supported, and the list must not be empty (RFC 7515, section 4.1.11).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(UNSUPPORTED_EXTENSION);
    }
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(Algorithm::parse)
        .ok_or(UNSUPPORTED_ALGORITHM)?;
    let token_type = match header.get("typ") {
        None => "JWT",
        Some(typ) => typ.as_str().ok_or("`typ` is not a string")?,
    };
    if !usage.allows(token_type) {
        return Err(usage.type_error());
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_ID => Some(id.clone()),
        Some(_) => return Err("`kid` is not a string of at most 256 bytes"),
    };
    Ok((algorithm, key_id))
}

#[cfg(test)]
mod tests;

//! The compact form of a signed token (RFC 7515, section 7.1), read strictly: whatever has two
//! readings is refused before any key is touched.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::key::MAX_ID;
use super::{Algorithm, Key};
use crate::json;

/// How many keys are tried for a token that names none that is known, so that a forged token
/// costs a bounded time.
const MAX_TRIES: usize = 16;

/// A token taken apart; nothing in it is proven.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) payload: Vec<u8>,
    /// What is signed: the token up to its last dot.
    pub(super) message: &'a str,
    signature: &'a str,
}

/// What a set of keys says about a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureStatus {
    Valid,
    Invalid,
    /// No key fits, and none has the id that the token names, if it names one; there may be newer keys.
    UnknownKey,
}

impl<'a> Jws<'a> {
    /// Takes a token apart, or says what is wrong with its form. Its length is bounded by what brings
    /// it: `limits.head` of a listener.
    pub(super) fn parse(token: &'a str) -> Result<Jws<'a>, &'static str> {
        let three_parts = "the token does not have three parts";
        let (message, signature) = token.rsplit_once('.').ok_or(three_parts)?;
        let (header, payload) = message.split_once('.').ok_or(three_parts)?;
        if payload.contains('.') {
            return Err(three_parts);
        }
        let header = json::parse(&decode(header)?).map_err(|fault| fault.reason)?;
        let (algorithm, key_id) = read_header(&header)?;
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

    /// Checks the signature with those keys whose algorithm it names: the one with the token's key
    /// id when there is one, else each.
    pub(super) fn verify(&self, keys: &[Key]) -> SignatureStatus {
        let named = |key: &Key| self.key_id.is_some() && key.id == self.key_id;
        let known = keys.iter().any(named);
        let genuine = keys
            .iter()
            .filter(|key| key.algorithm == self.algorithm && (!known || named(key)))
            .take(MAX_TRIES)
            .any(|key| key.verify(self.message.as_bytes(), self.signature));
        if genuine {
            SignatureStatus::Valid
        } else if !known {
            SignatureStatus::UnknownKey
        } else {
            SignatureStatus::Invalid
        }
    }
}

/// Unpadded base64url (RFC 7515, section 2) whose unused bits are zero, so that a token has one
/// spelling only.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| "a part is not strict base64url")
}

/// Keys that a header carries or points to (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), &'static str> {
    // We understand no extension, and the list must not be empty (RFC 7515, section 4.1.11).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err("the header has an extension that must be understood");
    }
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(Algorithm::parse)
        .ok_or("the algorithm is not supported")?;
    let kind = match header.get("typ") {
        None => "JWT",
        Some(typ) => typ.as_str().ok_or("`typ` is not a string")?,
    };
    if !is_access_token(kind) {
        return Err("the token is of another type than an access token");
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_ID => Some(id.clone()),
        Some(_) => return Err("`kid` is not a short string"),
    };
    Ok((algorithm, key_id))
}

/// `JWT`, or `at+jwt` of RFC 9068; a media type in either case, `application/` may be left out
/// (RFC 7515, section 4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(typ, "jwt" | "at+jwt")
}

#[cfg(test)]
mod tests;

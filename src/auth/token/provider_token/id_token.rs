//! ID tokens (OpenID Connect Core 1.0, section 3.1.3.7).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{ProviderTokenFault, ProviderTokenRules, VerifiedPayload, millis};
use crate::auth::session::Millis;
use crate::auth::token::jws::TokenUse;
use crate::auth::token::{Algorithm, Key};

/// Maximum length of `acr` and of a value of `amr`, in bytes. Sessions keep them.
const MAX_CONTEXT: usize = 255;
/// Maximum number of values of `amr`.
const MAX_METHODS: usize = 16;

/// What the ID token was requested for.
#[derive(Clone, Copy, Default)]
pub struct IdTokenRequest<'a> {
    /// The nonce of the flow; `None` for a refresh, whose ID token need not repeat it (section
    /// 12.2).
    pub nonce: Option<&'a str>,
    /// The access token of the same response.
    pub access_token: Option<&'a str>,
    pub max_age: Option<Duration>,
    /// The values that `acr` may have; empty: any, or none.
    pub acr: &'a [String],
}

/// A verified ID token.
#[derive(Clone, PartialEq)]
pub struct IdToken {
    pub issuer: String,
    pub subject: String,
    pub issued_at: Millis,
    pub expires_at: Millis,
    /// When the user signed in at the provider.
    pub auth_time: Option<Millis>,
    pub acr: Option<String>,
    pub amr: Vec<String>,
    /// The provider's session ID.
    pub sid: Option<String>,
    /// All members.
    pub claims: Map<String, Value>,
}

impl std::fmt::Debug for IdToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdToken(…)")
    }
}

/// Verifies an ID token with the provider's keys.
///
/// # Errors
///
/// Returns the first check that fails. `UnknownKey` is worth another attempt with newer keys.
pub fn verify_id_token(
    token: &str,
    keys: &[Key],
    rules: &ProviderTokenRules<'_>,
    request: &IdTokenRequest<'_>,
    now: Millis,
) -> Result<IdToken, ProviderTokenFault> {
    let verified = rules.verify(token, TokenUse::Id, keys, now)?;
    let issued_at = verified.issued_at()?;
    let subject = verified
        .subject()?
        .ok_or(ProviderTokenFault::SubjectMissing)?;
    if verified
        .text("azp")?
        .is_some_and(|party| party != rules.client_id)
    {
        return Err(ProviderTokenFault::AuthorizedParty);
    }
    let nonce = verified.text("nonce")?;
    if request.nonce.is_some() && nonce.as_deref() != request.nonce {
        return Err(ProviderTokenFault::Nonce);
    }
    check_access_token_hash(&verified, request.access_token)?;
    let auth_time = verified.payload.date("auth_time")?;
    check_auth_time(auth_time, rules, request.max_age, now)?;
    let acr = verified.text("acr")?;
    if !request.acr.is_empty() && !acr.as_ref().is_some_and(|acr| request.acr.contains(acr)) {
        return Err(ProviderTokenFault::Acr);
    }
    Ok(IdToken {
        issuer: verified.payload.issuer()?.to_owned(),
        subject,
        issued_at,
        expires_at: verified.expires_at,
        auth_time,
        acr: acr.map(check_context).transpose()?,
        amr: methods(verified.payload.member("amr"))?,
        sid: verified.sid()?,
        claims: verified.payload.into_members(),
    })
}

/// Checks `at_hash`, if it is present: the left half of the hash of the access token, by the hash
/// function of the algorithm (section 3.1.3.6).
fn check_access_token_hash(
    verified: &VerifiedPayload,
    access_token: Option<&str>,
) -> Result<(), ProviderTokenFault> {
    let Some(claimed) = verified.text("at_hash")? else {
        return Ok(());
    };
    let expected = access_token.map(|token| left_half_hash(verified.algorithm, token));
    if expected != Some(claimed) {
        return Err(ProviderTokenFault::AccessTokenHash);
    }
    Ok(())
}

fn left_half_hash(algorithm: Algorithm, token: &str) -> String {
    let hash = match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => {
            Sha256::digest(token).to_vec()
        }
        Algorithm::ES384 => Sha384::digest(token).to_vec(),
        // Ed25519 hashes with SHA-512 (RFC 8032, section 5.1).
        Algorithm::EdDSA => Sha512::digest(token).to_vec(),
    };
    let (left, _) = hash.split_at(hash.len() / 2);
    URL_SAFE_NO_PAD.encode(left)
}

fn check_auth_time(
    auth_time: Option<Millis>,
    rules: &ProviderTokenRules<'_>,
    max_age: Option<Duration>,
    now: Millis,
) -> Result<(), ProviderTokenFault> {
    if auth_time.is_some_and(|time| rules.is_future(time, now)) {
        return Err(ProviderTokenFault::Future);
    }
    let Some(max_age) = max_age else {
        return Ok(());
    };
    let auth_time = auth_time.ok_or(ProviderTokenFault::AuthTimeMissing)?;
    let allowed = millis(max_age.saturating_add(rules.leeway));
    if now > auth_time.saturating_add(allowed) {
        return Err(ProviderTokenFault::AuthTimeTooOld);
    }
    Ok(())
}

/// Returns the values of `amr`.
fn methods(amr: Option<&Value>) -> Result<Vec<String>, ProviderTokenFault> {
    let error = "`amr` is not a list of at most 16 strings";
    let list = match amr {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_METHODS => list,
        Some(_) => return Err(error.into()),
    };
    list.iter()
        .map(|method| check_context(method.as_str().ok_or(error)?.to_owned()))
        .collect()
}

/// Checks a value of `acr` or `amr`, which sessions keep and show.
fn check_context(text: String) -> Result<String, ProviderTokenFault> {
    if text.len() > MAX_CONTEXT || text.chars().any(char::is_control) {
        return Err("`acr` or `amr` has a value of more than 255 bytes".into());
    }
    Ok(text)
}

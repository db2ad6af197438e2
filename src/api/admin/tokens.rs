//! The blacklist of revoked tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::body::BodyFields;
use super::super::response;
use super::AdminState;
use crate::auth::credential::{BearerForm, bearer_form};
use crate::auth::token::opaque_token_key;
use crate::events::{Event, EventKind};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;

/// Maximum length of a `jti`, in bytes.
const KEY_MAX: usize = 255;
/// Maximum lifetime of an entry, in seconds: ten years, longer than any token.
const TTL_MAX: u64 = 10 * 365 * 24 * 60 * 60;

/// `POST /admin/blacklist` `{jti|token, ttl?}`: `ttl` in seconds defaults to the token's remaining
/// lifetime, or to that of the gateway's own access tokens.
pub(super) async fn blacklist(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let (jti, token) = (fields.optional_text("jti"), fields.optional_text("token"));
    let ttl = fields.optional_number("ttl");
    if ttl.is_some_and(|ttl| !(1..=TTL_MAX).contains(&ttl)) {
        fields.add_error("ttl", "must be from 1 second to ten years");
    }
    let named = match (jti, token) {
        (Some(jti), None) if (1..=KEY_MAX).contains(&jti.len()) => Some((jti, None)),
        (None, Some(token)) if is_opaque(&token, &snapshot) => {
            if ttl.is_none() {
                fields.add_error(
                    "ttl",
                    "is required, because the token does not say when it expires",
                );
            }
            Some((opaque_token_key(&token), None))
        }
        (None, Some(token)) => {
            let named = blacklist_key_and_expiry(&token);
            if named.is_none() {
                fields.add_error("token", "is not a JSON Web Token");
            }
            named
        }
        _ => {
            fields.add_error("jti", "or token, one of them, must be given");
            None
        }
    };
    fields.check()?;
    let (key, expires) = named.unwrap_or_default();
    let now = state.sessions.now().await? / 1000;
    let tokens = &snapshot.settings.tokens;
    let leeway = tokens.leeway.as_secs() + 1;
    let left = expires.map(|expires| expires.saturating_sub(now).clamp(1, TTL_MAX) + leeway);
    let seconds = ttl.or(left).unwrap_or(tokens.access_ttl.as_secs() + leeway);
    state
        .accounts
        .blacklist(&key, Duration::from_secs(seconds), None)
        .await?;
    Ok(response::data(&json!({"jti": key, "ttl": seconds})))
}

/// Whether a token is one that an introspection endpoint verifies.
fn is_opaque(token: &str, snapshot: &Snapshot) -> bool {
    let is_offered = !snapshot.settings.introspection.is_empty();
    is_offered && bearer_form(token, None) == BearerForm::Opaque
}

/// Returns a token's blacklist key and `exp`. The token is not verified: blacklisting an invalid
/// one is harmless.
fn blacklist_key_and_expiry(token: &str) -> Option<(String, Option<u64>)> {
    let (message, _) = token.rsplit_once('.')?;
    let (_, payload) = message.split_once('.')?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let claims = claims.as_object()?;
    let expires = claims.get("exp").and_then(Value::as_u64);
    let key = match claims.get("jti").and_then(Value::as_str) {
        Some(jti) if !jti.is_empty() => jti.to_owned(),
        _ => hex::encode(Sha256::digest(message.as_bytes())),
    };
    Some((key, expires))
}

/// `DELETE /admin/blacklist/{jti}`.
pub(super) async fn unblacklist(
    State(state): State<AdminState>,
    Path(jti): Path<String>,
) -> Result<Response, Rejection> {
    state.sessions.unrevoke_token(&jti).await?;
    state
        .events
        .record(Event::new(EventKind::TokenUnblacklisted));
    Ok(response::no_content())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn blacklist_key_is_jti_or_hash() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let named = blacklist_key_and_expiry(&token(r#"{"jti":"x","exp":9}"#)).unwrap();
        assert_eq!(named, ("x".to_owned(), Some(9)));
        let without = token("{}");
        let (message, _) = without.rsplit_once('.').unwrap();
        let hash = hex::encode(Sha256::digest(message.as_bytes()));
        assert_eq!(blacklist_key_and_expiry(&without).unwrap(), (hash, None));
        for bad in ["", "a", "a.b", "a.b.c", &token("[]"), "e30.!!.c"] {
            assert_eq!(blacklist_key_and_expiry(bad), None, "{bad}");
        }
    }
}

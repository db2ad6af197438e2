//! Logout tokens (OpenID Connect Back-Channel Logout 1.0, section 2.4).

use serde_json::Value;

use super::{ProviderTokenFault, ProviderTokenRules};
use crate::auth::session::Millis;
use crate::auth::token::Key;
use crate::auth::token::jws::TokenUse;

/// The member of `events` that makes a token a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A verified logout token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutToken {
    pub issuer: String,
    /// The `jti`.
    pub token_id: String,
    pub issued_at: Millis,
    pub expires_at: Millis,
    pub target: LogoutTarget,
}

/// Whose sessions a logout token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogoutTarget {
    /// Those of one session at the provider, of this user where `sub` is given.
    Session {
        sid: String,
        subject: Option<String>,
    },
    /// All of the user's.
    Subject(String),
}

/// Verifies a logout token with the provider's keys.
///
/// # Errors
///
/// Returns the first check that fails. `UnknownKey` is worth another attempt with newer keys.
pub fn verify_logout_token(
    token: &str,
    keys: &[Key],
    rules: &ProviderTokenRules<'_>,
    now: Millis,
) -> Result<LogoutToken, ProviderTokenFault> {
    let verified = rules.verify(token, TokenUse::Logout, keys, now)?;
    let issued_at = verified.issued_at()?;
    let token_id = verified.payload.token_id()?;
    let token_id = token_id.ok_or(ProviderTokenFault::TokenIdMissing)?;
    if !is_logout_event(verified.payload.member("events")) {
        return Err(ProviderTokenFault::Events);
    }
    // With a nonce, it could be an ID token that is presented as a logout token.
    if verified.payload.member("nonce").is_some() {
        return Err(ProviderTokenFault::NonceInLogoutToken);
    }
    let target = match (verified.sid()?, verified.subject()?) {
        (Some(sid), subject) => LogoutTarget::Session { sid, subject },
        (None, Some(subject)) => LogoutTarget::Subject(subject),
        (None, None) => return Err(ProviderTokenFault::NoSubjectOrSession),
    };
    Ok(LogoutToken {
        issuer: verified.payload.issuer()?.to_owned(),
        token_id: token_id.to_owned(),
        issued_at,
        expires_at: verified.expires_at,
        target,
    })
}

/// Whether `events` has the logout event, which is an object, and no other.
fn is_logout_event(events: Option<&Value>) -> bool {
    let events = events.and_then(Value::as_object);
    events
        .is_some_and(|events| events.len() == 1 && events.get(EVENT).is_some_and(Value::is_object))
}

//! Authorization responses as signed tokens (JWT Secured Authorization Response Mode, JARM).

use super::{ProviderTokenFault, ProviderTokenRules};
use crate::auth::session::Millis;
use crate::auth::token::Key;
use crate::auth::token::jws::TokenUse;

/// The parameters of a verified authorization response.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationResponse {
    pub state: Option<String>,
    pub code: Option<String>,
    pub error: Option<String>,
}

impl std::fmt::Debug for AuthorizationResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthorizationResponse(…)")
    }
}

/// Verifies an authorization response with the provider's keys (JARM, section 2.4).
///
/// # Errors
///
/// Returns the first check that fails. `UnknownKey` is worth another attempt with newer keys.
pub fn verify_authorization_response(
    token: &str,
    keys: &[Key],
    rules: &ProviderTokenRules<'_>,
    now: Millis,
) -> Result<AuthorizationResponse, ProviderTokenFault> {
    let verified = rules.verify(token, TokenUse::AuthorizationResponse, keys, now)?;
    Ok(AuthorizationResponse {
        state: verified.text("state")?,
        code: verified.text("code")?,
        error: verified.text("error")?,
    })
}

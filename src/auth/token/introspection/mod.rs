//! What an introspection endpoint says of a token (RFC 7662, section 2.2).
//!
//! A response is a yes, a no, or neither: whatever is not plainly one of both says nothing of the token.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::check::{VerifiedToken, VerifyError};
use super::claims::Payload;
use super::{ClaimNames, Claims, TokenSource};
use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::session::Millis;

/// Validity of a token without `exp`: ten years from now, longer than any token.
const WITHOUT_EXPIRY: Millis = 10 * 365 * 24 * 60 * 60 * 1000;

/// How the members of a response are read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionRules {
    /// Name of the entry; the issuer of its users where it has none.
    pub name: Arc<str>,
    pub issuer: Option<String>,
    /// A value that `aud` must have. `None`: not checked.
    pub audience: Option<String>,
    pub claims: ClaimNames,
    pub user_prefix: String,
    /// Empty for an entry with a prefix of its own.
    pub reserved_prefixes: ReservedPrefixes,
}

/// What an endpoint says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IntrospectionVerdict {
    Active(VerifiedToken),
    /// A yes that is not valid here.
    Rejected(VerifyError),
    Inactive,
}

impl Claims {
    /// When the token expires; `None`: the server that verified it states no end.
    pub fn stated_expiry(&self, now: Millis) -> Option<Millis> {
        let is_stated = match self.source {
            TokenSource::Own | TokenSource::Trusted(_) => true,
            // A response that says nothing of it may have been cached for a while.
            TokenSource::Introspected(_) => self.expires_at < now + WITHOUT_EXPIRY / 2,
        };
        is_stated.then_some(self.expires_at)
    }
}

/// Key of a token in the blacklist and in caches, where nothing in the token names it: the SHA-256 of
/// all of it, in hex.
pub(crate) fn opaque_token_key(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

impl IntrospectionRules {
    /// The name of the issuer of its users.
    pub fn user_issuer(&self) -> &str {
        self.issuer.as_deref().unwrap_or(&self.name)
    }

    /// Reads a response about the token with this key.
    ///
    /// # Errors
    ///
    /// It says nothing of the token: it is not a JSON object, has a member twice, or lacks `active`.
    pub(crate) fn read(
        &self,
        body: &[u8],
        token_key: &str,
        leeway: Millis,
        now: Millis,
    ) -> Result<IntrospectionVerdict, &'static str> {
        let payload = Payload::parse(body)?;
        match payload.member("active") {
            Some(Value::Bool(false)) => return Ok(IntrospectionVerdict::Inactive),
            Some(Value::Bool(true)) => {}
            _ => return Err("`active` is neither true nor false"),
        }
        Ok(match self.read_active(&payload, token_key, leeway, now) {
            Ok(verified) => IntrospectionVerdict::Active(verified),
            Err(error) => IntrospectionVerdict::Rejected(error),
        })
    }

    fn read_active(
        &self,
        payload: &Payload,
        token_key: &str,
        leeway: Millis,
        now: Millis,
    ) -> Result<VerifiedToken, VerifyError> {
        self.check_members(payload)?;
        let expires_at = payload.date("exp")?;
        let expires_at = expires_at.unwrap_or(now.saturating_add(WITHOUT_EXPIRY));
        let issued_at = payload.date("iat")?;
        let not_before = issued_at.max(payload.date("nbf")?).unwrap_or(0);
        if not_before > now.saturating_add(leeway) {
            return Err("`nbf` or `iat` is in the future".into());
        }
        let user = payload.user(&self.claims.user)?;
        if self.reserved_prefixes.cover(&user) {
            return Err("the user begins with the prefix of another source".into());
        }
        let claims = Arc::new(Claims {
            source: TokenSource::Introspected(Arc::clone(&self.name)),
            issuer: self.user_issuer().to_owned(),
            user: format!("{}{user}", self.user_prefix),
            session: None,
            blacklist_key: token_key.to_owned(),
            issued_at,
            expires_at,
            email: payload.email(&self.claims.email)?,
            roles: payload.string_list(&self.claims.roles, &[','])?,
            scopes: payload.string_list(&self.claims.scopes, &[])?,
            certificate: payload.certificate()?,
        });
        // The time is checked last, because only a valid token is reported as expired.
        if now >= expires_at.saturating_add(leeway) {
            return Err(VerifyError::Expired(claims));
        }
        Ok(VerifiedToken { claims, not_before })
    }

    /// Checks members that are optional (RFC 7662, section 2.2): one that is present must fit.
    fn check_members(&self, payload: &Payload) -> Result<(), &'static str> {
        if let Some(expected) = &self.issuer
            && payload.member("iss").is_some()
            && payload.issuer()? != expected
        {
            return Err("`iss` is another issuer");
        }
        if let Some(audience) = &self.audience
            && !payload.is_for(audience)?
        {
            return Err("the token is for another audience");
        }
        match payload.member("token_type") {
            None => {}
            Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
            Some(_) => return Err("`token_type` is not Bearer"),
        }
        // Some servers say of refresh tokens, too, that they are active.
        match payload.member("token_use") {
            None => Ok(()),
            Some(Value::String(purpose)) if purpose.starts_with("access") => Ok(()),
            Some(_) => Err("`token_use` is not that of an access token"),
        }
    }
}

#[cfg(test)]
mod tests;

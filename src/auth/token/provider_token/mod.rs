//! Tokens of OpenID providers: ID tokens, logout tokens and authorization responses (JARM).
//!
//! They are parsed as strictly as bearer tokens. Each check has its own [`ProviderTokenFault`].

mod authorization_response;
mod fault;
mod id_token;
mod logout_token;

use std::time::Duration;

pub use authorization_response::{AuthorizationResponse, verify_authorization_response};
pub use fault::ProviderTokenFault;
pub use id_token::{IdToken, IdTokenRequest, verify_id_token};
pub use logout_token::{LogoutTarget, LogoutToken, verify_logout_token};
use serde_json::{Map, Value};

use super::claims::Payload;
use super::jws::{Jws, SignatureStatus, TokenUse};
use super::{Algorithm, Key, jws};
use crate::auth::session::Millis;

/// Maximum length of a token, in bytes: that of a response of a provider.
const MAX_TOKEN: usize = 1 << 20;
/// Maximum length of a provider's session ID (`sid`), in bytes.
const MAX_SID: usize = 1024;
/// Maximum length of a `sub`, in characters (OpenID Connect Core 1.0, section 2).
const MAX_SUBJECT: usize = 255;
/// The part of a tenant issuer that stands for the tenant.
const TENANT: &str = "{tenantid}";

/// What holds for every token of a provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderTokenRules<'a> {
    pub issuer: IssuerRule<'a>,
    pub client_id: &'a str,
    /// Values that `aud` may have beside the client ID.
    pub extra_audiences: &'a [String],
    pub algorithms: &'a [Algorithm],
    pub leeway: Duration,
}

/// The values that `iss` may have.
#[derive(Debug, Clone, Copy)]
pub enum IssuerRule<'a> {
    Exact(&'a str),
    /// A template with `{tenantid}`, for which one of the tenants stands.
    Tenants {
        template: &'a str,
        tenants: &'a [String],
    },
}

impl IssuerRule<'_> {
    /// Whether an issuer is the provider's.
    pub fn allows(&self, issuer: &str) -> bool {
        match self {
            IssuerRule::Exact(expected) => issuer == *expected,
            IssuerRule::Tenants { tenants, .. } => {
                tenants.iter().any(|tenant| self.is_of(issuer, tenant))
            }
        }
    }

    /// Whether an issuer is that of this tenant.
    fn is_of(&self, issuer: &str, tenant: &str) -> bool {
        match self {
            IssuerRule::Exact(_) => false,
            IssuerRule::Tenants { template, tenants } => {
                tenants.iter().any(|allowed| allowed == tenant)
                    && issuer == template.replace(TENANT, tenant)
            }
        }
    }

    /// Checks `iss`, and `tid` where it is present. With tenants, an ID token must have it.
    fn check(self, payload: &Payload, usage: TokenUse) -> Result<(), ProviderTokenFault> {
        let issuer = payload.issuer()?;
        if !self.allows(issuer) {
            return Err(ProviderTokenFault::Issuer);
        }
        let is_tenant_right = match (self, payload.member("tid")) {
            (IssuerRule::Exact(_), _) => true,
            (IssuerRule::Tenants { .. }, Some(Value::String(tid))) => self.is_of(issuer, tid),
            (IssuerRule::Tenants { .. }, Some(_)) => false,
            (IssuerRule::Tenants { .. }, None) => usage != TokenUse::Id,
        };
        is_tenant_right
            .then_some(())
            .ok_or(ProviderTokenFault::Tenant)
    }
}

impl ProviderTokenRules<'_> {
    /// Verifies what every token of the provider must satisfy, and returns its claims.
    fn verify(
        &self,
        token: &str,
        usage: TokenUse,
        keys: &[Key],
        now: Millis,
    ) -> Result<VerifiedPayload, ProviderTokenFault> {
        if token.len() > MAX_TOKEN {
            return Err(ProviderTokenFault::TooLong);
        }
        // The compact form of an encrypted token has five parts (RFC 7516, section 7.1).
        if token.bytes().filter(|byte| *byte == b'.').count() == 4 {
            return Err(ProviderTokenFault::Encrypted);
        }
        let jws = Jws::parse(token, usage)?;
        // A public key is never used as a secret, whatever the settings say.
        if jws.algorithm == Algorithm::HS256 || !self.algorithms.contains(&jws.algorithm) {
            return Err(ProviderTokenFault::Algorithm);
        }
        let payload = Payload::parse(&jws.payload)?;
        self.issuer.check(&payload, usage)?;
        self.check_audience(&payload)?;
        match jws.verify(keys) {
            SignatureStatus::Valid => {}
            SignatureStatus::Invalid => return Err(ProviderTokenFault::Signature),
            SignatureStatus::UnknownKey => return Err(ProviderTokenFault::UnknownKey),
        }
        let expires_at = self.check_times(&payload, now)?;
        Ok(VerifiedPayload {
            payload,
            algorithm: jws.algorithm,
            expires_at,
        })
    }

    /// Checks that the token is for this client, and otherwise only for those that are allowed.
    fn check_audience(&self, payload: &Payload) -> Result<(), ProviderTokenFault> {
        let audiences = payload.audiences()?;
        let is_own = |audience: &Value| *audience == self.client_id;
        let is_extra = |audience: &Value| self.extra_audiences.iter().any(|one| audience == one);
        if !audiences.iter().any(is_own) {
            return Err(ProviderTokenFault::Audience);
        }
        if !audiences.iter().all(|one| is_own(one) || is_extra(one)) {
            return Err(ProviderTokenFault::ExtraAudience);
        }
        Ok(())
    }

    /// Checks `exp`, which must be present, `iat` and `nbf`, and returns `exp`.
    fn check_times(&self, payload: &Payload, now: Millis) -> Result<Millis, ProviderTokenFault> {
        let expires_at = payload
            .date("exp")?
            .ok_or(ProviderTokenFault::ExpiryMissing)?;
        if now >= expires_at.saturating_add(self.leeway_millis()) {
            return Err(ProviderTokenFault::Expired);
        }
        for name in ["iat", "nbf"] {
            if self.is_future(payload.date(name)?.unwrap_or(0), now) {
                return Err(ProviderTokenFault::Future);
            }
        }
        Ok(expires_at)
    }

    fn is_future(&self, time: Millis, now: Millis) -> bool {
        time > now.saturating_add(self.leeway_millis())
    }

    fn leeway_millis(&self) -> Millis {
        millis(self.leeway)
    }
}

/// Returns the claims of an ID token that was verified before.
pub fn kept_claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    let payload = Payload::parse(&jws::decode(payload).ok()?).ok()?;
    Some(payload.into_members())
}

/// Claims of a token whose signature, issuer, audience and times are right.
struct VerifiedPayload {
    payload: Payload,
    algorithm: Algorithm,
    expires_at: Millis,
}

impl VerifiedPayload {
    fn issued_at(&self) -> Result<Millis, ProviderTokenFault> {
        let issued_at = self.payload.date("iat")?;
        issued_at.ok_or(ProviderTokenFault::IssuedAtMissing)
    }

    /// Returns a member that is a string, if it is present.
    fn text(&self, name: &str) -> Result<Option<String>, ProviderTokenFault> {
        match self.payload.member(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err("a member that must be a string is not one".into()),
        }
    }

    /// Returns `sub`: 1 to 255 ASCII characters, without control characters.
    fn subject(&self) -> Result<Option<String>, ProviderTokenFault> {
        let Some(subject) = self.text("sub")? else {
            return Ok(None);
        };
        let is_valid = (1..=MAX_SUBJECT).contains(&subject.len())
            && subject.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        is_valid
            .then_some(Some(subject))
            .ok_or(ProviderTokenFault::Subject)
    }

    /// Returns the provider's session ID.
    fn sid(&self) -> Result<Option<String>, ProviderTokenFault> {
        let sid = self.text("sid")?;
        let is_valid = sid.as_ref().is_none_or(|sid| {
            (1..=MAX_SID).contains(&sid.len()) && !sid.chars().any(char::is_control)
        });
        is_valid.then_some(sid).ok_or(ProviderTokenFault::Sid)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests;

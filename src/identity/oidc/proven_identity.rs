//! A user whose identity a provider has proven.

use std::sync::Arc;

use super::{ProviderUser, TokenResponse};
use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::session::Millis;
use crate::auth::token::provider_token::IdToken;
use crate::clock;
use crate::database::AssertedIdentity;
use crate::settings::provider::Provider;

/// A user whose identity a provider has proven, with the tokens that it issued for them.
pub(super) struct ProvenIdentity {
    pub(super) user: ProviderUser,
    pub(super) sign_in: ProviderSignIn,
    /// Of the ID token.
    issuer: Option<String>,
    pub(super) tokens: TokenResponse,
    /// When the ID token expires.
    pub(super) id_expires_at: Option<Millis>,
}

impl ProvenIdentity {
    pub(super) fn new(
        provider: &Arc<str>,
        user: ProviderUser,
        id_token: Option<IdToken>,
        tokens: TokenResponse,
    ) -> ProvenIdentity {
        let now = clock::unix_millis();
        let id_expires_at = id_token.as_ref().map(|token| token.expires_at);
        let provider = Arc::clone(provider);
        let issuer = id_token.as_ref().map(|token| token.issuer.clone());
        let sign_in = match id_token {
            Some(token) => ProviderSignIn {
                provider,
                subject: token.subject,
                sid: token.sid,
                authenticated_at: token.auth_time.unwrap_or(now),
                acr: token.acr.map(Into::into),
                amr: token.amr.into(),
            },
            None => ProviderSignIn {
                provider,
                subject: user.user_id.clone(),
                sid: None,
                authenticated_at: now,
                acr: None,
                amr: Arc::default(),
            },
        };
        ProvenIdentity {
            user,
            sign_in,
            tokens,
            id_expires_at,
            issuer,
        }
    }

    /// The same for the rows of the database. Each tenant of a provider is an issuer of its own.
    pub(super) fn asserted<'a>(&'a self, provider: &'a Provider) -> AssertedIdentity<'a> {
        let issuer = self.issuer.as_deref().or(provider.exact_issuer());
        AssertedIdentity {
            provider: &provider.name,
            issuer: issuer.unwrap_or(&provider.name),
            subject: &self.sign_in.subject,
            email: self.user.email.as_deref(),
            name: self.user.name.as_deref(),
            roles: &self.user.roles,
            scopes: &self.user.scopes,
        }
    }
}

/// The time of an authentication that was accepted as recent enough. The leeway that it may have used
/// up is left to the session, or the page that required it would reject the browser that returns.
pub(super) fn not_before_max_age(at: Millis, max_age: Option<u64>, now: Millis) -> Millis {
    let oldest = max_age.map(|seconds| now.saturating_sub(seconds.saturating_mul(1000)));
    oldest.map_or(at, |oldest| at.max(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authentication_counts_from_max_age_at_the_earliest() {
        const NOW: Millis = 10_000_000;
        for (at, max_age, expected) in [
            (NOW - 62_000, Some(60), NOW - 60_000),
            (NOW - 60_000, Some(60), NOW - 60_000),
            (NOW - 1_000, Some(60), NOW - 1_000),
            (NOW + 1_000, Some(60), NOW + 1_000),
            (NOW - 62_000, None, NOW - 62_000),
            (5, Some(u64::MAX), 5),
        ] {
            assert_eq!(
                not_before_max_age(at, max_age, NOW),
                expected,
                "{at} {max_age:?}"
            );
        }
    }
}

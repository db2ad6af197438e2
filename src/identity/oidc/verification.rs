//! Verification of what a provider signs, with its keys, and of the issuer that a response names.

use std::time::Duration;

use super::providers::ProviderClient;
use crate::auth::session::Millis;
use crate::auth::token::Key;
use crate::auth::token::provider_token::{
    AuthorizationResponse, IdToken, IdTokenRequest, IssuerRule, LogoutToken, ProviderTokenFault,
    ProviderTokenRules, verify_authorization_response, verify_id_token, verify_logout_token,
};
use crate::issuers::KeyRefresh;
use crate::rejection::CallbackFault;
use crate::settings::provider::Issuer;

impl ProviderClient {
    /// Verifies an ID token.
    ///
    /// # Errors
    ///
    /// The check that it fails, or `KeysUnavailable`.
    pub async fn verify_id_token(
        &self,
        token: &str,
        request: &IdTokenRequest<'_>,
        leeway: Duration,
        now: Millis,
    ) -> Result<IdToken, CallbackFault> {
        let verified = self.verify(leeway, |keys, rules| {
            verify_id_token(token, keys, rules, request, now)
        });
        verified.await
    }

    /// Verifies a logout token.
    ///
    /// # Errors
    ///
    /// As for an ID token.
    pub async fn verify_logout_token(
        &self,
        token: &str,
        leeway: Duration,
        now: Millis,
    ) -> Result<LogoutToken, CallbackFault> {
        let verified = self.verify(leeway, |keys, rules| {
            verify_logout_token(token, keys, rules, now)
        });
        verified.await
    }

    /// Verifies an authorization response (JARM).
    ///
    /// # Errors
    ///
    /// `ResponseTokenInvalid`, because it comes through the browser, or `KeysUnavailable`.
    pub async fn verify_authorization_response(
        &self,
        token: &str,
        leeway: Duration,
        now: Millis,
    ) -> Result<AuthorizationResponse, CallbackFault> {
        let verified = self.verify(leeway, |keys, rules| {
            verify_authorization_response(token, keys, rules, now)
        });
        verified.await.map_err(|fault| match fault {
            CallbackFault::KeysUnavailable | CallbackFault::MetadataUnavailable => fault,
            _ => CallbackFault::ResponseTokenInvalid,
        })
    }

    /// Checks the issuer that an authorization response names (RFC 9207), which tells the responses of
    /// two providers apart.
    ///
    /// # Errors
    ///
    /// It is not the provider's, or it is missing although the metadata promises it.
    pub async fn check_issuer(&self, issuer: Option<&str>) -> Result<(), CallbackFault> {
        match (issuer, &self.settings().issuer) {
            (Some(issuer), Some(expected)) if !issuer_rule(expected).allows(issuer) => {
                Err(CallbackFault::IssuerMismatch)
            }
            (Some(_), _) => Ok(()),
            (None, _) if self.discovered().await?.metadata.promises_issuer => {
                Err(CallbackFault::IssuerMissing)
            }
            (None, _) => Ok(()),
        }
    }

    /// Verifies a token with the keys at hand, and with newer ones if none of them is the token's.
    async fn verify<T>(
        &self,
        leeway: Duration,
        verify: impl Fn(&[Key], &ProviderTokenRules<'_>) -> Result<T, ProviderTokenFault>,
    ) -> Result<T, CallbackFault> {
        let settings = self.settings();
        let discovered = self.discovered().await?;
        let (Some(issuer), Some(key_set)) = (&settings.issuer, &discovered.keys) else {
            return Err(CallbackFault::EndpointMissing);
        };
        let rules = ProviderTokenRules {
            issuer: issuer_rule(issuer),
            client_id: &settings.client_id,
            extra_audiences: &settings.extra_audiences,
            algorithms: &settings.algorithms,
            leeway,
        };
        let first = verify(&key_set.keys(), &rules);
        if !matches!(first, Err(ProviderTokenFault::UnknownKey)) {
            return Ok(first?);
        }
        let refresh = key_set.refresh().await;
        let keys = key_set.keys();
        match verify(&keys, &rules) {
            // The key may be one that could not be fetched.
            Err(ProviderTokenFault::UnknownKey)
                if keys.is_empty() || refresh == KeyRefresh::Failed =>
            {
                Err(CallbackFault::KeysUnavailable)
            }
            result => Ok(result?),
        }
    }
}

fn issuer_rule(issuer: &Issuer) -> IssuerRule<'_> {
    match issuer {
        Issuer::Exact(name) => IssuerRule::Exact(name),
        Issuer::Tenants { template, tenants } => IssuerRule::Tenants { template, tenants },
    }
}

//! Requests that the provider of their session concerns: those that carry its token to the upstream, and
//! those that are rejected while it cannot confirm the session. The memo holds none of them.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};

use super::{Admission, Permit, Rejection};
use crate::auth::session::{Millis, Session};
use crate::identity::oidc::TokenContext;
use crate::pipeline::facts::RequestFacts;
use crate::rejection::{CallbackFault, Refusal};
use crate::routing::Route;
use crate::settings::provider::RecheckOutage;

impl Admission<'_> {
    /// Whether the provider of a session concerns a request.
    pub(super) fn concerns_provider(&self, route: &Route, session: Option<&Arc<Session>>) -> bool {
        let Some(sign_in) = session.and_then(|session| session.provider.as_ref()) else {
            return false;
        };
        if route.provider_token.is_some() {
            return true;
        }
        let provider = self.snapshot.providers.get(&sign_in.provider);
        provider.is_some_and(|provider| {
            let tokens = &provider.settings().tokens;
            tokens.recheck.is_some() && tokens.on_outage != RecheckOutage::Continue
        })
    }

    /// Adds the token of the session's provider, if the route asks for it and the session has one.
    ///
    /// # Errors
    /// The token cannot be had, or the provider has not confirmed the session for too long.
    pub(super) async fn add_provider_token(
        &self,
        permit: Permit,
        facts: &RequestFacts<'_>,
    ) -> Result<Permit, Rejection> {
        let Permit { decisions, .. } = &permit;
        let rejected = |rejection: Rejection| match &permit.identity {
            Some(identity) => rejection
                .with_decisions(decisions.clone())
                .with_caller(identity),
            None => rejection,
        };
        let found = self
            .find_provider_token(&permit, facts)
            .await
            .map_err(rejected)?;
        Ok(Permit {
            provider_token: found.map(Box::new),
            ..permit
        })
    }

    async fn find_provider_token(
        &self,
        permit: &Permit,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<(HeaderName, HeaderValue)>, Rejection> {
        let Some(session) = permit.session() else {
            return Ok(None);
        };
        let (settings, providers) = (&self.snapshot.settings, &self.snapshot.providers);
        let Some(context) = TokenContext::of(settings, providers, session) else {
            return Ok(None);
        };
        self.require_confirmed(&context, session, facts.now).await?;
        let Some(field) = &permit.route.provider_token else {
            return Ok(None);
        };
        let token = self
            .provider_tokens
            .token(&context, session, field.token, facts.now);
        let Some(token) = token.await? else {
            return Ok(None);
        };
        let value = field_value(&field.header, &token).ok_or(Refusal::Internal)?;
        Ok(Some((field.header.clone(), value)))
    }

    /// Rejects a session that its provider has not confirmed for too long.
    pub(super) async fn require_confirmed(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        now: Millis,
    ) -> Result<(), Rejection> {
        let lapsed = self.provider_tokens.has_lapsed(context, session, now);
        match lapsed.await {
            true => Err(CallbackFault::SessionUnconfirmed.into()),
            false => Ok(()),
        }
    }
}

/// The value of a field with a token, which is not printed.
fn field_value(name: &HeaderName, token: &SecretString) -> Option<HeaderValue> {
    let token = token.expose_secret();
    let value = match *name == header::AUTHORIZATION {
        true => HeaderValue::try_from(format!("Bearer {token}")),
        false => HeaderValue::from_str(token),
    };
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn authorization_carries_a_bearer_token() {
        let token = SecretString::from("a.b~c+/=");
        for (name, expected) in [
            ("authorization", "Bearer a.b~c+/="),
            ("x-provider-token", "a.b~c+/="),
        ] {
            let value = field_value(&HeaderName::from_static(name), &token).unwrap();
            assert_eq!(value.to_str().unwrap(), expected);
            assert_eq!(format!("{value:?}"), "Sensitive");
        }
        let broken = SecretString::from("a\r\nb");
        assert_eq!(field_value(&header::AUTHORIZATION, &broken), None);
    }
}

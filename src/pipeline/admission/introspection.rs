//! Introspection for backends: the backend is identified by an API key, and the token that it has received is
//! verified as if the backend had sent it.

use super::claim::Presented;
use super::{Admission, CredentialKind, Identity, Rejection};
use crate::auth::credential;
use crate::auth::session::SessionToken;
use crate::identity::oidc::TokenContext;
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::FieldKind;
use crate::rejection::Refusal;

impl Admission<'_> {
    /// Identifies a backend by an API key in the only `Authorization`, as bearer token or as the password of
    /// Basic. `None`: there is none.
    ///
    /// # Errors
    /// The key is not valid, or that cannot be told.
    pub async fn identify_by_api_key(
        &self,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<Identity>, Rejection> {
        let mut authorizations = facts.head.fields.all(FieldKind::Authorization);
        let (Some(only), None) = (authorizations.next(), authorizations.next()) else {
            return Ok(None);
        };
        let key = credential::bearer_or_password(only);
        match key.filter(|key| self.is_api_key(key)) {
            Some(key) => {
                let presented = self.read_api_key(key.as_bytes());
                self.identify_by(presented, facts).await
            }
            None => Ok(None),
        }
    }

    /// The identity of a token that a backend has received: a session token, or whatever is accepted as a
    /// bearer token. `None`: it is not valid, or not for the client of `facts`. Neither a use of its session
    /// nor an event is recorded, because the backend is not the client that presented the token.
    ///
    /// # Errors
    /// It is not known whether the token is valid.
    pub async fn introspect(
        &self,
        token: &str,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<Identity>, Rejection> {
        let silent = Admission {
            events: None,
            ..*self
        };
        let found = silent.find_subject(token, facts).await;
        found.or_else(|refused| match refused.refusal.status() {
            status if status.is_client_error() => Ok(None),
            // Without the subject: the log is about the backend.
            _ => Err(Rejection {
                reason: refused.reason,
                retry_after: refused.retry_after,
                ..refused.refusal.into()
            }),
        })
    }

    async fn find_subject(
        &self,
        token: &str,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<Identity>, Rejection> {
        let identity = match self.find_session(token, facts).await {
            // Another issuer's token may have the form of a session token.
            Err(refused) if refused.refusal == Refusal::SessionNotFound => None,
            found => found?,
        };
        let identity = match identity {
            Some(identity) => Some(identity),
            None if credential::is_token68(token) => {
                let presented = self.read_bearer(token);
                self.identify_by(presented, facts).await?
            }
            None => None,
        };
        if let Some(session) = identity.as_ref().and_then(Identity::session) {
            let (settings, providers) = (&self.snapshot.settings, &self.snapshot.providers);
            if let Some(context) = TokenContext::of(settings, providers, session) {
                self.require_confirmed(&context, session, facts.now).await?;
            }
        }
        Ok(identity)
    }

    async fn find_session(
        &self,
        token: &str,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<Identity>, Rejection> {
        let Some(token) = SessionToken::parse(token) else {
            return Ok(None);
        };
        let presented = Presented::Session(token.id(), CredentialKind::SessionHeader);
        self.identify_by(Ok(presented), facts).await
    }
}

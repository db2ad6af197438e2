//! What the response to a refresh says of a session.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::record::KeptTokens;
use super::{TokenContext, TokenExchanges, check_tokens_size};
use crate::auth::session::{Millis, Session};
use crate::auth::token::provider_token::{IdToken, IdTokenRequest, kept_claims};
use crate::clock;
use crate::database::User;
use crate::identity::AccountError;
use crate::identity::oidc::sign_in::external_user;
use crate::identity::oidc::{ProviderUser, TokenResponse, is_allowed};
use crate::rejection::{CallbackFault, Reason, Refusal, Rejection};
use crate::sessions::ExternalIdentity;
use crate::settings::provider::UserStorage;

/// What a response says of a session.
pub(super) enum Evaluation {
    /// The provider confirms it. Its claims are in force.
    Confirmed { id_expires_at: Option<Millis> },
    /// The session must not go on.
    Refused(CallbackFault),
    /// Nothing that can be relied on.
    Unusable(CallbackFault),
}

impl TokenExchanges {
    /// Evaluates the response to a refresh by the rules of a sign-in, and puts its claims in force.
    pub(super) async fn evaluate(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        tokens: &TokenResponse,
        kept: &KeptTokens,
    ) -> Evaluation {
        match self.apply(context, session, tokens, kept).await {
            Ok(id_expires_at) => Evaluation::Confirmed { id_expires_at },
            Err(AccountError::Rejected(Rejection {
                reason: Some(Reason::Callback(fault)),
                ..
            })) => match fault.refusal() {
                Refusal::SignInRefused => Evaluation::Refused(fault),
                _ => Evaluation::Unusable(fault),
            },
            Err(error) => {
                tracing::warn!(%error, session_id = %session.id, "new claims are not in force yet");
                Evaluation::Unusable(CallbackFault::TokensUnavailable)
            }
        }
    }

    /// Returns when the new ID token expires.
    async fn apply(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        tokens: &TokenResponse,
        kept: &KeptTokens,
    ) -> Result<Option<Millis>, AccountError> {
        check_tokens_size(context.provider.settings(), tokens)?;
        let id_token = context.verify_id_token(tokens).await?;
        let subject = session
            .provider
            .as_ref()
            .map(|sign_in| sign_in.subject.as_str());
        let subject = subject.ok_or(CallbackFault::SubjectChanged)?;
        let expires_at = id_token.as_ref().map(|id_token| id_token.expires_at);
        let Some(user) = context
            .read_user(tokens, id_token.as_ref(), subject, kept)
            .await?
        else {
            return Ok(expires_at);
        };
        let settings = context.provider.settings();
        if !is_allowed(&settings.allow, &user) {
            return Err(CallbackFault::NotAllowed.into());
        }
        match &settings.users {
            UserStorage::External { prefix } => {
                let user = external_user(prefix, &user);
                if user.id != session.user {
                    return Err(CallbackFault::SubjectChanged.into());
                }
                self.put_in_force(session, &user).await?;
            }
            UserStorage::Database { .. } => {
                self.accounts.map_claims_anew(session, &user).await?;
            }
        }
        Ok(expires_at)
    }

    async fn put_in_force(&self, session: &Session, user: &User) -> Result<(), AccountError> {
        let is_same = session.email == user.email
            && session.name == user.name
            && *session.roles == *user.roles
            && *session.scopes == *user.scopes;
        if is_same {
            return Ok(());
        }
        let identity = ExternalIdentity {
            email: &user.email,
            name: user.name.as_deref(),
            roles: &user.roles,
            scopes: &user.scopes,
        };
        Ok(self
            .accounts
            .sessions
            .set_external_identity(session.id, identity)
            .await?)
    }
}

impl TokenContext {
    /// Verifies the ID token of a refresh, which need not repeat the nonce.
    async fn verify_id_token(
        &self,
        tokens: &TokenResponse,
    ) -> Result<Option<IdToken>, CallbackFault> {
        let Some(token) = tokens.id_token.as_ref() else {
            return Ok(None);
        };
        if !self.provider.settings().has_id_tokens() {
            return Ok(None);
        }
        let request = IdTokenRequest {
            access_token: Some(tokens.access_token.expose_secret()),
            ..IdTokenRequest::default()
        };
        let (token, now) = (token.expose_secret(), clock::unix_millis());
        let verified = self
            .provider
            .verify_id_token(token, &request, self.leeway, now);
        verified.await.map(Some)
    }

    /// Reads the user anew; `None`: the response says nothing of them.
    async fn read_user(
        &self,
        tokens: &TokenResponse,
        id_token: Option<&IdToken>,
        subject: &str,
        kept: &KeptTokens,
    ) -> Result<Option<ProviderUser>, CallbackFault> {
        let access_token = &tokens.access_token;
        if id_token.is_some_and(|id_token| id_token.subject != subject) {
            return Err(CallbackFault::SubjectChanged);
        }
        if id_token.is_none() && self.provider.settings().has_id_tokens() {
            let earlier = kept.id_token.as_ref();
            let earlier = earlier.and_then(|token| kept_claims(token.expose_secret()));
            let again = self
                .provider
                .read_user_again(access_token, subject, earlier.as_ref());
            return again.await;
        }
        let user = self.provider.read_user(access_token, id_token).await?;
        if id_token.is_none() && user.user_id != subject {
            return Err(CallbackFault::SubjectChanged);
        }
        Ok(Some(user))
    }
}

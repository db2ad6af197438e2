//! The tokens of a sign-in.

use super::TokenContext;
use super::record::KeptTokens;
use crate::auth::provider_tokens::{MAX_SEALED_BYTES, PutTokensOutcome};
use crate::auth::session::{Millis, SessionId};
use crate::identity::oidc::TokenResponse;
use crate::identity::{AccountError, Accounts};
use crate::rejection::{CallbackFault, Refusal};

/// Bytes that sealing adds, generously.
const OVERHEAD: usize = 1024;

impl Accounts {
    /// Checks, before a session is created, that the tokens of its sign-in can be kept.
    ///
    /// # Errors
    /// They are too large.
    pub fn check_tokens_size(tokens: &TokenResponse) -> Result<(), CallbackFault> {
        let kept = KeptTokens::of_sign_in("", tokens, None, 0).encode();
        let is_small = kept.is_some_and(|kept| kept.len() + OVERHEAD <= MAX_SEALED_BYTES);
        is_small
            .then_some(())
            .ok_or(CallbackFault::ResponseTooLarge)
    }

    /// Seals the tokens of a sign-in with the new session.
    ///
    /// # Errors
    /// It is not certain that they are kept.
    pub async fn keep_tokens(
        &self,
        context: &TokenContext,
        session: SessionId,
        tokens: &TokenResponse,
        id_expires_at: Option<Millis>,
    ) -> Result<(), AccountError> {
        let provider = &context.provider.settings().name;
        if tokens.refresh_token.is_none() && context.recheck().is_some() {
            tracing::warn!(
                provider = &**provider,
                "the provider gave no refresh token, so the session cannot be rechecked; `scopes` may lack \
                 offline_access"
            );
        }
        let now = self.sessions.now().await?;
        let kept = KeptTokens::of_sign_in(provider, tokens, id_expires_at, now);
        let sealed = kept.seal(&context.keys, session).ok_or(Refusal::Internal)?;
        match self
            .sessions
            .put_provider_tokens(session, 0, sealed.into())
            .await?
        {
            PutTokensOutcome::Written => Ok(()),
            PutTokensOutcome::Changed | PutTokensOutcome::Gone => {
                Err(Refusal::StoreUnavailable.into())
            }
        }
    }
}

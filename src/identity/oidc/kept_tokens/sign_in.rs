//! The tokens of a sign-in.

use super::record::KeptTokens;
use crate::auth::provider_tokens::{MAX_SEALED_BYTES, PutTokensOutcome};
use crate::auth::session::{Millis, Session};
use crate::identity::oidc::TokenResponse;
use crate::identity::{AccountError, Accounts};
use crate::rejection::{CallbackFault, Refusal};
use crate::settings::Reloadable;
use crate::settings::provider::Provider;

/// Bytes that sealing and later changes add, generously.
const OVERHEAD: usize = 1024;

/// Checks, before a session is created, that the tokens of its sign-in can be kept.
///
/// # Errors
/// They are too large.
pub(in crate::identity::oidc) fn check_tokens_size(
    provider: &Provider,
    tokens: &TokenResponse,
) -> Result<(), CallbackFault> {
    let is_small = || {
        let kept = KeptTokens::of_sign_in(provider, tokens, Some(0), 0).encode();
        kept.is_some_and(|kept| kept.len() + OVERHEAD <= MAX_SEALED_BYTES)
    };
    match !provider.tokens.keep || is_small() {
        true => Ok(()),
        false => Err(CallbackFault::ResponseTooLarge),
    }
}

impl Accounts {
    /// Seals the tokens of a sign-in with the new session, where the provider's tokens are kept.
    ///
    /// # Errors
    /// It is not certain that they are kept.
    pub(in crate::identity::oidc) async fn keep_tokens(
        &self,
        settings: &Reloadable,
        provider: &Provider,
        session: &Session,
        tokens: &TokenResponse,
        id_expires_at: Option<Millis>,
    ) -> Result<(), AccountError> {
        if !provider.tokens.keep {
            return Ok(());
        }
        let keys = settings.encryption.as_ref().ok_or(Refusal::Internal)?;
        if tokens.refresh_token.is_none() && provider.tokens.recheck.is_some() {
            tracing::warn!(
                provider = &*provider.name,
                "the provider gave no refresh token, so the session cannot be rechecked; `scopes` \
                 may lack offline_access"
            );
        }
        let now = self.sessions.now().await?;
        let kept = KeptTokens::of_sign_in(provider, tokens, id_expires_at, now);
        let sealed = kept.seal(keys, session.id).ok_or(Refusal::Internal)?;
        let put = self
            .sessions
            .put_provider_tokens(session.id, 0, sealed.into());
        match put.await? {
            PutTokensOutcome::Written => Ok(()),
            PutTokensOutcome::Changed | PutTokensOutcome::Gone => {
                Err(Refusal::StoreUnavailable.into())
            }
        }
    }
}

//! Reads and writes of claimed tokens. A successor of a refresh token is written for as long as it takes,
//! because it may be the only one.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;

use super::exchange::Claimed;
use super::record::KeptTokens;
use super::{TokenContext, TokenExchanges, unopenable};
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::{Millis, SessionId};
use crate::clock;
use crate::identity::oidc::LateSuccessor;
use crate::rejection::CallbackFault;

/// How long a successor is tried to be written, and the pause between two attempts.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(30);
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// Attempts to keep a successor that came late, and the pause between them.
const LATE_ATTEMPTS: u32 = 10;
const LATE_PAUSE: Duration = Duration::from_secs(1);

impl TokenExchanges {
    /// Writes claimed tokens, for as long as it takes within bounds: they may be the only successor of a
    /// refresh token that is used up.
    pub(super) async fn write(
        &self,
        context: &TokenContext,
        id: SessionId,
        claimed: &mut Claimed,
    ) -> Result<(), CallbackFault> {
        let deadline = clock::monotonic() + WRITE_TIME;
        loop {
            let put = self
                .put(context, id, claimed.version, &claimed.tokens)
                .await;
            match put {
                Ok(PutTokensOutcome::Written) => {
                    claimed.version = claimed.version.saturating_add(1);
                    self.remember(id, claimed.tokens.clone());
                    return Ok(());
                }
                Ok(PutTokensOutcome::Gone) => {
                    self.revoke_successor(context, claimed).await;
                    return Err(self.gone(id));
                }
                // Sealed anew, written by an attempt whose response was lost, or claimed by a gateway that
                // took this exchange for lost.
                Ok(PutTokensOutcome::Changed) => {
                    if let Ok((sealed, latest)) = self.latest(context, id).await {
                        if !has_one_of(&latest, &[&claimed.used, &claimed.tokens.refresh_token]) {
                            return Err(CallbackFault::RefreshInProgress);
                        }
                        claimed.version = sealed.version;
                    }
                }
                Err(_) => {}
            }
            if clock::monotonic() >= deadline {
                return Err(CallbackFault::TokensUnavailable);
            }
            sleep(WRITE_PAUSE).await;
        }
    }

    /// Revokes the successor of a refresh token whose session has ended in the meantime.
    async fn revoke_successor(&self, context: &TokenContext, claimed: &Claimed) {
        let Some(successor) = &claimed.tokens.refresh_token else {
            return;
        };
        if let Err(fault) = context.provider.revoke(successor).await {
            tracing::debug!(reason = fault.as_str(), "a refresh token was not revoked");
        }
    }

    /// Keeps the successor that a late response has, so that the next exchange does not use a token that is
    /// used up.
    pub(super) fn await_late_successor(
        self: &Arc<Self>,
        context: &TokenContext,
        id: SessionId,
        used: SecretString,
        late: LateSuccessor,
    ) {
        let (shared, context) = (Arc::clone(self), context.clone());
        self.runtime.spawn(async move {
            let Some(successor) = late.wait().await else {
                return;
            };
            for _ in 0..LATE_ATTEMPTS {
                if shared.keep_late(&context, id, &used, &successor).await {
                    return;
                }
                sleep(LATE_PAUSE).await;
            }
            tracing::warn!(session_id = %id, "a late refresh token could not be kept");
        });
    }

    /// Writes a late successor; `false`: to be tried again.
    async fn keep_late(
        &self,
        context: &TokenContext,
        id: SessionId,
        used: &SecretString,
        successor: &SecretString,
    ) -> bool {
        let (sealed, mut tokens) = match self.latest(context, id).await {
            Ok(latest) => latest,
            Err(fault) => return fault == CallbackFault::SessionEndedByProvider,
        };
        // One that a retry has found out to be used up is gone already.
        if tokens.refresh_token.is_some() && !has_one_of(&tokens, &[&Some(used.clone())]) {
            return true;
        }
        if self
            .now()
            .await
            .is_ok_and(|now| now < tokens.claimed_until())
        {
            return false;
        }
        tokens.refresh_token = Some(successor.clone());
        tokens.is_doubtful = false;
        match self.put(context, id, sealed.version, &tokens).await {
            Ok(PutTokensOutcome::Written) => {
                self.remember(id, tokens);
                true
            }
            Ok(PutTokensOutcome::Gone) => true,
            Ok(PutTokensOutcome::Changed) | Err(_) => false,
        }
    }

    pub(super) async fn latest(
        &self,
        context: &TokenContext,
        id: SessionId,
    ) -> Result<(SealedTokens, KeptTokens), CallbackFault> {
        let read = self.accounts.sessions.provider_tokens_to_exchange(id).await;
        let sealed = read.map_err(|error| {
            tracing::debug!(%error, session_id = %id, "provider tokens cannot be read");
            CallbackFault::TokensUnavailable
        })?;
        let sealed = sealed.ok_or_else(|| self.gone(id))?;
        let opened = KeptTokens::open(&context.keys, id, &sealed.sealed);
        let (tokens, _) = opened.ok_or_else(|| unopenable(id))?;
        Ok((sealed, tokens))
    }

    pub(super) async fn put(
        &self,
        context: &TokenContext,
        id: SessionId,
        replaced: u64,
        tokens: &KeptTokens,
    ) -> Result<PutTokensOutcome, CallbackFault> {
        let sealed = tokens.seal(&context.keys, id);
        let sealed = sealed.ok_or(CallbackFault::TokensUnavailable)?;
        let put = self
            .accounts
            .sessions
            .put_provider_tokens(id, replaced, sealed.into());
        put.await.map_err(|error| {
            tracing::debug!(%error, session_id = %id, "provider tokens cannot be written");
            CallbackFault::TokensUnavailable
        })
    }

    pub(super) async fn now(&self) -> Result<Millis, CallbackFault> {
        let now = self.accounts.sessions.now().await;
        now.map_err(|_| CallbackFault::TokensUnavailable)
    }

    /// The session has ended, or has no tokens any more.
    pub(super) fn gone(&self, id: SessionId) -> CallbackFault {
        self.cache.remove(&id);
        CallbackFault::SessionEndedByProvider
    }
}

/// Whether the refresh token is one of these.
fn has_one_of(tokens: &KeptTokens, expected: &[&Option<SecretString>]) -> bool {
    let text =
        |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
    expected
        .iter()
        .any(|expected| text(expected) == text(&tokens.refresh_token))
}

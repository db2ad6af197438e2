//! Revocation of the refresh tokens of sessions that have ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

use super::ProviderTokens;
use super::record::KeptTokens;
use crate::auth::sealing::KeyRing;
use crate::auth::session::EndReason;
use crate::identity::oidc::Providers;
use crate::store::DroppedTokens;

/// Maximum number of revocations at a time. Further ones wait in the store's queue, which is bounded.
const MAX_REVOCATIONS: usize = 16;
/// Pauses before the attempts.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(30),
];

impl ProviderTokens {
    /// Revokes the refresh tokens of sessions that this process ends, forever. `current` returns what the
    /// configuration in force has.
    pub async fn revoke_dropped(
        self,
        current: impl Fn() -> Option<(Arc<KeyRing>, Providers)> + Send + 'static,
    ) {
        let mut dropped = self.shared.accounts.store.dropped_provider_tokens();
        let slots = Arc::new(Semaphore::new(MAX_REVOCATIONS));
        loop {
            let dropped = match dropped.recv().await {
                Ok(dropped) => dropped,
                Err(RecvError::Lagged(count)) => {
                    tracing::warn!(count, "refresh tokens of ended sessions are not revoked");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            self.shared.cache.remove(&dropped.session);
            let Some((keys, providers)) = current() else {
                continue;
            };
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let tokens = self.clone();
            tokio::spawn(async move {
                tokens.revoke(&dropped, &keys, &providers).await;
                drop(slot);
            });
        }
    }

    async fn revoke(&self, dropped: &DroppedTokens, keys: &KeyRing, providers: &Providers) {
        let opened = KeptTokens::open(keys, dropped.session, &dropped.tokens.sealed);
        let Some((tokens, _)) = opened else { return };
        let provider = providers.get(&tokens.provider);
        let provider = provider.filter(|provider| tokens.are_of(provider.settings()));
        let (Some(refresh_token), Some(provider)) = (&tokens.refresh_token, provider) else {
            return;
        };
        if self.is_replaced(dropped).await {
            return;
        }
        let mut reason = "";
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            match provider.revoke(refresh_token).await {
                Ok(()) => return,
                Err(fault) => reason = fault.as_str(),
            }
        }
        let provider = &*provider.settings().name;
        tracing::warn!(
            provider,
            reason,
            "the refresh token of a session was not revoked"
        );
    }

    /// Whether the user signed in anew in the same browser. A provider may revoke everything that it issued
    /// in its own session, the new tokens included.
    async fn is_replaced(&self, dropped: &DroppedTokens) -> bool {
        let found = self.shared.accounts.sessions.find(dropped.session).await;
        let session = found.ok().flatten().map(|entry| entry.session);
        let end = session.and_then(|session| session.ended);
        end.is_some_and(|end| end.reason == EndReason::Replaced)
    }
}

//! Provider tokens of sessions, sealed by the caller.
//!
//! The store never sees their content. They end with their session: the end deletes them and reports them
//! to [`Store::dropped_provider_tokens`], so that they can be revoked at the provider. The clean-up does the
//! same for sessions that have expired.

use tokio::sync::broadcast;

use super::{Engine, Store, StoreError};
use crate::auth::provider_tokens::{MAX_SEALED_BYTES, PutTokensOutcome, SealedTokens};
use crate::auth::session::SessionId;
use crate::telemetry::metrics::StoreOperation;

/// Number of dropped tokens that a slow subscriber may lag behind; it loses the oldest.
const DROPPED_CAPACITY: usize = 1024;

/// What a write of provider tokens replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplacedTokens {
    /// The version that was read; 0: there were none.
    Version(u64),
    /// Any version before the new one.
    Older,
}

/// Tokens of a session that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTokens {
    pub session: SessionId,
    pub tokens: SealedTokens,
}

/// Reports tokens of sessions that this process has ended.
#[derive(Clone)]
pub(super) struct DroppedTokensSender(broadcast::Sender<DroppedTokens>);

impl Default for DroppedTokensSender {
    fn default() -> DroppedTokensSender {
        DroppedTokensSender(broadcast::Sender::new(DROPPED_CAPACITY))
    }
}

impl DroppedTokensSender {
    pub(super) fn send(&self, dropped: DroppedTokens) {
        // Fails only if there are no subscribers.
        let _ = self.0.send(dropped);
    }

    fn subscribe(&self) -> broadcast::Receiver<DroppedTokens> {
        self.0.subscribe()
    }
}

impl Store {
    /// Reads the provider tokens of a session.
    pub async fn provider_tokens(&self, id: SessionId) -> Result<Option<SealedTokens>, StoreError> {
        self.measured(StoreOperation::ProviderTokens, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.provider_tokens(id)),
                Engine::Redis(redis) => redis.provider_tokens(id).await,
            }
        })
        .await
    }

    /// Writes the provider tokens of a session that is alive, until it expires.
    pub async fn put_provider_tokens(
        &self,
        id: SessionId,
        tokens: &SealedTokens,
        replaced: ReplacedTokens,
    ) -> Result<PutTokensOutcome, StoreError> {
        if tokens.sealed.len() > MAX_SEALED_BYTES {
            return Err(StoreError::Refused);
        }
        self.measured(StoreOperation::PutProviderTokens, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.put_provider_tokens(id, tokens, replaced)),
                Engine::Redis(redis) => redis.put_provider_tokens(id, tokens, replaced).await,
            }
        })
        .await
    }

    /// Receives the tokens of the sessions that this process ends from now on.
    pub fn dropped_provider_tokens(&self) -> broadcast::Receiver<DroppedTokens> {
        match &self.engine {
            Engine::Memory(memory) => memory.dropped_tokens().subscribe(),
            Engine::Redis(redis) => redis.dropped_tokens().subscribe(),
        }
    }
}

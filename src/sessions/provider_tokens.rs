//! Provider tokens of sessions, sealed by the caller.
//!
//! For durable sessions the database decides which are the latest, and the store has a copy: an exchange
//! with tokens that were replaced before would look like theft to the provider.

use std::sync::Arc;

use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::SessionId;
use crate::store::ReplacedTokens;

impl Sessions {
    /// Reads the provider tokens of a session, to use them. They may have been replaced meanwhile.
    ///
    /// # Errors
    /// When it is not certain whether there are any.
    pub async fn provider_tokens(
        &self,
        id: SessionId,
    ) -> Result<Option<SealedTokens>, SessionError> {
        let in_store = self.store.provider_tokens(id).await;
        match (in_store, self.source()) {
            (Ok(None) | Err(_), SessionSource::Durable(durable)) => {
                Ok(durable.provider_tokens(id).await?.flatten())
            }
            (in_store, _) => Ok(in_store?),
        }
    }

    /// Reads the latest provider tokens of a session, to exchange them.
    ///
    /// # Errors
    /// When it is not certain that they are the latest, or that their successors could be written.
    pub async fn provider_tokens_to_exchange(
        &self,
        id: SessionId,
    ) -> Result<Option<SealedTokens>, SessionError> {
        if let SessionSource::Durable(durable) = self.source()
            && let Some(tokens) = durable.provider_tokens(id).await?
        {
            return Ok(tokens);
        }
        Ok(self.store.provider_tokens(id).await?)
    }

    /// Replaces provider tokens of this version (0: there are none), unless they have changed since.
    ///
    /// # Errors
    /// When it is not certain that they are written.
    pub async fn put_provider_tokens(
        &self,
        id: SessionId,
        replaced: u64,
        sealed: Arc<[u8]>,
    ) -> Result<PutTokensOutcome, SessionError> {
        let tokens = SealedTokens {
            version: replaced.saturating_add(1),
            sealed,
        };
        if let SessionSource::Durable(durable) = self.source() {
            let now = self.now().await?;
            let written = durable.put_provider_tokens(id, &tokens, now).await?;
            if let Some(outcome) = written {
                if outcome == PutTokensOutcome::Written {
                    let copy = (&tokens, ReplacedTokens::Older);
                    if let Err(error) = self.store.put_provider_tokens(id, copy.0, copy.1).await {
                        tracing::debug!(%error, "the store has older provider tokens of a session");
                    }
                }
                return Ok(outcome);
            }
        }
        let replaced = ReplacedTokens::Version(replaced);
        Ok(self
            .store
            .put_provider_tokens(id, &tokens, replaced)
            .await?)
    }
}

//! Provider tokens in the embedded engine.

use std::collections::HashMap;

use super::super::provider_tokens::{DroppedTokens, DroppedTokensSender, ReplacedTokens};
use super::Memory;
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::SessionId;

#[derive(Default)]
pub(super) struct ProviderTokens {
    entries: HashMap<SessionId, SealedTokens>,
    dropped: DroppedTokensSender,
}

impl ProviderTokens {
    /// Deletes the tokens of a session that has ended.
    pub(super) fn drop_of(&mut self, session: SessionId) {
        if let Some(tokens) = self.entries.remove(&session) {
            self.dropped.send(DroppedTokens { session, tokens });
        }
    }

    /// Deletes the tokens of sessions that are over.
    pub(super) fn clean_up(&mut self, is_alive: impl Fn(&SessionId) -> bool) {
        let over = self.entries.keys().filter(|id| !is_alive(id));
        let over: Vec<SessionId> = over.copied().collect();
        for session in over {
            self.drop_of(session);
        }
    }
}

impl Memory {
    pub(in crate::store) fn provider_tokens(&self, id: SessionId) -> Option<SealedTokens> {
        let (mut state, now) = self.lock();
        // An expired session has none, even before the next clean-up.
        state.sessions.active_mut(id, None, now / 1000)?;
        state.sessions.provider_tokens.entries.get(&id).cloned()
    }

    pub(in crate::store) fn put_provider_tokens(
        &self,
        id: SessionId,
        tokens: &SealedTokens,
        replaced: ReplacedTokens,
    ) -> PutTokensOutcome {
        let (mut state, now) = self.lock();
        let sessions = &mut state.sessions;
        if sessions.active_mut(id, None, now / 1000).is_none() {
            return PutTokensOutcome::Gone;
        }
        let entries = &mut sessions.provider_tokens.entries;
        let version = entries.get(&id).map_or(0, |tokens| tokens.version);
        let is_replaced = match replaced {
            ReplacedTokens::Version(read) => version == read,
            ReplacedTokens::Older => version < tokens.version,
        };
        if !is_replaced {
            return PutTokensOutcome::Changed;
        }
        entries.insert(id, tokens.clone());
        PutTokensOutcome::Written
    }

    pub(in crate::store) fn dropped_tokens(&self) -> DroppedTokensSender {
        self.lock().0.sessions.provider_tokens.dropped.clone()
    }
}

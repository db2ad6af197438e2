//! Provider tokens and exchange leases in the embedded engine.

use std::collections::HashMap;
use std::time::Duration;

use super::super::provider_tokens::{
    DroppedTokens, DroppedTokensSender, ExchangeLease, ReplacedTokens,
};
use super::{Memory, millis};
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::{Millis, SessionId};

#[derive(Default)]
pub(super) struct ProviderTokens {
    entries: HashMap<SessionId, SealedTokens>,
    /// Holder and expiry of each lease.
    leases: HashMap<SessionId, (u64, Millis)>,
    dropped: DroppedTokensSender,
}

impl ProviderTokens {
    /// Deletes the tokens of a session that has ended.
    pub(super) fn drop_of(&mut self, session: SessionId) {
        if let Some(tokens) = self.entries.remove(&session) {
            self.dropped.send(DroppedTokens { session, tokens });
        }
    }

    pub(super) fn clean_up(&mut self, now: Millis, is_alive: impl Fn(&SessionId) -> bool) {
        self.entries.retain(|id, _| is_alive(id));
        self.leases.retain(|_, (_, until)| now < *until);
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

    pub(in crate::store) fn begin_exchange(&self, lease: &ExchangeLease, ttl: Duration) -> bool {
        let (mut state, now) = self.lock();
        let now = now / 1000;
        let leases = &mut state.sessions.provider_tokens.leases;
        if leases
            .get(&lease.session)
            .is_some_and(|(_, until)| now < *until)
        {
            return false;
        }
        let until = now.saturating_add(millis(ttl));
        leases.insert(lease.session, (lease.holder, until));
        true
    }

    pub(in crate::store) fn end_exchange(&self, lease: &ExchangeLease) {
        let (mut state, _) = self.lock();
        let leases = &mut state.sessions.provider_tokens.leases;
        if leases
            .get(&lease.session)
            .is_some_and(|(holder, _)| *holder == lease.holder)
        {
            leases.remove(&lease.session);
        }
    }
}

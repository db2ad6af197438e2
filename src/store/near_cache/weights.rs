//! Memory budgets of the near cache and the approximate weight of its entries.

use std::sync::Arc;

use quick_cache::Weighter;

use super::super::UserHash;
use super::{CachedSession, CachedValue};
use crate::auth::session::{Session, SessionId};
use crate::memory_budget::{MIB, MemoryBudget};

/// Budget for session records; at its maximum, more than a million sessions fit.
pub(super) const SESSION_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 4,
    min: 16 * MIB,
    max: 1024 * MIB,
};
/// Budget for accepted tokens and for cut-offs each; at its maximum, more than a million fit.
pub(super) const TOKEN_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 32,
    min: 8 * MIB,
    max: 256 * MIB,
};
/// Bytes per entry that the allocator and the cache add.
const ENTRY_OVERHEAD: usize = 150;

#[derive(Debug, Clone)]
pub(super) struct EntryWeight;

impl Weighter<SessionId, Arc<CachedSession>> for EntryWeight {
    fn weight(&self, _: &SessionId, entry: &Arc<CachedSession>) -> u64 {
        entry
            .session
            .as_ref()
            .map_or(200, |session| session_weight(session))
    }
}

impl Weighter<String, CachedValue<()>> for EntryWeight {
    fn weight(&self, key: &String, _: &CachedValue<()>) -> u64 {
        (key.len() + ENTRY_OVERHEAD) as u64
    }
}

impl Weighter<UserHash, CachedValue<Option<u64>>> for EntryWeight {
    fn weight(&self, _: &UserHash, _: &CachedValue<Option<u64>>) -> u64 {
        ENTRY_OVERHEAD as u64
    }
}

/// Approximate bytes of a cached session.
///
/// Interned strings are counted with every session, because the number of their users is not tracked.
fn session_weight(session: &Session) -> u64 {
    let device = [&session.device.kind, &session.device.name];
    let names = session.roles.iter().chain(&*session.scopes);
    let strings = session.user.len()
        + session.email.len()
        + session.name.as_ref().map_or(0, String::len)
        + session.user_agent.len()
        + device
            .into_iter()
            .flatten()
            .map(|field| field.len())
            .sum::<usize>()
        + session.data.len()
        + session
            .provider
            .as_ref()
            .map_or(0, |sign_in| size_of_val(&**sign_in) + sign_in.text_bytes())
        + names
            .map(|name| name.len() + size_of::<String>())
            .sum::<usize>();
    let structs = size_of::<Session>() + size_of::<CachedSession>();
    (strings + structs + ENTRY_OVERHEAD) as u64
}

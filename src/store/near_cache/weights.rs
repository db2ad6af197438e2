//! How much is remembered, and what each of it takes of this machine's memory, roughly.

use std::sync::Arc;

use quick_cache::Weighter;

use super::super::UserHash;
use super::{CachedSession, CachedValue};
use crate::auth::session::{Session, SessionId};
use crate::memory_budget::{MIB, MemoryBudget};

/// More than a million sessions at most.
pub(super) const SESSION_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 4,
    min: 16 * MIB,
    max: 1024 * MIB,
};
/// Of tokens that are not refused, and of people: more than a million at most.
pub(super) const TOKEN_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 32,
    min: 8 * MIB,
    max: 256 * MIB,
};
/// What the allocator and the cache need for each.
const ENTRY_OVERHEAD: usize = 150;

#[derive(Debug, Clone)]
pub(super) struct EntryWeight;

impl Weighter<SessionId, Arc<CachedSession>> for EntryWeight {
    fn weight(&self, _: &SessionId, seen: &Arc<CachedSession>) -> u64 {
        seen.session
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

/// What a session takes here, roughly: itself, its own texts, and its place. Those that are shared count
/// with each, for nobody knows with how many.
fn session_weight(session: &Session) -> u64 {
    let device = [&session.device.kind, &session.device.name];
    let names = session.roles.iter().chain(&*session.scopes);
    let texts = session.user.len()
        + session.email.len()
        + session.name.as_ref().map_or(0, String::len)
        + session.user_agent.len()
        + device
            .into_iter()
            .flatten()
            .map(|it| it.len())
            .sum::<usize>()
        + session.data.len()
        + names
            .map(|name| name.len() + size_of::<String>())
            .sum::<usize>();
    let own = size_of::<Session>() + size_of::<CachedSession>();
    (texts + own + ENTRY_OVERHEAD) as u64
}

//! Look-ups of several keys in one round trip: every key is paired with what the store returned for it.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::near_cache::{NearCache, ReadStamp};
use super::{CacheKey, SessionEntry, SessionLookup, StoreError, UserHash};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// Distinct keys to look up together, with the state of the near cache before the round trip.
pub(super) struct BatchLookup<K> {
    keys: Vec<K>,
    stamps: Vec<ReadStamp>,
}

impl<K: Clone + Eq + Hash> BatchLookup<K> {
    /// Takes each key once, however often it is given.
    pub(super) fn new(
        keys: impl IntoIterator<Item = K>,
        cache: &NearCache,
        item: impl Fn(&K) -> CacheKey,
    ) -> BatchLookup<K> {
        let mut taken = HashSet::new();
        let distinct = keys.into_iter().filter(|key| taken.insert(key.clone()));
        let keys: Vec<K> = distinct.collect();
        let stamps = keys.iter().map(|key| cache.stamp(&item(key))).collect();
        BatchLookup { keys, stamps }
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    fn pair_replies<R>(
        self,
        replies: Vec<R>,
    ) -> Result<impl Iterator<Item = (K, ReadStamp, R)>, StoreError> {
        let asked = self.keys.into_iter().zip(self.stamps).collect();
        let pairs = pair(asked, replies)?;
        Ok(pairs.map(|((key, before), reply)| (key, before, reply)))
    }
}

impl BatchLookup<SessionId> {
    /// Caches how the sessions stand, by the store's clock at `now`. `lag` receives how late the end
    /// of a session became known here.
    pub(super) fn note(
        self,
        cache: &NearCache,
        entries: Vec<Option<SessionEntry>>,
        idle: Option<Duration>,
        now: Millis,
        mut lag: impl FnMut(Millis),
    ) -> Result<Vec<(SessionId, SessionLookup)>, StoreError> {
        let noted = self.pair_replies(entries)?.map(|(id, before, entry)| {
            let found = entry.map_or(SessionLookup::Missing, |entry| {
                let used = entry.activity.last_access.max(cache.last_access(id));
                entry.into_lookup(used, idle, now)
            });
            if let Some(late) = cache.revocation_lag(id, &found, now) {
                lag(late);
            }
            cache.cache_session(id, &found, before);
            (id, found)
        });
        Ok(noted.collect())
    }
}

impl BatchLookup<String> {
    /// Caches which tokens are on the blacklist.
    pub(super) fn note(
        self,
        cache: &NearCache,
        listed: Vec<bool>,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let noted = self.pair_replies(listed)?.map(|(key, before, listed)| {
            cache.cache_token(&key, listed, before);
            (key, listed)
        });
        Ok(noted.collect())
    }
}

impl BatchLookup<UserHash> {
    /// Caches the users' cut-offs.
    pub(super) fn note(
        self,
        cache: &NearCache,
        cut_offs: Vec<Option<u64>>,
    ) -> Result<Vec<(UserHash, Option<u64>)>, StoreError> {
        let noted = self.pair_replies(cut_offs)?.map(|(user, before, cut_off)| {
            cache.cache_cut_off(user, cut_off, before);
            (user, cut_off)
        });
        Ok(noted.collect())
    }
}

/// Pairs requests with their replies. One reply too few or too many leaves the outcome of all of them
/// unknown: no request falls back to "missing" or "not revoked" for want of a reply.
pub(super) fn pair<K, R>(
    requests: Vec<K>,
    replies: Vec<R>,
) -> Result<impl Iterator<Item = (K, R)>, StoreError> {
    if requests.len() != replies.len() {
        return Err(StoreError::Malformed);
    }
    Ok(requests.into_iter().zip(replies))
}

impl SessionEntry {
    /// How the session stands, used last at this time.
    fn into_lookup(
        self,
        last_access: Millis,
        idle: Option<Duration>,
        now: Millis,
    ) -> SessionLookup {
        match self.session.status(last_access, idle, now) {
            SessionStatus::Active => SessionLookup::Active(Arc::new(self.session), last_access),
            SessionStatus::Expired => SessionLookup::Expired(self.session),
            SessionStatus::Revoked => SessionLookup::Revoked(self.session),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn lookup(keys: &[&str], cache: &NearCache) -> BatchLookup<String> {
        let keys = keys.iter().map(|key| (*key).to_owned());
        BatchLookup::<String>::new(keys, cache, |key| CacheKey::Token(key.clone()))
    }

    #[test]
    fn duplicate_key_is_looked_up_once() {
        let cache = NearCache::default();
        let lookup = lookup(&["a", "b", "a"], &cache);
        assert_eq!(lookup.keys(), ["a", "b"]);
        let noted = lookup.note(&cache, vec![true, false]).unwrap();
        assert_eq!(noted, [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert!(cache.is_revoked("a"));
    }

    #[test]
    fn wrong_number_of_replies_is_an_error() {
        let cache = NearCache::default();
        for listed in [vec![true], vec![true; 3]] {
            let noted = lookup(&["a", "b"], &cache).note(&cache, listed);
            assert_eq!(noted, Err(StoreError::Malformed));
            assert!(!cache.is_revoked("a"));
        }
    }
}

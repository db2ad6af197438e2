//! Look-ups of several keys in one round trip; every key is paired with its reply.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::near_cache::{NearCache, ReadStamp};
use super::{CacheKey, SessionEntry, SessionLookup, StoreError, UserHash};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// Distinct keys of one look-up, with their read stamps from before the round trip.
pub(super) struct BatchLookup<K> {
    keys: Vec<K>,
    stamps: Vec<ReadStamp>,
}

impl<K: Clone + Eq + Hash> BatchLookup<K> {
    /// Collects the distinct keys and takes their read stamps.
    pub(super) fn new(
        keys: impl IntoIterator<Item = K>,
        cache: &NearCache,
        item: impl Fn(&K) -> CacheKey,
    ) -> BatchLookup<K> {
        let mut seen = HashSet::new();
        let distinct = keys.into_iter().filter(|key| seen.insert(key.clone()));
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
        let requests = self.keys.into_iter().zip(self.stamps).collect();
        let pairs = pair(requests, replies)?;
        Ok(pairs.map(|((key, stamp), reply)| (key, stamp, reply)))
    }
}

impl BatchLookup<SessionId> {
    /// Derives the sessions' states at `now`, the store's time, and caches them.
    ///
    /// `observe_lag` receives the delay with which the end of a session was detected here.
    pub(super) fn cache_replies(
        self,
        cache: &NearCache,
        entries: Vec<Option<SessionEntry>>,
        idle: Option<Duration>,
        now: Millis,
        mut observe_lag: impl FnMut(Millis),
    ) -> Result<Vec<(SessionId, SessionLookup)>, StoreError> {
        let lookups = self.pair_replies(entries)?.map(|(id, stamp, entry)| {
            let lookup = entry.map_or(SessionLookup::Missing, |entry| {
                let last_access = entry.activity.last_access.max(cache.last_access(id));
                entry.into_lookup(last_access, idle, now)
            });
            if let Some(lag) = cache.revocation_lag(id, &lookup, now) {
                observe_lag(lag);
            }
            cache.cache_session(id, &lookup, stamp);
            (id, lookup)
        });
        Ok(lookups.collect())
    }
}

impl BatchLookup<String> {
    /// Caches which tokens are blacklisted.
    pub(super) fn cache_replies(
        self,
        cache: &NearCache,
        blacklisted: Vec<bool>,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let replies = self.pair_replies(blacklisted)?;
        let lookups = replies.map(|(key, stamp, blacklisted)| {
            cache.cache_token(&key, blacklisted, stamp);
            (key, blacklisted)
        });
        Ok(lookups.collect())
    }
}

impl BatchLookup<UserHash> {
    /// Caches the users' cut-offs.
    pub(super) fn cache_replies(
        self,
        cache: &NearCache,
        cut_offs: Vec<Option<u64>>,
    ) -> Result<Vec<(UserHash, Option<u64>)>, StoreError> {
        let lookups = self.pair_replies(cut_offs)?.map(|(user, stamp, cut_off)| {
            cache.cache_cut_off(user, cut_off, stamp);
            (user, cut_off)
        });
        Ok(lookups.collect())
    }
}

/// Pairs requests with their replies.
///
/// With a wrong number of replies, the outcome of all requests is unknown: none of them defaults to
/// "missing" or "not revoked".
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
    /// Derives the session's state from its latest use.
    fn into_lookup(
        self,
        last_access: Millis,
        idle: Option<Duration>,
        now: Millis,
    ) -> SessionLookup {
        match self.session.status(last_access, idle, now) {
            SessionStatus::Active => SessionLookup::Active(Arc::new(self.session), last_access),
            SessionStatus::Expired => SessionLookup::Expired(Arc::new(self.session)),
            SessionStatus::Revoked => SessionLookup::Revoked(Arc::new(self.session)),
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
        let lookups = lookup.cache_replies(&cache, vec![true, false]).unwrap();
        assert_eq!(lookups, [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert!(cache.is_revoked("a"));
    }

    #[test]
    fn wrong_number_of_replies_is_an_error() {
        let cache = NearCache::default();
        for replies in [vec![true], vec![true; 3]] {
            let lookups = lookup(&["a", "b"], &cache).cache_replies(&cache, replies);
            assert_eq!(lookups, Err(StoreError::Malformed));
            assert!(!cache.is_revoked("a"));
        }
    }
}

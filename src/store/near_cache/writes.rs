//! Caching of store replies, unless an invalidation has overtaken them.

use std::sync::atomic::Ordering;

use super::super::{CacheKey, Query, QueryResult, SessionLookup, UserHash};
use super::validity::ReadStamp;
use super::{CachedValue, NearCache};
use crate::auth::session::SessionId;
use crate::limits::Decision;

/// Read stamps taken before a query is sent to the store.
pub(in super::super) struct QueryStamps {
    session: Option<ReadStamp>,
    token: Option<ReadStamp>,
    user: Option<ReadStamp>,
}

impl NearCache {
    /// Takes the stamps for [`NearCache::cache_result`]; must be called before the query is sent.
    pub(in super::super) fn stamp_query(&self, query: &Query<'_>) -> QueryStamps {
        QueryStamps {
            session: query
                .session
                .map(|id| self.validity.stamp(&CacheKey::Session(id))),
            token: query
                .blacklist_key
                .map(|key| self.validity.stamp(&CacheKey::Token(key.to_owned()))),
            user: query
                .cut_off_user
                .map(|user| self.validity.stamp(&CacheKey::User(user))),
        }
    }

    /// Caches the store's result, except for parts that an invalidation has overtaken.
    pub(in super::super) fn cache_result(
        &self,
        stamps: &QueryStamps,
        query: &Query<'_>,
        result: &QueryResult,
    ) {
        if let (Some(stamp), Some(id)) = (stamps.session, query.session) {
            self.cache_session(id, &result.session, stamp);
        }
        // If a limit before authentication refused, nothing was looked up. If a later limit refused,
        // the look-up results are valid and are cached, to spare the store repeated queries.
        let mut first = result
            .decisions
            .iter()
            .take(query.charges_before_auth.len());
        if first.any(Decision::refuses) {
            return;
        }
        if let (Some(stamp), Some(key)) = (stamps.token, query.blacklist_key) {
            self.cache_token(key, result.blacklisted, stamp);
        }
        if let (Some(stamp), Some(user)) = (stamps.user, query.cut_off_user) {
            self.cache_cut_off(user, result.cut_off, stamp);
        }
    }

    /// Caches a session look-up unless an invalidation has overtaken it.
    pub(in super::super) fn cache_session(
        &self,
        id: SessionId,
        lookup: &SessionLookup,
        stamp: ReadStamp,
    ) {
        if *lookup == SessionLookup::Missing {
            if let Some((_, entry)) = self.sessions.remove(&id) {
                entry.epoch.store(0, Ordering::SeqCst);
            }
            let entry = CachedValue {
                value: (),
                at: self.validity.now(),
                epoch: self.validity.epoch_if_unchanged(stamp),
            };
            self.missing.insert(id, entry);
            if self.validity.epoch_if_unchanged(stamp) == 0 {
                self.missing.remove(&id);
            }
            return;
        }
        let epoch = self.validity.epoch_if_unchanged(stamp);
        if let Some(entry) = self.insert_session(id, lookup, epoch)
            && self.validity.epoch_if_unchanged(stamp) == 0
        {
            entry.epoch.store(0, Ordering::SeqCst);
        }
    }

    /// Caches the record of an API key that was read from the database, for outages, unless it was
    /// invalidated since the stamp was taken.
    pub(in super::super) fn cache_unconfirmed(
        &self,
        id: SessionId,
        lookup: &SessionLookup,
        stamp: ReadStamp,
    ) {
        self.missing.remove(&id);
        let is_unchanged = || self.validity.epoch_if_unchanged(stamp) != 0;
        if is_unchanged() && self.insert_session(id, lookup, 0).is_some() && !is_unchanged() {
            self.sessions.remove(&id);
        }
    }

    /// Caches a blacklist look-up unless an invalidation has overtaken it.
    ///
    /// A reply to a query from before a revocation does not remove the revocation.
    pub(in super::super) fn cache_token(&self, key: &str, blacklisted: bool, stamp: ReadStamp) {
        let epoch = self.validity.epoch_if_unchanged(stamp);
        let entry = CachedValue {
            value: (),
            at: self.validity.now(),
            epoch,
        };
        if blacklisted {
            if self.revoked.get(key).is_none() {
                self.validity.mark_changed(&CacheKey::Token(key.to_owned()));
            }
            self.revoked.insert(key.to_owned(), entry);
            self.accepted.remove(key);
            return;
        }
        if epoch == 0 {
            return;
        }
        let revoked = self.revoked.remove(key);
        self.accepted.insert(key.to_owned(), entry);
        if self.validity.epoch_if_unchanged(stamp) == 0 {
            self.accepted.remove(key);
            if let Some((key, entry)) = revoked {
                self.revoked.insert(key, CachedValue { epoch: 0, ..entry });
            }
        }
    }

    /// Caches a user's cut-off; a late reply does not remove or lower a cached one.
    pub(in super::super) fn cache_cut_off(
        &self,
        user: UserHash,
        cut_off: Option<u64>,
        stamp: ReadStamp,
    ) {
        let epoch = self.validity.epoch_if_unchanged(stamp);
        let cached = self.cut_offs.get(&user).and_then(|entry| entry.value);
        if epoch == 0 && cut_off <= cached {
            return;
        }
        let mut stamp = stamp;
        if cut_off > cached {
            // Replies that are on their way are older.
            stamp = self.validity.mark_changed_by(stamp);
        }
        let entry = CachedValue {
            value: cut_off,
            at: self.validity.now(),
            epoch,
        };
        self.cut_offs.insert(user, entry);
        if self.validity.epoch_if_unchanged(stamp) == 0 {
            self.cut_offs
                .insert(user, CachedValue { epoch: 0, ..entry });
        }
    }

    /// Takes a read stamp for one item; must be called before the store is queried.
    pub(in super::super) fn stamp(&self, item: &CacheKey) -> ReadStamp {
        self.validity.stamp(item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::Revocation;
    use super::*;

    #[test]
    fn stale_reply_does_not_hide_a_revocation() {
        let cache = NearCache::default();
        let token = |key: &str| CacheKey::Token(key.to_owned());
        // A token is revoked on this gateway while the reply is in flight.
        let stamp = cache.stamp(&token("here"));
        cache.apply(&Revocation::Token("here".to_owned()));
        cache.cache_token("here", false, stamp);
        assert!(cache.is_revoked("here"));
        // Two replies arrive in reverse order.
        let stamp = cache.stamp(&token("elsewhere"));
        cache.cache_token("elsewhere", true, stamp);
        cache.cache_token("elsewhere", false, stamp);
        assert!(cache.is_revoked("elsewhere"));
        let user = [1; 16];
        let stamp = cache.stamp(&CacheKey::User(user));
        cache.cache_cut_off(user, Some(9), stamp);
        cache.cache_cut_off(user, None, stamp);
        assert!(cache.is_cut_off(&user, Some(9)));
        // A later query takes effect.
        let stamp = cache.stamp(&token("here"));
        cache.cache_token("here", false, stamp);
        assert!(!cache.is_revoked("here"));
    }

    #[test]
    fn cache_holds_many_tokens() {
        let cache = NearCache::default();
        let keys = || (0..100_000).map(|number| format!("00000000-0000-4000-9000-{number:012x}"));
        for key in keys() {
            let stamp = cache.stamp(&CacheKey::Token(key.clone()));
            cache.cache_token(&key, false, stamp);
        }
        let cached = keys().filter(|key| cache.was_accepted(key, Duration::MAX));
        assert_eq!(cached.count(), 100_000);
    }
}

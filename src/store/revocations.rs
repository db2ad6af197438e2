//! Revocation of tokens: the blacklist, and cut-offs of all tokens that a user was issued up to a time.

use std::collections::HashMap;
use std::time::Duration;

use super::lookup::{BatchLookup, pair};
use super::{CacheKey, Engine, Revocation, Store, StoreError, UserHash, user_hash};
use crate::telemetry::metrics::StoreOperation;

/// Retention of a cut-off; no token without a session is valid for longer.
pub const CUT_OFF_TTL: Duration = Duration::from_secs(366 * 86_400);

/// Whether a cut-off covers a token issued at this time; it covers tokens without an issue time.
pub fn cut_off_covers(cut_off: u64, issued_at: Option<u64>) -> bool {
    issued_at.is_none_or(|issued_at| issued_at <= cut_off)
}

impl Store {
    /// Blacklists the token with this key for the given time.
    pub async fn blacklist(&self, key: &str, ttl: Duration) -> Result<(), StoreError> {
        let outcome = self.measured(StoreOperation::Blacklist, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.blacklist(key, ttl);
                    Ok(())
                }
                Engine::Redis(redis) => redis.blacklist(key, ttl).await,
            }
        });
        let outcome = outcome.await;
        if matches!(outcome, Ok(()) | Err(StoreError::Unreplicated)) {
            self.announce(Revocation::Token(key.to_owned()));
        }
        outcome
    }

    /// Removes a key from the blacklist; returns whether it was there.
    pub async fn unblacklist(&self, key: &str) -> Result<bool, StoreError> {
        let outcome = self.measured(StoreOperation::Unblacklist, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.unblacklist(key)),
                Engine::Redis(redis) => redis.unblacklist(key).await,
            }
        });
        let outcome = outcome.await;
        self.invalidate(&CacheKey::Token(key.to_owned()));
        outcome
    }

    /// Returns for each key, in order, whether it is blacklisted; queries keys without a fresh entry.
    pub async fn are_blacklisted(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
        let cached = |key: &&str| self.shared.near_cache.cached_blacklisting(key);
        let (cached, uncached) = split_cached(keys, cached);
        let looked_up = self.look_up_tokens(uncached.into_iter().map(str::to_owned));
        let looked_up = looked_up.await?;
        merge_cached(keys, cached, |key| looked_up.get(*key).copied())
    }

    /// Looks tokens up in the store, regardless of the cache, and caches the results.
    pub(super) async fn look_up_tokens(
        &self,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<HashMap<String, bool>, StoreError> {
        let cache = &self.shared.near_cache;
        let lookup = BatchLookup::<String>::new(keys, cache, |key| CacheKey::Token(key.clone()));
        if lookup.keys().is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<&str> = lookup.keys().iter().map(String::as_str).collect();
        let blacklisted = self.measured(StoreOperation::IsBlacklisted, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.are_blacklisted(&keys)),
                Engine::Redis(redis) => redis.are_blacklisted(&keys).await,
            }
        });
        let replies = blacklisted.await?;
        Ok(lookup.cache_replies(cache, replies)?.into_iter().collect())
    }

    /// Revokes all tokens without a session that this user was issued up to now.
    ///
    /// The time is in whole seconds of the store's clock; tokens without an issue time are covered.
    /// `user_key` is the key by which admission identifies the user.
    pub async fn cut_off(&self, user_key: &str) -> Result<(), StoreError> {
        self.cut_off_up_to(user_hash(user_key), None).await
    }

    /// As [`Store::cut_off`], up to the given second.
    pub async fn cut_off_up_to(
        &self,
        user: UserHash,
        mut second: Option<u64>,
    ) -> Result<(), StoreError> {
        let outcome = self.measured(StoreOperation::CutOff, async {
            match &self.engine {
                Engine::Memory(memory) => second = Some(memory.cut_off(user, second)),
                Engine::Redis(redis) => redis.cut_off(&user, &mut second).await?,
            }
            Ok(())
        });
        let outcome = outcome.await;
        if let (Ok(()) | Err(StoreError::Unreplicated), Some(second)) = (outcome, second) {
            self.announce(Revocation::IssuedBefore(user, second));
        }
        outcome
    }

    /// Returns the remaining time on the blacklist for each key; `None`: not blacklisted.
    pub async fn blacklist_ttls<'k>(
        &self,
        keys: &[&'k str],
    ) -> Result<HashMap<&'k str, Option<Duration>>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let ttls = self.measured(StoreOperation::IsBlacklisted, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.blacklist_ttls(keys)),
                Engine::Redis(redis) => redis.blacklist_ttls(keys).await,
            }
        });
        Ok(pair(keys.to_vec(), ttls.await?)?.collect())
    }

    /// Returns for each user, in order, the second up to which tokens without a session are revoked.
    ///
    /// Queries users without a fresh entry.
    pub async fn cut_offs(&self, user_keys: &[&str]) -> Result<Vec<Option<u64>>, StoreError> {
        let users: Vec<UserHash> = user_keys.iter().map(|key| user_hash(key)).collect();
        let cached = |user: &UserHash| self.shared.near_cache.cached_cut_off(user);
        let (cached, uncached) = split_cached(&users, cached);
        let looked_up = self.look_up_cut_offs(uncached).await?;
        merge_cached(&users, cached, |user| looked_up.get(user).copied())
    }

    /// Looks users' cut-offs up in the store, regardless of the cache, and caches the results.
    pub async fn look_up_cut_offs(
        &self,
        users: impl IntoIterator<Item = UserHash>,
    ) -> Result<HashMap<UserHash, Option<u64>>, StoreError> {
        let cache = &self.shared.near_cache;
        let lookup = BatchLookup::<UserHash>::new(users, cache, |user| CacheKey::User(*user));
        let users = lookup.keys();
        if users.is_empty() {
            return Ok(HashMap::new());
        }
        let cut_offs = self.measured(StoreOperation::CutOffs, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_offs(users)),
                Engine::Redis(redis) => redis.cut_offs(users).await,
            }
        });
        let replies = cut_offs.await?;
        Ok(lookup.cache_replies(cache, replies)?.into_iter().collect())
    }
}

/// Returns the cached value of each key, in order, and the keys without one.
fn split_cached<K: Copy, T>(
    keys: &[K],
    cached: impl Fn(&K) -> Option<T>,
) -> (Vec<Option<T>>, Vec<K>) {
    let cached: Vec<Option<T>> = keys.iter().map(cached).collect();
    let uncached = keys
        .iter()
        .zip(&cached)
        .filter(|(_, value)| value.is_none());
    let uncached = uncached.map(|(key, _)| *key).collect();
    (cached, uncached)
}

/// Returns the value of each key, in order, from the cache or the look-up.
///
/// A key without a value is an error: "not revoked" is never a default.
fn merge_cached<K, T>(
    keys: &[K],
    cached: Vec<Option<T>>,
    looked_up: impl Fn(&K) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let outcomes = keys.iter().zip(cached);
    outcomes
        .map(|(key, cached)| {
            cached
                .or_else(|| looked_up(key))
                .ok_or(StoreError::Malformed)
        })
        .collect()
}

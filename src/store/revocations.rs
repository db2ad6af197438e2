//! What is refused though it is genuine: tokens one by one, and a person's tokens up to a moment.

use std::collections::HashMap;
use std::time::Duration;

use super::lookup::{BatchLookup, pair};
use super::{CacheKey, Engine, Revocation, Store, StoreError, UserHash, user_hash};
use crate::telemetry::metrics::StoreOperation;

/// How long a cut-off is kept: no token without session is good for longer.
pub const CUT_OFF_TTL: Duration = Duration::from_secs(366 * 86_400);

/// Whether a cut-off at this second refuses a token that was issued then: all up to it, and those of
/// which nobody knows.
pub fn cut_off_covers(cut_off: u64, issued_at: Option<u64>) -> bool {
    issued_at.is_none_or(|issued| issued <= cut_off)
}

impl Store {
    /// Refuses the token that this key names (see the contract's section 6) for so long.
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

    /// Takes a key off the blacklist; tells whether it was on it.
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

    /// Tells for each key whether it is on the blacklist, in their order; asks for what this gateway
    /// is not sure of.
    pub async fn are_blacklisted(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
        let sure = |key: &&str| self.shared.near_cache.cached_blacklisting(key);
        let (sure, unsure) = split_cached(keys, sure);
        let looked_up = self.look_up_tokens(unsure.into_iter().map(str::to_owned));
        let looked_up = looked_up.await?;
        merge_cached(keys, sure, |key| looked_up.get(*key).copied())
    }

    /// Looks tokens up in the store, whatever is cached, and caches which are on the blacklist.
    pub(super) async fn look_up_tokens(
        &self,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<HashMap<String, bool>, StoreError> {
        let replica = &self.shared.near_cache;
        let lookup = BatchLookup::<String>::new(keys, replica, |key| CacheKey::Token(key.clone()));
        if lookup.keys().is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<&str> = lookup.keys().iter().map(String::as_str).collect();
        let listed = self.measured(StoreOperation::IsBlacklisted, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.are_blacklisted(&keys)),
                Engine::Redis(redis) => redis.are_blacklisted(&keys).await,
            }
        });
        let listed = listed.await?;
        Ok(lookup.note(replica, listed)?.into_iter().collect())
    }

    /// Refuses, from now on, every token without a session of this person that was issued up to now,
    /// in whole seconds of the store's clock, or does not say when. `user_key` is what admission
    /// knows the person by.
    pub async fn cut_off(&self, user_key: &str) -> Result<(), StoreError> {
        self.cut_off_up_to(user_hash(user_key), None).await
    }

    /// As [`Store::cut_off`], up to a second that is known already.
    pub async fn cut_off_up_to(
        &self,
        person: UserHash,
        mut second: Option<u64>,
    ) -> Result<(), StoreError> {
        let outcome = self.measured(StoreOperation::CutOff, async {
            match &self.engine {
                Engine::Memory(memory) => second = Some(memory.cut_off(person, second)),
                Engine::Redis(redis) => redis.cut_off(&person, &mut second).await?,
            }
            Ok(())
        });
        let outcome = outcome.await;
        if let (Ok(()) | Err(StoreError::Unreplicated), Some(second)) = (outcome, second) {
            self.announce(Revocation::IssuedBefore(person, second));
        }
        outcome
    }

    /// How long each of these tokens stays on the blacklist; `None`: it is not on it.
    pub async fn blacklist_ttls<'k>(
        &self,
        keys: &[&'k str],
    ) -> Result<HashMap<&'k str, Option<Duration>>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let lives = self.measured(StoreOperation::IsBlacklisted, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.blacklist_ttls(keys)),
                Engine::Redis(redis) => redis.blacklist_ttls(keys).await,
            }
        });
        Ok(pair(keys.to_vec(), lives.await?)?.collect())
    }

    /// Tells for each person the second up to which their tokens without session are refused, in
    /// their order; asks for what this gateway is not sure of.
    pub async fn cut_offs(&self, user_keys: &[&str]) -> Result<Vec<Option<u64>>, StoreError> {
        let people: Vec<UserHash> = user_keys.iter().map(|key| user_hash(key)).collect();
        let sure = |person: &UserHash| self.shared.near_cache.cached_cut_off(person);
        let (sure, unsure) = split_cached(&people, sure);
        let looked_up = self.look_up_cut_offs(unsure).await?;
        merge_cached(&people, sure, |user| looked_up.get(user).copied())
    }

    /// Looks users' cut-offs up in the store, whatever is cached, and caches them.
    pub async fn look_up_cut_offs(
        &self,
        people: impl IntoIterator<Item = UserHash>,
    ) -> Result<HashMap<UserHash, Option<u64>>, StoreError> {
        let replica = &self.shared.near_cache;
        let lookup = BatchLookup::<UserHash>::new(people, replica, |user| CacheKey::User(*user));
        let people = lookup.keys();
        if people.is_empty() {
            return Ok(HashMap::new());
        }
        let cut_offs = self.measured(StoreOperation::CutOffs, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_offs(people)),
                Engine::Redis(redis) => redis.cut_offs(people).await,
            }
        });
        let cut_offs = cut_offs.await?;
        Ok(lookup.note(replica, cut_offs)?.into_iter().collect())
    }
}

/// What is sure of each, in their order, and those of which nothing is.
fn split_cached<K: Copy, T>(
    keys: &[K],
    sure: impl Fn(&K) -> Option<T>,
) -> (Vec<Option<T>>, Vec<K>) {
    let sure: Vec<Option<T>> = keys.iter().map(sure).collect();
    let unsure = keys.iter().zip(&sure).filter(|(_, sure)| sure.is_none());
    let unsure = unsure.map(|(key, _)| *key).collect();
    (sure, unsure)
}

/// The outcome of each key, in their order: from the cache, or else as it was looked up. A key without
/// outcome is an error: "not revoked" is never a default.
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

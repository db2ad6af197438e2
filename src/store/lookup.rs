//! Look-ups of several keys in one round trip: every key is paired with what the store returned for it.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::replica::{Before, Replica};
use super::{Entry, Found, Item, PersonHash, StoreError};
use crate::auth::session::{Millis, SessionId, Status};

/// Distinct keys to look up together, with the state of the near cache before the round trip.
pub(super) struct Lookup<K> {
    keys: Vec<K>,
    before: Vec<Before>,
}

impl<K: Clone + Eq + Hash> Lookup<K> {
    /// Takes each key once, however often it is given.
    pub(super) fn new(
        keys: impl IntoIterator<Item = K>,
        cache: &Replica,
        item: impl Fn(&K) -> Item,
    ) -> Lookup<K> {
        let mut taken = HashSet::new();
        let distinct = keys.into_iter().filter(|key| taken.insert(key.clone()));
        let keys: Vec<K> = distinct.collect();
        let before = keys.iter().map(|key| cache.before(&item(key))).collect();
        Lookup { keys, before }
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    fn paired<R>(
        self,
        replies: Vec<R>,
    ) -> Result<impl Iterator<Item = (K, Before, R)>, StoreError> {
        let asked = self.keys.into_iter().zip(self.before).collect();
        let pairs = paired(asked, replies)?;
        Ok(pairs.map(|((key, before), reply)| (key, before, reply)))
    }
}

impl Lookup<SessionId> {
    /// Caches how the sessions stand, by the store's clock at `now`. `lag` receives how late the end
    /// of a session became known here.
    pub(super) fn note(
        self,
        cache: &Replica,
        entries: Vec<Option<Entry>>,
        idle: Option<Duration>,
        now: Millis,
        mut lag: impl FnMut(Millis),
    ) -> Result<Vec<(SessionId, Found)>, StoreError> {
        let noted = self.paired(entries)?.map(|(id, before, entry)| {
            let found = entry.map_or(Found::Missing, |entry| {
                let used = entry.activity.last_access.max(cache.last_access(id));
                entry.found(used, idle, now)
            });
            if let Some(late) = cache.lag(id, &found, now) {
                lag(late);
            }
            cache.note_session(id, &found, before);
            (id, found)
        });
        Ok(noted.collect())
    }
}

impl Lookup<String> {
    /// Caches which tokens are on the blacklist.
    pub(super) fn note(
        self,
        cache: &Replica,
        listed: Vec<bool>,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let noted = self.paired(listed)?.map(|(key, before, listed)| {
            cache.note_token(&key, listed, before);
            (key, listed)
        });
        Ok(noted.collect())
    }
}

impl Lookup<PersonHash> {
    /// Caches the users' cut-offs.
    pub(super) fn note(
        self,
        cache: &Replica,
        cut_offs: Vec<Option<u64>>,
    ) -> Result<Vec<(PersonHash, Option<u64>)>, StoreError> {
        let noted = self.paired(cut_offs)?.map(|(user, before, cut_off)| {
            cache.note_person(user, cut_off, before);
            (user, cut_off)
        });
        Ok(noted.collect())
    }
}

/// Pairs requests with their replies. One reply too few or too many leaves the outcome of all of them
/// unknown: no request falls back to "missing" or "not revoked" for want of a reply.
pub(super) fn paired<K, R>(
    requests: Vec<K>,
    replies: Vec<R>,
) -> Result<impl Iterator<Item = (K, R)>, StoreError> {
    if requests.len() != replies.len() {
        return Err(StoreError::Malformed);
    }
    Ok(requests.into_iter().zip(replies))
}

impl Entry {
    /// How the session stands, used last at this time.
    fn found(self, last_access: Millis, idle: Option<Duration>, now: Millis) -> Found {
        match self.session.status(last_access, idle, now) {
            Status::Active => Found::Active(Arc::new(self.session), last_access),
            Status::Expired => Found::Expired(self.session),
            Status::Revoked => Found::Revoked(self.session),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn lookup(keys: &[&str], cache: &Replica) -> Lookup<String> {
        let keys = keys.iter().map(|key| (*key).to_owned());
        Lookup::<String>::new(keys, cache, |key| Item::Token(key.clone()))
    }

    #[test]
    fn a_key_given_twice_is_looked_up_once_and_has_its_own_outcome() {
        let cache = Replica::default();
        let lookup = lookup(&["a", "b", "a"], &cache);
        assert_eq!(lookup.keys(), ["a", "b"]);
        let noted = lookup.note(&cache, vec![true, false]).unwrap();
        assert_eq!(noted, [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert!(cache.is_revoked("a"));
    }

    #[test]
    fn a_reply_too_few_or_too_many_is_an_error_and_caches_nothing() {
        let cache = Replica::default();
        for listed in [vec![true], vec![true; 3]] {
            let noted = lookup(&["a", "b"], &cache).note(&cache, listed);
            assert_eq!(noted, Err(StoreError::Malformed));
            assert!(!cache.is_revoked("a"));
        }
    }
}

//! What is refused though it is genuine: tokens one by one, and a person's tokens up to a moment.

use std::time::Duration;

use super::{Engine, Item, PersonHash, Revocation, Store, StoreError, person_hash};

/// How long a cut-off is kept: no token without session is good for longer.
pub const CUT_OFF_KEPT: Duration = Duration::from_secs(366 * 86_400);

/// Whether a cut-off at this second refuses a token that was issued then: all up to it, and those of
/// which nobody knows.
pub fn covers(cut_off: u64, issued_at: Option<u64>) -> bool {
    issued_at.is_none_or(|issued| issued <= cut_off)
}

impl Store {
    /// Refuses the token that this key names (see the contract's section 6) for so long.
    pub async fn blacklist(&self, key: &str, ttl: Duration) -> Result<(), StoreError> {
        let outcome = self.measured("blacklist", async {
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
        let outcome = self.measured("unblacklist", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.unblacklist(key)),
                Engine::Redis(redis) => redis.unblacklist(key).await,
            }
        });
        let outcome = outcome.await;
        self.changed(&Item::Token(key.to_owned()));
        outcome
    }

    /// Tells for each key whether it is on the blacklist, in their order; asks for what this gateway
    /// is not sure of.
    pub async fn is_blacklisted(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
        let sure = |key: &&str| self.shared.replica.is_surely_listed(key);
        let (sure, unsure) = parted(keys, sure);
        Ok(completed(sure, self.look_up_tokens(&unsure).await?))
    }

    /// Asks the store, whatever is known here, and takes note of what it says.
    pub(super) async fn look_up_tokens(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let replica = &self.shared.replica;
        let before = |key: &&str| replica.before(&Item::Token((*key).to_owned()));
        let before: Vec<_> = keys.iter().map(before).collect();
        let listed = self.measured("is_blacklisted", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.are_blacklisted(keys)),
                Engine::Redis(redis) => redis.are_blacklisted(keys).await,
            }
        });
        let listed = listed.await?;
        for ((key, listed), before) in keys.iter().zip(&listed).zip(before) {
            replica.note_token(key, *listed, before);
        }
        Ok(listed)
    }

    /// Refuses, from now on, every token without a session of this person that was issued up to now,
    /// in whole seconds of the store's clock, or does not say when. `user_key` is what admission
    /// knows the person by.
    pub async fn cut_off(&self, user_key: &str) -> Result<(), StoreError> {
        self.cut_off_up_to(person_hash(user_key), None).await
    }

    /// As [`Store::cut_off`], up to a second that is known already.
    pub async fn cut_off_up_to(
        &self,
        person: PersonHash,
        mut second: Option<u64>,
    ) -> Result<(), StoreError> {
        let outcome = self.measured("cut_off", async {
            match &self.engine {
                Engine::Memory(memory) => second = Some(memory.cut_off(person, second)),
                Engine::Redis(redis) => redis.cut_off(&person, &mut second).await?,
            }
            Ok(())
        });
        let outcome = outcome.await;
        if let (Ok(()) | Err(StoreError::Unreplicated), Some(second)) = (outcome, second) {
            self.announce(Revocation::Person(person, second));
        }
        outcome
    }

    /// How long each of these tokens stays on the blacklist; `None`: it is not on it.
    pub async fn blacklisted_for(
        &self,
        keys: &[&str],
    ) -> Result<Vec<Option<Duration>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.measured("is_blacklisted", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.blacklisted_for(keys)),
                Engine::Redis(redis) => redis.blacklisted_for(keys).await,
            }
        })
        .await
    }

    /// Tells for each person the second up to which their tokens without session are refused, in
    /// their order; asks for what this gateway is not sure of.
    pub async fn cut_offs(&self, user_keys: &[&str]) -> Result<Vec<Option<u64>>, StoreError> {
        let people: Vec<PersonHash> = user_keys.iter().map(|key| person_hash(key)).collect();
        let sure = |person: &PersonHash| self.shared.replica.is_surely_cut_off(person);
        let (sure, unsure) = parted(&people, sure);
        Ok(completed(sure, self.look_up_people(&unsure).await?))
    }

    /// Asks the store, whatever is known here, and takes note of what it says.
    pub async fn look_up_people(
        &self,
        people: &[PersonHash],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        if people.is_empty() {
            return Ok(Vec::new());
        }
        let replica = &self.shared.replica;
        let before = |person: &PersonHash| replica.before(&Item::Person(*person));
        let before: Vec<_> = people.iter().map(before).collect();
        let cut_offs = self.measured("cut_offs", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_offs(people)),
                Engine::Redis(redis) => redis.cut_offs(people).await,
            }
        });
        let cut_offs = cut_offs.await?;
        for ((person, cut_off), before) in people.iter().zip(&cut_offs).zip(before) {
            replica.note_person(*person, *cut_off, before);
        }
        Ok(cut_offs)
    }
}

/// What is sure of each, in their order, and those of which nothing is.
fn parted<K: Copy, T>(keys: &[K], sure: impl Fn(&K) -> Option<T>) -> (Vec<Option<T>>, Vec<K>) {
    let sure: Vec<Option<T>> = keys.iter().map(sure).collect();
    let unsure = keys.iter().zip(&sure).filter(|(_, sure)| sure.is_none());
    let unsure = unsure.map(|(key, _)| *key).collect();
    (sure, unsure)
}

/// What was sure, with what was told of the others in its place.
fn completed<T: Default>(sure: Vec<Option<T>>, told: Vec<T>) -> Vec<T> {
    let mut told = told.into_iter();
    let complete = |sure: Option<T>| sure.or_else(|| told.next()).unwrap_or_default();
    sure.into_iter().map(complete).collect()
}

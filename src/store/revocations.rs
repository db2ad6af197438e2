//! What is refused though it is genuine: tokens one by one, and a person's tokens up to a moment.

use std::time::Duration;

use super::{Engine, Item, PersonHash, Revocation, Store, StoreError, person_hash};

/// How long a cut-off is kept: no token without session is good for longer.
pub(super) const CUT_OFF_KEPT: Duration = Duration::from_secs(366 * 86_400);

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
        let replica = &self.shared.replica;
        let sure: Vec<Option<bool>> = keys
            .iter()
            .map(|key| replica.is_surely_listed(key))
            .collect();
        let unsure = || keys.iter().zip(&sure).filter(|(_, sure)| sure.is_none());
        let asked: Vec<&str> = unsure().map(|(key, _)| *key).collect();
        let before: Vec<_> = asked
            .iter()
            .map(|key| replica.before(&Item::Token((*key).to_owned())))
            .collect();
        let listed = self.ask_blacklist(&asked).await?;
        for ((key, listed), before) in asked.iter().zip(&listed).zip(before) {
            replica.note_token(key, *listed, before);
        }
        let mut listed = listed.into_iter();
        let answer = |sure: &Option<bool>| sure.or_else(|| listed.next()).unwrap_or(false);
        Ok(sure.iter().map(answer).collect())
    }

    /// Asks the store, whatever is known here.
    pub(super) async fn ask_blacklist(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.measured("is_blacklisted", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.are_blacklisted(keys)),
                Engine::Redis(redis) => redis.are_blacklisted(keys).await,
            }
        })
        .await
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
    /// their order.
    pub async fn cut_offs(&self, user_keys: &[&str]) -> Result<Vec<Option<u64>>, StoreError> {
        let people: Vec<PersonHash> = user_keys.iter().map(|key| person_hash(key)).collect();
        self.cut_offs_of(&people).await
    }

    /// As [`Store::cut_offs`].
    pub async fn cut_offs_of(&self, people: &[PersonHash]) -> Result<Vec<Option<u64>>, StoreError> {
        if people.is_empty() {
            return Ok(Vec::new());
        }
        self.measured("cut_offs", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_offs(people)),
                Engine::Redis(redis) => redis.cut_offs(people).await,
            }
        })
        .await
    }
}

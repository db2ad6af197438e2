//! What is refused though it is genuine: tokens one by one, and a person's tokens up to a moment.

use std::time::Duration;

use super::{Engine, Revocation, Store, StoreError};

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
        self.measured("blacklist", async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.blacklist(key, ttl);
                    Ok(())
                }
                Engine::Redis(redis) => redis.blacklist(key, ttl).await,
            }
        })
        .await?;
        self.announce(Revocation::Token(key.to_owned()));
        Ok(())
    }

    /// Takes a key off the blacklist; tells whether it was on it.
    pub async fn unblacklist(&self, key: &str) -> Result<bool, StoreError> {
        self.measured("unblacklist", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.unblacklist(key)),
                Engine::Redis(redis) => redis.unblacklist(key).await,
            }
        })
        .await
    }

    /// Tells for each key whether it is on the blacklist, in their order.
    pub async fn is_blacklisted(&self, keys: &[&str]) -> Result<Vec<bool>, StoreError> {
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
        let cut_off = self.measured("cut_off", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_off(user_key)),
                Engine::Redis(redis) => redis.cut_off(user_key).await,
            }
        });
        let second = cut_off.await?;
        self.announce(Revocation::Person(user_key.to_owned(), second));
        Ok(())
    }

    /// Tells for each person the second up to which their tokens without session are refused, in
    /// their order.
    pub async fn cut_offs(&self, user_keys: &[&str]) -> Result<Vec<Option<u64>>, StoreError> {
        if user_keys.is_empty() {
            return Ok(Vec::new());
        }
        self.measured("cut_offs", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.cut_offs(user_keys)),
                Engine::Redis(redis) => redis.cut_offs(user_keys).await,
            }
        })
        .await
    }
}

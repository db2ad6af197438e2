//! Revoked tokens in the two homes: one by one, and all of a user's up to a second.

use std::time::Duration;

use super::{Accounts, Failure};
use crate::store::{PersonHash, Revocation, person_hash};

impl Accounts {
    /// Rejects a token for this long. Where one of store and database fails, the other has it all the same.
    ///
    /// # Errors
    /// When it could not be ensured.
    pub async fn refuse_token(&self, key: &str, ttl: Duration) -> Result<(), Failure> {
        let Some(durable) = self.durable.on() else {
            return Ok(self.store.blacklist(key, ttl).await?);
        };
        let kept = durable.refuse_token(key, ttl, self.now().await?).await;
        let told = self.store.blacklist(key, ttl).await;
        kept?;
        if told.is_err() {
            self.store.revoked(Revocation::Token(key.to_owned()));
        }
        Ok(self.safely_told(&told)?)
    }

    /// Refuses a token no longer.
    ///
    /// # Errors
    /// When a home does not answer.
    pub async fn allow_token(&self, key: &str) -> Result<(), Failure> {
        if let Some(durable) = self.durable.on() {
            durable.allow_token(key).await?;
        }
        self.store.unblacklist(key).await?;
        Ok(())
    }

    /// Refuses a person's tokens without session that were issued up to now.
    ///
    /// # Errors
    /// When it could not be made sure.
    pub async fn cut_off(&self, user_key: &str) -> Result<(), Failure> {
        if !self.is_durable() {
            return Ok(self.store.cut_off(user_key).await?);
        }
        let now = self.now().await?;
        self.cut_off_up_to(person_hash(user_key), now / 1000).await
    }

    /// Makes a user's cut-off sure, if there is one: an earlier attempt may not have been able to.
    ///
    /// # Errors
    /// When it could not be made sure.
    pub async fn ensure_cut_off(&self, user_key: &str) -> Result<(), Failure> {
        let person = person_hash(user_key);
        let found = self.store.look_up_people([person]).await?;
        match found.into_iter().find_map(|(_, second)| second) {
            Some(second) => self.cut_off_up_to(person, second).await,
            None => Ok(()),
        }
    }

    async fn cut_off_up_to(&self, person: PersonHash, second: u64) -> Result<(), Failure> {
        let Some(durable) = self.durable.on() else {
            return Ok(self.store.cut_off_up_to(person, Some(second)).await?);
        };
        let kept = durable
            .refuse_person(person, second, self.now().await?)
            .await;
        let told = self.store.cut_off_up_to(person, Some(second)).await;
        kept?;
        if told.is_err() {
            self.store.revoked(Revocation::Person(person, second));
        }
        Ok(self.safely_told(&told)?)
    }
}

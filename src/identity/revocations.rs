//! Revoked tokens in the two homes: one by one, and all of a user's up to a second.

use std::time::Duration;

use super::{AccountError, Accounts};
use crate::store::{Revocation, UserHash, user_hash};

impl Accounts {
    /// Rejects a token for this long. Where one of store and database fails, the other has it all the same.
    ///
    /// # Errors
    /// When it could not be ensured.
    pub async fn write_blacklist_entry(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<(), AccountError> {
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(self.store.blacklist(key, ttl).await?);
        };
        let kept = durable.revoke_token(key, ttl, self.now().await?).await;
        let told = self.store.blacklist(key, ttl).await;
        kept?;
        if told.is_err() {
            self.store
                .announce_revocation(Revocation::Token(key.to_owned()));
        }
        Ok(self.tolerate_store_error(&told)?)
    }

    /// Refuses a token no longer.
    ///
    /// # Errors
    /// When a home does not answer.
    pub async fn remove_blacklist_entry(&self, key: &str) -> Result<(), AccountError> {
        if let Some(durable) = self.durable.if_enabled() {
            durable.unrevoke_token(key).await?;
        }
        self.store.unblacklist(key).await?;
        Ok(())
    }

    /// Refuses a person's tokens without session that were issued up to now.
    ///
    /// # Errors
    /// When it could not be made sure.
    pub async fn revoke_user_tokens(&self, user_key: &str) -> Result<(), AccountError> {
        if !self.is_durable() {
            return Ok(self.store.cut_off(user_key).await?);
        }
        let now = self.now().await?;
        self.revoke_user_tokens_up_to(user_hash(user_key), now / 1000)
            .await
    }

    /// Makes a user's cut-off sure, if there is one: an earlier attempt may not have been able to.
    ///
    /// # Errors
    /// When it could not be made sure.
    pub async fn ensure_user_tokens_revoked(&self, user_key: &str) -> Result<(), AccountError> {
        let person = user_hash(user_key);
        let found = self.store.look_up_cut_offs([person]).await?;
        match found.into_iter().find_map(|(_, second)| second) {
            Some(second) => self.revoke_user_tokens_up_to(person, second).await,
            None => Ok(()),
        }
    }

    async fn revoke_user_tokens_up_to(
        &self,
        person: UserHash,
        second: u64,
    ) -> Result<(), AccountError> {
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(self.store.cut_off_up_to(person, Some(second)).await?);
        };
        let kept = durable
            .revoke_issued_before(person, second, self.now().await?)
            .await;
        let told = self.store.cut_off_up_to(person, Some(second)).await;
        kept?;
        if told.is_err() {
            self.store
                .announce_revocation(Revocation::IssuedBefore(person, second));
        }
        Ok(self.tolerate_store_error(&told)?)
    }
}

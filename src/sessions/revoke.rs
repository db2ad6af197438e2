//! Revoked tokens: single ones, and all of a user's that were issued before a second.

use std::time::Duration;

use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::session::Millis;
use crate::store::{Revocation, UserHash, user_hash};

impl Sessions {
    /// Rejects the token that this key names, for this long.
    ///
    /// # Errors
    /// When it is not certain that the token is rejected everywhere. Where one of store and database
    /// fails, the other has the revocation all the same.
    pub async fn revoke_token(&self, key: &str, ttl: Duration) -> Result<(), SessionError> {
        let SessionSource::Durable(durable) = self.source() else {
            return Ok(self.store.blacklist(key, ttl).await?);
        };
        let logged = durable.revoke_token(key, ttl, self.now().await?).await;
        let copied = self.store.blacklist(key, ttl).await;
        logged?;
        if copied.is_err() {
            self.store
                .announce_revocation(Revocation::Token(key.to_owned()));
        }
        Ok(self.tolerate_store_error(&copied)?)
    }

    /// Takes a token's revocation back.
    ///
    /// # Errors
    /// When store or database does not respond.
    pub async fn unrevoke_token(&self, key: &str) -> Result<(), SessionError> {
        if let SessionSource::Durable(durable) = self.source() {
            durable.unrevoke_token(key).await?;
        }
        self.store.unblacklist(key).await?;
        Ok(())
    }

    /// Rejects the tokens without a session that this user was issued up to now.
    ///
    /// # Errors
    /// As for [`Sessions::revoke_token`].
    pub async fn revoke_user_tokens(&self, user_key: &str) -> Result<(), SessionError> {
        match self.source() {
            SessionSource::Store => Ok(self.store.cut_off(user_key).await?),
            SessionSource::Durable(_) => {
                let second = self.now().await? / 1000;
                self.revoke_issued_before(user_hash(user_key), second).await
            }
        }
    }

    /// Rejects the tokens without a session that this user was issued up to this time.
    ///
    /// # Errors
    /// As for [`Sessions::revoke_token`].
    pub async fn revoke_user_tokens_up_to(
        &self,
        user_key: &str,
        time: Millis,
    ) -> Result<(), SessionError> {
        self.revoke_issued_before(user_hash(user_key), time / 1000)
            .await
    }

    /// Repeats the issued-before revocation of a user, if there is one: an earlier attempt may have
    /// failed.
    ///
    /// # Errors
    /// As for [`Sessions::revoke_token`].
    pub async fn ensure_user_tokens_revoked(&self, user_key: &str) -> Result<(), SessionError> {
        let user = user_hash(user_key);
        let found = self.store.look_up_cut_offs([user]).await?;
        match found.into_iter().find_map(|(_, second)| second) {
            Some(second) => self.revoke_issued_before(user, second).await,
            None => Ok(()),
        }
    }

    async fn revoke_issued_before(&self, user: UserHash, second: u64) -> Result<(), SessionError> {
        let SessionSource::Durable(durable) = self.source() else {
            return Ok(self.store.cut_off_up_to(user, Some(second)).await?);
        };
        let logged = durable
            .revoke_issued_before(user, second, self.now().await?)
            .await;
        let copied = self.store.cut_off_up_to(user, Some(second)).await;
        logged?;
        if copied.is_err() {
            self.store
                .announce_revocation(Revocation::IssuedBefore(user, second));
        }
        Ok(self.tolerate_store_error(&copied)?)
    }
}

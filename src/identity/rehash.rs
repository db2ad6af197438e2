//! Rehashing of passwords below the configured cost, at sign-in: the only time that the password is
//! available.

use super::passwords::is_outdated;
use super::{AccountError, Accounts};
use crate::database::User;
use crate::rejection::Refusal;
use crate::settings::HashCost;

impl Accounts {
    /// Returns the user with a hash of the configured cost. If hashing fails, a later sign-in tries
    /// again.
    pub(super) async fn rehash_if_outdated(
        &self,
        user: User,
        password: &str,
        cost: HashCost,
    ) -> Result<User, AccountError> {
        let Some(old) = user.password_hash.as_deref() else {
            return Ok(user);
        };
        if !is_outdated(old, cost) {
            return Ok(user);
        }
        // The password is verified, so other clients do not delay this step.
        let Ok(slot) = self.passwords.acquire_sign_in_slot(true).await else {
            return Ok(user);
        };
        let Ok(hash) = self.passwords.hash(slot, password, cost).await else {
            return Ok(user);
        };
        let replaced = self
            .database
            .replace_password_hash(&user.id, old, &hash, None)
            .await?;
        if replaced {
            return Ok(User {
                password_hash: Some(hash),
                ..user
            });
        }
        // Another sign-in has just rehashed it, or the password has changed.
        self.reverify_password(&user.id, password, cost).await
    }

    /// Compares a password that was right a moment ago with the hash that has replaced the compared
    /// one.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` when the password has changed, or the user is deleted or disabled.
    pub(super) async fn reverify_password(
        &self,
        user: &str,
        password: &str,
        cost: HashCost,
    ) -> Result<User, AccountError> {
        let now = self.database.user(user).await?;
        let now = now
            .filter(|user| !user.disabled)
            .ok_or(Refusal::InvalidCredentials)?;
        let slot = self.passwords.acquire_sign_in_slot(true).await?;
        let hash = now.password_hash.as_deref();
        let (_, right) = self.passwords.verify(slot, password, hash, cost).await?;
        match right {
            true => Ok(now),
            false => Err(Refusal::InvalidCredentials.into()),
        }
    }
}

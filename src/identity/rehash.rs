//! Passwords whose hash costs less than today's are hashed anew when their owner signs in: only then
//! is the password there.

use super::passwords::is_outdated;
use super::{AccountError, Accounts};
use crate::database::User;
use crate::rejection::Refusal;
use crate::settings::HashCost;

impl Accounts {
    /// Gives the user with a hash of today's cost. A hash that cannot be made now is made another
    /// time.
    pub(super) async fn rehash_if_outdated(
        &self,
        user: User,
        password: &str,
        cost: HashCost,
    ) -> Result<User, AccountError> {
        if !is_outdated(&user.password_hash, cost) {
            return Ok(user);
        }
        // The password is proven: strangers do not delay what follows.
        let Ok(turn) = self.passwords.acquire_sign_in_slot(true).await else {
            return Ok(user);
        };
        let Ok(hash) = self.passwords.hash(turn, password, cost).await else {
            return Ok(user);
        };
        let replaced = self
            .database
            .replace_password_hash(&user.id, &user.password_hash, &hash, None)
            .await?;
        if replaced {
            return Ok(User {
                password_hash: hash,
                ..user
            });
        }
        // Another sign-in has just done it, or the password is another one by now.
        self.reverify_password(&user.id, password, cost).await
    }

    /// Compares a password, which was right a moment ago, with the hash that has come in the place
    /// of the one that it was compared with.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` when it is another password by now, or the user is gone or disabled.
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
        let turn = self.passwords.acquire_sign_in_slot(true).await?;
        let hash = Some(now.password_hash.as_str());
        let (_, right) = self.passwords.verify(turn, password, hash, cost).await?;
        match right {
            true => Ok(now),
            false => Err(Refusal::InvalidCredentials.into()),
        }
    }
}

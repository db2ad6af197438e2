//! Passwords whose hash costs less than today's are hashed anew when their owner signs in: only then
//! is the password there.

use crate::directory::User;
use crate::refusal::Refusal;

use super::passwords::is_outdated;
use super::{Accounts, Failure};

impl Accounts {
    /// Gives the user with a hash of today's cost. A hash that cannot be made now is made another
    /// time.
    pub(super) async fn strengthen(&self, user: User, password: &str) -> Result<User, Failure> {
        if !is_outdated(&user.password_hash) {
            return Ok(user);
        }
        let Ok(hash) = self.hash(password).await else {
            return Ok(user);
        };
        let replaced = self
            .directory
            .replace_hash(&user.id, &user.password_hash, &hash, None)
            .await?;
        if replaced {
            return Ok(User {
                password_hash: hash,
                ..user
            });
        }
        // Another sign-in has just done it, or the password is another one by now.
        let now = self.directory.user(&user.id).await?;
        let now = now
            .filter(|user| !user.disabled)
            .ok_or(Refusal::InvalidCredentials)?;
        let turn = self.passwords.turn().await?;
        let (_, right) = self
            .passwords
            .verify(turn, password, Some(&now.password_hash))
            .await?;
        match right {
            true => Ok(now),
            false => Err(Refusal::InvalidCredentials.into()),
        }
    }
}

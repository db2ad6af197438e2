//! Replacement of password hashes, for rehashing and password changes.

use super::{Database, Error};
use crate::auth::session::Millis;

impl Database {
    /// Replaces the hash that a password was verified with; `false`: it has changed meanwhile.
    ///
    /// `changed_at` is the time of a password change; `None`: the same password is rehashed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn replace_password_hash(
        &self,
        user: &str,
        old: &str,
        new: &str,
        changed_at: Option<Millis>,
    ) -> Result<bool, Error> {
        let update = self.pool.sql(
            "UPDATE users SET password_hash = $1, \
             updated_at = CASE WHEN updated_at < $2 THEN $2 ELSE updated_at END \
             WHERE id = $3 AND password_hash = $4 RETURNING id",
        );
        let changed_at = changed_at.map(Millis::cast_signed);
        let update = update.bind(new).bind(changed_at).bind(user).bind(old);
        Ok(!self.pool.write(update).await?.is_empty())
    }
}

//! Hashes of passwords that are replaced by whoever knows the password.

use super::{Database, Error};
use crate::auth::session::Millis;

impl Database {
    /// Puts a hash in the place of the one that a password was compared with. `false`: that one is
    /// not there any more. `changed_at`: the password is another one since then.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn replace_password_hash(
        &self,
        user: &str,
        old: &str,
        new: &str,
        changed_at: Option<Millis>,
    ) -> Result<bool, Error> {
        let replace = self.pool.sql(
            "UPDATE users SET password_hash = $1, \
             updated_at = CASE WHEN updated_at < $2 THEN $2 ELSE updated_at END \
             WHERE id = $3 AND password_hash = $4 RETURNING id",
        );
        let changed_at = changed_at.map(Millis::cast_signed);
        let replace = replace.bind(new).bind(changed_at).bind(user).bind(old);
        Ok(!self.pool.write(replace).await?.is_empty())
    }
}

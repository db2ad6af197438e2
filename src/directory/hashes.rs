//! Hashes of passwords that are replaced without the password being another one.

use super::{Directory, Error};

impl Directory {
    /// Puts a hash in the place of an older one of the same password. `false`: the older one is not
    /// there any more.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn replace_hash(&self, user: &str, old: &str, new: &str) -> Result<bool, Error> {
        let replace = self.database.sql(
            "UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3 RETURNING id",
        );
        let replace = replace.bind(new).bind(user).bind(old);
        Ok(!self.database.write(replace).await?.is_empty())
    }
}

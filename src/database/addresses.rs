//! Where each user has signed in from.

use super::{Database, Error};
use crate::auth::session::Millis;

/// The newest addresses that are remembered of a user.
const MAX_ADDRESSES: i64 = 50;
/// What was written so recently is not written again, in milliseconds: a write waits for the disk.
pub(super) const REWRITE_INTERVAL_MS: Millis = 3_600_000;

impl Database {
    /// Remembers that the user signed in from there; `address` is the client's, canonical.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn record_address(
        &self,
        user: &str,
        address: &str,
        now: Millis,
    ) -> Result<(), Error> {
        let last = self.last_sign_in(user, address).await?;
        if last.is_some_and(|last| now < last + REWRITE_INTERVAL_MS) {
            return Ok(());
        }
        let remember = self.pool.sql(
            "INSERT INTO sign_in_addresses (user_id, address, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, address) DO UPDATE SET last_at = excluded.last_at",
        );
        let remember = remember.bind(user).bind(address).bind(now.cast_signed());
        self.pool.write(remember).await?;
        if last.is_some() {
            return Ok(());
        }
        let forget = self.pool.sql(
            "DELETE FROM sign_in_addresses WHERE user_id = $1 AND address NOT IN \
             (SELECT address FROM sign_in_addresses WHERE user_id = $1 \
              ORDER BY last_at DESC LIMIT $2)",
        );
        self.pool
            .write(forget.bind(user).bind(MAX_ADDRESSES))
            .await?;
        Ok(())
    }

    /// Tells whether the user is known to have signed in from there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_address(&self, user: &str, address: &str) -> Result<bool, Error> {
        Ok(self.last_sign_in(user, address).await?.is_some())
    }

    /// When the user last signed in from there, as far as it is remembered.
    async fn last_sign_in(&self, user: &str, address: &str) -> Result<Option<Millis>, Error> {
        let look = self
            .pool
            .sql("SELECT last_at FROM sign_in_addresses WHERE user_id = $1 AND address = $2");
        let found = self.pool.read(look.bind(user).bind(address)).await?;
        let last = found.first().map(|row| row.timestamp("last_at"));
        Ok(last.transpose()?)
    }
}

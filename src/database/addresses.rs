//! Addresses from which users have signed in.

use super::{Database, Error};
use crate::auth::session::Millis;

/// Number of addresses kept per user, the latest ones.
const MAX_ADDRESSES: i64 = 50;
/// Interval within which an entry is not written again, in milliseconds: a write waits for the disk.
pub(super) const REWRITE_INTERVAL_MS: Millis = 3_600_000;

impl Database {
    /// Records a sign-in from an address, in canonical form.
    ///
    /// # Errors
    /// If the database fails.
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
        let insert = self.pool.sql(
            "INSERT INTO sign_in_addresses (user_id, address, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, address) DO UPDATE SET last_at = excluded.last_at",
        );
        let insert = insert.bind(user).bind(address).bind(now.cast_signed());
        self.pool.write(insert).await?;
        if last.is_some() {
            return Ok(());
        }
        let delete = self.pool.sql(
            "DELETE FROM sign_in_addresses WHERE user_id = $1 AND address NOT IN \
             (SELECT address FROM sign_in_addresses WHERE user_id = $1 \
              ORDER BY last_at DESC LIMIT $2)",
        );
        self.pool
            .write(delete.bind(user).bind(MAX_ADDRESSES))
            .await?;
        Ok(())
    }

    /// Whether the user has signed in from an address before.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_address(&self, user: &str, address: &str) -> Result<bool, Error> {
        Ok(self.last_sign_in(user, address).await?.is_some())
    }

    /// Time of the user's last recorded sign-in from an address.
    async fn last_sign_in(&self, user: &str, address: &str) -> Result<Option<Millis>, Error> {
        let select = self
            .pool
            .sql("SELECT last_at FROM sign_in_addresses WHERE user_id = $1 AND address = $2");
        let rows = self.pool.read(select.bind(user).bind(address)).await?;
        let last = rows.first().map(|row| row.timestamp("last_at"));
        Ok(last.transpose()?)
    }
}

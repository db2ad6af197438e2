//! What each user has signed in with.

use super::addresses::REWRITE_INTERVAL_MS;
use super::{Database, Error};
use crate::auth::session::Millis;

/// The newest devices that are remembered of a user.
const MAX_DEVICES: i64 = 50;

/// Whether a device was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSighting {
    /// The user's first one ever.
    First,
    /// Another one than those before.
    New,
    Known,
}

impl Database {
    /// Remembers what a user signed in with, and tells whether that was known.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn record_device(
        &self,
        user: &str,
        device: &str,
        now: Millis,
    ) -> Result<DeviceSighting, Error> {
        let look = self
            .pool
            .sql("SELECT device, last_at FROM sign_in_devices WHERE user_id = $1");
        let mut acquaintance = DeviceSighting::First;
        for row in self.pool.read(look.bind(user)).await? {
            let known: String = row.get("device")?;
            if known == device {
                if now < row.timestamp("last_at")? + REWRITE_INTERVAL_MS {
                    return Ok(DeviceSighting::Known);
                }
                acquaintance = DeviceSighting::Known;
                break;
            }
            acquaintance = DeviceSighting::New;
        }
        let remember = self.pool.sql(
            "INSERT INTO sign_in_devices (user_id, device, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, device) DO UPDATE SET last_at = excluded.last_at",
        );
        let remember = remember.bind(user).bind(device).bind(now.cast_signed());
        self.pool.write(remember).await?;
        if acquaintance == DeviceSighting::New {
            let forget = self.pool.sql(
                "DELETE FROM sign_in_devices WHERE user_id = $1 AND device NOT IN \
                 (SELECT device FROM sign_in_devices WHERE user_id = $1 \
                  ORDER BY last_at DESC LIMIT $2)",
            );
            self.pool.write(forget.bind(user).bind(MAX_DEVICES)).await?;
        }
        Ok(acquaintance)
    }
}

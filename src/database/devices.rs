//! Devices from which users have signed in.

use super::addresses::REWRITE_INTERVAL_MS;
use super::{Database, Error};
use crate::auth::session::Millis;

/// Number of devices kept per user, the latest ones.
const MAX_DEVICES: i64 = 50;

/// Whether a user has signed in with a device before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSighting {
    /// The user's first device.
    First,
    /// Another device than before.
    New,
    Known,
}

impl Database {
    /// Records a sign-in with a device; returns whether the device was known.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record_device(
        &self,
        user: &str,
        device: &str,
        now: Millis,
    ) -> Result<DeviceSighting, Error> {
        let select = self
            .pool
            .sql("SELECT device, last_at FROM sign_in_devices WHERE user_id = $1");
        let mut sighting = DeviceSighting::First;
        for row in self.pool.read(select.bind(user)).await? {
            let known: String = row.get("device")?;
            if known == device {
                if now < row.timestamp("last_at")? + REWRITE_INTERVAL_MS {
                    return Ok(DeviceSighting::Known);
                }
                sighting = DeviceSighting::Known;
                break;
            }
            sighting = DeviceSighting::New;
        }
        let insert = self.pool.sql(
            "INSERT INTO sign_in_devices (user_id, device, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, device) DO UPDATE SET last_at = excluded.last_at",
        );
        let insert = insert.bind(user).bind(device).bind(now.cast_signed());
        self.pool.write(insert).await?;
        if sighting == DeviceSighting::New {
            let delete = self.pool.sql(
                "DELETE FROM sign_in_devices WHERE user_id = $1 AND device NOT IN \
                 (SELECT device FROM sign_in_devices WHERE user_id = $1 \
                  ORDER BY last_at DESC LIMIT $2)",
            );
            self.pool.write(delete.bind(user).bind(MAX_DEVICES)).await?;
        }
        Ok(sighting)
    }
}

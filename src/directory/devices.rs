//! What each user has signed in with.

use super::addresses::WRITTEN_FOR;
use super::{Directory, Error};
use crate::auth::session::Millis;

/// The newest devices that are remembered of a user.
const REMEMBERED: i64 = 50;

/// Whether a device was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// The user's first one ever.
    First,
    /// Another one than those before.
    New,
    Known,
}

impl Directory {
    /// Remembers what a user signed in with, and tells whether that was known.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn remember_device(
        &self,
        user: &str,
        device: &str,
        now: Millis,
    ) -> Result<Acquaintance, Error> {
        let look = self
            .database
            .sql("SELECT device, last_at FROM sign_in_devices WHERE user_id = $1");
        let mut acquaintance = Acquaintance::First;
        for row in self.database.read(look.bind(user)).await? {
            let known: String = row.get("device")?;
            if known == device {
                if now < row.moment("last_at")? + WRITTEN_FOR {
                    return Ok(Acquaintance::Known);
                }
                acquaintance = Acquaintance::Known;
                break;
            }
            acquaintance = Acquaintance::New;
        }
        let remember = self.database.sql(
            "INSERT INTO sign_in_devices (user_id, device, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, device) DO UPDATE SET last_at = excluded.last_at",
        );
        let remember = remember.bind(user).bind(device).bind(now.cast_signed());
        self.database.write(remember).await?;
        if acquaintance == Acquaintance::New {
            let forget = self.database.sql(
                "DELETE FROM sign_in_devices WHERE user_id = $1 AND device NOT IN \
                 (SELECT device FROM sign_in_devices WHERE user_id = $1 \
                  ORDER BY last_at DESC LIMIT $2)",
            );
            self.database
                .write(forget.bind(user).bind(REMEMBERED))
                .await?;
        }
        Ok(acquaintance)
    }
}

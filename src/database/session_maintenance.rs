//! Batched statements about durable sessions: last use, pending ends, deletion.

use sqlx::AssertSqlSafe;

use super::session_rows::read_id;
use super::{Database, Error};
use crate::auth::session::{EndReason, Millis, SessionId};

/// Number of rows per statement.
pub(super) const BATCH_SIZE: usize = 500;
/// Retention of a session after its end, in milliseconds.
const RETENTION_AFTER_END: Millis = 3_600_000;

impl Database {
    /// Writes the last use of sessions; returns those that have ended.
    ///
    /// # Errors
    /// If the database fails; some may have been written.
    pub async fn update_last_activity(
        &self,
        uses: &[(SessionId, Millis)],
    ) -> Result<Vec<SessionId>, Error> {
        let mut ended = Vec::new();
        for batch in uses.chunks(BATCH_SIZE) {
            let values = pair_placeholders(batch.len());
            let text = format!(
                "WITH used (id, at) AS (VALUES {values}) \
                 UPDATE user_sessions SET last_activity = used.at FROM used \
                 WHERE user_sessions.id = used.id AND is_active AND last_activity < used.at"
            );
            let mut update = self.pool.sql(AssertSqlSafe(text));
            let text = format!(
                "WITH used (id, at) AS (VALUES {values}) SELECT user_sessions.id AS id \
                 FROM user_sessions JOIN used ON user_sessions.id = used.id WHERE NOT is_active"
            );
            let mut select = self.pool.sql(AssertSqlSafe(text));
            for (id, at) in batch {
                update = update.bind(id.to_string()).bind(at.cast_signed());
                select = select.bind(id.to_string()).bind(at.cast_signed());
            }
            self.pool.write(update).await?;
            for row in self.pool.read(select).await? {
                ended.push(read_id(&row)?);
            }
        }
        Ok(ended)
    }

    /// Returns for each existing session whether it is active.
    ///
    /// Active sessions have neither ended nor expired, and have been used since `used_since`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn look_up_liveness(
        &self,
        ids: &[SessionId],
        used_since: Millis,
        now: Millis,
    ) -> Result<Vec<(SessionId, bool)>, Error> {
        let mut sessions = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH_SIZE) {
            let mut select = self.pool.sql(AssertSqlSafe(format!(
                "SELECT id, is_active, last_activity, expires_at FROM user_sessions WHERE id IN ({})",
                placeholders(batch.len())
            )));
            for id in batch {
                select = select.bind(id.to_string());
            }
            for row in self.pool.read(select).await? {
                let time = |column: &str| row.get::<i64, _>(column).map(i64::cast_unsigned);
                let is_active = row.get("is_active")?
                    && time("last_activity")? > used_since
                    && time("expires_at")? > now;
                sessions.push((read_id(&row)?, is_active));
            }
        }
        Ok(sessions)
    }

    /// Returns a batch of ends that the store may not have, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending_ends(&self) -> Result<Vec<(SessionId, EndReason)>, Error> {
        let select = self.pool.sql(
            "SELECT id, ended_reason FROM user_sessions WHERE end_untold ORDER BY ended_at LIMIT $1",
        );
        self.read_ends(select.bind(BATCH_SIZE as i64)).await
    }

    /// Returns a batch of ends since then, of sessions that have not expired, with ids after this one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ends_since(
        &self,
        since: Millis,
        after: Option<SessionId>,
        now: Millis,
    ) -> Result<Vec<(SessionId, EndReason)>, Error> {
        let select = self.pool.sql(
            "SELECT id, ended_reason FROM user_sessions WHERE ended_at >= $1 AND expires_at > $2 \
             AND id > $3 ORDER BY id LIMIT $4",
        );
        let select = select
            .bind(since.cast_signed())
            .bind(now.cast_signed())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(BATCH_SIZE as i64);
        self.read_ends(select).await
    }

    async fn read_ends(
        &self,
        select: super::sql::Statement,
    ) -> Result<Vec<(SessionId, EndReason)>, Error> {
        let rows = self.pool.read(select).await?;
        let read = |row| {
            let reason: Option<String> = super::sql::Row::get(row, "ended_reason")?;
            let reason = reason.and_then(|reason| EndReason::parse(&reason));
            Ok((read_id(row)?, reason.unwrap_or(EndReason::Terminated)))
        };
        rows.iter().map(read).collect()
    }

    /// Records that the store has these ends.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn mark_ends_replayed(&self, ids: &[SessionId]) -> Result<(), Error> {
        for batch in ids.chunks(BATCH_SIZE) {
            let mut update = self.pool.sql(AssertSqlSafe(format!(
                "UPDATE user_sessions SET end_untold = FALSE WHERE id IN ({})",
                placeholders(batch.len())
            )));
            for id in batch {
                update = update.bind(id.to_string());
            }
            self.pool.write(update).await?;
        }
        Ok(())
    }

    /// Deletes sessions an hour after their end and expiry; returns their number.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_expired_sessions(&self, now: Millis) -> Result<u64, Error> {
        let until = now.saturating_sub(RETENTION_AFTER_END).cast_signed();
        let mut total = 0;
        loop {
            let delete = self.pool.sql(
                "DELETE FROM user_sessions WHERE id IN (SELECT id FROM user_sessions \
                 WHERE expires_at < $1 AND (ended_at IS NULL OR ended_at < $1) LIMIT $2) \
                 RETURNING id",
            );
            let delete = delete.bind(until).bind(BATCH_SIZE as i64);
            let deleted = self.pool.write(delete).await?.len();
            total += deleted as u64;
            if deleted < BATCH_SIZE {
                return Ok(total);
            }
        }
    }
}

/// Placeholders for this number of pairs: `($1, $2), ($3, $4)`.
fn pair_placeholders(count: usize) -> String {
    let pair = |n: usize| format!("(${}, ${})", 2 * n + 1, 2 * n + 2);
    let pairs: Vec<String> = (0..count).map(pair).collect();
    pairs.join(", ")
}

/// Placeholders for this number of values: `$1, $2`.
pub(super) fn placeholders(count: usize) -> String {
    let placeholders: Vec<String> = (1..=count).map(|n| format!("${n}")).collect();
    placeholders.join(", ")
}

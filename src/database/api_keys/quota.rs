//! How many keys one owner may have.

use super::super::sql::Transaction;
use super::super::{Database, Error};
use crate::auth::api_key::{ApiKey, ApiKeyOwner};
use crate::auth::session::Millis;

/// How many keys an owner may have.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeyQuota {
    pub active: u32,
    pub ended: u32,
    /// Keys that have ended and not changed since then may be deleted.
    pub kept_since: Millis,
}

impl Database {
    /// Makes room for a new key of an owner: the oldest of too many ended ones are deleted. Returns whether
    /// there is room.
    pub(super) async fn make_room(
        &self,
        transaction: &mut Transaction,
        new: &ApiKey,
        quota: ApiKeyQuota,
    ) -> Result<bool, Error> {
        let (active, ended) = self
            .count_api_keys(transaction, &new.owner, new.created_at)
            .await?;
        if active >= i64::from(quota.active) {
            return Ok(false);
        }
        let excess = ended - i64::from(quota.ended) + 1;
        if excess <= 0 {
            return Ok(true);
        }
        let delete = self.pool.sql(
            "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE owner = $1 \
             AND (revoked_at IS NOT NULL OR expires_at <= $2) AND changed_at < $3 \
             ORDER BY COALESCE(revoked_at, expires_at) LIMIT $4) RETURNING id",
        );
        let delete = delete
            .bind(new.owner.to_string())
            .bind(new.created_at.cast_signed())
            .bind(quota.kept_since.cast_signed())
            .bind(excess);
        let deleted = transaction.run(delete).await?;
        Ok(deleted.len() as i64 >= excess)
    }

    /// Counts the active and the ended keys of an owner.
    pub(super) async fn count_api_keys(
        &self,
        transaction: &mut Transaction,
        owner: &ApiKeyOwner,
        now: Millis,
    ) -> Result<(i64, i64), Error> {
        let count = self.pool.sql(
            "SELECT COUNT(*) AS keys, COUNT(CASE WHEN revoked_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $2) THEN 1 END) AS active \
             FROM api_keys WHERE owner = $1",
        );
        let count = count.bind(owner.to_string()).bind(now.cast_signed());
        let rows = transaction.run(count).await?;
        let Some(row) = rows.first() else {
            return Ok((0, 0));
        };
        let active: i64 = row.get("active")?;
        Ok((active, row.get::<i64, _>("keys")? - active))
    }
}

//! Uses of API keys, which gateways write in batches.

use std::net::IpAddr;

use super::super::{Database, Error};
use crate::auth::api_key::ApiKeyId;
use crate::auth::session::Millis;

/// Lock of the transactions that write uses: two that write the same rows in another order would wait
/// for each other.
const LOCK: &str = "api_key_uses";
/// Number of keys per transaction.
const BATCH_SIZE: usize = 200;

/// Use of a key on one gateway since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyUse {
    pub id: ApiKeyId,
    pub last_used_at: Millis,
    /// The address of that use.
    pub address: IpAddr,
    pub requests: u64,
}

impl Database {
    /// Adds uses to those that are recorded.
    ///
    /// # Errors
    /// If the database fails: with the number of uses that were written.
    pub async fn record_api_key_uses(&self, uses: &[ApiKeyUse]) -> Result<(), (usize, Error)> {
        for (number, batch) in uses.chunks(BATCH_SIZE).enumerate() {
            let written = self.record_batch(batch).await;
            written.map_err(|error| (number * BATCH_SIZE, error))?;
        }
        Ok(())
    }

    async fn record_batch(&self, batch: &[ApiKeyUse]) -> Result<(), Error> {
        let mut transaction = self.pool.begin(LOCK).await?;
        for one in batch {
            let update = self.pool.sql(
                "UPDATE api_keys SET request_count = request_count + $1, \
                 last_used_ip = CASE WHEN COALESCE(last_used_at, 0) <= $2 THEN $3 \
                 ELSE last_used_ip END, \
                 last_used_at = CASE WHEN COALESCE(last_used_at, 0) <= $2 THEN $2 \
                 ELSE last_used_at END WHERE id = $4",
            );
            let update = update
                .bind(one.requests.cast_signed())
                .bind(one.last_used_at.cast_signed())
                .bind(one.address.to_canonical().to_string())
                .bind(one.id.to_string());
            transaction.run(update).await?;
        }
        Ok(transaction.commit().await?)
    }
}

//! API keys: rows and the statements that read them.

mod quota;
mod uses;
mod writes;

use std::net::IpAddr;

pub use quota::ApiKeyQuota;
use serde::de::DeserializeOwned;
use sqlx::AssertSqlSafe;
pub use uses::ApiKeyUse;
pub(super) use writes::lock;
pub use writes::{ApiKeyInsertion, ApiKeyUpdate, ApiKeyUpdateOutcome};

use super::sql::{Row, Statement};
use super::{Database, Error};
use crate::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner, ApiKeySecrets, ApiKeyStatus};
use crate::auth::session::Millis;

const COLUMNS: &str = "SELECT id, owner, name, roles, scopes, allowed_ips, secrets, created_at, \
                       expires_at, revoked_at, last_used_at, last_used_ip, request_count \
                       FROM api_keys ";
/// Number of IDs read at once.
const MAX_IDS: i64 = 1000;

/// A row: a key, and the hashes of its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredApiKey {
    pub key: ApiKey,
    pub secrets: ApiKeySecrets,
}

/// The keys to list.
#[derive(Debug, Clone, Default)]
pub struct ApiKeyQuery {
    pub owner: Option<ApiKeyOwner>,
    pub status: Option<ApiKeyStatus>,
    pub limit: u32,
    /// Start of the page.
    pub after: Option<(Millis, String)>,
}

/// A page of keys, newest first.
#[derive(Debug)]
pub struct ApiKeyPage {
    pub keys: Vec<ApiKey>,
    /// Number of all keys that match.
    pub total: u64,
    /// Start of the next page, if there is one.
    pub next: Option<(Millis, String)>,
}

impl Database {
    /// Finds a key.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<Option<StoredApiKey>, Error> {
        let rows = self.pool.read(self.api_key_statement(id)).await?;
        rows.first().map(read_api_key).transpose()
    }

    /// Lists keys, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list_api_keys(
        &self,
        query: &ApiKeyQuery,
        now: Millis,
    ) -> Result<ApiKeyPage, Error> {
        let matching = format!(
            "WHERE (CAST($1 AS TEXT) IS NULL OR owner = $1) AND {} ",
            status_condition(query.status)
        );
        let owner = query.owner.as_ref().map(ToString::to_string);
        let (time, id) = query
            .after
            .clone()
            .unwrap_or((i64::MAX.cast_unsigned(), String::new()));
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}{matching}AND (created_at < $3 OR (created_at = $3 AND id < $4)) \
             ORDER BY created_at DESC, id DESC LIMIT $5"
        )));
        let select = select
            .bind(owner.clone())
            .bind(now.cast_signed())
            .bind(time.cast_signed())
            .bind(id)
            .bind(i64::from(query.limit) + 1);
        let rows = self.pool.read(select).await?;
        let count = format!("SELECT COUNT(*) FROM api_keys {matching}");
        let count = self.pool.sql(AssertSqlSafe(count));
        let count = count.bind(owner).bind(now.cast_signed());
        let count = self.pool.read(count).await?;
        let total: i64 = count.first().map_or(Ok(0), |row| row.get(0))?;
        let has_more = rows.len() > query.limit as usize;
        let rows = rows.iter().take(query.limit as usize);
        let keys = rows
            .map(|row| Ok(read_api_key(row)?.key))
            .collect::<Result<Vec<ApiKey>, Error>>()?;
        let last = keys.last().filter(|_| has_more);
        Ok(ApiKeyPage {
            next: last.map(|last| (last.created_at, last.id.to_string())),
            keys,
            total: total.cast_unsigned(),
        })
    }

    /// Reads the IDs of an owner's keys that are not revoked, from `after` on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn api_keys_of(
        &self,
        owner: &ApiKeyOwner,
        after: Option<ApiKeyId>,
    ) -> Result<Vec<ApiKeyId>, Error> {
        let select = self.pool.sql(
            "SELECT id FROM api_keys WHERE owner = $1 AND revoked_at IS NULL AND id > $2 \
             ORDER BY id LIMIT $3",
        );
        let select = select.bind(owner.to_string()).bind(after_text(after));
        let rows = self.pool.read(select.bind(MAX_IDS)).await?;
        rows.iter().map(read_id).collect()
    }

    /// Reads the IDs of the keys that have changed since then, or whose owner has, from `after` on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn api_keys_changed_since(
        &self,
        since: Millis,
        after: Option<ApiKeyId>,
    ) -> Result<Vec<ApiKeyId>, Error> {
        let select = self.pool.sql(
            "SELECT id FROM api_keys WHERE id > $2 AND (changed_at >= $1 \
             OR owner IN (SELECT id FROM users WHERE updated_at >= $1)) \
             ORDER BY id LIMIT $3",
        );
        let select = select.bind(since.cast_signed()).bind(after_text(after));
        let rows = self.pool.read(select.bind(MAX_IDS)).await?;
        rows.iter().map(read_id).collect()
    }

    /// Counts the keys that are neither expired nor revoked.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count_active_api_keys(&self, now: Millis) -> Result<u64, Error> {
        let count = self.pool.sql(
            "SELECT COUNT(*) FROM api_keys \
             WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)",
        );
        let rows = self.pool.read(count.bind(now.cast_signed())).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    fn api_key_statement(&self, id: ApiKeyId) -> Statement {
        let text = format!("{COLUMNS}WHERE id = $1");
        self.pool.sql(AssertSqlSafe(text)).bind(id.to_string())
    }
}

/// Condition on the state at the time `$2`.
fn status_condition(status: Option<ApiKeyStatus>) -> &'static str {
    match status {
        // Names the value, whose type PostgreSQL could not determine otherwise.
        None => "CAST($2 AS BIGINT) IS NOT NULL",
        Some(ApiKeyStatus::Active) => {
            "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"
        }
        Some(ApiKeyStatus::Expired) => "revoked_at IS NULL AND expires_at <= $2",
        Some(ApiKeyStatus::Revoked) => "revoked_at IS NOT NULL AND CAST($2 AS BIGINT) IS NOT NULL",
    }
}

fn after_text(after: Option<ApiKeyId>) -> String {
    after.map_or_else(String::new, |id| id.to_string())
}

fn read_id(row: &Row) -> Result<ApiKeyId, Error> {
    let id: String = row.get("id")?;
    ApiKeyId::parse(&id).ok_or(Error::UnreadableApiKey(id))
}

/// Decodes a row with the columns of [`COLUMNS`].
fn read_api_key(row: &Row) -> Result<StoredApiKey, Error> {
    let id = read_id(row)?;
    let unreadable = || Error::UnreadableApiKey(id.to_string());
    let time = |column: &str| -> Result<Option<Millis>, Error> {
        let time: Option<i64> = row.get(column)?;
        Ok(time.map(i64::cast_unsigned))
    };
    let owner: String = row.get("owner")?;
    let address: Option<String> = row.get("last_used_ip")?;
    let address: Option<IpAddr> = match address {
        Some(address) => Some(address.parse().map_err(|_| unreadable())?),
        None => None,
    };
    let ranges: Vec<String> = read_json(row, "allowed_ips", id)?;
    let ranges = ranges.iter().map(|range| range.parse());
    let ranges: Result<_, _> = ranges.collect();
    let key = ApiKey {
        id,
        owner: ApiKeyOwner::parse(&owner).ok_or_else(unreadable)?,
        name: row.get("name")?,
        roles: read_json(row, "roles", id)?,
        scopes: read_json(row, "scopes", id)?,
        allowed_ips: ranges.map_err(|_| unreadable())?,
        created_at: row.timestamp("created_at")?,
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
        last_used_ip: address,
        request_count: row.get::<i64, _>("request_count")?.cast_unsigned(),
    };
    Ok(StoredApiKey {
        key,
        secrets: read_json(row, "secrets", id)?,
    })
}

fn read_json<T: DeserializeOwned>(row: &Row, column: &str, id: ApiKeyId) -> Result<T, Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|_| Error::UnreadableApiKey(id.to_string()))
}

//! Statements that create, change and revoke API keys.

use ipnet::IpNet;

use super::super::sql::Statement;
use super::super::users::encode_list;
use super::super::{Database, Error};
use super::{ApiKeyQuota, StoredApiKey, read_api_key};
use crate::auth::api_key::{ApiKeyId, ApiKeyOwner, ApiKeySecrets, ApiKeyStatus, SecretHash};
use crate::auth::session::Millis;

/// Outcome of [`Database::insert_api_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyInsertion {
    Inserted,
    /// The user does not exist.
    NoOwner,
    /// The owner has as many active keys as are allowed.
    LimitReached,
}

/// Outcome of [`Database::update_api_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyUpdateOutcome {
    Updated,
    /// There is no such key, or it is revoked.
    NotFound,
    /// It has expired, and its owner has as many active keys as are allowed.
    LimitReached,
}

/// A partial change of a key; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct ApiKeyUpdate {
    pub name: Option<String>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub allowed_ips: Option<Vec<IpNet>>,
    /// `Some(None)` removes the expiry.
    pub expires_at: Option<Option<Millis>>,
}

impl Database {
    /// Adds a key, unless its owner has as many as are allowed, active or ended. Concurrent calls do not
    /// exceed that. Of the ended keys, the oldest are deleted.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn insert_api_key(
        &self,
        new: &StoredApiKey,
        quota: ApiKeyQuota,
    ) -> Result<ApiKeyInsertion, Error> {
        let key = &new.key;
        let mut transaction = self.pool.begin(&lock(&key.owner)).await?;
        if let ApiKeyOwner::User(user) = &key.owner {
            let select = self.pool.sql("SELECT id FROM users WHERE id = $1");
            if transaction.run(select.bind(user)).await?.is_empty() {
                transaction.commit().await?;
                return Ok(ApiKeyInsertion::NoOwner);
            }
        }
        if !self.make_room(&mut transaction, key, quota).await? {
            transaction.commit().await?;
            return Ok(ApiKeyInsertion::LimitReached);
        }
        transaction.run(self.insert_api_key_statement(new)).await?;
        transaction.commit().await?;
        Ok(ApiKeyInsertion::Inserted)
    }

    fn insert_api_key_statement(&self, new: &StoredApiKey) -> Statement {
        let key = &new.key;
        self.pool
            .sql(
                "INSERT INTO api_keys (id, owner, name, roles, scopes, allowed_ips, secrets, \
                 created_at, expires_at, changed_at, request_count) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, 0)",
            )
            .bind(key.id.to_string())
            .bind(key.owner.to_string())
            .bind(&key.name)
            .bind(encode_list(&key.roles))
            .bind(encode_list(&key.scopes))
            .bind(encode_addresses(&key.allowed_ips))
            .bind(encode_secrets(&new.secrets))
            .bind(key.created_at.cast_signed())
            .bind(key.expires_at.map(Millis::cast_signed))
    }

    /// Changes a key that is not revoked. One that has expired becomes active again only if its owner has
    /// fewer than `max_active` keys that are.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_api_key(
        &self,
        id: ApiKeyId,
        change: &ApiKeyUpdate,
        max_active: u32,
        now: Millis,
    ) -> Result<ApiKeyUpdateOutcome, Error> {
        let Some(StoredApiKey { key, .. }) = self.api_key(id).await? else {
            return Ok(ApiKeyUpdateOutcome::NotFound);
        };
        let mut transaction = self.pool.begin(&lock(&key.owner)).await?;
        let renews = change.expires_at.is_some() && key.status(now) == ApiKeyStatus::Expired;
        if renews {
            let (active, _) = self
                .count_api_keys(&mut transaction, &key.owner, now)
                .await?;
            if active >= i64::from(max_active) {
                transaction.commit().await?;
                return Ok(ApiKeyUpdateOutcome::LimitReached);
            }
        }
        let update = self.update_api_key_statement(id, change, now);
        let updated = transaction.run(update).await?;
        transaction.commit().await?;
        Ok(match updated.is_empty() {
            false => ApiKeyUpdateOutcome::Updated,
            true => ApiKeyUpdateOutcome::NotFound,
        })
    }

    fn update_api_key_statement(
        &self,
        id: ApiKeyId,
        change: &ApiKeyUpdate,
        now: Millis,
    ) -> Statement {
        self.pool
            .sql(
                "UPDATE api_keys SET name = COALESCE($1, name), roles = COALESCE($2, roles), \
                 scopes = COALESCE($3, scopes), allowed_ips = COALESCE($4, allowed_ips), \
                 expires_at = CASE WHEN $5 THEN $6 ELSE expires_at END, changed_at = $7 \
                 WHERE id = $8 AND revoked_at IS NULL RETURNING id",
            )
            .bind(change.name.as_deref())
            .bind(change.roles.as_deref().map(encode_list))
            .bind(change.scopes.as_deref().map(encode_list))
            .bind(change.allowed_ips.as_deref().map(encode_addresses))
            .bind(change.expires_at.is_some())
            .bind(change.expires_at.flatten().map(Millis::cast_signed))
            .bind(now.cast_signed())
            .bind(id.to_string())
    }

    /// Gives a key that is active another secret; the present one remains valid for `grace`
    /// milliseconds. Returns whether there is such a key.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rotate_api_key(
        &self,
        id: ApiKeyId,
        hash: SecretHash,
        grace: Millis,
        now: Millis,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin(&format!("api_key:{id}")).await?;
        let rows = transaction.run(self.api_key_statement(id)).await?;
        let stored = rows.first().map(read_api_key).transpose()?;
        let Some(StoredApiKey { secrets, .. }) = stored else {
            transaction.commit().await?;
            return Ok(false);
        };
        let update = self.pool.sql(
            "UPDATE api_keys SET secrets = $1, changed_at = $2 WHERE id = $3 \
             AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2) RETURNING id",
        );
        let update = update
            .bind(encode_secrets(&secrets.rotate(hash, grace, now)))
            .bind(now.cast_signed())
            .bind(id.to_string());
        let changed = transaction.run(update).await?;
        transaction.commit().await?;
        Ok(!changed.is_empty())
    }

    /// Revokes a key. Returns whether it was active; `None`: there is none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn revoke_api_key(&self, id: ApiKeyId, now: Millis) -> Result<Option<bool>, Error> {
        let update = self.pool.sql(
            "UPDATE api_keys SET revoked_at = $1, changed_at = $1 \
             WHERE id = $2 AND revoked_at IS NULL RETURNING expires_at",
        );
        let update = update.bind(now.cast_signed()).bind(id.to_string());
        if let Some(row) = self.pool.write(update).await?.first() {
            let expires_at: Option<i64> = row.get("expires_at")?;
            return Ok(Some(expires_at.is_none_or(|at| at > now.cast_signed())));
        }
        Ok(self.api_key(id).await?.map(|_| false))
    }

    /// The statement that revokes all keys of an owner, within a transaction that holds [`lock`].
    pub(in crate::database) fn revoke_all_api_keys_statement(
        &self,
        owner: &ApiKeyOwner,
        now: Millis,
    ) -> Statement {
        let update = self.pool.sql(
            "UPDATE api_keys SET revoked_at = $1, changed_at = $1 \
             WHERE owner = $2 AND revoked_at IS NULL",
        );
        update.bind(now.cast_signed()).bind(owner.to_string())
    }

    /// Deletes keys that have been revoked or expired since before `since`. Returns their number.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_ended_api_keys(&self, since: Millis) -> Result<u64, Error> {
        let delete = self
            .pool
            .sql("DELETE FROM api_keys WHERE revoked_at < $1 OR expires_at < $1 RETURNING id");
        let rows = self.pool.write(delete.bind(since.cast_signed())).await?;
        Ok(rows.len() as u64)
    }
}

/// Lock of the transactions that add keys of an owner, or delete the owner.
pub(in crate::database) fn lock(owner: &ApiKeyOwner) -> String {
    format!("api_keys:{owner}")
}

fn encode_addresses(addresses: &[IpNet]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    encode_list(&addresses)
}

fn encode_secrets(secrets: &ApiKeySecrets) -> String {
    // Serializing hashes and numbers does not fail.
    serde_json::to_string(secrets).unwrap_or_default()
}

//! API keys of users and services. The database decides about them.

use std::time::Duration;

use ipnet::IpNet;

use super::SessionError;
use crate::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner, ApiKeySecret, ApiKeySecrets};
use crate::auth::session::Millis;
use crate::clock;
use crate::database::{
    ApiKeyInsertion, ApiKeyPage, ApiKeyQuery, ApiKeyUpdate, Database, StoredApiKey,
};
use crate::settings;

/// Longest time for which a replaced secret may remain valid.
pub const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A handle on the keys; clones share their state.
#[derive(Clone)]
pub struct ApiKeys {
    database: Database,
}

/// A new key; its texts are validated.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    pub owner: ApiKeyOwner,
    pub name: String,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub allowed_ips: Vec<IpNet>,
    pub expires_at: Option<Millis>,
}

/// Outcome of [`ApiKeys::create`].
#[derive(Debug)]
pub enum ApiKeyCreation {
    Created(ApiKeySecret, Box<ApiKey>),
    /// The user does not exist.
    NoOwner,
    /// The owner has as many active keys as are allowed.
    LimitReached,
    ExpiryRefused(ExpiryFault),
}

/// Outcome of [`ApiKeys::update`].
#[derive(Debug)]
pub enum ApiKeyChange {
    Changed(Box<ApiKey>),
    /// There is no such key, or it is revoked.
    NotFound,
    ExpiryRefused(ExpiryFault),
}

/// Outcome of [`ApiKeys::rotate`].
#[derive(Debug)]
pub enum ApiKeyRotation {
    Rotated(ApiKeySecret, Box<ApiKey>),
    /// There is no such key, or it is expired or revoked.
    NotFound,
}

/// Why a key cannot have an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryFault {
    Past,
    /// Further ahead than `api_keys.max_ttl`.
    TooFar,
}

impl ApiKeys {
    pub(super) fn new(database: Database) -> ApiKeys {
        ApiKeys { database }
    }

    /// Creates a key. Its secret is known to the caller alone.
    ///
    /// # Errors
    /// When it is not certain that it exists.
    pub async fn create(
        &self,
        new: NewApiKey,
        rules: &settings::ApiKeys,
    ) -> Result<ApiKeyCreation, SessionError> {
        let now = clock::unix_millis();
        let expires_at = match check_expiry(new.expires_at, rules.max_ttl, now) {
            Ok(expires_at) => expires_at,
            Err(fault) => return Ok(ApiKeyCreation::ExpiryRefused(fault)),
        };
        let id = ApiKeyId::random();
        let secret = ApiKeySecret::generate(&rules.prefix, id);
        let row = StoredApiKey {
            key: ApiKey {
                id,
                owner: new.owner,
                name: new.name,
                roles: new.roles,
                scopes: new.scopes,
                allowed_ips: new.allowed_ips,
                created_at: now,
                expires_at,
                revoked_at: None,
                last_used_at: None,
                last_used_ip: None,
                request_count: 0,
            },
            secrets: ApiKeySecrets::new(secret.hash()),
        };
        let inserted = self.database.insert_api_key(&row, rules.max_per_owner);
        Ok(match inserted.await? {
            ApiKeyInsertion::Inserted => ApiKeyCreation::Created(secret, Box::new(row.key)),
            ApiKeyInsertion::NoOwner => ApiKeyCreation::NoOwner,
            ApiKeyInsertion::LimitReached => ApiKeyCreation::LimitReached,
        })
    }

    /// Lists keys, newest first.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn list(&self, query: &ApiKeyQuery) -> Result<ApiKeyPage, SessionError> {
        let now = clock::unix_millis();
        Ok(self.database.list_api_keys(query, now).await?)
    }

    /// Finds a key, whatever its state.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn get(&self, id: ApiKeyId) -> Result<Option<ApiKey>, SessionError> {
        let stored = self.database.api_key(id).await?;
        Ok(stored.map(|stored| stored.key))
    }

    /// Changes a key that is not revoked.
    ///
    /// # Errors
    /// When it is not certain that the change is in force everywhere.
    pub async fn update(
        &self,
        id: ApiKeyId,
        mut change: ApiKeyUpdate,
        rules: &settings::ApiKeys,
    ) -> Result<ApiKeyChange, SessionError> {
        let now = clock::unix_millis();
        if let Some(requested) = change.expires_at {
            match check_expiry(requested, rules.max_ttl, now) {
                Ok(expires_at) => change.expires_at = Some(expires_at),
                Err(fault) => return Ok(ApiKeyChange::ExpiryRefused(fault)),
            }
        }
        if !self.database.update_api_key(id, &change, now).await? {
            return Ok(ApiKeyChange::NotFound);
        }
        let key = self.get(id).await?;
        Ok(key.map_or(ApiKeyChange::NotFound, |key| {
            ApiKeyChange::Changed(Box::new(key))
        }))
    }

    /// Gives an active key another secret. The present one remains valid for `grace`, at most
    /// [`MAX_GRACE`].
    ///
    /// # Errors
    /// When it is not certain which secrets are in force everywhere: the rotation can be repeated.
    pub async fn rotate(
        &self,
        id: ApiKeyId,
        grace: Duration,
        rules: &settings::ApiKeys,
    ) -> Result<ApiKeyRotation, SessionError> {
        let now = clock::unix_millis();
        let grace = clock::millis(grace.min(MAX_GRACE));
        let secret = ApiKeySecret::generate(&rules.prefix, id);
        let rotated = self.database.rotate_api_key(id, secret.hash(), grace, now);
        if !rotated.await? {
            return Ok(ApiKeyRotation::NotFound);
        }
        let key = self.get(id).await?;
        Ok(key.map_or(ApiKeyRotation::NotFound, |key| {
            ApiKeyRotation::Rotated(secret, Box::new(key))
        }))
    }

    /// Revokes a key for good. Returns whether it was active; `None`: there is none.
    ///
    /// # Errors
    /// When it is not certain that it is revoked everywhere: the revocation can be repeated.
    pub async fn revoke(&self, id: ApiKeyId) -> Result<Option<bool>, SessionError> {
        let now = clock::unix_millis();
        Ok(self.database.revoke_api_key(id, now).await?)
    }
}

/// The expiry of a key for which `requested` was requested; with `max_ttl`, every key has one.
fn check_expiry(
    requested: Option<Millis>,
    max_ttl: Option<Duration>,
    now: Millis,
) -> Result<Option<Millis>, ExpiryFault> {
    let latest = max_ttl.map(|ttl| now.saturating_add(clock::millis(ttl)));
    match requested {
        Some(at) if at <= now => Err(ExpiryFault::Past),
        Some(at) if latest.is_some_and(|latest| at > latest) => Err(ExpiryFault::TooFar),
        Some(at) => Ok(Some(at)),
        None => Ok(latest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_ahead_and_within_the_maximum() {
        let day = Duration::from_secs(86_400);
        let now = 1_000;
        for (requested, max_ttl, expected) in [
            (None, None, Ok(None)),
            (None, Some(day), Ok(Some(86_401_000))),
            (Some(1_000), None, Err(ExpiryFault::Past)),
            (Some(1_001), None, Ok(Some(1_001))),
            (Some(u64::MAX), None, Ok(Some(u64::MAX))),
            (Some(86_401_000), Some(day), Ok(Some(86_401_000))),
            (Some(86_401_001), Some(day), Err(ExpiryFault::TooFar)),
            (Some(999), Some(day), Err(ExpiryFault::Past)),
        ] {
            assert_eq!(check_expiry(requested, max_ttl, now), expected);
        }
    }
}

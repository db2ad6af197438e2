//! API keys of users and services. The database decides about them.
//!
//! The store caches their records for the fleet, and each gateway those that it uses. A change deletes the
//! record in the store, so that the next request reads the key from the database.

mod background;
mod lookup;
mod open_streams;
mod record;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use background::replayed_since;
use ipnet::IpNet;
pub(super) use lookup::lookup_of;
use parking_lot::Mutex;

use super::SessionError;
use super::miss_limiter::MissLimiter;
use super::row_lookup::RowLookup;
use crate::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner, ApiKeySecret, ApiKeySecrets};
use crate::auth::session::{Millis, Session};
use crate::clock;
use crate::database::{
    ApiKeyInsertion, ApiKeyQuota, ApiKeyUpdateOutcome, ApiKeyUse, Database, StoredApiKey,
};
pub use crate::database::{ApiKeyPage, ApiKeyQuery, ApiKeyUpdate};
use crate::events::{Event, EventKind, Events};
use crate::settings;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Longest time for which a replaced secret may remain valid.
pub const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum number of ended keys of one owner.
const MAX_ENDED: u32 = 1_000;
/// How long a row is cached: that of an unknown key, and while the store is away every row.
const CACHE_TTL: Duration = Duration::from_millis(500);

/// A handle on the keys; clones share their state.
#[derive(Clone)]
pub struct ApiKeys {
    database: Database,
    store: Store,
    metrics: Arc<Metrics>,
    /// Where changes are reported, in a gateway.
    events: Option<Events>,
    state: Arc<ApiKeysState>,
}

struct ApiKeysState {
    /// The records of keys, made from their rows.
    rows: RowLookup<ApiKeyId, Session>,
    misses: MissLimiter,
    /// The number of reconnects of the store up to which it lacks no change.
    verified_epoch: AtomicU64,
    /// Keys that have changed, and whose records may still be in the store.
    pending: Mutex<HashSet<ApiKeyId>>,
    /// Changes could not be published at the latest attempt.
    is_behind: AtomicBool,
    /// Uses that are not written yet.
    uses: Mutex<HashMap<ApiKeyId, ApiKeyUse>>,
    /// Number of calls of [`ApiKeys::write_uses`].
    calls: AtomicU64,
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
    /// It has expired, and its owner has as many active keys as are allowed.
    LimitReached,
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
    pub(super) fn new(database: Database, store: Store, metrics: Arc<Metrics>) -> ApiKeys {
        ApiKeys {
            database,
            store,
            metrics,
            events: None,
            state: Arc::new(ApiKeysState {
                rows: RowLookup::new(CACHE_TTL),
                misses: MissLimiter::default(),
                verified_epoch: AtomicU64::new(0),
                pending: Mutex::default(),
                is_behind: AtomicBool::new(false),
                uses: Mutex::default(),
                calls: AtomicU64::new(0),
            }),
        }
    }

    /// The same keys over another connection to the store.
    pub(super) fn with_store(&self, store: Store) -> ApiKeys {
        ApiKeys {
            store,
            ..self.clone()
        }
    }

    /// The same keys, whose changes are reported.
    pub(super) fn with_events(&self, events: Events) -> ApiKeys {
        ApiKeys {
            events: Some(events),
            ..self.clone()
        }
    }

    fn report(&self, kind: EventKind, key: &ApiKey, by: Option<IpAddr>) {
        if let Some(events) = &self.events {
            let owner = key.owner.to_string();
            let event = Event::new(kind).user(&owner).api_key(key.id);
            events.record(match by {
                Some(ip) => event.ip(ip),
                None => event,
            });
        }
    }

    /// Creates a key, by a client with this address. Its secret is known to the caller alone.
    ///
    /// # Errors
    /// When it is not certain that it exists.
    pub async fn create(
        &self,
        new: NewApiKey,
        rules: &settings::ApiKeys,
        by: Option<IpAddr>,
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
        let quota = ApiKeyQuota {
            active: rules.max_per_owner,
            ended: MAX_ENDED,
            kept_since: replayed_since(now),
        };
        Ok(match self.database.insert_api_key(&row, quota).await? {
            ApiKeyInsertion::Inserted => {
                self.report(EventKind::ApiKeyCreated, &row.key, by);
                ApiKeyCreation::Created(secret, Box::new(row.key))
            }
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
        let unpublished = self.begin_change(&[id]);
        let max_active = rules.max_per_owner;
        let updated = self.database.update_api_key(id, &change, max_active, now);
        match updated.await? {
            ApiKeyUpdateOutcome::Updated => unpublished.publish().await?,
            ApiKeyUpdateOutcome::NotFound => return Ok(ApiKeyChange::NotFound),
            ApiKeyUpdateOutcome::LimitReached => return Ok(ApiKeyChange::LimitReached),
        }
        let key = self.get(id).await?;
        Ok(key.map_or(ApiKeyChange::NotFound, |key| {
            ApiKeyChange::Changed(Box::new(key))
        }))
    }

    /// Gives an active key another secret, by a client with this address. The present one remains valid for
    /// `grace`, at most [`MAX_GRACE`].
    ///
    /// # Errors
    /// When it is not certain which secrets are in force everywhere: the rotation can be repeated.
    pub async fn rotate(
        &self,
        id: ApiKeyId,
        grace: Duration,
        rules: &settings::ApiKeys,
        by: Option<IpAddr>,
    ) -> Result<ApiKeyRotation, SessionError> {
        let now = clock::unix_millis();
        let grace = clock::millis(grace.min(MAX_GRACE));
        let secret = ApiKeySecret::generate(&rules.prefix, id);
        let unpublished = self.begin_change(&[id]);
        let rotated = self.database.rotate_api_key(id, secret.hash(), grace, now);
        if !rotated.await? {
            return Ok(ApiKeyRotation::NotFound);
        }
        let key = self.get(id).await;
        if let Ok(Some(key)) = &key {
            self.report(EventKind::ApiKeyRotated, key, by);
        }
        // Also if the key cannot be read: the previous secret has ended.
        unpublished.publish().await?;
        Ok(key?.map_or(ApiKeyRotation::NotFound, |key| {
            ApiKeyRotation::Rotated(secret, Box::new(key))
        }))
    }

    /// Revokes a key for good, by a client with this address. Returns whether it was active; `None`: there
    /// is none.
    ///
    /// # Errors
    /// When it is not certain that it is revoked everywhere: the revocation can be repeated.
    pub async fn revoke(
        &self,
        id: ApiKeyId,
        by: Option<IpAddr>,
    ) -> Result<Option<bool>, SessionError> {
        let now = clock::unix_millis();
        let unpublished = self.begin_change(&[id]);
        let revoked = self.database.revoke_api_key(id, now).await?;
        if revoked == Some(true)
            && let Ok(Some(key)) = self.get(id).await
        {
            self.report(EventKind::ApiKeyRevoked, &key, by);
        }
        // Also if it was revoked before: an earlier attempt may not have reached the store.
        if revoked.is_some() {
            unpublished.publish().await?;
        }
        Ok(revoked)
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

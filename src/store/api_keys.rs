//! Records of API keys, which the database decides about. The store caches them for the fleet, as session
//! records under IDs that no session has.
//!
//! A gateway reads a key from the database under a lease. A change of the key, or of its owner, revokes the
//! lease and deletes the record, so that what was read before the change is not stored after it.

use std::time::Duration;

use super::near_cache::ReadStamp;
use super::{CacheKey, Engine, SessionLookup, Store, StoreError};
use crate::auth::api_key::ApiKeyId;
use crate::auth::session::{Session, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// Validity of a lease: longer than a database read takes.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(30);
/// How long a record is kept after its last use, and so for how long a key works without the database. A
/// store that has lost its latest writes may have earlier records of this age.
pub const API_KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Permission to store the record of a key until its next invalidation.
#[derive(Debug)]
pub struct ApiKeyLease {
    number: u64,
    stamp: ReadStamp,
    /// A store that was restored from a copy may have revoked leases.
    reconnects: u64,
}

impl Store {
    /// Takes the lease to store the record of a key, before it is read. `None`: another gateway has
    /// stored it.
    pub async fn lease_api_key(&self, id: ApiKeyId) -> Result<Option<ApiKeyLease>, StoreError> {
        let record = SessionId::of_api_key(id);
        let stamp = self.near_cache().stamp(&CacheKey::Session(record));
        let reconnects = self.reconnects();
        let number = self.measured(StoreOperation::LeaseApiKey, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.lease_api_key(record)),
                Engine::Redis(redis) => redis.lease_api_key(record).await,
            }
        });
        Ok(number.await?.map(|number| ApiKeyLease {
            number,
            stamp,
            reconnects,
        }))
    }

    /// Stores the record of a key, unless it was invalidated since the lease was granted.
    pub async fn put_api_key(
        &self,
        lease: &ApiKeyLease,
        record: &Session,
        found: &SessionLookup,
    ) -> Result<(), StoreError> {
        if lease.reconnects != self.reconnects() {
            return Ok(());
        }
        let stored = self.measured(StoreOperation::PutApiKey, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.put_api_key(lease.number, record);
                    Ok(())
                }
                Engine::Redis(redis) => redis.put_api_key(lease.number, record).await,
            }
        });
        stored.await?;
        // For outages; the change in the store makes this gateway read it again.
        self.near_cache()
            .cache_unconfirmed(record.id, found, lease.stamp);
        Ok(())
    }

    /// Invalidates the records of keys; must be called after every committed change, and retried until
    /// it succeeds. The timeout applies to each step.
    pub async fn invalidate_api_keys(&self, ids: &[ApiKeyId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let records: Vec<SessionId> = ids.iter().copied().map(SessionId::of_api_key).collect();
        // Before and after: a reply that is on its way is older, and a request in between may cache one.
        self.invalidate_records(&records);
        let outcome = self.measured_steps(StoreOperation::InvalidateApiKeys, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.invalidate_api_keys(&records);
                    Ok(())
                }
                Engine::Redis(redis) => {
                    let timeout = self.shared.timeout;
                    redis.invalidate_api_keys(&records, timeout).await
                }
            }
        });
        let outcome = outcome.await;
        self.invalidate_records(&records);
        outcome
    }

    fn invalidate_records(&self, records: &[SessionId]) {
        for record in records {
            self.invalidate(&CacheKey::Session(*record));
        }
    }

    /// Keeps the records of keys that are in use. The timeout applies to each step.
    pub async fn extend_api_keys(&self, ids: &[ApiKeyId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let records: Vec<SessionId> = ids.iter().copied().map(SessionId::of_api_key).collect();
        self.measured_steps(StoreOperation::ExtendApiKeys, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.extend_api_keys(&records);
                    Ok(())
                }
                Engine::Redis(redis) => redis.extend_api_keys(&records, self.shared.timeout).await,
            }
        })
        .await
    }

    /// Looks the record of a key up, regardless of the near cache.
    pub async fn reload_api_key(&self, id: ApiKeyId) -> Result<SessionLookup, StoreError> {
        let record = [SessionId::of_api_key(id)];
        let found = match &self.engine {
            Engine::Memory(memory) => memory.look_up_api_keys(&record),
            Engine::Redis(_) => {
                self.look_up_sessions(StoreOperation::Session, &record, None)
                    .await?
            }
        };
        let found = found.into_iter().next();
        Ok(found.map_or(SessionLookup::Missing, |(_, lookup)| lookup))
    }

    /// Looks the records of keys up, each once; one that is cached and fresh is not queried.
    pub async fn look_up_api_keys(
        &self,
        ids: &[ApiKeyId],
    ) -> Result<Vec<(ApiKeyId, SessionLookup)>, StoreError> {
        let now = self.clock();
        let (mut found, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            let record = SessionId::of_api_key(*id);
            match self.near_cache().fresh_record(record, now) {
                Some(lookup) => found.push((*id, lookup)),
                None => missing.push(record),
            }
        }
        let looked_up = match &self.engine {
            Engine::Memory(memory) => memory.look_up_api_keys(&missing),
            Engine::Redis(_) => {
                let operation = StoreOperation::EndedAmong;
                self.look_up_sessions(operation, &missing, None).await?
            }
        };
        let looked_up = looked_up.into_iter();
        found.extend(looked_up.filter_map(|(record, lookup)| Some((record.api_key()?, lookup))));
        Ok(found)
    }
}

//! The profile cache: what the database says of a person, as JSON text. Whoever misses gets a lease
//! and may put what it read; a change in between takes the lease away, so that what was read before
//! the change is not kept after it.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::telemetry::metrics::{CacheName, StoreOperation};

/// How long a lease is good for: reading the database takes less.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(30);

/// What the cache knows of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachedProfile {
    /// The JSON text that was put.
    Hit(String),
    /// Nothing; who read it elsewhere may put it with this.
    Miss(ProfileLease),
}

/// The right to put a profile, until it is forgotten again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileLease(pub(super) u64);

impl Store {
    /// Looks a user's profile up.
    pub async fn profile(&self, user: &str) -> Result<CachedProfile, StoreError> {
        let found = self
            .measured(StoreOperation::Profile, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.profile(user)),
                    Engine::Redis(redis) => redis.profile(user).await,
                }
            })
            .await?;
        let hit = matches!(found, CachedProfile::Hit(_));
        self.shared
            .metrics
            .count_cache_lookup(CacheName::Profiles, hit);
        Ok(found)
    }

    /// Keeps a profile for so long, unless it was forgotten since the lease was given.
    pub async fn put_profile(
        &self,
        user: &str,
        lease: &ProfileLease,
        json: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.measured(StoreOperation::PutProfile, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.put_profile(user, lease, json, ttl);
                    Ok(())
                }
                Engine::Redis(redis) => redis.put_profile(user, lease, json, ttl).await,
            }
        })
        .await
    }

    /// Forgets a profile: to be called after the database was changed, and made sure of.
    pub async fn invalidate_profile(&self, user: &str) -> Result<(), StoreError> {
        self.measured(StoreOperation::ForgetProfile, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.invalidate_profile(user);
                    Ok(())
                }
                Engine::Redis(redis) => redis.invalidate_profile(user).await,
            }
        })
        .await
    }
}

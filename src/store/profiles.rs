//! Cache of user profiles from the database, as JSON text.
//!
//! A miss returns a lease, with which the caller may store the profile that it reads. A change of the
//! user revokes the lease, so that a profile read before the change is not stored after it.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::telemetry::metrics::{CacheName, StoreOperation};

/// Validity of a lease: longer than a database read takes.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(30);

/// Result of a profile look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachedProfile {
    /// The cached JSON text.
    Hit(String),
    /// Not cached; the lease permits the caller to store the profile.
    Miss(ProfileLease),
}

/// Permission to store a profile until its next invalidation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileLease(pub(super) u64);

impl Store {
    /// Looks a user's profile up.
    pub async fn profile(&self, user: &str) -> Result<CachedProfile, StoreError> {
        let profile = self
            .measured(StoreOperation::Profile, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.profile(user)),
                    Engine::Redis(redis) => redis.profile(user).await,
                }
            })
            .await?;
        let is_hit = matches!(profile, CachedProfile::Hit(_));
        self.shared
            .metrics
            .count_cache_lookup(CacheName::Profiles, is_hit);
        Ok(profile)
    }

    /// Stores a profile, unless it was invalidated since the lease was granted.
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

    /// Invalidates a profile; must be called after every committed change, and retried until it succeeds.
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

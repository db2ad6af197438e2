//! Cached profiles and their leases.

use std::time::Duration;

use redis::Value;

use crate::store::StoreError;
use crate::store::profiles::{CachedProfile, LEASE_TTL, ProfileLease};
use crate::store::redis::{Redis, decode_reply};

impl Redis {
    pub(in crate::store) async fn profile(&self, user: &str) -> Result<CachedProfile, StoreError> {
        let call = self.scripts.profile.call(&self.keys.profile(user));
        let call = call
            .arg(rand::random::<u64>())
            .arg(LEASE_TTL.as_secs() * 1000);
        let Value::Array(mut parts) = self.run(call).await? else {
            return Err(StoreError::Malformed);
        };
        parts.resize(2, Value::Nil);
        match decode_reply(Value::Array(parts))? {
            (Some(json), _) => Ok(CachedProfile::Hit(json)),
            // A malformed lease is useless and expires soon.
            (None, lease) => {
                let lease: Option<String> = lease;
                let number = lease.and_then(|lease| lease.parse().ok());
                Ok(CachedProfile::Miss(ProfileLease(
                    number.unwrap_or_default(),
                )))
            }
        }
    }

    pub(in crate::store) async fn put_profile(
        &self,
        user: &str,
        lease: &ProfileLease,
        json: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let call = self.scripts.put_profile.call(&self.keys.profile(user));
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let call = call.arg(lease.0).arg(json).arg(ttl.max(1));
        self.run(call).await.map(drop)
    }

    pub(in crate::store) async fn invalidate_profile(&self, user: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("DEL");
        let command = command.arg(&self.keys.profile(user));
        self.execute(command).await.map(drop)
    }
}

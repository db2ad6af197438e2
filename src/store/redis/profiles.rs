//! Cached profiles, and the leases to put them.

use std::time::Duration;

use redis::Value;

use super::super::StoreError;
use super::super::profiles::{Cached, LEASE, Lease};
use super::{Redis, read};

impl Redis {
    pub(in super::super) async fn profile(&self, user: &str) -> Result<Cached, StoreError> {
        let call = self.scripts.profile.on(&self.keys.profile(user));
        let call = call.arg(rand::random::<u64>()).arg(LEASE.as_secs() * 1000);
        let Value::Array(mut parts) = self.run(call).await? else {
            return Err(StoreError::Malformed);
        };
        parts.resize(2, Value::Nil);
        match read(Value::Array(parts))? {
            (Some(json), _) => Ok(Cached::Hit(json)),
            // A lease that is not ours is good for nothing, and is over soon.
            (None, lease) => {
                let lease: Option<String> = lease;
                let number = lease.and_then(|lease| lease.parse().ok());
                Ok(Cached::Miss(Lease(number.unwrap_or_default())))
            }
        }
    }

    pub(in super::super) async fn put_profile(
        &self,
        user: &str,
        lease: &Lease,
        json: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let call = self.scripts.put_profile.on(&self.keys.profile(user));
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let call = call.arg(lease.0).arg(json).arg(ttl.max(1));
        self.run(call).await.map(drop)
    }

    pub(in super::super) async fn forget_profile(&self, user: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("DEL");
        let command = command.arg(&self.keys.profile(user));
        self.ask(command).await.map(drop)
    }
}

//! Blacklist and users' cut-offs.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::redis::{Redis, decode_reply};
use crate::store::revocations::CUT_OFF_TTL;
use crate::store::{StoreError, UserHash};

impl Redis {
    pub(in crate::store) async fn blacklist(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        // Redis rejects TTLs that overflow its clock; a century is enough.
        let millis = millis.clamp(1, 3_155_760_000_000);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.blacklist(key)).arg(1);
        command.arg("PX").arg(millis);
        let started = Instant::now();
        self.execute(&command).await?;
        self.wait_for_replicas(started, || vec![command.into()])
            .await
    }

    pub(in crate::store) async fn unblacklist(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        decode_reply(self.execute(command.arg(self.keys.blacklist(key))).await?)
    }

    pub(in crate::store) async fn are_blacklisted(
        &self,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        let mut commands = redis::pipe();
        for key in keys {
            commands.cmd("EXISTS").arg(self.keys.blacklist(key));
        }
        let replies = self.execute_all(&commands).await?;
        replies.into_iter().map(decode_reply).collect()
    }

    /// Writes a cut-off, and sets `second` to the one in force as soon as it is known.
    pub(in crate::store) async fn cut_off(
        &self,
        user: &UserHash,
        second: &mut Option<u64>,
    ) -> Result<(), StoreError> {
        let call = |second: Option<u64>| {
            let call = self.scripts.cut_off.call(&[self.keys.cut_off(user)]);
            let call = call.arg(CUT_OFF_TTL.as_secs() * 1000);
            call.arg(second.map(|second| second.to_string()).unwrap_or_default())
        };
        let started = Instant::now();
        let in_force: u64 = decode_reply(self.run(call(*second)).await?)?;
        *second = Some(in_force);
        self.wait_for_replicas(started, || vec![call(Some(in_force))])
            .await
    }

    pub(in crate::store) async fn cut_offs(
        &self,
        users: &[UserHash],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let mut commands = redis::pipe();
        for user in users {
            commands.cmd("GET").arg(self.keys.cut_off(user));
        }
        let replies = self.execute_all(&commands).await?;
        // Content that is not a number has no effect, as in `decide.lua`.
        let second = |reply: redis::Value| {
            let text = match decode_reply::<Option<String>>(reply) {
                Err(StoreError::Malformed) => None,
                text => text?,
            };
            Ok(text.and_then(|text| text.parse().ok()))
        };
        replies.into_iter().map(second).collect()
    }
}

//! The blacklist, and people's cut-offs.

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
        // Redis refuses a moment beyond what it can count; a century will do.
        let millis = millis.clamp(1, 3_155_760_000_000);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.blacklist(key)).arg(1);
        command.arg("PX").arg(millis);
        let began = Instant::now();
        self.execute(&command).await?;
        self.wait_for_replicas(began, || vec![command.into()]).await
    }

    pub(in crate::store) async fn unblacklist(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        decode_reply(self.execute(command.arg(self.keys.blacklist(key))).await?)
    }

    pub(in crate::store) async fn are_blacklisted(
        &self,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        let mut questions = redis::pipe();
        for key in keys {
            questions.cmd("EXISTS").arg(self.keys.blacklist(key));
        }
        let replies = self.execute_all(&questions).await?;
        replies.into_iter().map(decode_reply).collect()
    }

    /// Puts down up to which second, once that is known.
    pub(in crate::store) async fn cut_off(
        &self,
        person: &UserHash,
        second: &mut Option<u64>,
    ) -> Result<(), StoreError> {
        let call = |at: Option<u64>| {
            let call = self.scripts.cut_off.call(&[self.keys.cut_off(person)]);
            let call = call.arg(CUT_OFF_TTL.as_secs() * 1000);
            call.arg(at.map(|at| at.to_string()).unwrap_or_default())
        };
        let began = Instant::now();
        let done: u64 = decode_reply(self.run(call(*second)).await?)?;
        *second = Some(done);
        self.wait_for_replicas(began, || vec![call(Some(done))])
            .await
    }

    pub(in crate::store) async fn cut_offs(
        &self,
        people: &[UserHash],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let mut questions = redis::pipe();
        for person in people {
            questions.cmd("GET").arg(self.keys.cut_off(person));
        }
        let replies = self.execute_all(&questions).await?;
        // What is no number, or no text at all, cuts nobody off, as in `decide.lua`.
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

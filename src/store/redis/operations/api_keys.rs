//! Records of API keys and their leases.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::sessions::SESSIONS_PER_STEP;
use crate::auth::session::{Session, SessionId};
use crate::store::StoreError;
use crate::store::api_keys::{API_KEY_TTL, LEASE_TTL};
use crate::store::redis::codec::record;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};

const TTL_MS: u64 = API_KEY_TTL.as_secs() * 1000;

impl Redis {
    /// The lease to store a record; `None`: it is stored.
    pub(in crate::store) async fn lease_api_key(
        &self,
        id: SessionId,
    ) -> Result<Option<u64>, StoreError> {
        let call = self.scripts.profile.call(&self.keys.api_key_and_lease(&id));
        let call = call
            .arg(rand::random::<u64>())
            .arg(LEASE_TTL.as_secs() * 1000);
        match self.run(call).await? {
            Value::Array(parts) => match parts.as_slice() {
                [Value::Nil, lease] => {
                    let lease: Option<String> = decode_reply(lease.clone())?;
                    // A malformed lease is useless and expires soon.
                    Ok(Some(
                        lease.and_then(|lease| lease.parse().ok()).unwrap_or(0),
                    ))
                }
                [Value::BulkString(_), ..] => Ok(None),
                _ => Err(StoreError::Malformed),
            },
            _ => Err(StoreError::Malformed),
        }
    }

    pub(in crate::store) async fn put_api_key(
        &self,
        lease: u64,
        record: &Session,
    ) -> Result<(), StoreError> {
        let keys = self.keys.api_key_and_lease(&record.id);
        let record = record::encode(record).ok_or(StoreError::Refused)?;
        let call = self.scripts.put_profile.call(&keys);
        let call = call.arg(lease).arg(record).arg(TTL_MS);
        self.run(call).await.map(drop)
    }

    pub(in crate::store) async fn invalidate_api_keys(
        &self,
        ids: &[SessionId],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        for step in ids.chunks(SESSIONS_PER_STEP) {
            let calls = || {
                let delete = |id: &SessionId| -> ScriptCall {
                    let mut command = redis::cmd("DEL");
                    command.arg(&self.keys.api_key_and_lease(id));
                    command.into()
                };
                step.iter().map(delete).collect::<Vec<_>>()
            };
            let started = Instant::now();
            let replies = self.with_deadline(deadline, self.run_all(calls())).await?;
            for reply in replies {
                exchange_error::reject_server_error(reply)?;
            }
            self.wait_for_replicas(started, calls).await?;
        }
        Ok(())
    }

    /// Extends the records that are past half of their time: each extension makes the gateways read the
    /// record again.
    pub(in crate::store) async fn extend_api_keys(
        &self,
        ids: &[SessionId],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        for step in ids.chunks(SESSIONS_PER_STEP) {
            let extending = async {
                let mut commands = redis::pipe();
                for id in step {
                    commands.cmd("PTTL").arg(self.keys.session(id));
                }
                let replies = self.execute_all(&commands).await?;
                let mut due = redis::pipe();
                for (id, reply) in step.iter().zip(replies) {
                    let left: i64 = decode_reply(reply)?;
                    if (0..i64::try_from(TTL_MS / 2).unwrap_or(i64::MAX)).contains(&left) {
                        let key = self.keys.session(id);
                        due.cmd("PEXPIRE").arg(key).arg(TTL_MS);
                    }
                }
                if due.is_empty() {
                    return Ok(());
                }
                self.execute_all(&due).await.map(drop)
            };
            self.with_deadline(deadline, extending).await?;
        }
        Ok(())
    }
}

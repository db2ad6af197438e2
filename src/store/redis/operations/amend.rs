//! Changes that clients make to their own session.

use std::time::Duration;

use redis::Value;

use super::open_connections;
use super::sessions::idle_millis;
use crate::auth::session::SessionId;
use crate::store::redis::Redis;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::{AmendOutcome, Amendment, SessionEntry, StoreError};
use crate::telemetry::metrics::StoreOperation;

impl Redis {
    /// Merges the change here, and writes it if the record's revision has not changed; else retries.
    ///
    /// The caller's deadline bounds the retries.
    pub(in crate::store) async fn amend(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Result<AmendOutcome, StoreError> {
        loop {
            let Some(mut entry) = self.session(id).await? else {
                return Ok(AmendOutcome::Gone);
            };
            let revision = entry.session.revision;
            if amendment.apply(&mut entry.session).is_err() {
                return Ok(AmendOutcome::DataTooLong);
            }
            let session = &entry.session;
            let call = self.scripts.amend.call(&self.keys.record_and_usage(&id));
            let call = call
                .arg(idle_millis(idle))
                .arg(revision)
                .arg(&*session.data);
            let call = match &session.device.name {
                Some(name) => call.arg(&**name),
                None => call,
            };
            match self.run(call).await? {
                Value::Int(1) => {}
                Value::Int(_) => return Ok(AmendOutcome::Gone),
                reply => {
                    let live = entry.activity.live_connections;
                    let written =
                        self.decode_entry_reply(StoreOperation::AmendSession, id, &reply)?;
                    let mut entry = written.ok_or(StoreError::Malformed)?;
                    entry.activity.live_connections = live;
                    return Ok(AmendOutcome::Amended(entry));
                }
            }
        }
    }

    pub(in crate::store) async fn touch(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Result<Option<SessionEntry>, StoreError> {
        let call = self.scripts.touch.call(&self.keys.record_and_usage(&id));
        let call = call.arg(idle_millis(idle));
        let mut replies = self
            .run_all(self.with_open_connections(call, id))
            .await?
            .into_iter();
        let reply = replies.next().ok_or(StoreError::Malformed)?;
        let Some(mut entry) = self.decode_entry_reply(StoreOperation::Touch, id, &reply)? else {
            return Ok(None);
        };
        let reports = replies.next().ok_or(StoreError::Malformed)?;
        entry.activity.live_connections =
            open_connections::sum_reports(&reports, entry.activity.last_access);
        Ok(Some(entry))
    }

    /// Adds a read of the session's open connections to a call.
    pub(in crate::store::redis) fn with_open_connections(
        &self,
        call: ScriptCall,
        id: SessionId,
    ) -> Vec<ScriptCall> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.live(&id));
        vec![call, command.into()]
    }
}

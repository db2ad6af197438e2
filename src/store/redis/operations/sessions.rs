//! Single sessions and their use.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::open_connections;
use crate::auth::session::{Activity, EndReason, Millis, SessionId};
use crate::store::deadline::REPLY_ROUNDS;
use crate::store::lookup::pair;
use crate::store::redis::codec::record::DecodedRecord;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::codec::{activity, record, text_codec};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply, parse_time};
use crate::store::{SessionEntry, SessionUse, StoreError, deadline};
use crate::telemetry::metrics::StoreOperation;

/// Number of sessions per step of a long operation.
pub(in crate::store::redis) const SESSIONS_PER_STEP: usize = 128;

/// Reply of `end_session.lua`: its outcome, and the user if the record is readable.
pub(in crate::store::redis) type EndOutcome = (i64, Option<String>);
/// Outcomes of `end_session.lua`.
pub(in crate::store::redis) const MISSING: i64 = 0;
pub(in crate::store::redis) const ENDED_NOW: i64 = 1;
const ENDED_BEFORE: i64 = 2;
const MALFORMED: i64 = 4;
const IDLE: i64 = 5;
pub(in crate::store::redis) const ACTIVE: i64 = 6;

impl Redis {
    pub(in crate::store) async fn session(
        &self,
        id: SessionId,
    ) -> Result<Option<SessionEntry>, StoreError> {
        let (_, mut entries) = self.entries(StoreOperation::Session, &[id]).await?;
        entries.pop().ok_or(StoreError::Malformed)
    }

    /// Returns the store's time and, for each session in order, its record if there is one.
    pub(in crate::store) async fn entries(
        &self,
        operation: StoreOperation,
        ids: &[SessionId],
    ) -> Result<(Millis, Vec<Option<SessionEntry>>), StoreError> {
        let mut commands = redis::pipe();
        commands.cmd("TIME");
        for id in ids {
            commands.cmd("GET").arg(self.keys.session(id));
            commands.cmd("GET").arg(self.keys.usage(id));
            commands.cmd("HGETALL").arg(self.keys.live(id));
        }
        let replies = self.execute_all(&commands).await?;
        let (time, replies) = replies.split_first().ok_or(StoreError::Malformed)?;
        let now = parse_time(time).ok_or(StoreError::Malformed)?;
        let mut entries = Vec::with_capacity(ids.len());
        for (id, parts) in pair(ids.to_vec(), replies.chunks(3).collect())? {
            let [record, usage, reports] = parts else {
                return Err(StoreError::Malformed);
            };
            let mut entry = self.decode_entry(operation, id, record, usage)?;
            if let Some(entry) = &mut entry {
                entry.activity.live_connections = open_connections::sum_reports(reports, now);
            }
            entries.push(entry);
        }
        Ok((now, entries))
    }

    /// Decodes the replies with a record and its use. Malformed content is counted and taken as none.
    pub(in crate::store::redis) fn decode_entry(
        &self,
        operation: StoreOperation,
        id: SessionId,
        record: &Value,
        usage: &Value,
    ) -> Result<Option<SessionEntry>, StoreError> {
        for reply in [record, usage] {
            if !exchange_error::is_wrong_type(reply) {
                exchange_error::check_server_error(reply)?;
            }
        }
        let session = match record::decode_reply(id, record, &self.interner) {
            DecodedRecord::Missing => return Ok(None),
            DecodedRecord::Present(session) => *session,
            DecodedRecord::Malformed => {
                self.count_malformed(operation, 1);
                return Ok(None);
            }
        };
        let activity = activity::decode(usage).unwrap_or_else(|| {
            self.count_malformed(operation, 1);
            Activity::default()
        });
        Ok(Some(SessionEntry { session, activity }))
    }

    /// Decodes a script's reply that contains a record and its use.
    pub(in crate::store::redis) fn decode_entry_reply(
        &self,
        operation: StoreOperation,
        id: SessionId,
        reply: &Value,
    ) -> Result<Option<SessionEntry>, StoreError> {
        exchange_error::check_server_error(reply)?;
        match reply {
            Value::Array(parts) => match parts.as_slice() {
                [record, usage] => self.decode_entry(operation, id, record, usage),
                _ => Err(StoreError::Malformed),
            },
            _ => Ok(None),
        }
    }

    pub(in crate::store) async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        was_active: &mut bool,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let call = || self.end_call(&id, Some(reason), idle, false);
        let reply = self.run(call()).await?;
        let (outcome, user) = self.parse_end_reply(id, reply)?;
        *was_active = outcome == ENDED_NOW;
        if outcome == MALFORMED {
            self.count_malformed(StoreOperation::Revoke, 1);
        }
        if !matches!(outcome, ENDED_NOW | ENDED_BEFORE | IDLE) {
            return Ok(());
        }
        self.wait_for_replicas(started, || vec![call()]).await?;
        self.retire(&user.ok_or(StoreError::Malformed)?, &[id])
            .await
    }

    /// The call that ends a session; without a reason, only one that has expired by idleness.
    ///
    /// `tombstone` leaves a tombstone for a session that is about to be written.
    pub(in crate::store::redis) fn end_call(
        &self,
        id: &SessionId,
        reason: Option<EndReason>,
        idle: Option<Duration>,
        tombstone: bool,
    ) -> ScriptCall {
        self.scripts
            .end_session
            .call(&self.keys.ended_with_session(id))
            .arg(reason.map_or(0, record::reason_code))
            .arg(u8::from(tombstone))
            .arg(idle_millis(idle))
    }

    /// Parses the reply of `end_session.lua`, and reports the tokens that it deleted.
    pub(in crate::store::redis) fn parse_end_reply(
        &self,
        id: SessionId,
        reply: Value,
    ) -> Result<EndOutcome, StoreError> {
        let Value::Array(mut parts) = exchange_error::reject_server_error(reply)? else {
            return Err(StoreError::Malformed);
        };
        parts.resize(3, Value::Nil);
        let (outcome, user, tokens): (i64, Option<Vec<u8>>, Option<Vec<u8>>) =
            decode_reply(Value::Array(parts))?;
        self.report_dropped_tokens(id, &tokens.unwrap_or_default());
        let user = user.and_then(|user| text_codec::decode_user_id(&user));
        Ok((outcome, user))
    }

    pub(in crate::store) async fn record_uses(
        &self,
        uses: &[SessionUse],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let batch_size = self.batch_size()?;
        for step in uses.chunks(SESSIONS_PER_STEP) {
            let calls = step
                .chunks(batch_size)
                .map(|uses| self.record_use_call(uses));
            let replies = self.run_all(calls.collect());
            for reply in self.with_deadline(deadline, replies).await? {
                exchange_error::reject_server_error(reply)?;
            }
        }
        Ok(())
    }

    /// The call that writes uses.
    fn record_use_call(&self, uses: &[SessionUse]) -> ScriptCall {
        let keys: Vec<String> = uses
            .iter()
            .flat_map(|session_use| self.keys.record_and_usage(&session_use.session))
            .collect();
        let call = self.scripts.record_use.call(&keys);
        uses.iter().fold(call, |call, session_use| {
            call.arg(session_use.requests)
                .arg(session_use.last_access)
                .arg(record::encode_address(session_use.address))
        })
    }

    /// Runs one step of a long operation with a deadline.
    pub(in crate::store::redis) async fn with_deadline<T>(
        &self,
        deadline: Duration,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let outcome = deadline::timeout_with_grace(deadline, REPLY_ROUNDS, step).await;
        outcome.unwrap_or_else(|| {
            self.report_timeout();
            Err(StoreError::Timeout)
        })
    }
}

/// Encodes an idle timeout for the scripts; 0: none.
pub(in crate::store::redis) fn idle_millis(idle: Option<Duration>) -> u64 {
    idle.map_or(0, |idle| {
        u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}

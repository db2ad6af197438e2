//! Sessions one by one, their use, and the blacklist.

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

/// How many sessions one step of a long operation deals with.
pub(in crate::store::redis) const SESSIONS_PER_STEP: usize = 128;

/// What `end_session.lua` answers: its outcome, and the user where known.
pub(in crate::store::redis) type EndOutcome = (i64, Option<String>);
pub(in crate::store::redis) const MISSING: i64 = 0;
pub(in crate::store::redis) const ENDED_NOW: i64 = 1;
const ENDED_BEFORE: i64 = 2;
const MALFORMED: i64 = 4;
const IDLE: i64 = 5;
pub(in crate::store::redis) const ALIVE: i64 = 6;

impl Redis {
    pub(in crate::store) async fn session(
        &self,
        id: SessionId,
    ) -> Result<Option<SessionEntry>, StoreError> {
        let (_, mut entries) = self.entries(StoreOperation::Session, &[id]).await?;
        entries.pop().ok_or(StoreError::Malformed)
    }

    /// The time, and for each of these sessions, in their order, its record if there is one.
    pub(in crate::store) async fn entries(
        &self,
        operation: StoreOperation,
        ids: &[SessionId],
    ) -> Result<(Millis, Vec<Option<SessionEntry>>), StoreError> {
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        for id in ids {
            questions.cmd("GET").arg(self.keys.session(id));
            questions.cmd("GET").arg(self.keys.usage(id));
            questions.cmd("HGETALL").arg(self.keys.live(id));
        }
        let replies = self.execute_all(&questions).await?;
        let (time, replies) = replies.split_first().ok_or(StoreError::Malformed)?;
        let now = parse_time(time).ok_or(StoreError::Malformed)?;
        let mut entries = Vec::with_capacity(ids.len());
        for (id, parts) in pair(ids.to_vec(), replies.chunks(3).collect())? {
            let [record, used, reports] = parts else {
                return Err(StoreError::Malformed);
            };
            let mut entry = self.decode_entry(operation, id, record, used)?;
            if let Some(entry) = &mut entry {
                entry.activity.live_connections = open_connections::sum_reports(reports, now);
            }
            entries.push(entry);
        }
        Ok((now, entries))
    }

    /// Reads answers that hold a record and its use. What is not understood is as good as none, and
    /// is counted.
    pub(in crate::store::redis) fn decode_entry(
        &self,
        operation: StoreOperation,
        id: SessionId,
        record: &Value,
        used: &Value,
    ) -> Result<Option<SessionEntry>, StoreError> {
        for reply in [record, used] {
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
        let activity = activity::decode(used).unwrap_or_else(|| {
            self.count_malformed(operation, 1);
            Activity::default()
        });
        Ok(Some(SessionEntry { session, activity }))
    }

    /// Reads a script's answer that is both of them.
    pub(in crate::store::redis) fn decode_entry_reply(
        &self,
        operation: StoreOperation,
        id: SessionId,
        reply: &Value,
    ) -> Result<Option<SessionEntry>, StoreError> {
        exchange_error::check_server_error(reply)?;
        match reply {
            Value::Array(parts) => match parts.as_slice() {
                [record, used] => self.decode_entry(operation, id, record, used),
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
        was_alive: &mut bool,
    ) -> Result<(), StoreError> {
        let began = Instant::now();
        let call = || self.end_call(&id, Some(reason), idle, false);
        let reply = self.run(call()).await?;
        let (outcome, user) = parse_end_reply(reply)?;
        *was_alive = outcome == ENDED_NOW;
        if outcome == MALFORMED {
            self.count_malformed(StoreOperation::Revoke, 1);
        }
        if !matches!(outcome, ENDED_NOW | ENDED_BEFORE | IDLE) {
            return Ok(());
        }
        self.wait_for_replicas(began, || vec![call()]).await?;
        self.retire(&user.ok_or(StoreError::Malformed)?, &[id])
            .await
    }

    /// The call that ends a session; without reason, only one that has expired by being idle.
    /// `mark` leaves a mark for one that is about to be written.
    pub(in crate::store::redis) fn end_call(
        &self,
        id: &SessionId,
        reason: Option<EndReason>,
        idle: Option<Duration>,
        mark: bool,
    ) -> ScriptCall {
        self.scripts
            .end_session
            .call(&self.keys.record_and_usage(id))
            .arg(reason.map_or(0, record::reason_code))
            .arg(u8::from(mark))
            .arg(idle_millis(idle))
    }

    pub(in crate::store) async fn record_uses(
        &self,
        uses: &[SessionUse],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let together = self.batch_size()?;
        for step in uses.chunks(SESSIONS_PER_STEP) {
            let calls = step.chunks(together).map(|uses| self.record_use_call(uses));
            let writing = self.run_all(calls.collect());
            for reply in self.with_deadline(deadline, writing).await? {
                exchange_error::reject_server_error(reply)?;
            }
        }
        Ok(())
    }

    /// The call that writes uses down.
    fn record_use_call(&self, uses: &[SessionUse]) -> ScriptCall {
        let keys: Vec<String> = uses
            .iter()
            .flat_map(|used| self.keys.record_and_usage(&used.session))
            .collect();
        let call = self.scripts.record_use.call(&keys);
        uses.iter().fold(call, |call, used| {
            call.arg(used.requests)
                .arg(used.last_access)
                .arg(record::encode_address(used.address))
        })
    }

    /// One step of a long operation.
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

/// An idle timeout as the scripts are told it; 0: there is none.
pub(in crate::store::redis) fn idle_millis(idle: Option<Duration>) -> u64 {
    idle.map_or(0, |idle| {
        u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}

/// Reads the answer of `end_session.lua`.
pub(in crate::store::redis) fn parse_end_reply(reply: Value) -> Result<EndOutcome, StoreError> {
    let Value::Array(mut parts) = exchange_error::reject_server_error(reply)? else {
        return Err(StoreError::Malformed);
    };
    parts.resize(2, Value::Nil);
    let (outcome, user): (i64, Option<Vec<u8>>) = decode_reply(Value::Array(parts))?;
    Ok((
        outcome,
        user.and_then(|user| text_codec::decode_user_id(&user)),
    ))
}

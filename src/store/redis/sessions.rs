//! Sessions one by one, their use, and the blacklist.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::super::deadline::{self, AN_ANSWER};
use super::super::lookup::paired;
use super::super::{Entry, StoreError, Use};
use super::record::{self, Reading};
use super::scripts::Call;
use super::{Redis, activity, clock, fault, live, names, read};
use crate::auth::session::{Activity, EndReason, Millis, SessionId};

/// How many sessions one step of a long operation deals with.
pub(super) const STEP: usize = 128;

/// What `end_session.lua` answers: its outcome, and the user where known.
pub(super) type Ending = (i64, Option<String>);
pub(super) const MISSING: i64 = 0;
pub(super) const ENDED_NOW: i64 = 1;
const ENDED_BEFORE: i64 = 2;
const MALFORMED: i64 = 4;
const IDLE: i64 = 5;
pub(super) const ALIVE: i64 = 6;

impl Redis {
    pub(in super::super) async fn session(
        &self,
        id: SessionId,
    ) -> Result<Option<Entry>, StoreError> {
        let (_, mut entries) = self.entries("session", &[id]).await?;
        entries.pop().ok_or(StoreError::Malformed)
    }

    /// The time, and for each of these sessions, in their order, its record if there is one.
    pub(in super::super) async fn entries(
        &self,
        operation: &'static str,
        ids: &[SessionId],
    ) -> Result<(Millis, Vec<Option<Entry>>), StoreError> {
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        for id in ids {
            questions.cmd("GET").arg(self.keys.session(id));
            questions.cmd("GET").arg(self.keys.used(id));
            questions.cmd("HGETALL").arg(self.keys.live(id));
        }
        let replies = self.ask_all(&questions).await?;
        let (time, replies) = replies.split_first().ok_or(StoreError::Malformed)?;
        let now = clock(time).ok_or(StoreError::Malformed)?;
        let mut entries = Vec::with_capacity(ids.len());
        for (id, parts) in paired(ids.to_vec(), replies.chunks(3).collect())? {
            let [record, used, reports] = parts else {
                return Err(StoreError::Malformed);
            };
            let mut entry = self.entry(operation, id, record, used)?;
            if let Some(entry) = &mut entry {
                entry.activity.live_connections = live::count(reports, now);
            }
            entries.push(entry);
        }
        Ok((now, entries))
    }

    /// Reads answers that hold a record and its use. What is not understood is as good as none, and
    /// is counted.
    pub(super) fn entry(
        &self,
        operation: &'static str,
        id: SessionId,
        record: &Value,
        used: &Value,
    ) -> Result<Option<Entry>, StoreError> {
        for reply in [record, used] {
            if !fault::is_wrong_type(reply) {
                fault::checked(reply)?;
            }
        }
        let session = match record::read(id, record, &self.alike) {
            Reading::Missing => return Ok(None),
            Reading::There(session) => *session,
            Reading::Malformed => {
                self.count_malformed(operation, 1);
                return Ok(None);
            }
        };
        let activity = activity::read(used).unwrap_or_else(|| {
            self.count_malformed(operation, 1);
            Activity::default()
        });
        Ok(Some(Entry { session, activity }))
    }

    /// Reads a script's answer that is both of them.
    pub(super) fn written(
        &self,
        operation: &'static str,
        id: SessionId,
        reply: &Value,
    ) -> Result<Option<Entry>, StoreError> {
        fault::checked(reply)?;
        match reply {
            Value::Array(parts) => match parts.as_slice() {
                [record, used] => self.entry(operation, id, record, used),
                _ => Err(StoreError::Malformed),
            },
            _ => Ok(None),
        }
    }

    pub(in super::super) async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        was_alive: &mut bool,
    ) -> Result<(), StoreError> {
        let began = Instant::now();
        let call = || self.ending(&id, Some(reason), idle, false);
        let reply = self.run(call()).await?;
        let (outcome, user) = ending(reply)?;
        *was_alive = outcome == ENDED_NOW;
        if outcome == MALFORMED {
            self.count_malformed("revoke", 1);
        }
        if !matches!(outcome, ENDED_NOW | ENDED_BEFORE | IDLE) {
            return Ok(());
        }
        self.replicated(began, || vec![call()]).await?;
        self.retire(&user.ok_or(StoreError::Malformed)?, &[id])
            .await
    }

    /// The call that ends a session; without reason, only one that has expired by being idle.
    /// `mark` leaves a mark for one that is about to be written.
    pub(super) fn ending(
        &self,
        id: &SessionId,
        reason: Option<EndReason>,
        idle: Option<Duration>,
        mark: bool,
    ) -> Call {
        self.scripts
            .end_session
            .on(&self.keys.both(id))
            .arg(reason.map_or(0, record::reason_code))
            .arg(u8::from(mark))
            .arg(millis(idle))
    }

    pub(in super::super) async fn record_uses(
        &self,
        uses: &[Use],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let together = self.together()?;
        for step in uses.chunks(STEP) {
            let calls = step.chunks(together).map(|uses| self.recording(uses));
            let writing = self.run_all(calls.collect());
            for reply in self.within(deadline, writing).await? {
                fault::settled(reply)?;
            }
        }
        Ok(())
    }

    /// The call that writes uses down.
    fn recording(&self, uses: &[Use]) -> Call {
        let keys: Vec<String> = uses
            .iter()
            .flat_map(|used| self.keys.both(&used.session))
            .collect();
        let call = self.scripts.record_use.on(&keys);
        uses.iter().fold(call, |call, used| {
            call.arg(used.requests)
                .arg(used.last_access)
                .arg(record::octets(used.address))
        })
    }

    /// One step of a long operation.
    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let outcome = deadline::within(deadline, AN_ANSWER, step).await;
        outcome.unwrap_or_else(|| {
            self.suspect();
            Err(StoreError::Timeout)
        })
    }
}

/// An idle timeout as the scripts are told it; 0: there is none.
pub(super) fn millis(idle: Option<Duration>) -> u64 {
    idle.map_or(0, |idle| {
        u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}

/// Reads the answer of `end_session.lua`.
pub(super) fn ending(reply: Value) -> Result<Ending, StoreError> {
    let Value::Array(mut parts) = fault::settled(reply)? else {
        return Err(StoreError::Malformed);
    };
    parts.resize(2, Value::Nil);
    let (outcome, user): (i64, Option<Vec<u8>>) = read(Value::Array(parts))?;
    Ok((outcome, user.and_then(|user| names::user_id(&user))))
}

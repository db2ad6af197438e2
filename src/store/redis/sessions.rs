//! Sessions one by one, their use, and the blacklist.

use std::time::Duration;

use redis::Pipeline;
use tokio::time::timeout;

use super::super::{Entry, StoreError, Use};
use super::record::{self, FIELDS, Reading};
use super::scripts::Call;
use super::{Redis, clock, fault, read};
use crate::session::{EndReason, Millis, SessionId, Status};

/// How many sessions one step of a long operation deals with.
const STEP: usize = 128;

/// What `end_session.lua` answers: its outcome, then user, created and expires where known.
pub(super) type Ending = (i64, Option<String>, Option<Millis>, Option<Millis>);
pub(super) const ENDED_NOW: i64 = 1;
const ENDED_BEFORE: i64 = 2;
pub(super) const MISSING: i64 = 0;
pub(super) const ALIVE: i64 = 6;
const MALFORMED: i64 = 4;
const IDLE: i64 = 5;

impl Redis {
    pub(in super::super) async fn session(
        &self,
        id: SessionId,
    ) -> Result<Option<Entry>, StoreError> {
        let mut questions = redis::pipe();
        self.ask_for(&mut questions, &id);
        let replies = self.ask_all(&questions).await?;
        let [session, activity] = replies.as_slice() else {
            return Err(StoreError::Malformed);
        };
        if !fault::is_wrong_type(session) {
            fault::settled(session.clone())?;
        }
        match record::entry(id, session, activity) {
            None => Ok(None),
            Some(Ok(entry)) => Ok(Some(entry)),
            Some(Err(())) => {
                self.count_malformed("session", 1);
                Ok(None)
            }
        }
    }

    /// Adds the two questions for a session and its activity.
    pub(super) fn ask_for(&self, questions: &mut Pipeline, id: &SessionId) {
        questions
            .cmd("HMGET")
            .arg(self.keys.session(id))
            .arg(&FIELDS);
        questions
            .cmd("HMGET")
            .arg(self.keys.activity(id))
            .arg(&["last", "count", "ips"]);
    }

    pub(in super::super) async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        was_alive: &mut bool,
    ) -> Result<(), StoreError> {
        let call = self.ending(&id, Some(reason), idle, false);
        let reply = self.run(call).await?;
        let (outcome, user, created, _) = ending(reply)?;
        *was_alive = outcome == ENDED_NOW;
        if outcome == MALFORMED {
            self.count_malformed("revoke", 1);
        }
        if !matches!(outcome, ENDED_NOW | ENDED_BEFORE | IDLE) {
            return Ok(());
        }
        let (Some(user), Some(created)) = (user, created) else {
            return Err(StoreError::Malformed);
        };
        self.retire(&user, &[(created, id)]).await
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
            .on(&[self.keys.session(id), self.keys.activity(id)])
            .arg(reason.map_or("", EndReason::as_str))
            .arg(u8::from(mark))
            .arg(millis(idle))
    }

    pub(in super::super) async fn record_uses(
        &self,
        uses: &[Use],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        for step in uses.chunks(STEP) {
            let call = |used: &Use| {
                let id = &used.session;
                self.scripts
                    .record_use
                    .on(&[self.keys.session(id), self.keys.activity(id)])
                    .arg(used.requests)
                    .arg(used.last_access)
                    .arg(used.address.to_string())
            };
            let writing = self.run_all(step.iter().map(call).collect());
            for reply in self.within(deadline, writing).await? {
                fault::settled(reply)?;
            }
        }
        Ok(())
    }

    pub(in super::super) async fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
        deadline: Duration,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut ended = Vec::new();
        for step in ids.chunks(STEP) {
            let mut questions = redis::pipe();
            questions.cmd("TIME");
            for id in step {
                self.ask_for(&mut questions, id);
            }
            let replies = self.within(deadline, self.ask_all(&questions)).await?;
            let (time, replies) = replies.split_first().ok_or(StoreError::Malformed)?;
            let now = clock(time).ok_or(StoreError::Malformed)?;
            for (id, pair) in step.iter().zip(replies.chunks_exact(2)) {
                let [session, activity] = pair else {
                    return Err(StoreError::Malformed);
                };
                if !fault::is_wrong_type(session) {
                    fault::settled(session.clone())?;
                }
                let active = match record::session(*id, session) {
                    Reading::There(session) => {
                        let last = record::activity(activity).last_access;
                        session.status(last, idle, now) == Status::Active
                    }
                    Reading::Missing | Reading::Malformed => false,
                };
                if !active {
                    ended.push(*id);
                }
            }
        }
        Ok(ended)
    }

    pub(in super::super) async fn blacklist(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        // Redis refuses a moment beyond what it can count; a century will do.
        let millis = millis.clamp(1, 3_155_760_000_000);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.blacklist(key)).arg(1);
        self.ask(command.arg("PX").arg(millis)).await.map(drop)
    }

    pub(in super::super) async fn unblacklist(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        read(self.ask(command.arg(self.keys.blacklist(key))).await?)
    }

    pub(in super::super) async fn are_blacklisted(
        &self,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        let mut questions = redis::pipe();
        for key in keys {
            questions.cmd("EXISTS").arg(self.keys.blacklist(key));
        }
        let replies = self.ask_all(&questions).await?;
        replies.into_iter().map(read).collect()
    }

    /// One step of a long operation.
    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(deadline, step).await.unwrap_or_else(|_| {
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
pub(super) fn ending(reply: redis::Value) -> Result<Ending, StoreError> {
    let redis::Value::Array(mut parts) = fault::settled(reply)? else {
        return Err(StoreError::Malformed);
    };
    parts.resize(4, redis::Value::Nil);
    read(redis::Value::Array(parts))
}

//! Operations on a user's sessions as a whole: sign-in, revocation, identity.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::sessions::{ACTIVE, ENDED_NOW, MISSING};
use super::user_index::{parse_dated_session_ids, parse_session_ids};
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionId};
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::codec::{activity, record, text_codec};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::store::sessions::SessionIdentity;
use crate::store::{CreateOutcome, InitialRefreshToken, StoreError};

/// Retention of a session after its end, in milliseconds.
const RETENTION_AFTER_END: Millis = 3_600_000;
/// Age from which a session in the index without a record is considered abandoned by its sign-in.
const ABANDONED_AFTER: Millis = 10_000;

/// Number of sessions that a sign-in checks at once, oldest first, if the index is full.
const SESSIONS_PER_CHECK: usize = 128;

/// Outcome of `sign_in.lua`.
enum IndexAdmission {
    Admitted { victims: Vec<SessionId> },
    Rejected { active: Vec<(SessionId, Millis)> },
}

impl Redis {
    /// Creates a session in two steps: the user's index decides, then the sessions are written.
    ///
    /// A new session that is evicted before its record is written finds a tombstone. If the index is
    /// full, sessions that are over are removed from it first. The index alone decides, whatever
    /// happens concurrently.
    pub(in crate::store) async fn create_session(
        &self,
        session: &Session,
        grant: Option<InitialRefreshToken>,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
        evicted: &mut Vec<SessionId>,
    ) -> Result<CreateOutcome, StoreError> {
        let started = Instant::now();
        let record = record::encode(session).ok_or(StoreError::Refused)?;
        let victims = self.admit_to_index(session, max, on_limit, idle).await?;
        let Some(victims) = victims else {
            return Ok(CreateOutcome::LimitReached);
        };
        let evictions = || {
            let evict = |id| self.end_call(id, Some(EndReason::Evicted), idle, true);
            victims.iter().map(evict).collect()
        };
        let mut calls: Vec<ScriptCall> = evictions();
        let write = &self.scripts.write_session;
        let write = write.call(&self.keys.record_and_usage(&session.id));
        calls.push(
            write
                .arg(session.expires_at.saturating_add(RETENTION_AFTER_END))
                .arg(record)
                .arg(activity::encode_new(grant)),
        );
        let mut replies = self.run_all(calls).await?;
        exchange_error::reject_server_error(replies.pop().ok_or(StoreError::Malformed)?)?;
        for (id, reply) in victims.iter().zip(replies) {
            if self.parse_end_reply(*id, reply)?.0 == ENDED_NOW {
                evicted.push(*id);
            }
        }
        if let Err(error) = self.wait_for_replicas(started, evictions).await {
            // The sign-in fails, so the new session must not count against the limit.
            let end = self.end_call(&session.id, Some(EndReason::Terminated), None, false);
            self.parse_end_reply(session.id, self.run(end).await?)?;
            self.retire(&session.user, &[session.id]).await?;
            return Err(error);
        }
        // Removed last: after a failure above, the next sign-in still finds them in the index.
        self.retire(&session.user, &victims).await?;
        Ok(CreateOutcome::Created {
            evicted: evicted.clone(),
        })
    }

    /// Enters a session into its user's index; returns the sessions to evict, or `None` without room.
    async fn admit_to_index(
        &self,
        session: &Session,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
    ) -> Result<Option<Vec<SessionId>>, StoreError> {
        let few = match on_limit {
            OnSessionLimit::EvictOldest => SESSIONS_PER_CHECK,
            // All are checked: no session is rejected while another one is over.
            OnSessionLimit::Reject => 0,
        };
        let mut admission = self
            .enter_index(session, max, OnSessionLimit::Reject, few)
            .await?;
        if let IndexAdmission::Rejected { active } = &admission {
            let has_room = self.prune_index(session, active, max, idle).await?;
            if !has_room && on_limit == OnSessionLimit::Reject {
                return Ok(None);
            }
            admission = self.enter_index(session, max, on_limit, few).await?;
        }
        Ok(match admission {
            IndexAdmission::Admitted { victims } => Some(victims),
            IndexAdmission::Rejected { .. } => None,
        })
    }

    /// Ends a session whose sign-in failed, even if its record is not written yet.
    pub(in crate::store) async fn abandon_session(
        &self,
        user: &str,
        id: SessionId,
    ) -> Result<(), StoreError> {
        let call = self.end_call(&id, Some(EndReason::Terminated), None, true);
        self.parse_end_reply(id, self.run(call).await?)?;
        self.retire(user, &[id]).await
    }

    async fn enter_index(
        &self,
        session: &Session,
        max: u32,
        on_limit: OnSessionLimit,
        few: usize,
    ) -> Result<IndexAdmission, StoreError> {
        let call = self
            .scripts
            .sign_in
            .call(&[self.keys.user(&session.user)])
            .arg(&session.id.0[..])
            .arg(session.created_at)
            .arg(session.expires_at)
            .arg(max)
            .arg(u8::from(on_limit == OnSessionLimit::Reject))
            .arg(few);
        let (is_admitted, ids): (u8, Value) = decode_reply(self.run(call).await?)?;
        Ok(match is_admitted {
            1 => IndexAdmission::Admitted {
                victims: parse_session_ids(ids)?,
            },
            _ => IndexAdmission::Rejected {
                active: parse_dated_session_ids(ids)?,
            },
        })
    }

    /// Removes sessions that are over from the index; returns whether there were any.
    ///
    /// These are sessions that have expired by idleness, have ended without an update of the index, or
    /// were never written.
    async fn prune_index(
        &self,
        session: &Session,
        active: &[(SessionId, Millis)],
        max: u32,
        idle: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let excess = (active.len() + 1).saturating_sub(max as usize);
        let mut removed = 0;
        for chunk in active.chunks(SESSIONS_PER_CHECK) {
            removed += self.prune_chunk(session, chunk, idle).await?;
            if removed > 0 && removed >= excess {
                break;
            }
        }
        Ok(removed > 0)
    }

    async fn prune_chunk(
        &self,
        session: &Session,
        chunk: &[(SessionId, Millis)],
        idle: Option<Duration>,
    ) -> Result<usize, StoreError> {
        let calls = chunk
            .iter()
            .map(|(id, _)| self.end_call(id, None, idle, false));
        let mut over = Vec::new();
        let replies = self.run_all(calls.collect()).await?;
        for ((id, created_at), reply) in chunk.iter().zip(replies) {
            let is_over = match self.parse_end_reply(*id, reply)?.0 {
                ACTIVE => false,
                MISSING => created_at.saturating_add(ABANDONED_AFTER) < session.created_at,
                _ => true,
            };
            over.extend(is_over.then_some(*id));
        }
        self.retire(&session.user, &over).await?;
        Ok(over.len())
    }

    pub(in crate::store) async fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
        ended: &mut Vec<SessionId>,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut ids = self.unended_session_ids(user).await?;
        ids.retain(|id| Some(*id) != except);
        let calls = || {
            let end = |id| self.end_call(id, Some(reason), idle, true);
            ids.iter().map(end).collect()
        };
        let mut first_error = Ok(());
        for (id, reply) in ids.iter().zip(self.run_all(calls()).await?) {
            match self.parse_end_reply(*id, reply) {
                Ok((ENDED_NOW, ..)) => ended.push(*id),
                Ok(_) => {}
                // The sessions that did end are returned in any case.
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error?;
        // They stay in the index until replicas have confirmed: a retry must find them.
        self.wait_for_replicas(started, calls).await?;
        self.retire(user, &ids).await
    }

    pub(in crate::store) async fn set_identity(
        &self,
        ids: &[SessionId],
        identity: SessionIdentity<'_>,
    ) -> Result<(), StoreError> {
        let [roles, scopes] = [identity.roles, identity.scopes].map(text_codec::encode_list);
        // The script would write a record that no one can read.
        if [&roles, &scopes]
            .iter()
            .any(|text| text.len() > record::MAX_TEXT)
        {
            return Err(StoreError::Refused);
        }
        let call = |id: &SessionId| {
            let keys = [self.keys.session(id), self.keys.identity(id)];
            let call = self.scripts.set_identity.call(&keys);
            let call = call
                .arg(identity.version)
                .arg(identity.email)
                .arg(&*roles)
                .arg(&*scopes);
            match identity.name {
                Some(name) => call.arg(name),
                None => call,
            }
        };
        for reply in self.run_all(ids.iter().map(call).collect()).await? {
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }
}

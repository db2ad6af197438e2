//! A user's sessions together: their index, and what is done to all of them.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::sessions::{ALIVE, ENDED_NOW, MISSING, parse_end_reply};
use super::user_index::{parse_dated_session_ids, parse_session_ids};
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionId};
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::codec::{activity, record, text_codec};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::store::sessions::SessionIdentity;
use crate::store::{CreateOutcome, InitialRefreshToken, StoreError};

/// How long a session stays tellable after its end, in milliseconds.
const RETENTION_AFTER_END: Millis = 3_600_000;
/// A sign-in that has entered its session and not written it after so long never will.
const ABANDONED_AFTER: Millis = 10_000;

/// How many sessions a sign-in looks at together, the oldest first, where the index is full.
const SESSIONS_PER_CHECK: usize = 128;

/// What `sign_in.lua` did.
enum IndexAdmission {
    Admitted { victims: Vec<SessionId> },
    Rejected { alive: Vec<(SessionId, Millis)> },
}

impl Redis {
    /// Two steps: the index, in the user's slot, says who stays; then the sessions themselves
    /// follow. A sign-in that is chosen to go before its session is written finds a mark there.
    ///
    /// Where the index is full, those come off it first that are over. The index alone decides,
    /// whatever happens meanwhile.
    pub(in crate::store) async fn create_session(
        &self,
        session: &Session,
        grant: Option<InitialRefreshToken>,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
        evicted: &mut Vec<SessionId>,
    ) -> Result<CreateOutcome, StoreError> {
        let began = Instant::now();
        let record = record::encode(session).ok_or(StoreError::Refused)?;
        let few = match on_limit {
            OnSessionLimit::EvictOldest => SESSIONS_PER_CHECK,
            // None is rejected in the place of one that is over.
            OnSessionLimit::Reject => 0,
        };
        let mut entered = self
            .enter_index(session, max, OnSessionLimit::Reject, few)
            .await?;
        if let IndexAdmission::Rejected { alive } = &entered {
            let room = self.prune_index(session, alive, max, idle).await?;
            if !room && on_limit == OnSessionLimit::Reject {
                return Ok(CreateOutcome::LimitReached);
            }
            entered = self.enter_index(session, max, on_limit, few).await?;
        }
        let IndexAdmission::Admitted { victims } = entered else {
            return Ok(CreateOutcome::LimitReached);
        };
        let evictions = || {
            let ending = |id| self.end_call(id, Some(EndReason::Evicted), idle, true);
            victims.iter().map(ending).collect()
        };
        let mut calls: Vec<ScriptCall> = evictions();
        let writing = &self.scripts.write_session;
        let writing = writing.call(&self.keys.record_and_usage(&session.id));
        calls.push(
            writing
                .arg(session.expires_at.saturating_add(RETENTION_AFTER_END))
                .arg(record)
                .arg(activity::encode_new(grant)),
        );
        let mut replies = self.run_all(calls).await?;
        exchange_error::reject_server_error(replies.pop().ok_or(StoreError::Malformed)?)?;
        for (id, reply) in victims.iter().zip(replies) {
            if parse_end_reply(reply)?.0 == ENDED_NOW {
                evicted.push(*id);
            }
        }
        if let Err(error) = self.wait_for_replicas(began, evictions).await {
            // Nobody will hear of the new one, so it must not take anybody's place.
            self.run(self.end_call(&session.id, Some(EndReason::Terminated), None, false))
                .await?;
            self.retire(&session.user, &[session.id]).await?;
            return Err(error);
        }
        // They were in the index until now: had this broken off, the next sign-in would have found them.
        self.retire(&session.user, &victims).await?;
        Ok(CreateOutcome::Created {
            evicted: evicted.clone(),
        })
    }

    /// Ends a session whose sign-in failed, also one that is still to be written.
    pub(in crate::store) async fn abandon_session(
        &self,
        user: &str,
        id: SessionId,
    ) -> Result<(), StoreError> {
        let call = self.end_call(&id, Some(EndReason::Terminated), None, true);
        parse_end_reply(self.run(call).await?)?;
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
        let (entered, told): (u8, Value) = decode_reply(self.run(call).await?)?;
        Ok(match entered {
            1 => IndexAdmission::Admitted {
                victims: parse_session_ids(told)?,
            },
            _ => IndexAdmission::Rejected {
                alive: parse_dated_session_ids(told)?,
            },
        })
    }

    /// Takes those off the index that are over: idle for too long, ended where the index could not
    /// be told, or never written. Tells whether there were any.
    async fn prune_index(
        &self,
        session: &Session,
        alive: &[(SessionId, Millis)],
        max: u32,
        idle: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let too_many = (alive.len() + 1).saturating_sub(max as usize);
        let mut over = 0;
        for some in alive.chunks(SESSIONS_PER_CHECK) {
            over += self.prune_chunk(session, some, idle).await?;
            if over > 0 && over >= too_many {
                break;
            }
        }
        Ok(over > 0)
    }

    async fn prune_chunk(
        &self,
        session: &Session,
        alive: &[(SessionId, Millis)],
        idle: Option<Duration>,
    ) -> Result<usize, StoreError> {
        let calls = alive
            .iter()
            .map(|(id, _)| self.end_call(id, None, idle, false));
        let mut over = Vec::new();
        let replies = self.run_all(calls.collect()).await?;
        for ((id, created_at), reply) in alive.iter().zip(replies) {
            let is_over = match parse_end_reply(reply)?.0 {
                ALIVE => false,
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
        let began = Instant::now();
        let mut ids = self.unended_session_ids(user).await?;
        ids.retain(|id| Some(*id) != except);
        let calls = || {
            let ending = |id| self.end_call(id, Some(reason), idle, true);
            ids.iter().map(ending).collect()
        };
        let mut first_error = Ok(());
        for (id, reply) in ids.iter().zip(self.run_all(calls()).await?) {
            match parse_end_reply(reply) {
                Ok((ENDED_NOW, ..)) => ended.push(*id),
                Ok(_) => {}
                // What did end is told in any case.
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error?;
        // They stay in the index until it is sure: who tries again finds them.
        self.wait_for_replicas(began, calls).await?;
        self.retire(user, &ids).await
    }

    pub(in crate::store) async fn set_identity(
        &self,
        ids: &[SessionId],
        identity: SessionIdentity<'_>,
    ) -> Result<(), StoreError> {
        let call = |id: &SessionId| {
            let keys = [self.keys.session(id), self.keys.identity(id)];
            let call = self.scripts.set_identity.call(&keys);
            let call = call
                .arg(identity.version)
                .arg(identity.email)
                .arg(text_codec::encode_list(identity.roles))
                .arg(text_codec::encode_list(identity.scopes));
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

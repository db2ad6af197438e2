//! What the store does with sessions and the blacklist.

use std::time::Duration;

use super::lookup::BatchLookup;
use super::{
    CacheKey, Engine, InitialRefreshToken, Revocation, SessionEntry, SessionListQuery,
    SessionLookup, SessionPage, SessionUse, Store, StoreError,
};
use crate::auth::session::{EndReason, OnSessionLimit, Session, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// How many sessions one step of a long operation deals with.
const BATCH_SIZE: usize = 128;

/// What became of a new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is there, in the place of these.
    Created { evicted: Vec<SessionId> },
    /// The user has as many as are allowed.
    LimitReached,
}

impl Store {
    /// Writes a new session, with its first refresh token if it has one. Beyond `max` alive ones the oldest are ended, or the new one is
    /// rejected; however many sign-ins race, at most `max` stay. Those that have expired by being
    /// idle stay expired from then on, and neither count nor keep anybody out.
    pub async fn create_session(
        &self,
        session: &Session,
        grant: Option<InitialRefreshToken>,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
    ) -> Result<CreateOutcome, StoreError> {
        let mut evicted = Vec::new();
        let created = self
            .measured(StoreOperation::CreateSession, async {
                match &self.engine {
                    Engine::Memory(memory) => {
                        let created = memory.create_session(session, grant, max, on_limit, idle);
                        if let CreateOutcome::Created { evicted: ended } = &created {
                            evicted.clone_from(ended);
                        }
                        Ok(created)
                    }
                    Engine::Redis(redis) => {
                        let evicted = &mut evicted;
                        redis
                            .create_session(session, grant, max, on_limit, idle, evicted)
                            .await
                    }
                }
            })
            .await;
        // Until now it was known to be missing, if it was asked for.
        self.invalidate(&CacheKey::Session(session.id));
        self.announce_ended(&evicted, EndReason::Evicted);
        let created = created?;
        if let CreateOutcome::Created { .. } = &created {
            self.shared.metrics.sessions_created.inc();
        }
        Ok(created)
    }

    /// Reads one session, however it stands.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionEntry>, StoreError> {
        self.measured(StoreOperation::Session, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.session(id)),
                Engine::Redis(redis) => redis.session(id).await,
            }
        })
        .await
    }

    /// Lists a user's sessions, newest first.
    pub async fn sessions_of(
        &self,
        user: &str,
        wanted: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        self.measured(StoreOperation::SessionsOf, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.sessions_of(user, wanted)),
                Engine::Redis(redis) => redis.sessions_of(user, wanted).await,
            }
        })
        .await
    }

    /// Lists everybody's sessions. A call looks at a few thousand keys at most, so a page may be
    /// short, even empty, and have a next one. Those that are there throughout are on some page;
    /// Redis may give one twice. Each step has the deadline, not the whole.
    pub async fn all_sessions(
        &self,
        wanted: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        self.measured_steps(StoreOperation::AllSessions, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.all_sessions(wanted)),
                Engine::Redis(redis) => redis.all_sessions(wanted, self.shared.timeout).await,
            }
        })
        .await
    }

    /// Ends a session; tells whether it was alive. One that has expired by being idle stays so,
    /// even if the idle timeout grows.
    pub async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let mut was_alive = false;
        let outcome = self
            .measured(StoreOperation::Revoke, async {
                match &self.engine {
                    Engine::Memory(memory) => was_alive = memory.revoke(id, reason, idle),
                    Engine::Redis(redis) => {
                        redis.revoke(id, reason, idle, &mut was_alive).await?;
                    }
                }
                Ok(())
            })
            .await;
        // It has ended even where its user's index could not be told any more.
        if was_alive {
            self.announce_ended(&[id], reason);
        } else if outcome.is_ok() {
            // Another gateway ended it, or a try of this one whose answer did not come: whoever hears
            // that it is over asks this gateway next.
            self.shared.near_cache.mark_ended(id, idle, self.clock());
        }
        outcome.map(|()| was_alive)
    }

    /// Ends a session whose sign-in failed: it may have been written all the same, or still be.
    pub async fn abandon_session(&self, user: &str, id: SessionId) -> Result<(), StoreError> {
        let outcome = self.measured(StoreOperation::Revoke, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.revoke(id, EndReason::Terminated, None);
                    Ok(())
                }
                Engine::Redis(redis) => redis.abandon_session(user, id).await,
            }
        });
        let outcome = outcome.await;
        self.invalidate(&CacheKey::Session(id));
        outcome
    }

    /// Ends all of a user's sessions but one; gives those that were alive.
    pub async fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut ended = Vec::new();
        let outcome = self
            .measured(StoreOperation::RevokeUser, async {
                match &self.engine {
                    Engine::Memory(memory) => {
                        ended = memory.revoke_user(user, except, reason, idle)
                    }
                    Engine::Redis(redis) => {
                        let ended = &mut ended;
                        redis.revoke_user(user, except, reason, idle, ended).await?;
                    }
                }
                Ok(())
            })
            .await;
        self.announce_ended(&ended, reason);
        outcome.map(|()| ended)
    }

    /// The sessions of a user that a change of who the user is has to be written to. They have to be
    /// looked up before the user is read: a session that is opened later was opened by what is read.
    pub async fn unended_sessions(&self, user: &str) -> Result<Vec<SessionId>, StoreError> {
        self.measured(StoreOperation::SetIdentity, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.ids_of(user)),
                Engine::Redis(redis) => redis.unended_session_ids(user).await,
            }
        })
        .await
    }

    /// Writes who their user is to sessions that live. One that has a later version of it keeps that:
    /// a change that was acknowledged is not undone by one that was made before and arrives late.
    pub async fn set_identity(
        &self,
        ids: &[SessionId],
        identity: SessionIdentity<'_>,
    ) -> Result<(), StoreError> {
        let outcome = self.measured(StoreOperation::SetIdentity, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.set_identity(ids, identity);
                    Ok(())
                }
                Engine::Redis(redis) => redis.set_identity(ids, identity).await,
            }
        });
        let outcome = outcome.await;
        for id in ids {
            self.invalidate(&CacheKey::Session(*id));
        }
        outcome
    }

    /// Writes down how sessions were used; those that are not there are passed over. Each step has
    /// the deadline, not the whole.
    pub async fn record_uses(&self, uses: &[SessionUse]) -> Result<(), StoreError> {
        if uses.is_empty() {
            return Ok(());
        }
        self.measured_steps(StoreOperation::RecordUses, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.record_uses(uses);
                    Ok(())
                }
                Engine::Redis(redis) => redis.record_uses(uses, self.shared.timeout).await,
            }
        })
        .await
    }

    /// Tells which of these sessions are not alive any more: missing, expired or revoked. Asks for
    /// those only that this gateway is not sure of. Each step has the deadline, not the whole.
    pub async fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
    ) -> Result<Vec<SessionId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let replica = &self.shared.near_cache;
        if let Engine::Memory(memory) = &self.engine {
            return Ok(memory.ended_among(ids, idle, |id| replica.last_access(id)));
        }
        let now = self.clock();
        let unsure: Vec<SessionId> = ids
            .iter()
            .filter(|id| !replica.is_cached_active(**id, idle, now))
            .copied()
            .collect();
        let mut ended = Vec::new();
        for step in unsure.chunks(BATCH_SIZE) {
            let found = self
                .look_up_sessions(StoreOperation::EndedAmong, step, idle)
                .await?;
            let over = found
                .into_iter()
                .filter(|(_, found)| !matches!(found, SessionLookup::Active(..)));
            ended.extend(over.map(|(id, _)| id));
        }
        Ok(ended)
    }

    /// Looks up how sessions stand, each once, and caches it.
    pub(super) async fn look_up_sessions(
        &self,
        operation: StoreOperation,
        ids: &[SessionId],
        idle: Option<Duration>,
    ) -> Result<Vec<(SessionId, SessionLookup)>, StoreError> {
        let replica = &self.shared.near_cache;
        let Engine::Redis(redis) = &self.engine else {
            return Ok(Vec::new());
        };
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().copied();
        let lookup = BatchLookup::<SessionId>::new(ids, replica, |id| CacheKey::Session(*id));
        let asked = self.measured(operation, redis.entries(operation, lookup.keys()));
        let (now, entries) = asked.await?;
        let lag = |late| self.shared.metrics.observe_revocation_lag(late);
        lookup.note(replica, entries, idle, now, lag)
    }

    /// Counts and announces ends.
    pub fn announce_ended(&self, ids: &[SessionId], reason: EndReason) {
        for id in ids {
            self.shared
                .metrics
                .sessions_ended
                .with_label_values(&[reason.as_str()])
                .inc();
            self.announce(Revocation::Session(*id));
        }
    }
}

/// What a session carries of its user.
#[derive(Debug, Clone, Copy)]
pub struct SessionIdentity<'a> {
    /// Grows with every change of the user.
    pub version: u64,
    pub email: &'a str,
    pub name: Option<&'a str>,
    pub roles: &'a [String],
    pub scopes: &'a [String],
}

//! Session operations of the store.

use std::time::Duration;

use super::lookup::BatchLookup;
use super::{
    CacheKey, Engine, InitialRefreshToken, Revocation, SessionEntry, SessionListQuery,
    SessionLookup, SessionPage, SessionUse, Store, StoreError,
};
use crate::auth::session::{EndReason, OnSessionLimit, Session, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// Number of sessions per step of a long operation.
const BATCH_SIZE: usize = 128;

/// Outcome of [`Store::create_session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The session exists; these sessions were ended to make room for it.
    Created { evicted: Vec<SessionId> },
    /// The user already has the maximum number of sessions.
    LimitReached,
}

impl Store {
    /// Writes a new session, with its first refresh token if it has one.
    ///
    /// Beyond `max` active sessions, the oldest ones are ended or the new one is rejected; concurrent
    /// sign-ins do not exceed `max`. Sessions that have expired by idleness are marked as expired and
    /// do not count.
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
                        if let CreateOutcome::Created { evicted: ids } = &created {
                            evicted.clone_from(ids);
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
        // A request with the new id may have cached it as missing.
        self.invalidate(&CacheKey::Session(session.id));
        self.announce_ended(&evicted, EndReason::Evicted);
        let created = created?;
        if let CreateOutcome::Created { .. } = &created {
            self.shared.metrics.sessions_created.inc();
        }
        Ok(created)
    }

    /// Reads one session, whatever its status.
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
        query: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        self.measured(StoreOperation::SessionsOf, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.sessions_of(user, query)),
                Engine::Redis(redis) => redis.sessions_of(user, query).await,
            }
        })
        .await
    }

    /// Lists the sessions of all users.
    ///
    /// A call scans at most a few thousand keys, so a page may be short or even empty and still have a
    /// next one. Sessions that exist throughout are on some page; with Redis, a session may be listed
    /// twice. The timeout applies to each step.
    pub async fn all_sessions(
        &self,
        query: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        self.measured_steps(StoreOperation::AllSessions, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.all_sessions(query)),
                Engine::Redis(redis) => redis.all_sessions(query, self.shared.timeout).await,
            }
        })
        .await
    }

    /// Ends a session; returns whether it was active.
    ///
    /// A session that has expired by idleness stays expired, even if the idle timeout grows.
    pub async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let mut was_active = false;
        let outcome = self
            .measured(StoreOperation::Revoke, async {
                match &self.engine {
                    Engine::Memory(memory) => was_active = memory.revoke(id, reason, idle),
                    Engine::Redis(redis) => {
                        redis.revoke(id, reason, idle, &mut was_active).await?;
                    }
                }
                Ok(())
            })
            .await;
        // The session has ended even if the update of the user's index failed.
        if was_active {
            self.announce_ended(&[id], reason);
        } else if outcome.is_ok() {
            // Another gateway has ended it, or an attempt of this one whose reply was lost. The client
            // that receives this outcome may use this gateway next.
            self.shared.near_cache.mark_ended(id, idle, self.clock());
        }
        outcome.map(|()| was_active)
    }

    /// Ends a session whose sign-in failed; its write may have succeeded or still be in flight.
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

    /// Ends all of a user's sessions but one; returns those that were active.
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

    /// Returns a user's sessions that have not ended, for [`Store::set_identity`].
    ///
    /// Must be called before the user is read: sessions that are created later carry the data read
    /// then.
    pub async fn unended_sessions(&self, user: &str) -> Result<Vec<SessionId>, StoreError> {
        self.measured(StoreOperation::SetIdentity, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.ids_of(user)),
                Engine::Redis(redis) => redis.unended_session_ids(user).await,
            }
        })
        .await
    }

    /// Writes a user's identity to sessions that have not ended.
    ///
    /// A session with a later version keeps it, so that a delayed write does not undo a later change.
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

    /// Writes session uses; missing sessions are skipped. The timeout applies to each step.
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

    /// Returns those of the sessions that are missing, expired or revoked.
    ///
    /// Only sessions without a fresh cache entry are queried. The timeout applies to each step.
    pub async fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
    ) -> Result<Vec<SessionId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let cache = &self.shared.near_cache;
        if let Engine::Memory(memory) = &self.engine {
            return Ok(memory.ended_among(ids, idle, |id| cache.last_access(id)));
        }
        let now = self.clock();
        let uncached: Vec<SessionId> = ids
            .iter()
            .filter(|id| !cache.is_cached_active(**id, idle, now))
            .copied()
            .collect();
        let mut ended = Vec::new();
        for batch in uncached.chunks(BATCH_SIZE) {
            let lookups = self
                .look_up_sessions(StoreOperation::EndedAmong, batch, idle)
                .await?;
            let inactive = lookups
                .into_iter()
                .filter(|(_, lookup)| !matches!(lookup, SessionLookup::Active(..)));
            ended.extend(inactive.map(|(id, _)| id));
        }
        Ok(ended)
    }

    /// Looks sessions up, each once, and caches the results.
    pub(super) async fn look_up_sessions(
        &self,
        operation: StoreOperation,
        ids: &[SessionId],
        idle: Option<Duration>,
    ) -> Result<Vec<(SessionId, SessionLookup)>, StoreError> {
        let cache = &self.shared.near_cache;
        let Engine::Redis(redis) = &self.engine else {
            return Ok(Vec::new());
        };
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().copied();
        let lookup = BatchLookup::<SessionId>::new(ids, cache, |id| CacheKey::Session(*id));
        let reply = self.measured(operation, redis.entries(operation, lookup.keys()));
        let (now, entries) = reply.await?;
        let observe_lag = |lag| self.shared.metrics.observe_revocation_lag(lag);
        lookup.cache_replies(cache, entries, idle, now, observe_lag)
    }

    /// Counts and announces ended sessions.
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

/// The user's data that a session carries.
#[derive(Debug, Clone, Copy)]
pub struct SessionIdentity<'a> {
    /// Increases with every change of the user.
    pub version: u64,
    pub email: &'a str,
    pub name: Option<&'a str>,
    pub roles: &'a [String],
    pub scopes: &'a [String],
}

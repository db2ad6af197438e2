//! Durable sessions (`sessions.durable`): rows in the database. A session is written and ended
//! there before either is reported; where the store has lost a session, or does not respond, the
//! database decides its status.
//!
//! The store is always queried first: while it has a session, no request queries the database.

mod integrity;
mod provider;
mod refresh;
mod replay;
mod revocation_log;
mod writes;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use integrity::Epoch;

use super::miss_limiter::MissLimiter;
pub(super) use super::row_lookup::DatabaseUnavailable;
use super::row_lookup::RowLookup;
use super::update::identity_of;
use crate::auth::session::{Millis, OnSessionLimit, Session, SessionId, SessionStatus};
use crate::database::{Database, DurableSession};
use crate::store::{SessionIdentity, SessionLookup, SessionUse, Store};

/// How long a row is cached. While the store is away, a revocation by another gateway may take
/// effect here this much later.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// A handle on the durable sessions; clones share their state.
#[derive(Clone)]
pub(super) struct DurableSessions {
    database: Database,
    shared: Arc<DurableState>,
}

struct DurableState {
    is_enabled: AtomicBool,
    rows: RowLookup<SessionId, DurableSession>,
    misses: MissLimiter,
    pending_uses: replay::PendingUseTimes,
    integrity: integrity::Integrity,
}

impl DurableSessions {
    pub(super) fn new(database: Database, on: bool) -> DurableSessions {
        DurableSessions {
            database,
            shared: Arc::new(DurableState {
                is_enabled: AtomicBool::new(on),
                rows: RowLookup::new(CACHE_TTL),
                misses: MissLimiter::default(),
                pending_uses: replay::PendingUseTimes::default(),
                integrity: integrity::Integrity::new(on),
            }),
        }
    }

    /// The durable sessions, where they are enabled.
    pub(super) fn if_enabled(&self) -> Option<&DurableSessions> {
        self.shared
            .is_enabled
            .load(Ordering::Relaxed)
            .then_some(self)
    }

    /// Follows a reload.
    pub(super) fn set_enabled(&self, on: bool) {
        if self.shared.is_enabled.swap(on, Ordering::Relaxed) != on {
            self.shared.integrity.reset();
        }
    }

    /// Confirms the store's result for a session. One that the store has lost, or considers
    /// expired, may be alive here; one that it found alive just after it came back may have been
    /// ended here meanwhile. A live session is restored to the store.
    ///
    /// # Errors
    /// Only the database could decide, and it does not respond.
    pub(super) async fn confirm_with_database(
        &self,
        store: &Store,
        id: SessionId,
        found: SessionLookup,
        context: LookupContext,
    ) -> Result<SessionLookup, DatabaseUnavailable> {
        let lost = match &found {
            SessionLookup::Missing | SessionLookup::Expired(_) => true,
            SessionLookup::Active(..) if self.is_store_unverified(store) => false,
            SessionLookup::Active(..) | SessionLookup::Revoked(_) | SessionLookup::NotQueried => {
                return Ok(found);
            }
        };
        // Boxed, here and below: rarely needed, and far larger than its caller's future.
        let Some(row) = Box::pin(self.look_up(id, lost.then_some(context.ip))).await? else {
            // A session from before `durable` was enabled.
            return Ok(found);
        };
        let status_in_database = context.status_of(&row);
        match &status_in_database {
            SessionLookup::Active(..) if lost => {
                Box::pin(self.restore_to_store(store, &row, context)).await
            }
            SessionLookup::Revoked(session) if !lost => {
                Box::pin(self.replay_end(store, session)).await
            }
            _ => {}
        }
        // The store's record is fresher, except for an end.
        let store_prevails = !lost && !matches!(status_in_database, SessionLookup::Revoked(_));
        Ok(if store_prevails {
            found
        } else {
            status_in_database
        })
    }

    /// The status of a session, by the database alone.
    ///
    /// # Errors
    /// The database does not respond.
    pub(super) async fn look_up_status(
        &self,
        id: SessionId,
        context: LookupContext,
    ) -> Result<SessionLookup, DatabaseUnavailable> {
        let row = Box::pin(self.look_up(id, Some(context.ip))).await?;
        Ok(row.map_or(SessionLookup::Missing, |row| context.status_of(&row)))
    }

    /// Reads a session's row, if there is one. Concurrent look-ups of one session share a single
    /// query.
    ///
    /// # Errors
    /// The database does not respond, or is not to be queried now.
    pub(super) async fn look_up(
        &self,
        id: SessionId,
        address: Option<IpAddr>,
    ) -> Result<Option<Arc<DurableSession>>, DatabaseUnavailable> {
        let shared = &self.shared;
        if let Some(row) = shared.rows.cached(id) {
            return Ok(row);
        }
        if address.is_some_and(|address| shared.misses.is_blocked(address)) {
            return Err(DatabaseUnavailable);
        }
        let row = shared.rows.read(id, self.database.session(id)).await?;
        if let (None, Some(address)) = (&row, address) {
            shared.misses.count_miss(address);
        }
        Ok(row)
    }

    /// Restores a session to a store that has lost it.
    async fn restore_to_store(&self, store: &Store, row: &DurableSession, context: LookupContext) {
        let id = row.session.id;
        // No gateway may take it for a record in its cache.
        let session = Session {
            revision: row.session.revision.max(context.now / 1000),
            ..row.session.clone()
        };
        let used = SessionUse {
            session: id,
            last_access: row.last_activity,
            requests: 0,
            address: session.ip,
        };
        let restored = async {
            store
                .create_session(
                    &session,
                    None,
                    u32::MAX,
                    OnSessionLimit::EvictOldest,
                    context.idle,
                )
                .await?;
            store.record_uses(std::slice::from_ref(&used)).await
        };
        if let Err(error) = restored.await {
            tracing::debug!(%error, "a session could not be restored to the store");
            return;
        }
        // A concurrent change of the row was applied to the store before the store had the session.
        self.shared.invalidate(id);
        match self.look_up(id, None).await {
            Ok(Some(after)) if after.session.ended.is_some() => {
                self.replay_end(store, &after.session).await
            }
            Ok(Some(after)) if after.session.revision != row.session.revision => {
                self.copy_identity(store, &after.session, context.now).await;
            }
            _ => {}
        }
    }

    /// Copies the identity of a session to the store: its user's, or its own if its user has no row.
    async fn copy_identity(&self, store: &Store, session: &Session, now: Millis) {
        let Ok(user) = self.database.user_in_session(session).await else {
            return;
        };
        let identity = match &user {
            Some(user) => identity_of(user),
            None => SessionIdentity {
                version: now,
                email: &session.email,
                name: session.name.as_deref(),
                roles: &session.roles,
                scopes: &session.scopes,
            },
        };
        if let Err(error) = store.set_identity(&[session.id], identity).await {
            tracing::warn!(%error, "a session in the store may be behind its row");
        }
    }
}

/// The client's address and the rules for a look-up.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupContext {
    pub(super) idle: Option<Duration>,
    pub(super) now: Millis,
    /// The latest use that this gateway has seen and may not have written.
    pub(super) last_access: Millis,
    pub(super) ip: IpAddr,
}

impl LookupContext {
    fn status_of(&self, row: &DurableSession) -> SessionLookup {
        let session = &row.session;
        let last_access = row.last_activity.max(self.last_access);
        match session.status(last_access, self.idle, self.now) {
            SessionStatus::Active => SessionLookup::Active(Arc::new(session.clone()), last_access),
            SessionStatus::Expired => SessionLookup::Expired(Arc::new(session.clone())),
            SessionStatus::Revoked => SessionLookup::Revoked(Arc::new(session.clone())),
        }
    }
}

impl DurableState {
    /// Invalidates the cached row of a session.
    fn invalidate(&self, id: SessionId) {
        self.rows.invalidate(id);
    }
}

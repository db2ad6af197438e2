//! Replays to the store: ends that were written while it was away, and those that a store with an
//! older state lacks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::super::SessionError;
use super::DurableSessions;
use super::writes::used_since;
use crate::auth::session::{EndReason, Millis, Session, SessionId};
use crate::store::{SessionUse, Store, StoreError};

/// How far back ends are replayed to a store that has come back, in milliseconds: it may have been
/// restored from a snapshot of that age.
pub(super) const REPLAY_WINDOW_MS: Millis = 3_600_000;
/// Uses are written at every n-th call of [`DurableSessions::write_uses`], which is called once per
/// second.
const WRITE_EVERY_CALLS: u64 = 5;

/// Uses that are not written yet.
#[derive(Default)]
pub(super) struct PendingUseTimes {
    uses: Mutex<HashMap<SessionId, Millis>>,
    calls: AtomicU64,
}

impl DurableSessions {
    /// Replays every pending end to the store.
    pub(super) async fn replay_pending(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        self.replay_pending_revocations(store, now).await?;
        loop {
            let ends = self.database.pending_ends().await?;
            if ends.is_empty() {
                return Ok(());
            }
            for (id, reason) in &ends {
                store.revoke(*id, *reason, None).await?;
            }
            let ids: Vec<SessionId> = ends.into_iter().map(|(id, _)| id).collect();
            self.database.mark_ends_replayed(&ids).await?;
        }
    }

    /// Replays the revocations of the last hour to a store that has come back.
    pub(super) async fn replay_recent(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        self.replay_recent_revocations(store, now).await?;
        let since = now.saturating_sub(REPLAY_WINDOW_MS);
        let mut after = None;
        loop {
            let ends = self.database.ends_since(since, after, now).await?;
            let Some((last, _)) = ends.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (id, reason) in &ends {
                store.revoke(*id, *reason, None).await?;
            }
        }
    }

    /// Replays one end to the store.
    pub(super) async fn replay_end(&self, store: &Store, session: &Session) {
        let reason = session
            .ended
            .map_or(EndReason::Terminated, |end| end.reason);
        if let Err(error) = store.revoke(session.id, reason, None).await {
            tracing::debug!(%error, "the end of a session could not be replayed to the store");
        }
    }

    /// Records uses, to be written with the next ones.
    pub(in crate::sessions) fn record_uses(&self, uses: &[SessionUse]) {
        let mut unwritten = self.shared.pending_uses.uses.lock();
        for used in uses {
            let last = unwritten.entry(used.session).or_default();
            *last = (*last).max(used.last_access);
        }
    }

    /// Records uses, and writes them every few seconds.
    ///
    /// # Errors
    /// They cannot be written; they stay pending.
    pub(in crate::sessions) async fn write_uses(
        &self,
        store: &Store,
        uses: &[SessionUse],
    ) -> Result<(), SessionError> {
        self.record_uses(uses);
        let calls = &self.shared.pending_uses.calls;
        if calls
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(WRITE_EVERY_CALLS)
        {
            self.flush_uses(store).await?;
        }
        Ok(())
    }

    /// Writes all uses. Sessions that are used although they have ended here are revoked in the
    /// store.
    ///
    /// # Errors
    /// They cannot be written, and stay pending; or the store does not respond.
    pub(in crate::sessions) async fn flush_uses(&self, store: &Store) -> Result<(), SessionError> {
        let pending = &self.shared.pending_uses;
        let unwritten: Vec<(SessionId, Millis)> = pending.uses.lock().drain().collect();
        match self.database.update_last_activity(&unwritten).await {
            Ok(ended) => {
                for id in ended {
                    self.shared.invalidate(id);
                    store.revoke(id, EndReason::Terminated, None).await?;
                }
                Ok(())
            }
            Err(error) => {
                let mut uses = pending.uses.lock();
                for (id, at) in unwritten {
                    let last = uses.entry(id).or_default();
                    *last = (*last).max(at);
                }
                Err(error.into())
            }
        }
    }

    /// Returns those of these sessions that are no longer alive, by store and database: a session
    /// that the store has lost may be alive here, and while the store does not respond, those that
    /// have ended here count as ended.
    ///
    /// # Errors
    /// The store does not respond, nor does the database where it is needed.
    pub(in crate::sessions) async fn ended_among(
        &self,
        store: &Store,
        ids: &[SessionId],
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<Vec<SessionId>, StoreError> {
        let found = store.ended_among(ids, idle).await;
        let (Some(durable), false) = (self.if_enabled(), ids.is_empty()) else {
            return found;
        };
        let candidates = found.as_deref().unwrap_or(ids);
        let used_since = used_since(idle, now);
        let liveness = durable
            .database
            .look_up_liveness(candidates, used_since, now);
        let Ok(liveness) = liveness.await else {
            // Unknown is not gone.
            return found.map(|_| Vec::new());
        };
        let over: HashSet<SessionId> = liveness
            .iter()
            .filter(|(_, alive)| !alive)
            .map(|(id, _)| *id)
            .collect();
        let with_row: HashSet<SessionId> = liveness.into_iter().map(|(id, _)| id).collect();
        Ok(match found {
            Ok(ended) => {
                let lost = |id: &SessionId| with_row.contains(id) && !over.contains(id);
                ended.into_iter().filter(|id| !lost(id)).collect()
            }
            Err(_) => over.into_iter().collect(),
        })
    }
}

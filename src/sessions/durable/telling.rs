//! What the database knows and the store may not: ends that were written while the store was away,
//! and those that a store which came back with an older state has forgotten.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Durable;
use super::keeping::used_since;
use crate::auth::session::{EndReason, Millis, Session, SessionId};
use crate::directory;
use crate::store::{Store, StoreError, Use};

/// Of a store that has come back, the ends so long before are told again, in milliseconds: it may
/// have been restored from a snapshot as old as that.
pub(super) const TOLD_AGAIN: Millis = 3_600_000;
/// After how many calls of [`Durable::write_uses`] uses are written: a second lies between two.
const UNWRITTEN_FOR: u64 = 5;

/// Which uses are not written yet.
#[derive(Default)]
pub(super) struct Telling {
    uses: Mutex<HashMap<SessionId, Millis>>,
    calls: AtomicU64,
}

/// Why the store was not told.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    #[error("the store did not respond")]
    Store(#[from] StoreError),
    #[error("the database did not respond")]
    Directory(#[from] directory::Error),
}

impl Durable {
    /// Tells the store of everything that it was not told of.
    pub(super) async fn tell_untold(&self, store: &Store, now: Millis) -> Result<(), Untold> {
        self.tell_untold_revocations(store, now).await?;
        loop {
            let ends = self.directory.untold_ends().await?;
            if ends.is_empty() {
                return Ok(());
            }
            for (id, reason) in &ends {
                store.revoke(*id, *reason, None).await?;
            }
            let ids: Vec<SessionId> = ends.into_iter().map(|(id, _)| id).collect();
            self.directory.ends_told(&ids).await?;
        }
    }

    /// Tells a store that has come back what was revoked in the last hour.
    pub(super) async fn tell_again(&self, store: &Store, now: Millis) -> Result<(), Untold> {
        self.tell_revocations_again(store, now).await?;
        let since = now.saturating_sub(TOLD_AGAIN);
        let mut after = None;
        loop {
            let ends = self.directory.ends_since(since, after, now).await?;
            let Some((last, _)) = ends.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (id, reason) in &ends {
                store.revoke(*id, *reason, None).await?;
            }
        }
    }

    /// Tells the store of one end.
    pub(super) async fn tell(&self, store: &Store, session: &Session) {
        let reason = session
            .ended
            .map_or(EndReason::Terminated, |end| end.reason);
        if let Err(error) = store.revoke(session.id, reason, None).await {
            tracing::debug!(%error, "an end could not be told to the store");
        }
    }

    /// Takes note of uses, to be written with the next ones.
    pub fn note_uses(&self, uses: &[Use]) {
        let mut unwritten = self.shared.telling.uses.lock();
        for used in uses {
            let last = unwritten.entry(used.session).or_default();
            *last = (*last).max(used.last_access);
        }
    }

    /// Takes note of uses; every few seconds they are written.
    ///
    /// # Errors
    /// When they cannot be; they stay to be written.
    pub async fn write_uses(&self, store: &Store, uses: &[Use]) -> Result<(), Untold> {
        self.note_uses(uses);
        let calls = &self.shared.telling.calls;
        if calls
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(UNWRITTEN_FOR)
        {
            self.flush(store).await?;
        }
        Ok(())
    }

    /// Writes all uses. Of sessions that are used although they have ended here the store is told.
    ///
    /// # Errors
    /// When they cannot be written; they stay to be. When the store cannot be told.
    pub async fn flush(&self, store: &Store) -> Result<(), Untold> {
        let telling = &self.shared.telling;
        let unwritten: Vec<(SessionId, Millis)> = telling.uses.lock().drain().collect();
        match self.directory.note_uses(&unwritten).await {
            Ok(ended) => {
                for id in ended {
                    self.shared.changed(id);
                    store.revoke(id, EndReason::Terminated, None).await?;
                }
                Ok(())
            }
            Err(error) => {
                let mut uses = telling.uses.lock();
                for (id, at) in unwritten {
                    let last = uses.entry(id).or_default();
                    *last = (*last).max(at);
                }
                Err(error.into())
            }
        }
    }

    /// Tells which of these sessions are not alive any more, by both homes: what the store has lost
    /// may live here, and while it does not answer those end that have ended here.
    ///
    /// # Errors
    /// When the store does not answer, and neither does the database where it would have to.
    pub async fn ended_among(
        &self,
        store: &Store,
        ids: &[SessionId],
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<Vec<SessionId>, StoreError> {
        let found = store.ended_among(ids, idle).await;
        let (Some(durable), false) = (self.on(), ids.is_empty()) else {
            return found;
        };
        let doubtful = found.as_deref().unwrap_or(ids);
        let used_since = used_since(idle, now);
        let standing = durable.directory.standing_among(doubtful, used_since, now);
        let Ok(standing) = standing.await else {
            // Unknown is not gone.
            return found.map(|_| Vec::new());
        };
        let over: HashSet<SessionId> = standing
            .iter()
            .filter(|(_, alive)| !alive)
            .map(|(id, _)| *id)
            .collect();
        let known: HashSet<SessionId> = standing.into_iter().map(|(id, _)| id).collect();
        Ok(match found {
            Ok(ended) => {
                let lost = |id: &SessionId| known.contains(id) && !over.contains(id);
                ended.into_iter().filter(|id| !lost(id)).collect()
            }
            Err(_) => over.into_iter().collect(),
        })
    }
}

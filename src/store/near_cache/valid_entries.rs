//! Entries by which a credential is valid, held across requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quick_cache::Lifecycle;

use super::super::{CacheKey, Query};
use super::validity::ReadStamp;
use super::{CachedSession, NearCache, REFRESH_AFTER, RecordedSession};
use crate::auth::session::{Millis, Session, SessionId, SessionStatus};

/// Entries by which the near cache accepts a credential. They are void once the cache would no longer
/// accept it by them; see [`NearCache::holds`].
#[derive(Debug)]
pub struct ValidEntries {
    session: Option<Arc<CachedSession>>,
    token: Option<ReadStamp>,
    user: Option<ReadStamp>,
    /// When the first of them is due for a refresh.
    refresh_at: Instant,
}

impl ValidEntries {
    /// The session's record.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()?.session.as_ref()
    }

    /// The session, to record its uses.
    pub fn recorded_session(&self) -> Option<RecordedSession> {
        Some(RecordedSession {
            id: self.session()?.id,
            entry: self.session.clone()?,
        })
    }
}

impl NearCache {
    /// Collects the entries by which a credential is valid; `None` unless all that the query names are
    /// fresh and accept it.
    pub fn valid_entries(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
        now: Millis,
    ) -> Option<ValidEntries> {
        // Taken before the entries are read: a change while they are is noticed.
        let token = query.blacklist_key;
        let token = token.map(|key| self.stamp(&CacheKey::Token(key.to_owned())));
        let user = query.cut_off_user;
        let user = user.map(|user| self.stamp(&CacheKey::User(user)));
        let fresh = self.validity.fresh()?;
        let mut read_at = fresh.now;
        if let Some(key) = query.blacklist_key {
            let (blacklisted, at) = self.fresh_token(key, fresh)?;
            if blacklisted {
                return None;
            }
            read_at = read_at.min(at);
        }
        if let Some(user) = &query.cut_off_user {
            let (cut_off, at) = self.fresh_cut_off(user, fresh)?;
            if query.is_cut_off(self.effective_cut_off(cut_off)) {
                return None;
            }
            read_at = read_at.min(at);
        }
        let session = match query.session {
            Some(id) => Some(self.sessions.get(&id)?),
            None => None,
        };
        if let Some(entry) = &session {
            read_at = read_at.min(entry.read_at);
        }
        let entries = ValidEntries {
            session,
            token,
            user,
            refresh_at: read_at + REFRESH_AFTER,
        };
        self.holds(&entries, idle, now).then_some(entries)
    }

    /// Whether these entries still accept their credential; `now` is the store's time.
    ///
    /// They do not once an invalidation may have been missed, one of their items has changed, the
    /// session's entry has been replaced, the session has expired or is idle, or one of them is due for
    /// a refresh.
    pub fn holds(&self, entries: &ValidEntries, idle: Option<Duration>, now: Millis) -> bool {
        let Some(fresh) = self.validity.fresh() else {
            return false;
        };
        let is_unchanged =
            |stamp: ReadStamp| self.validity.epoch_if_unchanged(stamp) == fresh.epoch;
        let is_active = |entry: &CachedSession| {
            let state = entry.fresh_status(idle, now, fresh);
            state.is_some_and(|(status, ..)| status == SessionStatus::Active)
        };
        fresh.now < entries.refresh_at
            && entries.token.is_none_or(is_unchanged)
            && entries.user.is_none_or(is_unchanged)
            && entries.session.as_deref().is_none_or(is_active)
    }
}

/// Marks session entries as stale that leave the cache: no later invalidation would find them.
#[derive(Debug, Clone)]
pub(super) struct MarkStale;

impl Lifecycle<SessionId, Arc<CachedSession>> for MarkStale {
    /// An entry to drop once the cache is unlocked.
    type RequestState = Option<Arc<CachedSession>>;

    fn on_evict(&self, state: &mut Self::RequestState, _: SessionId, entry: Arc<CachedSession>) {
        entry.epoch.store(0, Ordering::SeqCst);
        *state = Some(entry);
    }
}

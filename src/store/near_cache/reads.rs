//! Look-ups in the near cache in place of the store.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::{Query, QueryResult, SessionLookup, UserHash};
use super::uses::UnwrittenUses;
use super::validity::Fresh;
use super::{CachedSession, CachedValue, MAX_AGE, NearCache, REFRESH_AFTER};
use crate::auth::session::{Millis, Session, SessionId, SessionStatus};
use crate::limits::Charge;

/// The part of a query that the near cache serves.
#[derive(Debug, Default)]
pub(in super::super) struct CachedResult {
    pub session: Option<SessionLookup>,
    pub blacklisted: Option<bool>,
    pub cut_off: Option<Option<u64>>,
    /// Whether an entry is due for a refresh ahead of its expiry.
    pub needs_refresh: bool,
}

/// The charges after authentication that are left to decide.
pub(in super::super) type ChargesAfterAuth<'a> = Cow<'a, [Charge]>;

impl CachedResult {
    /// Charges after authentication that apply to the request; none if a cached fact rejects it.
    pub(in super::super) fn charges_after_auth<'q>(
        &self,
        query: &Query<'q>,
    ) -> ChargesAfterAuth<'q> {
        let rejected = self.blacklisted == Some(true)
            || query.is_cut_off(self.cut_off.flatten())
            || self.session.as_ref().is_some_and(|lookup| {
                let SessionLookup::Active(session, _) = lookup else {
                    return true;
                };
                !query.is_met_by(session)
            });
        let charges = query.charges_after_auth;
        match &self.session {
            _ if rejected => Cow::Borrowed(&[]),
            Some(SessionLookup::Active(session, _)) => {
                let applies = |charge: &&Charge| charge.limit.applies_to(&session.roles);
                if charges.iter().all(|charge| applies(&charge)) {
                    Cow::Borrowed(charges)
                } else {
                    Cow::Owned(charges.iter().filter(applies).cloned().collect())
                }
            }
            _ => Cow::Borrowed(charges),
        }
    }

    /// The part of the query that is left for the store.
    pub(in super::super) fn remaining_query<'q>(
        &self,
        query: &Query<'q>,
        charges_after_auth: &'q [Charge],
    ) -> Query<'q> {
        Query {
            charges_before_auth: query.charges_before_auth,
            session: query.session.filter(|_| self.session.is_none()),
            cached: query.cached.clone().filter(|_| self.session.is_none()),
            last_access: query.last_access,
            blacklist_key: query.blacklist_key.filter(|_| self.blacklisted.is_none()),
            cut_off_user: query.cut_off_user.filter(|_| self.cut_off.is_none()),
            issued_at: query.issued_at,
            require: query.require,
            charges_after_auth,
        }
    }

    /// Merges the cached facts into the store's result.
    pub(in super::super) fn merge_into(self, result: &mut QueryResult) {
        if let Some(session) = self.session {
            result.session = session;
        }
        result.blacklisted |= self.blacklisted == Some(true);
        if let Some(cut_off) = self.cut_off {
            result.cut_off = cut_off;
        }
    }
}

impl NearCache {
    /// Answers as much of the query as is fresh; `now` is the store's time.
    pub(in super::super) fn look_up(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
        now: Millis,
    ) -> CachedResult {
        let Some(fresh) = self.validity.fresh() else {
            return CachedResult::default();
        };
        let mut needs_refresh = false;
        let mut check_age = |at: Instant| {
            needs_refresh |= fresh.now.saturating_duration_since(at) >= REFRESH_AFTER;
        };
        let session = query.session.and_then(|id| {
            let (lookup, at) = self.fresh_session(id, idle, now, fresh)?;
            check_age(at);
            Some(lookup)
        });
        let blacklisted = query.blacklist_key.and_then(|key| {
            let (blacklisted, at) = self.fresh_token(key, fresh)?;
            check_age(at);
            Some(blacklisted)
        });
        let cut_off = query.cut_off_user.and_then(|user| {
            let (cut_off, at) = self.fresh_cut_off(&user, fresh)?;
            check_age(at);
            Some(cut_off)
        });
        CachedResult {
            session,
            blacklisted,
            cut_off,
            needs_refresh,
        }
    }

    /// The record of an API key, if it is cached and fresh.
    pub(in super::super) fn fresh_record(
        &self,
        id: SessionId,
        now: Millis,
    ) -> Option<SessionLookup> {
        let (lookup, _) = self.fresh_session(id, None, now, self.validity.fresh()?)?;
        Some(lookup)
    }

    /// Whether a fresh entry shows the session as active.
    pub(in super::super) fn is_cached_active(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
    ) -> bool {
        let fresh = self.validity.fresh();
        let entry = fresh.and_then(|fresh| self.fresh_session(id, idle, now, fresh));
        matches!(entry, Some((SessionLookup::Active(..), _)))
    }

    /// Whether a token is blacklisted, if that is cached and fresh.
    pub(in super::super) fn cached_blacklisting(&self, key: &str) -> Option<bool> {
        let (blacklisted, _) = self.fresh_token(key, self.validity.fresh()?)?;
        Some(blacklisted)
    }

    /// The second up to which a user's tokens are rejected, if that is cached and fresh.
    pub(in super::super) fn cached_cut_off(&self, user: &UserHash) -> Option<Option<u64>> {
        let (cut_off, _) = self.fresh_cut_off(user, self.validity.fresh()?)?;
        Some(cut_off)
    }

    /// The state of a session and when it was read, if fresh.
    fn fresh_session(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
        fresh: Fresh,
    ) -> Option<(SessionLookup, Instant)> {
        let Some(entry) = self.sessions.get(&id) else {
            let entry = self.missing.get(&id)?;
            return entry
                .is_fresh(fresh)
                .then_some((SessionLookup::Missing, entry.at));
        };
        let (status, session, last_access) = entry.fresh_status(idle, now, fresh)?;
        let lookup = match status {
            SessionStatus::Revoked => SessionLookup::Revoked(Arc::clone(session)),
            SessionStatus::Active => SessionLookup::Active(Arc::clone(session), last_access),
            SessionStatus::Expired if now >= session.expires_at => {
                SessionLookup::Expired(Arc::clone(session))
            }
            // Idle here, but the session may have been used on another gateway.
            SessionStatus::Expired => return None,
        };
        Some((lookup, entry.read_at))
    }

    pub(super) fn fresh_token(&self, key: &str, fresh: Fresh) -> Option<(bool, Instant)> {
        let is_fresh = |entry: &CachedValue<()>| entry.is_fresh(fresh);
        if let Some(entry) = self.accepted.get(key).filter(is_fresh) {
            return Some((false, entry.at));
        }
        let entry = self.revoked.get(key).filter(is_fresh)?;
        Some((true, entry.at))
    }

    pub(super) fn fresh_cut_off(
        &self,
        user: &UserHash,
        fresh: Fresh,
    ) -> Option<(Option<u64>, Instant)> {
        let entry = self.cut_offs.get(user)?;
        entry.is_fresh(fresh).then_some((entry.value, entry.at))
    }
}

impl CachedSession {
    /// An entry without a record, which replaces no look-up.
    pub(super) fn stale(read_at: Instant) -> CachedSession {
        CachedSession {
            session: None,
            ended: None,
            last_access: AtomicU64::new(0),
            uses: UnwrittenUses::default(),
            read_at,
            epoch: AtomicU64::new(0),
            changed_at: AtomicU64::new(0),
        }
    }

    /// The session's status at `now`, with its record and its latest use; `None` unless the entry is
    /// fresh.
    pub(super) fn fresh_status(
        &self,
        idle: Option<Duration>,
        now: Millis,
        fresh: Fresh,
    ) -> Option<(SessionStatus, &Arc<Session>, Millis)> {
        let age = fresh.now.saturating_duration_since(self.read_at);
        let is_fresh = self.epoch.load(Ordering::SeqCst) == fresh.epoch && age < MAX_AGE;
        let session = self.session.as_ref().filter(|_| is_fresh)?;
        let last_access = self.last_access.load(Ordering::Relaxed);
        Some((session.status(last_access, idle, now), session, last_access))
    }
}

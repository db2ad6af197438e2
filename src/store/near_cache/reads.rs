//! What is answered in the store's place, while every change of it is sure to be heard.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::{Query, QueryResult, SessionLookup, UserHash};
use super::validity::Fresh;
use super::{CachedValue, MAX_AGE, NearCache, REFRESH_AFTER};
use crate::auth::session::{Millis, SessionId, SessionStatus};
use crate::limits::Charge;

/// What of an inquiry needs no question.
#[derive(Debug, Default)]
pub(in super::super) struct CachedResult {
    pub session: Option<SessionLookup>,
    pub blacklisted: Option<bool>,
    pub cut_off: Option<Option<u64>>,
    /// It is time to ask again, before it is sure no more.
    pub needs_refresh: bool,
}

/// The limits with identity that are left to decide.
pub(in super::super) type ChargesAfterAuth<'a> = Cow<'a, [Charge]>;

impl CachedResult {
    /// Those of the limits with identity that bind the request: none where something that is sure
    /// ends it.
    pub(in super::super) fn charges_after_auth<'i>(
        &self,
        inquiry: &Query<'i>,
    ) -> ChargesAfterAuth<'i> {
        let over = self.blacklisted == Some(true)
            || inquiry.is_cut_off(self.cut_off.flatten())
            || self.session.as_ref().is_some_and(|found| {
                let SessionLookup::Active(session, _) = found else {
                    return true;
                };
                !inquiry.is_met_by(session)
            });
        match &self.session {
            _ if over => Cow::Borrowed(&[]),
            Some(SessionLookup::Active(session, _)) => {
                let binds = |charge: &&Charge| charge.limit.applies_to(&session.roles);
                if inquiry
                    .charges_after_auth
                    .iter()
                    .all(|charge| binds(&charge))
                {
                    Cow::Borrowed(inquiry.charges_after_auth)
                } else {
                    Cow::Owned(
                        inquiry
                            .charges_after_auth
                            .iter()
                            .filter(binds)
                            .cloned()
                            .collect(),
                    )
                }
            }
            _ => Cow::Borrowed(inquiry.charges_after_auth),
        }
    }

    /// What is left to ask.
    pub(in super::super) fn remaining_query<'i>(
        &self,
        inquiry: &Query<'i>,
        after: &'i [Charge],
    ) -> Query<'i> {
        Query {
            charges_before_auth: inquiry.charges_before_auth,
            session: inquiry.session.filter(|_| self.session.is_none()),
            cached: inquiry.cached.clone().filter(|_| self.session.is_none()),
            last_access: inquiry.last_access,
            blacklist_key: inquiry.blacklist_key.filter(|_| self.blacklisted.is_none()),
            cut_off_user: inquiry.cut_off_user.filter(|_| self.cut_off.is_none()),
            issued_at: inquiry.issued_at,
            require: inquiry.require,
            charges_after_auth: after,
        }
    }

    /// Adds what was sure to what was found.
    pub(in super::super) fn merge_into(self, findings: &mut QueryResult) {
        if let Some(session) = self.session {
            findings.session = session;
        }
        findings.blacklisted |= self.blacklisted == Some(true);
        if let Some(cut_off) = self.cut_off {
            findings.cut_off = cut_off;
        }
    }
}

impl NearCache {
    /// What is sure of an inquiry at this time of the store's.
    pub(in super::super) fn look_up(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
        now: Millis,
    ) -> CachedResult {
        let Some(hearing) = self.validity.fresh() else {
            return CachedResult::default();
        };
        let mut ages = false;
        let mut aged = |at: Instant| {
            ages |= hearing.now.saturating_duration_since(at) >= REFRESH_AFTER;
        };
        let session = inquiry.session.and_then(|id| {
            let (found, at) = self.fresh_session(id, idle, now, hearing)?;
            aged(at);
            Some(found)
        });
        let blacklisted = inquiry.blacklist_key.and_then(|key| {
            let (listed, at) = self.fresh_token(key, hearing)?;
            aged(at);
            Some(listed)
        });
        let cut_off = inquiry.cut_off_user.and_then(|person| {
            let (cut_off, at) = self.fresh_cut_off(&person, hearing)?;
            aged(at);
            Some(cut_off)
        });
        CachedResult {
            session,
            blacklisted,
            cut_off,
            needs_refresh: ages,
        }
    }

    /// Whether a session is sure to be alive.
    pub(in super::super) fn is_cached_active(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
    ) -> bool {
        let hearing = self.validity.fresh();
        let found = hearing.and_then(|hearing| self.fresh_session(id, idle, now, hearing));
        matches!(found, Some((SessionLookup::Active(..), _)))
    }

    /// Whether a token is sure to be, or not to be, on the blacklist.
    pub(in super::super) fn cached_blacklisting(&self, key: &str) -> Option<bool> {
        let (listed, _) = self.fresh_token(key, self.validity.fresh()?)?;
        Some(listed)
    }

    /// The second up to which a person's tokens are sure to be refused, or that they are not.
    pub(in super::super) fn cached_cut_off(&self, person: &UserHash) -> Option<Option<u64>> {
        let (cut_off, _) = self.fresh_cut_off(person, self.validity.fresh()?)?;
        Some(cut_off)
    }

    /// With when it was last asked.
    fn fresh_session(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
        hearing: Fresh,
    ) -> Option<(SessionLookup, Instant)> {
        let Some(seen) = self.sessions.get(&id) else {
            let noted = self.missing.get(&id)?;
            return noted
                .is_fresh(hearing)
                .then_some((SessionLookup::Missing, noted.at));
        };
        let age = hearing.now.saturating_duration_since(seen.read_at);
        let sure = seen.epoch.load(Ordering::SeqCst) == hearing.epoch && age < MAX_AGE;
        let session = seen.session.as_ref().filter(|_| sure)?;
        let last_access = seen.last_access.load(Ordering::Relaxed);
        let found = match session.status(last_access, idle, now) {
            SessionStatus::Revoked => SessionLookup::Revoked((**session).clone()),
            SessionStatus::Active => SessionLookup::Active(Arc::clone(session), last_access),
            SessionStatus::Expired if now >= session.expires_at => {
                SessionLookup::Expired((**session).clone())
            }
            // It may have been used elsewhere.
            SessionStatus::Expired => return None,
        };
        Some((found, seen.read_at))
    }

    fn fresh_token(&self, key: &str, hearing: Fresh) -> Option<(bool, Instant)> {
        let sure = |noted: &CachedValue<()>| noted.is_fresh(hearing);
        if let Some(noted) = self.accepted.get(key).filter(sure) {
            return Some((false, noted.at));
        }
        let noted = self.revoked.get(key).filter(sure)?;
        Some((true, noted.at))
    }

    fn fresh_cut_off(&self, person: &UserHash, hearing: Fresh) -> Option<(Option<u64>, Instant)> {
        let noted = self.cut_offs.get(person)?;
        noted.is_fresh(hearing).then_some((noted.value, noted.at))
    }
}

//! What is answered in the store's place, while every change of it is sure to be heard.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::{Findings, Found, Inquiry, PersonHash};
use super::guard::Hearing;
use super::{Noted, RENEWED_AFTER, Replica, SURE_FOR};
use crate::auth::session::{Millis, SessionId, Status};
use crate::limits::Charge;

/// What of an inquiry needs no question.
#[derive(Debug, Default)]
pub(in super::super) struct Sure {
    pub session: Option<Found>,
    pub blacklisted: Option<bool>,
    pub cut_off: Option<Option<u64>>,
    /// It is time to ask again, before it is sure no more.
    pub ages: bool,
}

/// The limits with identity that are left to decide.
pub(in super::super) type After<'a> = Cow<'a, [Charge]>;

impl Sure {
    /// Those of the limits with identity that bind the request: none where something that is sure
    /// ends it.
    pub(in super::super) fn after<'i>(&self, inquiry: &Inquiry<'i>) -> After<'i> {
        let over = self.blacklisted == Some(true)
            || inquiry.is_cut_off(self.cut_off.flatten())
            || self.session.as_ref().is_some_and(|found| {
                let Found::Active(session, _) = found else {
                    return true;
                };
                !inquiry.is_met_by(session)
            });
        match &self.session {
            _ if over => Cow::Borrowed(&[]),
            Some(Found::Active(session, _)) => {
                let binds = |charge: &&Charge| charge.limit.binds(&session.roles);
                if inquiry.after.iter().all(|charge| binds(&charge)) {
                    Cow::Borrowed(inquiry.after)
                } else {
                    Cow::Owned(inquiry.after.iter().filter(binds).cloned().collect())
                }
            }
            _ => Cow::Borrowed(inquiry.after),
        }
    }

    /// What is left to ask.
    pub(in super::super) fn rest<'i>(
        &self,
        inquiry: &Inquiry<'i>,
        after: &'i [Charge],
    ) -> Inquiry<'i> {
        Inquiry {
            before: inquiry.before,
            session: inquiry.session.filter(|_| self.session.is_none()),
            known: inquiry.known.clone().filter(|_| self.session.is_none()),
            last_access: inquiry.last_access,
            blacklist_key: inquiry.blacklist_key.filter(|_| self.blacklisted.is_none()),
            cut_off_of: inquiry.cut_off_of.filter(|_| self.cut_off.is_none()),
            issued_at: inquiry.issued_at,
            require: inquiry.require,
            after,
        }
    }

    /// Adds what was sure to what was found.
    pub(in super::super) fn complete(self, findings: &mut Findings) {
        if let Some(session) = self.session {
            findings.session = session;
        }
        findings.blacklisted |= self.blacklisted == Some(true);
        if let Some(cut_off) = self.cut_off {
            findings.cut_off = cut_off;
        }
    }
}

impl Replica {
    /// What is sure of an inquiry at this time of the store's.
    pub(in super::super) fn sure(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
        now: Millis,
    ) -> Sure {
        let Some(hearing) = self.guard.sure() else {
            return Sure::default();
        };
        let mut ages = false;
        let mut aged = |at: Instant| {
            ages |= hearing.now.saturating_duration_since(at) >= RENEWED_AFTER;
        };
        let session = inquiry.session.and_then(|id| {
            let (found, at) = self.sure_session(id, idle, now, hearing)?;
            aged(at);
            Some(found)
        });
        let blacklisted = inquiry.blacklist_key.and_then(|key| {
            let (listed, at) = self.sure_token(key, hearing)?;
            aged(at);
            Some(listed)
        });
        let cut_off = inquiry.cut_off_of.and_then(|person| {
            let (cut_off, at) = self.sure_person(&person, hearing)?;
            aged(at);
            Some(cut_off)
        });
        Sure {
            session,
            blacklisted,
            cut_off,
            ages,
        }
    }

    /// Whether a session is sure to be alive.
    pub(in super::super) fn is_surely_active(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
    ) -> bool {
        let hearing = self.guard.sure();
        let found = hearing.and_then(|hearing| self.sure_session(id, idle, now, hearing));
        matches!(found, Some((Found::Active(..), _)))
    }

    /// Whether a token is sure to be, or not to be, on the blacklist.
    pub(in super::super) fn is_surely_listed(&self, key: &str) -> Option<bool> {
        let (listed, _) = self.sure_token(key, self.guard.sure()?)?;
        Some(listed)
    }

    /// The second up to which a person's tokens are sure to be refused, or that they are not.
    pub(in super::super) fn is_surely_cut_off(&self, person: &PersonHash) -> Option<Option<u64>> {
        let (cut_off, _) = self.sure_person(person, self.guard.sure()?)?;
        Some(cut_off)
    }

    /// With when it was last asked.
    fn sure_session(
        &self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
        hearing: Hearing,
    ) -> Option<(Found, Instant)> {
        let Some(seen) = self.sessions.get(&id) else {
            let noted = self.missing.get(&id)?;
            return noted.is_sure(hearing).then_some((Found::Missing, noted.at));
        };
        let age = hearing.now.saturating_duration_since(seen.at);
        let sure = seen.epoch.load(Ordering::SeqCst) == hearing.epoch && age < SURE_FOR;
        let session = seen.session.as_ref().filter(|_| sure)?;
        let last_access = seen.last_access.load(Ordering::Relaxed);
        let found = match session.status(last_access, idle, now) {
            Status::Revoked => Found::Revoked((**session).clone()),
            Status::Active => Found::Active(Arc::clone(session), last_access),
            Status::Expired if now >= session.expires_at => Found::Expired((**session).clone()),
            // It may have been used elsewhere.
            Status::Expired => return None,
        };
        Some((found, seen.at))
    }

    fn sure_token(&self, key: &str, hearing: Hearing) -> Option<(bool, Instant)> {
        let sure = |noted: &Noted<()>| noted.is_sure(hearing);
        if let Some(noted) = self.accepted.get(key).filter(sure) {
            return Some((false, noted.at));
        }
        let noted = self.revoked.get(key).filter(sure)?;
        Some((true, noted.at))
    }

    fn sure_person(&self, person: &PersonHash, hearing: Hearing) -> Option<(Option<u64>, Instant)> {
        let noted = self.cut_offs.get(person)?;
        noted.is_sure(hearing).then_some((noted.says, noted.at))
    }
}

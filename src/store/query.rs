//! What is asked of the store on a request's path, and what it answers.

use std::sync::Arc;

use super::{UserHash, cut_off_covers};
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::routing::Requirements;

/// What a request needs to know, asked in one round trip.
#[derive(Debug)]
pub struct Query<'a> {
    /// Limits that need no identity. When one refuses, nothing else is looked at and nothing spent.
    pub charges_before_auth: &'a [Charge],
    /// The session to look up.
    pub session: Option<SessionId>,
    /// The record as this gateway last saw it: one that has not changed is not sent again.
    pub cached: Option<Arc<Session>>,
    /// The latest use of that session that this gateway knows of and may not have written yet.
    pub last_access: Millis,
    /// The blacklist entry to look for.
    pub blacklist_key: Option<&'a str>,
    /// The person whose cut-off to look for (see [`Store::cut_off`](super::Store::cut_off)), of a token without session.
    pub cut_off_user: Option<UserHash>,
    /// When that token was issued, in seconds.
    pub issued_at: Option<u64>,
    /// What the session must hold; it is not asked of a request without session.
    pub require: &'a Requirements,
    /// Limits with identity. They are spent only if all before them passed; those that the
    /// session's roles exempt it from are left out.
    pub charges_after_auth: &'a [Charge],
}

impl<'a> Query<'a> {
    /// One that asks nothing yet, of whoever must hold this.
    pub fn empty(require: &'a Requirements) -> Query<'a> {
        Query {
            charges_before_auth: &[],
            session: None,
            cached: None,
            last_access: 0,
            blacklist_key: None,
            cut_off_user: None,
            issued_at: None,
            require,
            charges_after_auth: &[],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_limits() && !self.has_identity()
    }

    pub(super) fn has_limits(&self) -> bool {
        !(self.charges_before_auth.is_empty() && self.charges_after_auth.is_empty())
    }

    /// Whether it asks for anything but limits.
    pub(super) fn has_identity(&self) -> bool {
        self.session.is_some() || self.blacklist_key.is_some() || self.cut_off_user.is_some()
    }

    /// Whether a session has what it must hold.
    pub(super) fn is_met_by(&self, session: &Session) -> bool {
        self.require.is_met_by(&session.roles, &session.scopes)
    }

    /// Whether a cut-off refuses the token: one issued up to then, or nobody knows when.
    pub fn is_cut_off(&self, cut_off: Option<u64>) -> bool {
        cut_off.is_some_and(|second| cut_off_covers(second, self.issued_at))
    }
}

/// What the store found, and what it did about the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// The store's clock; this machine's, when nothing was asked.
    pub now: Millis,
    pub session: SessionLookup,
    pub blacklisted: bool,
    /// The second up to which tokens without session of that person are refused.
    pub cut_off: Option<u64>,
    /// One for each limit evaluated, in the order asked.
    pub decisions: Vec<Decision>,
}

impl QueryResult {
    pub(super) fn empty(now: Millis) -> QueryResult {
        QueryResult {
            now,
            session: SessionLookup::NotQueried,
            blacklisted: false,
            cut_off: None,
            decisions: Vec::new(),
        }
    }
}

/// What became of the session that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionLookup {
    NotQueried,
    Missing,
    Expired(Session),
    Revoked(Session),
    /// With its latest known use.
    Active(Arc<Session>, Millis),
}

//! Query and result of the store on the request path.

use std::sync::Arc;

use super::{UserHash, cut_off_covers};
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::routing::Requirements;

/// Everything that a request needs from the store, sent in one round trip.
#[derive(Debug)]
pub struct Query<'a> {
    /// Charges without identity. If one is refused, nothing else is evaluated and nothing is spent.
    pub charges_before_auth: &'a [Charge],
    /// The session to look up.
    pub session: Option<SessionId>,
    /// The record as it is cached here: the store does not send an unchanged record again.
    pub cached: Option<Arc<Session>>,
    /// Latest use of the session on this gateway, which may not be written yet.
    pub last_access: Millis,
    /// The blacklist entry to look up.
    pub blacklist_key: Option<&'a str>,
    /// The user whose [cut-off](super::Store::cut_off) to look up, for a token without a session.
    pub cut_off_user: Option<UserHash>,
    /// When that token was issued, in seconds.
    pub issued_at: Option<u64>,
    /// Requirements on the session; not checked for a request without a session.
    pub require: &'a Requirements,
    /// Charges with identity, spent only if all previous checks pass. Charges from which the
    /// session's roles are exempt are skipped.
    pub charges_after_auth: &'a [Charge],
}

impl<'a> Query<'a> {
    /// An empty query with these requirements on the session.
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

    /// Whether the query contains anything but limits.
    pub(super) fn has_identity(&self) -> bool {
        self.session.is_some() || self.blacklist_key.is_some() || self.cut_off_user.is_some()
    }

    /// Whether a session meets the requirements.
    pub(super) fn is_met_by(&self, session: &Session) -> bool {
        self.require.is_met_by(&session.roles, &session.scopes)
    }

    /// Whether a cut-off covers the token.
    pub fn is_cut_off(&self, cut_off: Option<u64>) -> bool {
        cut_off.is_some_and(|second| cut_off_covers(second, self.issued_at))
    }
}

/// Result of a [`Query`]: look-ups and limit decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// The store's time; estimated if the store was not queried.
    pub now: Millis,
    pub session: SessionLookup,
    pub blacklisted: bool,
    /// The second up to which the user's tokens without a session are rejected.
    pub cut_off: Option<u64>,
    /// One decision for each evaluated charge, in the order of the query.
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

/// Result of a session look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionLookup {
    NotQueried,
    Missing,
    Expired(Arc<Session>),
    Revoked(Arc<Session>),
    /// The record and the session's latest use.
    Active(Arc<Session>, Millis),
}

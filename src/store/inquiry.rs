//! What is asked of the store on a request's path, and what it answers.

use std::sync::Arc;

use super::{PersonHash, covers};
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::routing::Require;

/// What a request needs to know, asked in one round trip.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// Limits that need no identity. When one refuses, nothing else is looked at and nothing spent.
    pub before: &'a [Charge],
    /// The session to look up.
    pub session: Option<SessionId>,
    /// The record as this gateway last saw it: one that has not changed is not sent again.
    pub known: Option<Arc<Session>>,
    /// The latest use of that session that this gateway knows of and may not have written yet.
    pub last_access: Millis,
    /// The blacklist entry to look for.
    pub blacklist_key: Option<&'a str>,
    /// The person whose cut-off to look for (see [`Store::cut_off`](super::Store::cut_off)), of a token without session.
    pub cut_off_of: Option<PersonHash>,
    /// When that token was issued, in seconds.
    pub issued_at: Option<u64>,
    /// What the session must hold; it is not asked of a request without session.
    pub require: &'a Require,
    /// Limits with identity. They are spent only if all before them passed; those that the
    /// session's roles exempt it from are left out.
    pub after: &'a [Charge],
}

impl<'a> Inquiry<'a> {
    /// One that asks nothing yet, of whoever must hold this.
    pub fn nothing(require: &'a Require) -> Inquiry<'a> {
        Inquiry {
            before: &[],
            session: None,
            known: None,
            last_access: 0,
            blacklist_key: None,
            cut_off_of: None,
            issued_at: None,
            require,
            after: &[],
        }
    }

    pub(super) fn asks_nothing(&self) -> bool {
        !self.asks_of_limits() && !self.asks_of_identity()
    }

    pub(super) fn asks_of_limits(&self) -> bool {
        !(self.before.is_empty() && self.after.is_empty())
    }

    /// Whether it asks for anything but limits.
    pub(super) fn asks_of_identity(&self) -> bool {
        self.session.is_some() || self.blacklist_key.is_some() || self.cut_off_of.is_some()
    }

    /// Whether a session has what it must hold.
    pub(super) fn is_met_by(&self, session: &Session) -> bool {
        self.require.met_by(&session.roles, &session.scopes)
    }

    /// Whether a cut-off refuses the token: one issued up to then, or nobody knows when.
    pub fn is_cut_off(&self, cut_off: Option<u64>) -> bool {
        cut_off.is_some_and(|second| covers(second, self.issued_at))
    }
}

/// What the store found, and what it did about the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The store's clock; this machine's, when nothing was asked.
    pub now: Millis,
    pub session: Found,
    pub blacklisted: bool,
    /// The second up to which tokens without session of that person are refused.
    pub cut_off: Option<u64>,
    /// One for each limit evaluated, in the order asked.
    pub decisions: Vec<Decision>,
}

impl Findings {
    pub(super) fn without_asking(now: Millis) -> Findings {
        Findings {
            now,
            session: Found::NotAsked,
            blacklisted: false,
            cut_off: None,
            decisions: Vec::new(),
        }
    }
}

/// What became of the session that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    NotAsked,
    Missing,
    Expired(Session),
    Revoked(Session),
    /// With its latest known use.
    Active(Arc<Session>, Millis),
}

//! The memory that a fleet shares: sessions, revocations, limit counters. One face, two engines.

use std::net::IpAddr;

use crate::limits::{Charge, Decision};
use crate::routing::Require;
use crate::session::{Activity, Millis, Session, SessionId};

/// What a request needs to know, asked in one round trip.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// Limits that need no identity. When one refuses, nothing else is looked at and nothing spent.
    pub before: &'a [Charge],
    /// The session to look up.
    pub session: Option<SessionId>,
    /// The latest use of that session that this gateway knows of and may not have written yet.
    pub last_access: Millis,
    /// The blacklist entry to look for.
    pub blacklist_key: Option<&'a str>,
    /// What the session must hold; it is not asked of a request without session.
    pub require: &'a Require,
    /// Limits with identity. They are spent only if all before them passed; those that the
    /// session's roles exempt it from are left out.
    pub after: &'a [Charge],
}

/// What the store found, and what it did about the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The store's clock.
    pub now: Millis,
    pub session: Found,
    pub blacklisted: bool,
    /// One for each limit evaluated, in the order asked.
    pub decisions: Vec<Decision>,
}

/// What became of the session that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    NotAsked,
    Missing,
    Expired(Session),
    Revoked(Session),
    Active(Session, Millis),
}

/// What one gateway saw of one session since it last wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub session: SessionId,
    pub last_access: Millis,
    pub requests: u64,
    pub address: IpAddr,
}

/// A session with how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub session: Session,
    pub activity: Activity,
}

/// Why the store gave no answer. Never "no": the answer is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    #[error("the store did not answer in time")]
    Timeout,
    #[error("the store cannot be reached")]
    Unreachable,
    #[error("the store refused the operation")]
    Refused,
    #[error("the store answered something that is not understood")]
    Malformed,
}

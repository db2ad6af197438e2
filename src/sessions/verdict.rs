//! The result of verifying a credential.

use std::sync::Arc;

use super::Credential;
use crate::auth::principal::Principal;
use crate::auth::session::Millis;
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal};
use crate::store::{QueryResult, SessionLookup, StoreError};

/// What became of a credential, and of the limits that were charged with it.
#[derive(Debug)]
pub struct LookupResult {
    /// One for each limit evaluated, in the order of the charges.
    pub decisions: Vec<Decision>,
    pub verdict: Verdict,
    /// The store's clock.
    pub confirmed_at: Millis,
    /// The session is alive by its row alone: the store did not charge its user.
    pub is_restored: bool,
    /// The session that was found, whatever its status.
    pub session: SessionLookup,
}

/// Whether a credential is valid. An outage leads to neither *valid* nor *gone*.
#[derive(Debug)]
pub enum Verdict {
    Valid(Principal),
    Gone(Gone),
    /// Neither the store nor the database responded.
    Unknown(StoreError),
    /// Unknown, because the store may lack a revocation of the token; degraded mode applies.
    Unconfirmed(StoreError),
    /// A limit refused: nothing else was decided.
    OverLimit,
}

/// How a credential has ended.
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    pub refusal: Refusal,
    pub reason: Reason,
    /// Store or database confirm that the session is over, so that a cookie is of no more use.
    pub is_session_over: bool,
}

impl LookupResult {
    pub(super) fn new(found: QueryResult, verdict: Verdict) -> LookupResult {
        LookupResult {
            decisions: found.decisions,
            verdict,
            confirmed_at: found.now,
            is_restored: false,
            session: found.session,
        }
    }
}

impl Gone {
    pub(super) fn token(reason: Reason) -> Gone {
        Gone {
            refusal: Refusal::TokenRevoked,
            reason,
            is_session_over: false,
        }
    }

    pub(super) fn session(refusal: Refusal, reason: Reason) -> Gone {
        Gone {
            refusal,
            reason,
            is_session_over: true,
        }
    }
}

impl Verdict {
    /// Judges a credential by what the store has, and for durable sessions the database.
    pub(super) fn new(credential: &Credential, found: &QueryResult) -> Verdict {
        Verdict::Gone(match (&found.session, credential) {
            (SessionLookup::NotQueried, Credential::Token(claims, _)) => {
                return Verdict::Valid(Principal::Token(Arc::clone(claims)));
            }
            (SessionLookup::Active(session, _), _) => {
                return Verdict::Valid(Principal::Session(Arc::clone(session)));
            }
            (SessionLookup::NotQueried, _) => return Verdict::Unknown(StoreError::Malformed),
            (SessionLookup::Missing, _) => {
                Gone::session(Refusal::SessionNotFound, Reason::NoSession)
            }
            (SessionLookup::Expired(_), _) => {
                Gone::session(Refusal::SessionExpired, Reason::SessionExpired)
            }
            (SessionLookup::Revoked(_), _) => {
                Gone::session(Refusal::SessionRevoked, Reason::SessionRevoked)
            }
        })
    }
}

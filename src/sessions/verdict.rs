//! The result of verifying a credential.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Credential, CredentialCheck};
use crate::auth::api_key::{ApiKeyFault, PresentedApiKey};
use crate::auth::principal::{Principal, UsedApiKey};
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
    fn token_invalid(reason: Reason) -> Gone {
        Gone {
            refusal: Refusal::TokenInvalid,
            ..Gone::token(reason)
        }
    }

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
    pub(super) fn new(check: CredentialCheck<'_>, found: &QueryResult) -> Verdict {
        let credential = check.credential;
        if let Credential::ApiKey(presented) = credential {
            return Verdict::of_api_key(*presented, &found.session, check.ip, found.now);
        }
        Verdict::Gone(match (&found.session, credential) {
            (SessionLookup::NotQueried, Credential::Token(claims, _)) => {
                return Verdict::Valid(Principal::Token(Arc::clone(claims)));
            }
            // No session has the ID of a key; its record proves nothing without the secret.
            (SessionLookup::Active(record, _), _) if record.api_key.is_some() => {
                return Verdict::Unknown(StoreError::Malformed);
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

    pub(super) fn is_invalid_token(&self) -> bool {
        matches!(self, Verdict::Gone(gone) if gone.refusal == Refusal::TokenInvalid)
    }

    /// Judges a key by its record. Only the holder of the secret learns anything about the key.
    pub(super) fn of_api_key(
        presented: PresentedApiKey,
        found: &SessionLookup,
        ip: IpAddr,
        now: Millis,
    ) -> Verdict {
        let (SessionLookup::Active(record, _)
        | SessionLookup::Expired(record)
        | SessionLookup::Revoked(record)) = found
        else {
            return match found {
                SessionLookup::Missing => Verdict::Gone(Gone::token_invalid(Reason::UnknownApiKey)),
                _ => Verdict::Unknown(StoreError::Malformed),
            };
        };
        let Some(grant) = &record.api_key else {
            return Verdict::Unknown(StoreError::Malformed);
        };
        match grant.judge(&presented.hash, ip, now) {
            Ok(_) => Verdict::Valid(Principal::ApiKey(Arc::new(UsedApiKey {
                record: Arc::clone(record),
                presented,
            }))),
            Err(fault) => Verdict::Gone(fault.into()),
        }
    }
}

impl From<ApiKeyFault> for Gone {
    fn from(fault: ApiKeyFault) -> Gone {
        let (refusal, reason) = match fault {
            ApiKeyFault::WrongSecret => (Refusal::TokenInvalid, Reason::WrongApiKey),
            ApiKeyFault::Revoked => (Refusal::TokenRevoked, Reason::ApiKeyRevoked),
            ApiKeyFault::OwnerGone => (Refusal::TokenRevoked, Reason::ApiKeyOwnerGone),
            ApiKeyFault::Replaced => (Refusal::TokenRevoked, Reason::ApiKeyReplaced),
            ApiKeyFault::Expired => (Refusal::TokenExpired, Reason::ApiKeyExpired),
            ApiKeyFault::Address => (Refusal::Forbidden, Reason::ApiKeyAddress),
        };
        Gone {
            refusal,
            reason,
            is_session_over: false,
        }
    }
}

//! Credentials, as far as they can be verified without the store.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::api_key::PresentedApiKey;
use crate::auth::session::{Millis, SessionId};
use crate::auth::token::Claims;
use crate::store::{UserHash, user_hash};

/// A credential of valid form; a token is authentic and has not expired.
#[derive(Debug, Clone)]
pub enum Credential {
    Session(SessionId),
    /// A token of a session, which ends with the session.
    SessionToken(SessionId, Arc<Claims>),
    /// A key of valid form, whose secret is compared with that of its record.
    ApiKey(PresentedApiKey),
    /// A token without a session. Issued-before revocations name its user by the hash.
    Token(Arc<Claims>, UserHash),
}

impl Credential {
    pub fn from_claims(claims: Arc<Claims>) -> Credential {
        match claims.session {
            Some(id) => Credential::SessionToken(id, claims),
            None => {
                let user = user_hash(&claims.user_key());
                Credential::Token(claims, user)
            }
        }
    }

    /// The session that it names.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Credential::Session(id) | Credential::SessionToken(id, _) => Some(*id),
            Credential::ApiKey(_) | Credential::Token(..) => None,
        }
    }

    /// The record by which it is verified: that of its session, or of the key.
    pub(super) fn record(&self) -> Option<SessionId> {
        match self {
            Credential::ApiKey(presented) => Some(SessionId::of_api_key(presented.id)),
            _ => self.session(),
        }
    }

    pub fn api_key(&self) -> Option<&PresentedApiKey> {
        match self {
            Credential::ApiKey(presented) => Some(presented),
            Credential::Session(_) | Credential::SessionToken(..) | Credential::Token(..) => None,
        }
    }

    pub fn token(&self) -> Option<&Arc<Claims>> {
        match self {
            Credential::Session(_) | Credential::ApiKey(_) => None,
            Credential::SessionToken(_, claims) | Credential::Token(claims, _) => Some(claims),
        }
    }

    pub(super) fn user_hash(&self) -> Option<UserHash> {
        match self {
            Credential::Session(_) | Credential::SessionToken(..) | Credential::ApiKey(_) => None,
            Credential::Token(_, user) => Some(*user),
        }
    }
}

/// A credential that a client presents, and by what it is verified.
#[derive(Debug, Clone, Copy)]
pub struct CredentialCheck<'a> {
    pub credential: &'a Credential,
    pub ip: IpAddr,
    pub idle: Option<Duration>,
    /// This gateway's clock, in degraded mode.
    pub now: Millis,
}

//! Who a request was found to be from.

use std::sync::Arc;

use crate::auth::session::Session;
use crate::auth::token::Claims;

/// The user or service on whose behalf a request is made.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The user of a session.
    Session(Arc<Session>),
    /// Issuer and subject of a token without a session.
    Token(Arc<Claims>),
}

impl Principal {
    /// The user's id; for a foreign token with its issuer's prefix.
    pub fn user(&self) -> &str {
        match self {
            Principal::Session(session) => &session.user,
            Principal::Token(claims) => &claims.user,
        }
    }

    pub fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Principal::Session(session) => Some(session),
            Principal::Token(_) => None,
        }
    }
}

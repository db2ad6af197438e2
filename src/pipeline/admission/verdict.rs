//! The outcome of admission: an identity, and a permit.

use std::borrow::Cow;
use std::sync::Arc;

use crate::auth::principal::Principal;
use crate::auth::session::{Millis, Session};
use crate::auth::token::Claims;
use crate::limits::Decision;
use crate::routing::Route;

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Identity {
    pub principal: Principal,
    /// The token that was presented, if any.
    pub token: Option<Arc<Claims>>,
    pub credential_kind: CredentialKind,
    /// The store's clock when it confirmed the session; this gateway's without a session.
    pub confirmed_at: Millis,
}

impl Identity {
    /// The user's id; for a foreign token with its issuer's prefix.
    pub fn user(&self) -> &str {
        match &self.principal {
            Principal::Session(session) => &session.user,
            Principal::Token(claims) => &claims.user,
        }
    }

    /// The user's key in the store and the database; see [`Claims::user_key`].
    pub fn user_key(&self) -> Cow<'_, str> {
        match &self.principal {
            Principal::Session(session) => session.user.as_str().into(),
            Principal::Token(claims) => claims.user_key(),
        }
    }

    pub fn email(&self) -> Option<&str> {
        let email = match &self.principal {
            Principal::Session(session) => Some(session.email.as_str()),
            Principal::Token(claims) => claims.email.as_deref(),
        };
        email.filter(|email| !email.is_empty())
    }

    /// The name to sign in with, beside the email; users of other issuers have none here.
    pub fn username(&self) -> Option<&str> {
        self.session()?.username.as_deref()
    }

    /// The display name.
    pub fn name(&self) -> Option<&str> {
        let name = self.session()?.name.as_deref();
        name.filter(|name| !name.is_empty())
    }

    pub fn roles(&self) -> &[String] {
        match &self.principal {
            Principal::Session(session) => &session.roles,
            Principal::Token(claims) => &claims.roles,
        }
    }

    pub fn scopes(&self) -> &[String] {
        match &self.principal {
            Principal::Session(session) => &session.scopes,
            Principal::Token(claims) => &claims.scopes,
        }
    }

    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.principal {
            Principal::Session(session) => Some(session),
            Principal::Token(_) => None,
        }
    }
}

/// How the credential was sent. Only a cookie is sent by a browser of its own accord, so only a
/// cookie needs the same-origin check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    Cookie,
    SessionHeader,
    Bearer,
}

/// Proof that a request was admitted. Choosing a server and writing identity headers require it.
#[derive(Debug)]
pub struct Permit {
    pub route: Arc<Route>,
    pub identity: Option<Identity>,
    pub decisions: Vec<Decision>,
    /// The session of the presented cookie has ended.
    pub clear_cookie: bool,
}

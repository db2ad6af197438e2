//! The outcome of admission: an identity, and a permit.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue};

use crate::auth::credential::CredentialType;
use crate::auth::principal::Principal;
use crate::auth::session::{Millis, Session};
use crate::auth::token::Claims;
use crate::limits::Decision;
use crate::pipeline::header_fields::FieldBuffer;
use crate::routing::{IdentityHeaders, Route};
use crate::sessions::RecordedSession;

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Identity {
    subject: Arc<Subject>,
    /// The store's clock when it confirmed the session; this gateway's without a session.
    pub confirmed_at: Millis,
}

/// The principal that a credential stands for. The requests that a [`Memo`](super::memo::Memo)
/// identifies share it.
#[derive(Debug)]
pub struct Subject {
    pub principal: Principal,
    /// The token that was presented, if any.
    pub token: Option<Arc<Claims>>,
    pub credential_kind: CredentialKind,
    /// Where the uses of the session or the API key are recorded, if a memo has the subject.
    pub uses: OnceLock<RecordedSession>,
    /// The identity headers for an upstream, once a request has been forwarded.
    pub(in crate::pipeline) headers: OnceLock<RenderedIdentity>,
    /// The same for a front proxy, which receives every identity header.
    pub(in crate::pipeline) complete_headers: OnceLock<Box<RenderedIdentity>>,
}

/// Identity headers under the names of a route.
#[derive(Debug)]
pub(in crate::pipeline) struct RenderedIdentity {
    pub(in crate::pipeline) names: Arc<IdentityHeaders>,
    /// The fields, as lines of an HTTP/1.1 head.
    pub(in crate::pipeline) lines: Box<[u8]>,
    pub(in crate::pipeline) fields: FieldBuffer,
}

impl Deref for Identity {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.subject
    }
}

impl Identity {
    pub fn new(
        principal: Principal,
        token: Option<Arc<Claims>>,
        credential_kind: CredentialKind,
        confirmed_at: Millis,
    ) -> Identity {
        let subject = Subject {
            principal,
            token,
            credential_kind,
            uses: OnceLock::new(),
            headers: OnceLock::new(),
            complete_headers: OnceLock::new(),
        };
        Identity {
            subject: Arc::new(subject),
            confirmed_at,
        }
    }

    /// The identity of a token without a session.
    pub(super) fn from_token(claims: &Arc<Claims>) -> Identity {
        Identity::new(
            Principal::Token(Arc::clone(claims)),
            Some(Arc::clone(claims)),
            CredentialKind::Bearer,
            claims.issued_at.unwrap_or_default(),
        )
    }

    /// The same caller, whose session was confirmed at this time.
    pub(super) fn confirmed_again(&self, confirmed_at: Millis) -> Identity {
        Identity {
            subject: Arc::clone(&self.subject),
            confirmed_at,
        }
    }

    /// The user's id; for a foreign token with its issuer's prefix.
    pub fn user(&self) -> &str {
        self.principal.user()
    }

    /// The user's key in the store and the database; see [`Claims::user_key`].
    pub fn user_key(&self) -> Cow<'_, str> {
        match &self.principal {
            Principal::Session(session) => session.user.as_str().into(),
            Principal::ApiKey(used) => used.record.user.as_str().into(),
            Principal::Token(claims) => claims.user_key(),
        }
    }

    pub fn email(&self) -> Option<&str> {
        let email = match &self.principal {
            Principal::Session(session) => Some(session.email.as_str()),
            Principal::ApiKey(used) => Some(used.record.email.as_str()),
            Principal::Token(claims) => claims.email.as_deref(),
        };
        email.filter(|email| !email.is_empty())
    }

    /// The name to sign in with, beside the email; users of other issuers have none here.
    pub fn username(&self) -> Option<&str> {
        self.record()?.username.as_deref()
    }

    /// The display name.
    pub fn name(&self) -> Option<&str> {
        let name = self.record()?.name.as_deref();
        name.filter(|name| !name.is_empty())
    }

    pub fn roles(&self) -> &[String] {
        match &self.principal {
            Principal::Session(session) => &session.roles,
            Principal::ApiKey(used) => &used.record.roles,
            Principal::Token(claims) => &claims.roles,
        }
    }

    pub fn scopes(&self) -> &[String] {
        match &self.principal {
            Principal::Session(session) => &session.scopes,
            Principal::ApiKey(used) => &used.record.scopes,
            Principal::Token(claims) => &claims.scopes,
        }
    }

    pub fn session(&self) -> Option<&Arc<Session>> {
        self.principal.session()
    }

    /// The record of the session or of the API key.
    fn record(&self) -> Option<&Session> {
        match &self.principal {
            Principal::Session(session) => Some(session),
            Principal::ApiKey(used) => Some(&used.record),
            Principal::Token(_) => None,
        }
    }
}

/// How the credential was sent. Only a cookie is sent by a browser of its own accord, so only a
/// cookie needs the same-origin check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    Cookie,
    SessionHeader,
    Bearer,
    /// As a bearer token, or in the header of API keys.
    ApiKey,
}

impl CredentialKind {
    pub fn credential_type(self) -> CredentialType {
        match self {
            CredentialKind::Cookie | CredentialKind::SessionHeader => CredentialType::Session,
            CredentialKind::Bearer => CredentialType::Token,
            CredentialKind::ApiKey => CredentialType::ApiKey,
        }
    }
}

/// Proof that a request was admitted. Choosing a server and writing identity headers require it.
#[derive(Debug)]
pub struct Permit {
    pub route: Arc<Route>,
    pub identity: Option<Identity>,
    pub decisions: Vec<Decision>,
    /// The session of the presented cookie has ended.
    pub clear_cookie: bool,
    /// The field with the token of the session's provider, where the route asks for it.
    pub provider_token: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Permit {
    /// The caller's session.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.identity.as_ref()?.session()
    }

    /// The permit of a request without a caller.
    pub(in crate::pipeline) fn anonymous(route: &Arc<Route>) -> Permit {
        Permit {
            route: Arc::clone(route),
            identity: None,
            decisions: Vec::new(),
            clear_cookie: false,
            provider_token: None,
        }
    }

    /// The permit of an identified caller.
    pub(super) fn of(route: &Arc<Route>, identity: Identity, decisions: Vec<Decision>) -> Permit {
        Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
            provider_token: None,
        }
    }
}

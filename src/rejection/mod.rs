//! A rejection of a request: a refusal from a closed set, and the details for the client's response
//! and for the log.

mod callback_fault;
mod reason;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

pub use callback_fault::CallbackFault;
pub use reason::Reason;
pub use refusal::Refusal;

use crate::auth::api_key::ApiKeyId;
use crate::auth::credential::CredentialType;
use crate::auth::principal::Principal;
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::limits::Decision;

/// A refusal with the details of its response and of the log.
#[derive(Debug, Clone)]
pub struct Rejection {
    pub refusal: Refusal,
    /// For the log; `None`: the refusal is explicit enough.
    pub reason: Option<Reason>,
    /// The presented session cookie has become useless.
    pub clear_cookie: bool,
    /// The type of the credential that decided, for the log.
    pub credential: Option<CredentialType>,
    /// The retry delay, where no limit decision has one.
    pub retry_after: Option<Duration>,
    /// The limits that were evaluated.
    pub decisions: Vec<Decision>,
    /// The caller, where it is identified.
    pub caller: Option<Principal>,
    /// Further details for the client.
    pub disclosed: Option<Box<DisclosedDetails>>,
    /// Further details for the log.
    pub details: Option<Box<RejectionDetails>>,
    /// Genuine claims of a token that has expired, or that was revoked with or without its session, or
    /// may be: enough to sign out.
    pub lapsed_claims: Option<Arc<Claims>>,
}

/// What a client may read beside the code of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisclosedDetails {
    /// Replaces the refusal's own message.
    pub message: Option<&'static str>,
    /// For `VALIDATION_FAILED`: each invalid field and what is wrong with it.
    pub fields: Vec<(String, String)>,
    /// For `insufficient_scope`: all scopes that are required.
    pub required_scope: Option<String>,
    /// The path that starts the sign-in at a provider again.
    pub start: Option<String>,
    /// For `insufficient_user_authentication`: the sign-in that is required.
    pub required_sign_in: Option<RequiredSignIn>,
    /// The address of the metadata of the resource (RFC 9728, section 5.1).
    pub resource_metadata: Option<String>,
}

/// The sign-in that a step-up challenge requires (RFC 9470).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredSignIn {
    /// One of these; empty for any.
    pub acr: Vec<String>,
    /// In seconds.
    pub max_age: Option<u64>,
}

/// Log details beside the code and the reason of a rejection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectionDetails {
    /// The user who sent the request, as far as it is known without an identity, or whose account it
    /// concerned.
    pub user: Option<String>,
    pub session: Option<SessionId>,
    /// The API key that was presented.
    pub api_key: Option<ApiKeyId>,
    /// The limit that could not be checked.
    pub limit: Option<Arc<str>>,
    /// The roles of which the caller has none.
    pub role: Option<String>,
    /// The scopes that the caller lacks.
    pub scope: Option<String>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Rejection {
        Rejection {
            refusal,
            reason: None,
            clear_cookie: false,
            credential: None,
            retry_after: None,
            decisions: Vec::new(),
            caller: None,
            disclosed: None,
            details: None,
            lapsed_claims: None,
        }
    }
}

impl Rejection {
    /// A refusal with a specific reason for the log.
    pub fn new(refusal: Refusal, reason: Reason) -> Rejection {
        Rejection {
            reason: Some(reason),
            ..Rejection::from(refusal)
        }
    }

    /// `VALIDATION_FAILED` for these fields.
    pub fn invalid_fields(fields: Vec<(String, String)>) -> Rejection {
        Rejection {
            disclosed: Some(Box::new(DisclosedDetails {
                fields,
                ..DisclosedDetails::default()
            })),
            ..Rejection::from(Refusal::ValidationFailed)
        }
    }

    /// `VALIDATION_FAILED` for one field.
    pub fn invalid_field(field: &str, problem: impl Into<String>) -> Rejection {
        Rejection::invalid_fields(vec![(field.to_owned(), problem.into())])
    }

    /// Adds the limits that were evaluated.
    #[must_use]
    pub fn with_decisions(self, decisions: Vec<Decision>) -> Rejection {
        Rejection { decisions, ..self }
    }

    /// The sign-in that the route requires of a signed-in user.
    pub fn required_sign_in(&self) -> Option<&RequiredSignIn> {
        self.disclosed.as_ref()?.required_sign_in.as_ref()
    }

    /// Adds the path that starts the sign-in again.
    #[must_use]
    pub fn with_start(mut self, path: String) -> Rejection {
        self.disclosed.get_or_insert_default().start = Some(path);
        self
    }

    /// The path that starts the sign-in again.
    pub fn start(&self) -> Option<&str> {
        self.disclosed.as_ref()?.start.as_deref()
    }

    /// The invalid fields and what is wrong with each.
    pub fn fields(&self) -> &[(String, String)] {
        self.disclosed
            .as_ref()
            .map_or(&[], |disclosed| &disclosed.fields)
    }

    /// The message for the client.
    pub fn message(&self) -> &'static str {
        self.own_message().unwrap_or(self.refusal.message())
    }

    /// The message that replaces the refusal's.
    pub fn own_message(&self) -> Option<&'static str> {
        self.disclosed.as_ref()?.message
    }

    /// The names of the limits that rejected the request.
    pub fn violated_limits(&self) -> impl Iterator<Item = &Arc<str>> {
        let refusing = self.decisions.iter().filter(|decision| decision.refuses());
        refusing.map(|decision| &decision.limit.name)
    }

    /// The same names as one text, which is shared where there is one.
    pub fn violated_limits_text(&self) -> Option<Arc<str>> {
        let mut names = self.violated_limits();
        let first = Arc::clone(names.next()?);
        Some(names.fold(first, |text, name| format!("{text},{name}").into()))
    }

    /// How long the client should wait before it tries again.
    pub fn retry_delay(&self) -> Option<Duration> {
        let refusing = self.decisions.iter().filter(|decision| decision.refuses());
        let longest = refusing.map(|decision| decision.retry_after).max();
        longest
            .or(self.retry_after)
            .or(self.refusal.default_retry_delay())
    }

    /// Takes the details for the log, including the user of a lapsed token.
    pub fn take_details(&mut self) -> Option<Box<RejectionDetails>> {
        if let Some(claims) = &self.lapsed_claims {
            let details = self.details.get_or_insert_default();
            details.user.get_or_insert_with(|| claims.user.clone());
            details.session = details.session.or(claims.session);
        }
        self.details.take()
    }
}

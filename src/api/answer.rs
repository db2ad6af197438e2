//! Answers: data wrapped as the contract says, and refusals for the writer of errors.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::view::Success;
use crate::accounts::{Failure, SignedIn};
use crate::auth::session::SessionId;
use crate::directory;
use crate::limits::Decision;
use crate::refusal::Refusal;
use crate::store::StoreError;

/// When a client whose question could not be answered is told to come again.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// A refusal on its way to the one writer of errors: an extension of an answer without body.
#[derive(Debug, Clone)]
pub struct Refused {
    pub refusal: Refusal,
    /// In the place of the refusal's own message.
    pub message: Option<&'static str>,
    /// For `VALIDATION_FAILED`: each field and what is wrong with it.
    pub fields: Vec<(String, String)>,
    pub retry_after: Option<Duration>,
    /// The session behind the caller's cookie is gone: clear the cookie.
    pub clear_cookie: bool,
    /// The limits that were evaluated, for the limit headers.
    pub limits: Vec<Decision>,
    /// Why, for the log; empty where the code says it.
    pub reason: &'static str,
    /// The account that the request was about, for the log.
    pub user: Option<Box<str>>,
}

impl Noted {
    /// What is to be noted of a sign-in.
    pub(super) fn of(signed_in: &SignedIn, limits: Vec<Decision>) -> Noted {
        let session = &signed_in.session.session;
        Noted {
            user: Some(session.user.clone()),
            session: Some(session.id),
            limits,
            ..Noted::default()
        }
    }
}

impl Refused {
    /// Refuses one field.
    pub(super) fn field(field: &str, problem: impl Into<String>) -> Refused {
        Refused::fields(vec![(field.to_owned(), problem.into())])
    }

    /// Adds the limits that were evaluated before.
    pub(super) fn with_limits(self, limits: Vec<Decision>) -> Refused {
        Refused { limits, ..self }
    }

    /// Refuses several fields.
    pub(super) fn fields(fields: Vec<(String, String)>) -> Refused {
        Refused {
            fields,
            ..Refused::from(Refusal::ValidationFailed)
        }
    }
}

/// What the wire has to know of an answer that is no refusal: an extension of it.
#[derive(Debug, Clone, Default)]
pub struct Noted {
    /// Whom it was for, for the access log, where the caller was nobody before it.
    pub user: Option<String>,
    pub session: Option<SessionId>,
    /// The limits that were evaluated, for the limit headers.
    pub limits: Vec<Decision>,
    /// What a page reports as a problem, for log and metrics.
    pub refusal: Option<Refusal>,
    /// Why, for the log; empty where the code says it.
    pub reason: &'static str,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let unavailable = matches!(refusal, Refusal::StoreUnavailable | Refusal::Overloaded);
        Refused {
            refusal,
            message: None,
            fields: Vec::new(),
            retry_after: unavailable.then_some(UNAVAILABLE_RETRY),
            clear_cookie: false,
            limits: Vec::new(),
            reason: "",
            user: None,
        }
    }
}

impl From<StoreError> for Refused {
    fn from(_: StoreError) -> Refused {
        // The store has logged and counted it.
        Refusal::StoreUnavailable.into()
    }
}

impl From<directory::Error> for Refused {
    fn from(error: directory::Error) -> Refused {
        Failure::Directory(error).into()
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Invalid(fields) => Refused::fields(fields),
            Failure::Unproven {
                refusal,
                user,
                reason,
            } => Refused {
                reason,
                user: user.map(String::into_boxed_str),
                ..Refused::from(refusal)
            },
            Failure::Limited => Refusal::RateLimited.into(),
            Failure::TooFast(wait) => Refused {
                retry_after: Some(wait),
                ..Refused::from(Refusal::RateLimited)
            },
            Failure::Busy(wait) => Refused {
                retry_after: Some(wait),
                ..Refused::from(Refusal::Overloaded)
            },
            Failure::Store(error) => error.into(),
            Failure::Directory(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the database did not respond"
                );
                Refusal::StoreUnavailable.into()
            }
            Failure::Token(_) | Failure::Hash => {
                tracing::error!(error = %failure, "an endpoint failed");
                Refusal::Internal.into()
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.refusal.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// 200 with `{"success": true, "data": …}`.
pub(super) fn data(data: &impl Serialize) -> Response {
    data_with(StatusCode::OK, data)
}

/// The same with another status.
pub(super) fn data_with(status: StatusCode, data: &impl Serialize) -> Response {
    json(status, &Success::of(data))
}

/// A JSON value as it is.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_string(value) else {
        // Nothing of ours has keys that are no strings, which is all that could fail.
        return Refused::from(Refusal::Internal).into_response();
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// 204.
pub(super) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What depends on who asks is not kept by anyone on the way.
pub(super) async fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

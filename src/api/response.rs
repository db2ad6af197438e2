//! Answers: data wrapped as the contract says, and refusals for the writer of errors.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::view::Success;
use crate::auth::session::SessionId;
use crate::database;
use crate::identity::{AccountError, SignedIn};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal};
use crate::sessions::SessionError;
use crate::store::StoreError;

/// When a client whose question could not be answered is told to come again.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// A refusal on its way to the one writer of errors: an extension of an answer without body.
#[derive(Debug, Clone)]
pub struct ApiRejection {
    pub refusal: Refusal,
    /// In the place of the refusal's own message.
    pub message: Option<&'static str>,
    /// For `VALIDATION_FAILED`: each field and what is wrong with it.
    pub fields: Box<[(String, String)]>,
    pub retry_after: Option<Duration>,
    /// The session behind the caller's cookie is gone: clear the cookie.
    pub clear_cookie: bool,
    /// The limits that were evaluated, for the limit headers.
    pub limits: Vec<Decision>,
    /// Why, for the log.
    pub reason: Option<Reason>,
    /// The account that the request was about, for the log.
    pub user: Option<Box<str>>,
}

impl ResponseInfo {
    /// What is to be noted of a sign-in.
    pub(super) fn for_sign_in(signed_in: &SignedIn, limits: Vec<Decision>) -> ResponseInfo {
        let session = &signed_in.session.session;
        ResponseInfo {
            user: Some(session.user.clone()),
            session: Some(session.id),
            limits,
            ..ResponseInfo::default()
        }
    }
}

impl ApiRejection {
    /// Refuses one field.
    pub(super) fn invalid_field(field: &str, problem: impl Into<String>) -> ApiRejection {
        ApiRejection::invalid_fields(vec![(field.to_owned(), problem.into())])
    }

    /// Adds the limits that were evaluated before.
    pub(super) fn with_limits(self, limits: Vec<Decision>) -> ApiRejection {
        ApiRejection { limits, ..self }
    }

    /// Refuses several fields.
    pub(super) fn invalid_fields(fields: Vec<(String, String)>) -> ApiRejection {
        ApiRejection {
            fields: fields.into_boxed_slice(),
            ..ApiRejection::from(Refusal::ValidationFailed)
        }
    }
}

/// What the wire has to know of an answer that is no refusal: an extension of it.
#[derive(Debug, Clone, Default)]
pub struct ResponseInfo {
    /// Whom it was for, for the access log, where the caller was nobody before it.
    pub user: Option<String>,
    pub session: Option<SessionId>,
    /// The limits that were evaluated, for the limit headers.
    pub limits: Vec<Decision>,
    /// What a page reports as a problem, for log and metrics.
    pub refusal: Option<Refusal>,
    /// Why, for the log.
    pub reason: Option<Reason>,
}

impl From<Refusal> for ApiRejection {
    fn from(refusal: Refusal) -> ApiRejection {
        let unavailable = matches!(refusal, Refusal::StoreUnavailable | Refusal::Overloaded);
        ApiRejection {
            refusal,
            message: None,
            fields: Box::default(),
            retry_after: unavailable.then_some(UNAVAILABLE_RETRY),
            clear_cookie: false,
            limits: Vec::new(),
            reason: None,
            user: None,
        }
    }
}

impl From<StoreError> for ApiRejection {
    fn from(_: StoreError) -> ApiRejection {
        // The store has logged and counted it.
        Refusal::StoreUnavailable.into()
    }
}

impl From<database::Error> for ApiRejection {
    fn from(error: database::Error) -> ApiRejection {
        AccountError::Database(error).into()
    }
}

impl From<SessionError> for ApiRejection {
    fn from(error: SessionError) -> ApiRejection {
        AccountError::from(error).into()
    }
}

impl From<AccountError> for ApiRejection {
    fn from(failure: AccountError) -> ApiRejection {
        match failure {
            AccountError::Refused(refusal) => refusal.into(),
            AccountError::InvalidFields(fields) => ApiRejection::invalid_fields(fields),
            AccountError::AuthenticationFailed {
                refusal,
                user,
                reason,
            } => ApiRejection {
                reason: Some(reason),
                user: user.map(String::into_boxed_str),
                ..ApiRejection::from(refusal)
            },
            AccountError::RateLimited => Refusal::RateLimited.into(),
            AccountError::Throttled(wait) => ApiRejection {
                retry_after: Some(wait),
                ..ApiRejection::from(Refusal::RateLimited)
            },
            AccountError::Busy(wait) => ApiRejection {
                retry_after: Some(wait),
                ..ApiRejection::from(Refusal::Overloaded)
            },
            AccountError::Store(error) => error.into(),
            AccountError::Database(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the database did not respond"
                );
                Refusal::StoreUnavailable.into()
            }
            AccountError::Token(_) | AccountError::Hash => {
                tracing::error!(error = %failure, "an endpoint failed");
                Refusal::Internal.into()
            }
        }
    }
}

impl IntoResponse for ApiRejection {
    fn into_response(self) -> Response {
        let mut response = self.refusal.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// 200 with `{"success": true, "data": …}`.
pub(super) fn data(data: &impl Serialize) -> Response {
    data_with_status(StatusCode::OK, data)
}

/// The same with another status.
pub(super) fn data_with_status(status: StatusCode, data: &impl Serialize) -> Response {
    json(status, &Success::of(data))
}

/// A JSON value as it is.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_string(value) else {
        // Nothing of ours has keys that are no strings, which is all that could fail.
        return ApiRejection::from(Refusal::Internal).into_response();
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
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What depends on who asks is not kept by anyone on the way.
pub(super) async fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

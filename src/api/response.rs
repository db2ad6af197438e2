//! Responses: data in its envelope, and rejections for the one writer of local responses.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::view::Success;
use crate::auth::session::SessionId;
use crate::identity::{AccountError, SignedIn};
use crate::limits::Decision;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::SessionError;

impl ResponseInfo {
    /// Describes the response to a sign-in.
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

/// Extension of a successful response, for the proxy.
#[derive(Debug, Clone, Default)]
pub struct ResponseInfo {
    /// The user for the access log, where the caller was not authenticated before.
    pub user: Option<String>,
    pub session: Option<SessionId>,
    /// The limits that were evaluated, for the limit headers.
    pub limits: Vec<Decision>,
    /// The caller has signed out, or its cookie is no longer valid: clear it.
    pub clear_cookie: bool,
    /// The rejection that the body, a page, already reports.
    pub rejection: Option<Rejection>,
}

impl From<SessionError> for Rejection {
    fn from(error: SessionError) -> Rejection {
        AccountError::from(error).into()
    }
}

/// Attaches a rejection to an empty response; the one writer of local responses renders the body.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = self.refusal.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Marks the session cookie to be cleared.
pub(super) fn clear_cookie(mut response: Response) -> Response {
    let info = response
        .extensions_mut()
        .get_or_insert_default::<ResponseInfo>();
    info.clear_cookie = true;
    response
}

/// 200 with `{"success": true, "data": …}`.
pub(super) fn data(data: &impl Serialize) -> Response {
    data_with_status(StatusCode::OK, data)
}

/// Like [`data`], with another status.
pub(super) fn data_with_status(status: StatusCode, data: &impl Serialize) -> Response {
    json(status, &Success::of(data))
}

/// A JSON value without envelope.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_string(value) else {
        // Only non-string keys can fail, and no response has them.
        return Rejection::from(Refusal::Internal).into_response();
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

/// Forbids caching: responses depend on the caller.
pub(super) async fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

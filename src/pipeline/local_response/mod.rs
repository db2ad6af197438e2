//! Local responses: status, body, challenge, `Retry-After`, cookie clearing, CORS and limit
//! headers, for every listener.

mod complete;
mod error_body;
mod grpc;
mod sign_in;

use std::time::Duration;

use bytes::Bytes;
pub use complete::Completion;
use error_body::ErrorFormat;
pub use grpc::{CallOutcome, end_call};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::auth::credential;
use crate::auth::session::CookieRules;
use crate::limits::{Decision, LimitHeaders};
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::{METHODS, html_page};
use crate::rejection::{Refusal, Rejection};
use crate::routing::Route;
use crate::settings::Reloadable;
use crate::telemetry::request_id::RequestId;

pub const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The media type of a gRPC call and of its response.
pub const GRPC: &str = "application/grpc";

type Headers = Vec<(HeaderName, HeaderValue)>;

/// A response that the gateway makes itself.
#[derive(Debug)]
pub struct LocalResponse {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
    /// Whether another request may follow on the connection.
    pub may_keep: bool,
    /// The outcome of a gRPC call: on HTTP/2 a head alone.
    pub is_trailers_only: bool,
}

impl LocalResponse {
    pub fn new(status: StatusCode, headers: Headers, body: impl Into<Bytes>) -> LocalResponse {
        LocalResponse {
            status,
            headers,
            body: body.into(),
            may_keep: true,
            is_trailers_only: false,
        }
    }
}

/// The input of the response to a rejection, beside the rejection.
#[derive(Clone, Copy)]
pub struct RejectedRequest<'a> {
    pub head: RequestHead<'a>,
    pub request_id: &'a RequestId,
    pub is_grpc: bool,
    /// A call to one of the gateway's own endpoints.
    pub is_api_call: bool,
    /// Absent where no route was selected.
    pub route: Option<&'a Route>,
    /// Absent on the admin listener, and where no request was read.
    pub settings: Option<&'a Reloadable>,
    /// The store's clock, by which limits are counted.
    pub store_clock: Duration,
}

/// Responds to a rejected request. `extra` are headers of the router that rejected it: those of CORS
/// on the gateway's own endpoints, and the methods of a path.
pub fn respond(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    extra: &HeaderMap,
) -> LocalResponse {
    let response = if request.is_grpc {
        grpc::respond(rejection, request, extra)
    } else if let Some(location) = sign_in::redirect_target(rejection.refusal, request) {
        redirect_to_sign_in(rejection, request, location)
    } else {
        error(rejection, request, extra)
    };
    LocalResponse {
        // The end of the body of a misunderstood head is unknown, too.
        may_keep: rejection.refusal != Refusal::BadRequest,
        ..response
    }
}

/// An error in the format that the client prefers.
fn error(rejection: &Rejection, request: &RejectedRequest<'_>, extra: &HeaderMap) -> LocalResponse {
    let format = ErrorFormat::negotiate(request.head.fields);
    let status = rejection.refusal.status();
    let link = format == ErrorFormat::Html && status == StatusCode::UNAUTHORIZED;
    let link = link.then(|| sign_in::address(request)).flatten();
    let headers = headers(rejection, request, format, extra);
    let body = format.body(rejection, request.request_id.as_str(), link.as_deref());
    LocalResponse::new(status, headers, body)
}

/// The headers of a rejection, whatever the body: the challenge, the retry delay, the limits, the
/// cleared cookie, and the route's CORS headers.
pub fn rejection_headers(rejection: &Rejection, request: &RejectedRequest<'_>) -> Headers {
    let mut headers = Headers::new();
    if let Some(challenge) = challenge(rejection, request.head.fields) {
        headers.push((header::WWW_AUTHENTICATE, challenge));
    }
    if let Some(seconds) = retry_after_seconds(rejection)
        && let Ok(seconds) = HeaderValue::from_str(itoa::Buffer::new().format(seconds))
    {
        headers.push((header::RETRY_AFTER, seconds));
    }
    headers.extend(state_headers(rejection, request));
    if let Some(cors) = request.route.and_then(|route| route.cors.as_ref()) {
        let origin = request.head.fields.first(FieldKind::Origin);
        headers.extend(cors.response_headers(origin));
    }
    headers
}

/// The limit headers of a response; none where no limit was evaluated. Limits are counted by the
/// store's clock, and so is the time at which they are reset.
pub fn limit_headers(decisions: &[Decision], store_clock: Duration) -> Headers {
    let limits = LimitHeaders::of(decisions, || store_clock);
    limits.map_or_else(Headers::new, |limits| limits.fields().collect())
}

/// The headers that clear the session cookie.
pub fn clearing_headers(rules: &CookieRules) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let cookies = credential::clearing_cookies(rules).into_iter();
    cookies.map(|cookie| (header::SET_COOKIE, cookie))
}

/// All headers but the framing.
fn headers(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    format: ErrorFormat,
    extra: &HeaderMap,
) -> Headers {
    let mut headers = Headers::with_capacity(16);
    headers.extend([
        (header::CONTENT_TYPE, format.content_type()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("Accept")),
    ]);
    if format == ErrorFormat::Html
        && let Ok(policy) = HeaderValue::try_from(html_page::content_security_policy("'none'"))
    {
        headers.push((header::CONTENT_SECURITY_POLICY, policy));
    }
    headers.extend(rejection_headers(rejection, request));
    if rejection.refusal == Refusal::MethodNotAllowed && !extra.contains_key(header::ALLOW) {
        headers.push((header::ALLOW, HeaderValue::from_static(METHODS)));
    }
    // Headers about the router's own, empty body do not apply to this one.
    let kept = extra.iter().filter(|(name, _)| {
        !matches!(
            **name,
            header::CONTENT_TYPE | header::CONTENT_LENGTH | header::CACHE_CONTROL
        )
    });
    headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    headers
}

fn redirect_to_sign_in(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    location: HeaderValue,
) -> LocalResponse {
    let mut headers = state_headers(rejection, request);
    headers.extend([
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("Accept")),
    ]);
    LocalResponse::new(StatusCode::SEE_OTHER, headers, Bytes::new())
}

/// The limit headers, and the cleared cookie.
fn state_headers(rejection: &Rejection, request: &RejectedRequest<'_>) -> Headers {
    let mut headers = limit_headers(&rejection.decisions, request.store_clock);
    if let Some(settings) = request.settings.filter(|_| rejection.clear_cookie) {
        headers.extend(clearing_headers(&settings.sessions.cookie));
    }
    headers
}

/// The challenge of RFC 6750, section 3, for a 401 or a missing scope. An error is named only where
/// a bearer token was presented and is the cause.
fn challenge(rejection: &Rejection, fields: Fields<'_>) -> Option<HeaderValue> {
    let text = match rejection.refusal {
        Refusal::InsufficientScope => {
            let disclosed = rejection.disclosed.as_ref();
            let scope = disclosed.and_then(|it| it.required_scope.as_deref());
            format!(
                "Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{}\"",
                scope.unwrap_or_default(),
            )
        }
        refusal if refusal.status() != StatusCode::UNAUTHORIZED => return None,
        // These do not concern a bearer token, whether or not one was presented.
        Refusal::Unauthenticated | Refusal::InvalidCredentials | Refusal::RefreshTokenReused => {
            "Bearer realm=\"portcullis\"".to_owned()
        }
        _ if !has_bearer_token(fields) => "Bearer realm=\"portcullis\"".to_owned(),
        refusal => format!(
            "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"{}\"",
            refusal.message(),
        ),
    };
    HeaderValue::from_str(&text).ok()
}

fn has_bearer_token(fields: Fields<'_>) -> bool {
    let is_bearer = |value: &[u8]| {
        let scheme = value.get(.."bearer ".len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
    };
    fields.all(FieldKind::Authorization).any(is_bearer)
}

/// The retry delay: whole seconds, rounded up, at least 1.
fn retry_after_seconds(rejection: &Rejection) -> Option<u64> {
    let delay = rejection.retry_delay()?;
    Some((delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1))
}

#[cfg(test)]
mod tests;

//! Local responses: status, body, challenge, `Retry-After`, cookie clearing, CORS and limit
//! headers, for every listener.

mod complete;
mod error_body;
mod front_proxy;
mod grpc;
mod refusal_texts;
mod sign_in;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
pub use complete::ResponseContext;
use error_body::{ErrorFormat, ErrorResponse, PageContext};
pub use front_proxy::AllowedRequest;
pub use grpc::{CallOutcome, end_call, grpc_status};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use refusal_texts::RefusalTexts;

use crate::auth::credential;
use crate::auth::session::CookieRules;
use crate::pipeline::METHODS;
use crate::pipeline::facts::{ClientOrigin, RequestHead};
use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::header_fields::{FieldBuffer, FieldSink, add_number};
use crate::pipeline::own_field::RETRY_AFTER;
use crate::pipeline::protected_resource;
use crate::rejection::{Refusal, Rejection};
use crate::routing::Route;
use crate::settings::forward_auth::ForwardAuth;

static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
static VARY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");
/// The challenge that names no error.
static CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"portcullis\"");

/// The media type of a gRPC call and of its response.
pub const GRPC: &str = "application/grpc";

/// A response that the gateway makes itself. An engine writes it, and adds what frames it on the
/// connection.
#[derive(Debug)]
pub struct LocalResponse {
    pub status: StatusCode,
    /// Whether another request may follow on the connection.
    pub may_keep: bool,
    /// The outcome of a gRPC call: on HTTP/2 a head alone.
    pub is_trailers_only: bool,
    headers: FieldBuffer,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The headers describe it.
    Complete(Bytes),
    /// Rendered when it is written, with the headers that describe it.
    Error(ErrorResponse),
    /// None: a front proxy may forward the request.
    Allowed(AllowedRequest),
}

impl LocalResponse {
    pub fn new(status: StatusCode, headers: FieldBuffer, body: impl Into<Bytes>) -> LocalResponse {
        LocalResponse {
            status,
            may_keep: true,
            is_trailers_only: false,
            headers,
            content: Content::Complete(body.into()),
        }
    }
}

/// Whether a client prefers a page to JSON.
pub fn prefers_html(fields: Fields<'_>) -> bool {
    ErrorFormat::negotiate(fields) == ErrorFormat::Html
}

/// The input of the response to a rejection, beside the rejection.
#[derive(Clone, Copy)]
pub struct RejectedRequest<'a> {
    pub head: RequestHead<'a>,
    pub context: ResponseContext<'a>,
    pub is_grpc: bool,
    /// A call to one of the gateway's own endpoints.
    pub is_api_call: bool,
    /// Absent where no route was selected.
    pub route: Option<&'a Route>,
    /// Absent where no head was read.
    pub client: Option<&'a ClientOrigin>,
    /// The `Host` or the authority, where the request has a valid one.
    pub host: Option<&'a str>,
    /// Present where a front proxy queries about the request.
    pub front_proxy: Option<&'a ForwardAuth>,
}

/// Responds to a rejected request. `extra` are headers of the router that rejected it: those of CORS
/// on the gateway's own endpoints, and the methods of a path.
pub fn respond(
    mut rejection: Rejection,
    request: &RejectedRequest<'_>,
    extra: Option<&HeaderMap>,
) -> LocalResponse {
    if request.route.is_some_and(|route| route.oauth_resource) {
        name_resource_metadata(&mut rejection, request);
    }
    if request.front_proxy.is_some() {
        return front_proxy::deny(rejection, request);
    }
    // The end of the body of a misunderstood head is unknown, too.
    let may_keep = rejection.refusal != Refusal::BadRequest;
    let mut response = if request.is_grpc {
        grpc::respond(&rejection, request, extra)
    } else if let Some(location) = sign_in::redirect_target(&rejection, request) {
        redirect_to_sign_in(&rejection, request, location)
    } else {
        error(rejection, request, extra)
    };
    response.may_keep = may_keep;
    response
}

/// An error in the format that the client prefers.
fn error(
    rejection: Rejection,
    request: &RejectedRequest<'_>,
    extra: Option<&HeaderMap>,
) -> LocalResponse {
    let fields = request.head.fields;
    let format = ErrorFormat::negotiate(fields);
    let status = rejection.refusal.status();
    let is_page = format == ErrorFormat::Html;
    let page = is_page.then(|| Box::new(page_context(&rejection, request)));
    LocalResponse {
        status,
        may_keep: true,
        is_trailers_only: false,
        headers: further_headers(&rejection, request, extra),
        content: Content::Error(ErrorResponse {
            format,
            names_token_error: names_token_error(rejection.refusal, fields),
            page,
            rejection,
        }),
    }
}

fn page_context(rejection: &Rejection, request: &RejectedRequest<'_>) -> PageContext {
    let settings = request.context.settings;
    PageContext {
        pages: settings.map(|settings| Arc::clone(&settings.pages)),
        sign_in: sign_in::link(rejection, request),
        other_ways: sign_in::link_to_other_ways(rejection, request),
    }
}

/// The headers of a rejection, whatever the body: the challenge, the retry delay, the limits, the
/// cleared cookie, and the route's CORS headers.
pub fn rejection_headers(rejection: &Rejection, request: &RejectedRequest<'_>) -> FieldBuffer {
    let mut headers = FieldBuffer::new();
    let names_token_error = names_token_error(rejection.refusal, request.head.fields);
    write_rejection(rejection, names_token_error, &request.context, &mut headers);
    headers.extend(cors_headers(request));
    headers
}

/// The route's CORS headers, the methods that are allowed, and those of `extra` that apply to a body
/// that is not the router's own.
fn further_headers(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    extra: Option<&HeaderMap>,
) -> FieldBuffer {
    let mut headers = cors_headers(request);
    let lacks_methods = extra.is_none_or(|extra| !extra.contains_key(header::ALLOW));
    if rejection.refusal == Refusal::MethodNotAllowed && lacks_methods {
        headers.push((header::ALLOW, HeaderValue::from_static(METHODS)));
    }
    let kept = extra.into_iter().flatten().filter(|(name, _)| {
        !matches!(
            **name,
            header::CONTENT_TYPE | header::CONTENT_LENGTH | header::CACHE_CONTROL
        )
    });
    headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    headers
}

fn cors_headers(request: &RejectedRequest<'_>) -> FieldBuffer {
    let Some(cors) = request.route.and_then(|route| route.cors.as_ref()) else {
        return FieldBuffer::new();
    };
    cors.response_headers(request.head.fields.first(FieldKind::Origin))
}

/// The headers that clear the session cookie.
pub fn clearing_headers(rules: &CookieRules) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let cookies = credential::clearing_cookies(rules).into_iter();
    cookies.map(|cookie| (header::SET_COOKIE, cookie))
}

fn redirect_to_sign_in(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    location: HeaderValue,
) -> LocalResponse {
    let mut headers = FieldBuffer::new();
    write_state(rejection, &request.context, &mut headers);
    headers.push((header::LOCATION, location));
    headers.add(&header::CACHE_CONTROL, &NO_STORE);
    headers.add(&header::VARY, &VARY_ACCEPT);
    LocalResponse::new(StatusCode::SEE_OTHER, headers, Bytes::new())
}

/// Writes the challenge, the retry delay, the limits and the cleared cookie.
fn write_rejection(
    rejection: &Rejection,
    names_token_error: bool,
    context: &ResponseContext<'_>,
    sink: &mut dyn FieldSink,
) {
    write_challenge(rejection, names_token_error, sink);
    if let Some(seconds) = retry_after_seconds(rejection) {
        add_number(sink, &RETRY_AFTER, seconds);
    }
    write_state(rejection, context, sink);
}

/// Writes the limits, and the cleared cookie.
fn write_state(rejection: &Rejection, context: &ResponseContext<'_>, sink: &mut dyn FieldSink) {
    if let Some(limits) = context.limit_headers(&rejection.decisions) {
        sink.add_limits(&limits, &|_| true);
    }
    if let Some(settings) = context.settings.filter(|_| rejection.clear_cookie) {
        for (name, value) in clearing_headers(&settings.sessions.cookie) {
            sink.add(&name, &value);
        }
    }
}

/// Adds the address of the route's metadata to a rejection with a challenge.
fn name_resource_metadata(rejection: &mut Rejection, request: &RejectedRequest<'_>) {
    let refusal = rejection.refusal;
    let has_challenge =
        refusal.status() == StatusCode::UNAUTHORIZED || refusal == Refusal::InsufficientScope;
    let (Some(route), Some(settings), Some(origin), true) = (
        request.route,
        request.context.settings,
        request.client,
        has_challenge,
    ) else {
        return;
    };
    let client = origin.as_client(request.host.map(str::as_bytes));
    let url = protected_resource::metadata_url(&client, route, settings);
    // It stands in a quoted string.
    if !url.contains(['"', '\\']) {
        let disclosed = rejection.disclosed.get_or_insert_default();
        disclosed.resource_metadata = Some(url);
    }
}

/// Writes the challenge of RFC 6750, section 3, for a 401 or a missing scope.
fn write_challenge(rejection: &Rejection, names_token_error: bool, sink: &mut dyn FieldSink) {
    let refusal = rejection.refusal;
    let disclosed = rejection.disclosed.as_deref();
    let challenge: Cow<'_, [u8]> = if refusal == Refusal::InsufficientScope {
        let scope = disclosed.and_then(|it| it.required_scope.as_deref());
        let text = format!(
            "Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{}\"",
            scope.unwrap_or_default(),
        );
        text.into_bytes().into()
    } else if refusal == Refusal::InsufficientAuthentication {
        step_up_challenge(rejection).into_bytes().into()
    } else if refusal.status() == StatusCode::UNAUTHORIZED {
        let texts = RefusalTexts::of(refusal).filter(|_| names_token_error);
        let challenge = texts.map_or(&CHALLENGE, |texts| &texts.token_error);
        if disclosed.is_none_or(|it| it.resource_metadata.is_none()) {
            return sink.add(&header::WWW_AUTHENTICATE, challenge);
        }
        challenge.as_bytes().into()
    } else {
        return;
    };
    let mut challenge = challenge.into_owned();
    if let Some(url) = disclosed.and_then(|it| it.resource_metadata.as_deref()) {
        challenge.extend_from_slice(format!(", resource_metadata=\"{url}\"").as_bytes());
    }
    // A scope that no header can carry is not sent.
    let _ = sink.add_text(&header::WWW_AUTHENTICATE, &challenge);
}

/// The challenge of RFC 9470, section 3.
fn step_up_challenge(rejection: &Rejection) -> String {
    let mut challenge =
        "Bearer realm=\"portcullis\", error=\"insufficient_user_authentication\"".to_owned();
    let disclosed = rejection.disclosed.as_ref();
    if let Some(required) = disclosed.and_then(|it| it.required_sign_in.as_ref()) {
        if !required.acr.is_empty() {
            challenge.push_str(&format!(", acr_values=\"{}\"", required.acr.join(" ")));
        }
        if let Some(max_age) = required.max_age {
            challenge.push_str(&format!(", max_age=\"{max_age}\""));
        }
    }
    challenge
}

/// Whether the challenge names an error: only where a bearer token was presented and is the cause.
fn names_token_error(refusal: Refusal, fields: Fields<'_>) -> bool {
    // These do not concern a bearer token, whether or not one was presented.
    let is_other_cause = matches!(
        refusal,
        Refusal::Unauthenticated | Refusal::InvalidCredentials | Refusal::RefreshTokenReused
    );
    !is_other_cause && refusal.status() == StatusCode::UNAUTHORIZED && has_bearer_token(fields)
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

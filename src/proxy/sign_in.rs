//! The way to the sign-in page, for a browser that opens a page without being signed in.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pingora::proxy::Session;

use super::local_response::{self, RefusalResponse};
use super::request_context::RequestContext;
use crate::rejection::Refusal;
use crate::routing::OnUnauthenticated;

/// Bytes of a target that is brought along; from a longer one the way back is not remembered.
const TARGET_MAX: usize = 2048;

/// Where a browser is sent in place of a refusal. `None`: it is refused; so is whatever is no page
/// that a person opened, for a script would take the sign-in page for its answer.
pub(super) fn target(
    session: &Session,
    ctx: &RequestContext,
    refusal: Refusal,
) -> Option<HeaderValue> {
    let route = ctx.route.as_ref()?;
    if route.on_unauthenticated != OnUnauthenticated::Redirect
        || refusal.status() != StatusCode::UNAUTHORIZED
    {
        return None;
    }
    let request = session.req_header();
    let opens_page = matches!(request.method, Method::GET | Method::HEAD)
        && local_response::wants_page(&request.headers)
        && request
            .headers
            .get("sec-fetch-mode")
            .is_none_or(|mode| mode == "navigate")
        && !request.headers.contains_key(header::AUTHORIZATION)
        && !session.is_upgrade_req();
    if !opens_page {
        return None;
    }
    HeaderValue::try_from(address(session, ctx)?).ok()
}

/// The address of the sign-in page that leads back to what was requested, where that can be opened.
pub(super) fn address(session: &Session, ctx: &RequestContext) -> Option<String> {
    let prefix = &ctx.snapshot.settings.api.as_ref()?.prefix;
    let request = session.req_header();
    let wanted = request.uri.path_and_query()?.as_str();
    let opens = matches!(request.method, Method::GET | Method::HEAD) && !ctx.is_api_call;
    let back = if opens && wanted.len() <= TARGET_MAX {
        wanted
    } else {
        "/"
    };
    let back = utf8_percent_encode(back, NON_ALPHANUMERIC);
    Some(format!("{prefix}/sign-in?return_to={back}"))
}

/// Sends it there, with what the refusal's answer would have carried.
///
/// # Errors
/// The client went away.
pub(super) async fn send(
    session: &mut Session,
    ctx: &mut RequestContext,
    answer: RefusalResponse,
    target: HeaderValue,
) -> pingora::Result<()> {
    // The log says why.
    ctx.refusal = Some(answer.refusal);
    let mut headers = answer.headers;
    headers.extend([
        (header::LOCATION, target),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("Accept")),
    ]);
    let status = StatusCode::SEE_OTHER;
    local_response::write(session, ctx, status, headers, bytes::Bytes::new(), true).await
}

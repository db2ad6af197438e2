//! Redirect to the sign-in page, for a browser that opens a page without being signed in.

use http::header::HeaderValue;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::RejectedRequest;
use super::error_body::ErrorFormat;
use crate::pipeline::fields::FieldKind;
use crate::rejection::Refusal;
use crate::routing::OnUnauthenticated;

/// Maximum length of a target to which the sign-in page returns; after a longer one it returns to
/// `/`.
const TARGET_MAX: usize = 2048;

/// The redirect that replaces an error response for a browser. `None` where the route does not
/// enable it, and for any request but a navigation: a script would take the sign-in page for its
/// data.
pub(super) fn redirect_target(
    refusal: Refusal,
    request: &RejectedRequest<'_>,
) -> Option<HeaderValue> {
    let route = request.route?;
    if route.on_unauthenticated != OnUnauthenticated::Redirect
        || refusal.status() != StatusCode::UNAUTHORIZED
        // The page would return a browser with a session at once.
        || refusal == Refusal::InsufficientAuthentication
    {
        return None;
    }
    let (head, fields) = (&request.head, request.head.fields);
    let opens_page = matches!(*head.method, Method::GET | Method::HEAD)
        && ErrorFormat::negotiate(fields) == ErrorFormat::Html
        && fields
            .first(FieldKind::SecFetchMode)
            .is_none_or(|mode| mode == b"navigate")
        && !fields.has(FieldKind::Authorization)
        && !head.is_upgrade();
    if !opens_page {
        return None;
    }
    HeaderValue::try_from(address(request)?).ok()
}

/// The address of the sign-in page that returns to the requested page, where that can be opened.
pub(super) fn address(request: &RejectedRequest<'_>) -> Option<String> {
    let prefix = &request.context.settings?.api.as_ref()?.prefix;
    let opens = matches!(*request.head.method, Method::GET | Method::HEAD) && !request.is_api_call;
    let wanted = opens.then(|| request.head.target());
    let wanted = wanted.filter(|target| target.len() <= TARGET_MAX);
    let back = utf8_percent_encode(wanted.as_deref().unwrap_or("/"), NON_ALPHANUMERIC);
    Some(format!("{prefix}/sign-in?return_to={back}"))
}

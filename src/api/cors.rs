//! Sharing the endpoints with pages of `api.allowed_origins` (the Fetch standard's CORS protocol).

use std::sync::Arc;

use axum::extract::{Extension, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::pipeline::snapshot::Snapshot;
use crate::settings::Reloadable;

/// Responds to preflights of allowed origins and lets their pages read responses. Other origins get
/// no CORS headers, so browsers withhold the response from them.
pub(super) async fn handle_cors(
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(origin) = allowed_origin(&snapshot.settings, request.headers()) else {
        let mut response = next.run(request).await;
        add_vary_origin(response.headers_mut());
        return response;
    };
    let has_request_method = request
        .headers()
        .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if request.method() == Method::OPTIONS && has_request_method {
        preflight_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    add_vary_origin(headers);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "X-Session-ID, X-Request-ID, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, \
             X-RateLimit-Reset, RateLimit-Policy, RateLimit",
        ),
    );
    response
}

fn allowed_origin(settings: &Reloadable, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    let allowed = &settings.api.as_ref()?.allowed_origins;
    allowed.contains(&text).then(|| origin.clone())
}

fn preflight_response() -> Response {
    (
        StatusCode::NO_CONTENT,
        [
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                "GET, POST, PUT, PATCH, DELETE",
            ),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "Authorization, Content-Type, X-Device-Type, X-Device-Name, X-Request-ID",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ],
    )
        .into_response()
}

fn add_vary_origin(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

//! Responses that need no route: redirects from plain HTTP to HTTPS, and `OPTIONS *`.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use pingora::proxy::Session;

use super::local_response;
use super::request_context::RequestContext;
use crate::routing::port_of;
use crate::settings::Listener;

/// The port of `https` URLs that name none.
const HTTPS: u16 = 443;
/// The port of `http` URLs that name none.
const HTTP: u16 = 80;

/// Returns where a plain request on a listener that redirects is sent.
pub(super) fn https_target(session: &Session, ctx: &RequestContext) -> Option<HeaderValue> {
    let (listener, live) = ctx.listener()?;
    if !live.redirect_to_https || ctx.client_origin.as_ref()?.https {
        return None;
    }
    let target = session.req_header().uri.path_and_query()?.as_str();
    let named = ctx.host_header.as_ref().and_then(|host| host.to_str().ok());
    let named = named.and_then(port_of).unwrap_or(HTTP);
    // The host was validated, so this is no open redirect.
    let host = &ctx.host;
    let location = match https_port(named, listener, &ctx.worker.boot.listeners) {
        HTTPS => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::from_str(&location).ok()
}

/// Returns the port to which a client is redirected that reached the plain listener at port `named`:
/// that of the TLS listener. Where `named` is not the plain listener's own port, something in front
/// maps ports, and what it maps to the TLS listener is assumed to be 443.
fn https_port(named: u16, plain: &Listener, listeners: &[Listener]) -> u16 {
    if named != plain.bind.port() {
        return HTTPS;
    }
    let preferred = listeners
        .iter()
        .filter(|listener| listener.tls)
        .map(|listener| listener.bind)
        .min_by_key(|bind| (bind.port() != HTTPS, bind.ip() != plain.bind.ip()));
    preferred.map_or(HTTPS, |bind| bind.port())
}

/// Sends the client there.
///
/// # Errors
/// The client went away.
pub(super) async fn redirect(
    session: &mut Session,
    ctx: &mut RequestContext,
    target: HeaderValue,
) -> pingora::Result<()> {
    // 308 keeps the method and the body (RFC 9110, section 15.4.9).
    let status = StatusCode::PERMANENT_REDIRECT;
    let headers = vec![(header::LOCATION, target)];
    local_response::write(session, ctx, status, headers, bytes::Bytes::new(), true).await
}

/// Whether it is `OPTIONS *`, which is about the server and no resource (RFC 9110, section 9.3.7).
pub(super) fn is_options_asterisk(session: &Session) -> bool {
    let request = session.req_header();
    request.method == Method::OPTIONS && request.uri.path() == "*"
}

/// Responds to `OPTIONS *`.
///
/// # Errors
/// The client went away.
pub(super) async fn respond_with_methods(
    session: &mut Session,
    ctx: &mut RequestContext,
) -> pingora::Result<()> {
    let headers = vec![(
        header::ALLOW,
        HeaderValue::from_static(local_response::METHODS),
    )];
    let body = bytes::Bytes::new();
    local_response::write(session, ctx, StatusCode::OK, headers, body, true).await
}

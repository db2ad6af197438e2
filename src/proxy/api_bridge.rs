//! Adapter between Pingora's session and the router of the gateway's own endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use pingora::proxy::Session;
use tower::ServiceExt;

use super::local_response::{self, send_rejection};
use super::pingora::header_map;
use super::request_context::{RequestContext, measure_wait};
use crate::api::{Caller, ResponseInfo};
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{clearing_headers, limit_headers, rejection_headers};
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints;

/// Largest body in bytes that is read from any caller.
const MAX_BODY: usize = 64 * 1024;
/// How long the body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a call to one of the gateway's own endpoints.
///
/// # Errors
/// The client went away.
pub(super) async fn serve(
    session: &mut Session,
    ctx: &mut RequestContext,
    below: String,
) -> pingora::Result<()> {
    ctx.is_api_call = true;
    let call = match build_call(session, ctx, &below).await? {
        Ok(call) => call,
        Err(refusal) => {
            return send_rejection(session, ctx, refusal.into(), &HeaderMap::new()).await;
        }
    };
    // The router never fails.
    let response = match ctx.worker.api.clone().oneshot(call).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut head, body) = response.into_parts();
    if let Some(rejection) = head.extensions.remove::<Rejection>() {
        return send_rejection(session, ctx, rejection, &head.headers).await;
    }
    let Ok(body) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
    else {
        return send_rejection(session, ctx, Refusal::Internal.into(), &HeaderMap::new()).await;
    };
    let info = head.extensions.remove::<ResponseInfo>().unwrap_or_default();
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| ctx.method == Method::HEAD || **name != header::CONTENT_LENGTH)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.extend(info_headers(session, ctx, info));
    local_response::write(session, ctx, head.status, headers, body, true).await
}

/// Records the outcome of a response with a body of its own, and returns the headers that it needs.
fn info_headers(
    session: &Session,
    ctx: &mut RequestContext,
    info: ResponseInfo,
) -> Vec<(HeaderName, HeaderValue)> {
    if let Some(user) = info.user {
        ctx.user = Some(user);
        ctx.session = info.session;
    }
    let mut headers = match info.rejection {
        // A status page, recorded in log and metrics like any other endpoint.
        Some(mut rejection) => {
            ctx.refusal = Some(rejection.refusal);
            ctx.record_rejection(&mut rejection);
            let head = session.req_header();
            let list = header_map::list(&head.headers);
            let head = header_map::head(head, Fields::new(&list));
            rejection_headers(&rejection, &local_response::rejected_request(head, ctx))
        }
        None => limit_headers(
            &info.limits,
            Duration::from_millis(ctx.worker.store.clock()),
        ),
    };
    if info.clear_cookie {
        headers.extend(clearing_headers(&ctx.snapshot.settings.sessions.cookie));
    }
    headers
}

/// Builds the call: the original head, the path without the prefix, the body, and the caller.
async fn build_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    below: &str,
) -> pingora::Result<Result<http::Request<Body>, Refusal>> {
    let head = session.req_header();
    let target = match head.uri.query() {
        Some(query) => format!("{below}?{query}"),
        None => below.to_owned(),
    };
    let Ok(uri) = target.parse::<http::Uri>() else {
        return Ok(Err(Refusal::BadRequest));
    };
    let mut call = http::Request::new(Body::empty());
    *call.method_mut() = head.method.clone();
    *call.uri_mut() = uri;
    *call.headers_mut() = head.headers.clone();
    let extensions = call.extensions_mut();
    if let Some(origin) = &ctx.client_origin {
        let host = ctx.host_header.as_ref();
        extensions.insert(origin.as_client(host.map(HeaderValue::as_bytes)));
    }
    extensions.insert(Arc::clone(&ctx.snapshot));
    extensions.insert(ctx.request_id.clone());
    let is_authenticated =
        endpoints::needs_caller(&ctx.method, below) && identify(session, ctx, extensions).await;
    let most = endpoints::max_body_bytes(below);
    // An anonymous caller's large body is not read.
    if is_authenticated || most <= MAX_BODY {
        match read_body(session, most).await? {
            Ok(body) => *call.body_mut() = Body::from(body),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(call))
}

/// Identifies the caller. `false`: the call is anonymous.
async fn identify(
    session: &Session,
    ctx: &mut RequestContext,
    extensions: &mut http::Extensions,
) -> bool {
    let current = Arc::clone(&ctx.snapshot);
    let worker = Arc::clone(&ctx.worker);
    let admission = worker.admission(&current, &ctx.request_id);
    let head = session.req_header();
    let list = header_map::list(&head.headers);
    let Some(facts) = ctx.facts(head, Fields::new(&list)) else {
        return false;
    };
    let (found, waited) = measure_wait(admission.identify(&facts)).await;
    ctx.store_time = waited;
    match found {
        Ok(identity) => {
            let is_authenticated = identity.is_some();
            if let Some(identity) = &identity {
                ctx.record_identity(identity);
                ctx.record_session_use(identity);
            }
            extensions.insert(Caller(Ok(identity)));
            is_authenticated
        }
        Err(mut rejection) => {
            // Also for the log of an endpoint that needs no caller.
            ctx.record_rejection(&mut rejection);
            extensions.insert(Caller(Err(rejection)));
            false
        }
    }
}

async fn read_body(session: &mut Session, most: usize) -> pingora::Result<Result<Bytes, Refusal>> {
    let headers = &session.req_header().headers;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > most) {
        return Ok(Err(Refusal::BodyTooLarge));
    }
    if headers.get(header::EXPECT).is_some() {
        session.write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
    loop {
        let Ok(part) = tokio::time::timeout_at(deadline, session.read_request_body()).await else {
            session.set_keepalive(None);
            return Ok(Err(Refusal::RequestTimeout));
        };
        let Some(part) = part? else { break };
        if body.len() + part.len() > most {
            session.set_keepalive(None);
            return Ok(Err(Refusal::BodyTooLarge));
        }
        body.extend_from_slice(&part);
    }
    Ok(Ok(body.freeze()))
}

//! Writes local responses to Pingora's session, and decides whether the connection is kept.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::pingora::header_map;
use super::request_context::RequestContext;
use crate::pipeline::facts::{RequestHead, trace_context};
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{self, LocalResponse, NOSNIFF, RejectedRequest};
use crate::rejection::{Refusal, Rejection};
use crate::telemetry::request_id::X_REQUEST_ID;
use crate::telemetry::trace_id::TraceId;

mod early;
mod grpc_response;

pub use early::render_early_response;
pub(super) use grpc_response::{end_call, is_http2};

/// An unread request body up to this size is drained, so that the connection can be kept; a larger
/// one costs the connection.
const DRAIN_UP_TO: u64 = 64 * 1024;
/// How long the drain may take before the response is sent, and after.
const DRAIN_TIMEOUT_BEFORE_RESPONSE: Duration = Duration::from_millis(500);
const DRAIN_TIMEOUT_AFTER_RESPONSE: Duration = Duration::from_secs(5);

/// How long a client may continue to send a body after its response, before its stream is reset.
const LINGER: Duration = Duration::from_secs(1);
/// A body up to this size waits in h2's buffer for the client to grant a window.
const MAX_QUEUED_BODY: usize = 16 * 1024;

/// Writes the response to a rejected request, and records why it was rejected. `extra` is as in
/// [`respond`](crate::pipeline::local_response::respond).
///
/// # Errors
/// The client went away.
pub(super) async fn send_rejection(
    session: &mut Session,
    ctx: &mut RequestContext,
    rejection: Rejection,
    extra: &HeaderMap,
) -> pingora::Result<()> {
    // The end of the body of a misunderstood head is unknown, too.
    let keep = rejection.refusal != Refusal::BadRequest;
    let response = reject(session, ctx, rejection, extra);
    if ctx.grpc.is_some() && is_http2(session) {
        return grpc_response::write_trailers_only(session, ctx, response.headers).await;
    }
    let LocalResponse {
        status,
        headers,
        body,
    } = response;
    write(session, ctx, status, headers, body.into(), keep).await
}

fn reject(
    session: &Session,
    ctx: &mut RequestContext,
    mut rejection: Rejection,
    extra: &HeaderMap,
) -> LocalResponse {
    ctx.refusal = Some(rejection.refusal);
    ctx.record_rejection(&mut rejection);
    let head = session.req_header();
    let list = header_map::list(&head.headers);
    let request = rejected_request(header_map::head(head, Fields::new(&list)), ctx);
    local_response::respond(&rejection, &request, extra)
}

/// What the response to a rejection depends on.
pub(super) fn rejected_request<'a>(
    head: RequestHead<'a>,
    ctx: &'a RequestContext,
) -> RejectedRequest<'a> {
    RejectedRequest {
        head,
        request_id: &ctx.request_id,
        is_grpc: ctx.grpc.is_some(),
        is_api_call: ctx.is_api_call,
        route: ctx.route.as_deref(),
        settings: Some(&ctx.snapshot.settings),
        store_clock: Duration::from_millis(ctx.worker.store.clock()),
    }
}

/// Writes a complete response.
///
/// # Errors
/// The client went away.
pub async fn write(
    session: &mut Session,
    ctx: &mut RequestContext,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    keep: bool,
) -> pingora::Result<()> {
    ctx.status = status.as_u16();
    ctx.arrival.control.set_response_finished();
    let bodiless = status == StatusCode::NO_CONTENT || status.is_informational();
    let length = (!bodiless).then_some(body.len());
    let head = build_head(status, headers, ctx, length);
    if ctx.trace_id.is_none() {
        ctx.trace_id = client_trace(&session.req_header().headers, ctx.request_id.as_str());
    }
    let keep = decide_keepalive(session, keep);
    if ctx.worker.readiness.is_draining() {
        session.set_keepalive(None);
    }
    if is_http2(session) {
        drain_request_body(session, DRAIN_TIMEOUT_BEFORE_RESPONSE).await;
    }
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(head), silent)
        .await?;
    if !silent && queue_small_body(session, &body) {
        ctx.body_sent = body.len() as u64;
    } else if !silent {
        session.write_response_body(Some(body), true).await?;
    } else if is_http2(session) {
        // On HTTP/2 only the last write ends the stream.
        session.write_response_body(None, true).await?;
    }
    if keep && !is_http2(session) && !session.is_body_done() {
        drain_request_body(session, DRAIN_TIMEOUT_AFTER_RESPONSE).await;
        if !session.is_body_done() {
            session.set_keepalive(None);
        }
    }
    Ok(())
}

/// The trace of the client's request. A function of its own, so that the list is no part of the
/// request's future.
fn client_trace(headers: &HeaderMap, request_id: &str) -> Option<TraceId> {
    let list = header_map::list(headers);
    trace_context::of_client(Fields::new(&list), request_id)
}

/// Queues a small body in h2, which sends it when the client grants a window: otherwise the request
/// would hold all its resources until then. `false`: the session writes it.
fn queue_small_body(session: &mut Session, body: &Bytes) -> bool {
    if body.len() > MAX_QUEUED_BODY {
        return false;
    }
    let ServerSession::H2(stream) = session.as_downstream_mut() else {
        return false;
    };
    // An error is the client's reset, which ends the request anyway.
    let writer = stream.take_response_body_writer();
    writer.is_some_and(|mut writer| writer.send_data(body.clone(), true).is_ok())
}

/// Keeps an HTTP/2 stream open for a moment after its response if the request is incomplete.
/// Otherwise the final reset arrives together with the response, and some clients process the reset
/// first.
pub(super) async fn linger(session: &mut Session, ctx: &RequestContext) {
    if !is_http2(session) || !ctx.arrival.control.is_response_finished() || session.is_body_done() {
        return;
    }
    let reading = async { while let Ok(Some(_)) = session.read_request_body().await {} };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// Builds a head with these fields, and with the length of its body where it has one.
fn build_head(
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    ctx: &RequestContext,
    length: Option<usize>,
) -> ResponseHeader {
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers.reserve(headers.len() + 4);
    for (name, value) in headers {
        parts.headers.append(name, value);
    }
    add_common_headers(&mut parts.headers, ctx);
    // The response to a HEAD has the length that a GET would have.
    if let Some(length) = length {
        let content_length = parts.headers.entry(header::CONTENT_LENGTH);
        content_length.or_insert_with(|| length.into());
    }
    ResponseHeader::from(parts)
}

/// Adds the headers of every local response.
fn add_common_headers(headers: &mut HeaderMap, ctx: &RequestContext) {
    headers.insert(X_REQUEST_ID, ctx.request_id.header());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // Over plain HTTP browsers ignore it (RFC 6797, section 8.1).
    let over_tls = ctx
        .client_origin
        .as_ref()
        .is_some_and(|origin| origin.https);
    if let (true, Some(hsts)) = (over_tls, &ctx.snapshot.settings.hsts) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// Decides whether the connection is kept: not if the body is known to be large.
fn decide_keepalive(session: &mut Session, keep: bool) -> bool {
    let length = session
        .req_header()
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // A client that waits for `100 Continue` may or may not send its body.
    let waits =
        session.req_header().headers.contains_key(header::EXPECT) && !session.is_body_done();
    let keep = keep && !waits && length.is_none_or(|length| length <= DRAIN_UP_TO);
    if keep {
        session.set_close_on_response_before_downstream_finish(false);
    } else {
        session.set_keepalive(None);
    }
    keep
}

/// Drains a small body. On HTTP/1.1 the next request begins after it; on HTTP/2 some clients take a
/// response before the end of their request for a broken stream (RFC 9113, section 8.1, allows it).
async fn drain_request_body(session: &mut Session, limit: Duration) {
    let reading = async {
        let mut left = DRAIN_UP_TO as usize;
        while let Ok(Some(part)) = session.read_request_body().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                break;
            }
        }
    };
    // A body that is late is not waited for.
    let _ = tokio::time::timeout(limit, reading).await;
}

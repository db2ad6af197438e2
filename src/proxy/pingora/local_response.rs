//! Writes local responses to Pingora's session.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::header_map;
use crate::pipeline::facts::trace_context;
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{
    self as response, CallOutcome, LocalResponse, ResponseContext,
};
use crate::proxy::local_response::{self, DRAIN_UP_TO};
use crate::proxy::request_context::RequestContext;
use crate::rejection::Rejection;
use crate::telemetry::trace_id::TraceId;

/// How long a body is drained before the response is sent.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a client may continue to send a body after its response, before its stream is reset.
const LINGER: Duration = Duration::from_secs(1);
/// A body up to this size waits in h2's buffer for the client to grant a window.
const MAX_QUEUED_BODY: usize = 16 * 1024;
/// Fields of most heads.
const TYPICAL_FIELDS: usize = 16;

/// Writes the response to a rejected request, and records why it was rejected.
///
/// # Errors
/// The client went away.
pub(super) async fn send_rejection(
    session: &mut Session,
    ctx: &mut RequestContext,
    rejection: Rejection,
) -> pingora::Result<()> {
    let response = reject(session, ctx, rejection);
    send(session, ctx, response).await
}

/// A function of its own, so that the list of fields is no part of the request's future.
fn reject(session: &Session, ctx: &mut RequestContext, rejection: Rejection) -> LocalResponse {
    let head = session.req_header();
    let list = header_map::list(&head.headers);
    let head = header_map::head(head, Fields::new(&list));
    local_response::reject(ctx, head, rejection, None)
}

/// Completes a response and writes it.
///
/// # Errors
/// The client went away.
pub(super) async fn send(
    session: &mut Session,
    ctx: &mut RequestContext,
    response: LocalResponse,
) -> pingora::Result<()> {
    local_response::record(ctx, &response);
    let is_trailers_only = response.is_trailers_only;
    let (head, body) = split(ctx, &session.req_header().method, &response);
    drop(response);
    if is_trailers_only {
        return write_trailers_only(session, head).await;
    }
    if ctx.trace_id.is_none() {
        ctx.trace_id = client_trace(&session.req_header().headers, ctx.request_id.as_bytes());
    }
    drain_request_body(session).await;
    let silent = body.is_empty();
    session.write_response_header(head, silent).await?;
    if !silent && queue_small_body(session, &body) {
        ctx.body_sent = body.len() as u64;
    } else if !silent {
        session.write_response_body(Some(body), true).await?;
    } else {
        // Only the last write ends the stream.
        session.write_response_body(None, true).await?;
    }
    Ok(())
}

/// The trace of the client's request. A function of its own, so that the list is no part of the
/// request's future.
fn client_trace(headers: &HeaderMap, request_id: &[u8]) -> Option<TraceId> {
    let list = header_map::list(headers);
    trace_context::of_client(Fields::new(&list), request_id)
}

/// Ends a gRPC call over HTTP/2: with trailers, or with a head alone where no head has gone out.
///
/// # Errors
/// The client went away.
pub(super) async fn end_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    outcome: CallOutcome,
) -> pingora::Result<()> {
    if session.response_written().is_none() {
        return send(session, ctx, response::end_call(outcome)).await;
    }
    let downstream = session.as_downstream_mut();
    downstream.write_response_trailers(outcome.trailers()).await
}

/// Keeps an HTTP/2 stream open for a moment after its response if the request is incomplete.
/// Otherwise the final reset arrives together with the response, and some clients process the reset
/// first.
pub(super) async fn linger(session: &mut Session, ctx: &RequestContext) {
    if !ctx.arrival.control.is_response_finished() || session.is_body_done() {
        return;
    }
    let reading = async { while let Ok(Some(_)) = session.read_request_body().await {} };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// The head, and the body that the client receives. The method of a front proxy's call is not that of
/// the request that it is about.
fn split(
    ctx: &RequestContext,
    method: &Method,
    response: &LocalResponse,
) -> (Box<ResponseHeader>, Bytes) {
    let mut body = response.body_bytes(&ctx.request_id);
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = response.status;
    parts.headers.reserve(TYPICAL_FIELDS);
    let context = ResponseContext {
        method,
        ..ctx.response_context()
    };
    response.write_fields(&context, body.len(), &mut parts.headers);
    if !response.sends_body(method) {
        body.clear();
    }
    (Box::new(ResponseHeader::from(parts)), body)
}

/// Writes a response that consists of a head alone.
async fn write_trailers_only(
    session: &mut Session,
    head: Box<ResponseHeader>,
) -> pingora::Result<()> {
    match session.as_downstream_mut() {
        ServerSession::H2(stream) => stream.write_response_header(head, true),
        ServerSession::Custom(stream) => stream.write_response_header(head, true).await,
        ServerSession::H1(_) | ServerSession::Subrequest(_) => Ok(()),
    }
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

/// Drains a small body: some clients take a response before the end of their request for a broken
/// stream (RFC 9113, section 8.1, allows it).
async fn drain_request_body(session: &mut Session) {
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
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

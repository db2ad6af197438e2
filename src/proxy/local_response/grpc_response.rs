//! Responses to gRPC calls.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::error_body::ErrorFormat;
use super::{RefusalResponse, build_head, response_headers, retry_delay, write};
use crate::proxy::grpc;
use crate::proxy::request_context::RequestContext;
use crate::rejection::Refusal;

/// Whether the client speaks HTTP/2, also in a gRPC call, which has a session of its own kind.
pub(in crate::proxy) fn is_http2(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_2
}

/// Reports a refusal to a gRPC client: a response that is a head alone (gRPC over HTTP/2,
/// "Trailers-Only").
pub(super) async fn write_refusal(
    session: &mut Session,
    ctx: &mut RequestContext,
    answer: &RefusalResponse,
) -> pingora::Result<()> {
    let request = &session.req_header().headers;
    let mut headers = response_headers(answer, ErrorFormat::Json, request);
    headers.retain(|(name, _)| *name != header::CONTENT_TYPE && *name != header::VARY);
    let content = HeaderValue::from_static(grpc::MEDIA_TYPE);
    headers.push((header::CONTENT_TYPE, content));
    let outcome = grpc::CallOutcome::of(answer.refusal, retry_delay(answer));
    let fields = outcome.fields();
    headers.extend(
        fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    if !is_http2(session) {
        let keep = answer.refusal != Refusal::BadRequest;
        return write(session, ctx, StatusCode::OK, headers, Bytes::new(), keep).await;
    }
    write_trailers_only(session, ctx, headers).await
}

async fn write_trailers_only(
    session: &mut Session,
    ctx: &mut RequestContext,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> pingora::Result<()> {
    ctx.status = StatusCode::OK.as_u16();
    ctx.arrival.control.set_response_finished();
    let head = Box::new(build_head(StatusCode::OK, headers, ctx, None));
    match session.as_downstream_mut() {
        ServerSession::H2(stream) => stream.write_response_header(head, true),
        ServerSession::Custom(stream) => stream.write_response_header(head, true).await,
        ServerSession::H1(_) | ServerSession::Subrequest(_) => Ok(()),
    }
}

/// Ends a gRPC call over HTTP/2: by trailers, or by a head alone where none has gone out.
///
/// # Errors
/// The client went away.
pub(in crate::proxy) async fn end_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    outcome: grpc::CallOutcome,
) -> pingora::Result<()> {
    if session.response_written().is_none() {
        let mut headers = vec![(
            header::CONTENT_TYPE,
            HeaderValue::from_static(grpc::MEDIA_TYPE),
        )];
        let fields = outcome.fields();
        headers.extend(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        return write_trailers_only(session, ctx, headers).await;
    }
    let downstream = session.as_downstream_mut();
    downstream.write_response_trailers(outcome.fields()).await
}

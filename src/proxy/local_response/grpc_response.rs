//! Responses to gRPC calls.

use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::build_head;
use crate::pipeline::local_response::{CallOutcome, GRPC};
use crate::proxy::request_context::RequestContext;

/// Whether the client speaks HTTP/2, also for a gRPC call, whose session is of a custom type.
pub(in crate::proxy) fn is_http2(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_2
}

/// Writes a response that consists of a head alone.
pub(super) async fn write_trailers_only(
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

/// Ends a gRPC call over HTTP/2: with trailers, or with a head alone where no head has gone out.
///
/// # Errors
/// The client went away.
pub(in crate::proxy) async fn end_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    outcome: CallOutcome,
) -> pingora::Result<()> {
    if session.response_written().is_none() {
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(GRPC))];
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

//! The head of a request, as its upstream reads it.

use http::Version;

use super::buffer_pool;
use super::field_runs::copy_fields;
use crate::pipeline::fields::KindSet;
use crate::pipeline::header_fields::HeaderError;
use crate::pipeline::upstream_request::{UpstreamHead, UpstreamRequest};
use crate::proxy::connection::head::{BodyFraming, Head};
use crate::proxy::request_context::{Admitted, RequestContext};
use crate::proxy::retry::Failure;
use crate::routing::{Route, strip_prefix};
use crate::upstream::ChosenServer;

/// Writes the head of a request into a pooled buffer. The framing is the gateway's own, whatever the
/// client's looked like.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn write(
    request: &Head,
    ctx: &mut RequestContext,
    admitted: &Admitted,
) -> Result<Vec<u8>, Failure> {
    let input = upstream_request(request, ctx, admitted)?;
    let head = UpstreamHead::new(&input, &admitted.permit, request.lines.fields());
    let head = head.map_err(|error| to_failure(&error))?;
    let mut out = buffer_pool::take();
    write_request_line(&mut out, request, &admitted.permit.route);
    copy_fields(&mut out, &request.lines, KindSet::NONE, |field| {
        head.passes(field)
    });
    if request.body == BodyFraming::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if request.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    head.write(&mut out).map_err(|error| to_failure(&error))?;
    out.extend_from_slice(b"\r\n");
    ctx.trace_id = head.trace_id();
    Ok(out)
}

/// The input of the gateway's changes to a request.
///
/// # Errors
/// The request has no host, which the reader of heads has rejected.
pub(super) fn upstream_request<'a>(
    request: &'a Head,
    ctx: &'a RequestContext,
    admitted: &'a Admitted,
) -> Result<UpstreamRequest<'a>, Failure> {
    let (Some(origin), Some(host)) = (&ctx.client_origin, ctx.text.host()) else {
        return Err(Failure::Internal);
    };
    Ok(UpstreamRequest {
        settings: &ctx.snapshot.settings,
        assertions: &ctx.snapshot.assertions,
        origin,
        peer: &ctx.arrival.peer.origin,
        host,
        path: ctx.text.path(),
        request_id: &ctx.request_id,
        server_host: admitted
            .attempts
            .server
            .as_ref()
            .and_then(ChosenServer::host),
        via: &ctx.worker.via,
        version: match request.lines.http_10 {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        },
        carries_trailers: false,
    })
}

fn write_request_line(out: &mut Vec<u8>, request: &Head, route: &Route) {
    if route.strip_prefix {
        let target = request.target();
        let path_end = target.find('?').unwrap_or(target.len());
        let (path, query) = target.split_at(path_end);
        out.extend_from_slice(request.method());
        out.push(b' ');
        out.extend_from_slice(strip_prefix(path, &route.matches.path).as_bytes());
        out.extend_from_slice(query.as_bytes());
    } else {
        out.extend_from_slice(request.method_and_target());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

pub(super) fn to_failure(error: &HeaderError) -> Failure {
    tracing::error!(%error, "the head of a request cannot be written");
    match error {
        HeaderError::ConflictingLengths => Failure::InvalidRequest,
        HeaderError::InvalidValue | HeaderError::Assertion(_) => Failure::Internal,
    }
}

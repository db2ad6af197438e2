//! Headers that every response gets on its way to the client, and the record of its outcome.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::forward;
use super::header_map::{self, Removal};
use crate::limits::LimitHeaders;
use crate::pipeline::admission::Permit;
use crate::pipeline::client_response::ClientHead;
use crate::pipeline::client_response::framing::{self, LengthAction};
use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::hop_by_hop::ResponseConnection;
use crate::proxy::connection_auth;
use crate::proxy::open_streams::StreamKind;
use crate::proxy::open_streams::idle_timer::PendingChunk;
use crate::proxy::request_context::{Admitted, RequestContext, UpstreamAttempts};
use crate::rejection::Reason;
use crate::upstream::AttemptOutcome;

/// Completes the head of an upstream's response.
///
/// # Errors
/// Framing that is not valid; a header that does not fit.
pub(in crate::proxy) fn complete(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
) -> pingora::Result<()> {
    let list = header_map::list(&response.headers);
    let length = check(response, Fields::new(&list)).map_err(|fault| {
        ctx.reason = Some(Reason::Framing(fault));
        Error::new_up(ErrorType::InvalidHTTPHeader)
    })?;
    observe_head(session, response, ctx, admitted);
    let received = response.version;
    // Trailers pass only from HTTP/2 to HTTP/2.
    let keep_trailer = received == Version::HTTP_2;
    let connection = ResponseConnection::of(Fields::new(&list), false, keep_trailer);
    let head = client_head(ctx, &admitted.permit, received, length);
    let removal = Removal::of(&response.headers, &list, connection.edit(), |field| {
        is_pingoras(field.kind) || (connection.passes(field) && head.passes(field))
    });
    drop(list);
    if response.version == Version::HTTP_10 {
        // The upstream's version ends here (RFC 9110, section 2.5).
        response.set_version(Version::HTTP_11);
    }
    header_map::edit_response(response, |headers| {
        removal.apply(headers);
        head.write(headers);
    })?;
    if !response.status.is_informational() {
        ctx.forwarded.status = response.status.as_u16();
    }
    Ok(())
}

/// Records what the head says about the progress of the response.
fn observe_head(
    session: &mut Session,
    response: &ResponseHeader,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
) {
    if response.status == StatusCode::CONTINUE {
        forward::expect_body(session, ctx, admitted);
    }
    let idle_timer = &ctx.arrival.control.idle_timer;
    idle_timer.record_activity();
    if response.status.is_informational() {
        // Another head follows.
        return;
    }
    ctx.upstream_time = admitted.attempts.started.map(|it| it.elapsed());
    idle_timer.record_response(response.status.is_success(), !session.is_body_done());
    if let Some(server) = &admitted.attempts.server {
        server.report(AttemptOutcome::Success);
    }
    track_open_stream(response, ctx, admitted);
    if response.status == StatusCode::UNAUTHORIZED {
        handle_connection_challenge(response, ctx, &mut admitted.attempts);
    }
    if is_bodiless(session, response) {
        end_response(ctx, &admitted.attempts);
    }
}

/// The changes to the head.
fn client_head<'a>(
    ctx: &'a RequestContext,
    permit: &'a Permit,
    version: Version,
    length: LengthAction,
) -> ClientHead<'a> {
    ClientHead {
        permit,
        request_id: &ctx.request_id,
        via: &ctx.worker.via,
        cookie: &ctx.snapshot.settings.sessions.cookie,
        origin_header: ctx.origin_header.as_ref().map(HeaderValue::as_bytes),
        version,
        length,
        limits: LimitHeaders::of(&permit.decisions, || ctx.worker.store_clock()),
    }
}

/// Whether Pingora reads the field and writes its own.
fn is_pingoras(kind: FieldKind) -> bool {
    matches!(kind, FieldKind::Connection | FieldKind::TransferEncoding)
}

/// Checks that a response can be understood in one way only.
fn check(response: &ResponseHeader, fields: Fields<'_>) -> Result<LengthAction, &'static str> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // HTTP/2 has no upgrades.
        framing::check_upgrade(false, fields)?;
    }
    let is_http_10 = response.version == Version::HTTP_10;
    let (_, length) = framing::check(response.status.as_u16(), is_http_10, fields)?;
    Ok(length)
}

/// Follows the body of an upstream's response.
///
/// # Errors
/// The gateway gave up the upstream: without an error, the end of the connection would pass for the
/// end of a body that has no length.
pub(in crate::proxy) fn observe_body(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut RequestContext,
    admitted: &Admitted,
) -> pingora::Result<()> {
    ctx.forwarded.bytes += body.as_ref().map_or(0, |piece| piece.len() as u64);
    let idle_timer = &ctx.arrival.control.idle_timer;
    if let Some(piece) = body.take_if(|piece| !piece.is_empty()) {
        *body = Some(PendingChunk::wrap(piece, &ctx.arrival.control));
    }
    if !end {
        idle_timer.record_activity();
    } else if idle_timer.has_expired() {
        return Err(Error::new_up(ErrorType::ReadTimedout));
    } else {
        end_response(ctx, &admitted.attempts);
    }
    Ok(())
}

/// Records the end of a response: a gRPC client that continues to send has nothing to wait for.
pub(in crate::proxy) fn observe_trailers(ctx: &RequestContext, admitted: &Admitted) {
    if admitted.is_grpc_stream()
        && let Some(timeouts) = ctx.timeouts()
    {
        ctx.arrival
            .control
            .idle_timer
            .set_limit(Some(timeouts.read));
    }
}

/// Records that the upstream has sent its whole response.
fn end_response(ctx: &RequestContext, attempts: &UpstreamAttempts) {
    let control = &ctx.arrival.control;
    // The rest of a rejected body is not sent; an authentication handshake continues on its
    // connection.
    let rejected = control.idle_timer.is_upload_rejected() && !attempts.is_exclusive;
    if attempts.close_after_response || rejected {
        control.idle_timer.end_upstream();
    } else {
        control.idle_timer.end();
    }
    control.set_response_finished();
}

/// Handles an upstream's challenge to authenticate the connection: the client connection gets
/// upstream connections of its own, and this shared one is not used again.
fn handle_connection_challenge(
    response: &ResponseHeader,
    ctx: &RequestContext,
    attempts: &mut UpstreamAttempts,
) {
    let challenges = response.headers.get_all(header::WWW_AUTHENTICATE).iter();
    if !connection_auth::challenges_connection(challenges.map(HeaderValue::as_bytes)) {
        return;
    }
    let connections = &ctx.arrival.peer.own_connections;
    attempts.close_after_response = !attempts.is_exclusive;
    if let Some(chosen) = &attempts.server {
        connections.claim().pin(chosen);
    }
}

/// Whether a head is the whole response (RFC 9112, section 6.3).
fn is_bodiless(session: &Session, response: &ResponseHeader) -> bool {
    let empty = response
        .headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() == b"0");
    empty
        || session.req_header().method == Method::HEAD
        || matches!(
            response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
}

/// Records the expected duration of a response, so that a revocation closes a long one at once.
fn track_open_stream(response: &ResponseHeader, ctx: &RequestContext, admitted: &Admitted) {
    let content = response
        .headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    let kind = StreamKind::of_media_type(content);
    if kind == StreamKind::Short {
        return;
    }
    if kind == StreamKind::Endless || admitted.is_grpc_stream() {
        let idle = ctx.timeouts().and_then(|timeouts| timeouts.stream_idle);
        ctx.arrival.control.idle_timer.allow_idle(idle);
    }
    admitted.registration.set_kind(kind);
}

/// Records the outcome of a response when Pingora reports its end.
pub(in crate::proxy) fn record_outcome(session: &Session, ctx: &mut RequestContext) {
    // The response to a query has its own status, and the request that it is about another.
    let written = session.response_written().filter(|_| !ctx.is_query());
    if let Some(written) = written {
        ctx.status = written.status.as_u16();
    }
    ctx.body_received = session.body_bytes_read() as u64;
    // Pingora does not count a body that was queued in h2 as a whole.
    ctx.body_sent = ctx.body_sent.max(session.body_bytes_sent() as u64);
}

//! Forwarding to an upstream: the choice of a server, and the request that it receives.

use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;
use http::Version;
use http::header::{self, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::{failure, header_map, peer};
use crate::clock;
use crate::pipeline::fields::{Field, FieldKind, Fields};
use crate::pipeline::upstream_request::{UpstreamHead, UpstreamRequest};
use crate::proxy::open_streams::EVENT_STREAM;
use crate::proxy::request_context::{Admitted, RequestContext};
use crate::proxy::retry::Failure;
use crate::proxy::server_selection;
use crate::routing::strip_prefix;
use crate::settings::Timeouts;
use crate::upstream::ChosenServer;

/// Request bodies up to this length arrive well within any read timeout.
const SHORT_BODY: u64 = 16 * 1024;

/// Selects a server and returns how to connect to it.
///
/// # Errors
/// 503 when no server is in rotation.
pub(in crate::proxy) fn choose(
    session: &mut Session,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
) -> pingora::Result<Box<HttpPeer>> {
    let is_grpc_stream = admitted.is_grpc_stream();
    let (permit, attempts) = (&admitted.permit, &mut admitted.attempts);
    let client = Arc::clone(&ctx.arrival.peer);
    let headers = &session.req_header().headers;
    let credentials = headers.get_all(header::AUTHORIZATION).iter();
    let owner = client
        .own_connections
        .of_request(credentials.map(HeaderValue::as_bytes));
    let address = ctx.client_origin.as_ref().map_or(client.ip, |it| it.ip);
    let tried = &attempts.tried;
    let value = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let chosen = server_selection::select(permit, &ctx.snapshot, value, address, owner, tried);
    let Some(chosen) = chosen else {
        let last = attempts.last_failure.take();
        ctx.record_failure(last.unwrap_or(Failure::NoServer));
        return Err(Error::new(ErrorType::HTTPStatus(503)));
    };
    let mut peer = peer::of(chosen.address(), &permit.route.timeouts);
    if let Some(owner) = owner {
        owner.pin(&chosen);
        attempts.is_exclusive = true;
        attempts.pending_slot = Some(peer::isolate(&mut peer, owner));
    } else if attempts.needs_new_connection {
        // A key that no pooled connection has.
        peer.group_key = rand::random();
    }
    let own_deadline = is_http1(&peer) || is_grpc_stream;
    if own_deadline || accepts_event_stream(session) || has_long_body(session) {
        // The idle timer measures the upstream (`begin`). Where both sides speak HTTP/2 the gateway
        // could end a request only with a reset; there Pingora's timeout gives a better response, a
        // 504. Requests for an event stream are exceptions, as are gRPC calls, whose end is
        // reported in trailers, and long uploads: Pingora's timeout runs from the head of the
        // request and would cut them off.
        peer.options.read_timeout = None;
    }
    attempts.tried.push(chosen.server());
    attempts.server = Some(chosen);
    attempts.started = Some(clock::monotonic());
    Ok(peer)
}

/// Writes the head of the request toward the upstream.
///
/// # Errors
/// A value that no header can carry.
pub(in crate::proxy) fn prepare(
    session: &Session,
    request: &mut RequestHeader,
    ctx: &mut RequestContext,
    admitted: &Admitted,
) -> pingora::Result<()> {
    let (Some(origin), Some(host)) = (&ctx.client_origin, ctx.text.host()) else {
        // The decision rejects a request without a host.
        return Err(Error::new(ErrorType::HTTPStatus(500)));
    };
    let (permit, attempts) = (&admitted.permit, &admitted.attempts);
    let received = session.req_header();
    let input = UpstreamRequest {
        settings: &ctx.snapshot.settings,
        assertions: &ctx.snapshot.assertions,
        via: &ctx.worker.via,
        version: received.version,
        origin,
        peer: &ctx.arrival.peer.origin,
        host,
        path: ctx.text.path(),
        request_id: &ctx.request_id,
        server_host: attempts.server.as_ref().and_then(ChosenServer::host),
        carries_trailers: request.version == Version::HTTP_2,
    };
    let list = header_map::list(&received.headers);
    let head = UpstreamHead::new(&input, permit, Fields::new(&list));
    let head = head.map_err(failure::from_header_error)?;
    let needs_te = ctx.is_grpc && request.version == Version::HTTP_2;
    header_map::edit_request(request, |headers| {
        let passes = |field: &Field<'_>| head.passes(field) || is_pingoras(field.kind);
        for name in header_map::failing(&received.headers, &list, passes) {
            headers.remove(name);
        }
        if !received.headers.contains_key(header::HOST) {
            // Pingora derives it from the authority.
            headers.remove(header::HOST);
        }
        if needs_te {
            // Pingora removes it, and gRPC servers require it.
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        // Reserved once, for all headers that are added.
        headers.reserve(12);
        head.write(headers)
    })?
    .map_err(failure::from_header_error)?;
    let trace_id = head.trace_id();
    let route = &permit.route;
    if route.strip_prefix {
        let path = request.uri.path().to_owned();
        let mut stripped = strip_prefix(&path, &route.matches.path).to_owned();
        if let Some(query) = request.uri.query() {
            stripped = format!("{stripped}?{query}");
        }
        request.set_raw_path(stripped.as_bytes())?;
    }
    ctx.trace_id = trace_id;
    Ok(())
}

/// Whether Pingora has replaced the client's field by its own.
fn is_pingoras(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Connection | FieldKind::TransferEncoding | FieldKind::Upgrade
    )
}

/// Cuts a request body off at the route's limit.
///
/// # Errors
/// 413 once the body exceeds the limit.
pub(in crate::proxy) fn count_body(
    session: &mut Session,
    body: Option<&Bytes>,
    end: bool,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
) -> pingora::Result<()> {
    if end && admitted.is_grpc_stream() && session.response_written().is_none() {
        // From here on the call waits for the upstream alone.
        let read = ctx.timeouts().map(|timeouts| timeouts.read);
        ctx.arrival.control.idle_timer.set_limit(read);
    }
    let control = &ctx.arrival.control;
    if body.is_some() {
        control.idle_timer.record_activity();
        control.note_client_data();
    }
    let Some(body) = body else {
        if ctx.body_received > 0 {
            control.idle_timer.record_upload(end);
        }
        return Ok(());
    };
    control.idle_timer.record_upload(end);
    if ctx.body_received == 0 && !end {
        // Also for a client that asked for `100 Continue` and sends without waiting for it.
        expect_body(session, ctx, admitted);
    }
    control.body_rate.count(body.len());
    ctx.body_received += body.len() as u64;
    let limit = admitted.permit.route.max_body;
    let too_large = match &mut admitted.grpc_stream {
        Some(messages) => messages.pass(body, limit).is_err(),
        None => ctx.body_received > limit,
    };
    if too_large {
        ctx.record_failure(Failure::BodyTooLarge);
        return Err(Error::new_down(ErrorType::HTTPStatus(413)));
    }
    Ok(())
}

/// Passes on the end of a request body without data. Pingora would write empty data as a chunk of
/// length zero, which is the end, and then write the end again.
pub(in crate::proxy) fn end_body(body: &mut Option<Bytes>, end: bool) {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}

/// Records that the request goes over an established connection. Starts the idle timer: at most
/// `read`, until the response turns out to be a stream; for a gRPC call, from the end of its
/// request.
pub(in crate::proxy) fn begin(
    session: &mut Session,
    peer: &HttpPeer,
    (descriptor, reused): (RawFd, bool),
    ctx: &RequestContext,
    admitted: &mut Admitted,
) {
    admitted.attempts.sent += 1;
    if let (Some(slot), false) = (admitted.attempts.pending_slot.take(), reused) {
        let owner = ctx.arrival.peer.own_connections.claim();
        owner.record_opened(&slot, descriptor);
    }
    // A client that waits for `100 Continue` is not late before the interim response.
    if !session.req_header().headers.contains_key(header::EXPECT) {
        expect_body(session, ctx, admitted);
    }
    if peer.options.read_timeout.is_none() {
        let timeouts = ctx.timeouts();
        // An HTTP/2 connection carries other requests too.
        let own = is_http1(peer).then_some(descriptor);
        let idle_timer = &ctx.arrival.control.idle_timer;
        idle_timer.begin(timeouts.as_ref().map(|timeouts| timeouts.read), own);
        if admitted.is_grpc_stream() {
            // A client that streams may be quiet for longer; the end of its request ends that.
            idle_timer.allow_idle(timeouts.and_then(|timeouts| timeouts.stream_idle));
        }
    }
}

/// Starts to measure the rate of the client's body.
pub(in crate::proxy) fn expect_body(
    session: &mut Session,
    ctx: &RequestContext,
    admitted: &Admitted,
) {
    if session.is_body_done() || admitted.is_grpc_stream() {
        return;
    }
    if let Some((listener, _)) = ctx.listener() {
        let rate = &ctx.arrival.control.body_rate;
        rate.begin(listener.limits.body_rate);
    }
}

fn is_http1(peer: &HttpPeer) -> bool {
    peer.options.alpn.get_max_http_version() == 1
}

/// Whether the request body may take longer to arrive than an upstream may be idle.
fn has_long_body(session: &mut Session) -> bool {
    if session.is_body_done() {
        return false;
    }
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length: u64| length > SHORT_BODY)
}

/// Whether a request asks for a response that may be idle for long.
fn accepts_event_stream(session: &Session) -> bool {
    let kinds = session.req_header().headers.get_all(header::ACCEPT);
    kinds.iter().any(|kinds| {
        let mut parts = kinds.as_bytes().windows(EVENT_STREAM.len());
        parts.any(|part| part.eq_ignore_ascii_case(EVENT_STREAM))
    })
}

impl RequestContext {
    /// The timeouts in force for the request's route.
    pub(in crate::proxy) fn timeouts(&self) -> Option<Timeouts> {
        let route = self.route.as_ref()?;
        let upstream = self.snapshot.settings.upstreams.get(route.upstream?)?;
        Some(upstream.timeouts.with_overrides(&route.timeouts))
    }
}

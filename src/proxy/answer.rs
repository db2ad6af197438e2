//! What every answer gets on its way to the client, and what is measured when it is over.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::context::Context;
use super::live::Kind;
use super::live::silence::Untaken;
use super::respond::{self, Answer};
use super::response_framing::{self, Length};
use super::{connection_auth, fields, forward, headers, hop_by_hop, worker};
use crate::auth::credential;
use crate::limits::{self, Decision};
use crate::refusal::{Grounds, Refusal};
use crate::store::Store;
use crate::telemetry::request_id::X_REQUEST_ID;

/// The media type of an event stream (HTML, section 9.2).
pub(super) const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Completes the head of an upstream's response.
///
/// # Errors
/// Framing that is not valid; a header that does not fit.
pub(super) fn complete(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> pingora::Result<()> {
    let length = check(session, response).map_err(|fault| {
        ctx.reason = fault;
        Error::new_up(ErrorType::InvalidHTTPHeader)
    })?;
    let interim =
        response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS;
    if let (false, Some(started)) = (interim, ctx.upstream_started) {
        ctx.upstream_time = Some(started.elapsed());
    }
    if response.status == StatusCode::CONTINUE {
        forward::expect_body(session, ctx);
    }
    ctx.arrival.control.silence.hear();
    if !interim {
        let uploading = response.status != 101 && !session.is_body_done();
        let silence = &ctx.arrival.control.silence;
        silence.pass_response(response.status.is_success(), uploading);
    }
    // An answer before the end of the body costs the connection; word to go on with it does not.
    session.set_close_on_response_before_downstream_finish(!interim);
    follow_streams(session, response, ctx);
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if response.status == StatusCode::UNAUTHORIZED {
        follow_challenge(response, ctx);
    }
    if !interim && !upgraded && is_bodiless(session, response) {
        end_response(ctx);
    }
    let received = response.version;
    let client = session.req_header().version;
    let upgrade = upgraded || response.status == StatusCode::UPGRADE_REQUIRED;
    let keep_upgrade = upgrade && client == Version::HTTP_11;
    // Trailers pass only from HTTP/2 to HTTP/2.
    let keep_trailer = respond::is_http2(session) && received == Version::HTTP_2;
    if response.version == Version::HTTP_10 {
        // How the upstream speaks ends here (RFC 9110, section 2.5).
        response.set_version(Version::HTTP_11);
    }
    fields::of_response(response, |fields| -> pingora::Result<()> {
        length.settle(fields);
        hop_by_hop::strip_response(fields, keep_upgrade, keep_trailer)?;
        ctx.worker.via.write(fields, received);
        write(fields, ctx);
        Ok(())
    })??;
    let sized = response.headers.contains_key(header::CONTENT_LENGTH);
    let endless = client == Version::HTTP_10 && !interim && !sized;
    if endless || (!upgraded && ctx.worker.readiness.is_draining()) {
        session.set_keepalive(None);
    }
    if !interim {
        ctx.passed.status = response.status.as_u16();
    }
    Ok(())
}

/// Checks that a response can be understood in one way only.
fn check(session: &Session, response: &ResponseHeader) -> Result<Length, &'static str> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        response_framing::check_upgrade(session.is_upgrade_req(), &response.headers)?;
    }
    response_framing::check(response.status, response.version, &response.headers)
}

/// Writes what every answer of the route carries, in the place of what the upstream said of it.
fn write(fields: &mut HeaderMap, ctx: &Context) {
    fields.insert(X_REQUEST_ID, ctx.request_id.header());
    let rules = &ctx.current.live.sessions.cookie;
    headers::strip_set_cookie(fields, &rules.name);
    let Some(permit) = &ctx.permit else {
        return;
    };
    if !permit.decisions.is_empty() {
        fields.reserve(5);
        // Ours take the place of the upstream's own of the same name.
        for (name, value) in limit_headers(&permit.decisions, &ctx.worker.store) {
            fields.insert(name, value);
        }
    }
    headers::edit(fields, &permit.route.response_headers);
    if let Some(cors) = &permit.route.cors {
        // The edge speaks for the route: an upstream's own CORS headers would contradict it.
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            fields.remove(name);
        }
        for (name, value) in cors.actual(ctx.request_origin.as_ref()) {
            fields.append(name, value);
        }
    }
    if permit.clear_cookie {
        for cookie in credential::clearing_cookies(rules) {
            fields.append(header::SET_COOKIE, cookie);
        }
    }
}

/// Follows the body of an upstream's answer.
///
/// # Errors
/// It ended because the gateway waited no longer: without an error an end of the connection would
/// pass for the end of a body that has no length.
pub(super) fn pass_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> pingora::Result<()> {
    ctx.passed.bytes += body.as_ref().map_or(0, |piece| piece.len() as u64);
    let silence = &ctx.arrival.control.silence;
    if respond::is_http2(session)
        && let Some(piece) = body.take_if(|piece| !piece.is_empty())
    {
        *body = Some(Untaken::wrap(piece, &ctx.arrival.control));
    }
    if !end {
        silence.hear();
    } else if silence.is_late() {
        return Err(Error::new_up(ErrorType::ReadTimedout));
    } else {
        end_response(ctx);
    }
    Ok(())
}

/// Takes note of the end of a response: a gRPC client that goes on sending has nothing to wait for.
pub(super) fn pass_trailers(ctx: &Context) {
    if ctx.is_grpc_stream
        && let Some(timeouts) = ctx.timeouts()
    {
        ctx.arrival.control.silence.allow(Some(timeouts.read));
    }
}

/// Notes that the upstream has sent its whole response.
fn end_response(ctx: &Context) {
    let control = &ctx.arrival.control;
    // The rest of a body that was rejected is not sent; a handshake goes on over its connection.
    let rejected = control.silence.is_upload_rejected() && !ctx.is_apart;
    if ctx.close_upstream || rejected {
        control.silence.end_upstream();
    } else {
        control.silence.end();
    }
    control.set_answered();
}

/// Follows an upstream's challenge to authenticate the connection: the client connection gets
/// upstream connections of its own, and this one, which is none of them, is not used again.
fn follow_challenge(response: &ResponseHeader, ctx: &mut Context) {
    if !connection_auth::challenges_connection(&response.headers) {
        return;
    }
    let connections = &ctx.arrival.peer.own_connections;
    ctx.close_upstream = !ctx.is_apart;
    if let Some(chosen) = &ctx.chosen {
        connections.claim().pin(chosen);
    }
}

/// Whether a head is the whole answer (RFC 9112, section 6.3).
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

/// Notes an answer that may stay open for long, so that a revocation closes it at once.
fn follow_streams(session: &mut Session, response: &ResponseHeader, ctx: &mut Context) {
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded {
        ctx.arrival.control.set_upgraded();
        ctx.status = response.status.as_u16();
        // Pingora's own, 60 seconds; `stream_idle` is watched with the upstream's silence.
        session.set_read_timeout(None);
    }
    let content = response
        .headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    let kind = if upgraded {
        Kind::Endless
    } else {
        kind_of(content)
    };
    if kind == Kind::Short {
        return;
    }
    if kind == Kind::Endless || ctx.is_grpc_stream {
        let idle = ctx.timeouts().and_then(|timeouts| timeouts.stream_idle);
        ctx.arrival.control.silence.allow_idle(idle);
    }
    if kind == Kind::Endless {
        // A client that has closed its side will never be told the end of it.
        session.as_downstream_mut().set_abort_on_close(true);
    }
    if let Some(ticket) = &ctx.ticket {
        ticket.becomes(kind);
    }
}

/// What an answer's media type says of how long it may last. Case means nothing in it (RFC 9110,
/// section 8.3.1), and gRPC's may go on behind a `+`.
fn kind_of(content: &[u8]) -> Kind {
    let begins = |name: &[u8]| {
        let start = content.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let rest = content.get(EVENT_STREAM.len()..).unwrap_or_default();
    let whole = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    if begins(EVENT_STREAM) && whole {
        Kind::Endless
    } else if begins(b"application/grpc") {
        Kind::Call
    } else {
        Kind::Short
    }
}

/// The limit headers of an answer; none where no limit was evaluated. Limits go by the store's clock,
/// and so does the time at which they say that one is whole again.
pub(super) fn limit_headers(
    decisions: &[Decision],
    store: &Store,
) -> Vec<(HeaderName, HeaderValue)> {
    if decisions.is_empty() {
        return Vec::new();
    }
    limits::headers(decisions, Duration::from_millis(store.clock()))
}

/// The names of the limits that turned a request away.
pub(super) fn violated(decisions: &[Decision]) -> Vec<String> {
    let refusing = decisions.iter().filter(|decision| decision.refuses());
    refusing
        .map(|decision| decision.limit.name.to_string())
        .collect()
}

/// Answers with a refusal, with what every answer of its route carries.
///
/// # Errors
/// The client went away.
pub(super) async fn refuse(
    session: &mut Session,
    ctx: &mut Context,
    mut answer: Answer,
) -> pingora::Result<()> {
    ctx.refusal = Some(answer.refusal);
    if let Some(cors) = ctx.route.as_ref().and_then(|route| route.cors.as_ref()) {
        answer
            .headers
            .extend(cors.actual(ctx.request_origin.as_ref()));
    }
    respond::refuse(session, ctx, &answer).await
}

/// Reads off what an answer was, when Pingora says that it is over.
pub(super) fn measure(session: &Session, ctx: &mut Context) {
    if let Some(written) = session.response_written() {
        ctx.status = written.status.as_u16();
    }
    ctx.body_received = session.body_bytes_read() as u64;
    // What was left to h2 as a whole, Pingora has not counted.
    ctx.body_sent = ctx.body_sent.max(session.body_bytes_sent() as u64);
}

impl Context {
    /// Keeps for the log what decided a refusal, and whose request it was.
    pub(super) fn ground(&mut self, grounds: Option<Box<Grounds>>) {
        let Some(mut grounds) = grounds else { return };
        self.user = grounds.user.take().or_else(|| self.user.take());
        self.session = grounds.session.or(self.session);
        self.grounds = Some(grounds);
    }

    /// Keeps for the log which of these limits refused.
    pub(super) fn ground_in_limits(&mut self, decisions: &[Decision]) {
        let violated = violated(decisions);
        if !violated.is_empty() {
            self.grounds.get_or_insert_default().limit = Some(violated.join(","));
        }
    }

    /// The `route` label of metrics.
    pub(super) fn route_label(&self) -> &str {
        match &self.route {
            Some(route) => &route.name,
            None if self.by_api => worker::API_ROUTE,
            None => worker::NO_ROUTE,
        }
    }

    /// Whether there was an authentication to count.
    pub(super) fn was_judged(&self) -> bool {
        self.authenticated || self.refusal.is_some_and(Refusal::is_of_authentication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_may_last_is_read_off_its_media_type() {
        for (content, kind) in [
            ("text/event-stream", Kind::Endless),
            ("Text/Event-Stream;charset=UTF-8", Kind::Endless),
            ("TEXT/EVENT-STREAM ; charset=utf-8", Kind::Endless),
            ("text/event-streams", Kind::Short),
            ("text/event", Kind::Short),
            ("application/grpc", Kind::Call),
            ("Application/GRPC+proto", Kind::Call),
            ("application/json", Kind::Short),
            ("", Kind::Short),
        ] {
            assert_eq!(kind_of(content.as_bytes()), kind, "{content}");
        }
    }
}

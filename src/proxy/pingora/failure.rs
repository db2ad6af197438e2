//! Failures of upstreams: a retry where it is safe, else the matching 5xx.

use futures_util::FutureExt;
use http::{HeaderMap, header};
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::error_kind::upstream_error;
use crate::pipeline::header_fields::HeaderError;
use crate::pipeline::local_response::CallOutcome;
use crate::proxy::grpc::Messages;
use crate::proxy::local_response;
use crate::proxy::request_context::RequestContext;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::upstream::{AttemptOutcome, ChosenServer, UpstreamError};

/// Attributes an error that came before a request was forwarded to the client, unless the gateway
/// itself caused it.
pub(in crate::proxy) fn attribute_early_error(mut error: Box<Error>) -> Box<Error> {
    if *error.esource() == ErrorSource::Unset && *error.etype() != ErrorType::InternalError {
        error.as_down();
    }
    error
}

/// Converts an error about a message's headers into one of Pingora's.
pub(in crate::proxy) fn from_header_error(error: HeaderError) -> Box<Error> {
    match error {
        HeaderError::ConflictingLengths => Error::new_down(ErrorType::InvalidHTTPHeader),
        HeaderError::InvalidValue(_) | HeaderError::Assertion(_) => {
            let context = "the headers cannot be written";
            Error::because(ErrorType::InternalError, context, error)
        }
    }
}

/// A failed connection attempt has carried no data: further servers are tried, each once, whatever
/// the method. [`super::forward::choose`] fails when none is left.
pub(in crate::proxy) fn handle_connect_error(
    ctx: &mut RequestContext,
    mut error: Box<Error>,
) -> Box<Error> {
    warn_failed_attempt(ctx, &error);
    error.set_retry(true);
    if is_unprocessed(&error) && !ctx.attempts.needs_new_connection {
        // A pooled HTTP/2 connection is going away, which is not a failure of its server.
        ctx.attempts.tried.pop();
        ctx.attempts.needs_new_connection = true;
        return error;
    }
    let timeout = matches!(
        error.etype(),
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout
    );
    report(
        ctx,
        if timeout {
            AttemptOutcome::Timeout
        } else {
            AttemptOutcome::ConnectFailed
        },
    );
    ctx.attempts.last_failure = Some((refusal_of(&error), cause_of(&error)));
    count(ctx, upstream_error(&error));
    error
}

/// Once connected, a request is sent again only if the upstream cannot have processed it: it has
/// declared so, or the method is safe, the body was not sent, and the pooled connection turned out to
/// be closed.
pub(in crate::proxy) fn handle_proxy_error(
    session: &mut Session,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let idle_timer = &ctx.arrival.control.idle_timer;
    let late = idle_timer.has_expired();
    idle_timer.end();
    if ctx.arrival.control.body_rate.is_late() {
        ctx.refusal = Some(Refusal::RequestTimeout);
        ctx.reason = Some(Reason::BodyTooSlow);
        error.set_retry(false);
        return error;
    }
    error.retry.decide_reuse(reused);
    let unprocessed = is_unprocessed(&error);
    if ctx.refusal.is_none() && may_send_again(session, ctx, &error, unprocessed && !late) {
        warn_failed_attempt(ctx, &error);
        // The server is not to blame: it may be tried again, but not over a connection that is
        // stale or full. After a GOAWAY, Pingora does not reuse the connection.
        ctx.attempts.tried.pop();
        ctx.attempts.needs_new_connection = !is_graceful(&error);
        ctx.attempts.last_failure = Some((refusal_of(&error), cause_of(&error)));
        ctx.body_received = 0;
        ctx.grpc = ctx.grpc.is_some().then(Messages::default);
        error.set_retry(true);
        return error;
    }
    error.set_retry(false);
    let timed_out = late || *error.etype() == ErrorType::ReadTimedout;
    if ctx.grpc.is_some() && !late && ctx.arrival.control.close_reason().is_some() {
        ctx.reason = Some(Reason::CredentialEnded);
    } else if timed_out && !ctx.is_grpc_stream() && is_client_late(session, ctx) {
        ctx.refusal = Some(Refusal::RequestTimeout);
        ctx.reason = Some(Reason::BodyStalled);
    } else if late {
        // The error is the end of the connection, which the gateway itself closed.
        ctx.refusal = Some(Refusal::UpstreamTimeout);
        ctx.reason = Some(ctx.arrival.control.idle_timer.timeout_reason());
        count(ctx, UpstreamError::Timeout);
        report(ctx, AttemptOutcome::Timeout);
    } else if *error.esource() == ErrorSource::Upstream {
        warn_failed_attempt(ctx, &error);
        ctx.attempts.last_failure = Some((refusal_of(&error), cause_of(&error)));
        count(ctx, upstream_error(&error));
        // A pooled connection that had been closed is not a failure of its server.
        if !reused {
            report(ctx, outcome_of(&error));
        }
    }
    error
}

/// Whether a request that failed on an established connection is sent again.
fn may_send_again(
    session: &Session,
    ctx: &RequestContext,
    error: &Error,
    unprocessed: bool,
) -> bool {
    let client = session.as_downstream();
    let body = client.get_retry_buffer();
    let repeatable = unprocessed && !client.retry_buffer_truncated();
    let untouched = body.is_none_or(|body| body.is_empty());
    let stale = error.retry() && ctx.method.is_safe() && untouched;
    let control = &ctx.arrival.control;
    let over = control.idle_timer.has_expired() || control.close_reason().is_some();
    (repeatable || stale) && !over && !has_responded(session) && may_retry(ctx)
}

/// Whether the upstream has declared that it did not process the request: the stream was refused,
/// or is above the last one of a GOAWAY (RFC 9113, sections 6.8 and 8.7). Streams at or below it
/// end with another error.
fn is_unprocessed(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || refused)
    })
}

/// Whether the upstream closes the connection gracefully.
fn is_graceful(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// Whether a request that timed out waits for its body and not for the upstream.
fn is_client_late(session: &mut Session, ctx: &RequestContext) -> bool {
    if session.is_body_done() {
        return false;
    }
    let expects = session.req_header().headers.contains_key(header::EXPECT);
    if expects && ctx.body_received == 0 && session.response_written().is_none() {
        // The client waits for `100 Continue`.
        return false;
    }
    // Data that the client has sent and the upstream has not accepted would be readable here.
    let unsent = session.as_downstream_mut().read_request_body();
    let unsent = tokio::task::unconstrained(unsent).now_or_never();
    !matches!(unsent, Some(Ok(Some(_))))
}

/// Reports an attempt that the upstream failed, whether or not the request is sent again.
fn warn_failed_attempt(ctx: &RequestContext, error: &Error) {
    let chosen = ctx.attempts.server.as_ref();
    tracing::warn!(
        request_id = %ctx.request_id,
        upstream = chosen.map(ChosenServer::upstream),
        server = chosen.map(ChosenServer::url),
        %error,
        "an upstream attempt failed",
    );
}

/// Why an attempt failed, for the access log.
fn cause_of(error: &Error) -> Option<Reason> {
    Some(match error.etype() {
        ErrorType::ConnectRefused => Reason::ConnectRefused,
        ErrorType::ConnectTimedout => Reason::ConnectTimeout,
        ErrorType::ConnectNoRoute => Reason::NoRouteToServer,
        ErrorType::TLSHandshakeTimedout => Reason::TlsTimeout,
        ErrorType::InvalidCert => Reason::InvalidCertificate,
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => Reason::TlsFailed,
        ErrorType::ConnectError | ErrorType::SocketError | ErrorType::BindError => {
            Reason::ConnectFailed
        }
        ErrorType::ReadTimedout => Reason::ReadTimeout,
        ErrorType::WriteTimedout => Reason::WriteTimeout,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            Reason::ConnectionEnded
        }
        ErrorType::InvalidHTTPHeader | ErrorType::H2Error | ErrorType::InvalidH2 => {
            Reason::InvalidResponse
        }
        _ => return None,
    })
}

/// Whether the head of a final response has gone out; an interim one may be followed by any other.
fn has_responded(session: &Session) -> bool {
    let written = session.response_written();
    written.is_some_and(|head| !head.status.is_informational() || head.status == 101)
}

/// Counts an error of the request's upstream.
fn count(ctx: &RequestContext, kind: UpstreamError) {
    let index = ctx.route.as_ref().map(|route| route.upstream);
    if let Some(upstream) = index.and_then(|index| ctx.snapshot.settings.upstreams.get(index)) {
        let labels = [&*upstream.name, kind.as_str()];
        let errors = &ctx.worker.metrics.upstream_errors;
        errors.with_label_values(&labels).inc();
    }
}

fn may_retry(ctx: &RequestContext) -> bool {
    let retries = ctx
        .route
        .as_ref()
        .and_then(|route| ctx.snapshot.settings.upstreams.get(route.upstream))
        .map_or(0, |upstream| upstream.retries);
    ctx.attempts.sent <= retries
}

fn report(ctx: &mut RequestContext, outcome: AttemptOutcome) {
    if let Some(chosen) = ctx.attempts.server.take() {
        chosen.report(outcome);
    }
}

fn outcome_of(error: &Error) -> AttemptOutcome {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => AttemptOutcome::Timeout,
        _ => AttemptOutcome::ProtocolError,
    }
}

/// Responds for an upstream that failed, if a response is still possible.
pub(in crate::proxy) async fn respond_with_error(
    session: &mut Session,
    ctx: &mut RequestContext,
    error: &Error,
) -> FailToProxy {
    let refusal = ctx.refusal.unwrap_or_else(|| refusal_of(error));
    let reason = error.etype().as_str();
    tracing::debug!(request_id = %ctx.request_id, %reason, "the request failed");
    if ctx.reason.is_none() && *error.esource() == ErrorSource::Upstream {
        ctx.reason = cause_of(error);
    }
    let malformed = ctx.arrival.control.is_malformed();
    if malformed {
        ctx.reason = Some(Reason::MalformedChunks);
    }
    let client_gone = !malformed
        && !ctx.arrival.control.idle_timer.has_expired()
        && !ctx.arrival.control.body_rate.is_late()
        && *error.esource() == ErrorSource::Downstream
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed
                | ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::WriteTimedout
                | ErrorType::H2Error
        );
    let ended = ctx.reason == Some(Reason::CredentialEnded);
    if let (false, true, Some(_)) = (client_gone, local_response::is_http2(session), &ctx.grpc)
        && (ended || has_responded(session))
    {
        return end_call(session, ctx, ended, refusal).await;
    }
    if client_gone || has_responded(session) {
        // The client is gone or the head has gone out: only the connection's end can signal the
        // failure.
        session.set_keepalive(None);
        if ctx.status == 0 {
            ctx.status = 499;
        }
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    let permit = ctx.admitted.as_ref().map(|admitted| &admitted.permit);
    let rejection = Rejection {
        decisions: permit.map_or_else(Vec::new, |permit| permit.decisions.clone()),
        ..refusal.into()
    };
    session.set_keepalive(None);
    // The client may have gone meanwhile.
    let sent = local_response::send_rejection(session, ctx, rejection, &HeaderMap::new()).await;
    if sent.is_ok() && !local_response::is_http2(session) {
        // Closed gracefully: a client that still sends its body would see a reset before the
        // response.
        session.as_downstream_mut().shutdown().await;
    }
    FailToProxy {
        error_code: refusal.status().as_u16(),
        can_reuse_downstream: false,
    }
}

/// Reports in trailers the outcome of a gRPC call whose head has gone out, or whose session has
/// ended.
async fn end_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    ended: bool,
    refusal: Refusal,
) -> FailToProxy {
    let outcome = if ended {
        CallOutcome::ENDED
    } else {
        ctx.refusal = Some(refusal);
        CallOutcome::of(refusal, None)
    };
    // The client may have gone meanwhile.
    let _ = local_response::end_call(session, ctx, outcome).await;
    FailToProxy {
        error_code: 0,
        can_reuse_downstream: false,
    }
}

/// Distinguishes 502, 503 and 504.
fn refusal_of(error: &Error) -> Refusal {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Refusal::RequestTimeout,
        (ErrorSource::Downstream, _) => Refusal::BadRequest,
        (_, ErrorType::HTTPStatus(413)) => Refusal::BodyTooLarge,
        (_, ErrorType::HTTPStatus(503)) => Refusal::UpstreamUnavailable,
        (_, ErrorType::HTTPStatus(500)) => Refusal::Internal,
        (
            _,
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout,
        ) => Refusal::UpstreamTimeout,
        (
            _,
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::BindError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError
            | ErrorType::TLSWantX509Lookup,
        ) => Refusal::UpstreamUnreachable,
        (ErrorSource::Upstream, _) => Refusal::UpstreamProtocolError,
        (ErrorSource::Internal | ErrorSource::Unset, _) => Refusal::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_timeout_names_its_key() {
        for (error, key) in [
            (ErrorType::ConnectTimedout, "timeouts.connect"),
            (ErrorType::TLSHandshakeTimedout, "timeouts.connect"),
            (ErrorType::WriteTimedout, "timeouts.write"),
            (ErrorType::ReadTimedout, "timeouts.read"),
        ] {
            let reason = cause_of(&Error::new_up(error.clone()));
            let text = reason.map_or("", Reason::as_str);
            assert!(text.ends_with(key), "{error:?}: {text}");
        }
    }
}

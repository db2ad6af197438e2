//! What becomes of a request whose upstream fails: a retry where it is safe, else the right 5xx.

use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::context::Context;
use super::respond::{self, Answer};
use super::upstream::Outcome;
use super::{answer, grpc};
use crate::refusal::Refusal;

/// Why the gateway ended a gRPC call, for the log.
const ENDED: &str = "the session or the token has ended";

/// A connection that failed has carried nothing: another server may be asked, whatever the method.
pub(super) fn to_connect(ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    let timeout = matches!(
        error.etype(),
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout
    );
    report(
        ctx,
        if timeout {
            Outcome::Timeout
        } else {
            Outcome::ConnectFailed
        },
    );
    ctx.failed = Some(refusal_of(&error));
    error.set_retry(may_retry(ctx));
    error
}

/// Once connected, only a request that the upstream cannot have processed is sent again: a safe one,
/// whose body was not sent, on a pooled connection that turned out to be closed.
pub(super) fn while_proxying(
    session: &mut Session,
    ctx: &mut Context,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let silence = &ctx.arrival.control.silence;
    let late = silence.is_late();
    silence.end();
    if ctx.arrival.control.body_rate.is_late() {
        ctx.refusal = Some(Refusal::RequestTimeout);
        ctx.reason = "the body came more slowly than body_rate";
        error.set_retry(false);
        return error;
    }
    let timed_out = late || *error.etype() == ErrorType::ReadTimedout;
    if ctx.grpc.is_some() && !late && ctx.arrival.control.closing().is_some() {
        ctx.reason = ENDED;
    } else if timed_out && ctx.grpc.is_none() && !session.is_body_done() {
        // The upstream waits for a body that does not come: the client is late, not the server.
        ctx.refusal = Some(Refusal::RequestTimeout);
    } else if late {
        ctx.refusal = Some(Refusal::UpstreamTimeout);
        report(ctx, Outcome::Timeout);
    } else if *error.esource() == ErrorSource::Upstream {
        ctx.failed = Some(refusal_of(&error));
        // That a pooled connection had been closed says nothing of the server.
        if !reused {
            report(ctx, outcome_of(&error));
        }
    }
    let untouched = session.response_written().is_none()
        && session
            .as_downstream()
            .get_retry_buffer()
            .is_none_or(|body| body.is_empty());
    let safe = ctx.method.is_safe() && untouched;
    error.retry.decide_reuse(reused);
    if error.retry() && safe && !late && may_retry(ctx) {
        // The server is not to blame for a connection that it had closed: it may be asked again.
        ctx.tried.pop();
        ctx.fresh = true;
    } else {
        error.set_retry(false);
    }
    error
}

fn may_retry(ctx: &Context) -> bool {
    let retries = ctx
        .route
        .as_ref()
        .and_then(|route| ctx.current.live.upstreams.get(route.upstream))
        .map_or(0, |upstream| upstream.retries);
    ctx.attempts <= retries
}

fn report(ctx: &mut Context, outcome: Outcome) {
    if let Some(chosen) = ctx.chosen.take() {
        chosen.report(outcome);
    }
}

fn outcome_of(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Outcome::Timeout,
        _ => Outcome::ProtocolError,
    }
}

/// Answers for an upstream that failed, if an answer can still be given.
pub(super) async fn answer(session: &mut Session, ctx: &mut Context, error: &Error) -> FailToProxy {
    let refusal = ctx.refusal.unwrap_or_else(|| refusal_of(error));
    let reason = error.etype().as_str();
    tracing::debug!(request_id = %ctx.request_id, %reason, "the request failed");
    let malformed = ctx.arrival.control.is_malformed();
    if malformed {
        ctx.reason = "the chunks of the body are malformed";
    }
    let client_gone = !malformed
        && !ctx.arrival.control.silence.is_late()
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
    let ended = ctx.reason == ENDED;
    if let (false, true, Some(_)) = (client_gone, respond::is_http2(session), &ctx.grpc)
        && (ended || session.response_written().is_some())
    {
        return end_call(session, ctx, ended, refusal).await;
    }
    if client_gone || session.response_written().is_some() {
        // Nobody listens, or the head has gone out: the connection's end is the only sign left.
        session.set_keepalive(None);
        if ctx.status == 0 {
            ctx.status = 499;
        }
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    let headers = ctx.permit.as_ref().map_or_else(Vec::new, |permit| {
        answer::limit_headers(&permit.decisions, &ctx.worker.store)
    });
    let answer = Answer {
        headers,
        ..refusal.into()
    };
    session.set_keepalive(None);
    // The client may have gone meanwhile.
    let answered = answer::refuse(session, ctx, answer).await;
    if answered.is_ok() && !respond::is_http2(session) {
        // Softly: a client that still sends its body would see a reset before the answer.
        session.as_downstream_mut().shutdown().await;
    }
    FailToProxy {
        error_code: refusal.status().as_u16(),
        can_reuse_downstream: false,
    }
}

/// Reports in trailers how a gRPC call ended whose head has gone out, or whose session has ended.
async fn end_call(
    session: &mut Session,
    ctx: &mut Context,
    ended: bool,
    refusal: Refusal,
) -> FailToProxy {
    let outcome = if ended {
        grpc::Outcome::ENDED
    } else {
        ctx.refusal = Some(refusal);
        grpc::Outcome::of(refusal, None)
    };
    // The client may have gone meanwhile.
    let _ = respond::end_call(session, ctx, outcome).await;
    FailToProxy {
        error_code: 0,
        can_reuse_downstream: false,
    }
}

/// 502, 503 and 504 told apart.
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

//! Failures of upstreams: a retry where it is safe, else the matching 5xx.

use futures_util::FutureExt;
use http::header;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::context::Context;
use super::error_kind::{failure_of, http2_cause_of, is_graceful, is_unprocessed};
use super::local_response;
use crate::pipeline::header_fields::HeaderError;
use crate::pipeline::local_response::CallOutcome;
use crate::proxy::grpc::Messages;
use crate::proxy::request_context::{Admitted, RequestContext};
use crate::proxy::retry::{BodyProgress, CLIENT_GONE, FailedAttempt, Failure, Processing, Stage};
use crate::proxy::upstream_failures::{self, upstream_of};
use crate::rejection::{Reason, Refusal, Rejection};

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
        HeaderError::InvalidValue | HeaderError::Assertion(_) => {
            let context = "the headers cannot be written";
            Error::because(ErrorType::InternalError, context, error)
        }
    }
}

/// A failed connection attempt has carried no data: further servers are tried, each once, whatever
/// the method. [`super::forward::choose`] fails when none is left.
pub(in crate::proxy) fn handle_connect_error(
    ctx: &RequestContext,
    admitted: &mut Admitted,
    mut error: Box<Error>,
) -> Box<Error> {
    let attempts = &mut admitted.attempts;
    upstream_failures::warn(ctx, attempts, &error);
    error.set_retry(true);
    if http2_cause_of(&error).is_some_and(is_unprocessed) && !attempts.needs_new_connection {
        // A pooled HTTP/2 connection is going away, which is not a failure of its server.
        attempts.tried.pop();
        attempts.needs_new_connection = true;
        return error;
    }
    let failure = failure_of(&error);
    attempts.last_failure = Some(failure);
    upstream_failures::count(ctx, attempts, failure, Stage::Connecting, true);
    error
}

/// Once connected, a request is sent again only if the upstream cannot have processed it: it has
/// declared so, or the method is safe, the body was not sent, and the pooled connection turned out to
/// be closed.
pub(in crate::proxy) fn handle_proxy_error(
    session: &mut Session,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let idle_timer = &ctx.arrival.control.idle_timer;
    let late = idle_timer.has_expired();
    idle_timer.end();
    if ctx.arrival.control.body_rate.is_late() {
        ctx.record_failure(Failure::BodyTooSlow);
        error.set_retry(false);
        return error;
    }
    error.retry.decide_reuse(reused);
    if ctx.refusal.is_none() && failed_attempt(session, ctx, admitted, &error, late).may_repeat() {
        prepare_repetition(ctx, admitted, &error);
        error.set_retry(true);
        return error;
    }
    error.set_retry(false);
    let timed_out = late || *error.etype() == ErrorType::ReadTimedout;
    if ctx.is_grpc && !late && ctx.arrival.control.close_reason().is_some() {
        ctx.reason = Some(Reason::CredentialEnded);
    } else if timed_out && !admitted.is_grpc_stream() && is_client_late(session, ctx) {
        ctx.record_failure(Failure::BodyStalled);
    } else if late {
        // The error is the end of the connection, which the gateway itself closed.
        let failure = ctx.arrival.control.idle_timer.failure();
        ctx.record_failure(failure);
        upstream_failures::count(
            ctx,
            &mut admitted.attempts,
            failure,
            Stage::Exchanging,
            true,
        );
    } else if *error.esource() == ErrorSource::Upstream {
        let attempts = &mut admitted.attempts;
        upstream_failures::warn(ctx, attempts, &error);
        let failure = failure_of(&error);
        attempts.last_failure = Some(failure);
        let is_unprocessed = http2_cause_of(&error).is_some_and(is_unprocessed);
        let is_fault = failure.is_fault(reused, is_unprocessed);
        upstream_failures::count(ctx, attempts, failure, Stage::Exchanging, is_fault);
    }
    error
}

/// Describes a failed attempt. `late`: a timeout had expired before.
fn failed_attempt<'a>(
    session: &Session,
    ctx: &'a RequestContext,
    admitted: &Admitted,
    error: &Error,
    late: bool,
) -> FailedAttempt<'a> {
    let client = session.as_downstream();
    let control = &ctx.arrival.control;
    FailedAttempt {
        method: &ctx.method,
        processing: if http2_cause_of(error).is_some_and(is_unprocessed) {
            Processing::DeclaredUnprocessed
        } else if error.retry() {
            Processing::StaleConnection
        } else {
            Processing::Possible
        },
        body: if client.retry_buffer_truncated() {
            BodyProgress::Lost
        } else if client.get_retry_buffer().is_some_and(|it| !it.is_empty()) {
            BodyProgress::Buffered
        } else {
            BodyProgress::Untouched
        },
        has_responded: has_responded(session),
        is_over: late || control.close_reason().is_some(),
        sent: admitted.attempts.sent,
        retries: upstream_of(ctx).map_or(0, |upstream| upstream.retries),
    }
}

/// Prepares a request to be sent again. The server is not to blame: it may be tried again, but not
/// over a connection that is stale or full.
fn prepare_repetition(ctx: &mut RequestContext, admitted: &mut Admitted, error: &Error) {
    let attempts = &mut admitted.attempts;
    upstream_failures::warn(ctx, attempts, error);
    attempts.tried.pop();
    // After a GOAWAY, Pingora does not reuse the connection.
    attempts.needs_new_connection = !http2_cause_of(error).is_some_and(is_graceful);
    attempts.last_failure = Some(failure_of(error));
    ctx.body_received = 0;
    if let Some(messages) = &mut admitted.grpc_stream {
        **messages = Messages::default();
    }
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

/// Whether the head of a final response has gone out; an interim one may be followed by any other.
fn has_responded(session: &Session) -> bool {
    let written = session.response_written();
    written.is_some_and(|head| !head.status.is_informational() || head.status == 101)
}

/// Responds for an upstream that failed, if a response is still possible.
pub(in crate::proxy) async fn respond_with_error(
    session: &mut Session,
    context: &mut Context,
    error: &Error,
) -> FailToProxy {
    let decisions = context.decisions();
    let ctx = &mut context.request;
    let reason = error.etype().as_str();
    tracing::debug!(request_id = %ctx.request_id, %reason, "the request failed");
    let control = &ctx.arrival.control;
    let failure = failure_of(error);
    let late = control.idle_timer.has_expired() || control.body_rate.is_late();
    let client_gone = failure == Failure::ClientGone && !late;
    if failure == Failure::MalformedChunks || is_unexplained(ctx, error) {
        ctx.reason = failure.reason();
    }
    let refusal = ctx.refusal.or(failure.refusal());
    let refusal = refusal.unwrap_or(Refusal::BadRequest);
    let ended = ctx.reason == Some(Reason::CredentialEnded);
    if !client_gone && ctx.is_grpc && (ended || has_responded(session)) {
        return end_call(session, ctx, ended, refusal).await;
    }
    if client_gone || has_responded(session) {
        // The client is gone or the head has gone out: only the connection's end can signal the
        // failure.
        if ctx.status == 0 {
            ctx.status = CLIENT_GONE;
        }
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    let rejection = Rejection::from(refusal).with_decisions(decisions);
    // The client may have gone meanwhile.
    let _ = local_response::send_rejection(session, ctx, rejection).await;
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

/// Whether no reason is recorded for an error of the upstream.
fn is_unexplained(ctx: &RequestContext, error: &Error) -> bool {
    ctx.reason.is_none() && *error.esource() == ErrorSource::Upstream
}

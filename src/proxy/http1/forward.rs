//! Forwarding of an admitted request: attempts at the servers of its upstream, and what follows from
//! their failures.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::HeaderName;

use super::client::Client;
use super::dial::{DialError, UpstreamStream};
use super::exchange::{Ending, Exchange};
use super::pool::UpstreamConnections;
use super::timer_wheel::Ticks;
use crate::clock;
use crate::pipeline::fields::FieldKind;
use crate::proxy::connection::head::Head;
use crate::proxy::connection_auth::Owner;
use crate::proxy::open_streams::stream_control::StreamControl;
use crate::proxy::request_context::{Admitted, RequestContext, UpstreamAttempts};
use crate::proxy::retry::{BodyProgress, CLIENT_GONE, FailedAttempt, Failure, Processing, Stage};
use crate::proxy::server_selection;
use crate::proxy::upstream_failures::{self, upstream_of};
use crate::rejection::Reason;
use crate::settings::Timeouts;
use crate::upstream::{AddressId, ChosenServer};

/// A connection for one attempt.
struct Attempt {
    stream: UpstreamStream,
    /// It has carried a request before.
    is_reused: bool,
    /// It serves this client connection alone.
    owner: Option<Arc<Owner>>,
    timeouts: Timeouts,
}

/// The end of an attempt, and the facts that decide what follows.
struct AttemptEnd {
    result: Result<Ending, Failure>,
    keep_client: bool,
    keep_upstream: bool,
    /// The upstream has sent something.
    has_response: bool,
    body: BodyProgress,
}

/// Forwards an admitted request. Returns whether the client connection can carry another one.
///
/// # Errors
/// No response has begun, and the client is to receive one that reports this failure.
pub(super) async fn forward(
    client: &mut Client,
    request: &mut Head,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
    connections: &UpstreamConnections,
) -> Result<bool, Failure> {
    loop {
        let Some(mut attempt) = connect(request, ctx, admitted, connections).await? else {
            return Ok(false);
        };
        let end = attempt.run(client, request, ctx, admitted).await?;
        match end.result {
            Ok(Ending::Complete) => {
                if end.keep_upstream {
                    attempt.keep(&admitted.attempts, connections);
                }
                return Ok(end.keep_client);
            }
            Ok(Ending::Closed) => {
                client.discard_unsent();
                return Ok(false);
            }
            Err(Failure::ClientGone) => {
                if ctx.status == 0 {
                    ctx.status = CLIENT_GONE;
                }
                return Ok(false);
            }
            Err(failure) if may_repeat(ctx, admitted, &attempt, &end, failure) => {
                prepare_repetition(ctx, &mut admitted.attempts, failure);
            }
            Err(failure) => {
                record_failure(ctx, &mut admitted.attempts, &attempt, failure);
                return match ctx.forwarded.status {
                    0 => Err(failure),
                    // Only the end of the connection can signal the failure.
                    _ => Ok(false),
                };
            }
        }
    }
}

/// Selects a server and connects to it, or to the next one if that fails: a failed attempt to connect
/// has carried no data, so it is repeated whatever the method. `None`: the request was closed from
/// outside.
///
/// # Errors
/// No server is left.
async fn connect(
    request: &Head,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
    connections: &UpstreamConnections,
) -> Result<Option<Attempt>, Failure> {
    let owner = owner_of(request, ctx);
    let timeouts = ctx.timeouts().ok_or(Failure::Internal)?;
    loop {
        let Some(server) = select(request, ctx, admitted, owner.as_ref()) else {
            let failure = admitted.attempts.last_failure.unwrap_or(Failure::NoServer);
            ctx.record_failure(failure);
            return Err(failure);
        };
        let attempts = &mut admitted.attempts;
        let is_first = attempts.sent == 0 && attempts.tried.is_empty();
        attempts.started = Some(match is_first && ctx.store_time.is_zero() {
            // The decision took no time.
            true => ctx.arrival.at,
            false => clock::monotonic(),
        });
        attempts.tried.push(server.server());
        attempts.is_exclusive = owner.is_some();
        if let Some(owner) = &owner {
            owner.pin(&server);
        }
        let server = attempts.server.insert(server);
        let idle = match attempts.needs_new_connection {
            true => None,
            false => take_idle(server.address().id(), owner.as_deref(), connections),
        };
        let opened = match idle {
            Some(stream) => Ok((stream, true)),
            None => {
                let dialing = connections.dialer.connect(server.address(), &timeouts);
                // Boxed: a request that reuses a connection reserves no room for it.
                let dialed = Box::pin(unless_closed(&ctx.arrival.control, dialing));
                let Some(dialed) = dialed.await else {
                    return Ok(None);
                };
                dialed.map(|stream| (stream, false))
            }
        };
        match opened {
            Ok((stream, is_reused)) => {
                return Ok(Some(Attempt {
                    stream,
                    is_reused,
                    owner,
                    timeouts,
                }));
            }
            Err(DialError { failure, cause }) => {
                upstream_failures::warn(ctx, attempts, &cause);
                attempts.last_failure = Some(failure);
                upstream_failures::count(ctx, attempts, failure, Stage::Connecting, true);
            }
        }
    }
}

/// Runs the future until the request is closed from outside: `None`.
async fn unless_closed<T>(control: &StreamControl, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match control.poll_interrupt(cx) {
        Some(_) => Poll::Ready(None),
        None => work.as_mut().poll(cx).map(Some),
    })
    .await
}

fn take_idle(
    address: AddressId,
    owner: Option<&Owner>,
    connections: &UpstreamConnections,
) -> Option<UpstreamStream> {
    match owner {
        Some(owner) => owner.take_connection(address),
        None => connections.pool.take(address),
    }
}

/// The client connection, if it has upstream connections of its own.
fn owner_of(request: &Head, ctx: &RequestContext) -> Option<Arc<Owner>> {
    let credentials = request.lines.fields().all(FieldKind::Authorization);
    let connections = &ctx.arrival.peer.own_connections;
    connections.of_request(credentials).cloned()
}

fn select(
    request: &Head,
    ctx: &RequestContext,
    admitted: &Admitted,
    owner: Option<&Arc<Owner>>,
) -> Option<ChosenServer> {
    let Admitted {
        permit, attempts, ..
    } = admitted;
    let origin = ctx.client_origin.as_ref();
    let address = origin.map_or(ctx.arrival.peer.ip, |origin| origin.ip);
    let tried = &attempts.tried;
    let value = |name: &HeaderName| request.lines.fields().named(name.as_str()).next();
    server_selection::select(permit, &ctx.snapshot, value, address, owner, tried)
}

impl Attempt {
    /// Sends the request and passes its response on.
    ///
    /// # Errors
    /// The request cannot be written.
    async fn run(
        &mut self,
        client: &mut Client,
        request: &mut Head,
        ctx: &mut RequestContext,
        admitted: &mut Admitted,
    ) -> Result<AttemptEnd, Failure> {
        admitted.attempts.sent += 1;
        let (stream, timeouts) = (&mut self.stream, &self.timeouts);
        let mut exchange = Exchange::new(client, request, ctx, admitted, stream, timeouts)?;
        let result = exchange.run().await;
        let end = AttemptEnd {
            result,
            keep_client: exchange.keep_client,
            keep_upstream: exchange.keep_upstream,
            has_response: exchange.download.total_read > 0,
            body: match exchange.upload.is_body_touched {
                true => BodyProgress::Lost,
                false => BodyProgress::Untouched,
            },
        };
        // Before the connection can carry another request.
        ctx.arrival.control.idle_timer.end();
        Ok(end)
    }

    /// Keeps the connection for a later request.
    fn keep(self, attempts: &UpstreamAttempts, connections: &UpstreamConnections) {
        let Some(server) = &attempts.server else {
            return;
        };
        let (id, idle) = (server.address().id(), Ticks::of(self.timeouts.idle));
        match self.owner {
            Some(owner) => owner.keep_connection(id, self.stream),
            None => connections.pool.put(id, self.stream, idle),
        }
    }
}

/// Whether the request is sent again. A connection that had been closed before the request arrived has
/// sent no byte.
fn may_repeat(
    ctx: &RequestContext,
    admitted: &Admitted,
    attempt: &Attempt,
    end: &AttemptEnd,
    failure: Failure,
) -> bool {
    let is_stale = attempt.is_reused && !end.has_response && failure == Failure::ConnectionEnded;
    FailedAttempt {
        method: &ctx.method,
        processing: match is_stale {
            true => Processing::StaleConnection,
            false => Processing::Possible,
        },
        body: end.body,
        has_responded: ctx.forwarded.status != 0,
        is_over: ctx.arrival.control.close_reason().is_some(),
        sent: admitted.attempts.sent,
        retries: upstream_of(ctx).map_or(0, |upstream| upstream.retries),
    }
    .may_repeat()
}

/// Prepares a request to be sent again. The server is not to blame: it may be tried again, but over a
/// new connection.
fn prepare_repetition(ctx: &RequestContext, attempts: &mut UpstreamAttempts, failure: Failure) {
    upstream_failures::warn(ctx, attempts, &failure.reason().map_or("", Reason::as_str));
    attempts.tried.pop();
    attempts.needs_new_connection = true;
    attempts.last_failure = Some(failure);
}

/// Records a failure that ends the request. One that cuts off a response is no refusal.
fn record_failure(
    ctx: &mut RequestContext,
    attempts: &mut UpstreamAttempts,
    attempt: &Attempt,
    failure: Failure,
) {
    // The reader of the response may know more.
    let reason = ctx.reason.or(failure.reason());
    if failure.upstream_error().is_some() {
        upstream_failures::warn(ctx, attempts, &reason.map_or("", Reason::as_str));
        // A pooled connection that had been closed is not a failure of its server.
        let is_fault = !(attempt.is_reused && failure == Failure::ConnectionEnded);
        upstream_failures::count(ctx, attempts, failure, Stage::Exchanging, is_fault);
    }
    let is_cut = matches!(failure, Failure::ConnectionEnded | Failure::InvalidResponse);
    if ctx.forwarded.status == 0 || !is_cut {
        ctx.record_failure(failure);
    }
    ctx.reason = reason;
}

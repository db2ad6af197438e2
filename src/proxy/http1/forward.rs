//! Forwarding of an admitted request: attempts at the servers of its upstream, and what follows from
//! their failures.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::HeaderName;

use super::client::Client;
use super::dial::DialError;
use super::exchange::{self, Ending, Exchange};
use super::pool::UpstreamConnections;
use super::timer_wheel::Ticks;
use super::upload::{BegunBody, Upload};
use super::upstream::Upstream;
use crate::clock;
use crate::pipeline::fields::FieldKind;
use crate::proxy::connection::head::Head;
use crate::proxy::connection_auth::Owner;
use crate::proxy::open_streams::stream_control::{Interrupt, StreamControl};
use crate::proxy::request_context::{Admitted, RequestContext, UpstreamAttempts};
use crate::proxy::retry::{BodyProgress, CLIENT_GONE, FailedAttempt, Failure, Processing, Stage};
use crate::proxy::server_selection;
use crate::proxy::upstream_failures::{self, upstream_of};
use crate::rejection::Reason;
use crate::settings::{Protocol, Timeouts};
use crate::upstream::ChosenServer;

/// A connection for one attempt.
struct Attempt {
    upstream: Upstream,
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
    /// The body, if a part of it was taken that is still at hand.
    begun: Option<Box<BegunBody>>,
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
    let mut begun = None;
    loop {
        let Some(mut attempt) = connect(request, ctx, admitted, connections).await? else {
            return Ok(false);
        };
        let mut end = attempt.run(client, request, ctx, admitted, begun).await?;
        begun = end.begun.take();
        match end.result {
            Ok(Ending::Complete) => {
                attempt.release(end.keep_upstream, &admitted.attempts, connections);
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
                prepare_repetition(ctx, &mut admitted.attempts, &attempt, failure);
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
/// No server is left, or the body is too slow.
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
        begin_attempt(ctx, attempts, owner.as_ref(), &server);
        let server = attempts.server.insert(server);
        let address = server.address();
        let protocol = match request.upgrade {
            // WebSocket is HTTP/1.1 only.
            true => Protocol::Http1,
            false => address.connection().protocol,
        };
        let of_client = owner.as_deref();
        let reused = match protocol {
            _ if attempts.needs_new_connection => None,
            Protocol::Http1 => connections.take(address.id(), of_client),
            // Boxed, as is connecting: other requests reserve no room for it.
            Protocol::H2 => Box::pin(connections.open_stream(address.id(), of_client)).await,
        };
        let opened = match reused {
            Some(upstream) => Ok((upstream, true)),
            None => {
                let connecting = connections.connect(address, protocol, of_client, &timeouts);
                let connected = Box::pin(unless_closed(&ctx.arrival.control, connecting)).await;
                let Some(connected) = connected.inspect_err(|it| ctx.record_failure(*it))? else {
                    return Ok(None);
                };
                connected.map(|upstream| (upstream, false))
            }
        };
        match opened {
            Ok((upstream, is_reused)) => {
                return Ok(Some(Attempt {
                    upstream,
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

/// Records an attempt at this server.
fn begin_attempt(
    ctx: &RequestContext,
    attempts: &mut UpstreamAttempts,
    owner: Option<&Arc<Owner>>,
    server: &ChosenServer,
) {
    let is_first = attempts.sent == 0 && attempts.tried.is_empty();
    attempts.started = Some(match is_first && ctx.store_time.is_zero() {
        // The decision took no time.
        true => ctx.arrival.at,
        false => clock::monotonic(),
    });
    attempts.tried.push(server.server());
    attempts.is_exclusive = owner.is_some();
    if let Some(owner) = owner {
        owner.pin(server);
    }
}

/// Runs the future until the request is closed from outside: `None`.
///
/// # Errors
/// The client is too slow with its body.
async fn unless_closed<T>(
    control: &StreamControl,
    work: impl Future<Output = T>,
) -> Result<Option<T>, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| match control.poll_interrupt(cx) {
        Some(Interrupt::Close(_)) => Poll::Ready(Ok(None)),
        Some(Interrupt::GiveUp) => Poll::Ready(Err(Failure::BodyTooSlow)),
        None => work.as_mut().poll(cx).map(|done| Ok(Some(done))),
    })
    .await
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
        begun: Option<Box<BegunBody>>,
    ) -> Result<AttemptEnd, Failure> {
        admitted.attempts.sent += 1;
        let (upstream, timeouts) = (&mut self.upstream, &self.timeouts);
        let head = exchange::begin(client, request, ctx, admitted, upstream)?;
        let max_body = admitted.permit.route.max_body;
        let upload = Upload::new(head, request.body, begun, upstream, max_body);
        let mut exchange =
            Exchange::new(client, request, ctx, admitted, upstream, upload, timeouts);
        let result = exchange.run().await;
        let end = AttemptEnd {
            result,
            keep_client: exchange.keep_client,
            keep_upstream: exchange.keep_upstream,
            has_response: exchange.download.total_read > 0,
            body: exchange.upload.body_progress(),
            begun: exchange.upload.take_begun(),
        };
        // Before the connection can carry another request.
        ctx.arrival.control.idle_timer.end();
        Ok(end)
    }

    /// Keeps the connection for a later request, or closes it. One of HTTP/2 is kept already.
    fn release(self, keep: bool, attempts: &UpstreamAttempts, connections: &UpstreamConnections) {
        let stream = match self.upstream {
            Upstream::Http1(stream) if keep => stream,
            Upstream::Http1(_) => return,
            Upstream::Http2(stream) => return stream.await_end(),
        };
        let Some(server) = &attempts.server else {
            return;
        };
        let (id, idle) = (server.address().id(), Ticks::of(self.timeouts.idle));
        match self.owner {
            Some(owner) => owner.keep_connection(id, stream),
            None => connections.pool.put(id, stream, idle),
        }
    }

    /// Whether the server may have processed a request that has failed. A connection that had been
    /// closed before the request arrived has sent no byte.
    fn processing(&self, end: &AttemptEnd, failure: Failure) -> Processing {
        let error = self.upstream.stream_error();
        if error.is_some_and(|error| error.is_unprocessed) {
            Processing::DeclaredUnprocessed
        } else if self.is_reused && !end.has_response && failure == Failure::ConnectionEnded {
            Processing::StaleConnection
        } else {
            Processing::Possible
        }
    }
}

/// Whether the request is sent again.
fn may_repeat(
    ctx: &RequestContext,
    admitted: &Admitted,
    attempt: &Attempt,
    end: &AttemptEnd,
    failure: Failure,
) -> bool {
    FailedAttempt {
        method: &ctx.method,
        processing: attempt.processing(end, failure),
        body: end.body,
        has_responded: ctx.forwarded.status != 0,
        is_over: ctx.arrival.control.close_reason().is_some(),
        sent: admitted.attempts.sent,
        retries: upstream_of(ctx).map_or(0, |upstream| upstream.retries),
    }
    .may_repeat()
}

/// Prepares a request to be sent again. The server is not to blame: it may be tried again, but not over
/// a connection that is stale or full. One that a GOAWAY ends is not used again in any case.
fn prepare_repetition(
    ctx: &mut RequestContext,
    attempts: &mut UpstreamAttempts,
    attempt: &Attempt,
    failure: Failure,
) {
    upstream_failures::warn(ctx, attempts, &failure.reason().map_or("", Reason::as_str));
    let error = attempt.upstream.stream_error();
    attempts.tried.pop();
    attempts.needs_new_connection = !error.is_some_and(|error| error.ends_connection);
    attempts.last_failure = Some(failure);
    ctx.body_received = 0;
}

/// Records a failure that ends the request. One that cuts off a response is no refusal.
fn record_failure(
    ctx: &mut RequestContext,
    attempts: &mut UpstreamAttempts,
    attempt: &Attempt,
    failure: Failure,
) {
    use Failure::{ConnectionEnded, InvalidResponse, StreamReset};
    // The reader of the response may know more.
    let reason = ctx.reason.or(failure.reason());
    if failure == Failure::ReadTimeout {
        attempt.upstream.retire();
    }
    if failure.upstream_error().is_some() {
        upstream_failures::warn(ctx, attempts, &reason.map_or("", Reason::as_str));
        let error = attempt.upstream.stream_error();
        let is_unprocessed = error.is_some_and(|error| error.is_unprocessed);
        let is_fault = failure.is_fault(attempt.is_reused, is_unprocessed);
        upstream_failures::count(ctx, attempts, failure, Stage::Exchanging, is_fault);
    }
    let is_cut = matches!(failure, ConnectionEnded | StreamReset | InvalidResponse);
    if ctx.forwarded.status == 0 || !is_cut {
        ctx.record_failure(failure);
    }
    ctx.reason = reason;
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::proxy::open_streams::stream_control::CloseReason;

    #[tokio::test]
    async fn work_ends_with_the_interrupt_that_stops_it() {
        let control = StreamControl::default();
        control.set_polled();
        let connecting = || unless_closed(&control, pending::<()>());
        assert_eq!(unless_closed(&control, ready(1)).await, Ok(Some(1)));
        control.give_up();
        assert_eq!(connecting().await, Err(Failure::BodyTooSlow));
        control.close(CloseReason::Drain);
        assert_eq!(connecting().await, Ok(None));
    }
}

//! One request: it is decided, and responded to or handed on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};

use super::client::Client;
use super::request_body::{BodyError, RequestBody};
use super::serve::Connection;
use super::{forward, query};
use crate::pipeline::facts::{RequestHead, trace_context};
use crate::pipeline::local_response::LocalResponse;
use crate::pipeline::{self, Decision, EndpointCall, Step};
use crate::proxy::WorkerProxy;
use crate::proxy::api_bridge::{ApiCall, BODY_TIMEOUT};
use crate::proxy::connection::head::{BodyFraming, Head};
use crate::proxy::local_response::{
    self, DRAIN_TIMEOUT, DRAIN_UP_TO, Persistence, UnreadBody, reject,
};
use crate::proxy::request_context::{Admitted, Arrival, RequestContext, measure_wait};
use crate::proxy::retry::CLIENT_GONE;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::settings::ListenerId;

pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What becomes of the client's connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    /// It is closed once the response is sent. `sends`: the client may still send its request.
    Close {
        sends: bool,
    },
    /// It has ended already.
    Gone,
}

/// What the gateway responds with itself.
enum Local {
    Response(LocalResponse),
    ApiCall(EndpointCall),
}

/// A connection after a request.
pub(super) type Served = (Box<Connection>, After);

/// Serves one request of a connection that has its head.
pub(super) async fn handle(mut connection: Box<Connection>) -> Served {
    let after = match connection.client.peer.listener {
        ListenerId::Public(_) => serve_request(&mut connection).await,
        ListenerId::ForwardAuth => query::serve_call(&mut connection).await,
    };
    (connection, after)
}

/// Serves one request. Its log line is written when it is over, however it ends.
async fn serve_request(connection: &mut Connection) -> After {
    let Connection {
        client,
        head,
        proxy,
        ..
    } = connection;
    let Some(head) = head else {
        return After::Gone;
    };
    head.settle();
    let arrival = Arrival::next(&client.peer, &client.control);
    let mut ctx = RequestContext::new(arrival, Arc::clone(&proxy.worker));
    match decide(head, &mut ctx).await {
        Ok(mut admitted) => forward(client, head, &mut ctx, &mut admitted, proxy).await,
        Err(Local::Response(response)) => {
            let body = RequestBody::new(head.body);
            respond(client, head, &mut ctx, response, body).await
        }
        Err(Local::ApiCall(call)) => {
            let request_id = ctx.request_id.clone();
            let call = call_api(client, head, &mut ctx, call);
            // Boxed, as are other futures of rare cases: otherwise every request would have their size.
            Box::pin(request_id.scope(call)).await
        }
    }
}

/// Records the request and decides it.
async fn decide(head: &Head, ctx: &mut RequestContext) -> Result<Admitted, Local> {
    // Its bytes are those of a token.
    let method = Method::from_bytes(head.method()).unwrap_or_default();
    let request = request_head(head, &method);
    ctx.record_head(request, head.host_and_name());
    let step = match find_step(request, ctx).await {
        Some((decision, waited)) => {
            ctx.store_time = waited;
            ctx.route = decision.route;
            decision.step
        }
        None => Step::Reject(Refusal::Internal.into()),
    };
    let response = match step {
        Step::Forward(permit) => match ctx.begin_forwarding(permit, false, declared_length(head)) {
            Ok(admitted) => return Ok(admitted),
            Err(rejection) => reject(ctx, request, rejection, None),
        },
        Step::Reject(rejection) => {
            // Only a request that its cookie has authenticated is checked for its origin.
            ctx.authenticated |= rejection.refusal == Refusal::CsrfRejected;
            reject(ctx, request, rejection, None)
        }
        Step::Respond(status, headers, body) => LocalResponse::new(status, headers, body),
        Step::CallApi(call) => return Err(Local::ApiCall(call)),
    };
    ctx.trace_id = trace_context::of_client(request.fields, ctx.request_id.as_bytes());
    Err(Local::Response(response))
}

/// Decides the request, and measures how long that waited for the store, the only thing that it waits
/// for.
async fn find_step(request: RequestHead<'_>, ctx: &RequestContext) -> Option<(Decision, Duration)> {
    let facts = ctx.facts(request, None)?;
    let worker = &ctx.worker;
    let admission = worker.admission(&ctx.snapshot, &ctx.request_id);
    let deciding = pin!(pipeline::decide(
        &facts,
        &worker.boot,
        &worker.via,
        &admission
    ));
    Some(measure_wait(deciding).await)
}

/// Forwards an admitted request, and responds where its upstream did not.
async fn forward(
    client: &mut Client,
    head: &mut Head,
    ctx: &mut RequestContext,
    admitted: &mut Admitted,
    proxy: &WorkerProxy,
) -> After {
    let connections = &proxy.connections;
    let forwarded = forward::forward(client, head, ctx, admitted, connections).await;
    let failure = match forwarded {
        Ok(true) => return After::Keep,
        Ok(false) => {
            return After::Close {
                sends: head.body != BodyFraming::None || ctx.arrival.control.is_upgraded(),
            };
        }
        Err(failure) => failure,
    };
    let rejection = Rejection {
        decisions: std::mem::take(&mut admitted.permit.decisions),
        ..failure.refusal().unwrap_or(Refusal::Internal).into()
    };
    let method = ctx.method.clone();
    let request = request_head(head, &method);
    let mut response = reject(ctx, request, rejection, None);
    // The rest of the request is not read.
    response.may_keep = false;
    let received = ctx.body_received;
    let after = respond(client, head, ctx, response, RequestBody::new(head.body)).await;
    ctx.body_received = received;
    after
}

pub(super) fn request_head<'h>(head: &'h Head, method: &'h Method) -> RequestHead<'h> {
    let (path, query) = head.path_and_query();
    RequestHead {
        method,
        version: match head.lines.http_10 {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        },
        path,
        query,
        fields: head.lines.fields(),
    }
}

/// The length of the body, where the head declares it.
fn declared_length(head: &Head) -> Option<u64> {
    match head.body {
        BodyFraming::None => Some(0),
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked => None,
    }
}

/// Writes a local response. A small body that is not read yet is drained, because the next request
/// begins after it.
pub(super) async fn respond(
    client: &mut Client,
    head: &Head,
    ctx: &mut RequestContext,
    response: LocalResponse,
    mut body: RequestBody,
) -> After {
    local_response::record(ctx, &response);
    let unread = UnreadBody {
        declared: declared_length(head),
        awaits_continue: head.expects_continue && !body.is_done(),
    };
    let may_keep = response.may_keep && unread.is_drainable();
    let keeps = may_keep && head.lines.persists() && !ctx.worker.readiness.is_draining();
    let persistence = match keeps {
        true => Persistence::Keep {
            is_http10: head.lines.http_10,
        },
        false => Persistence::Close,
    };
    let mut context = ctx.response_context();
    // The method of a call is not that of the request that it is about.
    let method;
    if ctx.is_query() {
        method = Method::from_bytes(head.method()).unwrap_or_default();
        context.method = &method;
    }
    let sent = local_response::write(client.out(), &response, &context, persistence);
    ctx.body_sent = sent as u64;
    drop(response);
    if may_keep && !body.is_done() && body.take(client, &mut |_| ()).is_ok() && !body.is_done() {
        // The client need not have sent its body to receive the response.
        if poll_fn(|cx| client.poll_send(cx)).await.is_err() {
            return After::Gone;
        }
        let drained = body.read(client, DRAIN_UP_TO, DRAIN_TIMEOUT, |_| ()).await;
        if drained == Err(BodyError::Gone) {
            return After::Gone;
        }
    }
    ctx.body_received = body.received;
    match keeps && body.is_done() {
        true => After::Keep,
        false => After::Close {
            sends: !body.is_done(),
        },
    }
}

/// Serves a call of one of the gateway's own endpoints.
async fn call_api(
    client: &mut Client,
    head: &Head,
    ctx: &mut RequestContext,
    call: EndpointCall,
) -> After {
    let mut body = RequestBody::new(head.body);
    let method = ctx.method.clone();
    let request = request_head(head, &method);
    ctx.trace_id = trace_context::of_client(request.fields, ctx.request_id.as_bytes());
    let response = match ApiCall::prepare(ctx, request, call).await {
        Ok(call) => match read_body(client, head, &mut body, call.max_body).await {
            Ok(bytes) => call.run(ctx, request, bytes).await,
            Err(BodyError::Gone) => {
                ctx.status = CLIENT_GONE;
                return After::Gone;
            }
            Err(error) => {
                let mut response = reject(ctx, request, rejection_of(error), None);
                // A body that was not begun may still be drained.
                response.may_keep = error == BodyError::TooLarge && body.received == 0;
                response
            }
        },
        Err(refusal) => reject(ctx, request, refusal.into(), None),
    };
    respond(client, head, ctx, response, body).await
}

/// Reads the body of a call, up to `most` bytes; `None`: it is not read.
async fn read_body(
    client: &mut Client,
    head: &Head,
    body: &mut RequestBody,
    most: Option<usize>,
) -> Result<Bytes, BodyError> {
    let Some(most) = most.map(|most| most as u64) else {
        return Ok(Bytes::new());
    };
    if declared_length(head).is_some_and(|length| length > most) {
        return Err(BodyError::TooLarge);
    }
    if head.expects_continue && !body.is_done() {
        client.out().extend_from_slice(CONTINUE);
        let sent = poll_fn(|cx| client.poll_send(cx)).await;
        sent.map_err(|_| BodyError::Gone)?;
    }
    let mut bytes = Vec::new();
    let read = body.read(client, most, BODY_TIMEOUT, |part| {
        bytes.extend_from_slice(part);
    });
    read.await?;
    Ok(bytes.into())
}

fn rejection_of(error: BodyError) -> Rejection {
    match error {
        BodyError::TooLarge => Refusal::BodyTooLarge.into(),
        BodyError::Late => Refusal::RequestTimeout.into(),
        BodyError::Malformed => Rejection::new(Refusal::BadRequest, Reason::MalformedChunks),
        BodyError::Gone => Refusal::BadRequest.into(),
    }
}

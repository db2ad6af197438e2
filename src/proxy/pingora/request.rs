//! Handling of one request, from its head to the execution of the decision.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use pingora::proxy::Session;

use super::header_map::{self, Removal, declared_length};
use super::{api_call, local_response, query};
use crate::pipeline::admission::Permit;
use crate::pipeline::destination::is_accepted;
use crate::pipeline::facts::host;
use crate::pipeline::fields::{Fields, KindSet};
use crate::pipeline::hop_by_hop::{ABOUT_CONNECTION, RequestConnection};
use crate::pipeline::local_response::LocalResponse;
use crate::pipeline::{self, Step};
use crate::proxy::request_context::{Admitted, RequestContext, measure_wait};
use crate::rejection::{Reason, Refusal, Rejection};
use crate::settings;

/// How long the end of a body that is declared empty may take to arrive.
const EMPTY_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Decides a request and executes the decision. `None`: the response was sent; otherwise the request
/// goes to an upstream.
///
/// # Errors
/// The client went away before the response was sent.
pub(super) async fn filter(
    session: &mut Session,
    ctx: &mut RequestContext,
) -> pingora::Result<Option<Admitted>> {
    if ctx.is_query() {
        // Boxed: otherwise every request would reserve room for a call.
        Box::pin(query::serve(session, ctx)).await?;
        return Ok(None);
    }
    let kinds = record_head(session.req_header(), ctx);
    if kinds.intersects(ABOUT_CONNECTION) {
        settle_connection_headers(session)?;
    }
    let valid = match check_values(session.req_header()) {
        Ok(()) => reject_undeclared_body(session).await,
        Err(rejection) => Err(rejection),
    };
    let step = match valid {
        Ok(()) => decide(session.req_header(), ctx).await,
        Err(rejection) => Step::Reject(rejection),
    };
    match step {
        Step::Forward(permit) => match begin_forwarding(session, ctx, permit) {
            Ok(admitted) => return Ok(Some(admitted)),
            Err(rejection) => reject(session, ctx, rejection).await?,
        },
        Step::Reject(rejection) => reject(session, ctx, rejection).await?,
        Step::Respond(status, headers, body) => {
            let response = LocalResponse::new(status, headers, body);
            local_response::send(session, ctx, response).await?;
        }
        Step::CallApi(call) => {
            let request_id = ctx.request_id.clone();
            // Boxed: otherwise every request would reserve room for the call of an endpoint.
            Box::pin(request_id.scope(api_call::serve(session, ctx, call))).await?;
        }
    }
    Ok(None)
}

/// Records the head, and returns the kinds of its fields. A function of its own, so that the list is no
/// part of the request's future.
fn record_head(head: &Parts, ctx: &mut RequestContext) -> KindSet {
    let list = header_map::list(&head.headers);
    let fields = Fields::new(&list);
    let host = host::read(&head.uri, head.headers.get(header::HOST));
    let host = host.as_ref().ok();
    let host = host.and_then(|(field, name)| Some((field.to_str().ok()?, &**name)));
    ctx.record_head(header_map::head(head, fields), host);
    fields.kinds()
}

/// Removes the headers about the client's connection, before the request is decided.
fn settle_connection_headers(session: &mut Session) -> pingora::Result<()> {
    header_map::edit_request(session.req_header_mut(), |headers| {
        connection_headers(headers).apply(headers);
    })
}

/// The headers about the client's connection, and those that it nominates.
fn connection_headers(headers: &HeaderMap) -> Removal {
    let list = header_map::list(headers);
    let connection = RequestConnection::of(Fields::new(&list), false);
    Removal::of(headers, &list, connection.edit(), |field| {
        connection.passes(field)
    })
}

/// Rejects values with whitespace around them: what HTTP/1.1 removes is malformed on HTTP/2 (RFC 9113,
/// section 8.2.1), and rules would read another value than the upstream receives.
pub(super) fn check_values(head: &Parts) -> Result<(), Rejection> {
    let has_space = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if head.headers.values().any(has_space) {
        let reason = Reason::Head("a header value begins or ends with whitespace");
        return Err(Rejection::new(Refusal::BadRequest, reason));
    }
    Ok(())
}

/// Rejects a body that was declared empty.
async fn reject_undeclared_body(session: &mut Session) -> Result<(), Rejection> {
    // Pingora takes the declared length for the end of the body, so only a read reveals the body.
    let head = session.req_header();
    let declared_empty = declared_length(&head.headers) == Some(0);
    // A method that is not accepted is rejected at once.
    if !declared_empty || !is_accepted(&head.method) {
        return Ok(());
    }
    let end = async {
        loop {
            match session.read_request_body().await {
                Ok(None) => return Ok(()),
                // The frame that ends a body may be empty.
                Ok(Some(part)) if part.is_empty() => {}
                Ok(Some(_)) | Err(_) => return Err(Refusal::BadRequest.into()),
            }
        }
    };
    let ended = tokio::time::timeout(EMPTY_BODY_TIMEOUT, end).await;
    ended.unwrap_or(Err(Refusal::RequestTimeout.into()))
}

async fn decide(head: &Parts, ctx: &mut RequestContext) -> Step {
    let (worker, snapshot) = (Arc::clone(&ctx.worker), Arc::clone(&ctx.snapshot));
    let list = header_map::list(&head.headers);
    let request = header_map::head(head, Fields::new(&list));
    let Some(facts) = ctx.facts(request, head.uri.scheme_str()) else {
        return Step::Reject(Refusal::Internal.into());
    };
    let admission = worker.admission(&snapshot, &ctx.request_id);
    // A decision waits for the store alone.
    let (decision, waited) = {
        let deciding = pipeline::decide(&facts, &worker.boot, &worker.via, &admission);
        measure_wait(pin!(deciding)).await
    };
    ctx.store_time = waited;
    ctx.route = decision.route;
    decision.step
}

/// Prepares the request for its upstream.
///
/// # Errors
/// The body is larger than the route allows.
fn begin_forwarding(
    session: &Session,
    ctx: &mut RequestContext,
    permit: Permit,
) -> Result<Admitted, Rejection> {
    let upstreams = &ctx.snapshot.settings.upstreams;
    let upstream = permit.route.upstream.and_then(|index| upstreams.get(index));
    let is_grpc_stream =
        ctx.is_grpc && upstream.is_some_and(|it| matches!(it.protocol, settings::Protocol::H2));
    let length = declared_length(&session.req_header().headers);
    ctx.begin_forwarding(permit, is_grpc_stream, length)
}

/// Responds to a request that was rejected before it went to an upstream.
async fn reject(
    session: &mut Session,
    ctx: &mut RequestContext,
    rejection: Rejection,
) -> pingora::Result<()> {
    // Only a request that its cookie has authenticated is checked for its origin.
    ctx.authenticated |= rejection.refusal == Refusal::CsrfRejected;
    local_response::send_rejection(session, ctx, rejection).await
}

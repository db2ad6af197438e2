//! Decides the requests about which front proxies query. What each dialect makes of the decision is the
//! engine's.

use std::pin::pin;
use std::sync::Arc;

use ipnet::IpNet;

use super::local_response::reject;
use super::request_context::{RequestContext, measure_wait};
use crate::forward_auth::{self, CallFault, OriginalRequest};
use crate::pipeline::facts::{RequestHead, trace_context};
use crate::pipeline::local_response::{AllowedRequest, LocalResponse};
use crate::pipeline::{self, Step};
use crate::rejection::{Reason, Refusal, Rejection};
use crate::settings::Reloadable;
use crate::telemetry::metrics::Dialect;

/// The decision on a query, in no dialect.
pub(super) enum QueryOutcome {
    /// The front proxy may forward the request.
    Allowed(AllowedRequest),
    /// The response that its client receives instead.
    Denied(LocalResponse),
}

impl QueryOutcome {
    /// The decision as a response of HTTP.
    pub(super) fn into_response(self) -> LocalResponse {
        match self {
            QueryOutcome::Allowed(request) => LocalResponse::allowed(request),
            QueryOutcome::Denied(response) => response,
        }
    }
}

/// Decides a call by HTTP. `host` is that of the call.
pub(super) async fn decide_call(
    ctx: &mut RequestContext,
    call: RequestHead<'_>,
    host: Option<(&str, &str)>,
) -> LocalResponse {
    ctx.record_call(call, host);
    let dialect = match admit_call(ctx) {
        Ok(dialect) => dialect,
        Err(rejection) => return reject(ctx, call, rejection, None),
    };
    let snapshot = Arc::clone(&ctx.snapshot);
    let settings = &snapshot.settings;
    let identity = &settings.identity_header_names;
    let request = forward_auth::read_call(dialect, &call, identity, trusted_proxies(settings));
    decide(ctx, request, call).await.into_response()
}

/// The dialect of a call of a peer that may query.
fn admit_call(ctx: &RequestContext) -> Result<Dialect, Rejection> {
    check_peer(ctx)?;
    let unknown = || Rejection::new(Refusal::NotFound, Reason::UnknownCall);
    ctx.dialect.ok_or_else(unknown)
}

/// The proxies that report the client of a request.
pub(super) fn trusted_proxies(settings: &Reloadable) -> &[IpNet] {
    let forward_auth = settings.forward_auth.as_ref();
    forward_auth.map_or(&[], |it| &it.listener.trusted_proxies)
}

/// Decides the request of a call, whose fields are among those of the call.
pub(super) async fn decide(
    ctx: &mut RequestContext,
    request: Result<OriginalRequest<'_>, CallFault>,
    call: RequestHead<'_>,
) -> QueryOutcome {
    let mut request = match request {
        Ok(request) => request,
        Err(fault) => return QueryOutcome::Denied(reject(ctx, call, fault.into(), None)),
    };
    ctx.record_original(&mut request, call.fields);
    let method = ctx.method.clone();
    let head = RequestHead {
        method: &method,
        // That of the original request is not known. By this one, the number of fields is checked.
        version: call.version,
        path: request.path,
        query: request.query,
        fields: call.fields,
    };
    let outcome = match find_step(ctx, head).await {
        Some(Step::Forward(permit)) => {
            ctx.record_allowed(&permit);
            let snapshot = &ctx.snapshot;
            let (settings, assertions) = (&snapshot.settings, &snapshot.assertions);
            AllowedRequest::new(permit, head.fields, settings, assertions).map_err(|error| {
                tracing::error!(%error, "a front proxy cannot be told who the caller is");
                Rejection::from(Refusal::Internal)
            })
        }
        Some(Step::Reject(rejection)) => Err(rejection),
        // The pipeline responds to no query itself.
        Some(Step::Respond(..) | Step::CallApi(_)) | None => Err(Refusal::Internal.into()),
    };
    ctx.trace_id = trace_context::of_client(head.fields, ctx.request_id.as_bytes());
    match outcome {
        Ok(allowed) => QueryOutcome::Allowed(allowed),
        Err(rejection) => {
            ctx.authenticated |= rejection.refusal == Refusal::CsrfRejected;
            QueryOutcome::Denied(reject(ctx, head, rejection, None))
        }
    }
}

async fn find_step(ctx: &mut RequestContext, head: RequestHead<'_>) -> Option<Step> {
    let (decision, waited) = {
        let facts = ctx.facts(head, None)?;
        let worker = &ctx.worker;
        let admission = worker.admission(&ctx.snapshot, &ctx.request_id);
        let deciding = pipeline::decide(&facts, &worker.boot, &worker.via, &admission);
        measure_wait(pin!(deciding)).await
    };
    ctx.store_time = waited;
    ctx.route = decision.route;
    Some(decision.step)
}

/// Whether the peer may query at all; otherwise the rejection of its call, with nothing evaluated.
pub(super) fn check_peer(ctx: &RequestContext) -> Result<(), Rejection> {
    let peer = ctx.arrival.peer.ip;
    match ctx.front_proxy() {
        Some(settings) if forward_auth::may_query(settings, peer) => Ok(()),
        _ => Err(Rejection::new(Refusal::Forbidden, Reason::UntrustedProxy)),
    }
}

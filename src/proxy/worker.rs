//! One worker: a thread with its own runtime, its own connection to the store and its own pool of
//! upstream connections. A request stays on its worker.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::connection::head::Outline;
use super::listener::Peer;
use super::local_response::RejectedHead;
use super::open_streams::OpenStreams;
use super::open_streams::stream_control::CloseReason;
use super::request_context::RequestContext;
use super::retry::Failure;
use crate::api::PublicApi;
use crate::api::admin::Readiness;
use crate::auth::principal::Principal;
use crate::auth::token::TokenSource;
use crate::clock;
use crate::pipeline::admission::{Admission, AdmissionServices};
use crate::pipeline::snapshot::Snapshot;
use crate::pipeline::via::Via;
use crate::rejection::{Reason, Refusal};
use crate::routing::Route;
use crate::settings;
use crate::telemetry::logging::{AccessLog, AccessRecord};
use crate::telemetry::metrics::{ConnectionRefusal, Metrics, NO_ROUTE, RouteLabel};
use crate::telemetry::request_id::RequestId;

/// The services that a request uses on its worker.
pub struct Worker {
    pub index: usize,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub admission: AdmissionServices,
    pub open_streams: Arc<OpenStreams>,
    /// While the gateway drains, every HTTP/1 response announces that its connection closes.
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
    pub api: PublicApi,
    pub via: Via,
    pub boot: Arc<settings::Boot>,
}

impl Worker {
    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The admission for one configuration.
    pub fn admission<'a>(
        &'a self,
        current: &'a Snapshot,
        request_id: &'a RequestId,
    ) -> Admission<'a> {
        self.admission.by(current, request_id)
    }

    /// The store's clock, by which limits are counted, since the epoch.
    pub fn store_clock(&self) -> Duration {
        self.admission.store_clock()
    }

    /// Counts a connection that is closed before it has carried a request.
    pub fn count_refused_connection(&self, reason: ConnectionRefusal) {
        self.metrics.count_refused_connection(reason);
    }

    /// Counts and logs a head that never became a request, after `bytes_sent` of a response body.
    pub fn log_rejected_head(
        &self,
        peer: &Peer,
        head: &RejectedHead<'_>,
        outline: &Outline,
        bytes_sent: u64,
    ) {
        let fault = head.fault;
        let status = fault.refusal.status().as_u16();
        self.metrics.count_refused_head(fault.refusal);
        self.metrics
            .requests
            .with_label_values(&[NO_ROUTE, "OTHER", fault.refusal.status().as_str()])
            .inc();
        if let Some(dialect) = head.dialect {
            self.metrics
                .count_forward_auth(dialect, Some(fault.refusal));
        }
        self.access_log.write(&AccessRecord {
            time: clock::since_epoch(clock::system_time()),
            request_id: head.request_id,
            dialect: head.dialect,
            client_ip: peer.ip,
            method: outline.method.as_ref(),
            host: &outline.host,
            path: &outline.path,
            status,
            code: Some(fault.refusal.code()),
            reason: fault.reason.as_str(),
            bytes_sent,
            ..AccessRecord::default()
        });
    }

    /// Writes the access log and the metrics of a request that is over, however it ended.
    pub fn finish(ctx: &mut RequestContext) {
        note_dropped(ctx);
        note_stall(ctx);
        note_closing(ctx);
        let ended_at = ctx.ended_at.unwrap_or_else(clock::monotonic);
        let took = ended_at.saturating_duration_since(ctx.arrival.at);
        let (worker, series) = (&*ctx.worker, &ctx.snapshot.series);
        worker.metrics.requests_in_flight.dec();
        if let Some(dialect) = ctx.dialect.filter(|_| ctx.status != 0) {
            worker.metrics.count_forward_auth(dialect, ctx.refusal);
        }
        if has_authentication_outcome(ctx) {
            let refusal = ctx
                .refusal
                .filter(|refusal| refusal.is_authentication_outcome());
            worker.metrics.count_authentication(refusal);
        }
        let outcome = (&ctx.method, ctx.status);
        series.count(&worker.metrics, route_label(ctx), outcome, took);
        if let (Some(time), Some(index)) = (ctx.upstream_time, ctx.upstream) {
            series.observe_upstream(index, time);
        }
        worker.access_log.write(&access_record(ctx, took));
    }
}

/// The log's record of a request that took this long.
fn access_record(ctx: &RequestContext, took: Duration) -> AccessRecord<'_> {
    let upstreams = &ctx.snapshot.settings.upstreams;
    let upstream = ctx.upstream.and_then(|index| upstreams.get(index));
    let identity = ctx.identity.as_ref().map(|identity| &identity.principal);
    let caller = ctx.caller.as_ref().or(identity);
    let session = caller.and_then(Principal::session);
    let api_key = caller.and_then(Principal::api_key);
    let origin = ctx.client_origin.as_ref();
    let fields = |route: &Arc<Route>| {
        let rendered = &ctx.snapshot.route_fields;
        rendered.of_route(route.index, upstream.is_some())
    };
    AccessRecord {
        time: ctx.started_wall,
        request_id: &ctx.request_id,
        client_ip: origin.map_or(ctx.arrival.peer.ip, |origin| origin.ip),
        method: Some(&ctx.method),
        host: ctx.text.host_name(),
        path: ctx.text.path(),
        dialect: ctx.dialect,
        status: ctx.status,
        code: ctx.refusal.map(Refusal::code),
        reason: reason_of(ctx),
        limit: ctx.limit.as_deref(),
        grounds: ctx.grounds.as_deref(),
        trace_id: ctx.trace_id.as_ref(),
        route: ctx.route.as_ref().map(|route| &*route.name),
        upstream: upstream.map(|upstream| &*upstream.name),
        route_fields: ctx.route.as_ref().and_then(fields),
        credential: ctx.credential,
        source: caller.and_then(|caller| source_of(caller, &ctx.snapshot.settings)),
        user: ctx.user.as_deref().or(caller.map(Principal::user)),
        session: ctx.session.as_ref().or(session.map(|session| &session.id)),
        api_key: ctx
            .api_key
            .as_ref()
            .or(api_key.map(|presented| &presented.id)),
        total: took,
        store: ctx.store_time,
        upstream_time: ctx.upstream_time,
        bytes_received: ctx.body_received,
        bytes_sent: ctx.body_sent,
    }
}

/// Where a caller's user comes from; `None` for a token of the gateway whose session is not known.
fn source_of<'a>(caller: &'a Principal, settings: &'a settings::Reloadable) -> Option<&'a str> {
    match caller {
        Principal::Session(session) => match &session.provider {
            Some(sign_in) => Some(&sign_in.provider),
            None => settings.identity.source.name(),
        },
        Principal::Token(claims) => match &claims.source {
            TokenSource::Own => None,
            TokenSource::Trusted(_) => Some(&claims.issuer),
            TokenSource::Introspected(name) => Some(name),
        },
        // Its user is in the database; a service is nowhere else.
        Principal::ApiKey(_) => Some("database"),
    }
}

/// The part of the gateway that the request belongs to.
fn route_label(ctx: &RequestContext) -> RouteLabel {
    match &ctx.route {
        Some(route) => RouteLabel::Route(route.index),
        None if ctx.is_api_call => RouteLabel::Api,
        None => RouteLabel::None,
    }
}

/// Whether there was an authentication to count.
fn has_authentication_outcome(ctx: &RequestContext) -> bool {
    ctx.authenticated || ctx.refusal.is_some_and(Refusal::is_authentication_outcome)
}

/// Why a request was refused, if it was: the specific reason, else the default one of the refusal.
fn reason_of(ctx: &RequestContext) -> &'static str {
    match (ctx.reason, ctx.refusal) {
        (Some(reason), _) => reason.as_str(),
        (None, Some(refusal)) => refusal.message(),
        (None, None) => "",
    }
}

/// Records how much of the response was passed on for a request that was dropped before it was
/// measured.
fn note_dropped(ctx: &mut RequestContext) {
    if ctx.status != 0 {
        return;
    }
    ctx.status = ctx.forwarded.status;
    ctx.body_sent = ctx.forwarded.bytes;
    let control = &ctx.arrival.control;
    let failure = if control.body_rate.is_late() {
        Failure::BodyTooSlow
    } else if control.idle_timer.has_expired() {
        control.idle_timer.failure()
    } else {
        return;
    };
    ctx.record_failure(failure);
    if let (0, Some(timeout)) = (ctx.status, ctx.refusal) {
        // The client did not receive it: the stream was reset, or the connection closed.
        ctx.status = timeout.status().as_u16();
    }
}

/// Records why the gateway closed an open response, unless a reason is recorded already.
fn note_closing(ctx: &mut RequestContext) {
    let control = &ctx.arrival.control;
    let late = control.idle_timer.has_expired() || control.body_rate.is_late();
    if ctx.reason.is_some() || ctx.refusal.is_some() || late {
        return;
    }
    ctx.reason = control.close_reason().map(|why| match why {
        CloseReason::Ended => Reason::CredentialEnded,
        CloseReason::Drain => Reason::ShuttingDown,
    });
}

/// Records a client that took nothing, unless a reason is recorded already.
fn note_stall(ctx: &mut RequestContext) {
    if ctx.reason.is_none() && ctx.arrival.control.is_stalled() {
        ctx.reason = Some(Reason::ClientStalled);
    }
}

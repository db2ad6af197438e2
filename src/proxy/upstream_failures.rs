//! What an attempt that failed leaves behind: a warning, a metric, and the health of its server.

use std::fmt::Display;

use super::request_context::{RequestContext, UpstreamAttempts};
use super::retry::{Failure, Stage};
use crate::settings;
use crate::upstream::ChosenServer;

/// The settings of the request's upstream.
pub(super) fn upstream_of(ctx: &RequestContext) -> Option<&settings::Upstream> {
    let upstream = ctx.snapshot.settings.upstreams.get(ctx.upstream?)?;
    Some(upstream)
}

/// Logs an attempt that failed, whether or not the request is sent again.
pub(super) fn warn(ctx: &RequestContext, attempts: &UpstreamAttempts, error: &dyn Display) {
    let chosen = attempts.server.as_ref();
    tracing::warn!(
        request_id = %ctx.request_id,
        upstream = chosen.map(ChosenServer::upstream),
        server = chosen.map(ChosenServer::url),
        %error,
        "an upstream attempt failed",
    );
}

/// Counts a failure of the upstream. `is_fault`: it counts against the health of its server, too.
pub(super) fn count(
    ctx: &RequestContext,
    attempts: &mut UpstreamAttempts,
    failure: Failure,
    stage: Stage,
    is_fault: bool,
) {
    if let (Some(upstream), Some(kind)) = (upstream_of(ctx), failure.upstream_error()) {
        let labels = [&*upstream.name, kind.as_str()];
        let errors = &ctx.worker.metrics.upstream_errors;
        errors.with_label_values(&labels).inc();
    }
    if let Some(server) = attempts.server.take().filter(|_| is_fault) {
        server.report(failure.outcome(stage));
    }
}

//! Whether the process is up, whether it should get traffic, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::super::response::json as json_response;
use super::AdminState;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::SessionsOnOutage;
use crate::store::ProbeResult;

/// Where the process is in its life; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Says that the listeners are open. A drain that has begun is not taken back.
    pub fn set_serving(&self) {
        let _ = self
            .0
            .compare_exchange(STARTING, SERVING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Says that the process is on its way out.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) == DRAINING
    }

    fn as_str(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            STARTING => "starting",
            SERVING => "ready",
            _ => "draining",
        }
    }
}

/// `GET /health`: 200 while the process is up, whatever the store does.
pub(super) async fn health(State(desk): State<AdminState>) -> Response {
    let counts = desk.store.counts().await;
    let answered = counts.is_ok();
    let counts = counts.ok().flatten();
    let count = |read: fn(&crate::store::StoreCounts) -> u64| counts.as_ref().map(read);
    let stats = json!({
        "activeSessions": count(|counts| counts.active_sessions),
        "cachedProfiles": count(|counts| counts.cached_profiles),
        "blacklistedTokens": count(|counts| counts.blacklisted_tokens),
    });
    let store = if answered && desk.store.is_up() {
        "connected"
    } else {
        "down"
    };
    let body = json!({"status": "OK", "store": store, "sessionStats": stats});
    json_response(StatusCode::OK, &body)
}

/// `GET /ready`: 503 while starting or draining, and when the store is down and sessions need it.
pub(super) async fn ready(
    State(desk): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
) -> Response {
    let (store_up, store) = store_status(&desk).await;
    let database = desk.accounts.database().probe().await.is_ok();
    let store_needed =
        desk.sessions_on_outage == SessionsOnOutage::Deny && !desk.sessions.is_durable();
    let word = match desk.readiness.as_str() {
        "ready" if !store_up && store_needed => "store_down",
        word => word,
    };
    let status = match word {
        "ready" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "status": word,
        "store": store,
        "database": {"up": database},
        "upstreams": snapshot.upstreams.describe(),
    });
    json_response(status, &body)
}

async fn store_status(desk: &AdminState) -> (bool, Value) {
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    let links = desk.store.connection_count();
    let links = links.map(|links| json!({"up": links.up, "of": links.total}));
    let probe = desk.store.probe().await;
    let probe = probe.unwrap_or_else(|error| ProbeResult {
        write: Err(error),
        read: Err(error),
    });
    let is_up = probe.read.is_ok();
    let problem = probe.read.and(probe.write).err();
    let body = json!({
        "up": is_up,
        "write": probe.write.is_ok(),
        "read": is_up,
        "write_ms": probe.write.ok().map(milliseconds),
        "read_ms": probe.read.ok().map(milliseconds),
        "problem": problem.map(|error| error.to_string()),
        "links": links,
    });
    (is_up, body)
}

/// `GET /metrics`: the Prometheus text format.
pub(super) async fn metrics(State(desk): State<AdminState>) -> Result<Response, Rejection> {
    let text = desk.metrics.render().map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "metrics cannot be rendered"
        );
        Rejection::from(Refusal::Internal)
    })?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_is_irreversible() {
        let readiness = Readiness::default();
        assert_eq!(readiness.as_str(), "starting");
        readiness.set_serving();
        assert_eq!(readiness.as_str(), "ready");
        readiness.set_draining();
        readiness.clone().set_serving();
        assert_eq!(readiness.as_str(), "draining");
    }
}

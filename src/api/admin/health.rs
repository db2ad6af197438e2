//! Liveness, readiness and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::super::response::json as json_response;
use super::AdminState;
use crate::identity::oidc::{ProviderStatus, Providers};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::SessionsOnOutage;
use crate::store::ProbeResult;

/// Lifecycle state of the process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;
/// Draining, while another process serves at the same addresses.
const REPLACED: u8 = 3;

impl Readiness {
    /// Marks the listeners as open. Has no effect once a drain has begun.
    pub fn set_serving(&self) {
        let _ = self
            .0
            .compare_exchange(STARTING, SERVING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Marks the process as draining.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// Marks the process as draining while another one serves at the same addresses. Requests on
    /// connections that are still open receive `ready`, because their address is.
    pub fn set_replaced(&self) {
        self.0.store(REPLACED, Ordering::Release);
    }

    /// Whether the process is draining.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) >= DRAINING
    }

    /// Whether new requests to its addresses are served, also where another process serves them.
    pub fn is_serving(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), SERVING | REPLACED)
    }

    fn as_str(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            STARTING => "starting",
            SERVING | REPLACED => "ready",
            _ => "draining",
        }
    }
}

/// `GET /health`: 200 while the process is up, regardless of the store.
pub(super) async fn health(State(state): State<AdminState>) -> Response {
    let counts = state.store.counts().await;
    let responded = counts.is_ok();
    let counts = counts.ok().flatten();
    let count = |read: fn(&crate::store::StoreCounts) -> u64| counts.as_ref().map(read);
    let stats = json!({
        "activeSessions": count(|counts| counts.active_sessions),
        "cachedProfiles": count(|counts| counts.cached_profiles),
        "blacklistedTokens": count(|counts| counts.blacklisted_tokens),
    });
    let store = if responded && state.store.is_up() {
        "connected"
    } else {
        "down"
    };
    let body = json!({"status": "OK", "store": store, "sessionStats": stats});
    json_response(StatusCode::OK, &body)
}

/// Returns `ready`, or why the gateway should receive no traffic.
pub async fn readiness(state: &AdminState) -> &'static str {
    let (store_up, _) = store_status(state).await;
    readiness_with(state, store_up)
}

fn readiness_with(state: &AdminState, store_up: bool) -> &'static str {
    let store_needed =
        state.sessions_on_outage == SessionsOnOutage::Deny && !state.sessions.is_durable();
    match state.readiness.as_str() {
        "ready" if !store_up && store_needed => "store_down",
        word => word,
    }
}

/// `GET /ready`: 503 while starting or draining, and when sessions need a store that is down.
pub(super) async fn ready(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
) -> Response {
    let (store_up, store) = store_status(&state).await;
    let database = state.accounts.is_database_up().await;
    let word = readiness_with(&state, store_up);
    let status = match word {
        "ready" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "status": word,
        "store": store,
        "database": {"up": database},
        "upstreams": snapshot.upstreams.describe(),
        "providers": describe_providers(&snapshot.providers),
    });
    json_response(status, &body)
}

/// Describes whether the providers respond, as far as calls have shown. Readiness does not depend on
/// them.
fn describe_providers(providers: &Providers) -> Value {
    let clients = providers.iter().map(|client| {
        let up = match client.status() {
            ProviderStatus::Unknown => Value::Null,
            ProviderStatus::Up => Value::Bool(true),
            ProviderStatus::Down => Value::Bool(false),
        };
        (client.settings().name.to_string(), json!({"up": up}))
    });
    Value::Object(clients.collect())
}

async fn store_status(state: &AdminState) -> (bool, Value) {
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    let links = state.store.connection_count();
    let links = links.map(|links| json!({"up": links.up, "of": links.total}));
    let probe = state.store.probe().await;
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

/// `GET /metrics`: Prometheus text format.
pub(super) async fn metrics(State(state): State<AdminState>) -> Result<Response, Rejection> {
    let text = state.metrics.render().map_err(|error| {
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

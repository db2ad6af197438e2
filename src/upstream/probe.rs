//! Active health checks.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::time::Instant;

use super::address::Address;
use super::server::ServerState;
use super::state::UpstreamState;
use crate::settings::{HealthCheck, UpstreamHost};

/// One health check: a `GET` to one address over a new connection. A pooled one would hide that none
/// can be made.
#[derive(Debug)]
pub struct Probe<'a> {
    pub address: &'a Address,
    /// The value of `Host` or `:authority`.
    pub authority: &'a str,
    pub path: &'a str,
    pub timeout: Duration,
}

/// Sends a probe and returns the status of the response. The HTTP client is the engine's, so that a
/// probe connects exactly as a request does.
pub type SendProbe =
    Arc<dyn for<'a> Fn(Probe<'a>) -> BoxFuture<'a, Result<StatusCode, ProbeError>> + Send + Sync>;

/// Why a probe received no response.
pub type ProbeError = Box<dyn Error + Send + Sync>;

/// Health of a server by its consecutive checks.
struct HealthState {
    passes: bool,
    /// Consecutive checks with the opposite result.
    contrary: usize,
}

impl HealthState {
    /// Records one check and returns whether the server is healthy, which changes after the configured
    /// number of consecutive checks.
    fn record(&mut self, passed: bool, check: &HealthCheck) -> bool {
        if passed == self.passes {
            self.contrary = 0;
            return self.passes;
        }
        self.contrary = self.contrary.saturating_add(1);
        let threshold = if passed {
            check.healthy_after
        } else {
            check.unhealthy_after
        };
        if self.contrary >= threshold {
            self.passes = passed;
            self.contrary = 0;
        }
        self.passes
    }
}

/// Checks a server at every interval until the task is aborted.
pub(super) async fn run_health_checks(
    state: Arc<UpstreamState>,
    index: usize,
    check: HealthCheck,
    send_probe: SendProbe,
) {
    let Some(server) = state.servers.get(index) else {
        return;
    };
    let mut health = HealthState {
        passes: true,
        contrary: 0,
    };
    // The first checks are spread out, so that not all servers are checked at once.
    tokio::time::sleep(check.interval.mul_f64(rand::random())).await;
    // `interval` panics on a zero duration.
    let mut ticks = tokio::time::interval(check.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let passed = any_address_passes(&state, server, &check, &send_probe).await;
        if server.set_passes_checks(health.record(passed, &check)) {
            state.refresh();
        }
    }
}

/// Probes all addresses of a server. One that responds is enough; the others are avoided.
/// A server without addresses is out of rotation anyway.
async fn any_address_passes(
    state: &UpstreamState,
    server: &ServerState,
    check: &HealthCheck,
    send_probe: &SendProbe,
) -> bool {
    let mut passes = false;
    for address in server.addresses().iter() {
        let authority = match &state.settings.host {
            UpstreamHost::Name(name) => name,
            UpstreamHost::Preserve | UpstreamHost::Upstream => &address.connection().authority,
        };
        let probe = send_probe(Probe {
            address,
            authority,
            path: &check.path,
            timeout: check.timeout,
        });
        let failure = match tokio::time::timeout(check.timeout, probe).await {
            Ok(Ok(status)) if status.is_success() => {
                address.mark_reachable();
                passes = true;
                continue;
            }
            Ok(Ok(status)) => format!("status {status}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        address.mark_refused(Instant::now());
        let (server, address) = (&server.settings.url, address.socket());
        tracing::debug!(%server, %address, failure, "a health check failed");
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_changes_after_enough_consecutive_checks() {
        let check = HealthCheck {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        let mut health = HealthState {
            passes: true,
            contrary: 0,
        };
        for (passed, expected) in [
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (false, true),
            (false, false),
            (true, false),
            (false, false),
            (true, false),
            (true, true),
        ] {
            assert_eq!(health.record(passed, &check), expected);
        }
    }
}

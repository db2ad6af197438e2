//! Active health checks.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorType, OrErr};
use tokio::time::Instant;

use super::server::ServerState;
use super::state::UpstreamState;
use crate::settings::{HealthCheck, UpstreamHost};

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
    connector: Arc<Connector>,
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
        let passed = any_address_passes(&state, server, &check, &connector).await;
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
    connector: &Connector,
) -> bool {
    let mut passes = false;
    for address in server.addresses().iter() {
        let probe = probe_address(state, server, check, connector, &address.peer);
        let failure = match tokio::time::timeout(check.timeout, probe).await {
            Ok(Ok(())) => {
                address.mark_reachable();
                passes = true;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        address.mark_refused(Instant::now());
        let (server, address) = (&server.settings.url, &address.peer._address);
        tracing::debug!(%server, %address, failure, "a health check failed");
    }
    passes
}

/// Sends a `GET` over a new connection: a pooled one would hide that none can be made.
async fn probe_address(
    state: &UpstreamState,
    server: &ServerState,
    check: &HealthCheck,
    connector: &Connector,
    peer: &HttpPeer,
) -> Result<(), BError> {
    let authority = match (&state.settings.host, &server.template) {
        (UpstreamHost::Name(name), _) => name,
        (_, Some(template)) => &template.authority,
        (_, None) => return Err(Error::new(ErrorType::InternalError)),
    };
    let peer = &isolated_peer(peer, check.timeout);
    let (mut session, _) = connector.get_http_session(peer).await?;
    let mut head = RequestHeader::build("GET", check.path.as_bytes(), None)?;
    head.insert_header("user-agent", "portcullis-health-check")?;
    if session.as_http2().is_some() {
        let uri = Uri::builder()
            .scheme(if peer.is_tls() { "https" } else { "http" })
            .authority(authority.as_str())
            .path_and_query(check.path.as_str())
            .build();
        head.set_uri(uri.or_err(ErrorType::InternalError, "the health check's URI")?);
        head.set_version(http::Version::HTTP_2);
    } else {
        head.insert_header("host", authority)?;
        head.insert_header("connection", "close")?;
    }
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map(|head| head.status);
    session.shutdown().await;
    match status {
        Some(status) if status.is_success() => Ok(()),
        Some(status) => Error::e_explain(ErrorType::HTTPStatus(status.as_u16()), "health check"),
        None => Err(Error::new(ErrorType::InvalidHTTPHeader)),
    }
}

/// Copies a peer for a connection that is not pooled and has the timeouts of the check.
fn isolated_peer(peer: &HttpPeer, timeout: Duration) -> HttpPeer {
    let mut peer = peer.clone();
    peer.group_key = rand::random();
    peer.options.max_h2_streams = 1;
    peer.options.connection_timeout = Some(timeout);
    peer.options.total_connection_timeout = Some(timeout);
    peer.options.read_timeout = Some(timeout);
    peer.options.write_timeout = Some(timeout);
    peer
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

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

/// Counts checks in a row.
struct HealthState {
    passes: bool,
    /// Checks in a row that say the opposite.
    against: usize,
}

impl HealthState {
    /// Takes one check into account; the verdict turns after enough of them in a row.
    fn take(&mut self, passed: bool, check: &HealthCheck) -> bool {
        if passed == self.passes {
            self.against = 0;
            return self.passes;
        }
        self.against = self.against.saturating_add(1);
        let enough = if passed {
            check.healthy_after
        } else {
            check.unhealthy_after
        };
        if self.against >= enough {
            self.passes = passed;
            self.against = 0;
        }
        self.passes
    }
}

/// Checks a server at each interval, for ever.
pub(super) async fn run_health_checks(
    shared: Arc<UpstreamState>,
    index: usize,
    check: HealthCheck,
    connector: Arc<Connector>,
) {
    let Some(server) = shared.servers.get(index) else {
        return;
    };
    let mut verdict = HealthState {
        passes: true,
        against: 0,
    };
    // The first checks are spread, so that servers are not all asked at once.
    tokio::time::sleep(check.interval.mul_f64(rand::random())).await;
    // A zero interval would be refused with a panic.
    let mut ticks = tokio::time::interval(check.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let passed = any_address_passes(&shared, server, &check, &connector).await;
        if server.set_passes_checks(verdict.take(passed, &check)) {
            shared.refresh();
        }
    }
}

/// One address that answers is enough; the others are passed over. A server without addresses is
/// out of rotation anyway.
async fn any_address_passes(
    shared: &UpstreamState,
    server: &ServerState,
    check: &HealthCheck,
    connector: &Connector,
) -> bool {
    let mut passes = false;
    for address in server.addresses().iter() {
        let asked = probe_address(shared, server, check, connector, &address.peer);
        let failure = match tokio::time::timeout(check.timeout, asked).await {
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

/// A `GET` over a connection of its own: one from a pool would hide that none can be made.
async fn probe_address(
    shared: &UpstreamState,
    server: &ServerState,
    check: &HealthCheck,
    connector: &Connector,
    peer: &HttpPeer,
) -> Result<(), BError> {
    let authority = match (&shared.settings.host, &server.template) {
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

/// The same connection, shared with nobody and bounded by the check's own time.
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
        let mut verdict = HealthState {
            passes: true,
            against: 0,
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
            assert_eq!(verdict.take(passed, &check), expected);
        }
    }
}

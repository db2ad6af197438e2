//! Upstreams for tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{SendProbe, Upstream, Upstreams};
use crate::settings::{
    self, Balance, HealthCheck, Protocol, Server, ServerAddress, Timeouts, UpstreamHost,
    UpstreamTls,
};
use crate::telemetry::metrics::Metrics;

pub(crate) fn tcp(host: &str, port: u16) -> Server {
    Server {
        url: format!("http://{host}:{port}").into(),
        address: ServerAddress::Tcp {
            host: host.to_owned(),
            port,
        },
        tls: false,
        weight: 1,
    }
}

pub(crate) fn unix(path: PathBuf) -> Server {
    Server {
        url: format!("unix:{}", path.display()).into(),
        address: ServerAddress::Unix(path),
        tls: false,
        weight: 1,
    }
}

pub(crate) fn upstream(servers: Vec<Server>, balance: Balance) -> settings::Upstream {
    let second = Duration::from_secs(1);
    settings::Upstream {
        name: "orders".into(),
        servers,
        protocol: Protocol::Http1,
        host: UpstreamHost::Upstream,
        tls: UpstreamTls::default(),
        balance,
        health_check: None,
        timeouts: Timeouts {
            connect: second,
            read: 2 * second,
            write: 3 * second,
            idle: 4 * second,
            stream_idle: None,
        },
        retries: 1,
    }
}

/// An upstream with an active health check.
pub(crate) fn checked(servers: Vec<Server>) -> settings::Upstream {
    settings::Upstream {
        health_check: Some(HealthCheck {
            path: "/healthz".to_owned(),
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
            unhealthy_after: 2,
            healthy_after: 2,
        }),
        ..upstream(servers, Balance::RoundRobin)
    }
}

/// A function for upstreams that are not probed.
pub(crate) fn no_probe() -> SendProbe {
    Arc::new(|_| Box::pin(async { Err("not probed".into()) }))
}

pub(crate) async fn build(
    settings: &[settings::Upstream],
    previous: Option<&Upstreams>,
    send_probe: &SendProbe,
) -> Upstreams {
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings: Vec<_> = settings.iter().cloned().map(Arc::new).collect();
    Upstreams::build(&settings, previous, send_probe, &metrics, Handle::current()).await
}

/// Starts the only upstream of a configuration.
pub(crate) async fn start(settings: settings::Upstream, send_probe: &SendProbe) -> Arc<Upstream> {
    let upstreams = build(&[settings], None, send_probe).await;
    Arc::clone(upstreams.get(0).unwrap())
}

/// Waits until a server is in rotation, or, with `available` false, until none is.
pub(crate) async fn wait_until_available(upstream: &Upstream, available: bool) {
    let changed = async {
        while upstream.is_available() != available {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), changed).await;
    assert!(
        waited.is_ok(),
        "the upstream never became available: {available}"
    );
}

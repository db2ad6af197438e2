//! Groups of backend servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::routing::TimeoutOverrides;

/// A group of interchangeable servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub name: Arc<str>,
    pub servers: Vec<Server>,
    pub protocol: Protocol,
    pub host: UpstreamHost,
    pub tls: UpstreamTls,
    pub balance: Balance,
    pub health_check: Option<HealthCheck>,
    pub timeouts: Timeouts,
    pub retries: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As configured; the `server` label of metrics.
    pub url: Arc<str>,
    pub address: ServerAddress,
    pub tls: bool,
    pub weight: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A host name, which is resolved in the background, or an IP address.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2,
}

/// The `Host` header for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamHost {
    Preserve,
    /// The server's own host and port.
    Upstream,
    Name(String),
}

/// TLS to `https` servers. The certificate is always verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Trusted CA certificates in PEM, checked at load; `None` for those of the system.
    pub ca: Option<Vec<u8>>,
    /// Client certificate chain and key, in PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Name to verify the certificate against; `None` for the server's host.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastRequests,
    Random,
    ConsistentHash(HashKey),
}

/// Input of a consistent hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Ip,
    User,
    Session,
    Header(HeaderName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub unhealthy_after: usize,
    pub healthy_after: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Does not apply to upgraded connections and event streams, which have `stream_idle`.
    pub read: Duration,
    pub write: Duration,
    /// Of a connection in the pool.
    pub idle: Duration,
    pub stream_idle: Option<Duration>,
}

impl Timeouts {
    /// Returns the upstream's timeouts with those that a route overrides replaced.
    pub fn with_overrides(&self, route: &TimeoutOverrides) -> Timeouts {
        Timeouts {
            connect: route.connect.unwrap_or(self.connect),
            read: route.read.unwrap_or(self.read),
            write: route.write.unwrap_or(self.write),
            idle: route.idle.unwrap_or(self.idle),
            stream_idle: route.stream_idle.or(self.stream_idle),
        }
    }
}

//! The validated settings. A value here exists only if it is valid; `config` makes them, the other
//! modules only read them. What needs a restart ([`Boot`]) and what a reload may change
//! ([`Reloadable`]) are different types, so a reload cannot miss a setting.

pub mod backend;
mod database;
mod topology;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use database::{DatabaseSettings, PostgresAddress, PostgresTls};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
pub use topology::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};

use crate::auth::{session, token};
use crate::limits::{Limit, OnOutage};
use crate::routing::{self, TimeoutOverrides};

/// One configuration file, understood.
#[derive(Debug)]
pub struct Settings {
    pub boot: Boot,
    pub reloadable: Reloadable,
    /// The files beside the configuration itself whose change calls for a reload: certificates,
    /// keys, secrets, key sets.
    pub watched: Vec<PathBuf>,
    /// Of what all of them held when they were read: what changes from then on is news.
    pub fingerprint: u64,
}

/// What only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    pub listeners: Vec<Listener>,
    pub admin: SocketAddr,
    pub store: Store,
    pub database: DatabaseSettings,
}

impl Boot {
    /// The keys that differ, for whoever has to restart because of them.
    pub fn changed_keys(&self, other: &Boot) -> Vec<String> {
        let parts = [
            ("listeners", self.listeners == other.listeners),
            ("admin.bind", self.admin == other.admin),
            ("store", self.store == other.store),
            ("database", self.database == other.database),
        ];
        let differing = parts.into_iter().filter(|(_, same)| !same);
        differing.map(|(name, _)| name.to_owned()).collect()
    }
}

/// A public socket and what bounds its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub bind: SocketAddr,
    pub tls: bool,
    /// Which header names the client, when the peer is trusted.
    pub client_ip_from: ForwardedBy,
    pub proxy_protocol: bool,
    pub limits: ConnectionLimits,
    pub http2: Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedBy {
    XForwardedFor,
    Forwarded,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Bytes of a request head.
    pub head: usize,
    /// For the whole head, from its first byte (or from the accept, for the first one).
    pub head_timeout: Duration,
    pub handshake_timeout: Duration,
    pub keepalive: Duration,
    /// For a client that takes nothing of a response.
    pub write_timeout: Duration,
    /// Header fields of a request.
    pub fields: usize,
    pub connections: usize,
    pub connections_per_address: Option<usize>,
    /// Bytes per second of a request body; 0: no minimum.
    pub body_rate: u64,
}

/// What bounds an HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    pub streams: u32,
    /// Bytes.
    pub stream_window: u32,
    /// Bytes.
    pub connection_window: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub engine: Engine,
    pub key_prefix: String,
    /// For any one operation; past it the answer is "unknown".
    pub timeout: Duration,
    /// How many replicas must have a revocation before its caller hears that it is done.
    pub revocation_replicas: u32,
    pub sessions_on_outage: SessionsOnOutage,
    pub cached_for: Duration,
    pub limits_on_outage: OnOutage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    Memory,
    Redis(RedisAddress),
}

/// What a route that needs a session does while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsOnOutage {
    /// 503.
    Deny,
    /// What this gateway knows, at most `cached_for` old.
    Cached,
    /// A valid access token, not known revoked, is enough.
    TokenOnly,
}

/// What a reload replaces, between two requests. One `Arc` a request.
#[derive(Debug)]
pub struct Reloadable {
    /// In the order of [`Boot::listeners`].
    pub listeners: Vec<ReloadableListener>,
    pub admin_token: Option<SecretString>,
    /// Host names, in lower case, by which the admin listener may be called; `None`: by any.
    pub admin_names: Option<Vec<String>>,
    pub tokens: Arc<token::Tokens>,
    pub sessions: session::SessionRules,
    pub identity: Identity,
    pub api: Option<Api>,
    /// `Strict-Transport-Security` on the gateway's own responses over TLS.
    pub hsts: Option<HeaderValue>,
    pub identity_header_names: IdentityHeaderNames,
    pub limits: Vec<Arc<Limit>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: routing::RouteTable,
    pub shutdown: Shutdown,
}

#[derive(Debug, Clone)]
pub struct ReloadableListener {
    /// Peers that may say who the client is; empty: nobody.
    pub trusted_proxies: Vec<IpNet>,
    pub redirect_to_https: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The certificates that `tls` serves.
    pub certificates: Vec<CertificateExpiry>,
}

/// When a certificate expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The file, as the operator wrote it; the `certificate` label of metrics.
    pub file: String,
    /// Unix time, seconds.
    pub not_after: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    pub delay: Duration,
    pub grace: Duration,
}

/// Who says who somebody is, and how people may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub registration_open: bool,
    pub passwords: PasswordRules,
    pub attempts_per_address: Rate,
    pub failures_per_account: Rate,
    /// What checks credentials; `None`: the users in the database.
    pub backend: Option<Arc<backend::BackendSettings>>,
}

/// What a new password has to be like, and how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordRules {
    /// Characters.
    pub min_length: usize,
    pub cost: HashCost,
}

/// What one Argon2id hash costs (RFC 9106, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// KiB.
    pub memory: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub limit: u64,
    pub window: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Begins with a slash and does not end with one.
    pub prefix: String,
    /// `scheme://host[:port]`, lower case.
    pub allowed_origins: Vec<String>,
    /// Whether the gateway keeps the users: only then are registration and profiles its own.
    pub users: bool,
}

/// The identity headers of all routes, and the default name of each that is off. No client may send
/// any of them to any route: two routes may lead to one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityHeaderNames(Vec<HeaderName>);

impl IdentityHeaderNames {
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> IdentityHeaderNames {
        let mut distinct: Vec<HeaderName> = names.into_iter().collect();
        distinct.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        distinct.dedup();
        IdentityHeaderNames(distinct)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, HeaderName> {
        self.0.iter()
    }
}

/// A set of servers that do the same.
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
    /// As the operator wrote it; the `server` label of metrics.
    pub url: Arc<str>,
    pub address: ServerAddress,
    pub tls: bool,
    pub weight: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A name is resolved in the background, an IP address as it is.
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

/// The `Host` that the upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamHost {
    Preserve,
    /// The server's own host and port.
    Upstream,
    Name(String),
}

/// For `https` servers; the certificate is always verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM files' contents, checked at load. `None`: the system's roots.
    pub ca: Option<Vec<u8>>,
    /// Certificate chain and key, PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// The name to verify; `None`: the server's host.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastRequests,
    Random,
    ConsistentHash(HashKey),
}

/// What a consistent hash reads.
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
    /// Ends with an upgrade or an event stream, which `stream_idle` rules.
    pub read: Duration,
    pub write: Duration,
    /// The pool's.
    pub idle: Duration,
    pub stream_idle: Option<Duration>,
}

impl Timeouts {
    /// The upstream's timeouts with a route's own in their place.
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

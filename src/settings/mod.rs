//! Validated settings, built by `config` and read by all other modules.
//!
//! Settings that need a restart ([`Boot`]) and those that a reload replaces ([`Reloadable`]) are
//! different types, so that a reload cannot claim to change the former.

pub mod acme;
mod api_keys;
pub mod backend;
mod bind_address;
mod database;
pub mod forward_auth;
pub mod introspection;
pub mod pages;
pub mod provider;
mod topology;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use api_keys::ApiKeys;
pub use bind_address::BindAddress;
pub use database::{DatabaseSettings, PostgresAddress, PostgresTls};
use http::HeaderValue;
use ipnet::IpNet;
use secrecy::SecretString;
pub use topology::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};
pub use upstream::{
    Balance, HashKey, HealthCheck, Protocol, Server, ServerAddress, Timeouts, Upstream,
    UpstreamHost, UpstreamTls,
};

use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::sealing::KeyRing;
use crate::auth::{session, token};
use crate::limits::{Limit, OnOutage};
use crate::routing::endpoints::OfferedEndpoints;
use crate::routing::{self, HostPattern, NameSet};

/// The settings of one configuration.
#[derive(Debug)]
pub struct Settings {
    pub boot: Boot,
    pub reloadable: Reloadable,
}

/// Settings that only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The public listeners.
    pub listeners: Vec<Listener>,
    /// The listener of front proxies.
    pub forward_auth: Option<Listener>,
    pub admin: SocketAddr,
    /// Path of the socket for upgrades.
    pub control_socket: Option<PathBuf>,
    pub store: Store,
    pub database: DatabaseSettings,
}

impl Boot {
    /// The listeners that the workers serve: the public ones, in the order of the file, and that of
    /// front proxies.
    pub fn served_listeners(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let public = self.listeners.iter().enumerate();
        let public = public.map(|(index, one)| (ListenerId::Public(index), one));
        let front_proxies = self.forward_auth.iter();
        public.chain(front_proxies.map(|one| (ListenerId::ForwardAuth, one)))
    }

    /// The listener that receives a request.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        match id {
            ListenerId::Public(index) => self.listeners.get(index),
            ListenerId::ForwardAuth => self.forward_auth.as_ref(),
        }
    }

    /// Returns the keys that differ and therefore need a restart.
    pub fn changed_keys(&self, other: &Boot) -> Vec<String> {
        let bind = |boot: &Boot| boot.forward_auth.as_ref().map(|one| one.bind.clone());
        let has_tls = |boot: &Boot| boot.forward_auth.as_ref().is_some_and(|one| one.tls);
        let parts = [
            ("listeners", self.listeners == other.listeners),
            ("forward_auth.bind", bind(self) == bind(other)),
            ("forward_auth.tls", has_tls(self) == has_tls(other)),
            ("admin.bind", self.admin == other.admin),
            (
                "admin.control_socket",
                self.control_socket == other.control_socket,
            ),
            ("store", self.store == other.store),
            ("database", self.database == other.database),
        ];
        let differing = parts.into_iter().filter(|(_, same)| !same);
        differing.map(|(name, _)| name.to_owned()).collect()
    }
}

/// Which of the listeners that the workers serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerId {
    /// A public one, by its position in the file.
    Public(usize),
    /// That of front proxies.
    ForwardAuth,
}

/// A listener and the limits of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub bind: BindAddress,
    pub tls: bool,
    /// Header with the client address, if the peer is trusted.
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
    /// Maximum size of a request head, in bytes.
    pub head: usize,
    /// For the whole head, from its first byte, or from the accept for the first head.
    pub head_timeout: Duration,
    pub handshake_timeout: Duration,
    pub keepalive: Duration,
    /// For a client that reads nothing of a response.
    pub write_timeout: Duration,
    /// Maximum number of header fields of a request.
    pub fields: usize,
    pub connections: usize,
    pub connections_per_address: Option<usize>,
    /// Minimum rate of a request body, in bytes per second; 0 for none.
    pub body_rate: u64,
}

/// Limits of an HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    pub streams: u32,
    /// In bytes.
    pub stream_window: u32,
    /// In bytes.
    pub connection_window: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub engine: Engine,
    pub key_prefix: String,
    /// For one operation. A timeout counts as an outage.
    pub timeout: Duration,
    /// Replicas that must acknowledge a revocation before it is reported as successful.
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

/// Behavior of routes that need a session, while the store does not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsOnOutage {
    /// 503.
    Deny,
    /// Entries of the near cache that are at most `cached_for` old.
    Cached,
    /// A valid access token suffices unless its revocation is cached.
    TokenOnly,
}

/// Settings that a reload replaces. A request uses one value throughout.
#[derive(Debug)]
pub struct Reloadable {
    /// In the order of [`Boot::listeners`].
    pub listeners: Vec<ReloadableListener>,
    pub forward_auth: Option<forward_auth::ForwardAuth>,
    pub admin_token: Option<SecretString>,
    /// Accepted host names of the admin listener, in lower case; `None` for any.
    pub admin_names: Option<Vec<String>>,
    pub tokens: Arc<token::Tokens>,
    /// In the order of the file.
    pub introspection: Vec<Arc<introspection::IntrospectionEntry>>,
    pub sessions: session::SessionRules,
    pub identity: Identity,
    /// The keys that seal the tokens of providers and the keys of certificates. Present where such
    /// secrets are kept.
    pub encryption: Option<Arc<KeyRing>>,
    pub api: Option<Api>,
    /// `None`: no API keys are accepted.
    pub api_keys: Option<ApiKeys>,
    pub pages: Arc<pages::Pages>,
    /// `Strict-Transport-Security` on the gateway's own responses over TLS.
    pub hsts: Option<HeaderValue>,
    /// The identity headers of all routes, the default names of those that are off, and the header of
    /// API keys. All of them are removed from requests to every route, because two routes can share an
    /// upstream.
    pub identity_header_names: NameSet,
    pub limits: Vec<Arc<Limit>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: routing::RouteTable,
    /// The routes that are resources of OAuth clients, whatever the method; `None`: there are none.
    pub oauth_resources: Option<routing::RouteTable>,
    pub shutdown: Shutdown,
}

impl Reloadable {
    /// What a reload replaces of the listener that receives a request.
    pub fn listener(&self, id: ListenerId) -> Option<&ReloadableListener> {
        match id {
            ListenerId::Public(index) => self.listeners.get(index),
            ListenerId::ForwardAuth => Some(&self.forward_auth.as_ref()?.listener),
        }
    }

    /// All listeners that the workers serve.
    pub fn served_listeners(&self) -> impl Iterator<Item = &ReloadableListener> {
        let front_proxies = self.forward_auth.iter();
        let front_proxies = front_proxies.map(|forward_auth| &forward_auth.listener);
        self.listeners.iter().chain(front_proxies)
    }
}

#[derive(Debug, Clone)]
pub struct ReloadableListener {
    /// Peers whose information about the client is trusted.
    pub trusted_proxies: Vec<IpNet>,
    pub redirect_to_https: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Expiry of the certificates in `tls`.
    pub certificates: Vec<CertificateExpiry>,
    /// Certificates by ACME, which `tls` serves beside those of files.
    pub acme: Option<acme::ListenerAcme>,
}

/// When a certificate expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The file as configured; the `certificate` label of metrics.
    pub file: String,
    /// In Unix seconds.
    pub not_after: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    pub delay: Duration,
    pub grace: Duration,
}

/// Users and sign-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub registration_open: bool,
    pub passwords: PasswordRules,
    pub attempts_per_address: Rate,
    pub failures_per_account: Rate,
    /// Of users who sign in with a password.
    pub source: IdentitySource,
    /// In the order of the file.
    pub providers: Vec<Arc<provider::Provider>>,
    /// Prefixes with which the ID of a user of `source` or of the database must not begin.
    pub reserved_prefixes: ReservedPrefixes,
}

impl Identity {
    /// Returns the provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<provider::Provider>> {
        self.providers
            .iter()
            .find(|provider| &*provider.name == name)
    }

    /// Whether the user of a session has a row in the database.
    pub fn has_row(&self, session: &session::Session) -> bool {
        let Some(sign_in) = &session.provider else {
            return self.source == IdentitySource::Builtin;
        };
        match self.provider(&sign_in.provider) {
            Some(provider) => matches!(provider.users, provider::UserStorage::Database { .. }),
            // The provider was removed; the IDs of rows are UUIDs.
            None => uuid::Uuid::try_parse(&session.user).is_ok(),
        }
    }

    /// Returns the provider that is the only way to sign in: then there is no sign-in page.
    pub fn only_provider(&self) -> Option<&Arc<provider::Provider>> {
        match (&self.source, &*self.providers) {
            (IdentitySource::NoPasswords, [only]) => Some(only),
            _ => None,
        }
    }
}

/// Who keeps the users and checks their passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The gateway, in its database.
    Builtin,
    /// A backend of the application.
    Backend(Arc<backend::BackendSettings>),
    /// No one: users sign in at providers only.
    NoPasswords,
}

impl IdentitySource {
    /// The name of the source of its users in logs.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            IdentitySource::Builtin => Some("database"),
            IdentitySource::Backend(_) => Some("identity.upstream"),
            IdentitySource::NoPasswords => None,
        }
    }
}

/// Requirements for new passwords, and the cost of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordRules {
    /// In characters.
    pub min_length: usize,
    pub cost: HashCost,
}

/// Cost of one Argon2id hash (RFC 9106, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// In KiB.
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
    /// Starts with a slash and does not end with one.
    pub prefix: String,
    /// `scheme://host[:port]`, in lower case.
    pub allowed_origins: Vec<String>,
    /// Origin in redirect URIs and links, `scheme://host[:port]`; `None` for that of the request.
    pub public_url: Option<String>,
    /// Further hosts to which a sign-in may return.
    pub return_hosts: Vec<HostPattern>,
    pub offered: OfferedEndpoints,
}

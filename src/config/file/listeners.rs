//! Listeners, public and administrative.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::acme::Acme;
use crate::config::units::{Secret, Size, Time};

/// One public listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listener {
    /// Address and port, such as `127.0.0.1:8080` or `[::]:443`.
    pub(in crate::config) bind: String,
    /// TLS, with HTTP/2 by ALPN. `null`: cleartext.
    #[serde(default)]
    pub(in crate::config) tls: Option<ListenerTls>,
    /// Networks (CIDR) or addresses of peers whose information about the client is trusted. Empty:
    /// none.
    #[serde(default)]
    pub(in crate::config) trusted_proxies: Vec<String>,
    /// Header from which the client address is read if the peer is a trusted proxy: the rightmost
    /// hop that is not trusted. The other header is removed.
    #[serde(default)]
    pub(in crate::config) client_ip_from: ForwardedBy,
    /// Whether peers in `trusted_proxies` send the PROXY protocol, version 1 or 2.
    #[serde(default)]
    pub(in crate::config) proxy_protocol: bool,
    /// Whether every cleartext request is redirected to https, at the port of the TLS listener. A
    /// request whose `Host` has another port than this listener's is redirected to 443.
    #[serde(default)]
    pub(in crate::config) redirect_to_https: bool,
    /// Limits of a connection.
    #[serde(default)]
    pub(in crate::config) limits: ConnectionLimits,
    /// Limits of an HTTP/2 connection.
    #[serde(default)]
    pub(in crate::config) http2: Http2,
}

/// Certificates, selected by SNI: those of files, those by ACME, or both. The files are re-read when
/// they change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListenerTls {
    /// Certificate chains. The first is the default, for clients without SNI or with an unknown
    /// name.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(in crate::config) certificates: Vec<Certificate>,
    /// Certificates by ACME. `null`: none.
    #[serde(default)]
    pub(in crate::config) acme: Option<Acme>,
    /// PEM file with the CA certificates that verify client certificates, which are then required.
    /// `null`: clients need no certificate.
    #[serde(default)]
    pub(in crate::config) client_ca: Option<String>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Certificate {
    /// PEM file with the chain, the certificate itself first.
    pub(in crate::config) cert: String,
    /// PEM file with the private key.
    pub(in crate::config) key: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum ForwardedBy {
    #[default]
    XForwardedFor,
    Forwarded,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ConnectionLimits {
    /// Maximum size of a request head. A larger head is rejected with 431.
    pub(in crate::config) head: Size,
    /// Time limit for receiving a request head. A slower one is rejected with 408.
    pub(in crate::config) head_timeout: Time,
    /// Time limit for a TLS handshake.
    pub(in crate::config) handshake_timeout: Time,
    /// Time after which an idle connection is closed.
    pub(in crate::config) keepalive: Time,
    /// Time after which a client that reads none of a response is disconnected, whether the
    /// response is an upstream's or the gateway's.
    pub(in crate::config) write_timeout: Time,
    /// Maximum number of header fields of a request. A request with more is rejected with 431.
    #[schemars(range(min = 1, max = 256))]
    pub(in crate::config) fields: u64,
    /// Maximum number of open connections.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(in crate::config) connections: u64,
    /// Maximum number of open connections from one address; IPv6 addresses count by /64. Peers in
    /// `trusted_proxies` are exempt. `null`: the same as `connections`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(in crate::config) connections_per_address: Option<u64>,
    /// Minimum average rate of a request body, in bytes per second, after its first 20 s. A slower
    /// one is rejected with 408. Upgrades and gRPC calls to an `h2` upstream are exempt. `0`: no
    /// minimum.
    #[schemars(range(max = 1_000_000_000))]
    pub(in crate::config) body_rate: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Http2 {
    /// Maximum number of concurrent requests on one connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) streams: u32,
    /// Bytes of one request body that a client may send ahead of the upstream; an upload transfers
    /// at most this much per round trip.
    pub(in crate::config) stream_window: Size,
    /// Bytes that a client may send ahead on one connection, over all request bodies.
    pub(in crate::config) connection_window: Size,
}

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 {
            streams: 100,
            stream_window: Size(1 << 20),
            connection_window: Size(4 << 20),
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            head: Size(64 << 10),
            head_timeout: Time::seconds(15),
            handshake_timeout: Time::seconds(10),
            keepalive: Time::seconds(75),
            write_timeout: Time::seconds(60),
            fields: 200,
            connections: 20_000,
            connections_per_address: None,
            body_rate: 500,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Admin {
    /// Address and port.
    pub(in crate::config) bind: String,
    /// Bearer token for `/admin/*`, at least 16 bytes. `null`: `/admin/*` responds with 403.
    pub(in crate::config) token: Option<Secret>,
    /// File with the token; replaces `token`.
    pub(in crate::config) token_file: Option<String>,
    /// Accepted host names, in addition to loopback names, IP addresses and the machine's host
    /// name. `*`: any name.
    pub(in crate::config) names: Vec<String>,
    /// Absolute path of a Unix socket for `portcullis upgrade`, in a directory of mode 0700 that
    /// belongs to the gateway's user. `null`: none.
    pub(in crate::config) control_socket: Option<String>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            bind: "127.0.0.1:9090".to_owned(),
            token: None,
            token_file: None,
            names: Vec::new(),
            control_socket: None,
        }
    }
}

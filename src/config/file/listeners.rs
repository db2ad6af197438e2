//! The sockets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{Secret, Size, Time};

/// One public socket.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listener {
    /// Address and port, like `127.0.0.1:8080` or `[::]:443`.
    pub(in crate::config) bind: String,
    /// TLS with HTTP/2 by ALPN. `null`: in clear.
    #[serde(default)]
    pub(in crate::config) tls: Option<ListenerTls>,
    /// CIDRs (or single addresses) of peers that may say who the client is. Empty: nobody.
    #[serde(default)]
    pub(in crate::config) trusted_proxies: Vec<String>,
    /// The header by which a trusted proxy names the client: the rightmost hop that is not trusted
    /// counts. The other header is removed.
    #[serde(default)]
    pub(in crate::config) client_ip_from: ForwardedBy,
    /// Expect the PROXY protocol, version 1 or 2, from `trusted_proxies`.
    #[serde(default)]
    pub(in crate::config) proxy_protocol: bool,
    /// Redirect every plain request to the same address under https, at the port of the TLS listener. A
    /// client that names another port than this listener's own is redirected to 443.
    #[serde(default)]
    pub(in crate::config) redirect_to_https: bool,
    /// What bounds a connection.
    #[serde(default)]
    pub(in crate::config) limits: ConnectionLimits,
    /// What bounds an HTTP/2 connection.
    #[serde(default)]
    pub(in crate::config) http2: Http2,
}

/// Certificates, chosen by the name that the client asks for (SNI). Re-read when the files change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListenerTls {
    /// The first is the default, for clients that ask for no name or for an unknown one.
    #[schemars(length(min = 1))]
    pub(in crate::config) certificates: Vec<Certificate>,
    /// PEM file of the authorities that must have signed a client's certificate. `null`: clients
    /// need none.
    #[serde(default)]
    pub(in crate::config) client_ca: Option<String>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Certificate {
    /// PEM file of the chain, the certificate itself first.
    pub(in crate::config) cert: String,
    /// PEM file of the private key.
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
    /// The size of a request head; beyond it the answer is 431.
    pub(in crate::config) head: Size,
    /// How long a request head may take to arrive; beyond it the answer is 408.
    pub(in crate::config) head_timeout: Time,
    /// How long a TLS handshake may take.
    pub(in crate::config) handshake_timeout: Time,
    /// How long an idle connection is kept open.
    pub(in crate::config) keepalive: Time,
    /// A client that takes nothing of a response for this long is cut off, whether an upstream or
    /// the gateway made the response.
    pub(in crate::config) write_timeout: Time,
    /// Header fields of a request; with more, the response is 431.
    #[schemars(range(min = 1, max = 256))]
    pub(in crate::config) fields: u64,
    /// Open connections.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(in crate::config) connections: u64,
    /// Open connections from one address; an IPv6 address counts by its /64. Peers in
    /// `trusted_proxies` are exempt. `null`: as many as `connections`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(in crate::config) connections_per_address: Option<u64>,
    /// Bytes per second that a request body must average after its first 20 s; a slower one is 408.
    /// Upgrades and gRPC calls to an `h2` upstream are exempt. `0`: no minimum.
    #[schemars(range(max = 1_000_000_000))]
    pub(in crate::config) body_rate: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Http2 {
    /// Concurrent requests on one connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) streams: u32,
    /// Bytes of one request body that a client may send ahead of the upstream. One upload is at
    /// most this fast per round trip.
    pub(in crate::config) stream_window: Size,
    /// The same for all request bodies of a connection together.
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
    /// The bearer token for `/admin/*`, at least 16 bytes. `null`: `/admin/*` answers 403.
    pub(in crate::config) token: Option<Secret>,
    /// A file that holds the token, in place of `token`.
    pub(in crate::config) token_file: Option<String>,
    /// Host names by which the listener may be called, besides loopback names, IP addresses and the
    /// machine's host name. `*`: any name.
    pub(in crate::config) names: Vec<String>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            bind: "127.0.0.1:9090".to_owned(),
            token: None,
            token_file: None,
            names: Vec::new(),
        }
    }
}

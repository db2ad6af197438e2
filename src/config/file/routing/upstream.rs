use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::units::Time;

/// A group of interchangeable servers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Upstream {
    /// The servers, each `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`, or `{url,
    /// weight}`.
    #[schemars(length(min = 1))]
    pub(in crate::config) servers: Vec<Server>,
    /// HTTP version. `h2` is used with and without TLS, and is required for gRPC.
    #[serde(default)]
    pub(in crate::config) protocol: Protocol,
    /// `Host` header to send: `preserve` (the client's), `upstream` (the server's own) or a name.
    #[serde(default = "preserve")]
    pub(in crate::config) host: String,
    /// TLS settings for https servers. The certificate is always verified.
    #[serde(default)]
    pub(in crate::config) tls: UpstreamTls,
    /// Load balancing algorithm.
    #[serde(default)]
    pub(in crate::config) balance: Balance,
    /// Input of the consistent hash: `ip`, `user`, `session` or `header:NAME`.
    #[serde(default)]
    pub(in crate::config) hash_key: Option<HashKey>,
    /// Active health check. `null`: servers are only ejected after failed requests.
    #[serde(default)]
    pub(in crate::config) health_check: Option<HealthCheck>,
    /// Timeouts of connections to the servers.
    #[serde(default)]
    pub(in crate::config) timeouts: Timeouts,
    /// Maximum number of retries. Only requests that no server can have processed are retried.
    #[serde(default = "one")]
    #[schemars(range(max = 10))]
    pub(in crate::config) retries: u32,
}

fn preserve() -> String {
    "preserve".to_owned()
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Server {
    Url(String),
    Weighted(WeightedServer),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct WeightedServer {
    /// URL of the server.
    pub(in crate::config) url: String,
    /// Weight of the server in load balancing.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    pub(in crate::config) weight: u32,
}

impl Server {
    /// The URL as written, and the weight.
    pub(in crate::config) fn parts(&self) -> (&str, u32) {
        match self {
            Server::Url(url) => (url, 1),
            Server::Weighted(server) => (&server.url, server.weight),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Protocol {
    #[default]
    Http1,
    H2,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct UpstreamTls {
    /// PEM file with the trusted CA certificates. `null`: those of the system.
    pub(in crate::config) ca: Option<String>,
    /// PEM file with the gateway's client certificate.
    pub(in crate::config) cert: Option<String>,
    /// PEM file with the key of that certificate.
    pub(in crate::config) key: Option<String>,
    /// Name to verify the certificate against. `null`: the server's host.
    pub(in crate::config) server_name: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Balance {
    #[default]
    RoundRobin,
    LeastRequests,
    Random,
    ConsistentHash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct HashKey(pub(in crate::config) String);

impl JsonSchema for HashKey {
    fn schema_name() -> Cow<'static, str> {
        "HashKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(ip|user|session|header:.+)$",
            "patternErrorMessage": "is not a hash key; use ip, user, session or header:NAME",
            "examples": ["ip", "user", "session", "header:X-Tenant"],
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HealthCheck {
    /// Path of the request. A 2xx response is healthy.
    pub(in crate::config) path: String,
    /// Time between two checks.
    pub(in crate::config) interval: Time,
    /// Time limit for the response.
    pub(in crate::config) timeout: Time,
    /// Consecutive failures after which a server is unhealthy.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) unhealthy_after: u32,
    /// Consecutive successes after which a server is healthy again.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) healthy_after: u32,
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck {
            path: "/healthz".to_owned(),
            interval: Time::seconds(5),
            timeout: Time::seconds(1),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    /// Time limit to connect, including TLS.
    pub(in crate::config) connect: Time,
    /// Maximum time between two reads of a response. `stream_idle` applies instead to an upgraded
    /// connection, an event stream or a gRPC stream.
    pub(in crate::config) read: Time,
    /// Maximum time between two writes of a request.
    pub(in crate::config) write: Time,
    /// How long an idle connection is kept in the pool.
    pub(in crate::config) idle: Time,
    /// Idle timeout of an upgraded connection, an event stream or a gRPC stream. `null`: none.
    pub(in crate::config) stream_idle: Option<Time>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Time::seconds(5),
            read: Time::seconds(60),
            write: Time::seconds(60),
            idle: Time::seconds(60),
            stream_idle: None,
        }
    }
}

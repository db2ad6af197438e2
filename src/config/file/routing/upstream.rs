use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::units::Time;

/// A set of servers that do the same.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Upstream {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH` each, or `{url, weight}`.
    #[schemars(length(min = 1))]
    pub(in crate::config) servers: Vec<Server>,
    /// `h2` also in clear, for gRPC.
    #[serde(default)]
    pub(in crate::config) protocol: Protocol,
    /// The `Host` that it gets: `preserve` (the client's), `upstream` (the server's own), or a name.
    #[serde(default = "preserve")]
    pub(in crate::config) host: String,
    /// For https servers. The certificate is always verified.
    #[serde(default)]
    pub(in crate::config) tls: UpstreamTls,
    /// How a server is chosen.
    #[serde(default)]
    pub(in crate::config) balance: Balance,
    /// What a consistent hash reads: `ip`, `user`, `session` or `header:NAME`.
    #[serde(default)]
    pub(in crate::config) hash_key: Option<HashKey>,
    /// Ask the servers regularly. `null`: only notice their failures.
    #[serde(default)]
    pub(in crate::config) health_check: Option<HealthCheck>,
    /// How long to wait.
    #[serde(default)]
    pub(in crate::config) timeouts: Timeouts,
    /// Further attempts, only for requests that no server can have acted on.
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
    /// The server's address.
    pub(in crate::config) url: String,
    /// Its share of the requests.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    pub(in crate::config) weight: u32,
}

impl Server {
    /// The address as written, and its share.
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
    /// PEM file of the authorities to trust. `null`: the system's.
    pub(in crate::config) ca: Option<String>,
    /// PEM file of the gateway's certificate.
    pub(in crate::config) cert: Option<String>,
    /// PEM file of its key.
    pub(in crate::config) key: Option<String>,
    /// The name to verify. `null`: the server's host.
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
            "patternErrorMessage": "is not a hash key; write ip, user, session or header:NAME",
            "examples": ["ip", "user", "session", "header:X-Tenant"],
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HealthCheck {
    /// What to ask for; 2xx is healthy.
    pub(in crate::config) path: String,
    /// How often.
    pub(in crate::config) interval: Time,
    /// How long to wait for the answer.
    pub(in crate::config) timeout: Time,
    /// Failures in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) unhealthy_after: u32,
    /// Successes in a row.
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
    /// To connect, TLS included.
    pub(in crate::config) connect: Time,
    /// Between two pieces of a response. Ends with an upgrade, an event stream or a gRPC stream, to
    /// which `stream_idle` applies.
    pub(in crate::config) read: Time,
    /// Between two pieces of a request.
    pub(in crate::config) write: Time,
    /// How long an idle connection is kept in the pool.
    pub(in crate::config) idle: Time,
    /// How long an upgraded connection, an event stream or a gRPC stream may be silent. `null`: for ever.
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

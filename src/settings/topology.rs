//! Address and topology of the Redis store.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Servers, user and connection settings of a Redis.
#[derive(Debug, Clone)]
pub struct RedisAddress {
    pub topology: Topology,
    pub database: i64,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// `None` for cleartext.
    pub tls: Option<RedisTls>,
}

/// The configured servers and their arrangement.
#[derive(Debug, Clone)]
pub enum Topology {
    /// One server.
    Standalone(RedisNode),
    /// A master with replicas, found through Sentinels.
    Sentinel(Sentinels),
    /// Some servers of a cluster, from which the others are discovered.
    Cluster(Vec<RedisNode>),
}

/// The Sentinels that report the master.
#[derive(Debug, Clone)]
pub struct Sentinels {
    pub nodes: Vec<RedisNode>,
    /// Name of the master in the Sentinels' configuration.
    pub master: String,
    pub password: Option<SecretString>,
}

/// Host and port of a server. The host is a name or an IP address without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisNode {
    pub host: String,
    pub port: u16,
}

/// TLS files, which are re-read for every connection, so that they can be renewed. They were valid
/// when the configuration was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Trusted CA certificates, PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Client certificate chain and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topology::Standalone(node) => node.fmt(f),
            Topology::Sentinel(Sentinels { nodes, master, .. }) => {
                write!(f, "{master} of the Sentinels {}", join_nodes(nodes))
            }
            Topology::Cluster(nodes) => write!(f, "the cluster {}", join_nodes(nodes)),
        }
    }
}

fn join_nodes(nodes: &[RedisNode]) -> String {
    let nodes: Vec<String> = nodes.iter().map(RedisNode::to_string).collect();
    nodes.join(", ")
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &RedisAddress) -> bool {
        self.topology == other.topology
            && self.database == other.database
            && self.username == other.username
            && secrets_equal(self.password.as_ref(), other.password.as_ref())
            && self.tls == other.tls
    }
}

impl Eq for RedisAddress {}

impl PartialEq for Topology {
    fn eq(&self, other: &Topology) -> bool {
        match (self, other) {
            (Topology::Standalone(a), Topology::Standalone(b)) => a == b,
            (Topology::Sentinel(a), Topology::Sentinel(b)) => {
                a.nodes == b.nodes
                    && a.master == b.master
                    && secrets_equal(a.password.as_ref(), b.password.as_ref())
            }
            (Topology::Cluster(a), Topology::Cluster(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Topology {}

fn secrets_equal(a: Option<&SecretString>, b: Option<&SecretString>) -> bool {
    a.map(ExposeSecret::expose_secret) == b.map(ExposeSecret::expose_secret)
}

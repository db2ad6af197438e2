//! Where a Redis is, in which shape, and who we are there.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// How the store is reached and who we are there.
#[derive(Debug, Clone)]
pub struct RedisAddress {
    pub topology: Topology,
    pub database: i64,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// `None`: in clear.
    pub tls: Option<RedisTls>,
}

/// Which servers there are and what they are to each other.
#[derive(Debug, Clone)]
pub enum Topology {
    /// One server.
    Standalone(RedisNode),
    /// A master with replicas, of which Sentinels say who it is.
    Sentinel(Sentinels),
    /// Some of a cluster's servers; they tell the others.
    Cluster(Vec<RedisNode>),
}

/// Who says which server is the master.
#[derive(Debug, Clone)]
pub struct Sentinels {
    pub nodes: Vec<RedisNode>,
    /// The name that they know the master by.
    pub master: String,
    pub password: Option<SecretString>,
}

/// A server's host, a name or an IP address without brackets, and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisNode {
    pub host: String,
    pub port: u16,
}

/// Files that are read whenever a connection is made, so that they can be renewed. They were
/// usable when the configuration was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// The authorities that may sign the servers' certificates, PEM. `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The gateway's certificate chain and its key, PEM.
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

//! Client of one store handle: a single connection, or one to each master of a cluster.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::cluster_client::ClusterClient;
use super::cluster_map::ClusterMap;
use super::connection::{StoreConnection, Target};
use super::connection_context::ConnectionContext;
use super::exchange_error::ExchangeError;
use super::sentinel::SentinelResolver;
use crate::settings::Topology;
use crate::store::redis::codec::scripts::Scripts;

/// Creates clients for the configured topology; shared by the process.
#[derive(Clone)]
pub(in crate::store::redis) enum TopologyConnector {
    Direct(Target),
    Cluster(Arc<ClusterMap>),
}

/// Client of one store handle.
pub(in crate::store::redis) enum TopologyClient {
    Direct(StoreConnection),
    Cluster(ClusterClient),
}

impl TopologyConnector {
    pub(in crate::store::redis) fn new(context: &Arc<ConnectionContext>) -> TopologyConnector {
        let address = &context.address;
        match &address.topology {
            Topology::Standalone(server) => {
                TopologyConnector::Direct(Target::Server(server.clone()))
            }
            Topology::Sentinel(sentinels) => {
                let resolver = SentinelResolver::new(sentinels.clone(), address.tls.clone());
                TopologyConnector::Direct(Target::Master(Arc::new(resolver)))
            }
            Topology::Cluster(seeds) => TopologyConnector::Cluster(Arc::new(ClusterMap::new(
                seeds.clone(),
                Arc::clone(context),
            ))),
        }
    }

    /// Creates a client, which connects in a task on the current Tokio runtime.
    pub(in crate::store::redis) fn connect(
        &self,
        context: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> TopologyClient {
        match self {
            TopologyConnector::Direct(target) => {
                TopologyClient::Direct(StoreConnection::spawn(target.clone(), context, scripts))
            }
            TopologyConnector::Cluster(map) => {
                TopologyClient::Cluster(ClusterClient::spawn(Arc::clone(map), context, scripts))
            }
        }
    }
}

impl TopologyClient {
    /// Whether the servers of all keys are connected.
    pub(in crate::store::redis) fn is_up(&self) -> bool {
        match self {
            TopologyClient::Direct(connection) => connection.is_up(),
            TopologyClient::Cluster(cluster) => cluster.is_up(),
        }
    }

    /// Whether keys may be on different servers, out of reach of a common script.
    pub(in crate::store::redis) fn is_cluster(&self) -> bool {
        matches!(self, TopologyClient::Cluster(_))
    }

    pub(in crate::store::redis) fn report_timeout(&self) {
        match self {
            TopologyClient::Direct(connection) => connection.report_timeout(),
            TopologyClient::Cluster(cluster) => cluster.report_timeout(),
        }
    }

    pub(in crate::store::redis) async fn execute(
        &self,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self {
            TopologyClient::Direct(connection) => connection.execute(command).await,
            // Boxed: a future of its size would be moved on every request's path.
            TopologyClient::Cluster(cluster) => Box::pin(cluster.execute(command)).await,
        }
    }

    /// Sends several commands; server errors are among the replies.
    pub(in crate::store::redis) async fn execute_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, ExchangeError> {
        match self {
            TopologyClient::Direct(connection) => connection.execute_all(commands).await,
            TopologyClient::Cluster(cluster) => cluster.execute_all(commands).await,
        }
    }

    /// Sends several commands, then `last` to each server that received one, on the same connection.
    ///
    /// Returns the replies, and each server's reply to `last`.
    pub(in crate::store::redis) async fn execute_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Vec<Value>), ExchangeError> {
        match self {
            TopologyClient::Direct(connection) => {
                let (replies, last) = connection.execute_all_then(commands, last).await?;
                Ok((replies, vec![last]))
            }
            TopologyClient::Cluster(cluster) => cluster.execute_all_then(commands, last).await,
        }
    }

    /// Number of servers that hold keys.
    pub(in crate::store::redis) fn server_count(&self) -> usize {
        match self {
            TopologyClient::Direct(_) => 1,
            TopologyClient::Cluster(cluster) => cluster.master_count(),
        }
    }

    /// Sends a command to one of the servers that hold keys, by its index.
    pub(in crate::store::redis) async fn execute_on_server(
        &self,
        index: usize,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self {
            TopologyClient::Direct(connection) => connection.execute(command).await,
            TopologyClient::Cluster(cluster) => cluster.execute_on_master(index, command).await,
        }
    }
}

//! The way from one handle to the store: one link, or one to each master of a cluster.

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

/// What a process needs to know to make roads.
#[derive(Clone)]
pub(in crate::store::redis) enum TopologyConnector {
    Direct(Target),
    Cluster(Arc<ClusterMap>),
}

pub(in crate::store::redis) enum TopologyClient {
    Direct(StoreConnection),
    Cluster(ClusterClient),
}

impl TopologyConnector {
    pub(in crate::store::redis) fn new(links: &Arc<ConnectionContext>) -> TopologyConnector {
        let address = &links.address;
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
                Arc::clone(links),
            ))),
        }
    }

    /// Begins to connect, on the current tokio runtime.
    pub(in crate::store::redis) fn connect(
        &self,
        links: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> TopologyClient {
        match self {
            TopologyConnector::Direct(target) => {
                TopologyClient::Direct(StoreConnection::spawn(target.clone(), links, scripts))
            }
            TopologyConnector::Cluster(atlas) => {
                TopologyClient::Cluster(ClusterClient::spawn(Arc::clone(atlas), links, scripts))
            }
        }
    }
}

impl TopologyClient {
    /// Whether every key can be reached.
    pub(in crate::store::redis) fn is_up(&self) -> bool {
        match self {
            TopologyClient::Direct(link) => link.is_up(),
            TopologyClient::Cluster(cluster) => cluster.is_up(),
        }
    }

    /// Whether keys may lie apart, so that no script sees them together.
    pub(in crate::store::redis) fn is_cluster(&self) -> bool {
        matches!(self, TopologyClient::Cluster(_))
    }

    pub(in crate::store::redis) fn report_timeout(&self) {
        match self {
            TopologyClient::Direct(link) => link.report_timeout(),
            TopologyClient::Cluster(cluster) => cluster.report_timeout(),
        }
    }

    pub(in crate::store::redis) async fn execute(
        &self,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self {
            TopologyClient::Direct(link) => link.execute(command).await,
            // Boxed: a future of its size would be moved about on every request's path.
            TopologyClient::Cluster(cluster) => Box::pin(cluster.execute(command)).await,
        }
    }

    /// Answers that are errors are among those returned.
    pub(in crate::store::redis) async fn execute_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, ExchangeError> {
        match self {
            TopologyClient::Direct(link) => link.execute_all(commands).await,
            TopologyClient::Cluster(cluster) => cluster.execute_all(commands).await,
        }
    }

    /// Asks many things, and another one of each server that they went to, after them on the same
    /// connection: the answers, and the servers' answers to the last.
    pub(in crate::store::redis) async fn execute_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Vec<Value>), ExchangeError> {
        match self {
            TopologyClient::Direct(link) => {
                let (replies, last) = link.execute_all_then(commands, last).await?;
                Ok((replies, vec![last]))
            }
            TopologyClient::Cluster(cluster) => cluster.execute_all_then(commands, last).await,
        }
    }

    /// How many servers have keys.
    pub(in crate::store::redis) fn server_count(&self) -> usize {
        match self {
            TopologyClient::Direct(_) => 1,
            TopologyClient::Cluster(cluster) => cluster.master_count(),
        }
    }

    /// Asks one of the servers that have keys, by its place.
    pub(in crate::store::redis) async fn execute_on_server(
        &self,
        place: usize,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self {
            TopologyClient::Direct(link) => link.execute(command).await,
            TopologyClient::Cluster(cluster) => cluster.execute_on_master(place, command).await,
        }
    }
}

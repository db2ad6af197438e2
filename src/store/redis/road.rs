//! The way from one handle to the store: one link, or one to each master of a cluster.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::atlas::Atlas;
use super::cluster::Cluster;
use super::connection::{Link, Target};
use super::fault::Fault;
use super::links::Links;
use super::scripts::Scripts;
use super::sentinel::Resolver;
use crate::settings::Topology;

/// What a process needs to know to make roads.
#[derive(Clone)]
pub(super) enum Way {
    Direct(Target),
    Cluster(Arc<Atlas>),
}

pub(super) enum Road {
    Direct(Link),
    Cluster(Cluster),
}

impl Way {
    pub(super) fn new(links: &Arc<Links>) -> Way {
        let address = &links.address;
        match &address.topology {
            Topology::Standalone(server) => Way::Direct(Target::Server(server.clone())),
            Topology::Sentinel(sentinels) => {
                let resolver = Resolver::new(sentinels.clone(), address.tls.clone());
                Way::Direct(Target::Master(Arc::new(resolver)))
            }
            Topology::Cluster(seeds) => {
                Way::Cluster(Arc::new(Atlas::new(seeds.clone(), Arc::clone(links))))
            }
        }
    }

    /// Begins to connect, on the current tokio runtime.
    pub(super) fn open(&self, links: Arc<Links>, scripts: Arc<Scripts>) -> Road {
        match self {
            Way::Direct(target) => Road::Direct(Link::supervised(target.clone(), links, scripts)),
            Way::Cluster(atlas) => {
                Road::Cluster(Cluster::supervised(Arc::clone(atlas), links, scripts))
            }
        }
    }
}

impl Road {
    /// Whether every key can be reached.
    pub(super) fn up(&self) -> bool {
        match self {
            Road::Direct(link) => link.up(),
            Road::Cluster(cluster) => cluster.up(),
        }
    }

    /// Whether keys may lie apart, so that no script sees them together.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Road::Cluster(_))
    }

    pub(super) fn suspect(&self) {
        match self {
            Road::Direct(link) => link.suspect(),
            Road::Cluster(cluster) => cluster.suspect(),
        }
    }

    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        match self {
            Road::Direct(link) => link.ask(command).await,
            // Boxed: a future of its size would be moved about on every request's path.
            Road::Cluster(cluster) => Box::pin(cluster.ask(command)).await,
        }
    }

    /// Answers that are errors are among those returned.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        match self {
            Road::Direct(link) => link.ask_all(commands).await,
            Road::Cluster(cluster) => cluster.ask_all(commands).await,
        }
    }

    /// Asks many things, and another one of each server that they went to, after them on the same
    /// connection: the answers, and the servers' answers to the last.
    pub(super) async fn ask_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Vec<Value>), Fault> {
        match self {
            Road::Direct(link) => {
                let (replies, last) = link.ask_all_then(commands, last).await?;
                Ok((replies, vec![last]))
            }
            Road::Cluster(cluster) => cluster.ask_all_then(commands, last).await,
        }
    }

    /// How many servers have keys.
    pub(super) fn servers(&self) -> usize {
        match self {
            Road::Direct(_) => 1,
            Road::Cluster(cluster) => cluster.masters(),
        }
    }

    /// Asks one of the servers that have keys, by its place.
    pub(super) async fn ask_server(&self, place: usize, command: &Cmd) -> Result<Value, Fault> {
        match self {
            Road::Direct(link) => link.ask(command).await,
            Road::Cluster(cluster) => cluster.ask_master(place, command).await,
        }
    }
}

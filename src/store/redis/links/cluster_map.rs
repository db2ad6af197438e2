//! Slot map of a cluster, refreshed by one task of the process.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::{Notify, watch};

use super::connection_context::ConnectionContext;
use super::dial::{self, with_timeout};
use super::exchange_error::ExchangeError;
use super::slots::SlotMap;
use super::task_slot::{TaskSlot, TaskSlotGuard};
use crate::settings::RedisNode;

/// Timeout of a query to one server, connection setup included.
const QUERY_TIMEOUT: Duration = Duration::from_millis(300);
/// Shortest interval of refreshes, however often they are requested.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of refreshes without a request.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The process's view of the cluster.
pub(in crate::store::redis) struct ClusterMap {
    seeds: Vec<RedisNode>,
    context: Arc<ConnectionContext>,
    map: watch::Sender<Option<Arc<SlotMap>>>,
    refresh_requested: Notify,
    refresh_task: TaskSlot,
}

impl ClusterMap {
    pub(in crate::store::redis) fn new(
        seeds: Vec<RedisNode>,
        context: Arc<ConnectionContext>,
    ) -> ClusterMap {
        ClusterMap {
            seeds,
            context,
            map: watch::Sender::new(None),
            refresh_requested: Notify::new(),
            refresh_task: TaskSlot::default(),
        }
    }

    /// Requests a refresh, after the loss of a server or a redirect.
    pub(in crate::store::redis) fn request_refresh(&self) {
        self.refresh_requested.notify_one();
    }

    /// Starts to refresh the map on the current Tokio runtime, unless a task does so already.
    pub(in crate::store::redis) fn start_refreshing(self: &Arc<ClusterMap>) {
        if let Some(guard) = self.refresh_task.try_acquire() {
            tokio::spawn(keep_refreshed(Arc::downgrade(self), guard));
        }
    }

    /// Subscribes to the current map and its changes.
    pub(in crate::store::redis) fn subscribe(&self) -> watch::Receiver<Option<Arc<SlotMap>>> {
        self.map.subscribe()
    }

    /// Adds a server to which slots are migrating, so that its invalidations are tracked.
    pub(in crate::store::redis) fn add_master(&self, server: &RedisNode) {
        self.map.send_if_modified(|current| match current {
            Some(map) if !map.masters().contains(server) => {
                *map = Arc::new(map.with_master(server));
                true
            }
            _ => false,
        });
    }

    pub(in crate::store::redis) fn current(&self) -> Option<Arc<SlotMap>> {
        self.map.borrow().clone()
    }

    /// Queries the servers one after another: the masters, then the configured seeds.
    async fn query_any(&self, first: usize) -> Result<SlotMap, ExchangeError> {
        let current = self.current();
        let masters = current.iter().flat_map(|map| map.masters());
        let mut servers: Vec<&RedisNode> = masters.collect();
        let offset = first % servers.len().max(1);
        servers.rotate_left(offset);
        servers.extend(&self.seeds);
        let mut failure = ExchangeError::unreachable("no server of the cluster");
        for server in servers {
            match with_timeout(QUERY_TIMEOUT, self.query(server)).await {
                Ok(map) => return Ok(map),
                Err(error) => failure = error,
            }
        }
        failure.code = format!("cluster: {}", failure.code);
        Err(failure)
    }

    async fn query(&self, server: &RedisNode) -> Result<SlotMap, ExchangeError> {
        let mut connection = dial::connect(server, &self.context.address).await?;
        let mut command = redis::cmd("CLUSTER");
        let reply: Value = command.arg("SLOTS").query_async(&mut connection).await?;
        SlotMap::parse(reply, server)
            .ok_or_else(|| ExchangeError::unreachable("no server has a slot"))
    }
}

async fn keep_refreshed(weak: Weak<ClusterMap>, _guard: TaskSlotGuard) {
    for round in rand::random_range(0..1024).. {
        let Some(cluster_map) = weak.upgrade() else {
            return;
        };
        match cluster_map.query_any(round).await {
            Ok(map) => {
                cluster_map.map.send_if_modified(|current| {
                    let has_changed = current.as_deref() != Some(&map);
                    *current = Some(Arc::new(map));
                    has_changed
                });
            }
            Err(error) => {
                let topology = &cluster_map.context.address.topology;
                cluster_map
                    .context
                    .warn(topology, "cannot use the store", &error);
            }
        }
        let interval = if cluster_map.current().is_some() {
            REFRESH_INTERVAL
        } else {
            MIN_REFRESH_INTERVAL
        };
        let pause = MIN_REFRESH_INTERVAL.mul_f64(rand::random_range(0.5..=1.0));
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = cluster_map.refresh_requested.notified() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

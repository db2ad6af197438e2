//! The map of a cluster, kept by one task of the process.

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

/// How long one server may take to say who has which slot, connecting included.
const QUERY_TIMEOUT: Duration = Duration::from_millis(300);
/// However often the map is doubted, it is asked for no more often.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is asked for when nobody doubts it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// What a process knows of the cluster.
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

    /// Has the map asked for again: a server is lost, or sent a question elsewhere.
    pub(in crate::store::redis) fn request_refresh(&self) {
        self.refresh_requested.notify_one();
    }

    /// Begins to keep the map, on the current tokio runtime, unless that is being done.
    pub(in crate::store::redis) fn start_refreshing(self: &Arc<ClusterMap>) {
        if let Some(duty) = self.refresh_task.try_acquire() {
            tokio::spawn(keep_refreshed(Arc::downgrade(self), duty));
        }
    }

    /// The map of the moment, and those that follow it.
    pub(in crate::store::redis) fn subscribe(&self) -> watch::Receiver<Option<Arc<SlotMap>>> {
        self.map.subscribe()
    }

    /// Takes notice of a server that the map does not have yet: slots are on their way to it, and
    /// what changes there must be heard.
    pub(in crate::store::redis) fn add_master(&self, server: &RedisNode) {
        self.map.send_if_modified(|known| match known {
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

    /// Asks the servers in turn: the masters that are known, then those of the configuration.
    async fn query_any(&self, first: usize) -> Result<SlotMap, ExchangeError> {
        let known = self.current();
        let masters = known.iter().flat_map(|map| map.masters());
        let mut servers: Vec<&RedisNode> = masters.collect();
        let turn = first % servers.len().max(1);
        servers.rotate_left(turn);
        servers.extend(&self.seeds);
        let mut fault = ExchangeError::unreachable("no server of the cluster");
        for server in servers {
            match with_timeout(QUERY_TIMEOUT, self.query(server)).await {
                Ok(map) => return Ok(map),
                Err(error) => fault = error,
            }
        }
        fault.code = format!("cluster: {}", fault.code);
        Err(fault)
    }

    async fn query(&self, server: &RedisNode) -> Result<SlotMap, ExchangeError> {
        let mut connection = dial::connect(server, &self.context.address).await?;
        let mut question = redis::cmd("CLUSTER");
        let reply: Value = question.arg("SLOTS").query_async(&mut connection).await?;
        SlotMap::parse(reply, server)
            .ok_or_else(|| ExchangeError::unreachable("nobody has any slot"))
    }
}

async fn keep_refreshed(atlas: Weak<ClusterMap>, _duty: TaskSlotGuard) {
    for round in rand::random_range(0..1024).. {
        let Some(looking) = atlas.upgrade() else {
            return;
        };
        match looking.query_any(round).await {
            Ok(map) => {
                looking.map.send_if_modified(|known| {
                    let news = known.as_deref() != Some(&map);
                    *known = Some(Arc::new(map));
                    news
                });
            }
            Err(fault) => {
                let cluster = &looking.context.address.topology;
                looking
                    .context
                    .warn(cluster, "cannot use the store", &fault);
            }
        }
        let every = if looking.current().is_some() {
            REFRESH_INTERVAL
        } else {
            MIN_REFRESH_INTERVAL
        };
        let pause = MIN_REFRESH_INTERVAL.mul_f64(rand::random_range(0.5..=1.0));
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = looking.refresh_requested.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

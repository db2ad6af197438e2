//! The map of a cluster, kept by one task of the process.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::{Notify, watch};

use super::dial::{self, within};
use super::duty::{Duty, OnDuty};
use super::fault::Fault;
use super::links::Links;
use super::slots::Map;
use crate::settings::Node;

/// How long one server may take to say who has which slot, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// However often the map is doubted, it is asked for no more often.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is asked for when nobody doubts it.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a process knows of the cluster.
pub(super) struct Atlas {
    seeds: Vec<Node>,
    links: Arc<Links>,
    map: watch::Sender<Option<Arc<Map>>>,
    doubted: Notify,
    exploring: Duty,
}

impl Atlas {
    pub(super) fn new(seeds: Vec<Node>, links: Arc<Links>) -> Atlas {
        Atlas {
            seeds,
            links,
            map: watch::Sender::new(None),
            doubted: Notify::new(),
            exploring: Duty::default(),
        }
    }

    /// Has the map asked for again: a server is lost, or sent a question elsewhere.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Begins to keep the map, on the current tokio runtime, unless that is being done.
    pub(super) fn explore(self: &Arc<Atlas>) {
        if let Some(duty) = self.exploring.take_up() {
            tokio::spawn(explore(Arc::downgrade(self), duty));
        }
    }

    /// The map of the moment, and those that follow it.
    pub(super) fn maps(&self) -> watch::Receiver<Option<Arc<Map>>> {
        self.map.subscribe()
    }

    /// Takes notice of a server that the map does not have yet: slots are on their way to it, and
    /// what changes there must be heard.
    pub(super) fn met(&self, server: &Node) {
        self.map.send_if_modified(|known| match known {
            Some(map) if !map.masters().contains(server) => {
                *map = Arc::new(map.with(server));
                true
            }
            _ => false,
        });
    }

    pub(super) fn map(&self) -> Option<Arc<Map>> {
        self.map.borrow().clone()
    }

    /// Asks the servers in turn: the masters that are known, then those of the configuration.
    async fn look(&self, first: usize) -> Result<Map, Fault> {
        let known = self.map();
        let masters = known.iter().flat_map(|map| map.masters());
        let mut servers: Vec<&Node> = masters.collect();
        let turn = first % servers.len().max(1);
        servers.rotate_left(turn);
        servers.extend(&self.seeds);
        let mut fault = Fault::unreachable("no server of the cluster");
        for server in servers {
            match within(ANSWER_WITHIN, self.ask(server)).await {
                Ok(map) => return Ok(map),
                Err(error) => fault = error,
            }
        }
        fault.code = format!("cluster: {}", fault.code);
        Err(fault)
    }

    async fn ask(&self, server: &Node) -> Result<Map, Fault> {
        let mut connection = dial::plain(server, &self.links.address).await?;
        let mut question = redis::cmd("CLUSTER");
        let reply: Value = question.arg("SLOTS").query_async(&mut connection).await?;
        Map::read(reply, server).ok_or_else(|| Fault::unreachable("nobody has any slot"))
    }
}

async fn explore(atlas: Weak<Atlas>, _duty: OnDuty) {
    for round in rand::random_range(0..1024).. {
        let Some(looking) = atlas.upgrade() else {
            return;
        };
        match looking.look(round).await {
            Ok(map) => {
                looking.map.send_if_modified(|known| {
                    let news = known.as_deref() != Some(&map);
                    *known = Some(Arc::new(map));
                    news
                });
            }
            Err(fault) => {
                let cluster = &looking.links.address.topology;
                looking.links.warn(cluster, "cannot use the store", &fault);
            }
        }
        let every = if looking.map().is_some() {
            LOOK_EVERY
        } else {
            PAUSE
        };
        let pause = PAUSE.mul_f64(rand::random_range(0.5..=1.0));
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = looking.doubted.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

//! The Redis engine: the only place that names the Redis client. Each operation that must be atomic
//! is one script over keys of one slot; each is one round trip where it can be.

mod activity;
mod alike;
mod amend;
mod apart;
mod atlas;
mod cluster;
mod connection;
mod dial;
mod duty;
mod fault;
mod fleet;
mod index;
pub(super) mod inspect;
mod introspection;
mod journal;
mod keys;
mod leases;
mod limits;
mod links;
mod listener;
mod listing;
mod live;
mod marker;
mod names;
mod profiles;
mod record;
mod refresh;
mod replicas;
mod revocations;
mod rights;
mod road;
mod scripts;
mod sentinel;
mod sessions;
mod slots;
mod supervision;
mod tls;
mod upkeep;
mod users;

use std::sync::Arc;

use alike::Alike;
use introspection::Introspection;
use keys::Keys;
pub(super) use leases::Granted;
use links::Links;
use listener::Clock;
pub(super) use listing::is_cursor;
use redis::Value;
use replicas::Replicas;
use road::{Road, Way};
use scripts::{Call, Scripts};

use super::StoreError;
use crate::auth::session::Millis;
use crate::settings::{self, RedisAddress};
use crate::telemetry::metrics::Metrics;

/// How many users or sessions one script deals with: a server does nothing else for a few hundred
/// microseconds.
const TOGETHER: usize = 32;

/// One Redis, of whichever topology, as one gateway sees it.
#[derive(Clone)]
pub(super) struct Redis {
    /// Absent in the handle that only makes links.
    road: Option<Arc<Road>>,
    way: Way,
    links: Arc<Links>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    /// Absent where nobody waits for replicas.
    replicas: Option<Arc<Replicas>>,
    clock: Arc<Clock>,
    /// Of this link alone.
    introspection: Arc<Introspection>,
    alike: Arc<Alike>,
    metrics: Arc<Metrics>,
}

impl Redis {
    pub(super) fn new(
        address: &RedisAddress,
        settings: &settings::Store,
        metrics: Arc<Metrics>,
    ) -> Redis {
        let links = Links::new(address.clone(), settings.timeout, Arc::clone(&metrics));
        let links = Arc::new(links);
        let wanted = settings.revocation_replicas;
        Redis {
            road: None,
            way: Way::new(&links),
            links,
            keys: Arc::new(Keys::new(&settings.key_prefix)),
            scripts: Arc::new(Scripts::new()),
            replicas: (wanted > 0).then(|| Arc::new(Replicas::new(wanted, settings.timeout))),
            clock: Arc::default(),
            introspection: Arc::default(),
            alike: Arc::default(),
            metrics,
        }
    }

    pub(super) fn link(&self) -> Redis {
        let open = || {
            let (links, scripts) = (Arc::clone(&self.links), Arc::clone(&self.scripts));
            self.way.open(links, scripts)
        };
        let road = open();
        if let Some(replicas) = &self.replicas {
            replicas.reach(open);
        }
        Redis {
            road: Some(Arc::new(road)),
            introspection: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn up(&self) -> bool {
        self.road.as_ref().is_some_and(|road| road.up())
    }

    /// How many times a link of this process has come up.
    pub(super) fn risings(&self) -> u64 {
        self.links.risings()
    }

    pub(super) fn links(&self) -> super::LinkCount {
        let (made, up) = self.links.count();
        super::LinkCount { made, up }
    }

    /// Has the connection tried at once: an operation has just got no answer.
    pub(super) fn suspect(&self) {
        if let Some(road) = &self.road {
            road.suspect();
        }
    }

    pub(super) async fn now(&self) -> Result<Millis, StoreError> {
        let reply = self.ask(&redis::cmd("TIME")).await?;
        clock(&reply).ok_or(StoreError::Malformed)
    }

    fn road(&self) -> Result<&Road, StoreError> {
        self.road.as_deref().ok_or(StoreError::Unreachable)
    }

    /// How many users or sessions one script deals with here: in a cluster each lies in a slot of its own.
    fn together(&self) -> Result<usize, StoreError> {
        Ok(if self.road()?.is_cluster() {
            1
        } else {
            TOGETHER
        })
    }

    async fn ask(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        let outcome = self.road()?.ask(command).await;
        outcome.map_err(|fault| fault.error)
    }

    /// Asks many things at once; an answer may be an error of its own.
    async fn ask_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.road()?.ask_all(commands).await;
        outcome.map_err(|fault| fault.error)
    }

    /// Runs a script.
    async fn run(&self, call: Call) -> Result<Value, StoreError> {
        self.ask(&call.command).await
    }

    /// Runs many scripts at once.
    async fn run_all(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreError> {
        let mut commands = redis::pipe();
        for call in calls {
            commands.add_command(call.command);
        }
        self.ask_all(&commands).await
    }

    /// Counts content that is not understood and was passed over.
    fn count_malformed(&self, operation: &'static str, times: u64) {
        if times > 0 {
            self.metrics
                .store_errors
                .with_label_values(&[operation, StoreError::Malformed.kind()])
                .inc_by(times);
        }
    }
}

/// Reads the answer to `TIME`.
fn clock(reply: &Value) -> Option<Millis> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).ok()?;
    Some(seconds * 1000 + micros / 1000)
}

/// Reads an answer as what it has to be.
fn read<T: redis::FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    let reply = fault::settled(reply)?;
    redis::from_redis_value(reply).map_err(|_| StoreError::Malformed)
}

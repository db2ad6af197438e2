//! The Redis engine: the only place that names the Redis client. Each operation that must be atomic
//! is one script over keys of one slot; each is one round trip where it can be.

mod codec;
pub(super) mod links;
mod operations;

use std::sync::Arc;

use codec::interner::Interner;
use codec::keys::Keys;
use codec::scripts::{ScriptCall, Scripts};
use links::connection_context::ConnectionContext;
use links::replicas::Replicas;
use links::topology_client::{TopologyClient, TopologyConnector};
use links::tracking::StoreClock;
pub(super) use operations::lease_grants::LeaseGrant;
pub(super) use operations::listing::is_cursor;
use operations::lookup_batch::LookupBatch;
use redis::Value;

use super::StoreError;
use crate::auth::session::Millis;
use crate::settings::{self, RedisAddress};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// How many users or sessions one script deals with: a server does nothing else for a few hundred
/// microseconds.
const BATCH_SIZE: usize = 32;

/// One Redis, of whichever topology, as one gateway sees it.
#[derive(Clone)]
pub(super) struct Redis {
    /// Absent in the handle that only makes links.
    client: Option<Arc<TopologyClient>>,
    connector: TopologyConnector,
    context: Arc<ConnectionContext>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    /// Absent where nobody waits for replicas.
    replicas: Option<Arc<Replicas>>,
    clock: Arc<StoreClock>,
    /// Of this link alone.
    lookup_batch: Arc<LookupBatch>,
    interner: Arc<Interner>,
    metrics: Arc<Metrics>,
}

impl Redis {
    pub(super) fn new(
        address: &RedisAddress,
        settings: &settings::Store,
        metrics: Arc<Metrics>,
    ) -> Redis {
        let links = ConnectionContext::new(address.clone(), settings.timeout, Arc::clone(&metrics));
        let context = Arc::new(links);
        let wanted = settings.revocation_replicas;
        Redis {
            client: None,
            connector: TopologyConnector::new(&context),
            context,
            keys: Arc::new(Keys::new(&settings.key_prefix)),
            scripts: Arc::new(Scripts::new()),
            replicas: (wanted > 0).then(|| Arc::new(Replicas::new(wanted, settings.timeout))),
            clock: Arc::default(),
            lookup_batch: Arc::default(),
            interner: Arc::default(),
            metrics,
        }
    }

    pub(super) fn connect(&self) -> Redis {
        let open = || {
            let (links, scripts) = (Arc::clone(&self.context), Arc::clone(&self.scripts));
            self.connector.connect(links, scripts)
        };
        let road = open();
        if let Some(replicas) = &self.replicas {
            replicas.connect(open);
        }
        Redis {
            client: Some(Arc::new(road)),
            lookup_batch: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.as_ref().is_some_and(|road| road.is_up())
    }

    /// How many times a link of this process has come up.
    pub(super) fn reconnects(&self) -> u64 {
        self.context.reconnects()
    }

    pub(super) fn connection_count(&self) -> super::ConnectionCount {
        let (made, up) = self.context.count();
        super::ConnectionCount { total: made, up }
    }

    /// Has the connection tried at once: an operation has just got no answer.
    pub(super) fn report_timeout(&self) {
        if let Some(road) = &self.client {
            road.report_timeout();
        }
    }

    pub(super) async fn now(&self) -> Result<Millis, StoreError> {
        let reply = self.execute(&redis::cmd("TIME")).await?;
        parse_time(&reply).ok_or(StoreError::Malformed)
    }

    fn client(&self) -> Result<&TopologyClient, StoreError> {
        self.client.as_deref().ok_or(StoreError::Unreachable)
    }

    /// How many users or sessions one script deals with here: in a cluster each lies in a slot of its own.
    fn batch_size(&self) -> Result<usize, StoreError> {
        Ok(if self.client()?.is_cluster() {
            1
        } else {
            BATCH_SIZE
        })
    }

    async fn execute(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        let outcome = self.client()?.execute(command).await;
        outcome.map_err(|fault| fault.error)
    }

    /// Asks many things at once; an answer may be an error of its own.
    async fn execute_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.client()?.execute_all(commands).await;
        outcome.map_err(|fault| fault.error)
    }

    /// Runs a script.
    async fn run(&self, call: ScriptCall) -> Result<Value, StoreError> {
        self.execute(&call.command).await
    }

    /// Runs many scripts at once.
    async fn run_all(&self, calls: Vec<ScriptCall>) -> Result<Vec<Value>, StoreError> {
        let mut commands = redis::pipe();
        for call in calls {
            commands.add_command(call.command);
        }
        self.execute_all(&commands).await
    }

    /// Counts content that is not understood and was passed over.
    fn count_malformed(&self, operation: StoreOperation, times: u64) {
        if times > 0 {
            let error = StoreError::Malformed.kind();
            self.metrics.count_store_errors(operation, error, times);
        }
    }
}

/// Reads the answer to `TIME`.
fn parse_time(reply: &Value) -> Option<Millis> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).ok()?;
    Some(seconds * 1000 + micros / 1000)
}

/// Reads an answer as what it has to be.
fn decode_reply<T: redis::FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    let reply = links::exchange_error::reject_server_error(reply)?;
    redis::from_redis_value(reply).map_err(|_| StoreError::Malformed)
}

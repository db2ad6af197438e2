//! Redis engine, the only module that uses the Redis client.
//!
//! Every operation that must be atomic is one script over keys of one slot. Operations take one round
//! trip where possible.

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
use super::provider_tokens::DroppedTokensSender;
use crate::auth::session::Millis;
use crate::settings::{self, RedisAddress};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// Number of users or sessions per script. A script blocks its server for some hundred microseconds.
const BATCH_SIZE: usize = 32;

/// Handle on a Redis of any topology.
#[derive(Clone)]
pub(super) struct Redis {
    /// Absent in the handle that only creates connections.
    client: Option<Arc<TopologyClient>>,
    connector: TopologyConnector,
    context: Arc<ConnectionContext>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    /// Absent unless revocations wait for replicas.
    replicas: Option<Arc<Replicas>>,
    clock: Arc<StoreClock>,
    /// Not shared between connections.
    lookup_batch: Arc<LookupBatch>,
    interner: Arc<Interner>,
    dropped_tokens: DroppedTokensSender,
    metrics: Arc<Metrics>,
}

impl Redis {
    pub(super) fn new(
        address: &RedisAddress,
        settings: &settings::Store,
        metrics: Arc<Metrics>,
    ) -> Redis {
        let context =
            ConnectionContext::new(address.clone(), settings.timeout, Arc::clone(&metrics));
        let context = Arc::new(context);
        let required = settings.revocation_replicas;
        Redis {
            client: None,
            connector: TopologyConnector::new(&context),
            context,
            keys: Arc::new(Keys::new(&settings.key_prefix)),
            scripts: Arc::new(Scripts::new()),
            replicas: (required > 0).then(|| Arc::new(Replicas::new(required, settings.timeout))),
            clock: Arc::default(),
            lookup_batch: Arc::default(),
            interner: Arc::default(),
            dropped_tokens: DroppedTokensSender::default(),
            metrics,
        }
    }

    pub(super) fn connect(&self) -> Redis {
        let open = || {
            let (context, scripts) = (Arc::clone(&self.context), Arc::clone(&self.scripts));
            self.connector.connect(context, scripts)
        };
        let client = open();
        if let Some(replicas) = &self.replicas {
            replicas.connect(open);
        }
        Redis {
            client: Some(Arc::new(client)),
            lookup_batch: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_up())
    }

    /// Number of times that the store's data may have been replaced by an older state.
    pub(super) fn reconnects(&self) -> u64 {
        self.context.reconnects()
    }

    pub(super) fn connection_count(&self) -> super::ConnectionCount {
        let (total, up) = self.context.count();
        super::ConnectionCount { total, up }
    }

    /// Has the connection checked at once, because an operation has timed out.
    pub(super) fn report_timeout(&self) {
        if let Some(client) = &self.client {
            client.report_timeout();
        }
    }

    pub(super) async fn now(&self) -> Result<Millis, StoreError> {
        let reply = self.execute(&redis::cmd("TIME")).await?;
        parse_time(&reply).ok_or(StoreError::Malformed)
    }

    fn client(&self) -> Result<&TopologyClient, StoreError> {
        self.client.as_deref().ok_or(StoreError::Unreachable)
    }

    /// Number of users or sessions per script: in a cluster one, because each has its own slot.
    fn batch_size(&self) -> Result<usize, StoreError> {
        Ok(if self.client()?.is_cluster() {
            1
        } else {
            BATCH_SIZE
        })
    }

    async fn execute(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        let outcome = self.client()?.execute(command).await;
        outcome.map_err(|error| error.error)
    }

    /// Sends several commands at once; single replies may be errors.
    async fn execute_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.client()?.execute_all(commands).await;
        outcome.map_err(|error| error.error)
    }

    /// Runs a script.
    async fn run(&self, call: ScriptCall) -> Result<Value, StoreError> {
        self.execute(&call.command).await
    }

    /// Runs several scripts at once; single replies may be errors.
    async fn run_all(&self, calls: Vec<ScriptCall>) -> Result<Vec<Value>, StoreError> {
        let mut commands = redis::pipe();
        for call in calls {
            commands.add_command(call.command);
        }
        self.execute_all(&commands).await
    }

    /// Counts malformed content that was skipped.
    fn count_malformed(&self, operation: StoreOperation, count: u64) {
        if count > 0 {
            let error = StoreError::Malformed.kind();
            self.metrics.count_store_errors(operation, error, count);
        }
    }
}

/// Parses the reply to `TIME`.
fn parse_time(reply: &Value) -> Option<Millis> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).ok()?;
    Some(seconds * 1000 + micros / 1000)
}

/// Converts a reply to the expected type.
fn decode_reply<T: redis::FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    let reply = links::exchange_error::reject_server_error(reply)?;
    redis::from_redis_value(reply).map_err(|_| StoreError::Malformed)
}

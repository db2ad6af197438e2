//! State that a fleet shares: sessions, revocations and limit counters, in memory or in Redis.
//!
//! Every operation has a deadline, a duration in the metrics and, when it fails, a kind of error. An
//! error means that the result is unknown; it never means "no".

mod acme_challenges;
mod amend;
mod api_keys;
mod deadline;
mod error;
mod fleet;
mod inspect;
mod invalidation;
mod journal;
mod lease_table;
mod leased_limits;
mod limits;
mod local_limits;
mod lookup;
mod maintenance;
mod marker;
mod memory;
mod open_connections;
mod page;
mod profiles;
mod provider_logout;
mod provider_tokens;
mod query;
mod reconcile;
mod redis;
mod refresh;
mod refresh_ahead;
mod revocations;
mod sessions;

pub mod near_cache;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use acme_challenges::AcmeChallenge;
pub use amend::{AmendOutcome, Amendment, MAX_DATA_BYTES};
pub use api_keys::{API_KEY_TTL, ApiKeyLease};
use deadline::{REPLY_ROUNDS, timeout_with_grace};
pub use error::StoreError;
pub use fleet::FleetConfirmation;
pub use inspect::{ServerCheck, Severity, inspect};
pub use invalidation::{CacheKey, UserHash, user_hash};
pub use journal::{JournalEntry, Position, is_bulk};
pub use maintenance::{CleanUpLease, ConnectionCount, ProbeResult, StoreCounts};
pub use marker::{Marker, MarkerState};
use memory::Memory;
pub use memory::RefreshTokens;
use near_cache::NearCache;
pub use open_connections::REPORT_TTL;
pub use page::{SessionListQuery, SessionPage};
pub use profiles::{CachedProfile, ProfileLease};
pub use provider_logout::LogoutTokenUse;
pub use provider_tokens::{DroppedTokens, ReplacedTokens};
pub use query::{Query, QueryResult, SessionLookup};
use redis::Redis;
pub use refresh::{InitialRefreshToken, RefreshRotation, Reuse, RotationOutcome, RotationResult};
pub use revocations::{CUT_OFF_TTL, cut_off_covers};
pub use sessions::{CreateOutcome, SessionIdentity};
use tokio::sync::broadcast;

use crate::auth::session::{Activity, Millis, Session, SessionId};
use crate::clock;
use crate::settings;
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// Number of revocations that a slow subscriber may lag behind before it has to query the store.
const REVOCATION_CHANNEL_CAPACITY: usize = 4096;

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    shared: Arc<StoreState>,
}

#[derive(Clone)]
enum Engine {
    Memory(Arc<Memory>),
    Redis(Redis),
}

struct StoreState {
    prefix: String,
    timeout: Duration,
    /// Number of replicas that must confirm a revocation.
    revocation_replicas: u32,
    metrics: Arc<Metrics>,
    /// Counters of this process while the store is unavailable.
    local_limits: local_limits::LocalLimits,
    leases: lease_table::LeaseTable,
    revocations: broadcast::Sender<Revocation>,
    near_cache: Arc<NearCache>,
    /// Time up to which all changes have been received and applied, by the store's clock.
    confirmed_up_to: AtomicU64,
    /// Number of gateways that share the store.
    gateway_count: AtomicU64,
    /// This gateway's name in the fleet.
    gateway_name: OnceLock<Arc<str>>,
    journal: journal::JournalQueue,
}

/// A revocation made by this process or reported by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    Session(SessionId),
    /// The blacklist key of a token.
    Token(String),
    /// A user's tokens without a session that were issued up to this second.
    IssuedBefore(UserHash, u64),
}

/// Use of a session on one gateway since the last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUse {
    pub session: SessionId,
    pub last_access: Millis,
    pub requests: u64,
    pub address: IpAddr,
}

/// A session with its activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    pub session: Session,
    pub activity: Activity,
}

impl Store {
    /// Creates the store, without connecting: a Redis store needs [`Store::connect`] first.
    pub fn open(settings: &settings::Store, metrics: Arc<Metrics>) -> Store {
        let engine = match &settings.engine {
            settings::Engine::Memory => {
                metrics.store_up.set(1);
                Engine::Memory(Arc::new(Memory::default()))
            }
            settings::Engine::Redis(address) => {
                Engine::Redis(Redis::new(address, settings, Arc::clone(&metrics)))
            }
        };
        for operation in StoreOperation::ALL {
            for error in StoreError::ALL {
                let labels = [operation.as_str(), error.kind()];
                metrics.store_errors.with_label_values(&labels);
            }
        }
        let shared = StoreState {
            prefix: settings.key_prefix.clone(),
            timeout: settings.timeout,
            revocation_replicas: settings.revocation_replicas,
            leases: lease_table::LeaseTable::new(&metrics),
            metrics,
            local_limits: local_limits::LocalLimits::default(),
            revocations: broadcast::Sender::new(REVOCATION_CHANNEL_CAPACITY),
            near_cache: Arc::default(),
            confirmed_up_to: AtomicU64::new(0),
            gateway_count: AtomicU64::new(1),
            gateway_name: OnceLock::new(),
            journal: journal::JournalQueue::default(),
        };
        Store {
            engine,
            shared: Arc::new(shared),
        }
    }

    /// The store as another gateway of the fleet holds it.
    #[cfg(test)]
    pub(crate) fn of_another_gateway(&self, settings: &settings::Store) -> Store {
        Store {
            engine: self.engine.clone(),
            ..Store::open(settings, Arc::clone(&self.shared.metrics))
        }
    }

    /// Creates a handle with its own connection.
    ///
    /// A task on the current Tokio runtime opens, monitors and replaces the connection until the last
    /// clone is dropped. Until it is up, operations fail at once.
    #[must_use]
    pub fn connect(&self) -> Store {
        let engine = match &self.engine {
            Engine::Memory(memory) => Engine::Memory(Arc::clone(memory)),
            Engine::Redis(redis) => Engine::Redis(redis.connect()),
        };
        Store {
            engine,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether this handle's connection is up.
    pub fn is_up(&self) -> bool {
        match &self.engine {
            Engine::Memory(_) => true,
            Engine::Redis(redis) => redis.is_up(),
        }
    }

    /// Whether replicas must confirm a revocation before it is reported as successful.
    pub fn requires_replicas(&self) -> bool {
        self.shared.revocation_replicas > 0
    }

    /// Number of times that the store's data may have been replaced by an older state.
    ///
    /// Counts connections to the store, at the start and after a loss, and flushes that it reported.
    pub fn reconnects(&self) -> u64 {
        match &self.engine {
            Engine::Memory(_) => 0,
            Engine::Redis(redis) => redis.reconnects(),
        }
    }

    /// Waits until this handle's connection is up or the timeout expires; returns whether it is up.
    pub async fn wait_until_up(&self, timeout: Duration) -> bool {
        let deadline = clock::monotonic() + timeout;
        while !self.is_up() && clock::monotonic() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.is_up()
    }

    /// The store's time, as this process estimates it.
    pub fn clock(&self) -> Millis {
        match &self.engine {
            Engine::Memory(memory) => memory.now() / 1000,
            Engine::Redis(redis) => redis.clock(),
        }
    }

    /// The store's time, queried unless the estimate is recent.
    pub async fn now(&self) -> Result<Millis, StoreError> {
        match self.shared.near_cache.is_fresh() {
            true => Ok(self.clock()),
            false => self.fetch_time().await,
        }
    }

    /// Queries the store's time.
    async fn fetch_time(&self) -> Result<Millis, StoreError> {
        self.measured(StoreOperation::Now, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.now() / 1000),
                Engine::Redis(redis) => redis.now().await,
            }
        })
        .await
    }

    /// Subscribes to the revocations that take effect on this gateway from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Revocation> {
        self.shared.revocations.subscribe()
    }

    /// The near cache of this gateway.
    pub fn near_cache(&self) -> &Arc<NearCache> {
        &self.shared.near_cache
    }

    /// Applies a revocation to the near cache and broadcasts it in this process.
    fn announce(&self, revocation: Revocation) {
        // Applied first: a client that has received the acknowledgment may use this gateway next.
        self.shared.near_cache.apply(&revocation);
        self.broadcast(revocation);
    }

    /// Invalidates an item that this gateway has changed.
    fn invalidate(&self, item: &CacheKey) {
        self.shared.near_cache.invalidate(item, 0);
    }

    /// Broadcasts a revocation in this process.
    fn broadcast(&self, revocation: Revocation) {
        // Fails only if there are no subscribers.
        let _ = self.shared.revocations.send(revocation);
    }

    /// Runs an operation with the store's timeout and records its outcome.
    async fn measured<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = clock::monotonic();
        let work = std::pin::pin!(work);
        let completed = timeout_with_grace(self.shared.timeout, REPLY_ROUNDS, work).await;
        let outcome = completed.unwrap_or_else(|| {
            if let Engine::Redis(redis) = &self.engine {
                redis.report_timeout();
            }
            Err(StoreError::Timeout)
        });
        self.count(operation, started, &outcome);
        outcome
    }

    /// Runs a long operation whose steps have the timeout each, and records its outcome.
    async fn measured_steps<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = clock::monotonic();
        let outcome = work.await;
        self.count(operation, started, &outcome);
        outcome
    }

    fn count<T>(
        &self,
        operation: StoreOperation,
        started: Instant,
        outcome: &Result<T, StoreError>,
    ) {
        let error = outcome.as_ref().err().map(|error| error.kind());
        self.shared
            .metrics
            .observe_store_operation(operation, started.elapsed(), error);
    }
}

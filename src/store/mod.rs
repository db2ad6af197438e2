//! The memory that a fleet shares: sessions, revocations, limit counters. One face, two engines.
//!
//! Every operation has one deadline, one duration in the metrics and, when it fails, one kind of
//! error. An error means that the answer is unknown; it never means "no".

mod amend;
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

pub use amend::{AmendOutcome, Amendment, MAX_DATA_BYTES};
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

/// How many revocations a slow subscriber may be behind before it has to ask the store instead.
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
    /// How many replicas must have a revocation.
    revocation_replicas: u32,
    metrics: Arc<Metrics>,
    /// The counters that this process keeps while the store is gone.
    local_limits: local_limits::LocalLimits,
    leases: lease_table::LeaseTable,
    revocations: broadcast::Sender<Revocation>,
    near_cache: Arc<NearCache>,
    /// Up to when changes have been heard of and looked at, by the store's clock.
    confirmed_up_to: AtomicU64,
    /// How many gateways share the store.
    gateway_count: AtomicU64,
    /// What this one is called among them.
    gateway_name: OnceLock<Arc<str>>,
    journal: journal::JournalQueue,
}

/// What this process has just revoked, or heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    Session(SessionId),
    /// The blacklist key of a token.
    Token(String),
    /// A person's tokens without a session that were issued up to this second.
    IssuedBefore(UserHash, u64),
}

/// What one gateway saw of one session since it last wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUse {
    pub session: SessionId,
    pub last_access: Millis,
    pub requests: u64,
    pub address: IpAddr,
}

/// A session with how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    pub session: Session,
    pub activity: Activity,
}

impl Store {
    /// Prepares the store. A Redis store does not answer through this handle: nothing is connected
    /// before [`Store::connect`].
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

    /// Makes a handle with a connection of its own, which a task on the current tokio runtime
    /// connects, watches and replaces until the last clone is dropped. Until it is up, operations
    /// fail at once.
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

    /// Whether this handle's connection answers at the moment.
    pub fn is_up(&self) -> bool {
        match &self.engine {
            Engine::Memory(_) => true,
            Engine::Redis(redis) => redis.is_up(),
        }
    }

    /// Whether replicas must have a revocation before anybody hears of success.
    pub fn requires_replicas(&self) -> bool {
        self.shared.revocation_replicas > 0
    }

    /// How many times this process has found the store, at its start and after it was lost, or has
    /// heard that everything in it changed: what is there may be older than what was.
    pub fn reconnects(&self) -> u64 {
        match &self.engine {
            Engine::Memory(_) => 0,
            Engine::Redis(redis) => redis.reconnects(),
        }
    }

    /// Waits until this handle's connection is up, at most so long; tells whether it is.
    pub async fn wait_until_up(&self, patience: Duration) -> bool {
        let deadline = clock::monotonic() + patience;
        while !self.is_up() && clock::monotonic() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.is_up()
    }

    /// The store's clock, as this process has it in mind.
    pub fn clock(&self) -> Millis {
        match &self.engine {
            Engine::Memory(memory) => memory.now() / 1000,
            Engine::Redis(redis) => redis.clock(),
        }
    }

    /// The store's clock: asked, unless it was told a moment ago.
    pub async fn now(&self) -> Result<Millis, StoreError> {
        match self.shared.near_cache.is_fresh() {
            true => Ok(self.clock()),
            false => self.fetch_time().await,
        }
    }

    /// Asks the store for its clock.
    async fn fetch_time(&self) -> Result<Millis, StoreError> {
        self.measured(StoreOperation::Now, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.now() / 1000),
                Engine::Redis(redis) => redis.now().await,
            }
        })
        .await
    }

    /// Hears of what this process revokes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Revocation> {
        self.shared.revocations.subscribe()
    }

    /// What this gateway knows without asking.
    pub fn near_cache(&self) -> &Arc<NearCache> {
        &self.shared.near_cache
    }

    fn announce(&self, revocation: Revocation) {
        // At once: whoever hears that it is done asks this gateway next.
        self.shared.near_cache.apply(&revocation);
        self.broadcast(revocation);
    }

    /// Something was changed here: it is asked for anew.
    fn invalidate(&self, item: &CacheKey) {
        self.shared.near_cache.invalidate(item, 0);
    }

    /// Tells this process of what is in force already.
    fn broadcast(&self, revocation: Revocation) {
        // Nobody need be listening.
        let _ = self.shared.revocations.send(revocation);
    }

    /// Runs an operation under its deadline and counts it.
    async fn measured<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = clock::monotonic();
        let work = std::pin::pin!(work);
        let done = timeout_with_grace(self.shared.timeout, REPLY_ROUNDS, work).await;
        let outcome = done.unwrap_or_else(|| {
            if let Engine::Redis(redis) = &self.engine {
                redis.report_timeout();
            }
            Err(StoreError::Timeout)
        });
        self.count(operation, started, &outcome);
        outcome
    }

    /// Runs a long operation whose single steps have the deadline, and counts it.
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

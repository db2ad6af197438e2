//! The memory that a fleet shares: sessions, revocations, limit counters. One face, two engines.
//!
//! Every operation has one deadline, one duration in the metrics and, when it fails, one kind of
//! error. An error means that the answer is unknown; it never means "no".

mod amend;
mod deadline;
mod error;
mod fleet;
mod inquiry;
mod inspect;
mod journal;
mod leases;
mod leasing;
mod limits;
mod live;
mod local;
mod lookup;
mod marker;
mod memory;
mod news;
mod page;
mod profiles;
mod redis;
mod refresh;
mod renewing;
mod revocations;
mod sessions;
mod tending;
mod upkeep;

pub mod replica;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

pub use amend::{Amended, Amendment, DATA_MAX};
use deadline::{AN_ANSWER, within};
pub use error::StoreError;
pub use fleet::Confirmed;
pub use inquiry::{Findings, Found, Inquiry};
pub use inspect::{Finding, Grade, inspect};
pub use journal::{Noted, Position, is_bulk};
pub use live::REPORT_KEPT;
pub use marker::{Marked, Marker};
use memory::Memory;
pub use memory::Refresh;
pub use news::{Item, PersonHash, person_hash};
pub use page::{Page, Wanted};
pub use profiles::{Cached, Lease};
use redis::Redis;
pub use refresh::{Grant, Reuse, Rotation, Turned, Turnover};
use replica::Replica;
pub use revocations::{CUT_OFF_KEPT, covers};
pub use sessions::{Created, Identity};
use tokio::sync::broadcast;
pub use upkeep::{Counts, LinkCount, Probe, Turn};

use crate::auth::session::{Activity, Millis, Session, SessionId};
use crate::limits::Micros;
use crate::settings;
use crate::telemetry::metrics::Metrics;

/// How many revocations a slow subscriber may be behind before it has to ask the store instead.
const REVOCATIONS_KEPT: usize = 4096;

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    shared: Arc<Shared>,
}

#[derive(Clone)]
enum Engine {
    Memory(Arc<Memory>),
    Redis(Redis),
}

struct Shared {
    prefix: String,
    timeout: Duration,
    /// How many replicas must have a revocation.
    replicas: u32,
    metrics: Arc<Metrics>,
    /// The counters that this process keeps while the store is gone.
    local: local::Local,
    leases: leases::Leases,
    revocations: broadcast::Sender<Revocation>,
    replica: Arc<Replica>,
    /// Up to when changes have been heard of and looked at, by the store's clock.
    heard: AtomicU64,
    /// How many gateways share the store.
    gateways: AtomicU64,
    /// What this one is called among them.
    name: OnceLock<Arc<str>>,
    journal: journal::Queue,
}

/// What this process has just revoked, or heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    Session(SessionId),
    /// The blacklist key of a token.
    Token(String),
    /// A person's tokens without a session that were issued up to this second.
    Person(PersonHash, u64),
}

/// What one gateway saw of one session since it last wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub session: SessionId,
    pub last_access: Millis,
    pub requests: u64,
    pub address: IpAddr,
}

/// A session with how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub session: Session,
    pub activity: Activity,
}

impl Store {
    /// Prepares the store. A Redis store does not answer through this handle: nothing is connected
    /// before [`Store::link`].
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
        let shared = Shared {
            prefix: settings.key_prefix.clone(),
            timeout: settings.timeout,
            replicas: settings.revocation_replicas,
            leases: leases::Leases::new(&metrics),
            metrics,
            local: local::Local::default(),
            revocations: broadcast::Sender::new(REVOCATIONS_KEPT),
            replica: Arc::default(),
            heard: AtomicU64::new(0),
            gateways: AtomicU64::new(1),
            name: OnceLock::new(),
            journal: journal::Queue::default(),
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
    pub fn link(&self) -> Store {
        let engine = match &self.engine {
            Engine::Memory(memory) => Engine::Memory(Arc::clone(memory)),
            Engine::Redis(redis) => Engine::Redis(redis.link()),
        };
        Store {
            engine,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether this handle's connection answers at the moment.
    pub fn up(&self) -> bool {
        match &self.engine {
            Engine::Memory(_) => true,
            Engine::Redis(redis) => redis.up(),
        }
    }

    /// Whether replicas must have a revocation before anybody hears of success.
    pub fn wants_replicas(&self) -> bool {
        self.shared.replicas > 0
    }

    /// How many times this process has found the store, at its start and after it was lost, or has
    /// heard that everything in it changed: what is there may be older than what was.
    pub fn risings(&self) -> u64 {
        match &self.engine {
            Engine::Memory(_) => 0,
            Engine::Redis(redis) => redis.risings(),
        }
    }

    /// Waits until this handle's connection is up, at most so long; tells whether it is.
    pub async fn wait_until_up(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.up() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.up()
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
        match self.shared.replica.is_sure() {
            true => Ok(self.clock()),
            false => self.ask_time().await,
        }
    }

    /// Asks the store for its clock.
    async fn ask_time(&self) -> Result<Millis, StoreError> {
        self.measured("now", async {
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
    pub fn replica(&self) -> &Arc<Replica> {
        &self.shared.replica
    }

    fn announce(&self, revocation: Revocation) {
        // At once: whoever hears that it is done asks this gateway next.
        self.shared.replica.apply(&revocation);
        self.spread(revocation);
    }

    /// Something was changed here: it is asked for anew.
    fn changed(&self, item: &Item) {
        self.shared.replica.changed(item, 0);
    }

    /// Tells this process of what is in force already.
    fn spread(&self, revocation: Revocation) {
        // Nobody need be listening.
        let _ = self.shared.revocations.send(revocation);
    }

    /// Runs an operation under its deadline and counts it.
    async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let work = std::pin::pin!(work);
        let done = within(self.shared.timeout, AN_ANSWER, work).await;
        let outcome = done.unwrap_or_else(|| {
            if let Engine::Redis(redis) = &self.engine {
                redis.suspect();
            }
            Err(StoreError::Timeout)
        });
        self.count(operation, started, &outcome);
        outcome
    }

    /// Runs a long operation whose single steps have the deadline, and counts it.
    async fn measured_steps<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = work.await;
        self.count(operation, started, &outcome);
        outcome
    }

    fn count<T>(&self, operation: &'static str, started: Instant, outcome: &Result<T, StoreError>) {
        let error = outcome.as_ref().err().map(|error| error.kind());
        self.shared
            .metrics
            .store_operation(operation, started.elapsed(), error);
    }
}

/// This machine's clock.
fn system_clock() -> Micros {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(0))
}
